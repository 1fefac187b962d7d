"""What of a setting does not fit into its line of meaning: for the example and the reference.

Plain text in paragraphs; a line that begins with two spaces is kept as it stands. Bounds, defaults and
choices are not repeated here: they are read off the setting.
"""

from collections.abc import Mapping
from types import MappingProxyType

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "front.listen": 'An IPv6 address stands in brackets: "[::1]:8080".',
        "front.path_prefixes": (
            'Each begins with "/" and does not end with it. Add one that no blocker knows, and give'
            " it to the clients as their apiHost."
        ),
        "front.allowed_origins": '"*" allows all.',
        "front.trusted_proxies": (
            "Your load balancer, your reverse proxy. Without them behind a proxy, all visitors seem"
            " to be in one place."
        ),
        "front.client_ip": (
            "Outlit looks a visitor's company up by it: cut, it finds fewer. An IPv4 address is cut"
            " to /24, an IPv6 address to /48."
        ),
        "front.max_pending_bytes": "Not less than max_body.",
        "front.unknown": (
            '"forward" passes events on with what is unknown in them, and counts them; "refuse" refuses them.'
        ),
        "front.unknown_key_quota": "With public_keys set, no other key gets as far.",
        "ops.listen": "Health, metrics and the status page are open to all who reach it.",
        "ops.token": "Visible ASCII, not beginning with ok_ as Outlit's own API keys do.",
        "ops.allowed_hosts": (
            '"*" allows all. In small letters and ASCII, as browsers send them, an IPv6 address in brackets.'
            " List the names under which operators and Prometheus come: else a page that a browser on this"
            " network opens can give this listener a name of its own (DNS rebinding). IP addresses,"
            " localhost and a name in ops.listen always pass, for no page can give itself those."
        ),
        "buffer.url": (
            'A file\'s absolute path has four slashes, as in "sqlite:////data/outlit-proxy.db". It'
            " belongs to one process. A Redis (or Valkey) is shared by any number of processes; the"
            " forms of its URL:\n"
            "  redis://[user[:password]@]host[:port][/db]              rediss://…, the same over"
            " TLS, with ?ca=/path/ca.pem\n"
            "  unix://[user[:password]@]/path/to.sock[?db=n]           where that authority is not"
            " one of the system's\n"
            "  redis+sentinel://[user[:password]@]host[:port],…/service[/db][?tls=true&sentinel_auth=true]\n"
            "  redis+cluster://[user[:password]@]host[:port],…[?tls=true]"
        ),
        "buffer.durability": (
            "When an event counts as kept, and its client gets an answer.\n"
            'A file: "always": on disk. "normal": faster, and a power failure (not a crash of the'
            " proxy) can lose the last moments.\n"
            'A Redis: "everysec": in the memory of Redis, and on its disk within a second. "always":'
            ' on its disk; it needs appendfsync always. "replica": in the memory of as many'
            " replicas, too, as replicas says."
        ),
        "buffer.replicas": 'With durability = "replica".',
        "buffer.wait_timeout": 'With durability = "replica", and with "always" on a Redis.',
        "buffer.max_bytes": (
            "Keep it below the disk's free space, and together with dead.max_bytes below the"
            " maxmemory of a Redis."
        ),
        "delivery.linger": "A queue of 100 events does not wait.",
        "delivery.in_flight": (
            "The quarter is for public keys that have none under way, so that upstream hanging for"
            " one key does not hold up the others."
        ),
        "delivery.rate_share": (
            "0.5 each of two. Replicas that share a Redis share one budget by themselves: leave it at 1."
        ),
        "delivery.lease": "Also how long the events of a worker that died wait.",
        "delivery.max_age": (
            "Counted from when it was accepted. Nothing else dies of age: what waits because"
            " upstream is away is tried at once when it is back."
        ),
        "delivery.on_exit": (
            '"keep": it stays in the buffer. "drain": it is sent first, as far as grace allows; for'
            " disks that do not outlive the process."
        ),
        "delivery.grace": "The supervisor's own is terminationGracePeriodSeconds, or TimeoutStopSec.",
        "gateway.api_key": (
            "Begins with ok_. Callers with such a key of their own use that. Without ops.token the gateway is"
            " off, whatever stands here."
        ),
        "gateway.tools": (
            '"*" allows all. At most 200. Metrics name the tools that are listed; all others are `other`.'
        ),
        "metrics.max_key_labels": "In the order of their first success.",
    }
)

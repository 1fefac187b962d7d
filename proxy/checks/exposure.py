"""What the settings let whom do: right each by itself, and perhaps not what was meant. Pure."""

from collections.abc import Iterator

from proxy.checklist import Checked, ok, warning
from proxy.settings import ALL, Settings, is_loopback

_EVENTS_A_REQUEST = 100


def exposure(settings: Settings) -> Iterator[Checked]:
    """Each of these choices."""
    yield _token(settings)
    if settings.ops.token is not None:
        yield from _gateway(settings)
    if not is_loopback(settings.front.listen.host):
        yield _keys(settings)
        yield _forwarding(settings)
    yield _rate(settings)


def _token(settings: Settings) -> Checked:
    if settings.ops.token is None:
        return warning(
            "ops.token",
            "not set, so administration is off (send, dead, keys, erase, tap, platform): write a secret into"
            " a file, and name that by OUTLIT_PROXY_OPS_TOKEN_FILE",
        )
    return ok("ops.token", "set: administration is on for who has it")


def _gateway(settings: Settings) -> Iterator[Checked]:
    """The Platform gateway, which is on: whom it lets do nothing, or who may come by any name."""
    if not settings.gateway.tools:
        yield warning("gateway.tools", 'empty: no tool may be called: list some, or ["*"]')
    listen = settings.ops.listen
    is_for_others = settings.gateway.api_key is not None and not is_loopback(listen.host)
    if is_for_others and ALL in settings.ops.allowed_hosts:
        yield warning(
            "ops.allowed_hosts",
            f"any name will do: who reaches {listen} with ops.token reads all that gateway.api_key can, and"
            " spends the plan: put TLS before it, and list the names by which it is called",
        )


def _keys(settings: Settings) -> Checked:
    name = "front.public_keys"
    if settings.front.public_keys:
        return ok(name, f"{len(settings.front.public_keys)} may post; every other one is refused")
    return warning(
        name,
        f"empty: whoever reaches {settings.front.listen} may post under any pk_ key, within"
        " front.unknown_key_quota: list your own keys",
    )


def _forwarding(settings: Settings) -> Checked:
    name = "front.trusted_proxies"
    if settings.front.trusted_proxies:
        return ok(name, f"addresses of clients are taken from {len(settings.front.trusted_proxies)} range(s)")
    return warning(
        name,
        "empty: right where clients connect to this host themselves; behind a load balancer or reverse proxy"
        " all visitors seem to be in one place: list its addresses",
    )


def _rate(settings: Settings) -> Checked:
    delivery = settings.delivery
    per_s = delivery.limit_per_s * delivery.rate_share
    text = f"{per_s:g} requests/s for each public key, so {per_s * _EVENTS_A_REQUEST:,.0f} events/s at most"
    if per_s < 1:
        return warning(
            "delivery.rate_share",
            f"{text}: a batch waits for {1 / per_s:.0f} s: raise delivery.rate_share or delivery.limit_per_s",
        )
    if delivery.rate_share < 1 and settings.buffer.url.is_redis:
        text += "; replicas on this Redis share that, so rate_share is for others beside them"
    return ok("delivery.rate_share", text)

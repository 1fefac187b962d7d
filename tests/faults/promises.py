"""The check after every fault: what was promised held, whatever happened in between."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.load import Client, Mark, Post, mark_of
from tests.programs import Proxy, Sandbox, wait_for

REQUEST_EVENTS = 100
REQUEST_BYTES = 1_000_000
UNWRITTEN_S = 2.5
"""For so long, while a sync lasts, an everysec Redis keeps what it has answered in its memory alone: 2 s, and
what it takes to see that they are over."""
SENDER_HEADERS = ("x-forwarded-for", "user-agent", "origin")


def assert_promises_kept(
    proxy: Proxy | Sequence[Proxy],
    sandbox: Sandbox,
    clients: Sequence[Client],
    listed: AbstractSet[str] = frozenset(),
) -> set[str]:
    """The fault is over, every client had its last post answered, and nothing is held any more.

    Nothing acknowledged is missing, altered, out of order or under somebody else's envelope; the books
    balance, at the door of each proxy and as each sees the buffer; upstream saw twice only what is, or once
    was (`listed`), listed as ambiguous. Returns the uuids that it saw twice.
    """
    proxies = [proxy] if isinstance(proxy, Proxy) else proxy
    assert not any(client.unanswered for client in clients), "to be checked when all is answered"
    requests = [request for request in sandbox.requests() if request["taken"]]
    posts = {mark: post for client in clients for post in client.posts for mark in post.events}
    for request in requests:
        _assert_one_lane(request, posts)
    arrived = [
        event for request in requests for event in (request["events"][index] for index in request["taken"])
    ]
    _assert_complete(arrived, posts, clients)
    _assert_in_order(arrived)
    for each in proxies:
        _assert_books_balance(each, len(posts))
    times = Counter(event["uuid"] for event in arrived)
    assert len(times) == len({mark_of(event) for event in arrived}), "an event arrived under two uuids"
    twice = {uuid for uuid, count in times.items() if count > 1}
    if twice:
        unsaid = twice - proxies[0].ambiguous() - listed
        assert not unsaid, (
            f"{len(unsaid)} of {len(twice)} came twice and are not listed: {sorted(unsaid)[:5]}"
        )
    return twice


def assert_kept_or_shouted(
    proxy: Proxy, sandbox: Sandbox, clients: Sequence[Client], deaths: Sequence[float]
) -> None:
    """An everysec Redis has died at `deaths`, on the monotonic clock, and the proxy has lived on.

    What Redis had not written by then it may have forgotten, but never without the proxy's saying so; nothing
    else is missing, and the books balance.
    """
    if not proxy.metrics()["outlit_proxy_buffer_lost_total"]:
        assert_promises_kept(proxy, sandbox, clients)
        return
    arrived = {mark_of(taken.event) for taken in sandbox.taken()}
    for client in clients:
        for mark, at in client.acknowledged.items():
            was_risky = any(0 <= death - at < UNWRITTEN_S for death in deaths)
            assert mark in arrived or was_risky, f"acknowledged and lost: {mark}"
    ledger = proxy.ledger()
    assert (ledger["held"], ledger["difference"]) == (0, 0)
    assert ledger["accepted"] == ledger["delivered"] + ledger["dead"] + ledger["dropped"]
    wait_for("the door's books to balance", lambda: _balances_at_the_door(proxy.metrics()))


def halves(sandbox: Sandbox, clients: Sequence[Client]) -> list[Post]:
    """The posts of which upstream has a part: a request is kept whole or not at all."""
    arrived = {mark_of(taken.event) for taken in sandbox.taken()}
    return [
        post
        for post in chain.from_iterable(client.posts for client in clients)
        if 0 < len(arrived & post.events.keys()) < len(post.events)
    ]


class Footprint(NamedTuple):
    """What a process takes of its system."""

    descriptors: int
    resident_bytes: int


def footprint(proxy: Proxy) -> Footprint:
    """Of a proxy that nobody uses: once more when it has had its share of work, to compare with."""
    process = Path(f"/proc/{proxy.program.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    return Footprint(len(list((process / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE"))


def cpu_seconds(proxy: Proxy) -> float:
    """How much of the processors' time its process has had so far."""
    behind_the_name = Path(f"/proc/{proxy.program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(behind_the_name[11]) + int(behind_the_name[12])) / os.sysconf("SC_CLK_TCK")


def assert_back_to(before: Footprint, proxy: Proxy) -> None:
    """The fault is over, and has left nothing open and no heap behind."""
    # Connections that nobody uses end by themselves, a while later.
    wait_for("what was opened to be closed", lambda: footprint(proxy).descriptors <= before.descriptors)
    after = footprint(proxy)
    assert after.resident_bytes <= 1.2 * before.resident_bytes, (before, after)


def _assert_one_lane(request: dict[str, Any], posts: dict[Mark, Post]) -> None:
    assert not request["violations"], request["violations"]
    assert len(request["events"]) <= REQUEST_EVENTS
    assert request["body_bytes"] <= REQUEST_BYTES
    headers = dict(request["headers"])
    for event in request["events"]:
        sent = posts[mark_of(event)]
        assert request["envelope"] == sent.envelope, "an event left under another's envelope"
        given = {name.lower(): value for name, value in sent.headers.items()}
        for name in SENDER_HEADERS:
            assert headers.get(name) == given.get(name), f"an event left under another's {name}"


def _assert_complete(
    arrived: list[dict[str, Any]], posts: dict[Mark, Post], clients: Sequence[Client]
) -> None:
    acknowledged = set[Mark]().union(*(client.acknowledged for client in clients))
    assert acknowledged == posts.keys(), "not all was acknowledged in the end"
    missing = acknowledged - {mark_of(event) for event in arrived}
    assert not missing, f"{len(missing)} acknowledged and lost: {sorted(missing)[:5]}"
    for event in arrived:
        mark = mark_of(event)
        posted = posts[mark].events[mark]
        assert event == {"uuid": event["uuid"], **posted}, "altered on the way"


def _assert_in_order(arrived: list[dict[str, Any]]) -> None:
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for client, user, number in dict.fromkeys(map(mark_of, arrived)):  # each where it arrived first
        numbers[client, user].append(number)
    for whose, each in numbers.items():
        assert each == sorted(each), f"out of order: {whose}: {each}"


def _assert_books_balance(proxy: Proxy, posted: int) -> None:
    ledger = proxy.ledger()
    assert ledger == {
        "accepted": posted,
        "held": 0,
        "delivered": posted,
        "dead": 0,
        "dropped": 0,
        "difference": 0,
    }
    metrics = proxy.metrics()
    for outcome in ("accepted", "held", "delivered", "dead", "dropped"):
        assert metrics[f'outlit_proxy_ledger_events{{outcome="{outcome}"}}'] == ledger[outcome]
    assert metrics["outlit_proxy_ledger_difference"] == 0
    # A request whose client has hung up, or a settlement whose answer was lost, may have outlived the drain.
    wait_for("the door's books to balance", lambda: _balances_at_the_door(proxy.metrics()))
    wait_for("nothing to be in flight", lambda: proxy.metrics()["outlit_proxy_upstream_in_flight"] == 0)


def _balances_at_the_door(metrics: dict[str, float]) -> bool:
    rejected = sum(
        value for name, value in metrics.items() if name.startswith("outlit_proxy_events_rejected_total")
    )
    return metrics["outlit_proxy_events_received_total"] == rejected + sum(
        metrics[f"outlit_proxy_events_{fate}_total"] for fate in ("accepted", "duplicate")
    )

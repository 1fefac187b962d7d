"""What was posted and what arrives: every event once, unchanged, in order, under what it was posted with."""

import asyncio
import io
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.sandbox import Fault, What
from tests.sandbox.bodies import OTHER_VISITOR, SESSION, VISITOR, client, event, server
from tests.stack import PATIENCE_S, Arrival, Stack, StartStack

RECORDED = Path(__file__).parent.parent / "data" / "recorded"
OTHER_SESSION = "0190a1b2-0000-7000-8000-000000000002"


def envelope_of(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "events"}


def without_uuid(posted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in posted.items() if name != "uuid"}


# -- batches and order -------------------------------------------------------------------------------------


async def test_a_request_of_520_events_leaves_as_requests_of_at_most_100_in_order(stack: Stack) -> None:
    sent = [event("custom", number=n, properties={"n": n}) for n in range(520)]
    reply = await stack.post(client(*sent, sessionId=SESSION))
    assert (reply.status, reply.json["processed"]) == (200, 520)
    assert [arrival.event for arrival in await stack.arrived(520)] == sent
    assert [len(entry.events) for entry in stack.entries] == [100, 100, 100, 100, 100, 20]
    assert all(entry.envelope == envelope_of(client(sessionId=SESSION)) for entry in stack.entries)


@pytest.mark.parametrize("envelope", [{}, {"unknown": "y" * 20_000}], ids=["small", "large"])
async def test_no_request_is_larger_than_upstream_takes(stack: Stack, envelope: dict[str, Any]) -> None:
    sent = [event("custom", number=n, properties={"a": "x" * 28_000}) for n in range(100)]
    assert (await stack.post(client(*sent, **envelope))).status == 200
    assert [arrival.event for arrival in await stack.arrived(100)] == sent
    assert all(entry.body_bytes <= 1_000_000 for entry in stack.entries)
    assert len(stack.entries) == 3


async def test_two_visitors_in_turn_never_share_a_request(start_stack: StartStack) -> None:
    stack = await start_stack(delivery={"linger_s": 0.2})
    for number in range(20):
        visitor = (VISITOR, OTHER_VISITOR)[number % 2]
        assert (await stack.post(client(event(number=number), visitorId=visitor))).status == 200
    arrived = defaultdict(list)
    for arrival in await stack.arrived(20):
        arrived[arrival.envelope["visitorId"]].append(arrival.event["uuid"])
    assert dict(arrived) == {
        VISITOR: [event(number=n)["uuid"] for n in range(0, 20, 2)],
        OTHER_VISITOR: [event(number=n)["uuid"] for n in range(1, 20, 2)],
    }
    assert len(stack.entries) < 20, "what one visitor posts in a row does share requests"


async def test_two_tabs_of_a_visitor_are_two_lanes_in_one_order(start_stack: StartStack) -> None:
    stack = await start_stack(delivery={"linger_s": 0.2})
    sessions = [SESSION, SESSION, OTHER_SESSION, SESSION, OTHER_SESSION, OTHER_SESSION]
    for number, session in enumerate(sessions):
        assert (await stack.post(client(event(number=number), sessionId=session))).status == 200
    arrived = await stack.arrived(6)
    assert [arrival.event for arrival in arrived] == [event(number=n) for n in range(6)]
    assert [arrival.envelope["sessionId"] for arrival in arrived] == sessions
    assert [len(entry.events) for entry in stack.entries] == [2, 1, 1, 2]


async def test_an_identify_does_not_overtake_the_visitors_page_views_over_an_outage(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=429, requests=1))
    for number in range(6):
        identity = {"userIdentity": {"email": "a@b.co"}} if number >= 3 else {}
        assert (await stack.post(client(event(number=number), **identity))).status == 200
    arrived = await stack.arrived(6)
    assert [arrival.event for arrival in arrived] == [event(number=n) for n in range(6)]
    assert ["userIdentity" in arrival.envelope for arrival in arrived] == [False] * 3 + [True] * 3


async def test_server_traffic_keeps_each_user_in_order_in_at_most_16_requests(stack: Stack) -> None:
    sent = [event("custom", number=n, userId=f"user {n % 40}", properties={"n": n}) for n in range(400)]
    assert (await stack.post(server(*sent))).json["processed"] == 400
    of_user = defaultdict(list)
    for arrival in await stack.arrived(400):
        of_user[arrival.event["userId"]].append(arrival.event["properties"]["n"])
    assert len(of_user) == 40
    for numbers in of_user.values():
        assert numbers == sorted(numbers)
    assert 8 < len(stack.entries) <= 16, "16 can fly at once, and no more are made of it"


async def test_events_of_a_server_that_names_a_user_for_all_stay_in_one_order(stack: Stack) -> None:
    sent = [event("custom", number=n, userId=f"user {n}") for n in range(50)]
    assert (await stack.post(server(*sent, userIdentity={"userId": "u"}))).status == 200
    assert [arrival.event for arrival in await stack.arrived(50)] == sent


# -- unchanged ---------------------------------------------------------------------------------------------

ODD = {
    "a cut emoji": '"x\\ud83d"',
    "a cut emoji as a name": '{"\\ud83d": 1}',
    "NUL": '"\\u0000"',
    "beyond 2^64": "1180591620717411303424",
    "400 digits": "1" + "0" * 400,
    "28 KB": json.dumps({f"n{n}": {"deep": ["x" * 60, n, None]} for n in range(300)}),
    "200 levels": "[" * 198 + "]" * 198,
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("place", ['"events": [%s]', '"whatever": %s, "events": [%s]'])
async def test_odd_but_valid_values_arrive_as_they_were_sent(stack: Stack, value: str, place: str) -> None:
    """In an event and in the envelope: a value there must not keep the request in the buffer for good."""
    sent = json.dumps(event("custom", properties={"a": "?"})).replace('"?"', value)
    values = (value, sent) if "whatever" in place else (sent,)
    text = json.dumps(client(events=...))[:-1] + ", " + place % values + "}"
    assert (await stack.post(text.encode())).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.event == json.loads(sent)
    assert arrival.envelope == envelope_of(json.loads(text))


@pytest.mark.parametrize("timestamp", [2**70, 10**400, -(10**400), 1e308, -1e308, 0, 1.5])
async def test_no_timestamp_is_too_odd_to_be_kept(stack: Stack, timestamp: float) -> None:
    assert (await stack.post(client(event(timestamp=timestamp)))).status == 200
    assert (await stack.arrived(1))[0].event["timestamp"] == timestamp


async def test_a_lone_surrogate_in_an_identity_arrives(stack: Stack) -> None:
    body = client(userIdentity={"userId": "x\ud83d", "traits": {"name": "\udc00", "n": 2**70}})
    assert (await stack.post(body)).status == 200
    assert (await stack.arrived(1))[0].envelope == envelope_of(body)


async def test_what_cannot_be_kept_spoils_its_own_event_only(stack: Stack) -> None:
    odd = ["NaN", "1e400", "[" * 10**5 + "]" * 10**5, "9" * 5_000, '"\\ud83d"']
    texts = [
        json.dumps(event("custom", number=n, properties={"a": "?"})).replace('"?"', v)
        for n, v in enumerate(odd)
    ]
    text = json.dumps(client(events=...))[:-1] + f', "events": [{",".join(texts)}]}}'
    reply = await stack.post(text.encode())
    assert (reply.status, reply.json["processed"]) == (207, 1)
    assert [error["index"] for error in reply.json["errors"]] == [0, 1, 2, 3]
    assert (await stack.arrived(1))[0].event == json.loads(texts[4])


@pytest.mark.parametrize("file", ["payloads-node-1.1.0.jsonl", "payloads-rust-shape.jsonl"])
async def test_every_recorded_body_is_taken_whole_and_arrives_unchanged_but_for_uuids(
    stack: Stack, file: str
) -> None:
    bodies = [json.loads(line) for line in (RECORDED / file).read_bytes().splitlines()]
    for body in bodies:
        reply = await stack.post(body)
        assert (reply.status, reply.json) == (200, {"success": True, "processed": len(body["events"])})
    posted = [(body, sent) for body in bodies for sent in body["events"]]
    arrived = await stack.arrived(len(posted))
    assert all(arrival.event["uuid"] for arrival in arrived)
    assert len({arrival.event["uuid"] for arrival in arrived}) == len(posted)

    def as_text(envelope: Mapping[str, Any], sent: Mapping[str, Any]) -> str:
        return json.dumps([envelope, without_uuid(sent)], sort_keys=True)

    assert sorted(as_text(arrival.envelope, arrival.event) for arrival in arrived) == sorted(
        as_text(envelope_of(body), sent) for body, sent in posted
    )


async def test_a_refused_identity_address_does_not_cost_the_visit(stack: Stack) -> None:
    """The browser client puts what a visitor typed into every later envelope of the visit."""
    for number in range(3):
        body = client(event(number=number), userIdentity={"email": "ann@localhost", "userId": "u"})
        reply = await stack.post(body)
        assert (reply.status, reply.json["success"], reply.json["processed"]) == (200, True, 1)
        assert "userIdentity.email" in reply.json["errors"][0]["message"]
    arrived = await stack.arrived(3)
    assert [arrival.event for arrival in arrived] == [event(number=n) for n in range(3)]
    assert all(arrival.envelope["userIdentity"] == {"userId": "u"} for arrival in arrived)
    assert (await stack.metrics())("envelope_repaired_total", field="userIdentity") == 3


async def test_a_password_behind_a_doubled_key_arrives_nowhere(stack: Stack, logs: io.StringIO) -> None:
    text = json.dumps(client(event("form")))
    first, last = '{"password": "hunter2"}', '{"p\\u0061ssword": "hunter2", "a": "b"}'
    doubled = f'"type": "form", "formFields": {first}, "formFields": {last}'
    text = text.replace('"type": "form"', doubled).replace("/pricing", "/pricing?%74oken=hunter2")
    assert (await stack.post(text.encode())).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.event["formFields"] == {"a": "b"}
    assert arrival.event["url"].endswith("?%74oken=redacted")
    assert b"hunter2" not in stack.stored_bytes()
    assert "hunter2" not in logs.getvalue()
    assert stack.entries[0].violations == ()


async def test_a_missing_timestamp_is_the_time_of_receipt_and_not_of_delivery(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=429, requests=1))
    assert (await stack.post(client(event(timestamp=...)))).status == 200
    (arrival,) = await stack.arrived(1)
    first, second = (entry.received_at for entry in stack.entries)
    assert second - first >= 0.2, "it was delivered at the second try only"
    assert arrival.event["timestamp"] / 1000 <= first


# -- sent again --------------------------------------------------------------------------------------------

BARE = [event("custom", uuid=..., properties={"n": n}) for n in range(4)]
TWINS = [event("custom", uuid=..., properties={"n": 0})] * 3
MARKED = [event("custom", number=n) for n in range(4)]
ODD_ONES = [event("custom", uuid=..., properties={"cut": "x\ud83d"}), event("new_type", uuid=..., a=1)]


@pytest.mark.parametrize("posted", [BARE, TWINS, MARKED, ODD_ONES], ids=["bare", "twins", "marked", "odd"])
@pytest.mark.parametrize("envelope", [client, server], ids=["client", "server"])
async def test_a_post_sent_again_is_counted_duplicate(stack: Stack, posted: list[Any], envelope: Any) -> None:
    identity = {"userIdentity": {"userId": "u"}}
    for _ in range(3):
        reply = await stack.post(envelope(*posted, **identity))
        assert (reply.status, reply.json) == (200, {"success": True, "processed": len(posted)})
    arrived = await stack.arrived(len(posted))
    assert [without_uuid(arrival.event) for arrival in arrived] == [without_uuid(sent) for sent in posted]
    assert len({arrival.event["uuid"] for arrival in arrived}) == len(posted)
    seen = await stack.metrics()
    assert (seen("events_accepted_total"), seen("events_duplicate_total")) == (len(posted), 2 * len(posted))


NEW = event("custom", number=77)
COMPANY: dict[str, tuple[list[Any], int]] = {
    "alone": ([], 0),
    "beside a good one": ([NEW], 1),
    "beside a cut emoji": ([{**NEW, "properties": {"cut": "x\ud83d"}}], 1),
    "beside an unknown type and junk": ([{**NEW, "type": "new_type"}, "junk", event(path=7)], 1),
    "beside NaN": ([{**NEW, "properties": {"a": float("nan")}}], 0),
}


@pytest.mark.parametrize(("company", "new"), COMPANY.values(), ids=COMPANY.keys())
@pytest.mark.parametrize("posted", [BARE, MARKED, ODD_ONES], ids=["bare", "marked", "odd"])
@pytest.mark.parametrize("spelling", ["plain", "doubled"])
async def test_events_sent_again_in_another_request_are_counted_duplicate(
    stack: Stack, company: list[Any], new: int, posted: list[Any], spelling: str
) -> None:
    """A client that got no answer puts its events back and sends them later, with what came since."""

    def text(events: list[Any]) -> bytes:
        body = json.dumps(client(*events))
        return (
            body.replace('"path"', '"path": 7, "path"').encode() if spelling == "doubled" else body.encode()
        )

    assert (await stack.post(text(posted))).json["processed"] == len(posted)
    for event_again in posted:
        assert (await stack.post(text([*company, event_again]))).json["processed"] == 1 + new
    seen = await stack.metrics()
    assert seen("events_accepted_total") == len(posted) + new
    assert seen("events_duplicate_total") == len(posted) + new * (len(posted) - 1)
    await stack.arrived(len(posted) + new)


async def test_equal_events_of_one_request_without_uuids_are_all_kept(stack: Stack) -> None:
    """Somebody clicked three times within a millisecond: nothing says that it is one event."""
    await stack.post(client(*TWINS))
    assert len({arrival.event["uuid"] for arrival in await stack.arrived(3)}) == 3


async def test_an_event_without_uuid_and_timestamp_is_new_each_time(stack: Stack) -> None:
    for _ in range(2):
        await stack.post(client(event(uuid=..., timestamp=...)))
    assert len({arrival.event["uuid"] for arrival in await stack.arrived(2)}) == 2


async def test_another_event_under_a_uuid_used_before_is_kept(stack: Stack) -> None:
    await stack.post(client(event(number=1, title="a")))
    await stack.post(client(event(number=1, title="b")))
    assert [arrival.event["title"] for arrival in await stack.arrived(2)] == ["a", "b"]


async def test_an_event_is_known_again_under_a_new_session_but_not_of_another_visitor_or_key(
    stack: Stack,
) -> None:
    sent = event(number=1)
    await stack.post(client(sent, sessionId=SESSION))
    await stack.post(client(sent, sessionId=OTHER_SESSION))
    await stack.post(client(sent, visitorId=OTHER_VISITOR))
    await stack.post(client(sent), "pk_other")
    arrived = await stack.arrived(3)
    assert sorted((arrival.key, arrival.envelope["visitorId"]) for arrival in arrived) == [
        ("pk_other", VISITOR),
        ("pk_test", VISITOR),
        ("pk_test", OTHER_VISITOR),
    ]


async def test_many_clients_at_once_each_get_their_own_count(stack: Stack) -> None:
    async def one(number: int) -> None:
        visitor = f"0190a1b2-c3d4-7e5f-8a6b-{number:012d}"
        events = [event(number=number * 10 + n) for n in range(number % 5 + 1)]
        reply = await stack.post(client(*events, visitorId=visitor))
        assert (reply.status, reply.json["processed"]) == (200, len(events))

    await asyncio.gather(*map(one, range(100)))
    arrived = await stack.arrived(sum(number % 5 + 1 for number in range(100)))
    for arrival in arrived:
        number = int(arrival.event["uuid"][-12:]) // 10
        assert arrival.envelope["visitorId"].endswith(f"{number:012d}")


# -- never under another's name ----------------------------------------------------------------------------

# Small pools of values that look alike, so that what must not meet comes close.
ALIKE = st.sampled_from([1, True, "1", 1.0, "", None, 0, False, "true", "é", "e\u0301", "x\ud83d"])
IDENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "userId": st.sampled_from(["1", "01", "true", "u", "U"]),
        "email": st.sampled_from(["a@b.co", "A@b.co"]),
        "traits": st.dictionaries(st.sampled_from(["a", "b"]), ALIKE, max_size=2),
    },
)
VISITORS = st.sampled_from([VISITOR, OTHER_VISITOR, VISITOR.upper()])
EXTRAS = {
    "sessionId": st.sampled_from([SESSION, OTHER_SESSION]),
    "fingerprint": st.sampled_from(["1", "f"]),
    "userIdentity": IDENTITIES,
    "customerIdentity": st.fixed_dictionaries({}, optional={"customerId": st.sampled_from(["1", "c"])}),
    "unknown": ALIKE,
}
ENVELOPES = st.one_of(
    st.fixed_dictionaries({"visitorId": VISITORS}, optional={"source": st.just("client"), **EXTRAS}),
    st.fixed_dictionaries(
        {"source": st.sampled_from(["server", "integration"])}, optional={"visitorId": VISITORS, **EXTRAS}
    ),
)
HEADERS = st.fixed_dictionaries(
    {"X-Forwarded-For": st.sampled_from(["198.51.100.1", "198.51.100.10", "2001:db8::1"])},
    optional={
        "User-Agent": st.sampled_from(["", "agent", "Agent", "agent/1", "café", "cafe\u0301"]),
        "Origin": st.sampled_from(["https://a.example", "https://b.example", "null"]),
    },
)


def stood_around(envelope: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Everything that applies to an event, as a text in which 1, 1.0, "1" and true differ."""
    named = {name.lower(): value for name, value in headers.items()}
    sent_on = {name: named.get(name) for name in ("x-forwarded-for", "user-agent", "origin")}
    return json.dumps([envelope, sent_on], sort_keys=True)


def one_sender(sender: tuple[Mapping[str, Any], Mapping[str, str]]) -> str:
    return stood_around(*sender)


@st.composite
def senders_alike(draw: st.DrawFn) -> list[Any]:
    """Up to six senders, most of which differ from another in one field or header alone."""
    any_sender: st.SearchStrategy[Any] = st.tuples(ENVELOPES, HEADERS)
    senders = [draw(any_sender)]
    for _ in range(draw(st.integers(0, 5))):
        envelope, headers = draw(st.sampled_from(senders))
        other_envelope, other_headers = draw(any_sender)
        name = draw(st.sampled_from([*EXTRAS, "visitorId", "X-Forwarded-For", "User-Agent", "Origin", "all"]))
        if name == "all":
            envelope, headers = other_envelope, other_headers
        elif name in ("X-Forwarded-For", "User-Agent", "Origin"):
            headers = {**headers, name: other_headers.get(name)}
        elif name != "visitorId" or "visitorId" in other_envelope:
            envelope = {**envelope, name: other_envelope.get(name)}
        senders.append(
            tuple({n: v for n, v in part.items() if v is not None} for part in (envelope, headers))
        )
    return list({one_sender(sender): sender for sender in senders}.values())


async def test_no_event_arrives_under_what_another_was_posted_with(start_stack: StartStack) -> None:
    """Random envelopes and headers, interleaved and at once, over answers that make batches go again."""
    stack = await start_stack(front={"trusted_proxies": ("127.0.0.0/8",)}, delivery={"linger_s": 0.03})
    loop = asyncio.get_running_loop()
    made = iter(range(10**6))

    async def one_example(senders: list[Any], turns: list[tuple[int, int]]) -> None:
        stack.sandbox.record.clear()
        expected: dict[str, str] = {}
        order: dict[tuple[str, str | None], list[str]] = defaultdict(list)

        async def posts(turns: list[tuple[int, int]]) -> None:
            for at, events in turns:
                envelope, headers = senders[at % len(senders)]
                numbers = [next(made) for _ in range(events)]
                sent = [event("custom", number=n, userId=f"u{n % 3}", properties={"n": n}) for n in numbers]
                for one in sent:
                    expected[one["uuid"]] = stood_around(envelope, headers)
                    order[stood_around(envelope, headers), one["userId"]].append(one["uuid"])
                reply = await stack.post({**envelope, "events": sent}, headers=headers)
                assert (reply.status, reply.json["processed"]) == (200, events)

        # Those of one sender one after the other, the senders at once.
        await asyncio.gather(
            *(posts([turn for turn in turns if turn[0] % len(senders) == at]) for at in range(len(senders)))
        )
        arrived: list[Arrival] = await stack.arrived(len(expected))
        assert {
            arrival.event["uuid"]: stood_around(arrival.envelope, arrival.headers) for arrival in arrived
        } == expected
        in_order = defaultdict(list)
        for arrival in arrived:
            place = stood_around(arrival.envelope, arrival.headers), arrival.event["userId"]
            in_order[place].append(arrival.event["uuid"])
        assert in_order == order

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        senders_alike(), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=10)
    )
    def examples(senders: list[Any], turns: list[tuple[int, int]]) -> None:
        asyncio.run_coroutine_threadsafe(one_example(senders, turns), loop).result(PATIENCE_S)

    stack.fault(Fault(what=What.STATUS, status=429, requests=5, retry_after_s=0))
    await asyncio.to_thread(examples)

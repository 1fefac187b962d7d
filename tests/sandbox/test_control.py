"""The control endpoints."""

import json

import pytest

from tests.sandbox.bodies import client, event


async def test_the_record_is_given_as_lines_above_a_number(post, sandbox, control):
    for number in range(3):
        await post(client(event("custom", number, properties={"cut": "\ud83d"})))
    status, text = await control("GET", "record")
    assert status == 200
    assert text.isascii()
    assert text.splitlines() == [entry.line() for entry in sandbox.record.entries]
    _, text = await control("GET", "record?since=2")
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [3]
    assert await control("GET", "record?since=3") == (200, "")


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=", "from=1", "since=1&until=2"])
async def test_a_wrong_parameter_is_refused(control, query):
    status, text = await control("GET", f"record?{query}")
    assert status == 400
    assert "since" in json.loads(text)["error"]


async def test_the_record_can_be_emptied(post, sandbox, control):
    await post(client())
    assert await control("DELETE", "record") == (200, '{"cleared": 1}')
    assert await control("GET", "record") == (200, "")
    assert sandbox.record.stats.requests == {}


async def test_stats_count_requests_events_and_violations(post, control, clock):
    await post(client(event(number=0), event(number=1, path=...)))
    await post(b"{")
    clock.now += 1
    await post(client(event(uuid=...)))
    status, text = await control("GET", "stats")
    assert status == 200
    assert json.loads(text) == {
        "requests": {"207": 1, "400": 1, "200": 1},
        "elsewhere": 0,
        "events_taken": 2,
        "limited": 0,
        "busiest_second": 2,
        "violations": {"event": 1, "request": 1, "no_uuid": 1},
        "unrecorded": 0,
        "strangers": {"taken": {}, "limited": {}},
        "platform": {"requests": {}, "executed": {}, "violations": {}, "unrecorded": 0},
    }


async def test_faults_are_switched_on_listed_and_off_while_it_runs(post, control, clock):
    order = [
        {"what": "status", "status": 503, "retry_after_s": 2, "requests": 1, "public_key": "pk_test"},
        {"what": "refuse", "paths": [["events", 0, "type"]], "seconds": 5, "latency_ms": 1},
    ]
    status, text = await control("POST", "faults", order)
    assert status == 200
    shown = [
        {**order[0], "since": clock.now, "until": None, "left": 1},
        {**order[1], "since": clock.now, "until": clock.now + 5, "left": None},
    ]
    assert json.loads(text) == shown
    assert json.loads((await control("GET", "faults"))[1]) == shown

    assert (await post(client())).headers["Retry-After"] == "2"
    assert (await post(client())).body["errors"][0]["path"] == ["events", 0, "type"]
    assert await control("DELETE", "faults") == (200, '{"cleared": 1}')
    assert (await post(client())).status == 200
    assert await control("GET", "faults") == (200, "[]")


async def test_one_fault_may_come_without_an_array(post, control):
    assert (await control("POST", "faults", {"what": "refuse_indices", "indices": [0]}))[0] == 200
    assert (await post(client())).status == 207


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (b"{", "not JSON"),
        (b'{"what": "hang", "what": "reset"}', "stands twice"),
        ("hang", "JSON object"),
        ([["hang"]], "JSON object"),
        ({}, "needs what: one of latency, status"),
        ([{"what": "hang"}, {}], "faults[1]: Each of faults needs what"),
        ({"what": "resets"}, "Unknown fault 'resets'. Did you mean reset?"),
        ({"what": "zzz"}, "Known: latency, status"),
        ({"what": ["hang"]}, "what must be a string"),
        ({"what": "status", "staus": 500}, "Unknown name 'staus'. Did you mean status?"),
        ({"what": "status", "status": "500"}, "status must be an integer"),
        ({"what": "status", "status": True}, "status must be an integer"),
        ({"what": "status", "status": 200}, "status must be 300 to 599"),
        ({"what": "hang", "seconds": "5"}, "seconds must be a number"),
        ({"what": "hang", "requests": None}, "requests must be an integer"),
        ({"what": "hang", "indices": [1]}, "hang takes no indices"),
        ({"what": "refuse_indices", "indices": [0, [1]]}, "array of integers"),
        ({"what": "refuse_indices", "indices": {"0": 1}}, "array of integers"),
        ({"what": "status", "statuses": [503, "429"]}, "each of statuses must be an integer"),
        ({"what": "refuse", "uuid": "u", "names": "path"}, "Did you mean paths?"),
        ({"what": "headers", "headers": {"Date": 1}}, "headers: Date must be a string"),
        ({"what": "refuse", "paths": ["events"]}, "array of paths"),
        ({"what": "refuse", "paths": [["events", None]]}, "strings and integers"),
        ([{"what": "hang"}, {"what": "oops"}], "Unknown fault"),
        ([{"what": "hang"}] * 101, "At most 100"),
    ],
    ids=lambda value: ascii(value)[:50],
)
async def test_a_wrong_order_is_refused_with_its_reason_and_switches_nothing_on(control, order, message):
    status, text = await control("POST", "faults", order)
    assert status == 400
    assert message in json.loads(text)["error"]
    assert await control("GET", "faults") == (200, "[]")


async def test_controls_take_nothing_from_the_limit_and_leave_no_entry(post, sandbox, control):
    await control("GET", "stats")
    assert (await post(client())).headers["X-RateLimit-Remaining"] == "99"
    assert len(sandbox.record.entries) == 1


async def test_an_unknown_control_is_not_found(control):
    assert (await control("GET", "recrod"))[0] == 404
    assert (await control("POST", "stats"))[0] == 404

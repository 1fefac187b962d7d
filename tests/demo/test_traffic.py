"""What generated clients say: as varied as real traffic, and with all that the comparison needs."""

import json
from collections import Counter
from random import Random

import pytest

from proxy.demo.comparison import canonical, content_of
from proxy.demo.marks import SECRET, Marks
from proxy.demo.traffic import Backend, Post, Visitor

MARKS = Marks("run1")
NOW_MS = 1_700_000_000_000


def visits(count: int) -> list[list[Post]]:
    """The posts of so many visits, each from its first to its last."""
    rng = Random(7)
    found = []
    for number in range(count):
        visitor = Visitor(MARKS, f"v{number}", rng)
        posts = []
        while not visitor.has_left:
            posts.append(visitor.flush(NOW_MS))
        found.append(posts)
    return found


@pytest.fixture(scope="module")
def visited() -> list[list[Post]]:
    return visits(40)


@pytest.fixture(params=[False, True], ids=["new", "old"])
def flushed(request) -> list[Post]:
    backend = Backend(MARKS, "s1", Random(7), is_old=request.param, customer=None)
    return [backend.flush(NOW_MS) for _ in range(10)]


def test_each_event_can_be_known_again_by_its_marker(visited, flushed):
    markers = []
    for post in [*(post for visit in visited for post in visit), *flushed]:
        events = json.loads(post.body)["events"]
        assert [MARKS.find(event) for event in events] == [event.marker for event in post.events]
        markers += [event.marker for event in post.events]
    assert len(markers) == len(set(markers)) > 2_000


def test_numbers_rise_by_one_within_each_stream(visited, flushed):
    last: Counter[str] = Counter()
    for post in [*(post for visit in visited for post in visit), *flushed]:
        for event in post.events:
            last[event.stream] += 1
            assert event.number == last[event.stream]


def test_an_event_is_expected_as_it_was_posted_but_for_uuid_and_password(visited):
    forms = 0
    for post in (post for visit in visited for post in visit):
        for sent, expected in zip(json.loads(post.body)["events"], post.events, strict=True):
            assert sent.get("uuid") == expected.uuid
            if sent["type"] == "form":
                forms += 1
                assert sent["formFields"].pop("password").startswith(SECRET)
            assert content_of(sent) == expected.content
            assert SECRET not in expected.content
    assert forms > 100


def test_the_sender_is_what_the_request_says(visited):
    for post in (post for visit in visited for post in visit):
        body = json.loads(post.body)
        del body["events"]
        (sender,) = {event.sender for event in post.events}
        assert sender.envelope == canonical(body)
        assert (sender.client_ip, sender.user_agent, sender.origin) == (
            post.headers["X-Forwarded-For"],
            post.headers["User-Agent"],
            post.headers["Origin"],
        )


def test_a_visitor_is_known_from_the_post_after_it_said_who_it_is(visited):
    identified = 0
    for visit in visited:
        said = False
        for post in visit:
            body = json.loads(post.body)
            assert ("userIdentity" in body) == said
            said = said or any(event["type"] == "identify" for event in body["events"])
        identified += said
    assert identified > 10


def test_visits_are_of_every_kind(visited):
    bodies = [[json.loads(post.body) for post in visit] for visit in visited]
    types = Counter(event["type"] for visit in bodies for body in visit for event in body["events"])
    with_uuids = [all("uuid" in event for body in visit for event in body["events"]) for visit in bodies]
    assert types.keys() == {"pageview", "custom", "form", "engagement", "identify"}
    assert 0 < sum(with_uuids) < len(visited)
    assert any(len({body["sessionId"] for body in visit}) > 1 for visit in bodies)


def test_a_server_names_its_users_in_the_events_and_posts_up_to_300_at_once(flushed):
    bodies = [json.loads(post.body) for post in flushed]
    assert all(body.keys() == {"source", "events"} for body in bodies)
    assert max(len(body["events"]) for body in bodies) == 300
    for event in (event for body in bodies for event in body["events"]):
        assert event.get("userId") or event["properties"]["__userId"]


def test_a_planted_event_is_the_next_one_and_the_only_one_of_its_name():
    visitor = Visitor(MARKS, "v1", Random(1))
    visitor.plant("poison_named")
    names = [
        event.get("eventName") for _ in range(5) for event in json.loads(visitor.flush(NOW_MS).body)["events"]
    ]
    assert names[0] == "poison_named"
    assert set(names[1:]) <= {"added_to_cart", None}

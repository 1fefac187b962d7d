"""The promises, checked on what a whole run left behind. Each check raises Broken where its own is broken."""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from proxy.buffer import Batch, DeadLetter, KeyFigures
from proxy.lanes import Lane
from proxy.ledger import Dead
from proxy.wire.limits import EVENTS_PER_REQUEST, REQUEST_BYTES, PublicKey
from tests.simulation.evidence import Broken, Claim, Evidence, Met, Post, Request
from tests.simulation.plan import Plan
from tests.simulation.upstream import ANSWER_S, UNNAMED, refuses_envelope, refuses_event

VERB_TRIPS = 12
"""A delivery's ways to the buffer and back, and its waits for the disk: claim, read, settle."""

_SLACK_S = 5.0

_MOST_OF_LIMIT = 1.25
"""Of the limit, claimed in one second of no particular beginning: windows are spent faster than they come."""

_MOST_BESIDE = 2


_REFUSALS = frozenset({400, 409, 413, 422})

_REASONS = frozenset({Dead.REFUSED, Dead.ENVELOPE_REFUSED, Dead.POISON})
"""Of a dead letter, where nothing is held for days, and every key is taken in the end."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What the buffer says when all is delivered."""

    figures: Mapping[PublicKey, KeyFigures]
    letters: Sequence[DeadLetter]
    ambiguous: Sequence[Batch]


@dataclass(frozen=True, slots=True)
class Calm:
    """When nothing went wrong any more and nothing was held.

    Requests made until then, the moment, and the lowest of the keys' rates.
    """

    requests: int
    from_s: float
    rate_per_s: float


def check_all(evidence: Evidence, left: Leftovers, limit_per_s: int) -> None:
    """Check every promise. Raises Broken."""
    posts = {event["path"]: post for post in evidence.posts for event in post.events}
    check_requests(evidence.requests, posts)
    check_every_event_has_an_end(evidence, left, posts)
    refused = refused_marks(evidence) if evidence.met[Met.REPLAY] else set()
    check_order(evidence, posts, replayed=refused)
    check_doubles(evidence, left)
    check_nothing_is_sent_again(evidence, replayed=refused)
    check_rate(evidence, limit_per_s)
    check_pauses(evidence)


def check_requests(requests: Iterable[Request], posts: Mapping[str, Post]) -> None:
    """2. Each event left under its own envelope, address, User-Agent and Origin, within the limits."""
    for request in requests:
        if len(request.events) > EVENTS_PER_REQUEST or request.body_bytes > REQUEST_BYTES:
            raise Broken(
                f"request {request.number} is too large: {len(request.events)} events,"
                f" {request.body_bytes} bytes"
            )
        sent = (request.key, request.envelope, request.client_ip, request.user_agent, request.origin)
        for event in request.events:
            post = posts.get(event["path"])
            if post is None:
                raise Broken(f"request {request.number} holds an event that nobody posted: {event}")
            sender = post.sender
            posted = (post.key, post.envelope, sender.client_ip, sender.user_agent, sender.origin)
            if sent != posted:
                raise Broken(
                    f"misattributed: {event['path']} was posted under {posted} and left under {sent}"
                    f" in request {request.number}"
                )


def check_every_event_has_an_end(evidence: Evidence, left: Leftovers, posts: Mapping[str, Post]) -> None:
    """1 and 4. What was acknowledged is upstream or a dead letter, unchanged, and the books say the same."""
    upstream = {arrival.event["path"]: arrival.event for arrival in evidence.arrivals}
    dead = {event["path"]: event for event in (json.loads(letter.text) for letter in left.letters)}
    refused = refused_marks(evidence)
    # What was taken unseen may be refused when it comes again, while upstream refuses everything.
    if both := (upstream.keys() & dead.keys()) - refused:
        raise Broken(f"taken upstream and a dead letter too: {sorted(both)[:5]}")
    if len(dead) != len(left.letters):
        raise Broken(f"{len(left.letters)} dead letters of {len(dead)} events")
    for letter in left.letters:
        _check_letter(letter, posts, refused)
        evidence.met[Met.FOUND] += json.loads(letter.text).get("referrer") == UNNAMED
    dropped = sum(of.books.dropped for of in left.figures.values())
    evidence.met[Met.DEAD] += len(dead) + dropped
    evidence.met[Met.DROPPED] += dropped
    _check_acknowledged(evidence.posts, upstream | dead, dropped, refused)
    for key, of in left.figures.items():
        taken = {mark for mark in upstream if mark not in dead and posts[mark].key == key}
        letters = sum(posts[mark].key == key for mark in dead)
        # Of one that was taken unseen, and refused when it came again, a bound may have dropped the letter.
        unseen = len(taken) - of.books.delivered
        if (of.books.held, of.books.dead) != (0, letters) or not (
            0 <= unseen <= min(of.books.dropped, len(taken & refused))
        ):
            raise Broken(
                f"{of.books} of {key}, but upstream has {len(taken)}, and {letters} are dead letters"
            )
    accepted = sum(of.books.accepted for of in left.figures.values())
    if (
        not evidence.met[Met.LOST_APPEND] + evidence.met[Met.RESENT]
        and accepted != evidence.accepted_at_doors
    ):
        raise Broken(f"the doors counted {evidence.accepted_at_doors} accepted, the buffer {accepted}")


def refused_marks(evidence: Evidence) -> set[str]:
    """The events that upstream never takes, and those that nobody could tell from them.

    While upstream refuses everything, these are of a queue that is the only one in its key, or of a head that
    was refused before for another reason: between the two refusals others were taken.
    """
    refused = {
        event["path"]
        for post in evidence.posts
        for event in post.events
        if refuses_event(event) or refuses_envelope(post.envelope)
    }
    reasons: dict[str, set[int]] = defaultdict(set)
    for request in evidence.requests:
        marks = {event["path"] for event in request.events}
        for mark in marks if request.status in _REFUSALS else ():
            reasons[mark].add(request.slip)
        if request.slip and (not request.claim.others or any(len(reasons[mark]) > 1 for mark in marks)):
            refused |= marks
    return refused


def _check_acknowledged(
    posts: Iterable[Post], found: Mapping[str, Mapping[str, Any]], dropped: int, refused: Container[str]
) -> None:
    missing = []
    for post in posts:
        for event in post.events:
            if event["path"] in found:
                _check_contents(event, found[event["path"]])
            elif post.accepted_at is not None:  # a 2xx left, whether or not its client was there to hear it
                missing.append((event["path"], event["path"] in refused))
    # What a bound dropped were dead letters: of events that upstream refuses.
    if missing and (len(missing) > dropped or not all(is_refused for _, is_refused in missing)):
        marks = [mark for mark, _ in missing]
        raise Broken(f"acknowledged and lost: {marks[:5]}, {len(marks)} in all; dropped: {dropped}")


def _check_contents(posted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """As it was posted; a missing uuid and a missing timestamp were filled in."""
    if {"timestamp": found.get("timestamp"), "uuid": found.get("uuid"), **posted} != found:
        raise Broken(f"changed on its way: {posted} became {found}")


def _check_letter(letter: DeadLetter, posts: Mapping[str, Post], refused: Container[str]) -> None:
    event = json.loads(letter.text)
    post = posts[event["path"]]
    lane = Lane.of_header(letter.lane_header)
    kept = (letter.key, json.loads(lane.envelope), lane.client_ip, lane.user_agent, lane.origin)
    sender = post.sender
    if kept != (post.key, post.envelope, sender.client_ip, sender.user_agent, sender.origin):
        raise Broken(f"a dead letter is of another lane: {event['path']} under {kept}")
    if UUID(bytes=letter.uuid) != UUID(event["uuid"]):
        raise Broken(f"a dead letter has another uuid than its event: {event['path']}")
    if event["path"] not in refused or letter.reason not in _REASONS:
        raise Broken(f"dead without a cause: {event['path']}, {letter.reason}: {letter.message}")


def check_order(evidence: Evidence, posts: Mapping[str, Post], replayed: Container[str]) -> None:
    """3. Whoever was accepted before another was even asked for arrives first, within a visitor.

    But for those that may have been dead meanwhile.
    """
    places = {
        event["path"]: (post, place) for post in evidence.posts for place, event in enumerate(post.events)
    }
    arrived: set[str] = set()
    last_asked: dict[object, tuple[int, str]] = {}
    last_place: dict[tuple[object, int], int] = defaultdict(lambda: -1)
    for arrival in evidence.arrivals:
        mark = arrival.event["path"]
        if mark in arrived or mark in replayed:
            continue
        arrived.add(mark)
        post, place = places[mark]
        order = (post.key, post.orders[place])
        if place < last_place[order, post.number]:
            raise Broken(f"out of order: {mark} arrived after a later event of its own post")
        last_place[order, post.number] = place
        asked_at, later = last_asked.get(order, (0, ""))
        if post.accepted_at is not None and post.accepted_at < asked_at:
            raise Broken(
                f"out of order: {mark} was accepted at step {post.accepted_at} and arrived after {later},"
                f" asked for at step {asked_at}"
            )
        if post.asked_at is not None and post.asked_at > asked_at:
            last_asked[order] = (post.asked_at, mark)


def check_doubles(evidence: Evidence, left: Leftovers) -> None:
    """5. What upstream took twice came under one uuid, and is on the record of ambiguous deliveries."""
    ambiguous = {
        (batch.key, batch.uuids[at : at + 16])
        for batch in left.ambiguous
        for at in range(0, len(batch.uuids), 16)
    }
    uuids: dict[str, str] = {}
    times: Counter[str] = Counter()
    for request in evidence.requests:
        for event in request.events:
            if uuids.setdefault(event["path"], event["uuid"]) != event["uuid"]:
                raise Broken(f"{event['path']} was sent under two uuids")
    for arrival in evidence.arrivals:
        mark = arrival.event["path"]
        times[mark] += 1
        evidence.met[Met.DOUBLE] += times[mark] == 2
        if times[mark] == 2 and (arrival.request.key, UUID(uuids[mark]).bytes) not in ambiguous:
            raise Broken(
                f"twice upstream and not on the record: {mark}, uuid {uuids[mark]},"
                f" last in request {arrival.request.number}"
            )


def check_nothing_is_sent_again(evidence: Evidence, replayed: Container[str]) -> None:
    """5. Once it is settled that an event was taken, or is dead, no request holds it but after a replay."""
    for request in evidence.requests:
        for event in request.events:
            if event["path"] in replayed:
                continue
            settled_at = evidence.settled_at.get(event["path"])
            if settled_at is not None and settled_at < request.sent_at:
                raise Broken(
                    f"sent again: {event['path']} was settled at step {settled_at} and is in request"
                    f" {request.number}, of step {request.sent_at}"
                )


def check_rate(evidence: Evidence, limit_per_s: int) -> None:
    """6. No second holds many more claims than upstream's limit.

    So many in one of its own seconds would be 429s; but a claim's second is not that of its arrival.
    """
    most = int(_MOST_OF_LIMIT * limit_per_s) + _MOST_BESIDE
    by_clock: dict[tuple[PublicKey, int], list[Claim]] = defaultdict(list)
    for claim in evidence.claims:
        by_clock[claim.key, claim.clock].append(claim)
    for (key, _), claims in by_clock.items():
        asked = sorted(claim.asked_ms for claim in claims)
        given = sorted(claim.given_ms for claim in claims)
        for asked_ms, given_ms in zip(asked, given[most:], strict=False):
            if given_ms - asked_ms < 1000:
                raise Broken(f"the rate: {key} was claimed {most + 1} times in a second, from {asked_ms} on")


def check_window(evidence: Evidence, calm: Calm) -> None:
    """6. Once nothing goes wrong any more, no request is one too many for upstream's window."""
    for refused in evidence.refused_by_window:
        if refused.number > calm.requests:
            raise Broken(f"a 429 of our own making: request {refused.number}, at {refused.arrived_s} s")


def check_pauses(evidence: Evidence) -> None:
    """6. After a 429 nothing of its key is claimed for as long as it says, but at the operator's word.

    (Not by another clock.)
    """
    for pause in evidence.pauses:
        retried_s = [at_s for key, at_s in evidence.retries if key == pause.key]
        for claim in evidence.claims:
            if any(pause.asked_s - _SLACK_S < at_s < claim.given_s for at_s in retried_s):
                continue
            if (
                (claim.key, claim.clock) == (pause.key, pause.clock)
                and claim.asked_ms > pause.given_ms
                and claim.given_ms < pause.asked_ms + pause.wait_ms
            ):
                raise Broken(
                    f"a pause: {pause.key} was claimed at {claim.given_ms}, but a 429 at {pause.asked_ms}"
                    f" asked for {pause.wait_ms} ms"
                )


def check_promptness(evidence: Evidence, calm: Calm, plan: Plan) -> None:
    """7. What comes when all is well leaves at once: within its linger, its rate, and the ways it has to go.

    All requests are reckoned as if each had waited for the one before.
    """
    last_posted_s = max(post.answered_s for post in evidence.posts if post.answered_s is not None)
    last_arrival_s = max((arrival.at_s for arrival in evidence.arrivals), default=calm.from_s)
    requests = len(evidence.requests) - calm.requests
    each_s = 1 / calm.rate_per_s + ANSWER_S + VERB_TRIPS * plan.trouble.quick_s
    allowed_s = plan.build.terms.linger_s + requests * each_s + _SLACK_S
    if last_arrival_s - last_posted_s > allowed_s:
        raise Broken(
            f"not prompt: the last event arrived {last_arrival_s - last_posted_s:.1f} s after the last post"
            f" was answered; {allowed_s:.1f} s would do for {requests} requests"
        )

"""What is refused at the door, and how events end."""

from collections.abc import Iterator

from proxy.ledger import Dead, Rejected
from proxy.ops.symptoms.values import Finding, Symptom
from proxy.ops.symptoms.wording import were
from proxy.ops.window import Window

REFUSED_SHARE = 0.1
"""From this part of refused events on somebody is told."""

STALLED_S = 3_900.0
"""A stalled queue is tried once an hour: so long, and a bit more, it is spoken of."""


def of_the_door(window: Window) -> Iterator[Finding]:
    """Events that clients were told to keep, or to mend."""
    recent = window.recent
    if full := recent.get(f"rejected_{Rejected.BUFFER_FULL}"):
        yield Finding(
            Symptom.BUFFER_FULL,
            "error",
            f"In the last minute {were(full)} refused (503), because the buffer is full.",
            "Clients try again, for a while. Mend what keeps events from going out, or raise"
            " buffer.max_bytes or buffer.max_bytes_per_key, or the disk.",
        )
    if quota := recent.get(f"rejected_{Rejected.QUOTA}"):
        yield Finding(
            Symptom.QUOTA_REACHED,
            "warning",
            f"In the last minute {were(quota)} refused (429), of keys that Outlit never took anything of.",
            "If the keys are yours, list them in front.public_keys; else somebody makes keys up, and the"
            " quota does what it is for.",
        )
    others = {
        reason: count
        for reason in Rejected
        if reason not in (Rejected.BUFFER_FULL, Rejected.QUOTA, Rejected.BUFFER_UNAVAILABLE)
        and (count := recent.get(f"rejected_{reason}"))
    }
    refused = sum(others.values())
    if refused > REFUSED_SHARE * (refused + recent.get("accepted", 0)):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in others.items())
        yield Finding(
            Symptom.EVENTS_REFUSED,
            "warning",
            f"In the last minute {were(refused)} refused at the door ({reasons}).",
            "Their senders were told why. `outlit-proxy tap` shows them; mend what posts them.",
        )


def of_outcomes(window: Window) -> Iterator[Finding]:
    """Events that ended badly, may be doubled, or do not move."""
    recent = window.recent
    dead = {reason: count for reason in Dead if (count := recent.get(f"dead_{reason}"))}
    if dead:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dead.items())
        yield Finding(
            Symptom.DEAD_LETTERS_GROWING,
            "warning",
            f"In the last minute {were(sum(dead.values()))} given up as dead letters ({reasons}).",
            "Their messages say what Outlit dislikes (`outlit-proxy dead list`): mend the sender, then replay"
            " or purge them.",
        )
    if ambiguous := recent.get("ambiguous"):
        answers = "one answer was" if ambiguous == 1 else f"{ambiguous:,} answers were"
        yield Finding(
            Symptom.AMBIGUOUS,
            "warning",
            f"In the last minute {answers} lost: the events of these requests go out again, and may be at"
            " Outlit twice, with the same uuids.",
            "GET /ambiguous lists them. See to the network, and to time-outs between here and Outlit.",
        )
    if window.ago_s.get("stalled", STALLED_S) < STALLED_S:
        yield Finding(
            Symptom.QUEUES_STALLED,
            "error",
            "A queue is tried only once an hour, because every delivery of its first event ends without a"
            " word: perhaps a process crashes on it.",
            "Look for crashes and restarts in the log; report the event, or erase it.",
        )

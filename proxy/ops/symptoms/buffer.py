"""What is wrong with the buffer as a whole."""

from collections.abc import Iterator, Mapping
from typing import Final

from proxy.ledger import Unsafe
from proxy.ops.symptoms.values import DEFECT_S, Finding, Seen, Severity, Symptom
from proxy.ops.symptoms.wording import events
from proxy.wire.limits import PublicKey

NEARLY_FULL = 0.8

_UNSAFE: Final[Mapping[Unsafe, tuple[Severity, str, str]]] = {
    Unsafe.ROLE: ("error", "it is a replica, or a node of a cluster", "Name the primary in buffer.url."),
    Unsafe.VERSION: ("error", "it is older than 7.0", "Upgrade it, or take Valkey."),
    Unsafe.EVICTION: ("error", "it may throw events away when full", "Set maxmemory-policy noeviction."),
    Unsafe.PERSISTENCE: (
        "warning",
        "a restart of it loses what it has not written",
        "Set appendonly yes (and appendfsync always for buffer.durability = always).",
    ),
    Unsafe.SAVING: ("error", "it could not write its file", "See to its disk and its log."),
    Unsafe.REPLICAS: ("error", "it has fewer replicas than buffer.replicas", "Bring them back."),
    Unsafe.MEMORY: ("error", "its memory is nearly used up", "Let it drain, or raise maxmemory."),
    Unsafe.BOUNDS: (
        "warning",
        "it has less memory than the buffer may fill",
        "Raise maxmemory, or lower buffer.max_bytes and dead.max_bytes.",
    ),
    Unsafe.IN_CLEAR: ("warning", "events can be read on the way to it", "Write rediss:// for redis://."),
}


def of_the_buffer(seen: Seen) -> Iterator[Finding]:
    """Unsafe, with losses, nearly full, or with books that differ."""
    for reason in seen.unsafe:
        severity, what, to_do = _UNSAFE[reason]
        yield Finding(Symptom.BUFFER_UNSAFE, severity, f"Redis is not safe ({reason}): {what}.", to_do)
    if seen.window.ago_s.get("lost", DEFECT_S) < DEFECT_S:
        yield Finding(
            Symptom.BUFFER_LOST,
            "error",
            "Redis has lost what it had acknowledged: was it emptied, restarted without its file, or failed"
            " over?",
            "The log says of which keys. Restore its file, if there is one, before more is posted.",
        )
    if seen.figures is None:
        return
    stored = sum(of.stored_bytes for of in seen.figures.values())
    if stored > NEARLY_FULL * seen.max_bytes:
        yield nearly_full(stored, seen.max_bytes, "buffer.max_bytes", None)
    difference = sum(abs(of.books.difference) for of in seen.figures.values())
    if difference:
        yield Finding(
            Symptom.LEDGER_DIFFERENCE,
            "error",
            f"The books differ from the data by {events(difference)}: a defect of the proxy.",
            "Report it, with the log and GET /ledger.",
        )


def nearly_full(stored: int, most: int, setting: str, key: PublicKey | None) -> Finding:
    """So many bytes of at most so many, by this setting, are stored: of a key, or of all."""
    return Finding(
        Symptom.BUFFER_NEARLY_FULL,
        "warning",
        f"The buffer is {stored / most:.0%} full ({setting}); at 100% posts are refused (503).",
        f"Mend what keeps events from going out, or raise {setting}.",
        key,
    )

"""What is wrong with this process: not ready, badly configured, defective."""

from collections.abc import Iterator

from proxy.ops.symptoms.values import DEFECT_S, Finding, Seen, Symptom
from proxy.ops.symptoms.wording import length


def of_the_process(seen: Seen) -> Iterator[Finding]:
    """Findings about the process itself."""
    failing = {name: word for name, word in seen.checks.items() if word != "ok"}
    if failing:
        why = "; ".join(f"{name}: {word}" for name, word in failing.items())
        to_do = "Posts are answered 503; clients try again. See to what it says: then it goes on by itself."
        if failing.keys() <= {"started", "running"}:
            to_do = "Nothing while it starts or stops. Else see the log."
        yield Finding(Symptom.UNREADY, "error", f"Not ready: {why.rstrip('.?')}.", to_do)
    if not seen.reloads.successful:
        error = " ".join((seen.reloads.error or "the log says why").split("\n"))
        yield Finding(
            Symptom.RELOAD_FAILED,
            "warning",
            f"The last reload was refused ({error}); the settings of before are in use.",
            "Correct them (`outlit-proxy check` says the same), then send SIGHUP again.",
        )
    recent, ago_s = seen.window.recent, seen.window.ago_s
    if ago_s.get("internal", DEFECT_S) < DEFECT_S:
        yield Finding(
            Symptom.INTERNAL_ERROR,
            "error",
            f"A client was answered 500 {length(ago_s['internal'])} ago: a defect of the proxy.",
            "Report the traceback that stands in the log.",
        )
    if ago_s.get("lane_faults", DEFECT_S) < DEFECT_S:
        yield Finding(
            Symptom.LANE_FAULT,
            "error",
            "A batch held an event of another lane, and was not sent: a defect of the proxy.",
            "Nothing was misattributed; that queue is tried once an hour. Report it, with the log.",
        )
    if recent.get("untrusted"):
        yield Finding(
            Symptom.FORWARDING_UNTRUSTED,
            "warning",
            "Posts come with forwarding headers from an address that is not trusted, so every visitor seems"
            " to come from there.",
            "If that is your load balancer, set front.trusted_proxies to its addresses.",
        )

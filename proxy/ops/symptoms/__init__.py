"""What an operator should know now, in plain words, and what to do about it: values in, findings out.

A finding says what is so, what to do, and which section of the README has more. What is only the consequence
of another finding is left out where it would hide the cause: during an outage a backlog is no flood.
"""

from proxy.ops.symptoms.buffer import of_the_buffer
from proxy.ops.symptoms.gateway import MAX_EXHAUSTED, of_the_gateway
from proxy.ops.symptoms.keys import MAX_BY_KEY, of_keys
from proxy.ops.symptoms.outcomes import of_outcomes, of_the_door
from proxy.ops.symptoms.process import of_the_process
from proxy.ops.symptoms.upstream import answers_nothing, of_upstream
from proxy.ops.symptoms.values import SECTION, Finding, Seen, Symptom

__all__ = [
    "MAX_BY_KEY",
    "MAX_EXHAUSTED",
    "SECTION",
    "Finding",
    "Seen",
    "Symptom",
    "answers_nothing",
    "findings",
]


def findings(seen: Seen) -> list[Finding]:
    """Everything that is to be said, errors first, each kind in the order of the enumeration."""
    found = [
        *of_the_process(seen),
        *of_upstream(seen),
        *of_the_door(seen.window),
        *of_outcomes(seen.window),
        *of_the_buffer(seen),
        *of_keys(seen),
        *of_the_gateway(seen),
    ]
    order = list(Symptom)
    return sorted(found, key=lambda finding: (finding.severity != "error", order.index(finding.symptom)))

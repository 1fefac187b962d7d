"""What is shown of runs: of a broken one all that is needed to understand and to repeat it."""

import traceback
from dataclasses import fields

from tests.simulation.evidence import Broken
from tests.simulation.simulation import Run

LINES = 60
"""Of the trace, before the end."""


def failure(run: Run, lines: int = LINES) -> str:
    """A broken run: its plan, its last steps, what broke, and the command that repeats it."""
    assert run.broken is not None
    plan = [f"    {each.name} = {getattr(run.plan, each.name)}" for each in fields(run.plan)]
    return "\n".join(
        [
            f"seed {run.seed}, on {run.engine}:",
            *plan,
            f"  its trace, the last {min(lines, len(run.evidence.trace))} lines (time, step, what happened):",
            *run.evidence.lines(lines),
            f"  broken: {_described(run.broken)}",
            f'  again: make simulate ARGS="--engine {run.engine} --from {run.seed} --seeds 1 --lines 100000"',
        ]
    )


def _described(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()

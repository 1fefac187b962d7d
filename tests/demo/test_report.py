import json
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from proxy.demo import Moment, Opening, Outcome, Plan, closing_lines, failures, ledger_lines, opening_lines
from proxy.demo.comparison import Verdict
from proxy.demo.figures import Figures
from proxy.settings import BufferSettings, ListenAddress, parse_buffer_url

FIGURES = Figures(
    accepted=4_812,
    held=96,
    delivered=4_714,
    dead=2,
    oldest_held_at=998.1,
    requests=100,
    sent=4_810,
)
DONE = replace(FIGURES, held=0, delivered=4_810, oldest_held_at=None)
PROVEN = Outcome(
    verdict=Verdict(acknowledged=4_812, dead=0, announced=0, others=0),
    figures=DONE,
    refused=0,
    unacknowledged=0,
    sent_again=0,
    busiest_second=90,
    beyond_limit=0,
    as_limit_fell=0,
    drain_s=1.0,
    sabotage_missed=False,
)


def with_verdict(**changes: Any) -> Outcome:
    return replace(PROVEN, verdict=replace(PROVEN.verdict, **changes))


def test_the_ledger_is_one_readable_line():
    assert "   ".join(ledger_lines(Moment(1_000.0, FIGURES, beyond_limit=0, others=0))) == (
        "accepted 4,812 = held 96 + delivered 4,714 + dead 2 + dropped 0"
        "   48.1 events/request   0 × 429   oldest 1.9 s"
    )


def test_the_ledger_of_nothing_yet_divides_by_nothing():
    books, rest = ledger_lines(Moment(1_000.0, Figures(), beyond_limit=0, others=0))
    assert books == "accepted 0 = held 0 + delivered 0 + dead 0 + dropped 0"
    assert rest == "– events/request   0 × 429   oldest 0.0 s"


def test_what_is_unusual_is_shown_too():
    assert ledger_lines(Moment(1_000.0, FIGURES, beyond_limit=3, others=1))[1].endswith(
        "3 beyond the limit   also kept 1"
    )


def opening(buffer: BufferSettings) -> list[str]:
    plan = Plan(20, 40, None, ListenAddress("127.0.0.1", 8080), ListenAddress("127.0.0.1", 9090), buffer.url)
    told = Opening(
        front_url="http://127.0.0.1:8080",
        ops_url="http://127.0.0.1:9090",
        buffer=buffer,
        limit_per_s=100,
        servers=3,
        plan=plan,
    )
    return list(opening_lines(told))


def test_the_buffer_is_named_and_its_password_is_not():
    line = opening(BufferSettings(url=parse_buffer_url("redis://u:t0ken@h/2")))[2]
    assert line.startswith("buffer    redis://u@h:6379/2, durability everysec   ")
    assert opening(BufferSettings())[2].startswith(
        "buffer    sqlite data/outlit-proxy.db, durability always   "
    )


def test_the_command_to_paste_is_a_request_that_the_proxy_takes():
    curl = shlex.split(opening(BufferSettings())[-1])
    assert curl[:3] == ["curl", "-si", "http://127.0.0.1:8080/api/i/v1/pk_demo/events"]
    assert json.loads(curl[-1])["events"]


def test_a_proven_run_ends_with_the_promise():
    assert not failures(PROVEN)
    assert list(closing_lines(PROVEN))[-1] == "kept 4,812 of 4,812, misattributed 0, out of order 0"


def test_dead_letters_and_announced_repetitions_are_named_and_no_failure():
    outcome = with_verdict(dead=1, announced=3)
    assert not failures(outcome)
    assert list(closing_lines(outcome))[-1] == (
        "kept 4,812 of 4,812, misattributed 0, out of order 0"
        " (1 of them as a dead letter; doubled 3, all of them announced)"
    )


@pytest.mark.parametrize(
    "outcome",
    [
        with_verdict(lost=("x",)),
        with_verdict(doubled=("x",)),
        with_verdict(misattributed=("x",)),
        with_verdict(out_of_order=("x",)),
        with_verdict(altered=("x",)),
        with_verdict(exposed=("x",)),
        with_verdict(acknowledged=0),
        replace(PROVEN, figures=FIGURES),
        replace(PROVEN, figures=replace(DONE, difference=1)),
        replace(PROVEN, figures=replace(DONE, delivered=1)),
        replace(PROVEN, refused=1),
        replace(PROVEN, sabotage_missed=True),
    ],
)
def test_anything_that_speaks_against_the_promise_is_one_failure(outcome):
    assert len(failures(outcome)) == 1
    assert sum(line.startswith("FAILED: ") for line in closing_lines(outcome)) == 1


def test_five_examples_are_named_one_of_each_kind_first():
    outcome = with_verdict(lost=tuple(f"lost {n}" for n in range(9)), misattributed=("wrong " + "x" * 1_000,))
    examples = [line for line in closing_lines(outcome) if re.match(r"  \S", line)]
    assert [example.split()[0] for example in examples] == ["lost", "wrong", "lost", "lost", "lost"]
    assert max(map(len, examples)) < 500


def test_429_that_came_as_the_limit_fell_are_told_apart():
    (line, *_) = closing_lines(replace(PROVEN, as_limit_fell=4))
    assert line.endswith("429 beyond the limit: 0, as it fell: 4")
    (line, *_) = closing_lines(PROVEN)
    assert line.endswith("429 beyond the limit: 0")

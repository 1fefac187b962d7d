"""``status``: what a proxy holds and what is wrong with it, for people and, as an exit code, for scripts."""

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.cli.snapshots import key as one_key
from tests.cli.snapshots import snapshot, trouble, used_up
from tests.programs import OPS_TOKEN, free_port, wait_for


def said(answer: Any, *arguments: str, status: int = 200) -> Result:
    """What the command makes of such an answer."""
    with answering(status, {}, json.dumps(answer).encode()) as (url, _):
        return CliRunner().invoke(main, ("status", "--ops-url", url, *arguments))


# -- of a proxy that runs ----------------------------------------------------------------------------------


def test_a_proxy_that_is_well_is_shown_and_is_exit_code_0(operator: Operator, key: str) -> None:
    operator.post(key, fresh(), fresh())
    wait_for("delivered", lambda: operator.proxy.ledger()["held"] == 0)
    result = operator.run("status")
    assert result.exit_code == 0, result.output
    head, _, events, *_ = result.stdout.splitlines()
    assert re.fullmatch(r"outlit-proxy [0-9.]+: ready, up for \d+(\.\d)? (s|min), \S+Z", head)
    books = [int(number.replace(",", "")) for number in re.findall(r"[0-9,]+", events)]
    assert events.startswith("events    accepted ")
    assert books[0] == sum(books[1:]) > 0
    assert key in result.stdout


def test_a_script_gets_what_the_proxy_says(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    told = operator.told("status")
    assert told["ready"] is True
    assert key in [each["key"] for each in told["keys"]]
    assert told.keys() == snapshot().keys()
    for table in ("ledger", "buffer", "upstream", "rates", "config", "gateway"):
        assert told[table].keys() == snapshot()[table].keys(), table
    assert told["keys"][0].keys() == one_key("pk_a").keys()


def test_without_the_token_keys_are_shortened(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    for changed in ({"OUTLIT_PROXY_OPS_TOKEN": None}, {"OUTLIT_PROXY_OPS_TOKEN": "another-token"}):
        result = operator.run("status", **changed)
        assert result.exit_code == 0, result.output
        assert key not in result.stdout
        assert key[:10] in result.stdout


def test_a_paused_key_is_named_with_what_to_do_and_is_no_failure(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    operator.run("keys", "pause", key, "--yes")
    result = operator.run("status")
    operator.run("keys", "resume", key)
    assert result.exit_code == 0
    [remark] = re.findall(rf"^warning: paused_by_operator {key}: .*\n  .*$", result.stdout, re.MULTILINE)
    assert "Nothing is sent until" in remark
    assert "keys resume" in remark
    assert re.search(rf"^{key} +paused ", result.stdout, re.MULTILINE)


def test_on_a_terminal_it_is_coloured_unless_that_is_not_wanted(
    operator: Operator, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.post(key, fresh())
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, coloured = operator.on_a_terminal(["status"], "")
    assert code == 0
    assert "\x1b[1moutlit-proxy " in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    code, plain = operator.on_a_terminal(["status"], "")
    assert code == 0
    assert "\x1b" not in plain


# -- of any ------------------------------------------------------------------------------------------------


def test_nobody_at_home_is_one_line_and_exit_code_1() -> None:
    result = CliRunner().invoke(main, ("status", "--ops-url", f"http://127.0.0.1:{free_port()}"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "connection refused" in result.stderr


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"troubles": [trouble("flood", "warning", "pk_abc")]}, 0),
        ({"troubles": [trouble("flood", "warning", "pk_abc"), trouble("unready")]}, 1),
        ({"ready": False, "checks": {"buffer": "no answer within 2 s"}}, 1),
    ],
    ids=["well", "warning", "error", "unready"],
)
def test_the_exit_code_says_whether_somebody_must_look(changed: dict[str, Any], code: int) -> None:
    assert said(snapshot(**changed)).exit_code == code
    in_json = said(snapshot(**changed), "--json")
    assert in_json.exit_code == code
    assert json.loads(in_json.stdout) == snapshot(**changed)


def test_what_is_wrong_stands_first_with_what_to_do() -> None:
    lines = said(
        snapshot(
            troubles=[trouble("key_refused", key="pk_abc", what="Refused.", what_to_do="See to it.")],
            keys=[one_key("pk_abc", paused="key_refused", paused_for_s=48.0), one_key("pk_def")],
        )
    ).stdout.splitlines()
    assert lines[2] == "error: key_refused pk_abc: Refused."
    assert lines[3] == "  See to it. (README #when-outlit-is-the-trouble)"
    assert re.match(r"pk_abc  key_refused, 48 s  96 ", lines[-2])
    assert re.match(r"pk_def  sends +96 ", lines[-1])


def test_every_figure_is_told() -> None:
    told = said(snapshot(upstream={"rate_share": 0.5}, config={"reloaded_at": "2026-07-01T11:59:10.000Z"}))
    assert [line for line in told.stdout.splitlines()[2:11] if line] == [
        "events    accepted 4,812 = held 96 + delivered 4,713 + dead 2 + dropped 1",
        "rates     accepted 48.1/s, delivered 47.9/s, refused 0.0/s: by this process, over 10 s",
        "requests  20.1/s, 0.0/s of them failed, 2.4 events each; 20% of the budget used",
        "waiting   96 events in 38 queues, the oldest for 1.9 s, 0.4 s to drain",
        "dead      2 letters; since the start refused 2: see `dead list`",
        "buffer    SQLite, durability always, 1.23 MB of 4 GB",
        "upstream  https://app.outlit.ai, 100 × 0.5 requests/s a key, 12 in flight",
        "gateway   on, all tools, gateway.api_key",
        "settings  reloaded 60 s ago",
    ]


@pytest.mark.parametrize(
    ("gateway", "line"),
    [
        ({}, ""),
        ({"in_flight": 1}, "; 1 call in flight"),
        (
            {"in_flight": 2, "refused": [used_up()]},
            "; 2 calls in flight; api_calls used up for another 3 h (gateway.api_key, 1,234 answered here)",
        ),
        (
            {"refused": [used_up(None, key="a caller's own", answered=0), used_up(), used_up()]},
            (
                "; plan_api_limit_exceeded used up for another 3 h (a caller's own key, 0 answered here);"
                " 2 more used up"
            ),
        ),
        (
            {"key_refused_at": "2026-07-01T11:58:00.000Z"},
            "; Outlit refuses gateway.api_key, for 2 min",
        ),
        (
            {"refused": [used_up("a\x1b[2J\nb", until="2026-07-01T12:00:10.000Z")]},
            "; a\\x1b[2J\\nb used up for another 0.0 s (gateway.api_key, 1,234 answered here)",
        ),
    ],
    ids=["quiet", "calls", "used up", "several", "key refused", "odd words"],
)
def test_the_gateway_has_a_line_where_it_is_on(gateway: dict[str, Any], line: str) -> None:
    result = said(snapshot(gateway=gateway))
    assert result.exit_code == 0
    assert f"\ngateway   on, all tools, gateway.api_key{line}\n" in result.stdout


@pytest.mark.parametrize(
    ("gateway", "line"),
    [
        ({"api_key": False}, "on, all tools, callers' own keys"),
        ({"tools": ["a"]}, "on, 1 tool, gateway.api_key"),
        ({"tools": []}, "on, 0 tools, gateway.api_key"),
    ],
)
def test_the_gateways_line_says_for_whom_and_for_how_many_tools(gateway: dict[str, Any], line: str) -> None:
    assert f"\ngateway   {line}\n" in said(snapshot(gateway=gateway)).stdout


@pytest.mark.parametrize(
    "quiet",
    [snapshot(gateway={"on": False, "in_flight": 3}), {**snapshot(), "gateway": None}],
    ids=["off", "none"],
)
def test_of_a_gateway_that_is_off_nothing_is_said(quiet: dict[str, Any]) -> None:
    assert "gateway" not in said(quiet).stdout


def test_a_proxy_of_before_the_gateway_is_shown_as_ever() -> None:
    older = snapshot()
    del older["gateway"]
    assert said(older).stdout == said(snapshot(gateway={"on": False})).stdout


def test_a_buffer_that_does_not_answer_is_unknown_not_zero() -> None:
    away = snapshot(
        ready=False,
        checks={"buffer": "no answer within 2 s"},
        buffer={"stored_bytes": None, "queues": None},
        dead={"count": None},
        keys=[],
        rates={"budget_used": None},
    )
    away |= {"ledger": None, "oldest_held_at": None, "time_to_drain_s": None}
    result = said(away)
    assert "not ready (buffer: no answer within 2 s)" in result.stdout
    assert result.stdout.count("unknown: the buffer does not answer") == 3
    assert "? of 4 GB" in result.stdout


def test_a_difference_in_the_books_and_a_refused_reload_stand_out() -> None:
    result = said(
        snapshot(ledger={"difference": -3}, config={"successful": False, "error": "front.listen: no port"})
    )
    assert "+ dropped 1, DIFFERENCE -3\n" in result.stdout
    assert "settings  the last reload failed: front.listen: no port\n" in result.stdout


def test_keys_that_are_left_out_are_counted() -> None:
    assert said(snapshot(keys_left_out=12)).stdout.endswith("and 12 keys more: `keys list` has all\n")


def test_what_others_wrote_moves_no_terminal() -> None:
    result = said(
        snapshot(
            upstream={"url": "http://a\x1b[2J"},
            keys=[one_key("pk_\x1b[31m")],
            troubles=[trouble("unready", what="a\x1b[2J\nb")],
        )
    )
    assert "\x1b" not in result.stdout
    assert "error: unready: a\\x1b[2J\\nb\n" in result.stdout


@pytest.mark.parametrize(
    ("answer", "status"), [({"error": "not found"}, 404), ({}, 200), ([], 200), ({}, 500)]
)
def test_an_answer_of_something_else_is_one_readable_line(answer: object, status: int) -> None:
    result = said(answer, status=status)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_the_token_is_sent_where_there_is_one() -> None:
    with answering(200, {}, json.dumps(snapshot()).encode()) as (url, seen):
        for token in (None, OPS_TOKEN):
            CliRunner().invoke(main, ("status", "--ops-url", url), env={"OUTLIT_PROXY_OPS_TOKEN": token})
    assert seen == ["", f"Bearer {OPS_TOKEN}"]

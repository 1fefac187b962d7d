"""``keys`` as an operator uses it: what is wrong with a key and what to do; pause, resume, retry."""

import json
import re
from typing import Any

import pytest

from proxy.cli.terminal import lasting
from proxy.ledger import Pause
from proxy.ops.pauses import WORDS
from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.programs import wait_for
from tests.sandbox.bodies import OTHER_VISITOR


def shown(operator: Operator, key: str) -> Any:
    [found] = operator.told("keys", "list", "--key", key)["keys"]
    return found


def taken(operator: Operator, key: str) -> list[str]:
    return [each.event["uuid"] for each in operator.sandbox.taken() if each.key == key]


def delivered(operator: Operator, key: str, uuids: list[str]) -> None:
    wait_for(f"{uuids} taken", lambda: taken(operator, key) == uuids)


def refused(operator: Operator, key: str, status: int, **envelope: Any) -> list[str]:
    """An event that upstream answers with this status, once."""
    operator.sandbox.fault("status", status=status, requests=1, public_key=key)
    uuids = operator.post(key, fresh(), **envelope)
    wait_for(f"{status} seen", lambda: any(each["public_key"] == key for each in operator.sandbox.requests()))
    return uuids


# -- list --------------------------------------------------------------------------------------------------


def test_a_key_is_a_line_with_what_it_holds(operator: Operator, key: str) -> None:
    operator.die(key, fresh())
    delivered(operator, key, operator.post(key, fresh()))
    wait_for("settled", lambda: shown(operator, key)["books"]["held"] == 0)
    result = operator.run("keys", "list", "--key", key)
    assert result.exit_code == 0
    head, line, count = result.stdout.splitlines()
    columns = re.split(r" {2,}", head)
    assert columns == ["key", "state", "held", "queues", "oldest", "to drain", "rate/s", "dead", "ambiguous"]
    told = dict(zip(columns, re.split(r" {2,}", line), strict=True))
    assert re.fullmatch(r"\d+(\.\d+)? of \d+", told.pop("rate/s"))
    assert told == {
        "key": key,
        "state": "sends",
        "held": "0",
        "queues": "0",
        "oldest": "-",
        "to drain": "-",
        "dead": "1",
        "ambiguous": "0",
    }
    assert count == "1 key"


def test_without_a_key_all_are_listed(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    operator.post(f"{key}b", fresh())
    listed = operator.told("keys", "list")
    assert {key, f"{key}b"} <= {each["key"] for each in listed["keys"]}
    lines = operator.run("keys", "list").stdout.splitlines()
    assert f"{len(listed['keys'])} keys" in lines


def test_what_is_held_shows_its_age_and_how_long_it_will_take(operator: Operator, key: str) -> None:
    operator.outage(key)
    operator.post(key, fresh())
    line = operator.run("keys", "list", "--key", key).stdout.splitlines()[1]
    assert re.search(r"  unconfirmed +1 +1 +\d+(\.\d)? s +\d\.\d s  ", line), line


def test_a_key_that_outlit_refuses_says_so_and_what_to_do(operator: Operator, key: str) -> None:
    refused(operator, key, 401)
    wait_for("a pause", lambda: shown(operator, key)["paused"])
    result = operator.run("keys", "list", "--key", key)
    assert re.search(r"  key_refused, 1\d s  ", result.stdout)
    assert f"\n{key}: key_refused: Outlit refuses the key (401, 402, 404 or a redirect); " in result.stdout


def test_the_origins_that_outlit_forbids_are_named(operator: Operator, key: str) -> None:
    refused(operator, key, 403)
    wait_for("a forbidden Origin", lambda: shown(operator, key)["forbidden_origins"])
    result = operator.run("keys", "list", "--key", key)
    assert (
        f"\n{key}: forbidden: Outlit answers 403 to requests of clients without an Origin; enable that domain"
        in result.stdout
    )


@pytest.mark.parametrize("reason", Pause)
def test_each_reason_of_a_pause_says_what_to_do(reason: Pause) -> None:
    assert WORDS[reason].what_to_do


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_800, "2 d"),
        (86_400 * 1_000, "1,000 d"),
    ],
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


# -- pause and resume --------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [True, False])
def test_of_a_queue_that_waits_by_itself_it_says_why_and_what_to_do(
    operator: Operator, key: str, waits: bool
) -> None:
    """It is told so after a minute and a half, too long for a test: so what the proxy says is altered."""
    operator.post(key, fresh())
    altered = {**shown(operator, key), "queue_waits": waits}
    with answering(200, {}, json.dumps({"keys": [altered]}).encode()) as (url, _):
        said = operator.run("keys", "list", "--ops-url", url).stdout
    assert (f"{key}: waits: the oldest event waits though the key sends" in said) is waits
    assert ("`outlit-proxy keys retry`" in said) is waits


def test_a_paused_key_keeps_what_it_accepts_until_it_is_resumed(operator: Operator, key: str) -> None:
    first = operator.post(key, fresh())
    delivered(operator, key, first)
    result = operator.run("keys", "pause", key, "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(
        f"{key} is paused, with [01] events? held: nothing is sent until `keys resume {key}`\n", result.stdout
    )
    second = operator.post(key, fresh())
    listed = operator.run("keys", "list", "--key", key).stdout
    assert f"{key}  paused  1  " in re.sub(" +", "  ", listed)
    assert f"\n{key}: operator: an operator has paused it. Nothing is sent until `outlit-" in listed
    assert taken(operator, key) == first
    result = operator.run("keys", "resume", key)
    assert result.exit_code == 0
    assert re.fullmatch(f"{key} is resumed; 1 event held, 0\\.\\d s to drain\n", result.stdout)
    delivered(operator, key, first + second)


def test_a_pause_asks_first(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    result = operator.run("keys", "pause", key)
    assert result.exit_code == 2
    assert f"Send nothing of {key} until it is resumed? " in result.stderr
    assert result.stderr.rstrip().endswith("There is no terminal to ask on: say --yes.")
    code, said = operator.on_a_terminal(["keys", "pause", key], "n\n")
    assert (code, shown(operator, key)["by_operator"]) == (1, False)
    assert "Its events stay in the buffer meanwhile. [y/N]: " in said
    code, said = operator.on_a_terminal(["keys", "pause", key], "y\n")
    assert (code, shown(operator, key)["by_operator"]) == (0, True)


def test_resume_says_what_still_stands_in_the_way(operator: Operator, key: str) -> None:
    refused(operator, key, 401)
    wait_for("a pause", lambda: shown(operator, key)["paused"])
    operator.run("keys", "pause", key, "--yes")
    result = operator.run("keys", "resume", key)
    assert f"\n{key}: key_refused: " in result.stdout


# -- retry -------------------------------------------------------------------------------------------------


def test_retry_makes_due_what_was_forbidden(operator: Operator, key: str) -> None:
    uuids = refused(operator, key, 403)
    wait_for("a forbidden Origin", lambda: shown(operator, key)["forbidden_origins"])
    result = operator.run("keys", "retry", key)
    assert result.exit_code == 0
    waited = f"{key} is retried: 1 queue had waited; 1 event held, 0\\.\\d s to drain\n"
    assert re.fullmatch(waited, result.stdout)
    delivered(operator, key, uuids)


def test_retry_ends_the_pause_of_a_refused_key(operator: Operator, key: str) -> None:
    uuids = refused(operator, key, 401)
    wait_for("a pause", lambda: shown(operator, key)["paused"])
    uuids += operator.post(key, fresh(), visitorId=OTHER_VISITOR)
    result = operator.run("keys", "retry", key)
    assert f"\n{key} was paused (key_refused): one request goes first, to see\n" in result.stdout
    wait_for("both taken", lambda: sorted(taken(operator, key)) == sorted(uuids))


def test_retry_says_that_the_operators_pause_stays(operator: Operator, key: str) -> None:
    operator.outage(key)
    operator.post(key, fresh())
    operator.run("keys", "pause", key, "--yes")
    result = operator.run("keys", "retry", key)
    assert f"\n{key} is paused by `keys pause`: nothing is sent until `keys resume {key}`\n" in result.stdout


# -- what cannot be ----------------------------------------------------------------------------------------

COMMANDS = [("list", "--key"), ("pause", "--yes"), ("resume",), ("retry",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_key_that_was_never_seen_is_one_line_and_exit_code_1(
    operator: Operator, command: tuple[str, ...]
) -> None:
    result = operator.run("keys", *command, "pk_never_seen")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"main keys {command[0]}: pk_never_seen is not known: no event was ever accepted for it;"
        " see how it is spelt, or list the keys that there are\n"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "wrong", ["nonsense", "../dead", "pk_a/pause", "pk_a?full=true", "pk_é", "sk_secret"]
)
def test_what_is_no_key_is_wrong_usage(operator: Operator, command: tuple[str, ...], wrong: str) -> None:
    result = operator.run("keys", *command, wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "key: not a public key: write pk_" in result.stderr


def test_json_is_one_object_in_one_line(operator: Operator, key: str) -> None:
    operator.post(key, fresh())
    for command in (("list",), ("pause", key, "--yes"), ("retry", key), ("resume", key)):
        result = operator.run("keys", *command, "--json")
        assert result.exit_code == 0
        assert isinstance(json.loads(result.stdout), dict)
        assert result.stdout.count("\n") == 1

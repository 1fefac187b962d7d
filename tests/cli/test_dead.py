"""``outlit-proxy dead``: counts first, asks, and does no more than it said."""

import json
import os
import re
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.ledger import Dead
from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.programs import wait_for
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR


def test_list_shows_a_line_a_letter_the_newest_first_and_says_how_many(operator: Operator, key: str) -> None:
    uuids = operator.die(key, fresh(), fresh())
    result = operator.run("dead", "list", "--key", key)
    assert result.exit_code == 0
    head, newest, oldest, count = result.stdout.splitlines()
    assert head.split() == ["id", "died", "at", "key", "reason", "attempts", "uuid", "message"]
    assert newest.split()[2:] == [key, "refused", "1", uuids[1], "Fault:", "refused"]
    assert uuids[0] in oldest
    assert count == "2 dead letters"


def test_list_says_when_there_are_more_than_it_shows(operator: Operator, key: str) -> None:
    operator.die(key, fresh(), fresh(), fresh())
    lines = operator.run("dead", "list", "--key", key, "--limit", "1").stdout.splitlines()
    assert lines[-1] == "3 dead letters; the newest 1 are shown, `export` has all"
    assert len(lines) == 3


def test_list_of_nothing_is_one_line(operator: Operator, key: str) -> None:
    assert operator.run("dead", "list", "--key", key).stdout == "0 dead letters\n"


def test_list_for_a_script_is_one_json_object(operator: Operator, key: str) -> None:
    [uuid] = operator.die(key, fresh())
    page = operator.told("dead", "list", "--key", key)
    assert (page["count"], page["dead"][0]["uuid"]) == (1, uuid)


def test_every_filter_finds_what_fits(operator: Operator, key: str) -> None:
    first, _ = operator.die(key, fresh(), fresh())
    operator.die(key, fresh(), visitorId=OTHER_VISITOR)
    number = operator.told("dead", "list", "--key", key, "--uuid", first)["dead"][0]["id"]
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    for filters, expected in [
        (("--id", str(number)), 1),
        (("--uuid", first), 1),
        (("--visitor", VISITOR), 2),
        (("--visitor", OTHER_VISITOR), 1),
        (("--reason", "refused"), 3),
        *((("--reason", str(reason)), 0) for reason in Dead if reason != "refused"),
        (("--since", "1h"), 3),
        (("--until", "1h"), 0),
        (("--since", "2020-01-01", "--until", later), 3),
        (("--since", later), 0),
    ]:
        assert operator.told("dead", "list", "--key", key, *filters)["count"] == expected, filters


def test_nothing_that_others_wrote_moves_the_terminal(operator: Operator, key: str) -> None:
    """Upstream's message and the client's texts are shown escaped."""
    operator.die(key, fresh(eventName="\x1b[2J", path="\x1b[31m"))
    number = operator.told("dead", "list", "--key", key)["dead"][0]["id"]
    for arguments in (("list", "--key", key), ("show", str(number)), ("export", "--key", key)):
        assert "\x1b" not in operator.run("dead", *arguments).output


def test_show_tells_everything_that_it_would_be_sent_with(operator: Operator, key: str) -> None:
    sent = fresh("custom", properties={"emoji": "\ud83d"})
    operator.die(key, sent)
    number = operator.told("dead", "list", "--key", key)["dead"][0]["id"]
    letter = operator.told("dead", "show", str(number))
    assert letter["event"] == sent
    assert letter["envelope"] == {"source": "client", "visitorId": VISITOR}
    text = operator.run("dead", "show", str(number)).stdout
    assert f"uuid: {sent['uuid']}\n" in text
    assert "client_ip: 127.0.0.1\n" in text
    assert "origin: -\n" in text
    assert '  "eventName": "used"' in text


def test_show_of_what_is_not_there_is_one_line(operator: Operator) -> None:
    result = operator.run("dead", "show", "999999")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("main dead show: no dead letter 999999: ")
    assert result.stderr.count("\n") == 1


def test_export_writes_all_of_them_a_line_each_though_a_page_holds_a_hundred(
    operator: Operator, key: str
) -> None:
    uuids = operator.die(key, *(fresh() for _ in range(100)))
    uuids += operator.die(key, *(fresh() for _ in range(5)))
    result = operator.run("dead", "export", "--key", key)
    letters = [json.loads(line) for line in result.stdout.splitlines()]
    assert [letter["event"]["uuid"] for letter in letters] == uuids[::-1]
    assert result.stderr == "105 dead letters written\n"


def test_an_exported_line_has_all_that_is_known_of_its_letter(operator: Operator, key: str) -> None:
    sent = fresh("custom", properties={"emoji": "\ud83d"})
    operator.die(key, sent)
    [line] = operator.run("dead", "export", "--key", key).stdout.splitlines()
    letter = json.loads(line)
    assert letter.pop("id") > 0
    assert letter.pop("user_agent").startswith("Python-urllib/")
    first_tried_at, died_at = letter.pop("first_tried_at"), letter.pop("died_at")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first_tried_at)
    assert first_tried_at <= died_at
    assert letter == {
        "key": key,
        "uuid": sent["uuid"],
        "reason": "refused",
        "message": "Fault: refused",
        "attempts": 1,
        "event": sent,
        "envelope": {"source": "client", "visitorId": VISITOR},
        "client_ip": "127.0.0.1",
        "origin": None,
    }


def test_export_makes_a_file_for_its_owner_and_never_overwrites_one(
    operator: Operator, key: str, tmp_path: Path
) -> None:
    operator.die(key, fresh())
    file = tmp_path / "dead.ndjson"
    result = operator.run("dead", "export", "--key", key, "--output", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_text()
    assert len(written.splitlines()) == 1
    again = operator.run("dead", "export", "--key", key, "--output", str(file))
    assert (again.exit_code, again.stderr) == (
        1,
        f"main dead export: {file} exists: give the name of a new file\n",
    )
    assert file.read_text() == written
    nowhere = operator.run("dead", "export", "--output", str(tmp_path / "no" / "where"))
    assert nowhere.exit_code == 1
    assert nowhere.stderr.endswith("no such file or directory\n")


def test_a_dry_run_counts_and_changes_nothing(operator: Operator, key: str) -> None:
    operator.die(key, fresh(), fresh())
    for verb, word in (("replay", "replayed"), ("purge", "purged")):
        result = operator.run("dead", verb, "--key", key, "--dry-run")
        assert (result.exit_code, result.stdout) == (0, f"2 dead letters would be {word}\n")
    assert operator.dead(key) == 2


def test_replay_delivers_what_was_dead(operator: Operator, key: str) -> None:
    uuids = operator.die(key, fresh(), fresh())
    result = operator.run("dead", "replay", "--key", key, "--yes")
    assert (result.exit_code, result.stdout) == (0, "2 dead letters replayed\n")
    taken = wait_for(
        "both taken",
        lambda: found if len(found := [t for t in operator.sandbox.taken() if t.key == key]) == 2 else None,
    )
    assert [each.event["uuid"] for each in taken] == uuids


def test_purge_gives_up_what_fits_and_nothing_else(operator: Operator, key: str) -> None:
    first, _ = operator.die(key, fresh(), fresh())
    result = operator.run("dead", "purge", "--uuid", first, "--yes", "--json")
    assert json.loads(result.stdout)["purged"] == 1
    assert operator.dead(key) == 1


def test_where_nothing_fits_nothing_is_asked(operator: Operator, key: str) -> None:
    result = operator.run("dead", "purge", "--key", key)
    assert (result.exit_code, result.stdout) == (0, "0 dead letters purged\n")


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_without_a_terminal_and_without_yes_nothing_happens(operator: Operator, key: str, verb: str) -> None:
    operator.die(key, fresh())
    result = operator.run("dead", verb, "--key", key)
    assert result.exit_code == 2
    assert f"{verb.capitalize()} 1 dead letter? There is no terminal to ask on: say --yes." in result.stderr
    assert operator.dead(key) == 1


def test_at_a_terminal_it_asks_and_takes_no_for_an_answer(operator: Operator, key: str) -> None:
    operator.die(key, fresh())
    purge = ["dead", "purge", "--key", key]
    code, shown = operator.on_a_terminal(purge, "n\n")
    assert code == 1
    assert "Purge 1 dead letter? [y/N]: " in shown
    assert operator.dead(key) == 1
    code, shown = operator.on_a_terminal(purge, "y\n")
    assert code == 0
    assert shown.endswith("1 dead letter purged\n")
    assert operator.dead(key) == 0


def test_what_dies_while_it_is_thought_over_is_left_alone(operator: Operator, key: str) -> None:
    operator.die(key, fresh())
    later = fresh()
    code, shown = operator.on_a_terminal(
        ["dead", "purge", "--key", key], "y\n", meanwhile=lambda: operator.die(key, later)
    )
    assert code == 0
    assert shown.endswith("1 dead letter purged\n")
    page = operator.told("dead", "list", "--key", key)
    assert [letter["uuid"] for letter in page["dead"]] == [later["uuid"]]


# -- long work ---------------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    operator: Operator, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    operator.die(key, fresh(), fresh(), fresh())
    bar = re.compile(r"\[#+\]  (\d+)/(\d+)")
    export = ["dead", "export", "--key", key]
    _, shown = operator.on_a_terminal([*export, "--output", str(tmp_path / "a")], "")
    assert "exporting" in shown
    assert bar.findall(shown)[-1] == ("3", "3")
    for plain in ([*export], ["dead", "replay", "--key", key, "--yes", "--json"]):
        code, shown = operator.on_a_terminal(plain, "")
        assert (code, bar.search(shown)) == (0, None)
    operator.die(key, fresh(), fresh())
    _, shown = operator.on_a_terminal(["dead", "replay", "--key", key, "--yes"], "")
    assert bar.findall(shown)[-1] == ("2", "2")
    assert shown.endswith("2 dead letters replayed\n")
    operator.die(key, fresh())
    monkeypatch.setenv("NO_COLOR", "1")
    code, shown = operator.on_a_terminal(["dead", "purge", "--key", key, "--yes"], "")
    assert (code, shown) == (0, "1 dead letter purged\n")


def portions(verb: str, *then: Callable[[], bytes]) -> Callable[[], bytes]:
    """A proxy with 3,000 dead letters: it counts them, does a thousand, and then something else."""
    answers = iter(
        [
            lambda: json.dumps({"count": 3000, "up_to_id": 3000, verb: 0}).encode(),
            lambda: json.dumps({"up_to_id": 3000, verb: 1000}).encode(),
            *then,
        ]
    )

    def next_answer() -> bytes:
        return next(answers)()

    return next_answer


@pytest.mark.parametrize(("verb", "word"), [("replay", "replayed"), ("purge", "purged")])
def test_an_interrupt_waits_for_the_portion_and_says_how_many_were_done(
    operator: Operator, verb: str, word: str
) -> None:
    def interrupted() -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        return json.dumps({"up_to_id": 3000, word: 1000}).encode()

    with answering(200, {}, portions(word, interrupted)) as (url, asked):
        result = operator.run("dead", verb, "--all", "--yes", "--ops-url", url)
    assert (result.exit_code, result.stdout, len(asked)) == (1, "", 3)
    assert result.stderr == f"main dead {verb}: interrupted; {word} 2,000 of 3,000: ask again for the rest\n"


def test_a_portion_that_fails_says_how_many_were_done_before(operator: Operator) -> None:
    with answering(200, {}, portions("replayed", lambda: b"<html>")) as (url, _):
        result = operator.run("dead", "replay", "--all", "--yes", "--ops-url", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("; replayed 1,000 of 3,000: ask again for the rest\n")


def test_where_others_were_faster_it_says_what_was_left_to_do(operator: Operator) -> None:
    with answering(200, {}, portions("purged", lambda: b'{"up_to_id": 3000, "purged": 0}')) as (url, _):
        result = operator.run("dead", "purge", "--all", "--yes", "--ops-url", url)
    assert (result.exit_code, result.stdout) == (0, "1,000 dead letters purged\n")


def test_an_export_that_is_interrupted_ends_with_a_whole_line(
    operator: Operator, key: str, tmp_path: Path
) -> None:
    operator.die(key, fresh())
    [line] = operator.run("dead", "export", "--key", key).stdout.splitlines()
    page = {"count": 300, "dead": [json.loads(line)] * 100, "before": 7}

    def interrupted() -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        return json.dumps(page).encode()

    file = tmp_path / "dead.ndjson"
    with answering(200, {}, interrupted) as (url, _):
        result = operator.run("dead", "export", "--output", str(file), "--ops-url", url)
    assert (result.exit_code, result.stderr) == (1, "main dead export: interrupted; wrote 100 of 300\n")
    assert file.read_text() == f"{line}\n" * 100


@pytest.mark.parametrize("verb", ["replay", "purge"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "by a filter, or --all."),
        (("--yes",), "by a filter, or --all."),
        (("--all", "--key", "pk_a"), "leave out --all or the filters."),
        (("--reason", "boredom"), "'boredom' is not one of"),
        (
            ("--since", "yesterday"),
            "write a time (2026-07-01, 2026-07-01T12:00Z) or how long ago (90s, 2h, 3d)",
        ),
        (("--id", "0"), "0 is not in the range x>=1"),
        (("--key", "nonsense", "--yes"), "key: not a public key: write pk_"),
        (("--visitor", "nonsense", "--yes"), "visitor: not a UUID: write it as "),
    ],
)
def test_wrong_usage_is_exit_code_2_and_changes_nothing(
    operator: Operator, key: str, verb: str, arguments: tuple[str, ...], error: str
) -> None:
    result = operator.run("dead", verb, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr

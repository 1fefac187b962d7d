"""``tap``: what happens to events while somebody looks, and nothing of what they hold."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.log import short_key
from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.programs import OUTLIT_PROXY, http, wait_for
from tests.sandbox.bodies import client

SECRETS = ("acme.example", "/pricing", "127.0.0.1", "hunter2", "0190a1b2-c3d4")


class Tapping:
    """The command while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process = process
        self._file = file

    @property
    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [sample for line in self.lines if "not_shown" not in (sample := json.loads(line))]

    def shown(self, lines: int) -> list[str]:
        return wait_for(f"{lines} lines", lambda: found if len(found := self.lines) >= lines else None)

    def sampled(self, samples: int) -> list[dict[str, Any]]:
        return wait_for(f"{samples}", lambda: found if len(found := self.samples) >= samples else None)

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors.decode()


@contextmanager
def tapping(operator: Operator, folder: Path, *arguments: str) -> Iterator[Tapping]:
    """The command, once the proxy knows of it."""
    file = folder / "tapped"
    before = operator.proxy.program.log.count("a tap is opened")
    with file.open("wb") as shown:
        process = subprocess.Popen(
            [OUTLIT_PROXY, "tap", *arguments],
            stdout=shown,
            stderr=subprocess.PIPE,
            env=operator.environment,
        )
    try:
        wait_for("a tap", lambda: operator.proxy.program.log.count("a tap is opened") > before)
        yield Tapping(process, file)
    finally:
        process.kill()
        process.communicate()


def test_an_event_is_seen_from_its_arrival_to_its_delivery(
    operator: Operator, key: str, tmp_path: Path
) -> None:
    event = fresh("custom", eventName="signed_up", properties={"password": "hunter2"})
    with tapping(operator, tmp_path, "--key", key, "--json") as tap:
        operator.post(key, event)
        accepted, delivered = tap.sampled(2)
        assert tap.interrupt() == (0, "2 events shown, 0 not shown\n")
    assert [accepted.pop("outcome"), delivered.pop("outcome")] == ["accepted", "delivered"]
    assert accepted.pop("at") <= delivered.pop("at")
    assert (
        accepted
        == delivered
        == {
            "reason": None,
            "detail": None,
            "key": short_key(key),
            "type": "custom",
            "event_name": "signed_up",
            "uuid": event["uuid"],
        }
    )


def test_every_outcome_is_seen(operator: Operator, key: str, tmp_path: Path) -> None:
    with tapping(operator, tmp_path, "--key", key, "--json") as tap:
        again, dead = fresh(), fresh()
        operator.sandbox.fault("status", status=503, requests=1, public_key=key)
        operator.post(key, again)
        operator.post(key, again)
        tap.sampled(4)  # accepted, duplicate, deferred, and 2 s later delivered
        operator.die(key, dead)
        status, _ = http(
            f"{operator.proxy.url}/api/i/v1/{key}/events", client(fresh("custom", eventName=...))
        )
        assert status == 207
        status, _ = http(f"{operator.proxy.url}/api/i/v1/{key}/events", {"events": []})
        assert status == 400
        seen = tap.sampled(8)
    told = {(each["outcome"], each["reason"], each["detail"], each["uuid"]) for each in seen}
    assert told == {
        ("accepted", None, None, again["uuid"]),
        ("duplicate", None, None, again["uuid"]),
        ("deferred", "failed", None, again["uuid"]),
        ("delivered", None, None, again["uuid"]),
        ("accepted", None, None, dead["uuid"]),
        ("dead", "refused", None, dead["uuid"]),
        ("rejected", "invalid", "eventName", None),
        ("rejected", "envelope", "invalid_events", None),
    }


def test_people_see_a_line_of_what_they_want_and_nothing_of_what_an_event_holds(
    operator: Operator, key: str, tmp_path: Path
) -> None:
    wanted = ("--outcome", "dead", "--outcome", "rejected", "--limit", "2")
    event = fresh("custom", eventName="\x1b[2J", properties={"password": "hunter2"})
    with tapping(operator, tmp_path, "--key", key, *wanted) as tap:
        [uuid] = operator.die(key, event, userIdentity={"email": "ann@acme.example"})
        operator.post(key, fresh())
        http(f"{operator.proxy.url}/api/i/v1/{key}/events", client(fresh("custom", eventName=...)))
        assert tap.process.wait(30) == 0
        first, second = tap.lines
    assert f"  dead       {short_key(key)}  " in first
    assert f"{uuid}  custom \\x1b[2J  (refused)" in first
    assert second.endswith("  -  (invalid, eventName)")
    assert not [secret for secret in SECRETS if secret in first + second]


def test_what_is_too_much_is_counted(operator: Operator, key: str, tmp_path: Path) -> None:
    with tapping(operator, tmp_path, "--key", key, "--outcome", "accepted") as tap:
        operator.post(key, *(fresh() for _ in range(300)))
        assert len(tap.shown(50)) == 50
        code, errors = tap.interrupt()
    assert code == 0
    assert errors.splitlines() == ["(250 events not shown)", "50 events shown, 250 not shown"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--outcome", "gone"), "'gone' is not one of 'accepted', "),
        (("--key", "nonsense"), "key: not a public key: write pk_"),
        (("--every", "0"), "0 is not in the range"),
        (("--limit", "x"), "'x' is not a valid integer"),
    ],
)
def test_wrong_usage_is_exit_code_2(operator: Operator, arguments: tuple[str, ...], error: str) -> None:
    result = operator.run("tap", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr


def test_a_proxy_that_takes_the_token_no_more_ends_it_and_the_reason_is_told(operator: Operator) -> None:
    lines = b'{"not_shown":0}\n{"ended":"ops.token was changed"}\n'
    with answering(200, {}, lines) as (url, _):
        result = operator.run("tap", "--ops-url", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f": {url} has ended it: ops.token was changed\n")


def test_a_proxy_that_stops_ends_it_with_exit_code_1_and_is_not_delayed(
    operator: Operator, key: str, tmp_path: Path
) -> None:
    with tapping(operator, tmp_path, "--key", key) as tap:
        try:
            assert operator.proxy.program.stop() == 0
            assert tap.process.wait(30) == 1
            assert tap.process.stderr is not None
            assert b"has ended it: is the proxy being stopped?" in tap.process.stderr.read()
        finally:
            operator.proxy.start()

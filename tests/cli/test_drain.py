"""``drain``: the buffer is emptied while posts still come, before the proxy is told to stop."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.programs import OPS_TOKEN, http, running_proxy, running_sandbox, wait_for


@pytest.fixture(scope="module")
def lingering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A proxy whose events wait a minute for company, and its operator."""
    folder = tmp_path_factory.mktemp("lingering")
    with (
        running_sandbox(folder) as sandbox,
        running_proxy(folder, sandbox, OUTLIT_PROXY_DELIVERY_LINGER="60s") as proxy,
    ):
        yield Operator(proxy, sandbox)


@pytest.fixture(autouse=True)
def undone(lingering: Operator) -> Iterator[None]:
    yield
    lingering.run("drain", "--undo")


def delivered(operator: Operator) -> set[str]:
    return {taken.event["uuid"] for taken in operator.sandbox.taken()}


def due_in_s(operator: Operator, uuid: str) -> float:
    """How long a held event waits."""
    token = {"Authorization": f"Bearer {OPS_TOKEN}"}
    status, body = http(f"{operator.proxy.ops_url}/events/{uuid}", headers=token)
    assert status == 200, body
    [held] = json.loads(body)["held"]
    return float(held["due_in_s"])


def test_what_is_held_leaves_and_so_does_what_still_comes_until_it_is_undone(
    lingering: Operator, key: str
) -> None:
    held = lingering.post(key, fresh())
    result = lingering.run("drain")
    assert (result.exit_code, result.stdout) == (0, "draining: 1 event held\n")
    wait_for("the held one", lambda: delivered(lingering) >= set(held))
    later = lingering.post(key, fresh())
    wait_for("the later one", lambda: delivered(lingering) >= set(later))
    assert lingering.run("healthcheck").exit_code == 0
    wait_for("it to be settled", lambda: lingering.told("drain") == {"draining": True, "held": 0})  # again
    assert lingering.told("drain", "--undo") == {"draining": False, "held": 0}
    [last] = lingering.post(key, fresh())
    assert due_in_s(lingering, last) > 50
    assert lingering.run("drain", "--wait", "20").exit_code == 0
    assert last in delivered(lingering)


def test_a_wait_in_vain_says_what_is_left_and_why(lingering: Operator, key: str) -> None:
    lingering.post(key, fresh(), fresh())
    lingering.run("keys", "pause", key, "--yes")
    result = lingering.run("drain", "--wait", "0.5")
    assert result.exit_code == 1
    assert result.stdout == "draining: 2 events held\n"
    assert result.stderr.endswith(f"drain: not empty after 0.5 s: {key} holds 2 events (operator)\n")
    lingering.run("keys", "resume", key)
    assert lingering.run("drain", "--wait", "20").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--wait", "1"), "not known to be empty after 1 s: {url}/drain: nothing came for 1 s"),
        ((), "{url}/drain: nothing came for 0.2 s"),
        (("--undo",), "{url}/drain: nothing came for 0.2 s"),
    ],
)
def test_a_proxy_that_stands_still_is_not_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch, lingering: Operator, arguments: tuple[str, ...], error: str
) -> None:
    monkeypatch.setattr("proxy.cli.drain._PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # its system takes connections all the same
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        result = lingering.run("drain", *arguments, "--ops-url", url)
    assert time.monotonic() - began < 3
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f"drain: {error.format(url=url)}\n")


def test_a_proxy_that_stands_still_before_it_has_said_what_is_left_is_not_waited_for(
    lingering: Operator,
) -> None:
    over = threading.Event()
    answers = iter([2, 2])

    def body() -> bytes:
        if (held := next(answers, None)) is None:
            over.wait(30)
        return json.dumps({"draining": True, "held": held}).encode()

    with answering(200, {}, body) as (url, _):
        began = time.monotonic()
        result = lingering.run("drain", "--wait", "0.1", "--ops-url", url)
        over.set()
    assert time.monotonic() - began < 3
    assert (result.exit_code, result.stdout) == (1, "draining: 2 events held\n")
    assert result.stderr.endswith("not empty after 0.1 s: what is left could not be seen\n")


def test_a_buffer_that_does_not_answer_to_the_end_is_the_reason(lingering: Operator) -> None:
    with answering(200, {}, b'{"draining":true,"held":null}') as (url, _):
        result = lingering.run("drain", "--wait", "0.1", "--ops-url", url)
    assert result.exit_code == 1
    assert result.stderr.endswith("not empty after 0.1 s: the buffer does not answer\n")


def test_it_is_said_once_when_it_begins_and_when_it_ends(lingering: Operator) -> None:
    before = len(lingering.proxy.program.log)
    for arguments in ([], [], ["--undo"], ["--undo"]):
        assert lingering.run("drain", *arguments).exit_code == 0
    said = [json.loads(line)["event"] for line in lingering.proxy.program.log[before:].splitlines()]
    assert said == ["draining: nothing lingers, posts are accepted as before", "no longer draining"]


def test_without_the_token_nothing_is_drained(lingering: Operator) -> None:
    for changed in (None, "another-token"):
        assert lingering.run("drain", OUTLIT_PROXY_OPS_TOKEN=changed).exit_code == 1
    assert lingering.run("drain", "--undo", "--wait", "3").exit_code == 2

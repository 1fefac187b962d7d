"""``outlit-proxy send``: one marked event, and what became of it."""

import json
import re

import pytest

from tests.cli.operator import Operator
from tests.programs import free_port

UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_a_delivered_event_is_followed_to_its_end(operator: Operator, key: str) -> None:
    result = operator.run("send", "--key", key)
    assert result.exit_code == 0, result.output
    accepted, *held, delivered = result.stdout.splitlines()
    found = UUID.search(accepted)
    assert found
    assert accepted.startswith(f"accepted   by {operator.proxy.url} in ")
    assert all(line.startswith("held       ") for line in held)
    assert re.fullmatch(r"delivered  after \d+\.\d s", delivered)
    [taken] = [taken for taken in operator.sandbox.taken() if taken.key == key]
    assert taken.event["uuid"] == found[0]


def test_the_event_is_marked_and_names_nobody_real(operator: Operator, key: str) -> None:
    operator.told("send", "--key", key)
    operator.told("send", "--key", key)
    first, second = (taken for taken in operator.sandbox.taken() if taken.key == key)
    assert first.envelope == second.envelope == {"source": "server"}
    for sent in (first, second):
        assert (sent.event["type"], sent.event["eventName"]) == ("custom", "outlit_proxy_send")
        assert sent.event["userId"] == "outlit-proxy-send", "always the same one"
        headers = {name.lower(): value for name, value in sent.headers}
        assert headers["user-agent"].startswith("outlit-proxy/")
    assert first.event["uuid"] != second.event["uuid"]


def test_for_a_script_it_is_one_json_object(operator: Operator, key: str) -> None:
    known = operator.told("send", "--key", key)
    assert (known["fate"], known["ambiguous"]) == ("delivered", False)
    assert UUID.fullmatch(known["uuid"])
    assert 0 < known["after_s"] < 30
    assert len(known["batches"]) == 1


def test_a_refused_event_says_why_and_fails(operator: Operator, key: str) -> None:
    operator.sandbox.fault("refuse_indices", indices=[0], public_key=key)
    result = operator.run("send", "--key", key)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"dead       refused: Fault: refused; see `dead show \d+`", result.stdout.splitlines()[-1]
    )
    assert result.stderr.startswith("main send: not delivered: dead, refused: Fault: refused")
    result = operator.run("send", "--key", key, "--json")
    assert (result.exit_code, json.loads(result.stdout)["fate"]) == (1, "dead")


def test_an_event_that_waits_says_why_and_fails_when_time_is_up(operator: Operator, key: str) -> None:
    operator.sandbox.fault("status", status=503, retry_after_s=60, public_key=key)
    result = operator.run("send", "--key", key, "--timeout", "2")
    assert result.exit_code == 1
    assert re.search(r"^held       1 attempt failed, due in \d+\.\d s$", result.stdout, re.MULTILINE)
    assert result.stderr.startswith("main send: not delivered within 2 s: held, 1 attempt failed, due in ")


@pytest.mark.parametrize(
    ("status", "obstacle"),
    [(401, "its key is paused (key_refused)"), (403, "Outlit forbids clients without an Origin")],
)
def test_what_the_whole_key_suffers_from_is_said(
    operator: Operator, key: str, status: int, obstacle: str
) -> None:
    operator.sandbox.fault("status", status=status, public_key=key)
    result = operator.run("send", "--key", key, "--timeout", "2")
    assert result.exit_code == 1
    assert f"held       {obstacle}: see `keys list`\n" in result.stdout
    assert result.stderr.endswith(f"within 2 s: held, {obstacle}: see `keys list`\n")


def test_a_lost_answer_is_told(operator: Operator, key: str) -> None:
    operator.sandbox.fault("reset", requests=1, public_key=key)
    result = operator.run("send", "--key", key)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith("(an answer was lost: Outlit may have got it twice)")


def test_a_front_that_does_not_take_it_is_one_line(operator: Operator, key: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    result = operator.run("send", "--key", key, "--url", nobody)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"main send: {nobody}/api/i/v1/{key}/events: connection refused: start ")
    result = operator.run("send", "--key", key, "--url", operator.proxy.ops_url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not accepted: " in result.stderr
    assert "answered 404" in result.stderr


def test_an_event_that_is_not_where_operations_look_is_said_to_be_unknown(
    operator: Operator, key: str
) -> None:
    """The front belongs to another proxy: here, the stand-in for Outlit itself takes the event."""
    result = operator.run("send", "--key", key, "--url", operator.sandbox.url, "--timeout", "0.5")
    assert result.exit_code == 1
    assert "unknown    no event of this uuid; is --ops-url the proxy that" in result.stdout


def test_nothing_is_sent_that_could_not_be_followed(operator: Operator, key: str) -> None:
    result = operator.run("send", "--key", key, OUTLIT_PROXY_OPS_TOKEN="another-token")
    assert result.exit_code == 1
    result = operator.run("send", "--key", "nonsense")
    assert result.exit_code == 2
    assert "key: not a public key" in result.stderr
    assert operator.told("send", "--key", key)["fate"] == "delivered"
    assert len([taken for taken in operator.sandbox.taken() if taken.key == key]) == 1

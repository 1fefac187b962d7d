"""A script: the same orders as over HTTP, from a file, and the command that takes it."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli.sandbox import sandbox as command
from proxy.sandbox import (
    Fault,
    Happens,
    Incident,
    Kind,
    Limit,
    LimitChange,
    Link,
    Names,
    OrderError,
    Route,
    Script,
    Stranger,
    What,
    script_of,
)
from proxy.sandbox.orders import faults_of, platform_of
from proxy.sandbox.platform.tools import TOOLS
from tests.sandbox.bodies import client

README = (Path(__file__).parents[2] / "deploy" / "sandbox" / "README.md").read_text(encoding="utf-8")

BAD_DAY = {
    "faults": [
        {"what": "status", "status": 403, "origin": "https://a.example", "after_s": 5, "seconds": 60},
        {"what": "refuse", "event": "poison", "names": "indices"},
        {"what": "headers", "headers": {"X-RateLimit-Reset": "{now_ms}", "Date": None}, "every": 3},
        {"what": "too_large", "max_events": 50, "shrink": 0.5, "requests": 4},
    ],
    "limits": [{"limit": 10, "after_s": 30, "seconds": 60}, {"window": "bucket", "burst": 5}],
    "strangers": [{"public_key": "pk_test", "per_s": 30.5}],
    "links": [{"latency_ms": 20, "latency_to_ms": 200}],
    "platform": [
        {"what": "plan", "allowance": 3, "reset_in_s": 60},
        {"what": "answer", "status": 503, "body": {}, "route": "validate", "requests": 1},
    ],
}


def test_a_script_has_the_same_orders_as_the_controls():
    assert script_of(json.dumps(BAD_DAY).encode()) == Script(
        faults=(
            Fault(what=What.STATUS, status=403, origin="https://a.example", after_s=5, seconds=60),
            Fault(what=What.REFUSE, event="poison", names=Names.INDICES),
            Fault(what=What.HEADERS, headers={"X-RateLimit-Reset": "{now_ms}", "Date": None}, every=3),
            Fault(what=What.TOO_LARGE, max_events=50, shrink=0.5, requests=4),
        ),
        limits=(LimitChange(limit=10, after_s=30, seconds=60), LimitChange(window=Kind.BUCKET, burst=5)),
        strangers=(Stranger(public_key="pk_test", per_s=30.5),),
        links=(Link(latency_ms=20, latency_to_ms=200),),
        platform=(
            Incident(what=Happens.PLAN, allowance=3, reset_in_s=60),
            Incident(what=Happens.ANSWER, status=503, body={}, route=Route.VALIDATE, requests=1),
        ),
    )
    assert script_of(b"{}") == Script()


def test_what_is_ordered_is_shown_as_it_was_ordered():
    script = script_of(json.dumps(BAD_DAY).encode())
    orders = (script.faults, script.limits, script.strangers, script.links, script.platform)
    shown = [[each.document() for each in sort] for sort in orders]
    assert json.loads(json.dumps(shown)) == list(BAD_DAY.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a JSON object of faults, limits, strangers, links, platform"),
        ("{", "not JSON"),
        ('{"fault": []}', "Unknown name 'fault'. Did you mean faults?"),
        ('{"faults": [{"what": "hang"}, {"what": "hangs"}]}', r"faults\[1\]: Unknown fault 'hangs'. Did you"),
        ('{"limits": [{"limit": -1}]}', r"limits\[0\]: limit must be 1 to"),
        ('{"strangers": [{"per_s": 3}]}', r"strangers\[0\]: Each of strangers needs public_key"),
        ('{"links": [7]}', r"links\[0\]: Each of links is a JSON object"),
        (
            '{"links": [{"latency_ms": 5, "after": 1}]}',
            r"links\[0\]: Unknown name 'after'. Did you mean after_s",
        ),
    ],
)
def test_a_wrong_script_says_where_and_what_could_stand_there(text, message):
    with pytest.raises(OrderError, match=message):
        script_of(text.encode())


async def test_a_script_begins_with_the_sandbox(post, start, clock):
    script = Script(
        faults=(Fault(what=What.STATUS, status=503, after_s=1, seconds=1),),
        limits=(LimitChange(limit=7, after_s=2),),
    )
    sandbox = await start(script=script)
    seen = []
    for _ in range(3):
        reply = await post(client(), to=sandbox)
        seen.append((reply.status, reply.headers["X-RateLimit-Limit"]))
        clock.now += 1
    assert seen == [(200, "100"), (503, "100"), (200, "7")]


def test_the_command_follows_a_script(tmp_path):
    script, record = tmp_path / "script.json", tmp_path / "record.jsonl"
    script.write_text(json.dumps({"faults": [{"what": "status", "status": 402}]}))
    listen = ("--listen", "127.0.0.1:0", "--script", str(script), "--record", str(record))
    started = [sys.executable, "-m", "proxy", "sandbox", *listen, "--window", "bucket", "--burst", "3"]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as sandbox:
        try:
            assert sandbox.stderr is not None
            said = sandbox.stderr.readline()
            assert "Ingest API" in said
            assert "Platform API" in said
            url = said.split()[2].rstrip(";")
            post = urllib.request.Request(
                f"{url}/api/i/v1/pk_test/events",
                data=json.dumps(client()).encode(),
                headers={"Content-Type": "application/json"},
            )
            with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(post, timeout=5):
                pass
            with refused.value as reply:
                assert (reply.code, reply.headers["X-RateLimit-Remaining"]) == (402, "2")
            with urllib.request.urlopen(f"{url}/_sandbox/faults", timeout=5) as shown:
                assert json.load(shown)[0]["status"] == 402
        finally:
            sandbox.send_signal(signal.SIGTERM)
            assert sandbox.wait(10) == 0
    assert json.loads(record.read_text())["fault"] == "status"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--latency", "fast"), "40, or 20-200 for a range"),
        (("--latency", "200-20"), "latency_to_ms must be 200 to"),
        (("--burst", "5"), "fixed has no burst"),
        (("--script", "missing.json"), "missing.json: No such file"),
        (("--window", "sliding"), "sliding-log"),
    ],
)
def test_the_command_answers_a_mistake_in_one_line(arguments, said):
    ran = CliRunner().invoke(command, arguments)
    assert ran.exit_code == 2
    assert said in ran.output


def test_where_it_cannot_listen_or_write_it_says_so_in_one_line(tmp_path):
    missing = tmp_path / "missing" / "received.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            (["--listen", f"127.0.0.1:{port}"], f"cannot listen on 127.0.0.1:{port}: address already in use"),
            (["--listen", "127.0.0.1:0", "--record", str(missing)], f"{missing}: no such file or directory"),
        ):
            ran = CliRunner().invoke(command, arguments)
            assert (ran.exit_code, ran.output) == (1, f"outlit-proxy sandbox: {said}; choose another one\n")


def test_a_limit_is_made_of_its_figures():
    assert Limit(5, Kind.BUCKET, 2).opened().take("pk_a", 0.0).remaining == 1


def test_the_help_shows_a_script_that_can_be_followed():
    text = CliRunner().invoke(command, ["--help"]).output
    example = text[text.index('{"faults"') : text.index("Options:")]
    script = script_of(example.encode())
    assert (len(script.faults), len(script.platform)) == (3, 2)


def rows_of(first: str) -> list[list[str]]:
    """The rows of the README's table whose first column is called so."""
    table = README.split(f"\n| {first} |")[1].split("\n\n")[0]
    return [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize(
    ("table", "known", "read"),
    [("fault (`what`)", What, faults_of), ("order (`what`)", Happens, platform_of)],
    ids=["faults", "platform"],
)
def test_everything_that_can_happen_is_in_the_readme_and_every_example_there_can_be_ordered(
    table, known, read
):
    named = []
    for row in rows_of(table):
        names = re.findall(r"`(\w+)`", row[0])
        examples = re.findall(r"`(\{.*?\})`(?:,| \|)", row[2])
        assert examples
        for example in examples:
            (order,) = read(example.encode())
            assert order.what in names
        named += names
    assert sorted(named) == sorted(known)


def test_every_window_is_in_the_readme():
    assert [row[0].strip("| `") for row in rows_of("`--window`")] == list(Kind)


def test_every_tool_is_in_the_readme():
    assert [name for name in TOOLS if f"`{name}`" not in README] == []


@pytest.mark.parametrize("sort", ["faults", "limits", "strangers", "links", "platform"])
def test_every_order_of_the_readme_can_be_given(sort):
    (order,) = re.findall(rf"curl -d '(.*?)' +127\.0\.0\.1:9300/_sandbox/{sort} ?", README)
    assert script_of(f'{{"{sort}": [{order}]}}'.encode()) != Script()

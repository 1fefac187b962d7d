"""``outlit-proxy bench budget``: that it runs, and counts what it says; not what it measures."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from proxy.bench import Usage, cases
from proxy.bench.budget import Scene, Window, back_in_use_s
from proxy.bench.stand_in import Arrival, standing_in
from proxy.buffer.bench import BenchRefused
from tests.redis_servers import RedisServer

BRIEFLY = ("--warm-up", "0", "--seconds", "2")


def bench_budget(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "proxy", "bench", "budget", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_case_is_a_row_of_the_table_and_nothing_is_left(tmp_path: Path) -> None:
    ran = bench_budget(tmp_path, "--only", "fixed/alone", "--only", "bucket-10/stranger", *BRIEFLY)
    assert ran.returncode == 0, ran.stderr
    titles, _, *rows = [line.split("|")[1:-1] for line in ran.stdout.splitlines() if line.startswith("|")]
    assert [title.strip() for title in titles[:4]] == ["case", "utilisation, %", "429", "429, %"]
    assert [row[0].strip() for row in rows] == ["fixed/alone", "bucket-10/stranger"]
    assert [bool(row[6].strip()) for row in rows] == [False, True], "only one has a stranger"
    assert list(tmp_path.iterdir()) == []


def test_what_the_windows_allow_bounds_what_is_granted(tmp_path: Path) -> None:
    ran = bench_budget(tmp_path, "--only", "sliding-log/three", "--only", "fixed/lowered", "--json", *BRIEFLY)
    assert ran.returncode == 0, ran.stderr
    three, lowered = json.loads(ran.stdout)["usages"]
    assert (three["case"], three["allowed"], three["seconds"]) == ("sliding-log/three", 200, 2)
    assert (lowered["allowed"], lowered["seconds"]) == (100 * 2 + 10 * 1, 3)
    for row in (three, lowered):
        assert 0 < row["granted"] <= row["allowed"]
        # Every queue holds one event.
        assert row["events"] == row["granted"]
        assert row["utilisation"] == pytest.approx(row["granted"] / row["allowed"], abs=1e-5)


def test_replicas_share_a_redis_and_leave_it_as_it_was(tmp_path: Path, redis_server: RedisServer) -> None:
    ran = bench_budget(tmp_path, "--only", "fixed/replicas", "--json", "--buffer", redis_server.url, *BRIEFLY)
    assert ran.returncode == 0, ran.stderr
    (row,) = json.loads(ran.stdout)["usages"]
    assert row["granted"] > 0
    assert redis_server.command("KEYS", "*") == []


def test_replicas_need_a_redis(tmp_path: Path) -> None:
    ran = bench_budget(tmp_path, "--only", "replicas")
    assert ran.returncode == 2
    assert "replicas share a Redis: name one with --buffer" in ran.stderr


def test_the_cases_are_every_window_in_every_scene() -> None:
    assert len(list(cases((), on_redis=True))) == len(Window) * len(Scene)
    assert [str(case) for case in cases(("fixed",), on_redis=False)] == [
        f"fixed/{scene}" for scene in Scene if scene is not Scene.REPLICAS
    ]
    assert {str(case) for case in cases(("bucket-10/alone", "replicas"), on_redis=True)} == {
        "bucket-10/alone",
        *(f"{window}/replicas" for window in Window),
    }


def test_a_stranger_is_no_loss_of_ours_and_a_429_no_use() -> None:
    usage = Usage("x", 10, allowed=1_000, strangers=300, granted=630, limited=70, events=1_260)
    assert usage.utilisation == pytest.approx(0.9)
    assert usage.limited_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("rates", "back_s"),
    [
        ([100] * 10, 0),
        ([10, 50, 80, 95, 95, 90, 90, 90, 90, 90], 2),
        ([10, 10, 10, 10, 10, 100, 100, 100, 100, 90], 5),
        ([100, 100, 100, 100, 0, 100, 100, 100, 100, 0], None),
        ([], None),
    ],
)
def test_a_limit_is_in_use_again_when_it_is_for_some_seconds(rates: list[int], back_s: int | None) -> None:
    raised_at = 1_700_000_000.0
    before = [Arrival(raised_at - 0.5, 200, 1)] * 500
    arrivals = [
        Arrival(raised_at + second + at / 200, 200, 1)
        for second, rate in enumerate(rates)
        for at in range(rate)
    ]
    assert back_in_use_s([*before, *arrivals], raised_at, len(rates)) == back_s


async def test_a_sandbox_that_does_not_start_ends_the_benchmark_with_its_reason() -> None:
    with pytest.raises(BenchRefused, match="the sandbox did not start: Usage:"):
        async with standing_in(("--window", "none")):
            pass


async def test_what_the_sandbox_counts_is_read_from_it_as_it_counts() -> None:
    async with standing_in(("--limit", "2", "--latency", "1")) as stand_in, aiohttp.ClientSession() as http:
        await stand_in.order("strangers", {"public_key": "pk_other", "per_s": 1_000})
        for _ in range(3):
            async with http.post(f"{stand_in.url}/api/i/v1/pk_a/events", json={}) as answer:
                await answer.read()
        began = time.time()
        arrivals = await stand_in.arrivals()
        assert [each.events for each in arrivals] == [0, 0, 0]
        assert {each.status for each in arrivals} <= {400, 429}
        assert all(began - 20 < each.at < began + 1 for each in arrivals)
        assert await stand_in.strangers_taken() > 0

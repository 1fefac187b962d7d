"""``outlit-proxy bench buffer``: figures of the real engine, and nothing left of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.redis_servers import Deployment, RedisServer

LITTLE = ("--due", "1", "--due", "20", "--samples", "10", "--events", "1000")
OF_THE_BENCH = "outlit:{pk_outlit_proxy_bench}:*"
BOOKS = "outlit:{pk_outlit_proxy_bench}:books"


def bench_buffer(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "proxy", "bench", "buffer", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def figures_of(ran: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert ran.returncode == 0, ran.stderr
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


def assert_measured(figures: dict[str, Any], *, store_counts: bool) -> None:
    assert [of["due_queues"] for of in figures["claims"]] == [1, 20]
    assert [of["events"] for of in figures["appends"]] == [1, 10, 100]
    assert all(of["claim_us"] > 0 and of["settle_us"] > 0 for of in figures["claims"])
    for of in figures["claims"]:
        assert bool(of["claim_store_us"]) is bool(of["settle_store_us"]) is store_counts
    assert {of["events_a_queue"] for of in figures["held"]} == {1, 5, 30, 100}
    alone = figures["held"][0]
    assert alone["stored_bytes"] > alone["text_bytes"], "an event alone in its queue is compressed by nothing"


def test_of_the_embedded_buffer_it_measures_beside_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    figures = figures_of(bench_buffer(tmp_path, *LITTLE, "--json", "--buffer", "sqlite:///events.db"))
    assert_measured(figures, store_counts=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["redis_server", "valkey_server", "cluster"])
def test_of_redis_it_leaves_no_key(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    deployment: Deployment = request.getfixturevalue(kind)
    figures = figures_of(bench_buffer(tmp_path, *LITTLE, "--json", "--buffer", deployment.url))
    assert_measured(figures, store_counts=True)
    assert [server.command("KEYS", OF_THE_BENCH) for server in deployment.primaries] == [
        [] for _ in deployment.primaries
    ]


def test_a_redis_that_is_too_small_is_told_in_one_line_and_left_empty(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", options={"maxmemory": "8mb"}) as small:
        ran = bench_buffer(tmp_path, "--due", "20000", "--json", "--buffer", small.url)
        assert small.command("KEYS", OF_THE_BENCH) == []
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].startswith("outlit-proxy bench buffer: ")
    assert "maxmemory" in ran.stderr.splitlines()[-1]


def test_without_json_it_prints_tables(tmp_path: Path) -> None:
    ran = bench_buffer(tmp_path, *LITTLE)
    assert ran.returncode == 0, ran.stderr
    assert len([line for line in ran.stdout.splitlines() if line.startswith("|-")]) == 3


def test_what_a_killed_benchmark_has_left_stops_the_next_until_it_is_cleaned(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    theirs = "outlit:{pk_customer}:books"
    queue = "outlit:{pk_outlit_proxy_bench}:q:AAAAAAAAAAAAAAAAAAAABw"  # the eighth
    redis_server.command("HSET", BOOKS, "accepted", 1)
    redis_server.command("HSET", theirs, "accepted", 1)
    redis_server.command("RPUSH", queue, "R")
    refused = bench_buffer(tmp_path, *LITTLE, "--buffer", redis_server.url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("outlit-proxy bench buffer: ")
    assert "--clean" in refused.stderr
    cleaned = bench_buffer(tmp_path, "--clean", "--buffer", redis_server.url)
    assert cleaned.returncode == 0, cleaned.stderr
    assert redis_server.command("KEYS", OF_THE_BENCH) == []
    assert redis_server.command("EXISTS", theirs) == 1

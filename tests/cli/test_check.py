"""``check``: what it says where all is well and where something is wrong, and that it changes nothing."""

import asyncio
import contextlib
import errno
import http.server
import json
import os
import resource
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import http_parser
from click.testing import CliRunner

from proxy.buffer.redis.keys import LAYOUT
from proxy.checks import surroundings
from proxy.checks.gateway import look_at_gateway
from proxy.checks.upstream import look_at_upstream
from proxy.cli import main
from proxy.engines import StartRefused, open_engine
from proxy.metrics import Metrics
from proxy.settings import load
from tests.cli.operator import Operator, fresh
from tests.programs import OUTLIT_PROXY, Sandbox, free_port, running_sandbox
from tests.redis_servers import Certificates, Deployment, RedisServer

TOKEN = "t0ken-that-nobody-may-see"
API_KEY = "ok_key-that-nobody-may-see-0123456789"


class Found(NamedTuple):
    """What a check said: its exit code, and each line's grade and text by its name."""

    code: int
    lines: dict[str, tuple[str, str]]

    def of(self, grade: str) -> dict[str, str]:
        return {name: text for name, (its, text) in self.lines.items() if its == grade}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as started:
        yield started


Check = Callable[..., Found]


@pytest.fixture
def check(sandbox: Sandbox, tmp_path: Path, logs: object) -> Check:
    """Run it with a buffer's file in a new folder, free ports and the sandbox, unless told otherwise."""

    def checked(*arguments: str, **settings: str | None) -> Found:
        usual = {
            "FRONT_LISTEN": "127.0.0.1:0",
            "OPS_LISTEN": "127.0.0.1:0",
            "OPS_TOKEN": TOKEN,
            "BUFFER_URL": f"sqlite:///{tmp_path}/data/buffer.db",
            "UPSTREAM_URL": sandbox.url,
        }
        environment = {f"OUTLIT_PROXY_{name}": value for name, value in {**usual, **settings}.items()}
        result = CliRunner().invoke(main, ["check", "--json", *arguments], env=environment)
        assert TOKEN not in result.output
        assert API_KEY not in result.output
        assert result.stderr == ""
        said = json.loads(result.stdout)
        assert said["ok"] == (result.exit_code == 0)
        assert all(line["text"].isprintable() for line in said["checks"])
        lines = {line["name"]: (line["grade"], line["text"]) for line in said["checks"]}
        if result.exit_code != 78:
            assert len(lines) == len(said["checks"]), "a name for each line"
        return Found(result.exit_code, lines)

    return checked


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file in a folder, with its contents and when it was last written."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


# -- all is well ---------------------------------------------------------------------------------------


def test_where_all_is_well_every_line_is_and_nothing_was_made_or_sent(
    check: Check, tmp_path: Path, sandbox: Sandbox
) -> None:
    found = check("--strict")
    assert found.code == 0, found
    assert list(found.of("ok")) == [
        "settings",
        "http parser",
        "front.listen",
        "ops.listen",
        "open files",
        "ops.token",
        "delivery.rate_share",
        "sqlite",
        "data directory",
        "disk",
        "upstream",
        "clock",
        "gateway",
    ]
    assert "no event was sent" in found.lines["upstream"][1]
    assert not list(tmp_path.iterdir())
    assert not sandbox.requests()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program itself, beside whatever listens on this machine."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")}
    anywhere = {"OUTLIT_PROXY_FRONT_LISTEN": "127.0.0.1:0", "OUTLIT_PROXY_OPS_LISTEN": "127.0.0.1:0"}
    return subprocess.run(
        [OUTLIT_PROXY, "check", *arguments],
        env={**inherited, **anywhere, **environment},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=60,
    )


@pytest.mark.parametrize(("encoding", "well", "letter"), [("utf-8", "√ ", "ü"), ("ascii", "ok", r"\xfc")])
def test_a_person_gets_a_marked_line_each_in_any_encoding(
    encoding: str, well: str, letter: str, tmp_path: Path
) -> None:
    ended = run(
        "--offline",
        PYTHONIOENCODING=encoding,
        OUTLIT_PROXY_BUFFER_URL=f"sqlite:///{tmp_path}/für/buffer.db",
    )
    assert ended.returncode == 0, ended
    assert ended.stderr == ""
    *lines, empty, last = ended.stdout.splitlines()
    assert (empty, last) == ("", "nothing is wrong, 1 warning")
    marks = [line[:2] for line in lines]
    assert marks.count(well) == 10
    assert marks.count("! ") == 1
    assert marks.count("- ") == 1
    assert any(f"/f{letter}r/buffer.db" in line for line in lines)


# -- settings ------------------------------------------------------------------------------------------


def test_wrong_settings_are_a_line_each_and_78(check: Check) -> None:
    environment = {"OUTLIT_PROXY_DELIVERY_LINGER": "5", "OUTLIT_PROXY_FRONT_LISTN": ":80"}
    for arguments in ((), ("--json",)):
        result = CliRunner().invoke(main, ["check", *arguments], env=environment)
        assert result.exit_code == 78
        for text in ("did you mean OUTLIT_PROXY_FRONT_LISTEN?", "a duration needs a unit"):
            assert text in result.stdout
    assert check(DELIVERY_LINGER="5").of("error")["settings"].startswith("OUTLIT_PROXY_DELIVERY_LINGER")


def test_what_the_environment_takes_away_from_the_file_is_said(check: Check, tmp_path: Path) -> None:
    """An image sets buffer.url: a mounted file that names a Redis would go unheard, and replicas alone."""
    file = tmp_path / "proxy.toml"
    file.write_text('[buffer]\nurl = "redis://redis.internal"\n[delivery]\nlinger = "2s"\n')
    found = check("--offline", CONFIG=str(file))
    assert found.code == 0
    assert found.of("warning")["overridden"].startswith("of buffer.url the environment says ")


def test_a_warning_fails_only_where_it_is_asked_to(check: Check) -> None:
    more = {"FRONT_LISTEN": "0.0.0.0:0"}
    found = check("--offline", **more)
    assert found.code == 0
    assert set(found.of("warning")) == {"front.public_keys", "front.trusted_proxies"}
    assert check("--offline", "--strict", **more).code == 1
    more |= {"FRONT_PUBLIC_KEYS": '["pk_a"]', "FRONT_TRUSTED_PROXIES": '["10.0.0.0/8"]'}
    assert check("--offline", "--strict", **more).code == 0


def test_a_rate_that_lets_hardly_anything_out_is_a_warning(check: Check) -> None:
    found = check("--offline", DELIVERY_LIMIT_PER_S="1", DELIVERY_RATE_SHARE="0.1")
    assert "0.1 requests/s" in found.of("warning")["delivery.rate_share"]
    assert (
        "100 requests/s for each public key, so 10,000 events/s"
        in check("--offline").of("ok")["delivery.rate_share"]
    )


# -- the machine ---------------------------------------------------------------------------------------


def test_an_address_that_something_else_has_is_wrong(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_ASK_S", 0.1)  # it lets nobody in
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        found = check("--offline", FRONT_LISTEN=address)
    assert found.code == 1
    assert found.of("error") == {
        "front.listen": f"cannot listen on {address}: Address already in use; choose another address"
    }


def test_an_address_of_another_machine_is_wrong(check: Check) -> None:
    found = check("--offline", OPS_LISTEN="192.0.2.1:9090")
    assert "Cannot assign requested address" in found.of("error")["ops.listen"]


def test_a_port_that_only_root_may_have_is_wrong_with_its_own_remedy(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "not you")

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_server", refused)
    wrong = check("--offline", FRONT_LISTEN="127.0.0.1:80").of("error")["front.listen"]
    assert wrong == (
        "cannot listen on 127.0.0.1:80: Permission denied; choose a port from 1024 on, or give the process"
        " CAP_NET_BIND_SERVICE"
    )


def test_a_name_that_means_no_address_is_wrong_in_words(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_server", refused)
    assert check("--offline", OPS_LISTEN="proxy.internal:9090").of("error")["ops.listen"] == (
        "cannot listen on proxy.internal:9090: name or service not known; write an IP address, or a name that"
        " this machine can resolve"
    )


def test_what_a_running_proxy_has_is_a_warning_and_it_runs_on(check: Check, operator: Operator) -> None:
    before = snapshot(operator.proxy.database.parent)
    found = check(
        FRONT_LISTEN=operator.environment["OUTLIT_PROXY_FRONT_LISTEN"],
        OPS_LISTEN=operator.environment["OUTLIT_PROXY_OPS_LISTEN"],
        BUFFER_URL=f"sqlite:///{operator.proxy.database}",
    )
    assert found.code == 0, found
    warned = found.of("warning")
    assert set(warned) == {"front.listen", "ops.listen", "buffer file"}
    assert "is taken by an outlit-proxy" in warned["front.listen"]
    assert "is taken by outlit-proxy 0." in warned["ops.listen"]
    assert f"in use by process {operator.proxy.program.process.pid}" in warned["buffer file"]
    assert snapshot(operator.proxy.database.parent).keys() == before.keys()
    operator.post("pk_check", fresh())
    operator.proxy.wait_until_empty()


def test_too_few_open_files_are_a_warning(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    found = check("--offline")
    assert "raise it (ulimit -n, LimitNOFILE)" in found.of("warning")["open files"]
    assert check("--offline", FRONT_MAX_CONNECTIONS="3000").lines["open files"][0] == "ok"


def test_the_parser_in_python_is_wrong_and_no_start_takes_it(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    wrong = check("--offline").of("error")["http parser"]
    assert "unset AIOHTTP_NO_EXTENSIONS" in wrong
    monkeypatch.chdir(tmp_path)
    started = CliRunner().invoke(main, ["run", "--front-listen", ":0", "--ops-listen", ":0"])
    assert started.exit_code == 1
    assert started.stderr == f"outlit-proxy: {wrong}\n"
    assert not list(tmp_path.iterdir()), "it did not come as far as the buffer"


# -- a file --------------------------------------------------------------------------------------------


def refusal(file: Path) -> str:
    """What a start says on this file."""

    async def start() -> str:
        settings = load(None, {}, {"buffer.url": f"sqlite:///{file}"})
        try:
            engine = await open_engine(settings, Metrics())
        except StartRefused as error:
            return str(error)
        await engine.buffer.close()
        return ""

    return asyncio.run(start())


def test_a_folder_that_cannot_be_written_in_is_wrong_in_the_words_of_the_start(
    check: Check, tmp_path: Path
) -> None:
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    for file in (no_folder / "buffer.db", Path("/proc/none/buffer.db")):
        wrong = check("--offline", BUFFER_URL=f"sqlite:///{file}").of("error")["data directory"]
        assert wrong.startswith(f"buffer: cannot write in {file.parent}: ")
        assert wrong.partition(";")[2] == refusal(file).partition(";")[2]


def test_a_disk_too_small_for_what_is_allowed_is_a_warning(check: Check) -> None:
    warned = check("--offline", BUFFER_MAX_BYTES="100TB").of("warning")["disk"]
    assert "before they are reached posts are answered 503" in warned


def no_database(file: Path) -> None:
    file.write_bytes(b"something else altogether" * 10)


def anothers(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")


def newer(file: Path) -> None:
    assert not refusal(file)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")


def gone(file: Path) -> None:
    assert not refusal(file)
    file.unlink()


def marked_as_damaged(file: Path) -> None:
    assert not refusal(file)
    with Path(f"{file}.lock").open("a") as lock:
        lock.write("damaged: it was seen to be\n")


@pytest.mark.parametrize("spoil", [no_database, anothers, newer, gone, marked_as_damaged])
def test_a_file_that_no_start_takes_is_wrong_in_the_words_of_the_start_and_is_left_alone(
    spoil: Callable[[Path], None], check: Check, tmp_path: Path
) -> None:
    file = tmp_path / "buffer.db"
    spoil(file)
    before = snapshot(tmp_path)
    found = check("--offline", BUFFER_URL=f"sqlite:///{file}")
    assert snapshot(tmp_path) == before
    assert found.code == 1
    wrong, of_start = found.of("error")["buffer file"], refusal(file)
    assert of_start
    if spoil is no_database:  # SQLite's own word for it differs
        wrong, of_start = (text.partition("; ")[2] for text in (wrong, of_start))
    assert wrong == of_start


def test_a_file_of_this_version_is_well(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "buffer.db"
    assert not refusal(file)
    before = snapshot(tmp_path)
    assert (
        check("--offline", BUFFER_URL=f"sqlite:///{file}")
        .of("ok")["buffer file"]
        .endswith("is of this version")
    )
    assert snapshot(tmp_path) == before


def test_a_first_start_that_was_ended_is_no_damage(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "buffer.db"
    file.write_bytes(b"")
    assert check("--offline", BUFFER_URL=f"sqlite:///{file}").code == 0
    assert not refusal(file)


def test_files_of_another_user_are_wrong(check: Check, tmp_path: Path) -> None:
    """Somebody once ran it as root, say. Root may read and write everything, so we are another here."""
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "buffer.db"
    assert not refusal(file)
    file.chmod(0o400)
    settings = {"BUFFER_URL": f"sqlite:///{file}"}
    us = os.geteuid()
    if us == 0:
        assert check("--offline", **settings).code == 0
        folder.chmod(0o777)
        for above in (tmp_path, *tmp_path.parents[:-2]):
            above.chmod(above.stat().st_mode | 0o055)
        os.seteuid(65532)
    try:
        found = check("--offline", **settings)
    finally:
        os.seteuid(us)
    assert (
        "Permission denied; give it to the user of this process (chown " in found.of("error")["buffer file"]
    )


def test_what_tells_that_a_log_was_cut_short_is_still_there_after_a_check(
    check: Check, operator: Operator, tmp_path: Path
) -> None:
    """SQLite takes such a log for a shorter history; had a check opened it, no start would notice."""
    operator.post("pk_check", fresh(), fresh())
    database = operator.proxy.database
    for file in database.parent.iterdir():
        contents = file.read_bytes()
        cut = len(contents) // 2 if file.name.endswith("-wal") else len(contents)
        (tmp_path / file.name).write_bytes(contents[:cut])
    before = snapshot(tmp_path)
    assert check("--offline", BUFFER_URL=f"sqlite:///{tmp_path / database.name}").code == 0
    assert snapshot(tmp_path) == before
    assert "acknowledged are missing" in refusal(tmp_path / database.name)


# -- a Redis -------------------------------------------------------------------------------------------


@pytest.fixture(params=["redis_server", "valkey_server", "cluster"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    found: Deployment = request.getfixturevalue(request.param)
    return found


def test_a_fit_redis_of_any_kind_is_well_and_nothing_is_written_to_it(
    deployment: Deployment, check: Check
) -> None:
    found = check(BUFFER_URL=deployment.url, BUFFER_MAX_BYTES="100MB", DEAD_MAX_BYTES="10MB")
    assert found.code == 0, found
    assert not found.of("warning")
    assert set(found.lines) >= {"redis", "redis safety", "redis rights", "redis room"}
    assert "append-only file: yes" in found.lines["redis"][1]
    assert not [key for server in deployment.primaries for key in server.command("KEYS", "*")]


def test_offline_nobody_is_asked(check: Check) -> None:
    nobody = free_port()
    found = check(
        "--offline",
        "--strict",
        BUFFER_URL=f"redis://127.0.0.1:{nobody}",
        UPSTREAM_URL=f"http://127.0.0.1:{nobody}",
    )
    assert found.code == 0
    assert set(found.of("skipped")) == {"redis", "upstream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that the tests here configure."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "server", options={"maxmemory": "5gb"}) as started:
        yield started


def test_what_endangers_a_redis_is_a_line_each_with_its_remedy(check: Check, server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.command("CONFIG", "SET", "appendonly", "no")
    server.command("CONFIG", "SET", "maxmemory", "1gb")
    try:
        found = check(BUFFER_URL=server.url)
    finally:
        server.command("CONFIG", "SET", "maxmemory", "5gb")
        server.command("CONFIG", "SET", "appendonly", "yes")
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert found.code == 1
    assert set(found.of("error")) == {"redis eviction"}
    assert "set its maxmemory-policy to noeviction" in found.of("error")["redis eviction"]
    assert set(found.of("warning")) == {"redis persistence", "redis bounds"}
    assert "set its appendonly to yes" in found.of("warning")["redis persistence"]
    assert found.lines["redis safety"][1].endswith("role, version, saving, replicas, memory, in_clear")


def test_a_user_who_may_too_little_is_told_what_is_missing_before_a_script_fails(
    check: Check, server: RedisServer
) -> None:
    rules = ("on", f">{TOKEN}", "~outlit:*", "+@all", "-hscan", "-zadd")
    server.command("ACL", "SETUSER", "narrow", *rules)
    found = check(BUFFER_URL=f"redis://narrow@{server.address}", BUFFER_PASSWORD=TOKEN)
    assert found.code == 1
    assert found.of("error")["redis rights"].endswith("widen its ACL: +hscan +zadd")
    server.command("ACL", "SETUSER", "narrow", "+hscan", "+zadd", "-wait")
    theirs = {"BUFFER_URL": f"redis://narrow@{server.address}", "BUFFER_PASSWORD": TOKEN}
    assert check(**theirs).code == 0
    found = check(**theirs, BUFFER_DURABILITY="replica")
    assert found.of("error")["redis rights"].endswith("widen its ACL: +wait")
    assert "0 of the 1 replicas" in found.of("warning")["redis replicas"]


def test_a_full_redis_is_a_warning_since_it_must_drain(check: Check, server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        found = check(BUFFER_URL=server.url)
    finally:
        server.command("CONFIG", "SET", "maxmemory", "5gb")
    assert found.code == 0, found
    assert "posts would be answered 503 now" in found.of("warning")["redis room"]


def test_a_redis_of_a_newer_version_is_wrong(check: Check, server: RedisServer) -> None:
    server.command("SET", LAYOUT, "99 0123456789abcdef")
    try:
        found = check(BUFFER_URL=server.url)
    finally:
        server.command("DEL", LAYOUT)
    assert "start that version again" in found.of("error")["redis"]


def test_a_redis_that_is_not_there_or_lets_nobody_in_is_wrong(check: Check, server: RedisServer) -> None:
    found = check(BUFFER_URL=f"redis://127.0.0.1:{free_port()}")
    assert "is it running, and is buffer.url right?" in found.of("error")["redis"]
    found = check(BUFFER_URL=f"redis://nobody@{server.address}", BUFFER_PASSWORD=TOKEN)
    assert "refuses the login" in found.of("error")["redis"]


# -- upstream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:{nobody}", "cannot be reached (Connection refused)"),
        ("https://{sandbox}", "speaks no TLS that fits"),
        ("https://host.invalid", "cannot be found"),
    ],
)
def test_an_upstream_that_cannot_be_reached_is_wrong(
    url: str, why: str, check: Check, sandbox: Sandbox
) -> None:
    url = url.format(nobody=free_port(), sandbox=sandbox.url.removeprefix("http://"))
    found = check(UPSTREAM_URL=url)
    assert found.code == 1
    assert why in found.of("error")["upstream"]
    assert url in found.of("error")["upstream"]


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers as its server says, and notes what it was asked.

    A POST gets what is `said`; where that is None its own headers back, which is no HTTP.
    """

    def do_HEAD(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def do_POST(self) -> None:
        status, said = self.server.said  # type: ignore[attr-defined]
        if said is None:
            self.wfile.write(f"{self.headers}\r\n".encode())
            return
        self.server.status = status  # type: ignore[attr-defined]
        self.do_HEAD()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def answering(status: int, certificates: Certificates | None = None) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.status, server.asked, server.said = status, [], (status, b"")
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_upstream_in_trouble_is_a_warning_and_was_asked_nothing_but_its_head(check: Check) -> None:
    with answering(503) as server:
        found = check(UPSTREAM_URL=f"http://127.0.0.1:{server.server_port}/below")
    assert "answered 503" in found.of("warning")["upstream"]
    [(method, path, headers)] = server.asked
    assert (method, path) == ("HEAD", "/below/")
    assert "Authorization" not in headers


def test_a_certificate_that_does_not_verify_is_wrong_and_one_that_does_is_not(
    check: Check, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path)
    with answering(404, certificates) as server:
        url = f"https://localhost:{server.server_port}"
        found = check(UPSTREAM_URL=url)
        ended = run(
            OUTLIT_PROXY_UPSTREAM_URL=url,
            OUTLIT_PROXY_BUFFER_URL=f"sqlite:///{tmp_path}/buffer.db",
            SSL_CERT_FILE=str(certificates.authority),
        )
    assert found.code == 1
    assert "has a certificate that does not verify (" in found.of("error")["upstream"]
    assert ended.returncode == 0, ended
    assert "no event was sent; its certificate was verified" in ended.stdout


async def test_a_clock_that_goes_wrong_is_a_warning() -> None:
    with answering(200) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        said = [
            (await look_at_upstream(url, 5.0, wall))[1]
            for wall in (lambda: time.time() - 120, lambda: time.time() + 120, time.time)
        ]
    assert [line.grade for line in said] == ["warning", "warning", "ok"]
    assert "behind upstream's" in said[0].text
    assert "ahead of upstream's" in said[1].text


async def test_an_upstream_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        [line] = await look_at_upstream(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)
    assert line.grade == "error"
    assert "did not answer within 0.2 s" in line.text


# -- the gateway ---------------------------------------------------------------------------------------


def test_a_gateway_that_is_off_is_well_and_a_key_for_nobody_is_a_warning(check: Check) -> None:
    """Offline, too: nobody has to be asked about it."""
    for arguments in ((), ("--offline",)):
        off = check(*arguments, OPS_TOKEN=None)
        assert off.of("ok")["gateway"] == "off: it needs ops.token"
        assert set(off.of("warning")) == {"ops.token"}
        in_vain = check(*arguments, OPS_TOKEN=None, GATEWAY_API_KEY=API_KEY)
        assert set(in_vain.of("warning")) == {"ops.token", "gateway"}
        assert "off, though gateway.api_key is set" in in_vain.of("warning")["gateway"]


def test_a_gateway_that_lets_no_tool_be_called_is_a_warning(check: Check) -> None:
    none = check("--offline", GATEWAY_TOOLS="[]")
    assert none.of("warning")["gateway.tools"] == 'empty: no tool may be called: list some, or ["*"]'
    for others in ({"GATEWAY_TOOLS": '["a"]'}, {}, {"GATEWAY_TOOLS": "[]", "OPS_TOKEN": None}):
        assert "gateway.tools" not in check("--offline", **others).lines


def test_a_key_that_other_machines_may_use_under_any_name_is_a_warning(check: Check) -> None:
    reached = {"OPS_LISTEN": "0.0.0.0:0", "GATEWAY_API_KEY": API_KEY}
    said = check("--offline", **reached).of("warning")["ops.allowed_hosts"]
    assert "0.0.0.0:0" in said
    assert "put TLS before it, and list the names" in said
    for changed in (
        {"OPS_LISTEN": "127.0.0.1:0"},
        {"OPS_ALLOWED_HOSTS": "[]"},
        {"OPS_ALLOWED_HOSTS": '["proxy.internal"]'},
        {"OPS_TOKEN": None},
        {"GATEWAY_API_KEY": None},
    ):
        assert "ops.allowed_hosts" not in check("--offline", **{**reached, **changed}).lines


def test_a_valid_key_is_well_and_its_organization_is_named(check: Check, sandbox: Sandbox) -> None:
    found = check("--strict", GATEWAY_API_KEY=API_KEY)
    assert found.code == 0, found
    assert found.of("ok")["gateway"].startswith("on; gateway.api_key is valid (organization ")
    assert "is not set" in check().of("ok")["gateway"]


def test_a_key_that_outlit_refuses_is_wrong(check: Check) -> None:
    found = check(GATEWAY_API_KEY="ok_revoked-0123456789-0123456789-0123456789")
    assert found.code == 1
    assert "make a new key" in found.of("error")["gateway"]
    assert "or restart where it comes as a variable" in found.of("error")["gateway"]


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (503, b'{"valid": false, "error": "Service unavailable"}', "503, try again"),
        (200, b'{"valid": false}', "is upstream.url right?"),
        (200, b"<html>a portal that wants a login</html>", "is upstream.url right?"),
        (200, b"[" * 100_000, "is upstream.url right?"),
        (307, b"", "the answer was 307"),
        (404, API_KEY.encode(), "the answer was 404"),
        (0, None, "gave no whole answer"),
    ],
)
def test_a_key_of_which_nothing_can_be_told_is_a_warning(
    status: int, said: bytes | None, why: str, check: Check
) -> None:
    """Whatever comes back, the key itself included: the fixture looks for it in all that is printed."""
    with answering(200) as server:
        server.said = (status, said)
        found = check(UPSTREAM_URL=f"http://127.0.0.1:{server.server_port}/below", GATEWAY_API_KEY=API_KEY)
    assert found.code == 0, found
    assert why in found.of("warning")["gateway"]
    if said is not None:
        (_, (method, path, headers)) = server.asked
        assert (method, path) == ("POST", "/below/api/validate-api-key")
        assert headers["Authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize("organization", [API_KEY, None, ["org_1"], "a\nb"])
def test_an_organization_of_an_odd_name_or_the_keys_own_is_not_printed(
    organization: object, check: Check
) -> None:
    with answering(200) as server:
        server.said = (200, json.dumps({"valid": True, "organizationId": organization}).encode())
        found = check(UPSTREAM_URL=f"http://127.0.0.1:{server.server_port}", GATEWAY_API_KEY=API_KEY)
    assert found.of("ok")["gateway"] == "on; gateway.api_key is valid"


def test_a_key_is_not_waited_for_where_upstream_gave_no_answer_already(check: Check) -> None:
    found = check(UPSTREAM_URL=f"http://127.0.0.1:{free_port()}", GATEWAY_API_KEY=API_KEY)
    assert set(found.of("error")) == {"upstream"}
    assert "upstream cannot be asked" in found.of("warning")["gateway"]


async def test_an_upstream_that_does_not_say_whether_a_key_is_valid_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = load(
            None,
            {
                "OUTLIT_PROXY_OPS_TOKEN": TOKEN,
                "OUTLIT_PROXY_GATEWAY_API_KEY": API_KEY,
                "OUTLIT_PROXY_GATEWAY_TIMEOUT": "200ms",
                "OUTLIT_PROXY_UPSTREAM_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            },
        )
        line = await look_at_gateway(settings, offline=False, reached=True)
    assert line.grade == "warning"
    assert "did not answer within 0.2 s" in line.text


def test_a_key_does_not_leave_in_clear_nor_offline(check: Check, sandbox: Sandbox) -> None:
    offline = check("--offline", GATEWAY_API_KEY=API_KEY)
    assert "(--offline)" in offline.of("skipped")["gateway"]
    in_clear = {"UPSTREAM_URL": "http://host.invalid", "GATEWAY_API_KEY": API_KEY}
    for arguments in ((), ("--offline",)):
        said = check(*arguments, **in_clear).of("warning")["gateway"]
        assert "in clear" in said
        assert "write https://" in said

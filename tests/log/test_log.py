"""Lines of the log: their form, what they hide, and what must not break them."""

import asyncio
import errno
import io
import json
import logging
from collections import Counter

import pytest
import structlog
from aiohttp import web

from proxy import log
from proxy.ledger import Dead
from proxy.log.repeats import IN_A_WINDOW, WINDOW_S, Repeats
from proxy.metrics import Metrics


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers = handlers
    root.setLevel(level)


def test_json_leads_with_timestamp_level_and_event():
    stream = io.StringIO()
    log.configure("json", "info", stream)
    structlog.get_logger().info("stored", events=3)
    line = json.loads(stream.getvalue())
    assert list(line) == ["timestamp", "level", "event", "events"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["event"], line["events"]) == ("info", "stored", 3)


@pytest.mark.parametrize(
    ("log_format", "shown"), [("text", "reason='poison'"), ("json", '"reason":"poison"')]
)
def test_a_reason_is_the_word_that_metrics_have(log_format, shown):
    stream = io.StringIO()
    log.configure(log_format, "info", stream)
    structlog.get_logger().info("given up", reason=Dead.POISON)
    assert shown in stream.getvalue()


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(stream, is_json):
    log.configure("auto", "info", stream)
    structlog.get_logger().info("stored")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(monkeypatch, no_color, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        log.configure("text", "info", stream)
        structlog.get_logger().info("stored", events=3)
    assert ("\x1b[" in terminal.getvalue()) is coloured
    assert "\x1b[" not in pipe.getvalue()


def test_lines_below_the_level_are_left_out_and_a_second_configure_changes_it():
    logger = structlog.get_logger()
    stream = io.StringIO()
    log.configure("json", "warning", stream)
    logger.info("hidden")
    assert stream.getvalue() == ""
    log.configure("json", "info", stream)
    logger.info("shown")
    assert json.loads(stream.getvalue())["event"] == "shown"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_libraries_are_heard_once_from_warning_upwards(log_format):
    stream = io.StringIO()
    log.configure(log_format, "debug", stream)
    log.configure(log_format, "debug", stream)
    logging.getLogger("some.library").info("hidden")
    logging.getLogger("some.library").warning("heard %d", 1)
    (line,) = stream.getvalue().splitlines()
    assert "heard 1" in line
    assert "some.library" in line


EVIL = "x\n2026-01-01T00:00:00Z [error] forged \x1b[2J\r\u202e\u2028\x85"


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("place", ["event", "value", "nested", "library"])
def test_nothing_that_a_client_sends_breaks_or_disguises_a_line(log_format, place):
    stream = io.StringIO()
    log.configure(log_format, "info", stream)
    logger = structlog.get_logger()
    match place:
        case "event":
            logger.info(EVIL)
        case "value":
            logger.info("refused", value=EVIL)
        case "nested":
            logger.info("refused", value={"key": [EVIL]})
        case "library":
            logging.getLogger("some.library").warning(EVIL)
    line = stream.getvalue().removesuffix("\n")
    if log_format == "text":
        assert line.isprintable()
    else:
        assert "\n" not in line
        assert "\x1b" not in line


def test_a_traceback_is_indented_and_shows_no_local_variables():
    def fail():
        clients_event = "NEVER-TO-BE-LOGGED".lower()
        raise ValueError(EVIL, len(clients_event))

    stream = io.StringIO()
    log.configure("text", "info", stream)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
    first, *rest = stream.getvalue().split("\n")
    assert first.rstrip().endswith("failed")
    assert all(line.startswith("    ") for line in rest if line)
    assert "never-to-be-logged" not in stream.getvalue()


def test_a_multi_line_message_of_an_exception_cannot_pass_for_a_line_of_the_log():
    class Refusal(Exception):
        def __str__(self):
            return EVIL

    stream = io.StringIO()
    log.configure("text", "info", stream)
    structlog.get_logger().error("failed", exc_info=Refusal())
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert any("forged" in line for line in lines)
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])


@pytest.mark.parametrize("value", ["\ud83d", 2**70, float("nan"), object(), b"\xff", {1: 2}, {object(): 1}])
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_value_makes_logging_raise(log_format, value):
    stream = io.StringIO()
    log.configure(log_format, "info", stream)
    structlog.get_logger().info("odd", value=value)
    assert stream.getvalue().count("\n") == 1
    if log_format == "json":
        assert json.loads(stream.getvalue())["event"] == "odd"


@pytest.mark.parametrize(
    ("key", "short"),
    [
        ("pk_abc", "pk_abc"),
        ("pk_live_abc_0123", "pk_live_abc_0123"),
        ("pk_live_abc_01234", "pk_live_abc…1234"),
        ("pk_live_abc_shop_de", "pk_live_abc…p_de"),
    ],
)
def test_a_public_key_is_shortened(key, short):
    assert log.short_key(key) == short


async def test_a_malformed_request_leaves_no_line_and_a_failing_handler_does():
    stream = io.StringIO()
    log.configure("json", "info", stream)

    async def fail(_request):
        raise RuntimeError("our own mistake")

    app = web.Application()
    app.router.add_get("/", fail)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0][:2]
    answers = []
    try:
        for request in (
            b"GET / HTTP/9.x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answers.append((await reader.readline()).split()[1])
            writer.close()
            await writer.wait_closed()
    finally:
        await runner.cleanup()
    assert answers == [b"400", b"400", b"500"]
    (line,) = stream.getvalue().splitlines()
    assert "our own mistake" in json.loads(line)["exception"]


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_library_that_repeats_itself_is_heard_a_few_times():
    stream = io.StringIO()
    log.configure("json", "info", stream)
    for n in range(1_000):
        logging.getLogger("asyncio").error("accept: out of resource %d", n)
    logging.getLogger("asyncio").error("something else")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        *(f"accept: out of resource {n}" for n in range(IN_A_WINDOW)),
        "something else",
    ]


def test_what_repeats_is_written_a_few_times_and_then_says_how_often_it_was_not(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("proxy.log.lines.Repeats", lambda: Repeats(clock))
    stream = io.StringIO()
    log.configure("json", "info", stream)
    logger = structlog.get_logger()
    for _ in range(100):
        logger.warning("append failed", key="pk_one", error="any")
        logger.warning("append failed", key="pk_two")
        logger.info("key paused")
    clock.now_s = WINDOW_S
    logger.warning("append failed", key="pk_one")
    clock.now_s = 3 * WINDOW_S
    logger.warning("append failed", key="pk_one")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert Counter(line.get("key", "none") for line in lines) == {
        "pk_one": IN_A_WINDOW + 2,
        "pk_two": IN_A_WINDOW,
        "none": 100,
    }
    assert [line.get("left_out") for line in lines[-2:]] == [100 - IN_A_WINDOW, None]


def test_each_warning_and_error_is_counted_whether_it_is_written_or_not():
    metrics = Metrics()
    log.count_lines(metrics.count_line)
    try:
        log.configure("json", "info", io.StringIO())
        for _ in range(7):
            structlog.get_logger().warning("append failed")
        structlog.get_logger().info("stored")
        logging.getLogger("aiohttp").error("odd")
    finally:
        log.count_lines(lambda _level, _is_written: None)
    text = metrics.exposition("")[0].decode()
    assert 'outlit_proxy_log_lines_total{level="warning"} 7.0' in text
    assert 'outlit_proxy_log_lines_total{level="error"} 1.0' in text
    assert "outlit_proxy_log_lines_left_out_total 2.0" in text


def test_kinds_without_end_take_no_memory_without_end():
    repeats = Repeats()
    for n in range(10_000):
        repeats.of_ours(None, "", {"level": "warning", "event": f"kind {n}"})
    assert len(repeats._kinds) <= 1_000


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


class Full(io.StringIO):
    def flush(self):
        raise OSError(errno.ENOSPC, "no space left on device")


class Closed(io.StringIO):
    def __init__(self):
        super().__init__()
        self.close()

    def isatty(self):
        return False


@pytest.mark.parametrize("stream", [Gone(), Full(), Closed()], ids=["gone", "full", "closed"])
def test_a_line_that_cannot_be_written_is_counted_and_raises_nothing(stream, capfd):
    metrics = Metrics()
    log.count_unwritten(metrics.log_lines_unwritten.inc)
    try:
        log.configure("json", "info", stream)
        structlog.get_logger().info("stored")
        logging.getLogger("aiohttp").error("odd")
    finally:
        log.count_unwritten(lambda: None)
    assert "outlit_proxy_log_lines_unwritten_total 2.0" in metrics.exposition("")[0].decode()
    assert capfd.readouterr() == ("", "")


def test_without_any_stderr_nothing_is_written(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    log.configure()
    structlog.get_logger().info("stored")

"""What the operations listener answers where a handler fails, and what of it the log may say."""

import logging
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.ops.listener import TOKEN, Listener, Stand, listening
from tests.stack import Reply

SECRET = "ok_a-callers-own-key-0123456789abcdef"
CALL = "/platform/api/tools/call"


def _quotes(request: web.Request) -> None:
    """Fail as a library would that says what it has choked on."""
    try:
        dict[str, str]()[request.headers["Authorization"]]
    except KeyError as error:
        raise ValueError(f"cannot send {dict(request.headers)}") from error


async def _crashes(request: web.Request) -> web.StreamResponse:
    _quotes(request)
    raise AssertionError("unreachable")


async def _crashes_halfway(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half an ")
    _quotes(request)
    raise AssertionError("unreachable")


async def _answers_like_outlit(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text='{"error": "theirs"}', headers={"X-Theirs": "1"})


async def asked(listener: Listener, method: str = "POST", path: str = CALL) -> Reply:
    return await listener.ask(method, path, Authorization=f"Bearer {SECRET}")


async def test_a_crash_in_the_gateway_is_a_500_of_its_own_and_the_log_quotes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        async with listening(tmp_path, gateway=Stand(handler=_crashes)) as listener:
            reply = await asked(listener)
    assert reply.status == 500
    assert (reply.json["code"], reply.json["retryable"]) == ("internal", False)
    assert reply.headers["Proxy-Status"].startswith("outlit-proxy; error=")
    (line,) = lines
    assert line["path"] == CALL
    assert line["log_level"] == "error"
    # Innermost first: where it was raised, and after what.
    assert line["crash"].startswith("ValueError in test_errors.py:")
    assert ", after KeyError in test_errors.py:" in line["crash"]
    assert "exc_info" not in line
    assert SECRET not in repr(lines) + "".join(capsys.readouterr())


async def test_a_crash_halfway_cuts_the_answer_off_and_the_log_quotes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, gateway=Stand(handler=_crashes_halfway)) as listener:
        raw = await listener.cut_off(f"POST {CALL} HTTP/1.1", Authorization=f"Bearer {SECRET}")
    assert raw.endswith(b"half an \r\n"), "and no last chunk"
    assert "the gateway cut an answer off: ValueError in test_errors.py:" in caplog.text
    assert SECRET not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_what_the_gateway_answers_passes_as_it_is(tmp_path: Path) -> None:
    async with listening(tmp_path, gateway=Stand(handler=_answers_like_outlit)) as listener:
        reply = await asked(listener)
    assert (reply.status, reply.body, reply.headers["X-Theirs"]) == (500, b'{"error": "theirs"}', "1")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CALL, 405, "method_not_allowed"),
        ("POST", "/platform", 404, "not_found"),
        ("GET", "/platform/nothing", 404, "not_found"),
    ],
)
async def test_what_the_router_refuses_of_the_gateways_paths_has_its_shape(
    tmp_path: Path, method: str, path: str, status: int, code: str
) -> None:
    async with listening(tmp_path, gateway=Stand(handler=_answers_like_outlit)) as listener:
        reply = await asked(listener, method, path)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_elsewhere_the_router_refuses_as_before(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        for path, status, error in (("/nothing", 404, "not found"), ("/livez", 405, "method not allowed")):
            reply = await listener.ask("POST", path)
            assert (reply.status, reply.json) == (status, {"error": error})


async def test_what_is_used_up_is_forgotten_by_whoever_has_the_token(tmp_path: Path) -> None:
    stand = Stand()
    async with listening(tmp_path, gateway=stand) as listener:
        assert (await listener.ask("POST", "/gateway/retry")).status == 401
        assert (await listener.ask("POST", "/gateway/retry?key=ok_", **TOKEN)).status == 400
        assert stand.retries == 0
        reply = await listener.ask("POST", "/gateway/retry", **TOKEN)
        assert (reply.status, reply.json) == (200, {"forgotten": 3})
        assert (await listener.ask("GET", "/gateway/retry", **TOKEN)).status == 405
    assert stand.retries == 1

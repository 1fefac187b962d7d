"""How a line looks, and what it must not contain.

Ours (structlog) and what libraries say through ``logging`` take the same way out. Nothing that a client
sent may begin a line of its own, colour a terminal or hide a word: text escapes what cannot be printed, as
JSON does by itself.
"""

import json
import logging
import os
import sys
from enum import StrEnum
from typing import Literal, TextIO, cast

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor, WrappedLogger

from proxy.log.output import Output
from proxy.log.repeats import Repeats

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Of a public key: enough to tell it from others of the same customer, which often begin alike; too little to
# fill lines.
_FIRST_CHARACTERS = 11
_LAST_CHARACTERS = 4


class _LibraryHandler(logging.StreamHandler[Output]):
    """Ours among the root's handlers, so that a second `configure` replaces no other."""


def configure(
    log_format: Literal["auto", "json", "text"] = "auto",
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up all logging of the process, on `stream` (stderr). May be called again, after a reload say.

    Lines of libraries are written from warning upwards, whatever `level` is below that. A stream that cannot
    be written to raises nothing.
    """
    output = Output(stream or sys.stderr)
    terminal = output.isatty()
    text = log_format == "text" or (log_format == "auto" and terminal)
    known: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    finish: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    repeats = Repeats()
    render: list[Processor] = [_escaped, _text(colours=terminal)] if text else [_leading, _json]
    structlog.configure(
        processors=[*known, repeats.of_ours, *finish, *render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", output)),
        # A cached logger would keep the level it had before a reload; lines are rare enough to do without.
        cache_logger_on_first_use=False,
    )
    handler = _LibraryHandler(output)
    handler.addFilter(_is_not_malformed_request)
    handler.addFilter(repeats.of_libraries)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *known, *finish],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _LibraryHandler)] + [handler]
    root.setLevel(max(logging.WARNING, _LEVELS[level]))


def short_key(key: str) -> str:
    """A public key for a log line: its first and last characters, with "…" for what was left out between."""
    if len(key) <= _FIRST_CHARACTERS + 1 + _LAST_CHARACTERS:
        return key
    return f"{key[:_FIRST_CHARACTERS]}…{key[-_LAST_CHARACTERS:]}"


def _is_not_malformed_request(record: logging.LogRecord) -> bool:
    """Keep out the traceback that aiohttp writes for each request that is not HTTP; the front counts those.

    Anybody can send them, as many as they like. Errors of our own handlers pass.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _text(*, colours: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=colours and not os.environ.get("NO_COLOR"),
        sort_keys=False,
        # Quotes texts and escapes all in them that is not printable.
        repr_native_str=True,
        # The default, with rich installed, prints local variables: clients' events among them.
        exception_formatter=structlog.dev.plain_traceback,
    )


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what `repr_native_str` leaves as it is: the event itself and tracebacks, which keep their lines.

    Each line of a traceback is indented, so none can pass for a line of the log. A word of an enumeration
    becomes the plain text that metrics and JSON have, too.
    """
    for name, value in event.items():
        if isinstance(value, StrEnum):
            event[name] = str(value)
    event["event"] = _printable(str(event.get("event", "")))
    if logger_name := event.get("logger"):
        event["logger"] = _printable(str(logger_name))
    if traceback := event.get("exception"):
        event["exception"] = "\n".join(f"    {_printable(line)}" for line in str(traceback).split("\n"))
    return event


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _leading(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put first what every line has."""
    return {key: event.pop(key, "") for key in ("timestamp", "level", "event")} | dict(event)


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except TypeError:
        # Lone surrogates and integers beyond 64 bits, which clients can send. A line must not raise.
        plain = {key: value if isinstance(value, str | int) else repr(value) for key, value in event.items()}
        return json.dumps(plain)

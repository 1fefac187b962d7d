"""Where settings come from: one TOML file, then the environment, then flags; the later wins.

A name that no setting has is an error wherever it stands. Everything that is wrong is reported at once, one
line each. Only where a source was wrong in itself, settings that contradict each other are not reported: the
contradiction might be the doing of the value that is missing.

pydantic does the checking. The sources of pydantic-settings were weighed and left: they read ``os.environ``
and nothing else, forget which source a value came from (``config show --origin`` and every error need it),
pass over a misspelt variable in silence, and end at the first JSON that does not parse. Mended in all this,
what was left of them was a look-up.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.settings.kinds import toml_text
from proxy.settings.setting import Setting
from proxy.settings.tables import SETTINGS, Clash, Settings

CONFIG_VARIABLE = "OUTLIT_PROXY_CONFIG"
PREFIX = "OUTLIT_PROXY_"

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
_BY_SECRET_FILE = {setting.secret_file_variable: setting for setting in SETTINGS if setting.secret}
_TABLES = tuple(dict.fromkeys(setting.table for setting in SETTINGS))
_NOTHING: Mapping[str, str] = MappingProxyType({})

# For every Service, Kubernetes sets such variables in each pod of its namespace: one called outlit-proxy
# would stop them all. No wider than that: OUTLIT_PROXY_FRONT_PORT=9000 is somebody's mistake, and reported.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT(_.+)?)|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://.*")

# Read no more of a secret's file than this: a token has at most 512 characters, the path may be a mistake.
_SECRET_FILE_BYTES = 4_096
# As much of a wrong value as is worth repeating.
_QUOTED_CHARACTERS = 60
# One of Outlit's, in what somebody wrote.
_API_KEY = re.compile(r"ok_[^\s\"',/:\]]{10,}")


class SettingsError(Exception):
    """Settings are wrong. `lines`: one readable sentence for each, without a secret's value."""

    def __init__(self, lines: Iterable[str]) -> None:
        # A key may have got anywhere: into the variable for its file's name, into a list, into a name.
        self.lines = tuple(_API_KEY.sub("ok_…", line) for line in lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as a source gave it. `where` begins an error's line, `origin` is for `Settings.origins`.

    `write`: how such a value is written there.
    """

    value: object
    where: str
    origin: str
    write: Callable[[object], str] = json.dumps


@dataclass(slots=True)
class _Gathered:
    """What the sources gave so far, and what was wrong with it.

    `overridden`: what the file says otherwise than the environment. `unknown`: settings that a source gave,
    or may have given, in a way that says nothing of their value.
    """

    given: dict[str, _Given] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    overridden: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def give(self, name: str, value: _Given) -> None:
        """A source says what the value is: whatever an earlier one said does not count."""
        self.given[name] = value
        self.unknown.discard(name)

    def of_environment(self, setting: Setting, value: object, variable: str) -> None:
        """A variable gives this: it counts, whatever the file says."""
        of_file = self.given.get(setting.name)
        if of_file is not None and str(of_file.value) != str(value):
            self.overridden.append(setting.name)
        self.give(setting.name, _Given(value, variable, f"environment {variable}"))


def load(
    config: Path | None = None, environ: Mapping[str, str] = _NOTHING, flags: Mapping[str, str] = _NOTHING
) -> Settings:
    """Settings from a file, the environment and flags, or SettingsError with all that is wrong.

    `config` wins over the file that `environ` names. `environ` is the caller's to pass: nothing here reads
    the process's own. `flags`: dotted name → the text that was given.
    """
    gathered = _gather(config, environ, flags)
    wrong = gathered.wrong
    try:
        settings = _validated(gathered)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise SettingsError([*wrong, *_lines(details, gathered.given, complete=not wrong)]) from None
    if wrong:
        raise SettingsError(wrong)
    return settings


def load_what_is_right(
    config: Path | None = None,
    environ: Mapping[str, str] = _NOTHING,
    flags: Mapping[str, str] = _NOTHING,
    *,
    needed: Collection[str] = (),
) -> tuple[Settings, tuple[str, ...]]:
    """The settings that nothing is wrong with, all others at their defaults; and what is wrong, a line each.

    For what asks a proxy that runs: that goes by settings which were right, whatever its file has become.
    Raises SettingsError where a setting that is `needed` is wrong, or may stand in a file that is unreadable.
    Of settings that contradict each other, those that are needed count, if that ends the contradiction.
    """
    gathered = _gather(config, environ, flags)
    unknown = gathered.unknown.intersection(needed)
    while True:
        try:
            settings = _validated(gathered)
            break
        except ValidationError as error:
            details = error.errors(include_url=False)
            gathered.wrong += _lines(details, gathered.given, complete=True)
            names = {name for detail in details for name in _to_drop(detail, gathered.given, needed)}
            unknown |= names.intersection(needed)
            for name in names:
                gathered.given.pop(name, None)
    if unknown:
        raise SettingsError(gathered.wrong)
    return settings, tuple(gathered.wrong)


def _gather(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> _Gathered:
    gathered = _Gathered()
    path = config or _config_of(environ, gathered)
    if path is not None:
        _read_file(path, gathered)
    _read_environment(environ, gathered)
    _read_flags(flags, gathered)
    return gathered


def _validated(gathered: _Gathered) -> Settings:
    """Raises ValidationError."""
    tables: dict[str, dict[str, object]] = {}
    for name, value in gathered.given.items():
        setting = _BY_NAME[name]
        tables.setdefault(setting.table, {})[setting.key] = value.value
    origins = {name: value.origin for name, value in gathered.given.items()}
    return Settings.model_validate(
        tables, context={"origins": origins, "overridden": tuple(gathered.overridden)}
    )


# Sources


def _config_of(environ: Mapping[str, str], gathered: _Gathered) -> Path | None:
    path = environ.get(CONFIG_VARIABLE)
    if path == "":
        gathered.unknown.update(_BY_NAME)
        gathered.wrong.append(f"{CONFIG_VARIABLE}: is empty: write a file's path, or unset it")
    return Path(path) if path else None


def _read_file(path: Path, gathered: _Gathered) -> None:
    file = _one_line(str(path))
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        gathered.unknown.update(_BY_NAME)
        gathered.wrong.append(f"{file}: cannot be read: {error.strerror or error}")
        return
    except (ValueError, RecursionError) as error:
        gathered.unknown.update(_BY_NAME)
        gathered.wrong.append(f"{file}: is not TOML: {_one_line(str(error))}")
        return
    for table, content in document.items():
        if table not in _TABLES:
            gathered.wrong.append(f"{file}: [{_one_line(table)}]: no such table{_nearest(table, _TABLES)}")
        elif not isinstance(content, dict):
            gathered.unknown.update(setting.name for setting in SETTINGS if setting.table == table)
            gathered.wrong.append(f"{file}: {table}: is a table: write [{table}] and its settings below")
        else:
            _read_table(file, table, content, gathered)


def _read_table(file: str, table: str, content: Mapping[str, object], gathered: _Gathered) -> None:
    for key, value in content.items():
        name = f"{table}.{key}"
        setting = _BY_NAME.get(name)
        if setting is None:
            # A setting under the wrong table is likelier than one misspelt.
            elsewhere = [other.name for other in SETTINGS if other.key == key]
            hint = f": did you mean {elsewhere[0]}?" if elsewhere else _nearest(name, _BY_NAME)
            gathered.wrong.append(f"{file}: {_one_line(name)}: no such setting{hint}")
            continue
        # A duration without a unit, as it would come from any other source: a text, which is then refused.
        bare = setting.kind.name == "duration" and isinstance(value, int | float)
        gathered.give(
            name, _Given(f"{value}" if bare else value, f"{file}: {name}", f"file {file}", toml_text)
        )


def _read_environment(environ: Mapping[str, str], gathered: _Gathered) -> None:
    known = [*_BY_VARIABLE, *_BY_SECRET_FILE, CONFIG_VARIABLE]
    for variable in sorted(environ):
        text = environ[variable]
        setting = _BY_VARIABLE.get(variable) or _BY_SECRET_FILE.get(variable)
        if setting is None:
            # Wrongly written in small letters it would go unnoticed: hence the comparison in capitals.
            ours = variable.upper().startswith(PREFIX) and variable != CONFIG_VARIABLE
            if ours and not _is_service_link(variable, text):
                hint = _nearest(variable.upper(), known)
                gathered.wrong.append(f"{_one_line(variable)}: no such setting{hint}")
        elif text == "":
            gathered.unknown.add(setting.name)
            gathered.wrong.append(f"{variable}: is empty: write a value, or unset it to keep the default")
        elif variable in _BY_SECRET_FILE:
            gathered.unknown.add(setting.name)  # until it is read
            _read_secret(variable, setting, environ, gathered)
        else:
            value = _value_of(setting, text, variable, gathered)
            if value is not None:
                gathered.of_environment(setting, value, variable)


def _is_service_link(variable: str, text: str) -> bool:
    is_port = variable.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(text)
    return bool(is_port or _SERVICE_LINK.fullmatch(variable))


def _read_secret(variable: str, setting: Setting, environ: Mapping[str, str], gathered: _Gathered) -> None:
    if setting.variable in environ:
        gathered.wrong.append(f"{variable}: is set together with {setting.variable}: unset one of them")
        return
    path = Path(environ[variable])
    file = _one_line(str(path))
    try:
        with path.open("rb") as opened:
            content = opened.read(_SECRET_FILE_BYTES + 1)
        secret = content.decode("utf-8-sig").strip()
    except OSError as error:
        gathered.wrong.append(f"{variable}: {file} cannot be read: {error.strerror or error}")
    except UnicodeDecodeError:
        gathered.wrong.append(f"{variable}: {file} is not text: write the secret into it as UTF-8")
    else:
        if len(content) > _SECRET_FILE_BYTES or not secret:
            state = "too long for a secret" if secret else "empty"
            gathered.wrong.append(
                f"{variable}: {file} is {state}: write the secret into it, and nothing else"
            )
        else:
            gathered.of_environment(setting, secret, variable)


def _read_flags(flags: Mapping[str, str], gathered: _Gathered) -> None:
    for name, text in flags.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            gathered.wrong.append(f"{_one_line(name)}: no such setting{_nearest(name, _BY_NAME)}")
        elif setting.secret:
            gathered.wrong.append(f"{setting.flag}: secrets have no flag: set {setting.variable} or …_FILE")
        elif text == "":
            gathered.unknown.add(name)
            gathered.wrong.append(f"{setting.flag}: is empty: write a value, or leave the flag out")
        else:
            value = _value_of(setting, text, setting.flag, gathered)
            if value is not None:
                gathered.give(name, _Given(value, setting.flag, f"flag {setting.flag}"))


def _value_of(setting: Setting, text: str, where: str, gathered: _Gathered) -> object:
    """What a text means; None where it is not JSON and should be."""
    if not setting.is_json:
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if value is None:
        gathered.unknown.add(setting.name)
        form = f"a {setting.type} such as {json.dumps(setting.kind.example)}"
        gathered.wrong.append(f"{where}{_quoted(text, setting)}: is not JSON: write {form}")
    return value


# Errors


def _lines(details: list[ErrorDetails], given: Mapping[str, _Given], *, complete: bool) -> Iterable[str]:
    for detail in details:
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Clash):
            if complete:
                yield f"{_where_of_clash(cause, given)}: {cause}"
            continue
        table, key, *inside = detail["loc"]
        setting = _BY_NAME[f"{table}.{key}"]
        # As it was given where pydantic would say 2.0 for "2s". The value of an unknown name may be anything.
        input_ = detail["input"] if inside else given[setting.name].value
        value = "" if detail["type"] == "extra_forbidden" else _quoted(input_, setting)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{_one_line(part)}" for part in inside)
        problem = _problem(detail, setting, inside, given[setting.name].write)
        yield f"{given[setting.name].where}{place}{value}: {problem}"


def _names(detail: ErrorDetails) -> Iterable[str]:
    """The settings that an error is about."""
    cause = detail.get("ctx", {}).get("error")
    return cause.names if isinstance(cause, Clash) else (".".join(map(str, detail["loc"][:2])),)


def _to_drop(detail: ErrorDetails, given: Mapping[str, _Given], needed: Collection[str]) -> Iterable[str]:
    """Those of them without which the error may be gone; what is needed only where there is no other."""
    names = [name for name in _names(detail) if name in given]
    return [name for name in names if name not in needed] or names


def _problem(
    detail: ErrorDetails, setting: Setting, inside: list[int | str], write: Callable[[object], str]
) -> str:
    """What is wrong and what to `write` instead, for each kind of error that these models can raise."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"not a choice: write {_either(json.dumps(choice) for choice in setting.choices)}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" if not inside:
            return f"out of bounds: write {setting.bounds}"
        case "greater_than_equal":
            return f"too small: write at least {context['ge']}"
        case "less_than_equal":
            return f"too large: write at most {context['le']}"
        case "tuple_type":
            return f"is not a list: write one such as {write(setting.kind.example)}"
        case "model_type":
            return f"is not a table: write one such as {write(setting.kind.example)}"
        case "extra_forbidden" if isinstance(setting.kind.example, dict):
            return f"no such name: write {_either(setting.kind.example)}"
        case _:
            return _one_line(detail["msg"])


def _where_of_clash(clash: Clash, given: Mapping[str, _Given]) -> str:
    """The place of the first of the clashing settings that was set at all: a default is not to be blamed."""
    return next(given[name].where for name in clash.names if name in given)


def _either(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ": `outlit-proxy config show` lists them all"


def _quoted(value: object, setting: Setting) -> str:
    """` = "value"`, cut to a readable length; what may not be shown or has no short form (a date) is "".

    RecursionError: of lists in lists in lists.
    """
    if not setting.kind.quotable:
        return ""
    try:
        text = toml_text(value)
    except (TypeError, RecursionError):
        return ""
    if len(text) > _QUOTED_CHARACTERS:
        text = f"{text[:_QUOTED_CHARACTERS]}…"
    return f" = {_one_line(text)}"


def _one_line(text: str) -> str:
    """The text with everything that could break or disguise a line escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

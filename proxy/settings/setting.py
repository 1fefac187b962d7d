"""What is known of a setting without its value: read off the models, in which each is declared once."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from proxy.settings.kinds import Kind, NeedsRestart, as_it_is, toml_text


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value may be at least, must exceed, and may be at most; None where it is not bounded so."""

    least: Any = None
    above: Any = None
    most: Any = None

    def in_words(self, show: Callable[..., object]) -> str:
        """A sentence's part, as in "1KB to 1GB" or "more than 0, at most 1"; "" without any."""
        low = high = ""
        if self.least is not None:
            low = f"{show(self.least)} to "
        elif self.above is not None:
            low = f"more than {show(self.above)}, at most "
        if self.most is not None:
            high = f"{show(self.most)}"
        return f"{low}{high}"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting without its value; flags, environment names and docs come from it.

    `choices` is empty unless the value is one of a few words. `parts`: of a table, what it consists of.
    `reloads`: whether a running process takes a new value over at a reload; else it is read at the start.
    """

    table: str
    key: str
    attribute: str
    kind: Kind
    choices: tuple[str, ...]
    limits: Bounds
    default: object
    meaning: str
    parts: tuple["Setting", ...]
    reloads: bool

    @property
    def name(self) -> str:
        """The dotted name, as in `front.max_body`."""
        return f"{self.table}.{self.key}"

    @property
    def variable(self) -> str:
        return f"OUTLIT_PROXY_{self.table}_{self.key}".upper()

    @property
    def secret_file_variable(self) -> str:
        """Of a secret: the variable that names a file which holds it."""
        return f"{self.variable}_FILE"

    @property
    def flag(self) -> str:
        """The flag. A secret has none: command lines are seen by every user of the machine."""
        return f"--{self.table}-{self.key}".replace("_", "-")

    @property
    def secret(self) -> bool:
        return self.kind.name == "secret"

    @property
    def is_json(self) -> bool:
        """A list or a table: written as JSON in the environment and in flags."""
        return self.kind.example is not None

    @property
    def type(self) -> str:
        return " | ".join(self.choices) or self.kind.name

    @property
    def bounds(self) -> str:
        """A sentence's part, or ""."""
        return self.limits.in_words(self.kind.show)

    @property
    def default_text(self) -> str:
        """The default as a TOML value, or "none"."""
        return "none" if self.default is None else toml_text(self.shown(self.default))

    def shown(self, value: object) -> object:
        if self.secret:
            return None if value is None else "***"
        return self.kind.show(value)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the settings file. `meaning`: what its settings are about."""

    name: str
    meaning: str


def tables_of(models: type[BaseModel]) -> Iterator[Table]:
    """The tables of a model of tables, in its order."""
    for name, model in models.model_fields.items():
        yield Table(name, inspect.getdoc(type(model.default)) or "")


def settings_of(models: type[BaseModel]) -> Iterator[Setting]:
    """The settings of a model of tables, in its order."""
    for table, model in models.model_fields.items():
        yield from _settings_in(table, type(model.default))


def _settings_in(table: str, model: type[BaseModel]) -> Iterator[Setting]:
    for attribute, field in model.model_fields.items():
        kind = next((rule for rule in field.metadata if isinstance(rule, Kind)), Kind("one of", as_it_is))
        key = str(field.validation_alias or attribute)
        is_table = isinstance(field.default, BaseModel)
        yield Setting(
            table=table,
            key=key,
            attribute=attribute,
            kind=kind,
            choices=get_args(field.annotation) if kind.name == "one of" else (),
            limits=_limits(field),
            default=field.default,
            meaning=field.description or "",
            parts=tuple(_settings_in(f"{table}.{key}", type(field.default))) if is_table else (),
            reloads=not any(isinstance(rule, NeedsRestart) for rule in field.metadata),
        )


def _limits(field: FieldInfo) -> Bounds:
    least = above = most = None
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound):
                least = bound
            case annotated_types.Gt(gt=bound):
                above = bound
            case annotated_types.Le(le=bound):
                most = bound
    return Bounds(least, above, most)

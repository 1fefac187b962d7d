"""What is known of a setting without its value: read off the models, in which each is declared once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from proxy.settings.kinds import Kind, as_it_is, toml_text


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting without its value; flags, environment names and docs come from it.

    `choices` is empty unless the value is one of a few words. `bounds` is a sentence's part, or "".
    """

    table: str
    key: str
    attribute: str
    kind: Kind
    choices: tuple[str, ...]
    bounds: str
    default: object
    meaning: str

    @property
    def name(self) -> str:
        """The dotted name, as in `front.max_body`."""
        return f"{self.table}.{self.key}"

    @property
    def variable(self) -> str:
        return f"OUTLIT_PROXY_{self.table}_{self.key}".upper()

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
    def default_text(self) -> str:
        """The default as a TOML value, or "none"."""
        return "none" if self.default is None else toml_text(self.shown(self.default))

    def shown(self, value: object) -> object:
        if self.secret:
            return None if value is None else "***"
        return self.kind.show(value)


def _bounds(field: FieldInfo, show: Callable[..., object]) -> str:
    """Read the bounds off a field, as in "1KB to 1GB" or "more than 0, at most 1"; "" if it has none."""
    low = high = ""
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound):
                low = f"{show(bound)} to "
            case annotated_types.Gt(gt=bound):
                low = f"more than {show(bound)}, at most "
            case annotated_types.Le(le=bound):
                high = f"{show(bound)}"
    return f"{low}{high}"


def settings_of(tables: type[BaseModel]) -> Iterator[Setting]:
    """The settings of a model of tables, in its order."""
    for table, model in tables.model_fields.items():
        for attribute, field in type(model.default).model_fields.items():
            kind = next((rule for rule in field.metadata if isinstance(rule, Kind)), Kind("one of", as_it_is))
            yield Setting(
                table=table,
                key=str(field.validation_alias or attribute),
                attribute=attribute,
                kind=kind,
                choices=get_args(field.annotation) if kind.name == "one of" else (),
                bounds=_bounds(field, kind.show),
                default=field.default,
                meaning=field.description or "",
            )

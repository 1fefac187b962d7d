"""The settings file as JSON Schema: for editors, for the checks of other tools, and for the chart's values.

It says less than the program checks: settings that contradict each other, and the bounds of durations and of
sizes with a unit, stand in its descriptions alone. What it accepts and the program does not is refused with
a line that says why. Stricter it is about spelling alone: it wants numbers as numbers (the program also takes
"64"), and the scheme of an address in small letters. It holds no references:
without `$id` and `$schema` it can be embedded in another one.
"""

from collections.abc import Iterable

from proxy.settings.setting import Setting
from proxy.settings.tables import SETTINGS, TABLES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:outlit-proxy:settings"


def json_schema() -> dict[str, object]:
    """The schema of the file: closed, with defaults and descriptions; freshly made, so it may be changed."""
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "Settings of outlit-proxy",
        "description": "What an outlit-proxy.toml may hold. Every setting has a default.",
        **_object(
            {
                table.name: {
                    "description": table.meaning,
                    **_object(_each(setting for setting in SETTINGS if setting.table == table.name)),
                }
                for table in TABLES
            }
        ),
    }


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _each(settings: Iterable[Setting]) -> dict[str, object]:
    return {setting.key: _of(setting) for setting in settings}


def _of(setting: Setting) -> dict[str, object]:
    schema: dict[str, object] = {"description": _description(setting)}
    if setting.parts:
        schema |= _object(_each(setting.parts))
    elif setting.choices:
        schema["enum"] = list(setting.choices)
    else:
        schema |= {**setting.kind.schema, **_limits(setting)}
    if not setting.secret:
        schema["default"] = setting.shown(setting.default)
    return schema


def _description(setting: Setting) -> str:
    bounds = f" ({setting.bounds})" if setting.bounds else ""
    return f"{setting.meaning}{bounds}"


def _limits(setting: Setting) -> dict[str, object]:
    """The bounds where the file has numbers; a text is no number, and passes over them."""
    if setting.kind.schema.get("type") == "string":
        return {}
    limits = setting.limits
    words = {"minimum": limits.least, "exclusiveMinimum": limits.above, "maximum": limits.most}
    return {word: bound for word, bound in words.items() if bound is not None}

"""The settings file as JSON Schema: it passes what the program takes, and stops what nobody meant."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from proxy.settings import SETTINGS, SettingsError, load
from proxy.settings.example import example
from proxy.settings.schema import DIALECT, ID, json_schema
from proxy.settings.setting import Setting

SCHEMA = json_schema()
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """The schema and each one in it."""
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from objects(inner)


def of(setting: Setting) -> dict[str, Any]:
    schema: dict[str, Any] = SCHEMA
    for part in setting.name.split("."):
        schema = schema["properties"][part]
    return schema


def test_it_is_a_schema_of_its_dialect_without_references():
    assert SCHEMA["$schema"] == DIALECT
    assert SCHEMA["$id"] == ID
    assert jsonschema_rs.meta.is_valid(SCHEMA)
    assert not [schema for schema in objects(SCHEMA) if "$ref" in schema]


def test_each_table_is_closed():
    tables = [schema for schema in objects(SCHEMA) if schema.get("type") == "object"]
    assert len(tables) == 1 + len({setting.table for setting in SETTINGS}) + 1  # the file, and the quota
    assert all(table["additionalProperties"] is False for table in tables)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_has_its_default_choices_bounds_and_meaning(setting: Setting):
    schema = of(setting)
    assert schema["description"].startswith(setting.meaning)
    assert setting.bounds in schema["description"]
    if setting.secret:
        assert schema["writeOnly"] is True
        assert "default" not in schema
    else:
        assert schema["default"] == setting.shown(setting.default)
    assert schema.get("enum", []) == list(setting.choices)


def test_every_pattern_can_be_read_by_engines_that_neither_look_ahead_nor_back():
    """Helm's checks a chart's values with Go's."""
    patterns = [schema["pattern"] for schema in objects(SCHEMA) if isinstance(schema.get("pattern"), str)]
    assert len(patterns) > 20
    assert not [pattern for pattern in patterns if re.search(r"\(\?|\\[1-9]|\\[AZzdws]", pattern)]


def test_the_example_passes_as_it_is_and_with_every_setting_uncommented():
    VALIDATOR.validate(tomllib.loads(example()))
    secrets = re.sub(
        r"^#(token|password|api_key) = .*$", r'\1 = "ok_a-secret-of-ours"', example(), flags=re.MULTILINE
    ).replace('token = "ok_', 'token = "')
    document = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", secrets, flags=re.MULTILINE))
    assert sum(len(table) for table in document.values()) == len(SETTINGS)
    VALIDATOR.validate(document)


def document(name: str, value: object) -> dict[str, dict[str, object]]:
    table, _, key = name.partition(".")
    return {table: {key: value}}


def loads(folder: Path, name: str, value: object) -> bool:
    """Whether the program takes it from a file."""
    from proxy.settings import toml_text

    file = folder / "settings.toml"
    table, _, key = name.partition(".")
    file.write_text(f"[{table}]\n{key} = {toml_text(value)}\n", encoding="utf-8")
    try:
        load(file)
    except SettingsError:
        return False
    return True


GOOD: list[tuple[str, object]] = [
    ("front.listen", "[::1]:8080"),
    ("front.listen", ":8080"),
    ("front.listen", "proxy.example_1-a:80"),
    ("front.path_prefixes", ["/api/i/v1", "/t~x/v1.0"]),
    ("front.public_keys", ["pk_a-_Z9"]),
    ("front.allowed_origins", ["*"]),
    ("front.allowed_origins", ["https://www.example.com:8443", "http://[::1]:3000", "app.x+y-z://h"]),
    ("front.trusted_proxies", ["10.0.0.0/8", "fd00::/8", "192.0.2.1", "::1"]),
    ("front.max_body", "1.5MB"),
    ("front.max_body", "2MiB"),
    ("front.max_body", "10mb"),
    ("front.max_body", 1_000),
    ("front.max_body", "1000"),
    ("front.max_body", "1000b"),
    ("front.max_events", 100_000),
    ("front.unknown_key_quota", {"keys": 7}),
    ("front.client_ip", "drop"),
    ("ops.token", "12345678"),
    ("ops.token", "~" * 512),
    ("ops.allowed_hosts", ["*"]),
    ("ops.allowed_hosts", []),
    ("ops.allowed_hosts", ["proxy.example_1-a.com", "localhost", "10.0.0.7", "[fd00::7]"]),
    ("gateway.api_key", "ok_" + "a" * 32),
    ("gateway.tools", ["*"]),
    ("gateway.tools", []),
    ("gateway.tools", ["outlit_list_customers", "v2:sql.query-1"]),
    ("gateway.timeout", "100ms"),
    ("buffer.url", "sqlite:////data/outlit proxy.db"),
    ("buffer.url", "rediss://user:p%40ss@redis.example:6380/3?ca=/etc/ca.pem"),
    ("buffer.url", "unix:///run/redis.sock?db=2"),
    ("buffer.url", "redis+sentinel://one:26379,two/mymaster?tls=true"),
    ("buffer.url", "redis+cluster://one,two:7001"),
    ("delivery.linger", "250ms"),
    ("delivery.linger", "0.5s"),
    ("delivery.rate_share", 0.25),
    ("delivery.rate_share", 1),
    ("delivery.max_age", "2d"),
    ("upstream.url", "http://127.0.0.1:9300/below"),
]

BAD: list[tuple[str, object]] = [
    ("front.listn", ":80"),
    ("delivery.max_body", "1MB"),
    ("front.listen", "8080"),
    ("front.listen", "[::1:8080"),
    ("front.listen", "host name:80"),
    ("front.path_prefixes", []),
    ("front.path_prefixes", ["/a/"]),
    ("front.path_prefixes", "/a"),
    ("front.public_keys", ["sk_a"]),
    ("front.public_keys", ["pk_a", "pk_a"]),
    ("front.allowed_origins", ["www.example.com"]),
    ("front.allowed_origins", ["https://www.example.com/"]),
    ("front.trusted_proxies", ["load-balancer"]),
    ("front.max_body", "10 MB"),
    ("front.max_body", "10M"),
    ("front.max_body", 999),
    ("front.max_body", 1_000_000_001),
    ("front.max_events", 0),
    ("front.max_events", 1.5),
    ("front.max_events", True),
    ("front.unknown_key_quota", {"queues": 0}),
    ("front.unknown_key_quota", {"kees": 1}),
    ("front.unknown_key_quota", 7),
    ("front.client_ip", "off"),
    ("ops.token", "ok_12345678"),
    ("ops.token", "short"),
    ("ops.token", "with space"),
    ("ops.allowed_hosts", "proxy.example.com"),
    ("ops.allowed_hosts", ["Proxy.example.com"]),
    ("ops.allowed_hosts", ["proxy.example.com:9090"]),
    ("ops.allowed_hosts", ["proxy.example.com."]),
    ("ops.allowed_hosts", ["*.example.com"]),
    ("gateway.api_key", "a-token-of-ours"),
    ("gateway.api_key", "ok_short "),
    ("gateway.tools", ["outlit list"]),
    ("gateway.tools", ["ok_" + "a" * 32]),
    ("gateway.tools", ["a", "a"]),
    ("gateway.tools", [f"tool_{number}" for number in range(201)]),
    ("gateway.timeout", 60),
    ("buffer.url", "postgres://h"),
    ("buffer.url", "sqlite://data.db"),
    ("delivery.linger", 5),
    ("delivery.linger", "5"),
    ("delivery.linger", "5 s"),
    ("delivery.rate_share", 0),
    ("delivery.rate_share", 1.1),
    ("upstream.url", "https://user@h"),
    ("upstream.url", "ftp://h"),
    ("log.level", "INFO"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_it_passes_what_the_program_takes(name: str, value: object, tmp_path: Path):
    assert loads(tmp_path, name, value), "the case is wrong"
    VALIDATOR.validate(document(name, value))


@pytest.mark.parametrize(("name", "value"), BAD)
def test_it_stops_what_the_program_refuses(name: str, value: object, tmp_path: Path):
    assert not loads(tmp_path, name, value), "the case is wrong"
    assert not VALIDATOR.is_valid(document(name, value))


def test_it_can_be_changed_by_who_embeds_it():
    json_schema()["properties"].clear()  # type: ignore[attr-defined]  # its values are object
    assert json_schema() == SCHEMA

"""Sources, their order, and what is said when something is wrong."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.settings import (
    SETTINGS,
    BufferSettings,
    DeliverySettings,
    ListenAddress,
    Settings,
    SettingsError,
    UnknownKeyQuota,
    load,
    load_what_is_right,
    parse_buffer_url,
)

TOKEN = "t0ken-that-nobody-may-see"


@pytest.fixture
def file(tmp_path):
    def write(text, name="proxy.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def wrong(*args, **kwargs):
    with pytest.raises(SettingsError) as error:
        load(*args, **kwargs)
    for line in error.value.lines:
        assert line.isprintable(), "one line each"
    return error.value.lines


# Values and where they come from


def test_without_sources_everything_is_default():
    settings = load()
    assert settings == Settings()
    assert set(settings.origins.values()) == {"default"}
    assert list(settings.origins) == list(settings.effective()) == [setting.name for setting in SETTINGS]


def test_every_default_would_be_accepted_if_it_were_written():
    texts = {name: value for name, value in Settings().effective().items() if value is not None}
    tables: dict[str, dict[str, object]] = {}
    for name, value in texts.items():
        table, key = name.split(".")
        tables.setdefault(table, {})[key] = value
    assert Settings.model_validate(tables) == Settings()


def test_the_later_source_wins_and_the_origin_says_which(file):
    path = file('[delivery]\nlinger = "2s"\nin_flight = 2\ngrace = "2s"\n')
    settings = load(
        path,
        {"OUTLIT_PROXY_DELIVERY_IN_FLIGHT": "3", "OUTLIT_PROXY_DELIVERY_GRACE": "3s"},
        {"delivery.grace": "4s"},
    )
    assert settings.delivery == DeliverySettings(linger_s=2.0, in_flight=3, grace_s=4.0)
    assert settings.origins["delivery.linger"] == f"file {path}"
    assert settings.origins["delivery.in_flight"] == "environment OUTLIT_PROXY_DELIVERY_IN_FLIGHT"
    assert settings.origins["delivery.grace"] == "flag --delivery-grace"
    assert settings.origins["delivery.lease"] == "default"


def test_the_environment_names_the_file_and_an_argument_overrides_it(file):
    named = file("[metrics]\nmax_key_labels = 1\n", "named.toml")
    given = file("[metrics]\nmax_key_labels = 2\n", "given.toml")
    environ = {"OUTLIT_PROXY_CONFIG": str(named)}
    assert load(None, environ).metrics.max_key_labels == 1
    assert load(given, environ).metrics.max_key_labels == 2


def test_lists_and_tables_are_json_in_the_environment_and_in_flags():
    settings = load(
        None,
        {
            "OUTLIT_PROXY_FRONT_PUBLIC_KEYS": '["pk_a", "pk_b"]',
            "OUTLIT_PROXY_FRONT_UNKNOWN_KEY_QUOTA": '{"queues": 5}',
        },
        {"front.trusted_proxies": '["10.0.0.0/8"]'},
    )
    assert settings.front.public_keys == ("pk_a", "pk_b")
    assert settings.front.unknown_key_quota == UnknownKeyQuota(queues=5, keys=100)
    assert [str(network) for network in settings.front.trusted_proxies] == ["10.0.0.0/8"]


def test_values_carry_their_unit_in_the_attribute():
    settings = load(flags={"front.max_body": "1MiB", "buffer.dedup_window": "1h", "front.listen": "[::1]:80"})
    assert settings.front.max_body_bytes == 1_048_576
    assert settings.buffer.dedup_window_s == 3_600.0
    assert settings.front.listen == ListenAddress("::1", 80)


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///data/x.db", "data/x.db"), ("sqlite:////data/x.db", "/data/x.db")],
)
def test_three_slashes_are_relative_and_four_absolute(url, path):
    assert load(flags={"buffer.url": url}).buffer.path == Path(path)


def test_a_loaded_value_cannot_be_changed():
    settings = load()
    with pytest.raises(ValidationError):
        settings.front.max_events = 1
    with pytest.raises(ValidationError):
        settings.front = settings.front


def test_code_may_build_a_table_from_numbers():
    assert DeliverySettings(linger_s=0.05, lease_s=20).linger_s == 0.05


# Secrets


def test_a_secret_may_stand_in_a_file_and_is_stripped(file):
    path = file(f"\n {TOKEN}\n", "token")
    settings = load(None, {"OUTLIT_PROXY_OPS_TOKEN_FILE": str(path)})
    assert settings.ops.token is not None
    assert settings.ops.token.get_secret_value() == TOKEN
    assert settings.origins["ops.token"] == "environment OUTLIT_PROXY_OPS_TOKEN_FILE"


def test_a_secret_is_shown_nowhere():
    settings = load(None, {"OUTLIT_PROXY_OPS_TOKEN": TOKEN, "OUTLIT_PROXY_GATEWAY_API_KEY": f"ok_{TOKEN}"})
    assert settings.effective()["ops.token"] == settings.effective()["gateway.api_key"] == "***"
    for text in (repr(settings), str(settings), str(settings.effective()), settings.model_dump_json()):
        assert TOKEN not in text


SECRET_ERRORS = [
    ({"OUTLIT_PROXY_OPS_TOKEN": f"ok_{TOKEN}"}, 'must not begin with "ok_"'),
    ({"OUTLIT_PROXY_OPS_TOKEN": f"{TOKEN} {TOKEN}"}, "visible ASCII"),
    ({"OUTLIT_PROXY_OPS_TOKN": TOKEN}, "did you mean OUTLIT_PROXY_OPS_TOKEN?"),
    ({"OUTLIT_PROXY_UPSTREAM_URL": f"https://u:{TOKEN}@x"}, "may not carry a user or password"),
    ({"OUTLIT_PROXY_GATEWAY_API_KEY": TOKEN}, 'must begin with "ok_"'),
    ({"OUTLIT_PROXY_GATEWAY_API_KEY": f"ok_{TOKEN} {TOKEN}"}, "visible ASCII"),
    ({"OUTLIT_PROXY_GATEWAY_KEY": f"ok_{TOKEN}"}, "did you mean OUTLIT_PROXY_GATEWAY_API_KEY?"),
    ({"OUTLIT_PROXY_GATEWAY_TOOLS": f'["ok_{TOKEN}"]'}, "not the name of a tool"),
    ({"OUTLIT_PROXY_GATEWAY_TOOLS": f"ok_{TOKEN}"}, "is not JSON"),
    ({"OUTLIT_PROXY_BUFFER_URL": f"redis://:{TOKEN}@"}, "has no host"),
    ({"OUTLIT_PROXY_BUFFER_URL": f"redis://:{TOKEN}@h/{TOKEN}"}, "no whole number"),
    ({"OUTLIT_PROXY_BUFFER_URL": f"redis://:/{TOKEN}@h"}, "%2F"),
    ({"OUTLIT_PROXY_BUFFER_URL": f"redis://h?password={TOKEN}"}, "among its options"),
    ({"OUTLIT_PROXY_BUFFER_PASSWORD": f"{TOKEN}\x07"}, "no control characters"),
    ({"OUTLIT_PROXY_BUFFER_PASSWORD": TOKEN}, "buffer.password is for a Redis"),
    ({"OUTLIT_PROXY_BUFFER_URL": f"postgres://:{TOKEN}@h"}, "not the URL of a buffer"),
    ({"OUTLIT_PROXY_FRONT_PUBLIC_KEYS": f'["ok_{TOKEN}"]'}, "not a public key"),
    ({"OUTLIT_PROXY_FRONT_PUBLIC_KEYS": f"ok_{TOKEN}"}, "is not JSON"),
]


@pytest.mark.parametrize(("environ", "problem"), SECRET_ERRORS)
def test_an_error_never_repeats_a_secret(environ, problem):
    (line,) = wrong(None, environ)
    assert problem in line
    assert next(iter(environ)) in line
    assert TOKEN not in line


@pytest.mark.parametrize(
    "text",
    [
        f"[ops]\ntoken = 'ok_{TOKEN}'",
        f"[ops]\ntoken = ['{TOKEN}']",
        f"ops = '{TOKEN}'",
        f"[gateway]\napi_key = '{TOKEN}'",
        f"[gateway]\napi_key = {{ok = '{TOKEN}'}}",
        f"[gateway]\ntools = 'ok_{TOKEN}'",
    ],
)
def test_an_error_of_the_file_never_repeats_a_secret(file, text):
    (line,) = wrong(file(text))
    assert TOKEN not in line


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "empty"), (b" \n", "empty"), (b"a" * 5_000, "too long"), (b"\xff\xfe", "not text")],
)
def test_a_secret_file_without_a_secret_is_an_error(tmp_path, content, problem):
    path = tmp_path / "token"
    path.write_bytes(content)
    (line,) = wrong(None, {"OUTLIT_PROXY_OPS_TOKEN_FILE": str(path)})
    assert problem in line
    assert str(path) in line


def test_a_secret_file_may_begin_as_windows_lets_it(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    token = load(None, {"OUTLIT_PROXY_OPS_TOKEN_FILE": str(path)}).ops.token
    assert token is not None
    assert token.get_secret_value() == TOKEN


@pytest.mark.parametrize(
    "environ",
    [
        {"OUTLIT_PROXY_GATEWAY_API_KEY_FILE": "{}"},
        {"OUTLIT_PROXY_OPS_ALLOWED_HOSTS": '["{}"]'},
        {"OUTLIT_PROXY_OPS_ALLOWED_HOSTS": "{}"},
        {"OUTLIT_PROXY_GATEWAY_TIMEOUT": "{}"},
        {"OUTLIT_PROXY_{}": "1"},
        {"OUTLIT_PROXY_FRONT_MAX_EVENTS": "key={}."},
        {"OUTLIT_PROXY_LOG_LEVEL": "\n{}"},
        {"OUTLIT_PROXY_LOG_LEVEL": "\ufeff{}"},
        {"OUTLIT_PROXY_GATEWAY_API_KEY_FILE": "\ufeff{}"},
        {"OUTLIT_PROXY_GATEWAY_API_KEY_FILE": "\U0001f511{}"},
    ],
)
def test_a_key_that_got_into_the_wrong_place_is_not_repeated(environ):
    key = "ok_live-0123456789_ABCDEF"
    (line,) = wrong(None, {name.format(key): value.format(key) for name, value in environ.items()})
    assert "ok_…" in line
    assert "live" not in line


def test_what_only_begins_like_a_key_is_repeated(file):
    (line,) = wrong(file("[book_keeping]\n"))
    assert "[book_keeping]: no such table" in line
    (line,) = wrong(None, {"OUTLIT_PROXY_OPS_TOKEN_FILE": "/srv/ok_project/token"})
    assert "/srv/ok_project/token cannot be read" in line


def test_a_file_may_begin_as_windows_lets_it(tmp_path):
    path = tmp_path / "outlit-proxy.toml"
    path.write_bytes(b"\xef\xbb\xbf[front]\r\nmax_events = 3\r\n")
    assert load(path).front.max_events == 3


def test_nor_in_the_file(file):
    for text in (
        "[ok_live-0123456789]\n",
        "[gateway]\nok_live-0123456789 = 1\n",
        'ok_live-0123456789 = "x"\n',
    ):
        assert all("live" not in line for line in wrong(file(text)))


def test_a_secret_file_that_cannot_be_read_is_an_error(tmp_path):
    (line,) = wrong(None, {"OUTLIT_PROXY_OPS_TOKEN_FILE": str(tmp_path / "none")})
    assert line.endswith("cannot be read: No such file or directory")


def test_a_secret_given_twice_is_an_error(file):
    environ = {"OUTLIT_PROXY_OPS_TOKEN": TOKEN, "OUTLIT_PROXY_OPS_TOKEN_FILE": str(file(TOKEN, "token"))}
    assert wrong(None, environ) == (
        "OUTLIT_PROXY_OPS_TOKEN_FILE: is set together with OUTLIT_PROXY_OPS_TOKEN: unset one of them",
    )


def test_only_secrets_have_a_file_and_no_secret_has_a_flag():
    (line,) = wrong(None, {"OUTLIT_PROXY_FRONT_LISTEN_FILE": "x"})
    assert "did you mean OUTLIT_PROXY_FRONT_LISTEN?" in line
    (line,) = wrong(flags={"ops.token": TOKEN})
    assert "secrets have no flag" in line
    assert TOKEN not in line


# Names


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"OUTLIT_PROXY_FRONT_MAX_BODDY": "1MB"},
            "OUTLIT_PROXY_FRONT_MAX_BODDY: no such setting: did you mean OUTLIT_PROXY_FRONT_MAX_BODY?",
        ),
        (
            {"outlit_proxy_front_listen": ":80"},
            "outlit_proxy_front_listen: no such setting: did you mean OUTLIT_PROXY_FRONT_LISTEN?",
        ),
        (
            {"OUTLIT_PROXY_COFIG": "x.toml"},
            "OUTLIT_PROXY_COFIG: no such setting: did you mean OUTLIT_PROXY_CONFIG?",
        ),
        (
            {"OUTLIT_PROXY_ZZZZZZZZZZZZZZZZZZZZZZ": "1"},
            "OUTLIT_PROXY_ZZZZZZZZZZZZZZZZZZZZZZ: no such setting: `outlit-proxy config show` lists them all",
        ),
    ],
)
def test_an_unknown_variable_is_an_error_with_a_suggestion(environ, line):
    assert wrong(None, environ) == (line,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[frnt]\nlisten = ':80'", "[frnt]: no such table: did you mean front?"),
        ("[front]\nlistn = ':80'", "front.listn: no such setting: did you mean front.listen?"),
        ("[delivery]\nmax_body = '1MB'", "delivery.max_body: no such setting: did you mean front.max_body?"),
        ("listen = ':80'", "[listen]: no such table: `outlit-proxy config show` lists them all"),
        ("front = 3", "front: is a table: write [front] and its settings below"),
        (
            "[delivery]\nlinger_s = 1.0",
            "delivery.linger_s: no such setting: did you mean delivery.linger?",
        ),
        (
            '["a\\nb"]\nx = 1',
            "[a\\nb]: no such table: `outlit-proxy config show` lists them all",
        ),
        (
            "[front]\nunknown_key_quota = {queues = 1, kees = 2}",
            "front.unknown_key_quota.kees: no such name: write queues or keys",
        ),
    ],
)
def test_an_unknown_name_in_the_file_is_an_error_with_a_suggestion(file, text, problem):
    path = file(text)
    assert wrong(path) == (f"{path}: {problem}",)


@pytest.mark.parametrize(
    "name",
    [
        "front.validation",
        "front.address_rate",
        "front.respect_gpc",
        "front.bots",
        "front.script",
    ],
)
def test_a_setting_whose_mechanism_does_not_exist_is_not_accepted(name):
    variable = f"OUTLIT_PROXY_{name.replace('.', '_').upper()}"
    (line,) = wrong(None, {variable: "1"})
    assert line.startswith(f"{variable}: no such setting")
    (line,) = wrong(flags={name: "1"})
    assert line.startswith(f"{name}: no such setting")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OUTLIT_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("OUTLIT_PROXY_SERVICE_PORT", "8080"),
        ("OUTLIT_PROXY_SERVICE_PORT_HTTP", "8080"),
        ("OUTLIT_PROXY_PORT", "tcp://10.0.0.1:8080"),
        ("OUTLIT_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("OUTLIT_PROXY_PORT_8080_TCP_PROTO", "tcp"),
        ("OUTLIT_PROXY_PORT_8080_TCP_PORT", "8080"),
        ("OUTLIT_PROXY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("OUTLIT_PROXY_OPS_SERVICE_HOST", "10.0.0.1"),
        ("OUTLIT_PROXY_OPS_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
        ("OUTLIT_PROXY_OPS_PORT", "tcp://10.0.0.1:9090"),
        ("OUTLIT", "x"),
        ("_OUTLIT_PROXY_COMPLETE", "bash_source"),
        ("PATH", "/bin"),
    ],
)
def test_service_links_of_kubernetes_and_strangers_are_passed_over(variable, value):
    assert load(None, {variable: value}) == Settings()


def test_a_port_that_is_no_service_link_is_an_error():
    (line,) = wrong(None, {"OUTLIT_PROXY_FRONT_PORT": "9000"})
    assert line.startswith("OUTLIT_PROXY_FRONT_PORT: no such setting")


# Values


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("delivery.linger", "5", ' = "5": a duration needs a unit: write "5s" for seconds, or ms, m, h, d'),
        ("delivery.lease", "2s", ' = "2s": out of bounds: write 5s to 10m'),
        ("front.max_body", "2GB", ' = "2GB": out of bounds: write 1KB to 1GB'),
        ("front.max_events", "0", ' = "0": out of bounds: write 1 to 100000'),
        ("delivery.rate_share", "0", ' = "0": out of bounds: write more than 0, at most 1'),
        ("delivery.rate_share", "1.1", ' = "1.1": out of bounds: write more than 0, at most 1'),
        ("delivery.max_age", "59s", ' = "59s": out of bounds: write 1m to 365d'),
        ("delivery.max_age", "0", ' = "0": a duration needs a unit: write "0s" for seconds, or ms, m, h, d'),
        ("dead.retention", "0s", ' = "0s": out of bounds: write 1m to 3650d'),
        ("front.client_ip", "off", ' = "off": not a choice: write "forward", "truncate" or "drop"'),
        ("log.level", "INFO", ' = "INFO": not a choice: write "debug", "info", "warning" or "error"'),
        (
            "front.public_keys",
            "pk_a",
            ': is not JSON: write a list of public keys such as ["pk_abc", "pk_def"]',
        ),
        (
            "front.public_keys",
            '"pk_a"',
            ': is not a list: write one such as ["pk_abc", "pk_def"]',
        ),
        (
            "front.public_keys",
            '["pk_a", "sk_b"]',
            '[1]: not a public key: write "pk_" and 1 to 64 letters, digits, "_" or "-"',
        ),
        (
            "front.public_keys",
            '["pk_a", "pk_a"]',
            ': lists "pk_a" twice: write it once',
        ),
        (
            "front.allowed_origins",
            '["*", "https://x.de"]',
            ' = ["*", "https://x.de"]: "*" allows all: leave it or the others out',
        ),
        (
            "ops.allowed_hosts",
            '["Proxy.example.com:9090"]',
            (
                '[0] = "Proxy.example.com:9090": is compared without port and in small letters:'
                ' write "proxy.example.com"'
            ),
        ),
        (
            "gateway.tools",
            json.dumps([f"tool_{number}" for number in range(201)]),
            ': lists 201: write at most 200, or "*" for all',
        ),
        ("gateway.tools", '["*", "a"]', ': "*" allows all: leave it or the others out'),
        ("gateway.tools", '["a", "a"]', ': lists "a" twice: write it once'),
        ("gateway.timeout", "11m", ' = "11m": out of bounds: write 100ms to 10m'),
        (
            "front.path_prefixes",
            "[]",
            " = []: is empty: write at least one",
        ),
        (
            "front.path_prefixes",
            '[""]',
            (
                '[0] = "": not a path prefix: write one that begins with "/" and does not end with it,'
                ' such as "/t/v1"'
            ),
        ),
        (
            "front.unknown_key_quota",
            "7",
            ' = 7: is not a table: write one such as {"queues": 1000, "keys": 100}',
        ),
        ("front.unknown_key_quota", '{"queues": 0}', ".queues = 0: too small: write at least 1"),
        ("front.unknown_key_quota", '{"keys": 2000000}', ".keys = 2000000: too large: write at most 1000000"),
        (
            "front.unknown_key_quota",
            '{"keys": "many"}',
            '.keys = "many": not a whole number: write digits only, such as 100',
        ),
    ],
)
def test_a_wrong_value_is_one_line_wherever_it_comes_from(name, text, problem):
    setting = next(setting for setting in SETTINGS if setting.name == name)
    assert wrong(None, {setting.variable: text}) == (f"{setting.variable}{problem}",)
    assert wrong(flags={name: text}) == (f"{setting.flag}{problem}",)


def test_in_the_file_the_example_is_written_as_the_file_is(file):
    path = file("[front]\nunknown_key_quota = 7\n")
    where = f"{path}: front.unknown_key_quota = 7"
    assert wrong(path) == (f"{where}: is not a table: write one such as {{queues = 1000, keys = 100}}",)


def test_a_wrong_value_of_the_file_names_file_and_setting(file):
    path = file("[front]\nheader_timeout = 5\nmax_events = true\nmax_body = 2026-11-24\n")
    assert wrong(path) == (
        (
            f'{path}: front.max_body: not a size: write "10MB" (10,000,000), "1MiB" (1,048,576)'
            " or a number of bytes"
        ),
        f"{path}: front.max_events = true: not a whole number: write digits only, such as 100",
        (
            f'{path}: front.header_timeout = "5": a duration needs a unit: write "5s" for seconds,'
            " or ms, m, h, d"
        ),
    )


def test_a_value_that_could_break_the_line_is_escaped_and_cut():
    (line,) = wrong(flags={"front.listen": "a\nconfiguration: all is well\x1b[2J" + "x" * 1_000})
    assert len(line) < 250


def test_a_value_nested_beyond_all_sense_is_one_line():
    (line,) = wrong(None, {"OUTLIT_PROXY_FRONT_ALLOWED_ORIGINS": "[" * 800 + "]" * 800})
    assert "not an origin" in line


def test_a_wrong_value_that_a_later_source_replaces_does_no_harm(file):
    assert load(file("[front]\nmax_events = 0"), {"OUTLIT_PROXY_FRONT_MAX_EVENTS": "7"}).front.max_events == 7


@pytest.mark.parametrize(
    ("environ", "flags", "line"),
    [
        (
            {"OUTLIT_PROXY_OPS_TOKEN": ""},
            {},
            "OUTLIT_PROXY_OPS_TOKEN: is empty: write a value, or unset it to keep the default",
        ),
        (
            {"OUTLIT_PROXY_CONFIG": ""},
            {},
            "OUTLIT_PROXY_CONFIG: is empty: write a file's path, or unset it",
        ),
        ({}, {"front.listen": ""}, "--front-listen: is empty: write a value, or leave the flag out"),
    ],
)
def test_an_empty_value_is_an_error_not_a_default(environ, flags, line):
    assert wrong(None, environ, flags) == (line,)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"delivery.timeout": "25s"},
            (
                "--delivery-timeout: delivery.lease (30s) must exceed delivery.timeout (25s) by more than 5s:"
                " lengthen the lease or shorten the timeout"
            ),
        ),
        (
            {"delivery.lease": "15s"},
            (
                "--delivery-lease: delivery.lease (15s) must exceed delivery.timeout (10s) by more than 5s:"
                " lengthen the lease or shorten the timeout"
            ),
        ),
        (
            {"front.max_pending_bytes": "9MB"},
            (
                "--front-max-pending-bytes: front.max_pending_bytes (9MB) must not be less than"
                " front.max_body (10MB): such a body would be refused for ever"
            ),
        ),
        (
            {"front.listen": "127.0.0.1:9090"},
            (
                "--front-listen: ops.listen is 127.0.0.1:9090, as front.listen is:"
                " give operations a port of its own"
            ),
        ),
        (
            {"buffer.durability": "everysec"},
            (
                '--buffer-durability: buffer.durability is "everysec", which a file does not have:'
                ' write "always" or "normal"'
            ),
        ),
        (
            {"buffer.url": "redis://h", "buffer.durability": "normal"},
            (
                '--buffer-durability: buffer.durability is "normal", which a Redis does not have:'
                ' write "everysec", "always" or "replica"'
            ),
        ),
        (
            {"buffer.url": "redis://h", "buffer.replicas": "2"},
            (
                "--buffer-replicas: buffer.replicas is 2, but nothing waits for them with buffer.durability"
                ' "everysec": set that to "replica", or leave buffer.replicas out'
            ),
        ),
        (
            {"buffer.wait_timeout": "2s"},
            (
                "--buffer-wait-timeout: buffer.wait_timeout is 2s, but nothing waits with buffer.durability"
                ' "always" of a file: leave it out, or have a Redis with "always" or "replica"'
            ),
        ),
        (
            {"buffer.url": "redis://h", "buffer.wait_timeout": "2s"},
            (
                "--buffer-wait-timeout: buffer.wait_timeout is 2s, but nothing waits with buffer.durability"
                ' "everysec" of a Redis: leave it out, or have a Redis with "always" or "replica"'
            ),
        ),
        (
            {"buffer.url": "redis://user@h"},
            "--buffer-url: buffer.url names a user but there is no password: give both, or neither",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_an_error(flags, line):
    assert wrong(flags=flags) == (line,)


def test_settings_just_apart_enough_are_accepted():
    load(flags={"delivery.lease": "15100ms"})
    load(flags={"front.max_pending_bytes": "10MB"})
    load(flags={"front.listen": "127.0.0.1:0", "ops.listen": "127.0.0.1:0"})


def test_a_contradiction_with_a_value_that_was_misspelt_is_not_reported(file):
    path = file('[delivery]\ntimeout = "40s"\nleese = "60s"\n')
    assert wrong(path) == (f"{path}: delivery.leese: no such setting: did you mean delivery.lease?",)


# The buffer


def test_what_is_durable_by_default_depends_on_the_engine():
    assert load().buffer.durability == "always"
    settings = load(flags={"buffer.url": "redis://h"})
    assert settings.buffer.durability == "everysec"
    assert settings.origins["buffer.durability"] == "default"
    assert (
        load(flags={"buffer.url": "redis://h", "buffer.durability": "always"}).buffer.durability == "always"
    )
    assert BufferSettings(url=parse_buffer_url("unix:///s")).durability == "everysec"


def test_the_password_of_a_redis_comes_in_its_url_or_apart(file):
    for environ in (
        {"OUTLIT_PROXY_BUFFER_URL": f"redis://u:{TOKEN}@h/3"},
        {"OUTLIT_PROXY_BUFFER_URL": "redis://u@h/3", "OUTLIT_PROXY_BUFFER_PASSWORD": TOKEN},
        {
            "OUTLIT_PROXY_BUFFER_URL": "redis://u@h/3",
            "OUTLIT_PROXY_BUFFER_PASSWORD_FILE": str(file(f"{TOKEN}\n", "password")),
        },
    ):
        settings = load(None, environ)
        target = settings.buffer.target
        assert target
        assert target.password
        assert (target.username, target.password.get_secret_value(), target.db) == ("u", TOKEN, 3)
        for text in (repr(settings), str(settings.effective()), settings.model_dump_json(), str(target)):
            assert TOKEN not in text
    both = {**environ, "OUTLIT_PROXY_BUFFER_URL": f"redis://u:{TOKEN}@h/3"}
    (line,) = wrong(None, both)
    assert line.startswith("OUTLIT_PROXY_BUFFER_URL: buffer.url holds a password, and another was given")
    assert TOKEN not in line


@pytest.mark.parametrize("durability", ["always", "replica"])
def test_where_something_is_waited_for_the_time_may_be_set(durability):
    flags = {"buffer.url": "redis://h", "buffer.durability": durability, "buffer.wait_timeout": "2s"}
    assert load(flags=flags).buffer.wait_timeout_s == 2


def test_a_file_has_no_target():
    assert load().buffer.target is None


# All at once


def test_everything_that_is_wrong_is_reported_at_once(file):
    path = file('[front]\nlisten = "8080"\nlistn = 1\n[nope]\n[delivery]\nlinger = "soon"\n')
    lines = wrong(
        path,
        {
            "OUTLIT_PROXY_FRONT_PUBLIC_KEYS": "[",
            "OUTLIT_PROXY_OPS_TOKEN": "ok_12345678",
            "OUTLIT_PROXY_NOPE": "1",
        },
        {"log.level": "loud", "log.nope": "1"},
    )
    assert [line.split(": ")[0] for line in lines] == [
        str(path),
        str(path),
        "OUTLIT_PROXY_FRONT_PUBLIC_KEYS",
        "OUTLIT_PROXY_NOPE",
        "log.nope",
        str(path),
        "OUTLIT_PROXY_OPS_TOKEN",
        str(path),
        '--log-level = "loud"',
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[front\n", "is not TOML: Expected ']'"),
        (b"\xff\xfe", "is not TOML: 'utf-8' codec"),
        (b"a = " + b"[" * 100_000, "is not TOML: "),
    ],
)
def test_a_file_that_is_not_toml_is_one_line_beside_the_others(tmp_path, content, problem):
    path = tmp_path / "proxy.toml"
    path.write_bytes(content)
    lines = wrong(path, {"OUTLIT_PROXY_LOG_LEVEL": "loud"})
    assert lines[0].startswith(f"{path}: {problem}")
    assert len(lines) == 2


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    assert wrong(tmp_path / "none.toml") == (
        f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory",
    )
    assert wrong(tmp_path) == (f"{tmp_path}: cannot be read: Is a directory",)


# SETTINGS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_says_what_it_is(setting):
    assert setting.meaning
    assert setting.type
    assert setting.default_text
    if setting.type in {"size", "duration", "whole number", "number"}:
        assert setting.bounds, "everything has a bound"
    if setting.type == "duration":
        assert setting.attribute == f"{setting.key}_s"
    if setting.type == "size":
        assert "bytes" in setting.attribute


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_settings_name_looks_like_a_service_link(setting):
    (line,) = wrong(None, {setting.variable: ""})
    assert line.startswith(f"{setting.variable}: is empty")


def test_what_the_environment_says_otherwise_than_the_file_is_known(file):
    path = file(
        '[buffer]\nurl = "redis://r"\n[front]\npublic_keys = ["pk_a"]\nmax_events = 7\n'
        '[delivery]\nlinger = "2s"\n'
    )
    environ = {
        "OUTLIT_PROXY_BUFFER_URL": "sqlite:////data/x.db",
        "OUTLIT_PROXY_FRONT_PUBLIC_KEYS": '["pk_a"]',
        "OUTLIT_PROXY_FRONT_MAX_EVENTS": "7",
        "OUTLIT_PROXY_DELIVERY_GRACE": "3s",
    }
    settings = load(path, environ, {"delivery.linger": "1s"})
    assert settings.overridden == ("buffer.url",)
    assert load(path).overridden == load(None, environ).overridden == ()


# What is right of it


def test_what_is_wrong_is_said_and_left_at_its_default_and_the_rest_counts(file):
    path = file(
        '[ops]\nlisten = "127.0.0.1:9191"\n[delivery]\nlinger = 5\nlease = "11s"\ntimeout = "10s"\n'
        '[front]\nmax_bodi = 1\nmax_events = 7\n[log]\nlevel = "loud"\n'
    )
    settings, lines = load_what_is_right(path, {"OUTLIT_PROXY_NO": "1"}, needed=["ops.listen"])
    assert settings.ops.listen == ListenAddress("127.0.0.1", 9191)
    assert settings.front.max_events == 7
    assert (settings.delivery, settings.log.level) == (DeliverySettings(), "info")
    told = " | ".join(lines)
    for what in ("delivery.linger", "delivery.lease (11s)", "front.max_bodi", "log.level", "OUTLIT_PROXY_NO"):
        assert what in told
    assert load_what_is_right() == (Settings(), ())


@pytest.mark.parametrize("text", [None, "[ops\n"], ids=["missing", "no TOML"])
def test_what_is_needed_must_be_known_where_a_file_cannot_be_read(file, tmp_path, text):
    path = tmp_path / "missing.toml" if text is None else file(text)
    environ = {"OUTLIT_PROXY_OPS_LISTEN": "127.0.0.1:9191"}
    settings, lines = load_what_is_right(path, environ, needed=["ops.listen"])
    assert settings.ops.listen.port == 9191
    assert len(lines) == 1
    assert load_what_is_right(path)[1] == lines
    with pytest.raises(SettingsError):
        load_what_is_right(path, needed=["ops.listen"])


def test_what_is_needed_must_be_right():
    wrong_address = {"OUTLIT_PROXY_OPS_LISTEN": "nowhere"}
    with pytest.raises(SettingsError):
        load_what_is_right(environ=wrong_address, needed=["ops.listen"])
    assert load_what_is_right(environ=wrong_address, needed=["front.listen"])[0] == Settings()


@pytest.mark.parametrize("text", ["ops = 5\n", "[[ops]]\nlisten = '127.0.0.1:9191'\n"])
def test_a_table_that_is_none_says_nothing_of_what_is_needed(file, text):
    path = file(text)
    with pytest.raises(SettingsError):
        load_what_is_right(path, needed=["ops.listen"])
    assert load_what_is_right(path, needed=["front.listen"])[0] == Settings()
    environ = {"OUTLIT_PROXY_OPS_LISTEN": "127.0.0.1:9191"}
    assert load_what_is_right(path, environ, needed=["ops.listen"])[0].ops.listen.port == 9191


@pytest.mark.parametrize("flags", [{}, {"ops.listen": ""}])
def test_an_empty_text_hides_what_is_needed(file, flags):
    environ = {} if flags else {"OUTLIT_PROXY_OPS_LISTEN": ""}
    with pytest.raises(SettingsError):
        load_what_is_right(file('[ops]\nlisten = "127.0.0.1:9191"\n'), environ, flags, needed=["ops.listen"])


def test_of_a_contradiction_what_is_needed_counts_where_the_other_can_give_way(file):
    path = file('[front]\nlisten = "127.0.0.1:9191"\n[ops]\nlisten = "127.0.0.1:9191"\n')
    settings, lines = load_what_is_right(path, needed=["ops.listen"])
    assert settings.ops.listen.port == 9191
    assert settings.front.listen == Settings().front.listen
    assert len(lines) == 1
    with pytest.raises(SettingsError):
        load_what_is_right(path, needed=["ops.listen", "front.listen"])
    as_the_front_is = {"OUTLIT_PROXY_OPS_LISTEN": str(Settings().front.listen)}
    with pytest.raises(SettingsError):
        load_what_is_right(environ=as_the_front_is, needed=["ops.listen"])

"""The Compose file: valid, hardened, and what it sets is what the programs take; then run, as processes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import Settings, load
from tests.programs import OPS_TOKEN, Program, Proxy, Sandbox, free_port, running_sandbox, wait_for

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
FILE, WITH_GATEWAY = FOLDER / "compose.yaml", FOLDER / "gateway.yaml"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
SECONDS = {"s": 1, "m": 60}


def _with_defaults(value: Any) -> Any:
    """What Compose makes of it where .env sets nothing."""
    match value:
        case str():
            return VARIABLE.sub(lambda found: found[2], value)
        case list():
            return [_with_defaults(item) for item in value]
        case dict():
            return {key: _with_defaults(item) for key, item in value.items()}
    return value


COMPOSE: dict[str, Any] = _with_defaults(yaml.safe_load(FILE.read_text(encoding="utf-8")))
GATEWAY: dict[str, Any] = _with_defaults(yaml.safe_load(WITH_GATEWAY.read_text(encoding="utf-8")))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROXY, REDIS, PROMETHEUS = (SERVICES[name] for name in ("outlit-proxy", "redis", "prometheus"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The proxy's own reading of its environment."""
    token = tmp_path / "ops_token"
    token.write_text(OPS_TOKEN)
    return load(environ={**PROXY["environment"], "OUTLIT_PROXY_OPS_TOKEN_FILE": str(token)})


@pytest.mark.parametrize("file", [FILE, WITH_GATEWAY], ids=lambda file: file.stem)
def test_it_is_what_compose_understands(file: Path):
    checked = subprocess.run(
        [
            Path(sys.executable).with_name("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            file,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_all_that_can_be_changed_stands_in_the_example_with_its_default():
    used = {"COMPOSE_FILE": FILE.name}
    for file in (FILE, WITH_GATEWAY):
        used |= VARIABLE.findall(file.read_text(encoding="utf-8"))
    shown = dict(re.findall(r"^#(\w+)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    assert shown == used


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_can_more_than_it_has_to(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "user" in service or service is PROXY, "of the proxy's image we know that it is not root"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_what_it_mounts_and_waits_for_exists():
    for service in SERVICES.values():
        for source, target in (mount.split(":")[:2] for mount in service["volumes"]):
            if source.startswith("."):
                assert (FOLDER / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]
            assert target.startswith("/")
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        assert all(name in COMPOSE["secrets"] for name in service.get("secrets", ()))
    assert PROXY["environment"]["OUTLIT_PROXY_OPS_TOKEN_FILE"] == "/run/secrets/ops_token"


def test_the_gateways_file_adds_an_api_key_in_a_secret_and_the_readme_says_how(tmp_path: Path):
    [(name, added)] = GATEWAY["services"].items()
    assert SERVICES[name] is PROXY
    assert not added["environment"].keys() & PROXY["environment"].keys()
    [secret] = added["secrets"]
    variable = "OUTLIT_PROXY_GATEWAY_API_KEY_FILE"
    assert added["environment"][variable] == f"/run/secrets/{secret}"
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f" {GATEWAY['secrets'][secret]['file'].removeprefix('./')} " in readme
    [adds] = re.findall(r"^grep .* \.env \|\| echo .* >> \.env$", readme, re.MULTILINE)
    both, of_before = f"COMPOSE_FILE={FILE.name}:{WITH_GATEWAY.name}\n", "COMPOSE_FILE=mine.yaml\n"
    example = (FOLDER / ".env.example").read_text(encoding="utf-8")
    for before, after in {example: example + both, "": both, of_before: of_before}.items():
        (tmp_path / ".env").write_text(before)
        subprocess.run(["sh", "-c", adds], cwd=tmp_path, check=True)
        assert (tmp_path / ".env").read_text() == after

    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("ok_an-api-key-of-a-test\n")
    token.write_text(OPS_TOKEN)
    files = {variable: str(key), "OUTLIT_PROXY_OPS_TOKEN_FILE": str(token)}
    gateway = load(environ={**PROXY["environment"], **added["environment"], **files}).gateway
    assert gateway.api_key is not None
    assert gateway.tools == ("*",)


def test_nothing_listens_on_the_network_unless_asked_to():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert REDIS["network_mode"] == "none"


def test_the_proxy_is_given_more_time_to_stop_than_it_takes(settings: Settings):
    number, unit = re.fullmatch(r"(\d+)([sm])", PROXY["stop_grace_period"]).groups()  # type: ignore[union-attr]  # or it fails
    assert int(number) * SECONDS[unit] >= settings.delivery.grace_s + 10
    assert PROXY["ulimits"]["nofile"] > settings.front.max_connections + settings.delivery.in_flight


def test_redis_has_room_for_all_that_the_proxy_may_keep(settings: Settings):
    gigabytes = int(_flags(REDIS["command"])["--maxmemory"].removesuffix("gb"))
    assert settings.buffer.max_bytes + settings.dead.max_bytes < gigabytes * 2**30


def test_redis_writes_only_where_something_is_mounted():
    """The rest is read-only, and of the image's folders none is known."""
    flags, volumes = _flags(REDIS["command"]), {mount.split(":")[1] for mount in REDIS["volumes"]}
    assert flags["--dir"] in volumes
    assert str(Path(flags["--unixsocket"]).parent) in volumes
    [source] = [mount.split(":")[0] for mount in REDIS["volumes"] if ":/etc/redis/redis.conf" in mount]
    configuration = (FOLDER / source).read_text(encoding="utf-8")
    assert not re.findall(r"^(?:dir|logfile|pidfile|aclfile) .*", configuration, re.MULTILINE)


def test_prometheus_scrapes_the_proxy_and_finds_its_rules(tmp_path: Path):
    """Its two files, as they are mounted, beside each other."""
    for mount in PROMETHEUS["volumes"][:2]:
        source, target, _ = mount.split(":")
        (tmp_path / Path(target).name).write_bytes((FOLDER / source).read_bytes())
    config = tmp_path / Path(_flags(PROMETHEUS["command"])["--config.file"]).name
    checked = subprocess.run(
        ["promtool", "check", "config", config], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    targets = [
        target
        for job in yaml.safe_load(config.read_text(encoding="utf-8"))["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    ]
    assert targets == ["outlit-proxy:9090"]


# -- as processes ------------------------------------------------------------------------------------------


@pytest.fixture
def redis_socket(tmp_path: Path) -> Iterator[Path]:
    """Redis, by the command of its container; only its paths are others.

    A folder that its configuration names is not there, as it is not in the image: Redis goes to it before it
    reads --dir, and ends.
    """
    socket, data = tmp_path / "redis.sock", tmp_path / "redis"
    data.mkdir()
    mounts = dict(mount.split(":")[1::-1] for mount in REDIS["volumes"])
    text = (FOLDER / mounts["/etc/redis/redis.conf"]).read_text(encoding="utf-8")
    configuration = tmp_path / "redis.conf"
    configuration.write_text(re.sub(r"^dir .*", f"dir {tmp_path}/absent", text, flags=re.MULTILINE))
    places = {
        "/etc/redis/redis.conf": str(configuration),
        "/run/redis/redis.sock": str(socket),
        "/data": str(data),
    }
    command = [places.get(word, word) for word in REDIS["command"]]
    with (tmp_path / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        check = [socket if word == "/run/redis/redis.sock" else word for word in REDIS["healthcheck"]["test"]]
        wait_for("redis to be healthy", lambda: subprocess.run(check[1:], check=False).returncode == 0)
        yield socket
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


def test_the_programs_run_as_it_starts_them_and_nothing_of_redis_is_unsafe(
    tmp_path: Path, redis_socket: Path, sandbox: Sandbox
):
    token, api_key = tmp_path / "ops_token", tmp_path / "gateway_api_key"
    token.write_text(OPS_TOKEN)
    api_key.write_text("ok_an-api-key-of-a-test\n")
    front, ops = free_port(), free_port()
    environment = {
        **PROXY["environment"],
        **GATEWAY["services"]["outlit-proxy"]["environment"],
        "OUTLIT_PROXY_GATEWAY_API_KEY_FILE": str(api_key),
        "OUTLIT_PROXY_FRONT_LISTEN": f"127.0.0.1:{front}",
        "OUTLIT_PROXY_OPS_LISTEN": f"127.0.0.1:{ops}",
        "OUTLIT_PROXY_OPS_TOKEN_FILE": str(token),
        "OUTLIT_PROXY_BUFFER_URL": f"unix://{redis_socket}",
        "OUTLIT_PROXY_UPSTREAM_URL": sandbox.url,
        "OUTLIT_PROXY_DELIVERY_LINGER": "0s",
    }
    program = Program("proxy", ["run"], tmp_path, environment)
    proxy = Proxy(program, f"http://127.0.0.1:{front}", f"http://127.0.0.1:{ops}", tmp_path)
    try:
        proxy.start()
        for name, arguments in [
            ("healthcheck", PROXY["healthcheck"]["test"][2:]),
            ("send", ["send", "--key", "pk_abc"]),
            ("validate", ["platform", "validate"]),
        ]:
            command = Program(name, arguments, tmp_path, environment)
            command.start()
            assert command.wait_until_ended() == 0, command.log
        assert [taken.key for taken in sandbox.taken()] == ["pk_abc"]
        unsafe = {
            name: value for name, value in proxy.metrics().items() if "_buffer_unsafe{" in name and value
        }
        assert not unsafe
        assert program.stop() == 0, program.log
        assert '"warning"' not in program.log
    finally:
        program.kill()


def _flags(command: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value`."""
    pairs = zip(command, [*command[1:], ""], strict=True)
    return {
        word.partition("=")[0]: word.partition("=")[2] or following
        for word, following in pairs
        if word.startswith("--")
    }

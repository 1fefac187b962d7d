"""The settings that the chart gives to the proxy and to its test, as the proxy reads them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from proxy.cli import main
from proxy.settings import SETTINGS, Settings, load
from tests.deploy.helm_chart import (
    CI,
    LEAST,
    ROOT,
    STATEFULSET,
    Manifest,
    containers,
    each_of_ci,
    environment,
    objects,
    pod_template,
    proxy_of,
    settings_file,
)


def settings_of(manifests: list[Manifest], container: Manifest, folder: Path) -> Settings:
    """What a container comes to: the settings of the image, and those of the chart that override them."""
    file = folder / "outlit-proxy.toml"
    file.write_text(settings_file(manifests))
    secret = folder / "secret"
    secret.write_text("made-up-secret")
    api_key = folder / "api-key"
    api_key.write_text("ok_made-up-secret")
    image = re.findall(r"(OUTLIT_PROXY_\w+)=(\S+)", (ROOT / "Dockerfile").read_text())
    given = {**dict(image), **environment(container)}
    for entry in container.get("env", ()):
        if "valueFrom" in entry:
            given[entry["name"]] = "redis://user:secret@redis.example"
    for name in given:
        if name.endswith("_FILE"):
            given[name] = str(api_key if name == "OUTLIT_PROXY_GATEWAY_API_KEY_FILE" else secret)
    if "OUTLIT_PROXY_CONFIG" in given:
        given["OUTLIT_PROXY_CONFIG"] = str(file)
    given.pop("TZ", None)
    return load(environ=given)


@each_of_ci
def test_the_proxy_takes_the_settings(values, tmp_path):
    manifests = objects(values)
    settings = settings_of(manifests, proxy_of(manifests), tmp_path)
    assert settings.buffer.url.is_redis == (values.get("mode") != "statefulset")
    assert (settings.front.listen.port, settings.ops.listen.port) == (8080, 9090)


def test_each_setting_arrives_as_it_was_written(tmp_path):
    manifests = objects(CI["everything"])
    effective = settings_of(manifests, proxy_of(manifests), tmp_path).effective()
    arrived = {
        "front.listen": "[::]:8080",
        "ops.listen": "[::]:9090",
        "ops.token": "***",
        "ops.allowed_hosts": ["outlit-proxy-ops", "outlit-proxy-ops.web.svc"],
        "front.max_body": "2MB",
        "front.max_events": 1_000,
        "front.unknown_key_quota": {"queues": 50, "keys": 5},
        "buffer.url": CI["everything"]["redis"]["url"],
        "buffer.password": "***",
        "buffer.durability": "replica",
        "buffer.replicas": 2,
        "buffer.max_bytes": "2GB",
        "buffer.max_bytes_per_key": "1GB",
        "delivery.rate_share": 0.25,
        "delivery.grace": "40s",
        "gateway.api_key": "***",
        "gateway.tools": ["outlit_list_customers"],
        "gateway.timeout": "90s",
        "metrics.max_key_labels": 0,
        "log.level": "warning",
    }
    assert {name: value for name, value in effective.items() if name in arrived} == arrived


def test_every_setting_can_be_written_and_arrives(tmp_path):
    """With its default: what is not so in the effective settings was changed on the way."""
    of_the_chart = {"front.listen", "ops.listen", "buffer.url"}
    config: dict[str, dict[str, object]] = {}
    for setting in SETTINGS:
        if not setting.secret and setting.name not in of_the_chart:
            config.setdefault(setting.table, {})[setting.key] = setting.shown(setting.default)
    manifests = objects({**STATEFULSET, "config": config})
    settings = settings_of(manifests, proxy_of(manifests), tmp_path)
    written = {name for name, origin in settings.origins.items() if origin.startswith("file ")}
    assert written == {f"{table}.{key}" for table, of in config.items() for key in of}
    defaults = Settings().effective()
    arrived = settings.effective()
    assert {name: arrived[name] for name in written} == {name: defaults[name] for name in written}


def test_a_text_of_any_kind_arrives_unchanged():
    config = {"upstream": {"url": "http://a/\u00e9\u2028<&>'\"\\{{.Values}}"}}
    assert tomllib.loads(settings_file(objects({**LEAST, "config": config}))) == config


@pytest.mark.parametrize("replicas", [1, 2, 3, 7, 1000])
def test_pods_with_buffers_of_their_own_share_the_limit(replicas, tmp_path):
    manifests = objects({**STATEFULSET, "replicaCount": replicas})
    share = settings_of(manifests, proxy_of(manifests), tmp_path).delivery.rate_share
    assert 0.99 <= share * replicas <= 1.0


def test_pods_with_buffers_of_their_own_share_the_part_of_their_release(tmp_path):
    manifests = objects(CI["statefulset"])
    settings = settings_of(manifests, proxy_of(manifests), tmp_path)
    assert settings.delivery.rate_share == 0.25
    assert settings.buffer.path == Path("/data/outlit-proxy.db")


def test_pods_on_one_redis_share_the_limit_by_themselves(tmp_path):
    manifests = objects({**LEAST, "replicaCount": 5})
    assert settings_of(manifests, proxy_of(manifests), tmp_path).delivery.rate_share == 1.0


def parsed(arguments: list[str], name: str) -> dict[str, Any]:
    """What the command of this name, and no other, understands of the arguments. Raises UsageError."""
    assert arguments[0] == name
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command.make_context(name, list(arguments[1:])).params


@pytest.mark.parametrize("ci", ["everything", "statefulset", "ingress"])
def test_the_command_of_the_test_pod_exists(ci, tmp_path):
    """With the settings that it finds there, too, which it reads before anything else."""
    manifests = objects({**CI[ci], "tests": {"publicKey": "pk_test"}, "opsToken": {"existingSecret": "t"}})
    (container,) = [each for each in containers(manifests) if each["name"] == "test"]
    assert parsed(container["args"], "send")["key"] == "pk_test"
    assert settings_of(manifests, container, tmp_path).ops.token is not None


def test_without_a_public_key_the_test_pod_asks_for_readiness(tmp_path):
    manifests = objects(LEAST)
    (container,) = [each for each in containers(manifests) if each["name"] == "test"]
    asked = parsed(container["args"], "healthcheck")
    assert asked["ops_url"] == "http://web-outlit-proxy-ops:9090"
    settings_of(manifests, container, tmp_path)


def variables_of_service_links(service: Manifest) -> dict[str, str]:
    """What Kubernetes sets for a Service in each pod of its namespace that does not forbid it."""
    name = service["metadata"]["name"].upper().replace("-", "_")
    first = service["spec"]["ports"][0]
    made = {f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_SERVICE_PORT": str(first["port"])}
    made[f"{name}_PORT"] = f"tcp://10.0.0.1:{first['port']}"
    for port in service["spec"]["ports"]:
        made[f"{name}_SERVICE_PORT_{port['name'].upper()}"] = str(port["port"])
        stem = f"{name}_PORT_{port['port']}_TCP"
        made |= {stem: f"tcp://10.0.0.1:{port['port']}", f"{stem}_PROTO": "tcp", f"{stem}_ADDR": "10.0.0.1"}
        made[f"{stem}_PORT"] = str(port["port"])
    return made


@pytest.mark.parametrize("fullname", ["outlit-proxy", "outlit-proxy-front", "outlit-proxy-buffer"])
def test_its_services_stop_no_proxy_of_the_namespace(fullname, tmp_path):
    """Neither its own pods nor those that somebody else runs there, with service links."""
    manifests = objects({**STATEFULSET, "fullnameOverride": fullname})
    links: dict[str, str] = {}
    for manifest in manifests:
        if manifest["kind"] == "Service":
            links |= variables_of_service_links(manifest)
    assert links[f"{fullname.upper().replace('-', '_')}_SERVICE_HOST"]
    load(environ=links)
    assert pod_template(manifests)["spec"]["enableServiceLinks"] is False

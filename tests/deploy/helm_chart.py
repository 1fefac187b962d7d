"""The chart as the tests see it: rendered offline, its objects, and its schema of the proxy's settings.

`python -m tests.deploy.helm_chart` writes that schema into the chart's, where the settings have changed.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from proxy.settings.schema import json_schema

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
SCHEMA = CHART / "values.schema.json"
CI: dict[str, dict[str, Any]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}
"""The values of each file of ci/."""

UNKNOWN_TO_KUBERNETES = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Kinds that a cluster must be taught before it takes them."""

each_of_ci = pytest.mark.parametrize("values", CI.values(), ids=CI)

Manifest = dict[str, Any]


LEAST = {"redis": {"url": "redis://redis.example:6379"}}
STATEFULSET = {"mode": "statefulset"}
"""The fewest values with which the chart can be rendered, of both modes."""


@cache
def loaded() -> helm_python.Chart:
    return helm_python.Chart.load(str(CHART))


def rendered(values: Mapping[str, Any], name: str = "web") -> dict[str, str]:
    """Each file that the chart makes of these values, by its path below templates/. Raises HelmError."""
    return _rendered(json.dumps(values), name)


def objects(values: Mapping[str, Any], name: str = "web") -> list[Manifest]:
    """The Kubernetes objects that the chart makes of these values, to be read only. Raises HelmError."""
    return _objects(json.dumps(values), name)


@cache
def _rendered(values: str, name: str) -> dict[str, str]:
    files = loaded().render(json.loads(values), name=name, namespace="analytics")
    return {path.removeprefix("outlit-proxy/templates/"): text for path, text in files.items()}


@cache
def _objects(values: str, name: str) -> list[Manifest]:
    return [
        manifest
        for path, text in sorted(_rendered(values, name).items())
        if path.endswith(".yaml")
        for manifest in yaml.load_all(text, yaml.CSafeLoader)
        if manifest is not None
    ]


def one(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The only object of this kind whose name ends so, behind the name that all share."""
    found = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(f"outlit-proxy{suffix}")
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {suffix}"
    return found[0]


def pod_template(manifests: list[Manifest]) -> Manifest:
    """What the Deployment or StatefulSet makes its pods of."""
    (template,) = [
        manifest["spec"]["template"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "StatefulSet")
    ]
    assert isinstance(template, dict)
    return template


def containers(manifests: list[Manifest]) -> list[Manifest]:
    """Every container of every pod, those before and beside the proxy among them."""
    pods = [manifest["spec"] for manifest in manifests if manifest["kind"] == "Pod"]
    pods.append(pod_template(manifests)["spec"])
    return [each for pod in pods for each in (*pod.get("initContainers", ()), *pod["containers"])]


def proxy_of(manifests: list[Manifest]) -> Manifest:
    """The container of the proxy."""
    (container,) = [each for each in containers(manifests) if each["name"] == "proxy"]
    return container


def settings_file(manifests: list[Manifest]) -> str:
    """The settings file that the pods read."""
    return str(one(manifests, "ConfigMap")["data"]["outlit-proxy.toml"])


def environment(container: Manifest) -> dict[str, str]:
    """The variables of a container that have a value here."""
    return {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def schema_of_settings() -> dict[str, object]:
    """What the chart's schema says of `config`: the proxy's own, as a part of another.

    Without the patterns of secrets: what Helm says of a pattern repeats the value. None of them may stand
    there, which the chart says itself.
    """
    schema = json_schema()
    for table in schema["properties"].values():  # type: ignore[attr-defined]  # its values are object
        for setting in table["properties"].values():
            if setting.get("writeOnly"):
                setting.pop("pattern", None)
    return {name: part for name, part in schema.items() if not name.startswith("$") and name != "title"}


def _write_schema() -> None:
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"] = schema_of_settings()
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _write_schema()

"""What the chart makes: valid for each Kubernetes that it is for, and named and labelled for ever."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate  # type: ignore[import-untyped]  # it comes without types
import pytest
import yaml
from yamllint import linter  # type: ignore[import-untyped]  # it comes without types
from yamllint.config import YamlLintConfig  # type: ignore[import-untyped]  # the same

from proxy import __version__
from tests.deploy.helm_chart import (
    CHART,
    CI,
    LEAST,
    STATEFULSET,
    UNKNOWN_TO_KUBERNETES,
    Manifest,
    containers,
    each_of_ci,
    objects,
    one,
    pod_template,
    rendered,
)

VERSIONS = ("1.29", "1.33", "1.37")


@each_of_ci
def test_helm_finds_nothing_to_say_of_it(values):
    report = helm_python.lint(str(CHART), values, strict=True, namespace="analytics")
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]
    assert report["errors"] == []


@pytest.fixture(scope="module")
def schemas_read_once():
    """They are megabytes, which the library reads again for each object."""
    with pytest.MonkeyPatch.context() as patch:
        read = kubernetes_validate.utils.schema_contents
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(read))
        yield


@pytest.mark.usefixtures("schemas_read_once")
@pytest.mark.parametrize("version", VERSIONS)
@each_of_ci
def test_each_object_is_one_that_this_kubernetes_takes(values, version):
    judged = [manifest for manifest in objects(values) if manifest["kind"] not in UNKNOWN_TO_KUBERNETES]
    for manifest in judged:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert len(judged) >= 6


def test_the_oldest_kubernetes_that_it_asks_for_is_among_these():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


def test_it_installs_this_version_of_the_proxy():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert containers(objects(LEAST))[-1]["image"] == f"outlit-proxy:{__version__}"


def test_the_route_of_a_gateway_has_the_fields_of_one():
    route = one(objects(CI["ingress"]), "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["t.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "web-outlit-proxy", "port": 80}],
            }
        ],
    }


@each_of_ci
def test_no_name_stands_twice_in_any_object(values):
    """Which Kubernetes refuses, and a reader of YAML passes over."""
    config = YamlLintConfig("rules: {key-duplicates: enable}")
    for path, text in rendered(values).items():
        if path.endswith(".yaml"):
            assert [str(problem) for problem in linter.run(text, config)] == [], path


def test_what_is_written_by_hand_is_tidy():
    config = YamlLintConfig(
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: disable,"
        " comments: {require-starting-space: true, min-spaces-from-content: 2}}}"
    )
    for path in (CHART / "values.yaml", CHART / "Chart.yaml", *(CHART / "ci").iterdir()):
        assert [f"{path.name} {problem}" for problem in linter.run(path.read_text(), config)] == []


def test_a_package_of_it_makes_the_same(tmp_path):
    values = CI["monitoring"]
    archive = Path(helm_python.Chart.load(str(CHART)).save(str(tmp_path)))
    with helm_python.Chart.load(str(archive)) as packed:
        made = packed.render(values, name="web", namespace="analytics")
    ours = rendered(values)
    assert {path.removeprefix("outlit-proxy/templates/"): text for path, text in made.items()} == ours
    assert "OutlitProxy" in ours["prometheus-rule.yaml"]


def test_a_parent_chart_can_have_it_under_a_condition(tmp_path):
    child = Path(helm_python.Chart.load(str(CHART)).save_dir(str(tmp_path / "parent" / "charts")))
    (child.parents[1] / "Chart.yaml").write_text(
        "{apiVersion: v2, name: parent, version: 1.0.0, dependencies:"
        " [{name: outlit-proxy, version: '*', condition: outlit-proxy.enabled}]}"
    )
    with helm_python.Chart.load(str(child.parents[1])) as parent:
        for enabled in (True, False):
            values = {"global": {"any": "thing"}, "outlit-proxy": {**LEAST, "enabled": enabled}}
            made = parent.render(values, name="web", namespace="analytics")
            assert any("kind: Deployment" in text for text in made.values()) is enabled


def selectors(manifests: list[Manifest]) -> dict[str, Mapping[str, str]]:
    """By whom pods are selected, and how."""
    found: dict[str, Mapping[str, str]] = {}
    for manifest in manifests:
        spec, who = manifest.get("spec", {}), f"{manifest['kind']}/{manifest['metadata']['name']}"
        match manifest["kind"]:
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget" | "PodMonitor":
                found[who] = spec["selector"]["matchLabels"]
            case "Service":
                found[who] = spec["selector"]
            case "NetworkPolicy":
                found[who] = spec["podSelector"]["matchLabels"]
    return found


@each_of_ci
def test_all_select_the_pods_of_the_proxy_and_nothing_else(values):
    manifests = objects(values)
    pods = pod_template(manifests)["metadata"]["labels"]
    test_pod = one(manifests, "Pod", "-test")["metadata"]["labels"]
    chosen = selectors(manifests)
    assert len(chosen) >= 3
    for who, labels in chosen.items():
        assert labels.items() <= pods.items(), who
        assert not labels.items() <= test_pod.items(), who


def test_what_selects_pods_changes_with_no_value_but_a_name():
    """Kubernetes refuses an upgrade that changes it."""
    plain = selectors(objects({**STATEFULSET, "fullnameOverride": "outlit-proxy"}))
    everything = selectors(
        objects(
            {
                **STATEFULSET,
                "fullnameOverride": "outlit-proxy",
                "image": {"tag": "9.9.9"},
                "podLabels": {"app.kubernetes.io/name": "another", "more": "label"},
                "commonLabels": {"app.kubernetes.io/instance": "another", "more": "label"},
                "replicaCount": 3,
            }
        )
    )
    assert everything.items() >= plain.items()
    assert plain["StatefulSet/outlit-proxy"] == {
        "app.kubernetes.io/name": "outlit-proxy",
        "app.kubernetes.io/instance": "web",
        "app.kubernetes.io/component": "proxy",
    }


def test_a_release_called_by_a_number_has_labels_of_text():
    manifests = objects({**LEAST, "fullnameOverride": "proxy"}, name="123")
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"


@pytest.mark.parametrize("mode", ["deployment", "statefulset"])
@pytest.mark.parametrize("overridden", [{}, {"fullnameOverride": "o" * 52}, {"nameOverride": "n" * 52}])
def test_no_name_is_too_long(mode, overridden):
    values: dict[str, Any] = LEAST if mode == "deployment" else STATEFULSET
    more = {"dashboard": {"enabled": True}, "opsToken": {"value": "made-up-secret"}}
    for manifest in objects({**values, **more, **overridden}, name="r" * 53):
        named = manifest["metadata"]
        assert len(named["name"]) <= 63
        assert all(len(value) <= 63 for value in named["labels"].values())
        if manifest["kind"] == "StatefulSet":  # its pods' label controller-revision-hash
            assert len(f"{named['name']}-{'0' * 10}") <= 63


def test_each_object_is_labelled_and_annotated_as_all_are_to_be():
    for manifest in objects(CI["everything"]):
        if not manifest["metadata"]["name"].startswith("web-"):  # what extraManifests adds is the user's own
            assert manifest["metadata"]["labels"]["example.com/team"] == "web"
            assert manifest["metadata"]["annotations"]["example.com/contact"] == "web@example.com"
            assert manifest["metadata"]["namespace"] == "analytics"

"""What the chart makes for Prometheus, its operator, and Grafana."""

import json

import pytest
import yaml

from tests.deploy.helm_chart import CHART, CI, LEAST, UNKNOWN_TO_KUBERNETES, objects, one, proxy_of
from tests.deploy.prometheus_operator import models


@pytest.mark.parametrize(
    ("ci", "kind"),
    [
        ("monitoring", "ServiceMonitor"),
        ("monitoring", "PrometheusRule"),
        ("everything", "PodMonitor"),
        ("everything", "PrometheusRule"),
    ],
)
def test_each_object_of_the_operator_is_one_that_it_takes(ci, kind):
    manifest = one(objects(CI[ci]), kind)
    understood = getattr(models(), kind).model_validate(manifest)
    # A name that the model does not know it passes over.
    assert understood.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


def test_by_default_nothing_is_made_that_a_plain_kubernetes_does_not_know():
    assert not {manifest["kind"] for manifest in objects(LEAST)} & UNKNOWN_TO_KUBERNETES


def test_a_service_monitor_finds_each_pod_once():
    manifests = objects(CI["monitoring"])
    wanted = one(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    found = [m for m in manifests if m["kind"] == "Service" and wanted <= m["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in found] == ["web-outlit-proxy-ops"]
    (endpoint,) = one(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_a_pod_monitor_names_a_port_of_the_pods():
    manifests = objects(CI["everything"])
    (endpoint,) = one(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in proxy_of(manifests)["ports"]}


def test_the_alerts_are_those_of_the_file():
    written = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    made = one(objects({**LEAST, "prometheusRule": {"enabled": True}}), "PrometheusRule")["spec"]["groups"]
    assert made == written
    assert sum(len(group["rules"]) for group in made) > 0


def test_alerts_get_labels_and_runbooks_of_ones_own():
    written = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    made = one(objects(CI["monitoring"]), "PrometheusRule")["spec"]["groups"]
    rules = [
        (ours, theirs)
        for one_, two in zip(written, made, strict=True)
        for ours, theirs in zip(one_["rules"], two["rules"], strict=True)
    ]
    for ours, theirs in rules:
        assert theirs["expr"] == ours["expr"]
        assert theirs["labels"] == {**ours["labels"], "team": "web"}
        base, _, section = theirs["annotations"]["runbook_url"].partition("#")
        assert base == "https://runbooks.example.com/outlit-proxy"
        assert section == ours["annotations"]["runbook_url"].partition("#")[2]


def test_the_dashboard_is_the_file():
    made = one(objects(CI["monitoring"]), "ConfigMap", "-dashboard")
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    written = (CHART / "files" / "dashboard.json").read_text()
    assert json.loads(made["data"]["outlit-proxy.json"]) == json.loads(written)

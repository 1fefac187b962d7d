"""How the pods of the chart come, stay and go."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.deploy.helm_chart import CI, LEAST, STATEFULSET, objects, one, pod_template, proxy_of

SECRETS = {
    "redis": {"url": "redis://outlit-proxy@redis.example", "password": "Redis-Secret-9"},
    "opsToken": {"value": "Ops-Secret-9"},
    "gatewayApiKey": {"value": "ok_Api-Secret-9"},
}


def checksums(values: Mapping[str, Any]) -> dict[str, str]:
    annotations = pod_template(objects(values))["metadata"]["annotations"]
    return {name: value for name, value in annotations.items() if name.startswith("checksum/")}


def test_pods_are_replaced_when_their_settings_or_secrets_change_and_else_not():
    before = checksums(SECRETS)
    assert before.keys() == {"checksum/config", "checksum/secrets"}
    assert checksums({**SECRETS, "commonLabels": {"more": "label"}, "replicaCount": 4}) == before
    settings = checksums({**SECRETS, "config": {"log": {"level": "debug"}}})
    assert settings["checksum/config"] != before["checksum/config"]
    for name, value in (("opsToken", "Another-Secret"), ("gatewayApiKey", "ok_Another-Secret")):
        secret = checksums({**SECRETS, name: {"value": value}})
        assert secret["checksum/secrets"] != before["checksum/secrets"]
        assert secret["checksum/config"] == before["checksum/config"]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 5 + 25 + 5),
        ({"preStopSleepSeconds": 0}, 25 + 5),
        ({"preStopSleepSeconds": 20, "config": {"delivery": {"grace": "2m"}}}, 20 + 120 + 5),
        ({"config": {"delivery": {"grace": "250ms"}}}, 5 + 1 + 5),
        ({"config": {"delivery": {"grace": "1.5m"}}}, 5 + 90 + 5),
        ({"config": {"delivery": {"grace": "1h"}}, "terminationGracePeriodSeconds": 3700}, 3700),
    ],
)
def test_a_pod_has_the_time_that_stopping_takes(values, seconds):
    assert pod_template(objects({**LEAST, **values}))["spec"]["terminationGracePeriodSeconds"] == seconds


def test_a_pod_that_is_to_end_serves_until_nobody_is_sent_to_it():
    assert proxy_of(objects(LEAST))["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    assert "lifecycle" not in proxy_of(objects({**LEAST, "preStopSleepSeconds": 0}))


def test_a_rollout_takes_no_pod_before_another_is_there():
    strategy = one(objects(LEAST), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


@pytest.mark.parametrize(
    ("values", "budgets"),
    [
        (LEAST, 1),
        ({**LEAST, "replicaCount": 1}, 0),
        (STATEFULSET, 0),
        ({**STATEFULSET, "replicaCount": 2}, 1),
        ({**LEAST, "replicaCount": 1, "autoscaling": {"enabled": True}}, 1),
        ({**LEAST, "autoscaling": {"enabled": True, "minReplicas": 1}}, 1),
        ({**LEAST, "podDisruptionBudget": {"enabled": False}}, 0),
    ],
)
def test_a_budget_for_disruptions_never_holds_up_the_only_pod(values, budgets):
    assert [m["kind"] for m in objects(values)].count("PodDisruptionBudget") == budgets


def test_the_autoscaler_alone_says_how_many_pods_there_are():
    manifests = objects(CI["everything"])
    assert "replicas" not in one(manifests, "Deployment")["spec"]
    scaler = one(manifests, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == one(manifests, "Deployment")["metadata"]["name"]
    (metric,) = scaler["metrics"]
    assert (metric["containerResource"]["name"], metric["containerResource"]["container"]) == ("cpu", "proxy")
    assert one(objects(LEAST), "Deployment")["spec"]["replicas"] == 2


def test_a_pod_with_a_file_keeps_its_volume():
    manifests = objects(STATEFULSET)
    stateful = one(manifests, "StatefulSet")["spec"]
    assert stateful["replicas"] == 1
    assert stateful["podManagementPolicy"] == "Parallel"
    assert stateful["serviceName"] == one(manifests, "Service", "-pods")["metadata"]["name"]
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert "app.kubernetes.io/version" not in claim["metadata"]["labels"]  # claims cannot be changed
    mounts = {each["name"]: each["mountPath"] for each in proxy_of(manifests)["volumeMounts"]}
    assert mounts == {"config": "/etc/outlit-proxy", "data": "/data", "tmp": "/tmp"}


def test_a_pod_without_a_volume_writes_to_what_is_gone_with_it():
    manifests = objects(CI["ephemeral"])
    assert "volumeClaimTemplates" not in one(manifests, "StatefulSet")["spec"]
    volumes = {each["name"]: each for each in pod_template(manifests)["spec"]["volumes"]}
    assert volumes["data"]["emptyDir"] == {"sizeLimit": "5Gi"}


@pytest.mark.parametrize(
    ("values", "affinity"),
    [
        (LEAST, "None"),
        (STATEFULSET, "None"),
        ({**STATEFULSET, "replicaCount": 2}, "ClientIP"),
        ({**STATEFULSET, "replicaCount": 2, "service": {"sessionAffinity": "None"}}, "None"),
    ],
)
def test_a_visitor_stays_on_a_pod_where_each_has_a_buffer_of_its_own(values, affinity):
    assert one(objects(values), "Service")["spec"]["sessionAffinity"] == affinity


def test_pods_are_spread_by_whom_they_belong_to_unless_said_otherwise():
    by_zone, by_node = pod_template(objects(CI["everything"]))["spec"]["topologySpreadConstraints"]
    assert by_zone["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "proxy"
    assert by_node["labelSelector"] == {"matchLabels": {"example.com/tier": "edge"}}


def test_probes_can_be_tuned_but_not_pointed_elsewhere():
    values = {"livenessProbe": {"periodSeconds": 60, "httpGet": {"path": "/elsewhere"}}}
    container = proxy_of(objects({**LEAST, **values}))
    probe = container["livenessProbe"]
    assert (probe["periodSeconds"], probe["timeoutSeconds"]) == (60, 5)
    assert probe["httpGet"] == {"path": "/livez", "port": "ops"}


def test_the_pod_of_the_test_runs_once_and_only_when_it_is_asked_for():
    pod = one(objects(LEAST), "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] == 60 + 30
    assert "Pod" not in {manifest["kind"] for manifest in objects({**LEAST, "tests": {"enabled": False}})}


def test_what_is_added_is_there():
    manifests = objects(CI["everything"])
    pod = pod_template(manifests)["spec"]
    assert [each["name"] for each in pod["containers"]] == ["proxy", "beside"]
    assert [each["name"] for each in pod["initContainers"]] == ["before"]
    added = {
        m["metadata"]["name"]: m.get("data") for m in manifests if m["metadata"]["name"].startswith("web-")
    }
    assert added == {"web-more": {"of": "outlit-proxy"}, "web-text": None}

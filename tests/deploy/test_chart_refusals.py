"""Values that cannot work are refused before anything is installed, with a line that says what to write."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from helm_python import HelmError

from proxy.settings import SETTINGS
from tests.deploy.helm_chart import LEAST, STATEFULSET, objects, rendered

TOKEN = {"opsToken": {"existingSecret": "ops"}}


def refused(values: Mapping[str, Any], name: str = "web") -> str:
    with pytest.raises(HelmError) as error:
        rendered(values, name=name)
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"image": {"digst": ""}}, "at '/image': additional properties 'digst' not allowed"),
        ({"config": {"delivery": {"liner": "1s"}}}, "'/config/delivery': additional properties 'liner'"),
        ({"config": {"delivry": {}}}, "at '/config': additional properties 'delivry'"),
        ({"config": {"front": {"max_events": 0}}}, "'/config/front/max_events': minimum: got 0, want 1"),
        ({"config": {"front": {"client_ip": "hide"}}}, "'/config/front/client_ip': value must be one of"),
        ({"config": {"delivery": {"grace": 30}}}, "'/config/delivery/grace': got number, want string"),
        ({"mode": "daemonset"}, "at '/mode': value must be one of 'deployment', 'statefulset'"),
        ({"replicaCount": 0}, "at '/replicaCount': minimum: got 0, want 1"),
        ({"replicaCount": "2"}, "at '/replicaCount': got string, want"),
        ({"service": {"type": "ExternalName"}}, "at '/service/type'"),
        ({"service": {"port": 70000}}, "at '/service/port': maximum"),
        ({"image": {"digest": "sha256:12"}}, "at '/image/digest'"),
        ({"persistence": {"size": "ten"}}, "at '/persistence/size'"),
        ({"tests": {"publicKey": "ok_secret"}}, "at '/tests/publicKey'"),
        ({"ingress": {"hosts": ["t.example.com"]}}, "at '/ingress/hosts/0': got string, want object"),
        ({"ingress": {"hosts": [{"name": "t"}]}}, "at '/ingress/hosts/0': missing property 'host'"),
        ({"livenessProbe": {"exec": {"command": ["true"]}}}, "at '/livenessProbe'"),
        ({"commonLabels": {"version": 1}}, "at '/commonLabels/version': got number, want string"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(values, said):
    assert said in refused({**LEAST, **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {},
            'redis.url: is empty, and the pods of mode "deployment" keep nothing themselves: name your Redis',
        ),
        ({"redis": {"url": "sqlite:////data/x.db"}}, "redis.url: is not the URL of a Redis: write redis://"),
        ({"redis": {"url": "redis://:pass@r"}}, "redis.url: holds a password, which everybody who may look"),
        ({"redis": {"url": "rediss://u:p@r/0"}}, "redis.url: holds a password"),
        (
            {"redis": {"url": "redis://r", "existingSecret": "s", "existingSecretUrlKey": "url"}},
            "redis.url: is set together with redis.existingSecretUrlKey: leave one of them out",
        ),
        (
            {"redis": {"existingSecretUrlKey": "url"}},
            "redis.existingSecretUrlKey: names a key, but no Secret",
        ),
        (
            {"redis": {"url": "redis://r", "existingSecret": "s", "password": "p"}},
            "redis.password: is set together with redis.existingSecret: leave one of them out",
        ),
        ({**STATEFULSET, **LEAST}, 'redis: is for mode "deployment", and this is mode "statefulset"'),
        ({**STATEFULSET, "redis": {"password": "p"}}, 'redis: is for mode "deployment"'),
        (
            {**STATEFULSET, "persistence": {"size": "4Gi"}},
            "persistence.size: 4Gi is less than config.buffer.max_bytes and config.dead.max_bytes together",
        ),
        (
            {**STATEFULSET, "config": {"buffer": {"max_bytes": "10GiB"}, "dead": {"max_bytes": 1_000_000}}},
            "persistence.size: 10Gi is less than",
        ),
        (
            {**STATEFULSET, "persistence": {"enabled": False}},
            "persistence.enabled: is false, so what a pod holds is gone with it",
        ),
        (
            {**STATEFULSET, "autoscaling": {"enabled": True}},
            'autoscaling.enabled: is for mode "deployment"',
        ),
        (
            {**LEAST, "autoscaling": {"enabled": True, "minReplicas": 9}},
            "autoscaling.minReplicas: 9 is more than autoscaling.maxReplicas, 6",
        ),
        (
            {**LEAST, "opsToken": {"value": "ok_12345678"}},
            "opsToken.value: begins with ok_, as an API key of Outlit does",
        ),
        (
            {**LEAST, "opsToken": {"value": "12345678", "existingSecret": "s"}},
            "opsToken.value: is set together with opsToken.existingSecret",
        ),
        (
            {**LEAST, **TOKEN, "gatewayApiKey": {"value": "ok_12345678", "existingSecret": "s"}},
            "gatewayApiKey.value: is set together with gatewayApiKey.existingSecret",
        ),
        (
            {**LEAST, "gatewayApiKey": {"existingSecret": "s"}},
            "gatewayApiKey: is sent for callers that hold the token of operations, and there is none",
        ),
        (
            {**LEAST, "config": {"ops": {"allowed_hosts": ["proxy.example.com"]}}},
            "config.ops.allowed_hosts: the test of this release asks web-outlit-proxy-ops, and would be",
        ),
        (
            {**STATEFULSET, "config": {"ops": {"allowed_hosts": []}}},
            "the test of this release asks web-outlit-proxy-0.web-outlit-proxy-pods, and would be refused",
        ),
        ({**LEAST, "config": {"front": {"listen": ":80"}}}, "config.front.listen: the chart sets it"),
        ({**LEAST, "config": {"ops": {"listen": ":80"}}}, "config.ops.listen: the chart sets it"),
        ({**LEAST, "config": {"ops": {"token": "12345678"}}}, "config.ops.token: a ConfigMap is no place"),
        (
            {**LEAST, "config": {"gateway": {"api_key": "ok_12345678"}}},
            "config.gateway.api_key: a ConfigMap is no place",
        ),
        ({**LEAST, "config": {"buffer": {"url": "redis://r"}}}, "config.buffer.url: the chart sets it"),
        (
            {**LEAST, "config": {"buffer": {"password": "p"}}},
            "config.buffer.password: a ConfigMap is no place",
        ),
        (
            {**LEAST, "terminationGracePeriodSeconds": 30},
            "preStopSleepSeconds, config.delivery.grace and 5 s for closing are 35; leave it out",
        ),
        (
            {**LEAST, "resources": {"limits": {"memory": "256M"}}},
            "resources.limits.memory: 256M is not enough for config.front.max_pending_bytes, 256MB, and 400",
        ),
        ({**LEAST, "resources": {"limits": {"memory": "512Mi"}}}, "raise it to 656M, or lower the setting"),
        (
            {**LEAST, "resources": {"limits": {"memory": 1_000}}},
            "resources.limits.memory: 1000 is not enough",
        ),
        (
            {
                **STATEFULSET,
                "persistence": {"enabled": False, "size": "5688M"},
                "config": {"delivery": {"on_exit": "drain"}},
            },
            "before the proxy refuses anything; write 5689M or more, or lower these",
        ),
        (
            {"redis": {"url": "redis://user@r"}},
            "redis.url: names a user, and there is no password for it: name",
        ),
        (
            {
                "redis": {"url": "redis+sentinel://user@a,b/main"},
                "extraEnv": [{"name": "TZ", "value": "UTC"}],
            },
            "redis.url: names a user",
        ),
        (
            {**LEAST, "service": {"nodePort": 30080}},
            "service.nodePort: a Service of type ClusterIP has none: leave it out, or write service.type",
        ),
        (
            {**LEAST, "service": {"loadBalancerClass": "internal"}},
            "service.loadBalancerClass: a Service of type ClusterIP has no load balancer: leave it out",
        ),
        (
            {**LEAST, "service": {"type": "NodePort", "loadBalancerSourceRanges": ["192.0.2.0/24"]}},
            "service.loadBalancerSourceRanges: a Service of type NodePort has no load balancer",
        ),
        ({**LEAST, "image": {"tag": "latest"}}, "image.tag: latest names another image tomorrow"),
        ({**LEAST, "fullnameOverride": "Proxy"}, 'fullnameOverride: the objects would be called "Proxy"'),
        (
            {**LEAST, "tests": {"publicKey": "pk_a"}},
            "tests.publicKey: the test follows its event with the token",
        ),
        ({**LEAST, "ingress": {"enabled": True}}, "ingress.hosts: is empty"),
        ({**LEAST, "httpRoute": {"enabled": True}}, "httpRoute.parentRefs: is empty: name the Gateway"),
        (
            {**LEAST, "serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
            "podMonitor.enabled: with serviceMonitor.enabled each pod would be scraped twice",
        ),
    ],
)
def test_values_that_are_wrong_together_are_refused_with_what_to_write(values, said):
    assert said in refused(values)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("buffer.max_bytes", "write it into config.buffer.max_bytes"),
        ("buffer.url", "is for the chart to set: write redis.url or redis.existingSecretUrlKey"),
        ("dead.max_bytes", "write it into config.dead.max_bytes"),
        ("delivery.grace", "write it into config.delivery.grace"),
        ("delivery.on_exit", "write it into config.delivery.on_exit"),
        ("delivery.rate_share", "write it into config.delivery.rate_share"),
        ("front.listen", "is for the chart to set: the pods listen on 8080"),
        ("front.max_pending_bytes", "write it into config.front.max_pending_bytes"),
        ("ops.listen", "is for the chart to set: the pods listen on 9090"),
        ("upstream.url", "write it into config.upstream.url"),
    ],
)
def test_a_variable_that_would_go_past_the_chart_is_refused(setting, said):
    """A pod would be killed before it has stopped, where delivery.grace is longer than the chart knows."""
    (variable,) = [each.variable for each in SETTINGS if each.name == setting]
    whole = refused({**LEAST, "extraEnv": [{"name": variable, "value": "any"}]})
    assert re.search(rf"^extraEnv: .*{variable} .*{re.escape(said)}", whole, re.MULTILINE)


SECRET = "a-secret-that-nobody-may-see"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"opsToken": {"value": f"ok_{SECRET}"}}, "opsToken.value: begins with ok_"),
        ({"opsToken": {"value": f"{SECRET} "}}, "opsToken.value: is no token"),
        ({"gatewayApiKey": {"value": SECRET}}, "gatewayApiKey.value: is no secret API key of Outlit"),
        ({"gatewayApiKey": {"value": f"ok_{SECRET} "}}, "gatewayApiKey.value: is no secret API key"),
        ({"config": {"ops": {"token": f"{SECRET} "}}}, "config.ops.token: a ConfigMap is no place"),
        ({"config": {"gateway": {"api_key": SECRET}}}, "config.gateway.api_key: a ConfigMap is no place"),
    ],
)
def test_a_secret_that_is_refused_is_not_repeated(values, said):
    whole = refused({**LEAST, **values})
    assert said in whole
    assert SECRET not in whole


def test_every_secret_of_the_proxy_is_refused_where_all_could_read_it():
    for setting in SETTINGS:
        if setting.secret:
            plain = [{"name": setting.variable, "value": SECRET}]
            whole = refused({**LEAST, "extraEnv": plain, "config": {setting.table: {setting.key: SECRET}}})
            assert f"extraEnv: {setting.variable} holds a secret, which everybody who may look at" in whole
            assert f"config.{setting.name}: a ConfigMap is no place for a secret" in whole
            assert SECRET not in whole


@pytest.mark.parametrize(
    ("values", "variable", "value"),
    [
        (TOKEN, "OUTLIT_PROXY_OPS_TOKEN", "opsToken"),
        ({"opsToken": {"value": SECRET}}, "OUTLIT_PROXY_OPS_TOKEN", "opsToken"),
        (
            {**TOKEN, "gatewayApiKey": {"existingSecret": "api"}},
            "OUTLIT_PROXY_GATEWAY_API_KEY",
            "gatewayApiKey",
        ),
        ({"redis": {"url": "redis://r", "existingSecret": "r"}}, "OUTLIT_PROXY_BUFFER_PASSWORD", "redis"),
    ],
)
def test_a_secret_that_the_chart_sets_does_not_come_as_a_variable_too(values, variable, value):
    """One from a Secret would override it; with one that names a file the proxy would not start."""
    reference = {"valueFrom": {"secretKeyRef": {"name": "t", "key": "t"}}}
    for given in ({"name": variable, **reference}, {"name": f"{variable}_FILE", "value": "/mine"}):
        whole = refused({**LEAST, **values, "extraEnv": [given]})
        assert f"extraEnv: {given['name']} is given by {value} already: leave one of them out" in whole
        assert SECRET not in whole


def test_a_settings_file_of_ones_own_does_not_go_past_the_chart():
    given = {**LEAST, "extraEnv": [{"name": "OUTLIT_PROXY_CONFIG", "value": "/etc/mine.toml"}]}
    assert "extraEnv: OUTLIT_PROXY_CONFIG is for the chart to set: write the settings into config" in refused(
        given
    )


def test_a_release_whose_name_begins_with_a_digit_is_told_so():
    assert 'fullnameOverride: the objects would be called "1st-outlit-proxy"' in refused(LEAST, name="1st")


def test_all_that_is_wrong_is_said_at_once():
    wrong = {"image": {"tag": "latest"}, "ingress": {"enabled": True}, "config": {"front": {"listen": ":1"}}}
    said = refused(wrong)
    for name in ("redis.url:", "image.tag:", "ingress.hosts:", "config.front.listen:"):
        assert f"\n{name}" in said


@pytest.mark.parametrize(
    "values",
    [
        {**STATEFULSET, "persistence": {"size": "4500M"}},
        {**STATEFULSET, "persistence": {"size": "0.0046T"}},
        {**LEAST, "terminationGracePeriodSeconds": 35},
        {**LEAST, "resources": {"limits": {"memory": "656M"}}},
        {**LEAST, "resources": {"limits": {"memory": None}}},
        {**LEAST, "image": {"tag": "latest", "digest": f"sha256:{'0' * 64}"}},
        {
            **LEAST,
            "resources": {"limits": {"memory": "512Mi"}},
            "config": {"front": {"max_pending_bytes": "64MB"}},
        },
        {
            **STATEFULSET,
            "persistence": {"enabled": False, "size": "5689M"},
            "config": {"delivery": {"on_exit": "drain"}},
        },
        {"redis": {"url": "redis://user@r:6379/0", "existingSecret": "redis"}},
        {"redis": {"url": "redis://user@r:6379/0", "password": "p"}},
        {
            "redis": {"url": "redis://user@r:6379/0"},
            "extraEnv": [{"name": "OUTLIT_PROXY_BUFFER_PASSWORD_FILE", "value": "/vault/password"}],
        },
        {"redis": {"url": "redis://user@r:6379/0"}, "extraEnvFrom": [{"secretRef": {"name": "redis"}}]},
        {**LEAST, "extraEnv": [{"name": "OUTLIT_PROXY_LOG_LEVEL", "value": "debug"}]},
        {**LEAST, "service": {"type": "NodePort", "nodePort": 30080}},
        {**LEAST, "service": {"type": "LoadBalancer", "nodePort": 30080, "loadBalancerClass": "internal"}},
        {**LEAST, **TOKEN, "gatewayApiKey": {"value": "ok_12345678"}},
        {
            **LEAST,
            "gatewayApiKey": {"existingSecret": "api"},
            "extraEnv": [
                {"name": "OUTLIT_PROXY_OPS_TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "t"}}}
            ],
        },
        {**LEAST, "gatewayApiKey": {"existingSecret": "api"}, "extraEnvFrom": [{"secretRef": {"name": "t"}}]},
        {**LEAST, "config": {"ops": {"allowed_hosts": ["web-outlit-proxy-ops"]}}},
        {**LEAST, "config": {"ops": {"allowed_hosts": ["*"]}}},
        {**LEAST, "config": {"ops": {"allowed_hosts": []}}, "tests": {"enabled": False}},
        {"redis": {"url": "unix:///run/redis/redis.sock"}},
        {"redis": {"url": "redis://[fd00::1]:6379"}},
    ],
)
def test_what_is_just_right_is_taken(values):
    assert objects(values)

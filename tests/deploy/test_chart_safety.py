"""What the chart keeps closed: containers, secrets, operations, and who may speak with whom."""

import base64
import json
import re

import pytest
import yaml

from proxy import __version__
from tests.deploy.helm_chart import (
    CI,
    LEAST,
    STATEFULSET,
    containers,
    each_of_ci,
    environment,
    objects,
    one,
    pod_template,
    proxy_of,
    rendered,
)


@each_of_ci
def test_every_container_of_its_own_is_confined_and_asks_for_what_it_needs(values):
    manifests = objects(values)
    own = [each for each in containers(manifests) if each["name"] in ("proxy", "test")]
    assert len(own) == 2
    for container in own:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}


@each_of_ci
def test_no_pod_is_root_or_may_ask_kubernetes_anything(values):
    manifests = objects(values)
    for pod in (pod_template(manifests)["spec"], one(manifests, "Pod", "-test")["spec"]):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {65532}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    accounts = [each for each in manifests if each["kind"] == "ServiceAccount"]
    assert [account["automountServiceAccountToken"] for account in accounts] == [False]


def test_numbers_of_users_can_be_left_to_the_cluster():
    nothing = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    context = pod_template(objects({**LEAST, "podSecurityContext": nothing}))["spec"]["securityContext"]
    assert context.keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}


@each_of_ci
def test_every_image_has_a_version(values):
    for container in containers(objects(values)):
        assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+$|@sha256:[0-9a-f]{64}$", container["image"])


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ({"tag": "1.2.3"}, "outlit-proxy:1.2.3"),
        ({"registry": "localhost:5000", "tag": "1"}, "localhost:5000/outlit-proxy:1"),
        ({"registry": "r.example", "repository": "team/proxy"}, f"r.example/team/proxy:{__version__}"),
        ({"tag": "1.2.3", "digest": f"sha256:{'a' * 64}"}, f"outlit-proxy@sha256:{'a' * 64}"),
    ],
)
def test_the_image_is_named_as_it_was_given(image, named):
    assert {each["image"] for each in containers(objects({**LEAST, "image": image}))} == {named}


def test_a_secret_stands_in_its_secret_and_nowhere_else():
    values = {
        "redis": {"url": "redis://outlit-proxy@redis.example", "password": "Redis-Secret-9"},
        "opsToken": {"value": "Ops-Secret-9"},
        "gatewayApiKey": {"value": "ok_Api-Secret-9"},
        "tests": {"publicKey": "pk_test"},
        "dashboard": {"enabled": True},
    }
    files = rendered(values)
    data = yaml.safe_load(files["secret.yaml"])["data"]
    kept = {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    assert kept == {
        "ops-token": b"Ops-Secret-9",
        "gateway-api-key": b"ok_Api-Secret-9",
        "redis-password": b"Redis-Secret-9",
    }
    for path, text in files.items():
        if path != "secret.yaml":
            for secret in (
                *("Redis-Secret-9", "Ops-Secret-9", "Api-Secret-9"),
                *("UmVkaXMtU2Vj", "T3BzLVNlY3", "b2tfQXBpLVNl"),
            ):
                assert secret not in text, path


def test_secrets_of_ones_own_are_mounted_as_files_and_none_is_made():
    values = {
        "redis": {**LEAST["redis"], "existingSecret": "redis", "existingSecretPasswordKey": "pw"},
        "opsToken": {"existingSecret": "ops", "existingSecretKey": "tok"},
    }
    manifests = objects(values)
    assert "Secret" not in {manifest["kind"] for manifest in manifests}
    pod = pod_template(manifests)["spec"]
    (volume,) = [each["projected"] for each in pod["volumes"] if each["name"] == "secrets"]
    assert volume["defaultMode"] == 0o440
    assert [source["secret"] for source in volume["sources"]] == [
        {"name": "ops", "items": [{"key": "tok", "path": "ops-token"}]},
        {"name": "redis", "items": [{"key": "pw", "path": "redis-password"}]},
    ]
    (mounted,) = [
        each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] == "secrets"
    ]
    given = environment(pod["containers"][0])
    assert given["OUTLIT_PROXY_OPS_TOKEN_FILE"] == f"{mounted}/ops-token"
    assert given["OUTLIT_PROXY_BUFFER_PASSWORD_FILE"] == f"{mounted}/redis-password"


@pytest.mark.parametrize(
    ("given", "secret", "key"),
    [
        ({"existingSecret": "outlit", "existingSecretKey": "key"}, "outlit", "key"),
        ({"value": "ok_Api-Secret-9"}, "web-outlit-proxy-secrets", "gateway-api-key"),
    ],
)
def test_the_api_key_is_a_file_of_the_proxys_and_of_no_other_pod(given, secret, key):
    """The pod of the test has the token, for it follows an event; with Outlit's key it has nothing to do."""
    values = {
        **LEAST,
        "opsToken": {"existingSecret": "ops"},
        "gatewayApiKey": given,
        "tests": {"publicKey": "pk_test"},
    }
    manifests = objects(values)
    pod = pod_template(manifests)["spec"]
    (volume,) = [each["secret"] for each in pod["volumes"] if each["name"] == "gateway"]
    assert volume == {
        "secretName": secret,
        "defaultMode": 0o440,
        "items": [{"key": key, "path": "api-key"}],
    }
    container = proxy_of(manifests)
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "gateway"]
    assert mount["readOnly"] is True
    assert environment(container)["OUTLIT_PROXY_GATEWAY_API_KEY_FILE"] == f"{mount['mountPath']}/api-key"
    test_pod = json.dumps(one(manifests, "Pod", "-test"))
    assert "/run/secrets/outlit-proxy/ops-token" in test_pod
    assert "gateway" not in test_pod


def test_without_an_api_key_nothing_of_it_is_mounted():
    assert "gateway" not in json.dumps(
        pod_template(objects({**LEAST, "opsToken": {"existingSecret": "ops"}}))
    )


def test_a_whole_url_comes_from_its_secret():
    manifests = objects(CI["monitoring"])
    (entry,) = [e for e in proxy_of(manifests)["env"] if e["name"] == "OUTLIT_PROXY_BUFFER_URL"]
    assert entry["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert "OUTLIT_PROXY_BUFFER_PASSWORD_FILE" not in environment(proxy_of(manifests))


def test_operations_are_reached_within_the_cluster_only():
    outside = {
        "service": {"type": "LoadBalancer"},
        "ingress": {"enabled": True, "hosts": [{"host": "t.example"}]},
    }
    for values in (CI["ingress"], {**LEAST, **outside}):
        manifests = objects(values)
        operations = one(manifests, "Service", "-ops")["spec"]
        assert operations["type"] == "ClusterIP"
        assert [port["port"] for port in one(manifests, "Service")["spec"]["ports"]] == [80]
        for manifest in manifests:
            if manifest["kind"] in ("Ingress", "HTTPRoute"):
                assert "-ops" not in json.dumps(manifest)
                assert '"9090"' not in json.dumps(manifest)


def test_a_network_policy_lets_through_what_is_needed():
    policy = one(objects(CI["ingress"]), "NetworkPolicy")["spec"]
    front, operations = policy["ingress"]
    assert front["ports"] == [{"port": "front", "protocol": "TCP"}]
    assert operations["ports"] == [{"port": "ops", "protocol": "TCP"}]
    assert operations["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert "monitoring" in json.dumps(operations["from"][1])
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [
        [53, 53],
        [6380],
        [443],
    ]
    assert [("to" in rule) for rule in policy["egress"]] == [True, True, False]


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ({"redis": {"url": "redis://redis.example"}}, [[6379], [443]]),
        ({"redis": {"url": "redis://user@[fd00::1]:7000/2", "password": "p"}}, [[7000], [443]]),
        ({"redis": {"url": "redis+sentinel://a:1,b,c:1/main?tls=true"}}, [[1, 26379, 6379], [443]]),
        ({"redis": {"url": "redis+cluster://a:7000,b:7001"}}, [[7000, 7001], [443]]),
        ({"redis": {"existingSecret": "redis", "existingSecretUrlKey": "url"}}, [[6379], [443]]),
        ({**STATEFULSET, "config": {"upstream": {"url": "http://[fd00::1]:9300"}}}, [[9300]]),
        ({**STATEFULSET, "config": {"upstream": {"url": "http://[fd00::1]/base"}}}, [[80]]),
        ({**STATEFULSET, "config": {"upstream": {"url": "https://up.example:8443/a:1"}}}, [[8443]]),
    ],
)
def test_a_network_policy_knows_the_ports_of_redis_and_of_outlit(values, ports):
    policy = one(objects({**values, "networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"][1:]] == ports


CLIENTS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}


@pytest.mark.parametrize(
    ("tests", "let_in"),
    [({"publicKey": "pk_a"}, True), ({}, False), ({"publicKey": "pk_a", "enabled": False}, False)],
)
def test_a_network_policy_lets_the_test_post_where_it_does(tests, let_in):
    values = {
        **LEAST,
        "opsToken": {"existingSecret": "ops"},
        "tests": tests,
        "networkPolicy": {"enabled": True, "front": {"from": [CLIENTS]}},
    }
    manifests = objects(values)
    front = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]
    *own, others = front["from"]
    assert others == CLIENTS
    assert len(own) == let_in
    for peer in own:
        test_pod = one(manifests, "Pod", "-test")["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= test_pod.items()


def test_a_network_policy_that_lets_everybody_post_lets_the_test():
    values = {**LEAST, "opsToken": {"existingSecret": "ops"}, "tests": {"publicKey": "pk_a"}}
    policy = one(objects({**values, "networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert "from" not in policy["ingress"][0]


def test_a_network_policy_takes_the_ports_of_the_clusters_names():
    policy = one(
        objects({**LEAST, "networkPolicy": {"enabled": True, "dns": {"ports": [53, 5353]}}}), "NetworkPolicy"
    )
    names = [(port["port"], port["protocol"]) for port in policy["spec"]["egress"][0]["ports"]]
    assert names == [(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")]


@pytest.mark.parametrize(
    ("service", "protocol"), [({}, "http"), ({"appProtocol": ""}, None), ({"appProtocol": "tcp"}, "tcp")]
)
def test_what_the_service_speaks_is_said_as_it_is_wanted(service, protocol):
    (port,) = one(objects({**LEAST, "service": service}), "Service")["spec"]["ports"]
    assert port.get("appProtocol") == protocol

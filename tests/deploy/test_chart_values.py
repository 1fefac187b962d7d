"""The values of the chart: each known and explained, others refused with a line that says what to write."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from helm_python import HelmError

from proxy.settings import SETTINGS
from tests.deploy.helm_chart import CHART, LEAST, SCHEMA, STATEFULSET, objects, rendered, schema_of_settings

VALUES_FILE = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(VALUES_FILE)
SCHEMA_OF_VALUES: dict[str, Any] = json.loads(SCHEMA.read_text())

OF_KUBERNETES = {
    *("affinity", "autoscaling.behavior", "deploymentStrategy", "dnsConfig", "livenessProbe", "nodeSelector"),
    *("podSecurityContext", "readinessProbe", "resources", "resources.limits", "securityContext"),
    *("startupProbe", "statefulSetUpdateStrategy", "tests.resources", "global"),
}
"""Values that go into Kubernetes' own objects (and one of Helm's): what may stand there is theirs to say."""


def closed_objects(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object of the schema, but items of lists of Kubernetes' own, by its dotted name."""
    if schema.get("type") == "object":
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from closed_objects(part, f"{path}.{name}".removeprefix("."))
    if "properties" in schema.get("items", {}):
        yield from closed_objects(schema["items"], f"{path}[]")


def test_no_object_of_ours_takes_a_name_that_it_does_not_know():
    free = set()
    for path, schema in closed_objects(SCHEMA_OF_VALUES):
        if schema.get("additionalProperties") == {"type": "string"}:  # labels and annotations
            assert path.rpartition(".")[2].lower().endswith(("labels", "annotations", "nodeselector")), path
        elif schema.get("additionalProperties") is not False:
            free.add(path)
    assert free == OF_KUBERNETES - {"nodeSelector"}


def names(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The dotted names of the values that the schema looks into."""
    for name, value in values.items():
        here = f"{path}.{name}".removeprefix(".")
        known = schema.get("properties", {}).get(name, {})
        yield here
        if isinstance(value, dict) and known.get("additionalProperties") is False and here != "config":
            yield from names(value, known, here)


def names_of_schema(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        yield here
        if here != "config" and part.get("additionalProperties") is False:
            yield from names_of_schema(part, here)


def test_each_value_stands_in_the_file_and_in_the_schema():
    apart = {"global", "enabled"}  # a parent chart's
    assert set(names_of_schema(SCHEMA_OF_VALUES)) - apart == set(names(VALUES, SCHEMA_OF_VALUES))


def unexplained(text: str) -> Iterator[str]:
    """Values without a comment that begins with `--`, above them or above what they are a part of."""
    around: list[
        tuple[int, bool]
    ] = []  # the indents of the names that this line stands below; whether explained
    comment = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment += line
            continue
        name = re.match(r"( *)([A-Za-z]+):(.*)", line)
        if name:
            indent = len(name[1])
            around = [outer for outer in around if outer[0] < indent]
            explained = "# --" in comment or any(of for _, of in around)
            if name[3] and not explained:
                yield name[2]
            around.append((indent, explained))
        comment = ""


def test_each_value_is_explained_above_it():
    assert list(unexplained(VALUES_FILE)) == []
    assert list(unexplained("a: 1\n# -- B\nb:\n  c: 1\n# d\nd:\n  # -- E\n  e: 1\n  f: 1\n")) == ["a", "f"]


def test_it_knows_the_settings_of_the_proxy():
    """Written anew by `python -m tests.deploy.helm_chart`."""
    assert SCHEMA_OF_VALUES["properties"]["config"] == json.loads(json.dumps(schema_of_settings()))
    tables = SCHEMA_OF_VALUES["properties"]["config"]["properties"]
    known = {f"{table}.{key}" for table, of in tables.items() for key in of["properties"]}
    assert known == {setting.name for setting in SETTINGS}


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
        ({"opsToken": {"value": "short"}}, "at '/opsToken/value'"),
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
        ({**LEAST, "config": {"front": {"listen": ":80"}}}, "config.front.listen: the chart sets it"),
        ({**LEAST, "config": {"ops": {"listen": ":80"}}}, "config.ops.listen: the chart sets it"),
        ({**LEAST, "config": {"ops": {"token": "12345678"}}}, "config.ops.token: a ConfigMap is no place"),
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
            "resources.limits.memory: 256M is no more than config.front.max_pending_bytes, 256MB",
        ),
        ({**LEAST, "resources": {"limits": {"memory": 1_000}}}, "resources.limits.memory: 1000 is no more"),
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
        {**LEAST, "resources": {"limits": {"memory": "257M"}}},
        {**LEAST, "resources": {"limits": {"memory": None}}},
        {**LEAST, "image": {"tag": "latest", "digest": f"sha256:{'0' * 64}"}},
        {"redis": {"url": "redis://user@r:6379/0"}},
        {"redis": {"url": "unix:///run/redis/redis.sock"}},
        {"redis": {"url": "redis://[fd00::1]:6379"}},
    ],
)
def test_what_is_just_right_is_taken(values):
    assert objects(values)

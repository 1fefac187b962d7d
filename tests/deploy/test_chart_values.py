"""The values of the chart: each known to its schema, and explained."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from proxy.settings import SETTINGS
from tests.deploy.helm_chart import CHART, SCHEMA, schema_of_settings

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

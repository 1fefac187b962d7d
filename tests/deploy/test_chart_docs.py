"""What is written about the chart is what it does: each command of helm and kubectl, each file of values."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
import yaml

from tests.deploy.helm_chart import CHART, LEAST, ROOT, STATEFULSET, objects, pod_template

HOW_TO = (CHART / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8"), "deploy/chart/README.md": HOW_TO}
NAMED = r"^# ([a-z-]+\.yaml)\n"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(program: str) -> Iterator[list[str]]:
    """The arguments of each line of the pages that calls the program."""
    for page in PAGES.values():
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith(f"{program} "):
                    yield shlex.split(line, comments=True)[1:]


FILES = {
    re.match(NAMED, block)[1]: helm_python.values_from_yaml(block)  # type: ignore[index]  # each has a name
    for block in blocks(HOW_TO, "yaml")
}
RENDERING = [each for each in commands("helm") if each[0] in ("install", "upgrade", "template")]


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As helm lays one file of values over another."""
    both = dict(below)
    for name, value in above.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def values_of(arguments: list[str]) -> dict[str, Any]:
    """The values that a command of helm gives; what it gives otherwise is refused."""
    values: dict[str, Any] = {}
    options = iter(arguments)
    for option in options:
        match option:
            case "-f" | "--values":
                values = merged(values, FILES[next(options)])
            case "--set":
                values = merged(values, helm_python.parse_set_string(next(options)))
            case _:
                raise AssertionError(f"nobody tests {option}")
    return values


@pytest.mark.parametrize("arguments", RENDERING, ids=" ".join)
def test_each_command_that_installs_something_works(arguments):
    _, release, chart, *options = arguments
    assert (ROOT / chart).resolve() == CHART
    kinds = {manifest["kind"] for manifest in objects(values_of(options), name=release)}
    assert {"Deployment", "StatefulSet"} & kinds


def test_no_file_of_values_is_without_its_command():
    used = {name for arguments in RENDERING for name in arguments if name in FILES}
    assert used == FILES.keys()
    assert len(RENDERING) >= 6


def made(values: Mapping[str, Any]) -> set[str]:
    return {f"{m['kind'].lower()}/{m['metadata']['name']}" for m in objects(values, name="outlit-proxy")}


def test_each_object_that_a_command_names_is_one_that_the_chart_makes():
    there = made(LEAST) | made(STATEFULSET)
    named = {
        word
        for arguments in commands("kubectl")
        for word in arguments
        if re.fullmatch(r"(deployment|statefulset|pod|svc|service)/\S+", word)
    }
    assert named <= there
    assert {"deployment/outlit-proxy", "statefulset/outlit-proxy"} <= named


def test_the_claim_that_a_command_names_is_that_of_the_first_pod():
    stateful = next(m for m in objects(STATEFULSET, name="outlit-proxy") if m["kind"] == "StatefulSet")
    claim = stateful["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    patched = [arguments[2] for arguments in commands("kubectl") if arguments[:2] == ["patch", "pvc"]]
    assert patched == [f"{claim}-{stateful['metadata']['name']}-0"]


def test_each_secret_that_is_made_has_the_key_that_is_looked_for():
    created = {
        arguments[3]: arguments[4].split("=")[1]  # --from-literal=KEY=…
        for arguments in commands("kubectl")
        if arguments[:3] == ["create", "secret", "generic"]
    }
    values = merged(FILES["my-values.yaml"], FILES["my-gateway.yaml"])
    volumes = pod_template(objects(values, name="outlit-proxy"))["spec"]["volumes"]
    looked_for = [
        source["secret"] for each in volumes for source in each.get("projected", {}).get("sources", ())
    ]
    looked_for += [each["secret"] for each in volumes if "secret" in each]
    assert {
        secret.get("name") or secret["secretName"]: item["key"]
        for secret in looked_for
        for item in secret["items"]
    } == created


def test_each_value_that_is_written_of_exists():
    values = names_of(helm_python.Chart.load(str(CHART)).values)
    settings = re.compile(r"config\.[a-z_]+\.[a-z_]+")
    written = set(re.findall(r"`((?:[a-z][A-Za-z]+\.)+[A-Za-z_]+|[a-z]+[A-Z][A-Za-z]+)(?=[`:])", HOW_TO))
    written = {name for name in written if not name.endswith((".yaml", ".md")) and not settings.match(name)}
    assert written
    assert written <= values


def names_of(values: Mapping[str, Any], path: str = "") -> set[str]:
    names = set()
    for name, value in values.items():
        here = f"{path}.{name}".removeprefix(".")
        names |= {here, name} | (names_of(value, here) if isinstance(value, dict) else set())
    return names


def test_each_service_that_a_route_of_your_own_names_is_the_charts_by_port():
    services = {
        m["metadata"]["name"]: {port[word] for port in m["spec"]["ports"] for word in ("name", "port")}
        for m in objects(LEAST, name="outlit-proxy")
        if m["kind"] == "Service"
    }
    page = (ROOT / "deploy" / "reverse-proxy" / "README.md").read_text(encoding="utf-8")
    backends = [found for block in blocks(page, "yaml") for found in _backends(yaml.safe_load(block))]
    assert len(backends) == 2, "of the Ingress and of the HTTPRoute"
    assert not [(name, port) for name, port in backends if port not in services[name]]


def _backends(value: Any) -> Iterator[tuple[str, str | int]]:
    """Each Service that an Ingress or a route sends to, and its port."""
    if isinstance(value, list):
        for each in value:
            yield from _backends(each)
    elif isinstance(value, dict):
        if "service" in value and isinstance(value["service"], dict):
            port = value["service"]["port"]
            yield value["service"]["name"], port.get("name") or port["number"]
        for backend in value.get("backendRefs", ()):
            yield backend["name"], backend["port"]
        for inner in value.values():
            yield from _backends(inner)


@pytest.mark.parametrize("page", PAGES)
def test_the_version_of_the_image_is_the_one_that_is_installed(page):
    version = helm_python.Chart.load(str(CHART)).metadata["appVersion"]
    assert set(re.findall(r"outlit-proxy:([0-9]+\.[0-9]+\.[0-9]+)", PAGES[page])) <= {version}

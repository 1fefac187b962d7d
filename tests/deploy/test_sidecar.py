"""The native sidecar: its manifests, and a rollout as Kubernetes does it, played with processes.

A pod ends in this order: the preStop hook of the sidecar, while the app still posts; the app; SIGTERM to the
sidecar; SIGKILL when the grace is over.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import load
from tests.deploy.prometheus_operator import models
from tests.deploy.sidecar import (
    FOLDER,
    Pod,
    environment_of,
    pod_of,
    rendered,
    sidecar_of,
    workload_of,
)
from tests.faults.load import KEY, Client, clients, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import OPS_TOKEN, Sandbox, http, running_sandbox

EXAMPLES = {"example": "drain", "example-volume": "keep"}
VERSIONS = ("1.29", "1.33")
"""The oldest Kubernetes with native sidecars switched on, and the first with them declared stable."""
APPS_TIME_S = 30
"""What Kubernetes gives a pod by default, and the manifests leave to the app."""
SPARE_S = 5
GRACE_S = 3.0
"""Of the sidecars of these tests, in place of delivery.grace = 25s."""


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    return request.param, rendered(FOLDER / request.param)


Example = tuple[str, list[dict[str, Any]]]


# -- the manifests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_is_rendered(version: str, tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "sidecar")
    own = tmp_path / "sidecar" / "own"
    own.mkdir()
    with_key = {"resources": ["../example"], "components": ["../gateway"]}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(with_key))
    folders = [*(FOLDER / name for name in EXAMPLES), own]
    resources = [resource for folder in folders for resource in rendered(folder)]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(resources))
    validator = Path(sys.executable).with_name("kubernetes-validate")
    checked = subprocess.run(
        [validator, "-k", version, "--strict", file], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(re.findall(r"\bpassed\b", checked.stdout + checked.stderr)) == len(resources)


def test_the_app_is_started_after_its_endpoint_and_ended_before_it(example: Example):
    sidecar = sidecar_of(workload_of(example[1]))
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/startupz", "port": "outlit-ops"}
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "readinessProbe" not in sidecar, "it would count as the pod's"
    assert sidecar["lifecycle"]["preStop"] == {"exec": {"command": ["outlit-proxy", "drain"]}}
    assert {"name": "outlit-ops", "containerPort": 9490} in sidecar["ports"]


def test_its_settings_are_taken_and_the_grace_is_the_apps_and_its_own(example: Example):
    name, resources = example
    workload = workload_of(resources)
    settings = load(environ=environment_of(resources))
    assert settings.delivery.on_exit == EXAMPLES[name]
    assert settings.front.listen.host == "127.0.0.1", "nobody outside the pod"
    assert settings.ops.token is not None, "the hook needs it"
    whole = pod_of(workload)["terminationGracePeriodSeconds"]
    assert whole == APPS_TIME_S + settings.delivery.grace_s + SPARE_S
    assert settings.delivery.rate_share * workload["spec"]["replicas"] <= 1, "they share Outlit's limit"
    (app,) = pod_of(workload)["containers"]
    host = {entry["name"]: entry["value"] for entry in app["env"]}["OUTLIT_API_HOST"]
    assert host == f"http://{settings.front.listen}"


def test_what_it_keeps_fits_where_it_keeps_it(example: Example):
    name, resources = example
    workload = workload_of(resources)
    settings = load(environ=environment_of(resources))
    if name == "example":
        (volume,) = (v for v in pod_of(workload)["volumes"] if v["name"] == "outlit-data")
        size = volume["emptyDir"]["sizeLimit"]
    else:
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "outlit-data"
        size = claim["spec"]["resources"]["requests"]["storage"]
    bytes_ = int(size.removesuffix("Gi")) * 2**30
    assert settings.buffer.max_bytes + settings.dead.max_bytes < 0.8 * bytes_
    assert sidecar_of(workload)["volumeMounts"] == [{"name": "outlit-data", "mountPath": "/data"}]


def test_its_memory_holds_the_bodies_that_it_takes_and_400_mb_for_the_rest(example: Example):
    limit = sidecar_of(workload_of(example[1]))["resources"]["limits"]["memory"]
    bytes_ = int(limit.removesuffix("Mi")) * 2**20
    assert bytes_ >= load(environ=environment_of(example[1])).front.max_pending_bytes + 400_000_000


def test_no_container_can_more_than_it_has_to(example: Example):
    pod = pod_of(workload_of(example[1]))
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod["initContainers"]]:
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize(
    ("kind", "component"),
    [("Deployment", "drain"), ("DaemonSet", "drain"), ("Job", "drain"), ("StatefulSet", "volume")],
)
def test_a_component_changes_what_is_labelled_alone_and_stands_before_what_is_there(
    tmp_path: Path, kind: str, component: str
):
    """In an app that has init containers, environment and volumes of its own."""
    shutil.copytree(FOLDER, tmp_path / "sidecar")
    own = tmp_path / "sidecar" / "own"
    own.mkdir()
    template = {
        "metadata": {"labels": {"app": "own"}},
        "spec": {
            "initContainers": [{"name": "migrate", "image": "own"}],
            "containers": [{"name": "own", "image": "own", "env": [{"name": "A", "value": "b"}]}],
            "volumes": [{"name": "own", "emptyDir": {}}],
        },
    }
    for name, labels in [("with", {"outlit-proxy": "sidecar"}), ("without", {"app": "own"})]:
        resource = {
            "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": labels},
            "spec": {"selector": {"matchLabels": {"app": "own"}}, "template": template},
        }
        (own / f"{name}.yaml").write_text(yaml.safe_dump(resource))
    (own / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["with.yaml", "without.yaml"], "components": [f"../{component}"]})
    )
    by_name = {resource["metadata"]["name"]: resource for resource in rendered(own)}
    assert by_name["without"]["spec"]["template"] == template
    pod = pod_of(by_name["with"])
    assert [container["name"] for container in pod["initContainers"]] == ["outlit-proxy", "migrate"]
    assert pod["containers"] == template["spec"]["containers"]  # type: ignore[index]  # a literal of three kinds
    assert {"name": "own", "emptyDir": {}} in pod["volumes"]


def test_the_pod_monitor_finds_the_sidecars(example: Example):
    described = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text(encoding="utf-8"))
    monitor = models().PodMonitor.model_validate(described)
    assert monitor.model_dump(by_alias=True, exclude_unset=True, mode="json") == described, "unknown fields"
    labels = workload_of(example[1])["spec"]["template"]["metadata"]["labels"]
    assert described["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = [port["name"] for port in sidecar_of(workload_of(example[1]))["ports"]]
    assert [endpoint["port"] for endpoint in described["spec"]["podMetricsEndpoints"]] == ports


# -- README.md -------------------------------------------------------------------------------------------

README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_its_kustomization_puts_the_sidecar_of_ones_own_registry_beside_an_app(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "deploy" / "sidecar")
    shutil.copy(FOLDER / "example" / "deployment.yaml", tmp_path)
    written = README.partition("```yaml\n# kustomization.yaml\n")[2].partition("```")[0]
    (tmp_path / "kustomization.yaml").write_text(f"resources: [deployment.yaml]\n{written}")
    resources = rendered(tmp_path)
    assert sidecar_of(workload_of(resources))["image"] == "registry.example.com/outlit-proxy:0.1.0"
    assert environment_of(resources).items() >= environment_of(rendered(FOLDER / "example")).items()


def test_its_patch_gives_an_app_with_a_long_end_back_its_time(tmp_path: Path):
    """The component alone makes less of it."""
    shutil.copytree(FOLDER, tmp_path / "sidecar")
    workload = yaml.safe_load((FOLDER / "example" / "deployment.yaml").read_text(encoding="utf-8"))
    pod_of(workload)["terminationGracePeriodSeconds"] = 300
    written = README.partition("```yaml\n# kustomization.yaml, for an application that had 300 s\n")[2]
    base = "resources: [deployment.yaml]\ncomponents: [../sidecar/drain]\n"
    seconds = []
    for name, patches in [("without", ""), ("with", written.partition("```")[0])]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "deployment.yaml").write_text(yaml.safe_dump(workload))
        (folder / "kustomization.yaml").write_text(base + patches)
        seconds.append(pod_of(workload_of(rendered(folder)))["terminationGracePeriodSeconds"])
    assert seconds == [APPS_TIME_S + 25 + SPARE_S, 300 + 25 + SPARE_S]


def test_an_app_is_told_where_the_gateway_is_and_what_opens_it(example: Example):
    settings = load(environ=environment_of(example[1]))
    told = README.partition("```yaml\n# your container\n")[2].partition("```")[0]
    url, token = yaml.safe_load(told)["env"]
    assert url["value"] == f"http://127.0.0.1:{settings.ops.listen.port}"
    given = {entry["name"]: entry for entry in sidecar_of(workload_of(example[1]))["env"]}
    assert token["valueFrom"] == given["OUTLIT_PROXY_OPS_TOKEN"]["valueFrom"]
    assert settings.gateway.api_key is None, "most apps have no use for one"


@pytest.mark.parametrize("kind", ["drain", "volume"])
def test_a_component_more_gives_the_sidecar_an_api_key_in_a_file(kind: str, tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "deploy" / "sidecar")
    example = {"drain": "example/deployment.yaml", "volume": "example-volume/statefulset.yaml"}[kind]
    shutil.copy(FOLDER / example, tmp_path / "workload.yaml")
    written = README.partition("```yaml\n# kustomization.yaml, with an API key\n")[2].partition("```")[0]
    written = written.replace("deploy/sidecar/drain", f"deploy/sidecar/{kind}")
    (tmp_path / "kustomization.yaml").write_text(f"resources: [workload.yaml]\n{written}")
    workload = workload_of(rendered(tmp_path))
    sidecar = sidecar_of(workload)
    [file] = [each["value"] for each in sidecar["env"] if each["name"] == "OUTLIT_PROXY_GATEWAY_API_KEY_FILE"]
    [mount] = [each for each in sidecar["volumeMounts"] if file.startswith(f"{each['mountPath']}/")]
    assert mount["readOnly"] is True
    [secret] = [each["secret"] for each in pod_of(workload)["volumes"] if each["name"] == mount["name"]]
    [item] = secret["items"]
    assert file == f"{mount['mountPath']}/{item['path']}"
    [made] = re.findall(
        r"^kubectl create secret generic (\S+-gateway) --from-file=(\S+)=", README, re.MULTILINE
    )
    assert made == (secret["secretName"], item["key"])
    (app,) = pod_of(workload)["containers"]
    assert mount["name"] not in {each["name"] for each in app.get("volumeMounts", ())}


def test_its_commands_name_what_there_is():
    workload = workload_of(rendered(FOLDER / "example"))
    containers = {c["name"] for c in [*pod_of(workload)["containers"], *pod_of(workload)["initContainers"]]}
    token = {entry["name"]: entry.get("valueFrom") for entry in sidecar_of(workload)["env"]}
    reference = token["OUTLIT_PROXY_OPS_TOKEN"]["secretKeyRef"]
    assert f"create secret generic {reference['name']} --from-literal={reference['key']}=" in README
    told = re.findall(r"^kubectl (?:exec|logs) (\S+) -c (\S+)", README, re.MULTILINE)
    assert len(told) == 3
    for name, container in told:
        assert name == f"deploy/{workload['metadata']['name']}"
        assert container in containers
    applied = re.findall(r"^kubectl (?:apply|kustomize) (?:-[kf] )?(\S+)$", README, re.MULTILINE)
    assert len(applied) == 3
    assert all((FOLDER.parents[1] / path).exists() for path in applied)


# -- a rollout -------------------------------------------------------------------------------------------

StartPod = Callable[..., Pod]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def start_pod(tmp_path: Path, sandbox: Sandbox) -> Iterator[StartPod]:
    """Start the pod of an example, by name, with a disk: `start_pod("example", tmp_path / "disk")`."""
    with ExitStack() as pods:

        def started(name: str, disk: Path) -> Pod:
            disk.mkdir(exist_ok=True)
            pod = Pod(
                rendered(FOLDER / name),
                tmp_path,
                disk,
                sandbox,
                OUTLIT_PROXY_FRONT_PUBLIC_KEYS=f'["{KEY}"]',
                OUTLIT_PROXY_FRONT_TRUSTED_PROXIES='["127.0.0.1"]',
                OUTLIT_PROXY_DELIVERY_GRACE=f"{GRACE_S:g}s",
                OUTLIT_PROXY_DELIVERY_RATE_SHARE="1",  # there is no other pod
            )
            pods.callback(pod.proxy.program.kill)
            pod.start()
            return pod

        yield started


def _acknowledged(app: list[Client]) -> int:
    """How many events the app was told are kept."""
    return sum(len(client.acknowledged) for client in app)


def _ended_as_kubernetes_does(pod: Pod, app: list[Client]) -> list[dict[str, Any]]:
    """The sidecar's log. Every post of the app's was answered: nobody was refused at the end."""
    with under_load(pod.proxy, app, again=False):
        pod.proxy.wait_until_accepted(pod.proxy.ledger()["accepted"] + 50)
        pod.pre_stop()
        pod.proxy.wait_until_accepted(pod.proxy.ledger()["accepted"] + 50)
    assert not any(client.unanswered or client.refusals for client in app)
    return pod.stop(GRACE_S + SPARE_S)


def test_with_a_volume_a_rollout_loses_nothing_though_upstream_is_away(
    start_pod: StartPod, sandbox: Sandbox, tmp_path: Path
):
    app = clients(browsers=3, servers=1, seed=70)
    old = start_pod("example-volume", tmp_path / "disk")
    with under_load(old.proxy, app, again=False):
        old.proxy.wait_until_delivered(20)
    sandbox.fault("status", status=503)
    log = _ended_as_kubernetes_does(old, app)
    assert log[-1]["event"] == "stopped"
    assert log[-1]["held"] > 0, "this shows nothing"
    sandbox.clear_faults()

    new = start_pod("example-volume", tmp_path / "disk")
    assert new.proxy.ledger()["accepted"] == _acknowledged(app), "it does not go on where the old one was"
    with under_load(new.proxy, app):
        new.proxy.wait_until_accepted(new.proxy.ledger()["accepted"] + 50)
    status, _ = http(f"{new.proxy.ops_url}/keys/{KEY}/retry", {}, {"Authorization": f"Bearer {OPS_TOKEN}"})
    assert status == 200  # nobody waits for the end of the pauses
    new.proxy.wait_until_empty(60)
    assert_promises_kept(new.proxy, sandbox, app)


def test_without_a_volume_a_rollout_loses_nothing_while_upstream_answers(
    start_pod: StartPod, sandbox: Sandbox, tmp_path: Path
):
    app = clients(browsers=3, servers=1, seed=71)
    pod = start_pod("example", tmp_path / "disk")
    log = _ended_as_kubernetes_does(pod, app)
    pod.remove()
    assert log[-1] == {**log[-1], "event": "stopped", "held": 0}
    assert not [line for line in log if line["event"] == "left in the buffer"]
    assert len({taken.event["uuid"] for taken in sandbox.taken()}) == _acknowledged(app)


def test_without_a_volume_and_upstream_away_it_says_how_many_events_it_takes_with_it(
    start_pod: StartPod, sandbox: Sandbox, tmp_path: Path
):
    app = clients(browsers=3, servers=1, seed=72)
    pod = start_pod("example", tmp_path / "disk")
    with under_load(pod.proxy, app, again=False):
        pod.proxy.wait_until_delivered(20)
    sandbox.fault("status", status=503)
    log = _ended_as_kubernetes_does(pod, app)
    pod.remove()
    lost = _acknowledged(app) - len({taken.event["uuid"] for taken in sandbox.taken()})
    assert lost > 0, "this shows nothing"
    assert (log[-1]["event"], log[-1]["held"]) == ("stopped", lost)
    (left,) = [line for line in log if line["event"] == "left in the buffer"]
    assert (left["level"], left["held"], left["in_flight"]) == ("warning", lost, 0)

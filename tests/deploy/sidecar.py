"""The sidecar as its manifest says that it is started and ended; the kubelet's part is played by the test."""

import json
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.programs import OPS_TOKEN, Program, Proxy, Sandbox, free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "sidecar"
NAME = "outlit-proxy"
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}


@cache
def rendered(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would apply; to be left as it is."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def workload_of(resources: list[dict[str, Any]]) -> dict[str, Any]:
    """The one workload among them."""
    (found,) = (resource for resource in resources if resource["kind"] in WORKLOADS)
    return found


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def sidecar_of(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = (container for container in pod_of(workload)["initContainers"] if container["name"] == NAME)
    return dict(found)


def environment_of(resources: list[dict[str, Any]]) -> dict[str, str]:
    """What the sidecar gets, from the ConfigMap and as it stands; of a Secret the token of these tests."""
    sidecar = sidecar_of(workload_of(resources))
    maps = {
        resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == "ConfigMap"
    }
    environment: dict[str, str] = {}
    for source in sidecar["envFrom"]:
        environment |= maps[source["configMapRef"]["name"]]["data"]
    for entry in sidecar["env"]:
        environment[entry["name"]] = entry.get("value", OPS_TOKEN)
    return environment


class Pod:
    """One pod's sidecar, on the pod's own disk (`data`), which may be another pod's of before."""

    def __init__(
        self, resources: list[dict[str, Any]], folder: Path, data: Path, sandbox: Sandbox, **settings: str
    ) -> None:
        self._sidecar = sidecar_of(workload_of(resources))
        front, ops = free_port(), free_port()
        self._environment = {
            **environment_of(resources),
            "OUTLIT_PROXY_FRONT_LISTEN": f"127.0.0.1:{front}",
            "OUTLIT_PROXY_OPS_LISTEN": f"127.0.0.1:{ops}",
            "OUTLIT_PROXY_BUFFER_URL": f"sqlite:///{data}/outlit-proxy.db",
            "OUTLIT_PROXY_UPSTREAM_URL": sandbox.url,
            **settings,
        }
        self._folder = folder
        self._data = data
        program = Program("sidecar", ["run"], folder, self._environment)
        database = data / "outlit-proxy.db"
        self.proxy = Proxy(program, f"http://127.0.0.1:{front}", f"http://127.0.0.1:{ops}", database)

    def start(self) -> None:
        """Return when its startup probe succeeds, and the app would be started."""
        self.proxy.program.start()
        path = self._sidecar["startupProbe"]["httpGet"]["path"]
        self.proxy.program.wait_until_answers(f"{self.proxy.ops_url}{path}")

    def pre_stop(self) -> None:
        """What the kubelet runs when it begins to end the pod."""
        name, *arguments = self._sidecar["lifecycle"]["preStop"]["exec"]["command"]
        assert name == "outlit-proxy"
        hook = Program("pre-stop", arguments, self._folder, self._environment)
        hook.start()
        assert hook.wait_until_ended() == 0, hook.log

    def stop(self, within_s: float) -> list[dict[str, Any]]:
        """SIGTERM, and SIGKILL where that does not end it; what it wrote to its log."""
        process = self.proxy.program.process
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(within_s) == 0, self.proxy.program.log
        finally:
            self.proxy.program.kill()
        return [json.loads(line) for line in self.proxy.program.log.splitlines()]

    def remove(self) -> None:
        """The pod is gone, and its emptyDir with it."""
        shutil.rmtree(self._data)

"""The program, started as the chart starts it: settings, secrets, probes, and the command of its test pod.

Only what a cluster brings is put in its place: addresses, and where files are mounted.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.helm_chart import Manifest, containers, environment, objects, proxy_of, settings_file
from tests.programs import OUTLIT_PROXY, Program, Sandbox, free_port, http, running_sandbox

FRONT, OPS = (
    "http://web-outlit-proxy-0.web-outlit-proxy-pods:8080",
    "http://web-outlit-proxy-0.web-outlit-proxy-pods:9090",
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as sandbox:
        yield sandbox


def variables(container: Manifest, moved: dict[str, str]) -> dict[str, str]:
    """The variables of a container, each beginning in `moved` with what stands here in its place."""
    given = environment(container)
    for name, value in given.items():
        for was, becomes in moved.items():
            if value.startswith(was):
                given[name] = becomes + value.removeprefix(was)
    return given


def test_it_starts_is_probed_delivers_what_its_test_sends_and_has_its_api_key(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    values = {
        "mode": "statefulset",
        "config": {"upstream": {"url": sandbox.url}, "delivery": {"linger": "0s", "on_exit": "drain"}},
        "opsToken": {"existingSecret": "ops"},
        "gatewayApiKey": {"existingSecret": "api"},
        "tests": {"publicKey": "pk_chart"},
    }
    manifests = objects(values)
    for path in (
        *("etc/outlit-proxy", "run/secrets/outlit-proxy", "run/secrets/outlit-proxy-gateway"),
        "data",
    ):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "etc/outlit-proxy/outlit-proxy.toml").write_text(settings_file(manifests))
    (tmp_path / "run/secrets/outlit-proxy/ops-token").write_text("a-token-of-the-secret\n")
    (tmp_path / "run/secrets/outlit-proxy-gateway/api-key").write_text("ok_of-the-other-secret\n")
    front, ops = free_port(), free_port()
    moved = {
        "0.0.0.0:8080": f"127.0.0.1:{front}",
        "0.0.0.0:9090": f"127.0.0.1:{ops}",
        "sqlite:////data": f"sqlite:///{tmp_path}/data",
        "/etc": f"{tmp_path}/etc",
        "/run": f"{tmp_path}/run",
    }
    container = proxy_of(manifests)
    program = Program("proxy", ["run"], tmp_path, variables(container, moved))
    try:
        program.start()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            program.wait_until_answers(f"http://127.0.0.1:{ops}{container[probe]['httpGet']['path']}")
        assert http(f"http://127.0.0.1:{ops}/metrics")[0] == 200

        (test,) = [each for each in containers(manifests) if each["name"] == "test"]
        urls = {FRONT: f"http://127.0.0.1:{front}", OPS: f"http://127.0.0.1:{ops}"}
        assert urls.keys() <= set(test["args"])
        sent = subprocess.run(
            [OUTLIT_PROXY, *(urls.get(argument, argument) for argument in test["args"])],
            env=variables(test, moved),
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert sent.returncode == 0, sent.stderr
        assert "delivered" in sent.stdout
        assert [taken.key for taken in sandbox.taken()] == ["pk_chart"]
        assert (tmp_path / "data/outlit-proxy.db").exists()

        # `kubectl exec … -- outlit-proxy platform validate`: Outlit is asked with the key of the Secret.
        asked = Program("validate", ["platform", "validate"], tmp_path, variables(container, moved))
        asked.start()
        assert asked.wait_until_ended() == 0, asked.log
        assert program.stop() == 0, program.log
    finally:
        program.kill()

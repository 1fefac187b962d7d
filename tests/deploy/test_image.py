"""The image: what its Dockerfile says; and (long) really built, looked into, and run as it should be."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.containers import CREATED, REVISION, USER, VERSION, Image
from tests.programs import OPS_TOKEN, STOP_S, Sandbox, free_port, http, running_sandbox, wait_for

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FINAL = DOCKERFILE.rpartition("\nFROM ")[2]
SITE_PACKAGES = Path("opt/outlit-proxy/lib/python3.11/site-packages")


# -- the Dockerfile --------------------------------------------------------------------------------------


def test_the_linter_finds_nothing():
    linted = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_what_runs_is_the_program_itself_as_a_numbered_user():
    """A shell in between would swallow SIGTERM; only of a number can Kubernetes tell that it is not root."""
    for instruction, words in [("ENTRYPOINT", ["outlit-proxy"]), ("CMD", ["run"])]:
        (given,) = re.findall(rf"^{instruction} (.*)$", FINAL, re.MULTILINE)
        assert json.loads(given) == words
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", FINAL, re.MULTILINE)
    assert json.loads(check) == ["outlit-proxy", "healthcheck"]
    assert re.findall(r"^USER (.*)$", FINAL, re.MULTILINE) == [f"{USER}:{USER}"]


def test_what_is_installed_is_what_was_locked():
    installs = re.findall(r"pip.* install (.*)$", DOCKERFILE, re.MULTILINE)
    assert installs
    assert all("--require-hashes" in options or "--no-deps dist/" in options for options in installs)


def test_nothing_but_what_the_image_is_made_of_goes_to_the_builder():
    nothing, *exceptions = (
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    assert nothing == "*"
    allowed = {line[1:] for line in exceptions if line.startswith("!")}
    copied = {
        word.partition("/")[0]
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in words.split()
    }
    assert allowed == copied
    assert all((ROOT / name).exists() for name in allowed)


# -- the image -------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A volume as an engine makes it: its owner is the one of the image's own /data."""
    folder = tmp_path / "data"
    folder.mkdir()
    # As root, so it may; pytest's folders above are root's alone.
    subprocess.run(["chown", f"{USER}:{USER}", folder], check=True)
    for above in [tmp_path, *tmp_path.parents][:3]:
        above.chmod(above.stat().st_mode | 0o011)
    return folder


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_runs_and_delivers_as_a_user_without_rights_on_a_read_only_root(
    image: Image, data: Path, sandbox: Sandbox, tmp_path: Path
):
    ops = f"http://127.0.0.1:{(ops_port := free_port())}"
    settings = {
        "OUTLIT_PROXY_FRONT_LISTEN": f"127.0.0.1:{free_port()}",
        "OUTLIT_PROXY_OPS_LISTEN": f"127.0.0.1:{ops_port}",
        "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN,
        "OUTLIT_PROXY_UPSTREAM_URL": sandbox.url,
    }
    healthcheck = image.config["Healthcheck"]["Test"][1:]
    log_file = tmp_path / "proxy.log"
    before = image.run(data, *healthcheck, settings=settings)
    assert before.returncode == 1, before

    began = time.monotonic()
    with image.running(data, log_file, settings) as process:
        wait_for("it to be ready", lambda: process.poll() is not None or _is_ready(ops))
        took_s = time.monotonic() - began
        assert process.poll() is None, log_file.read_text()
        print(f"ready after {took_s:.2f} s")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.findall(r"^[UG]id:\t(.*)$", status, re.MULTILINE) == ["\t".join([str(USER)] * 4)] * 2
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\t(\w+)$", status, re.MULTILINE) == ["0" * 16] * 3

        healthy = image.run(data, *healthcheck, settings=settings)
        assert healthy.returncode == 0, healthy
        sent = image.run(data, "outlit-proxy", "send", "--key", "pk_image", settings=settings)
        assert sent.returncode == 0, sent
        assert [taken.key for taken in sandbox.taken()] == ["pk_image"]
        assert {file.stat().st_uid for file in data.iterdir()} == {USER}

        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0, log_file.read_text()
    assert '"stopped"' in log_file.read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_its_user_can_write_its_data_and_what_every_system_lets_everybody(image: Image, data: Path):
    found = image.run(data, "find", "/", "-xdev", "-writable", "!", "-type", "l", read_only=False)
    assert set(found.stdout.split()) <= {"/data", "/tmp", "/var/tmp", "/run/lock"}, found
    refused = image.run(data, "touch", "/tmp/file", "/opt/outlit-proxy/file", "/file")
    assert refused.stderr.count("Read-only file system") == 3, refused
    assert image.run(data, "touch", "/data/file").returncode == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_holds_the_whole_package_compiled_and_nothing_to_build_with(image: Image, data: Path):
    for program in ("pip", "pip3", "gcc", "cc", "make"):
        found = image.run(data, "sh", "-c", f"command -v {program}")
        assert (found.returncode, found.stdout) == (127, ""), found
    for python in ("/opt/outlit-proxy/bin/python", "/usr/bin/python3"):
        assert "No module named pip" in image.run(data, python, "-m", "pip").stderr
    assert not list((image.root / "usr" / "local" / "lib").rglob("pip"))

    installed = image.root / SITE_PACKAGES / "proxy"
    of_source = {file.relative_to(ROOT / "proxy") for file in (ROOT / "proxy").rglob("*") if file.is_file()}
    of_image = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert {f for f in of_source if f.suffix != ".pyc"} == {f for f in of_image if f.suffix != ".pyc"}
    what_is_missing = "import sys, pathlib; print([m.__name__ for m in list(sys.modules.values())"
    what_is_missing += " if (c := getattr(m, '__cached__', None)) and not pathlib.Path(c).exists()])"
    uncompiled = image.run(
        data, "/opt/outlit-proxy/bin/python", "-c", f"import proxy.cli, proxy.service; {what_is_missing}"
    )
    assert uncompiled.stdout == "[]\n", uncompiled


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_says_what_it_was_made_of(image: Image):
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in image.config["Labels"].items()
    }
    assert labels["version"] == VERSION
    assert labels["revision"] == REVISION
    assert labels["created"] == CREATED
    assert labels["base.name"] == "python:3.11-slim-bookworm"
    assert all(labels[name] for name in ("title", "description", "licenses"))
    assert set(image.config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    assert image.config["Volumes"] == {"/data": {}}
    assert image.config["StopSignal"] == "SIGTERM"


def _is_ready(ops: str) -> bool:
    try:
        return http(f"{ops}/readyz")[0] == 200
    except OSError:
        return False

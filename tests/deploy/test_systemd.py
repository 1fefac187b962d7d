"""The unit for systemd: accepted, hardened, in step with the settings; and (long) run by systemd itself."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import ProcessCollector

from proxy.settings import load
from tests.deploy.containers import Image, what_pip_reads
from tests.deploy.machine import Machine, made_of
from tests.programs import OPS_TOKEN, free_port, http, running_sandbox, wait_for

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "outlit-proxy.service"
INSTALLED = "/opt/outlit-proxy/bin/outlit-proxy"
EXPOSURE = 1.1
"""Of 10, as `systemd-analyze security` reckons: what is left is that it needs the network, and sockets."""
CONFIGURATION_IS_WRONG = "78"
SETTINGS_FILE = "/etc/outlit-proxy/outlit-proxy.toml"
DYNAMIC_USERS = range(61184, 65520)


def _lines() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


SAID = _lines()


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    file = tmp_path / UNIT.name
    program = str(Path(sys.executable).with_name("outlit-proxy"))
    file.write_text(UNIT.read_text(encoding="utf-8").replace(INSTALLED, program))
    return file


def test_systemd_finds_nothing_wrong(unit: Path):
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_it_is_exposed_to_as_little_as_it_can_be(unit: Path):
    most = f"--threshold={10 * EXPOSURE:.0f}"
    reckoned = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", most, unit],
        check=False,
        capture_output=True,
        text=True,
    )
    assert reckoned.returncode == 0, reckoned.stdout + reckoned.stderr


def test_it_leaves_the_proxy_what_its_own_metrics_are_read_from(tmp_path: Path):
    """Where only processes are in /proc, nothing of the process is shown: not its memory, not its start."""
    assert "ProcSubset" not in SAID
    assert SAID["ProtectProc"] == ["invisible"], "which hides the processes of others, and not its own"
    (tmp_path / "self").symlink_to("/proc/self")
    assert not list(ProcessCollector(proc=str(tmp_path), registry=None).collect())
    (tmp_path / "stat").symlink_to("/proc/stat")
    assert list(ProcessCollector(proc=str(tmp_path), registry=None).collect())


def test_it_leaves_the_proxy_what_its_settings_need(tmp_path: Path):
    environment = dict(line.split("=", 1) for line in SAID["Environment"])
    credential, source = SAID["LoadCredential"][0].split(":")
    # Where systemd puts it, and systemd older than 250 has no other word for that place.
    assert environment["OUTLIT_PROXY_OPS_TOKEN_FILE"] == f"/run/credentials/%n/{credential}"
    configuration = SAID["ConfigurationDirectory"][0]
    assert (
        Path(source).parent == Path(environment["OUTLIT_PROXY_CONFIG"]).parent == Path("/etc", configuration)
    )

    token = tmp_path / credential
    token.write_text(OPS_TOKEN)
    environment["OUTLIT_PROXY_OPS_TOKEN_FILE"] = str(token)
    environment["OUTLIT_PROXY_CONFIG"] = str(ROOT / "config" / "outlit-proxy.toml")
    settings = load(environ=environment)
    assert f"{settings.buffer.url}" == f"sqlite:////var/lib/{SAID['StateDirectory'][0]}/outlit-proxy.db"
    assert int(SAID["TimeoutStopSec"][0].removesuffix("s")) >= settings.delivery.grace_s + 10
    assert int(SAID["LimitNOFILE"][0]) > settings.front.max_connections + settings.delivery.in_flight


def test_the_operators_commands_are_told_of_the_files_of_the_unit():
    readme = (UNIT.parent / "README.md").read_text(encoding="utf-8").partition("## Operate")[2]
    exported = dict(re.findall(r"^export (\w+)=(\S+)$", readme, re.MULTILINE))
    environment = dict(line.split("=", 1) for line in SAID["Environment"])
    assert exported == {
        "OUTLIT_PROXY_CONFIG": environment["OUTLIT_PROXY_CONFIG"],
        "OUTLIT_PROXY_OPS_TOKEN_FILE": SAID["LoadCredential"][0].partition(":")[2],
    }


def test_the_api_key_is_a_credential_of_a_file_beside_that_of_the_token(tmp_path: Path):
    readme = (UNIT.parent / "README.md").read_text(encoding="utf-8").partition("**The Platform API.**")[2]
    credential, _, source = re.findall(r"^LoadCredential=(.*)$", readme, re.MULTILINE)[0].partition(":")
    variable, _, file = re.findall(r"^Environment=(.*)$", readme, re.MULTILINE)[0].partition("=")
    assert file == f"/run/credentials/{UNIT.name}/{credential}"
    assert f"cat > {source})" in readme
    assert Path(source).parent == Path(SAID["LoadCredential"][0].partition(":")[2]).parent

    dropped = SAID["ExecReload"][0].split()
    assert variable in dropped, "a reload would fail: what it runs cannot read the credential"
    key = tmp_path / credential
    key.write_text("ok_an-api-key-of-a-test\n")
    assert load(environ={variable: str(key)}).gateway.api_key is not None


def test_what_starts_it_asks_first_and_what_fails_for_good_is_not_tried_again():
    # "-": systemd looks at the exit code of the main process alone when it decides whether to try again.
    assert SAID["ExecStartPre"] == [f"-{INSTALLED} check --offline"]
    assert SAID["ExecStart"] == [f"{INSTALLED} run"]
    without = "/usr/bin/env -u OUTLIT_PROXY_OPS_TOKEN_FILE -u OUTLIT_PROXY_GATEWAY_API_KEY_FILE"
    assert SAID["ExecReload"] == [f"{without} {INSTALLED} check --offline", "/bin/kill -HUP $MAINPID"]
    assert (SAID["Restart"], SAID["RestartPreventExitStatus"]) == (["on-failure"], [CONFIGURATION_IS_WRONG])
    wrong = subprocess.run(
        [Path(sys.executable).with_name("outlit-proxy"), "run", "--front-listen", "nowhere"],
        check=False,
        capture_output=True,
    )
    assert wrong.returncode == int(CONFIGURATION_IS_WRONG)


# -- under systemd itself --------------------------------------------------------------------------------


@pytest.fixture
def machine(image: Image, tmp_path: Path) -> Iterator[Machine]:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        made_of(image.root, root)
        shutil.rmtree(root / "opt" / "outlit-proxy")
        with Machine(root, tmp_path, {ROOT, *what_pip_reads()}).running() as machine:
            yield machine


@pytest.mark.long
@pytest.mark.timeout(900)
def test_installed_by_the_readme_systemd_starts_reloads_restarts_and_stops_it(
    machine: Machine, tmp_path: Path
):
    front, ops = free_port(), free_port()
    with running_sandbox(tmp_path) as sandbox:
        settings = [
            f"OUTLIT_PROXY_FRONT_LISTEN=127.0.0.1:{front}",
            f"OUTLIT_PROXY_OPS_LISTEN=127.0.0.1:{ops}",
            f"OUTLIT_PROXY_UPSTREAM_URL={sandbox.url}",
        ]
        added = "\n".join(["[Service]", "WatchdogSec=3s", *(f"Environment={line}" for line in settings)])
        machine.file(f"/etc/systemd/system/{UNIT.name}.d/tests.conf", added)
        code, said = machine.run("sh", "-ec", f"cd {ROOT}; {_installation()}")
        assert code == 0, said + _journal(machine)

        # It has started when it is ready, as a user of its own.
        assert http(f"http://127.0.0.1:{ops}/readyz")[0] == 200
        assert f"127.0.0.1:{front}" in machine.shown(UNIT.stem, "StatusText")["StatusText"]
        assert b"\nprocess_resident_memory_bytes " in http(f"http://127.0.0.1:{ops}/metrics")[1]
        code, user = machine.run("stat", "--format=%u", "/var/lib/outlit-proxy/outlit-proxy.db")
        assert (code, int(user) in DYNAMIC_USERS) == (0, True)
        token = "OUTLIT_PROXY_OPS_TOKEN_FILE=/etc/outlit-proxy/ops-token"
        told = ["env", f"OUTLIT_PROXY_CONFIG={SETTINGS_FILE}", token, *settings]
        code, said = machine.run(*told, INSTALLED, "send", "--key", "pk_systemd")
        assert code == 0, said

        # What is wrong is not taken over, and said; what is right is.
        machine.file(SETTINGS_FILE, "[log]\nlevel = 7\n")
        code, _ = machine.run("systemctl", "reload", UNIT.stem)
        assert code != 0
        assert "log.level" in _journal(machine)
        machine.file(SETTINGS_FILE, '[log]\nlevel = "debug"\n')
        assert machine.run("systemctl", "reload", UNIT.stem) == (0, ""), _journal(machine)
        wait_for("the settings to be reloaded", lambda: "settings reloaded" in _journal(machine))

        # One that stands still, and one that died, come back, and deliver.
        for signal_ in ("STOP", "KILL"):
            before = machine.shown(UNIT.stem, "MainPID")["MainPID"]
            machine.run("kill", f"-{signal_}", before)
            wait_for(f"another process after SIG{signal_}", partial(_runs_but_not_as, machine, before), 60)
        code, said = machine.run(*told, INSTALLED, "send", "--key", "pk_systemd", "--json")
        assert code == 0, said
        assert len(sandbox.taken()) == 2

        assert machine.run("systemctl", "stop", UNIT.stem) == (0, "")
        assert machine.shown(UNIT.stem, "Result", "ExecMainStatus") == {
            "Result": "success",
            "ExecMainStatus": "0",
        }

        # Wrong settings end it for good.
        machine.file(SETTINGS_FILE, "[log]\nlevel = 7\n")
        assert machine.run("systemctl", "start", UNIT.stem)[0] != 0
        wait_for("it to fail", lambda: machine.run("systemctl", "is-failed", UNIT.stem)[0] == 0)
        ended = machine.shown(UNIT.stem, "ExecMainStatus", "NRestarts")
        assert ended == {"ExecMainStatus": CONFIGURATION_IS_WRONG, "NRestarts": "0"}


def _installation() -> str:
    """What README.md has one type."""
    text = (UNIT.parent / "README.md").read_text(encoding="utf-8").partition("## Install")[2]
    commands = text.partition("```sh\n")[2].partition("```")[0]
    assert "systemctl enable --now" in commands
    return commands


def _runs_but_not_as(machine: Machine, pid: str) -> bool:
    shown = machine.shown(UNIT.stem, "ActiveState", "MainPID")
    return shown["ActiveState"] == "active" and shown["MainPID"] not in {pid, "0"}


def _journal(machine: Machine) -> str:
    return machine.run("journalctl", "--no-pager", f"--unit={UNIT.stem}")[1]

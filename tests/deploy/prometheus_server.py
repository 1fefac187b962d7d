"""A real Prometheus, set up from the files that operators take, only quicker and with other targets."""

import json
import re
import subprocess
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import ALERTS
from tests.programs import free_port, http, wait_for

CONFIGURATION = ALERTS.with_name("prometheus.yml")

# What takes minutes and hours in operation, so that a test sees it begin and end.
_QUICKER = {r"for: \d+m": "for: 1s", r"\[5m\]": "[6s]", r"\[1h\]": "[15s]", r"> 900\b": "> 3"}


@dataclass(slots=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API; an error there fails the test, and says what."""
        status, body = http(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        assert status == 200, (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now: series with their labels (`metric`) and `value`."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def number(self, expression: str) -> float:
        """What an expression of one series is now; NaN where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else float("nan")

    def wait_until(self, condition: str, timeout_s: float = 20.0) -> None:
        """Until an expression has a result."""
        wait_for(condition, lambda: bool(self.query(condition)), timeout_s)

    def firing(self) -> list[dict[str, str]]:
        """The labels of each alert that fires."""
        alerts: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def wait_until_fires(self, name: str, **labels: str) -> None:
        wanted = {"alertname": name, **labels}
        wait_for(
            f"{name} fires", lambda: any(wanted.items() <= found.items() for found in self.firing()), 25.0
        )

    def wait_until_over(self, name: str, timeout_s: float = 25.0) -> None:
        wait_for(
            f"{name} is over", lambda: all(found["alertname"] != name for found in self.firing()), timeout_s
        )


def quicker(rules: str) -> str:
    """The alert rules with shorter times."""
    for slow, quick in _QUICKER.items():
        rules, changes = re.subn(slow, quick, rules)
        assert changes, f"nothing is like {slow} any more"
    return rules


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """One that scrapes each second what these operations listeners show, in the example's job."""
    settings = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    [group] = settings["scrape_configs"][0]["static_configs"]
    group["targets"] = [target.removeprefix("http://") for target in targets]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    [rules] = settings["rule_files"]
    (folder / rules).write_text(quicker(ALERTS.read_text(encoding="utf-8")))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                return http(f"{url}/-/ready")[0] == 200
            except OSError:
                return False

        wait_for("Prometheus is ready", is_ready)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(10)

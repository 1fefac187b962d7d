"""A real Prometheus scrapes a proxy under load and in trouble: every query has data, alerts come and go."""

import json
import math
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus_server import Prometheus, running_prometheus
from tests.deploy.promql import ALERTS, DASHBOARD, KNOWN, parsed, selectors
from tests.programs import HTTP, OPS_TOKEN, Proxy, Sandbox, http, running_proxy, running_sandbox, wait_for
from tests.sandbox.bodies import client, event, server

KEY, FAILING, PAUSED = "pk_test", "pk_failing", "pk_paused"
PANELS = [
    panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if "targets" in panel
]
RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
FORBIDDEN = {"Origin": "https://forbidden.example"}


@dataclass(slots=True)
class Scene:
    prometheus: Prometheus
    proxy: Proxy
    sandbox: Sandbox
    events: int = 0

    def post(
        self, body: Any, headers: Mapping[str, str] | None = None, *, key: str = KEY, status: int = 200
    ) -> None:
        answer = http(f"{self.proxy.url}/api/i/v1/{key}/events", body, headers)
        assert answer[0] == status, answer

    def visit(
        self, kind: str = "pageview", headers: Mapping[str, str] | None = None, *, key: str = KEY
    ) -> None:
        """One event of a visitor that nobody else is."""
        self.events += 1
        visitor = f"0190a1b2-c3d4-7e5f-8a6b-{self.events:012d}"
        self.post(client(event(kind, self.events), visitorId=visitor), headers, key=key)

    def operate(self, path: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
        answered, body = http(
            f"{self.proxy.ops_url}{path}", body or {}, {"Authorization": f"Bearer {OPS_TOKEN}"}, method="POST"
        )
        assert answered == status, body
        answer: dict[str, Any] = json.loads(body)
        return answer


def _lead_a_life(scene: Scene) -> None:
    """Have every kind of thing happen that a metric tells of and that needs no Redis."""
    sandbox, prometheus = scene.sandbox, scene.prometheus
    sandbox.fault("refuse", event="stage", names="paths")
    sandbox.fault("status", status=403, origin=FORBIDDEN["Origin"])
    sandbox.fault("reset", requests=1, event="billing")
    sandbox.fault("status", status=429, requests=1, event="calendar", headers={"Retry-After": "0"})
    scene.visit("stage")
    scene.visit("billing")
    scene.visit("calendar")
    scene.visit(headers=FORBIDDEN)
    scene.visit(key=PAUSED)
    for round_ in range(1, 4):
        for _ in range(6):
            scene.visit()
        scene.post(server(*(event("custom", 1000 * round_ + n, userId="u1") for n in range(100))))
        scene.post(client(event("pageview", 1), {"type": "pageview"}), status=207)
        scene.post({"events": []}, status=400)
        scene.post(client(event("made_up", 50 + round_, extra=1), userIdentity={"email": "no address"}))
        scene.visit(headers={"X-Forwarded-For": "192.0.2.1"})
        scene.operate("/platform/api/tools/call", {"tool": "outlit_list_customers", "input": {}})
        scene.operate("/platform/api/tools/call", {"no": "tool"}, status=400)
        # A rate needs two scrapes between which something happened.
        prometheus.wait_until(f"outlit_proxy_events_accepted_total >= {100 * round_ + scene.events}")
    prometheus.wait_until('outlit_proxy_ledger_events{outcome="dead"} == 1')
    scene.operate(f"/keys/{PAUSED}/pause")
    assert scene.operate("/dead/replay?all=true")["replayed"] == 1

    def is_dead_again() -> bool:
        scene.visit()  # whose event is taken: so that the refusal is seen to be the other's own fault
        return bool(prometheus.query('outlit_proxy_events_dead_total{reason="refused"} == 2'))

    wait_for("the event that was replayed is refused again", is_dead_again)
    for wanted in (
        "outlit_proxy_dead_replayed_total == 1",
        'outlit_proxy_ledger_events{outcome="held"} == 1',  # the forbidden one
        "outlit_proxy_deliveries_ambiguous_total == 1",
        f'outlit_proxy_forbidden_origins{{key="{KEY}"}} == 1',
        f'outlit_proxy_gate_paused{{key="{PAUSED}", reason="operator"}} == 1',
        "rate(outlit_proxy_log_lines_total[30s]) > 0",
    ):
        prometheus.wait_until(wanted)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        running_sandbox(folder) as sandbox,
        running_proxy(
            folder,
            sandbox,
            OUTLIT_PROXY_DELIVERY_LINGER="100ms",
            OUTLIT_PROXY_GATEWAY_API_KEY="ok_of-the-tests-of-prometheus-0123456789",
        ) as proxy,
        running_prometheus(folder, [proxy.ops_url]) as prometheus,
    ):
        prometheus.wait_until("up == 1")  # counters are seen at 0 first
        scene = Scene(prometheus, proxy, sandbox)
        _lead_a_life(scene)
        yield scene


def test_the_proxy_is_scraped_and_every_metric_arrives(scene: Scene):
    assert scene.prometheus.number('up{job="outlit-proxy"}') == 1
    arrived = set(scene.prometheus.ask("label/__name__/values"))
    assert {name for name in KNOWN if name not in arrived} == set()
    [target] = scene.prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_promtool_finds_nothing_wrong_with_what_a_proxy_shows_after_trouble(scene: Scene):
    status, text = http(f"{scene.proxy.ops_url}/metrics")
    assert status == 200
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_prometheus_is_answered_in_openmetrics_and_compressed(scene: Scene):
    asked = urllib.request.Request(
        f"{scene.proxy.ops_url}/metrics",
        headers={
            "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "Accept-Encoding": "gzip",
        },
    )
    with HTTP.open(asked, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_every_query_of_the_dashboard_has_data(scene: Scene, panel: dict[str, Any]):
    chosen = {"$__rate_interval": "30s", "$__range": "3m", "$job": ".+", "$instance": ".+", "$key": ".+"}
    for target in panel["targets"]:
        query = target["expr"]
        for variable, value in chosen.items():
            query = query.replace(variable, value)
        found = scene.prometheus.query(query)
        assert found, query
        assert not all(math.isnan(float(series["value"][1])) for series in found), query
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert all(named <= set(series["metric"]) for series in found), "the legend would have holes"


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_rule_is_about_series_that_are_there(scene: Scene, rule: dict[str, Any]):
    for selector, _ in selectors(parsed(rule["expr"])):
        there = re.sub(r',?engine="redis"', "", str(selector))  # this one has a file
        assert scene.prometheus.query(there), there
    scene.prometheus.query(rule["expr"])  # raises where Prometheus cannot evaluate it


def test_the_books_on_the_dashboard_are_those_of_the_proxy(scene: Scene):
    shown = {
        series["metric"]["outcome"]: float(series["value"][1])
        for series in scene.prometheus.query("max by (outcome) (outlit_proxy_ledger_events)")
    }
    books = scene.proxy.ledger()
    assert books.pop("difference") == 0
    assert shown == books


# Each of these leaves the scene as it found it.


def test_an_upstream_that_fails_pauses_the_key_fires_two_alerts_and_both_end(scene: Scene):
    scene.visit(key=FAILING)
    scene.prometheus.wait_until(f'outlit_proxy_gate_requests_total{{key="{FAILING}"}} == 1')  # it has a label
    scene.sandbox.clear_faults()
    scene.sandbox.fault("status", status=503, public_key=FAILING)
    for _ in range(25):
        scene.visit(key=FAILING)
    scene.prometheus.wait_until_fires("OutlitProxyKeyPaused", key=FAILING, reason="upstream_failing")
    scene.prometheus.wait_until_fires("OutlitProxyEventsWait", severity="ticket")
    assert "OutlitProxyRefusesPosts" not in {alert["alertname"] for alert in scene.prometheus.firing()}
    scene.sandbox.clear_faults()
    scene.operate(f"/keys/{KEY}/retry")  # whose Origin is no longer forbidden
    scene.operate(f"/keys/{FAILING}/retry")
    scene.prometheus.wait_until_over("OutlitProxyKeyPaused")
    scene.prometheus.wait_until_over("OutlitProxyEventsWait")


def test_a_proxy_that_does_not_answer_wakes_somebody_until_it_does(scene: Scene):
    [target] = scene.prometheus.ask("targets")["activeTargets"]
    scene.proxy.program.process.send_signal(signal.SIGSTOP)
    try:
        scene.prometheus.wait_until_fires(
            "OutlitProxyDown", severity="page", instance=target["labels"]["instance"]
        )
    finally:
        scene.proxy.program.process.send_signal(signal.SIGCONT)
    scene.prometheus.wait_until_over("OutlitProxyDown")


def test_events_given_up_have_fired_and_are_over_in_time(scene: Scene):
    given_up = 'max_over_time(ALERTS{alertname="OutlitProxyEventsGivenUp", alertstate="firing"}[10m])'
    assert [series["metric"]["reason"] for series in scene.prometheus.query(given_up)] == ["refused"]
    scene.prometheus.wait_until_over("OutlitProxyEventsGivenUp")


def test_nothing_else_fired_and_every_rule_could_be_evaluated(scene: Scene):
    ever = scene.prometheus.query('max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[10m]))')
    fired = {series["metric"]["alertname"] for series in ever}
    if "OutlitProxyBufferFillsUp" in fired:  # it may be true of this machine
        full = "outlit_proxy_buffer_disk_free_bytes / outlit_proxy_buffer_disk_bytes < 0.05"
        assert scene.prometheus.query(full)
        fired.remove("OutlitProxyBufferFillsUp")
    assert fired <= {
        "OutlitProxyKeyPaused",
        "OutlitProxyEventsWait",
        "OutlitProxyDown",
        "OutlitProxyEventsGivenUp",
    }
    for group in scene.prometheus.ask("rules")["groups"]:
        for rule in group["rules"]:
            assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]

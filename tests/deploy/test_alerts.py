"""The alert rules: what promtool says of them, and that they are few, clear and lead somewhere."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import ALERTS, OF_PROMETHEUS, ROOT, flaws, names, parsed, selectors
from tests.docs.documents import anchors, blocks

FOLDER = ALERTS.parent
GROUPS: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))[
    "tests"
]
NAMES = [rule["alert"] for rule in RULES]


@pytest.mark.parametrize(
    "command",
    [
        "promtool check config prometheus.yml",
        "promtool check rules alerts.yaml",
        "promtool test rules alerts_test.yaml",
    ],
)
def test_promtool_finds_nothing_wrong(command: str):
    """Each command as the how-to has it; the rules' unit tests are among them."""
    assert f"\n{command}\n" in (FOLDER / "README.md").read_text(encoding="utf-8")
    done = subprocess.run(command.split(), cwd=FOLDER, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "SUCCESS" in said
    assert "FAILED" not in said


def test_the_rule_that_the_how_to_suggests_for_the_gateway_fires_for_the_own_key_alone(tmp_path: Path):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    [query] = [block.text for block in blocks(text) if block.language == "promql"]
    assert not list(flaws(query))
    cases = {
        'outlit_proxy_gateway_requests_total{outcome="unreachable",job="a"}': ("0+1x10", True),
        'outlit_proxy_gateway_requests_total{outcome="answered",job="a"}': ("0+1x10", False),
        'outlit_proxy_gateway_plan_refusals{key="own",job="a"}': ("1x10", True),
        'outlit_proxy_gateway_plan_refusals{key="callers",job="a"}': ("1x10", False),
        'outlit_proxy_gateway_api_key_refused{job="a"}': ("1x10", True),
    }
    rule = {"alert": "Gateway", "expr": query}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values}],
            "alert_rule_test": [
                {
                    "eval_time": "8m",
                    "alertname": "Gateway",
                    "exp_alerts": [{"exp_labels": {"job": "a"}}] if fires else [],
                }
            ],
        }
        for series, (values, fires) in cases.items()
    ]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_are_few_and_a_rules_file_holds_nothing_else():
    assert len(RULES) <= 10
    assert len(set(NAMES)) == len(NAMES)
    assert {frozenset(group) for group in GROUPS} == {frozenset({"name", "rules"})}


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_each_says_whom_it_wakes_what_is_wrong_and_what_to_do(rule: dict[str, Any]):
    assert re.fullmatch(r"OutlitProxy([A-Z][a-z]+)+", rule["alert"])
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 100
    assert not notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    path, _, anchor = notes["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_each_asks_for_what_there_is_and_tells_fleets_apart(rule: dict[str, Any]):
    assert not list(flaws(rule["expr"]))
    for node in selectors(parsed(rule["expr"])):
        assert not {matcher.name for matcher in node[0].matchers.matchers} & {"job", "instance", "namespace"}
    for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]):
        assert grouped.startswith("namespace, job")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_seen_to_wait_to_fire_and_to_end(name: str):
    """In one case of the unit tests at least: not yet, then with all it says, then no longer."""
    courses = []
    for case in TESTS:
        looks = [look for look in case["alert_rule_test"] if look["alertname"] == name]
        looks.sort(key=lambda look: int(look["eval_time"].rstrip("m")))
        courses.append("".join("x" if look.get("exp_alerts") else "-" for look in looks))
    assert any(re.search(r"-x+-", course) for course in courses), courses


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_are_among_its_cases(name: str):
    """What they share must not count twice, and one of them is not all of them."""
    instances = {
        instance
        for case in TESTS
        if any(look["alertname"] == name for look in case["alert_rule_test"])
        for series in case["input_series"]
        for instance in re.findall(r'instance="(\w)"', series["series"])
    }
    assert {"a", "b"} <= instances


def test_the_readme_names_each_with_its_severity():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("### What to alert on")[2].partition("\n###")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


def test_every_metric_that_is_a_trouble_by_itself_has_an_alert():
    asked = names([rule["expr"] for rule in RULES]) - OF_PROMETHEUS
    assert asked >= {
        f"outlit_proxy_{name}"
        for name in (
            "ledger_difference",
            "buffer_up",
            "buffer_lost_total",
            "buffer_unsafe",
            "buffer_used_ratio",
            "config_last_reload_successful",
            "events_dead_total",
            "gate_paused",
            "lane_check_failed_total",
            "oldest_held_timestamp_seconds",
            "queues_stalled_total",
        )
    }


def test_what_the_chart_carries_is_what_prometheus_reads():
    """One source each: a copy would be forgotten."""
    for link, source in {
        FOLDER / "alerts.yaml": Path("../chart/files/alerts.yaml"),
        ROOT / "deploy/grafana/outlit-proxy.json": Path("../chart/files/dashboard.json"),
    }.items():
        assert link.is_symlink()
        assert link.readlink() == source

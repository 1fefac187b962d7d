"""The Grafana dashboard: what Grafana's own linter demands, and that it asks for what the proxy shows.

`test_prometheus` runs each of its queries against a Prometheus that has scraped a loaded proxy.
"""

import json
import re
from typing import Any

import promql_parser as promql
import pytest

from tests.deploy.promql import DASHBOARD, KNOWN, OF_PROMETHEUS, ROOT, flaws, names, parsed, selectors

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TITLES = [panel["title"] for panel in PANELS]
VARIABLES: dict[str, dict[str, Any]] = {
    variable["name"]: variable for variable in BOARD["templating"]["list"]
}
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_nobody_edits_it_and_its_times_are_the_viewers():
    assert BOARD["editable"] is False
    assert BOARD["timezone"] == "browser"
    assert BOARD["title"]
    assert BOARD["uid"]
    assert "outlit-proxy" in BOARD["tags"]
    assert BOARD["schemaVersion"] >= 38, "Grafana 10"
    assert "id" not in BOARD, "the database's own number of one Grafana"


def test_the_data_source_and_whom_to_show_are_chosen_above_it():
    assert list(VARIABLES) == ["datasource", "job", "instance", "key"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("job", "instance", "key"):
        variable = VARIABLES[name]
        assert variable["datasource"] == SOURCE
        assert variable["refresh"] == 2, "when the time range changes"
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        [query] = re.findall(r"label_values\((.*), \w+\)", variable["query"]["query"])
        assert not list(flaws(query))
    assert re.findall(r"\$(\w+)", VARIABLES["instance"]["definition"]) == ["job"]
    assert re.findall(r"\$(\w+)", VARIABLES["key"]["definition"]) == ["job", "instance"]


def test_its_annotations_ask_for_what_there_is():
    asked = [of["expr"] for of in BOARD["annotations"]["list"] if of["datasource"] == SOURCE]
    assert asked
    assert not [flaw for query in asked for flaw in flaws(query)]


def test_the_first_row_is_the_ledger_and_the_second_says_who_is_the_trouble():
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows[:2] == [
        "Ledger: accepted = held + delivered + dead + dropped",
        "Is it us, Redis or Outlit?",
    ]
    under: dict[str, list[str]] = {}
    for panel in BOARD["panels"]:
        if panel["type"] == "row":
            here = under.setdefault(panel["title"], [])
        else:
            here.append(panel["title"])
    assert all(under.values()), "a row has panels"
    whose = {title.partition(":")[0] for title in under[rows[1]]}
    assert whose == {"Us", "Buffer", "Outlit"}


@pytest.mark.parametrize("panel", PANELS, ids=TITLES)
def test_each_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == SOURCE
        assert target["legendFormat"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("panel", PANELS, ids=TITLES)
def test_each_panel_asks_for_what_there_is_of_whom_was_chosen(panel: dict[str, Any]):
    for target in panel["targets"]:
        query = target["expr"]
        assert not list(flaws(query)), query
        for selector, _ in selectors(parsed(query)):
            given = {matcher.name: (str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
            if selector.name == "outlit_proxy_build_info":  # whom `up` is about; `up` itself is chosen
                continue
            assert given["job"][1] == "$job", query
            assert given["instance"][1] == "$instance", query
            assert "=~" in str(selector), "several may be chosen"
        ranges = re.findall(r"\[([^\]]*)\]", query)
        assert set(ranges) <= {"$__rate_interval", "$__range", "1d"}, query
        assert not re.search(r"(rate|increase)\([^[]*\[(?!\$__rate_interval)", query), query


def test_what_is_shown_by_key_is_of_the_keys_that_were_chosen():
    by_key = [panel for panel in PANELS if any("{{key}}" in of["legendFormat"] for of in panel["targets"])]
    assert len(by_key) > 4
    for panel in by_key:
        for target in panel["targets"]:
            for selector, _ in selectors(parsed(target["expr"])):
                if selector.name and "key" in KNOWN[selector.name]:
                    assert 'key=~"$key"' in str(selector), target["expr"]


def test_every_metric_is_somewhere_on_it():
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name in KNOWN}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names(QUERIES)}
    assert shown - OF_PROMETHEUS == there - {
        "process_virtual_memory_bytes"
    }  # says nothing of a Python process


def test_panels_lie_side_by_side():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    identities = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(identities)) == len(identities)
    assert len(set(TITLES)) == len(TITLES)


def test_the_sections_that_its_descriptions_name_exist():
    headings = set(re.findall(r"^#+ (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    named: set[str] = set()
    for panel in PANELS:
        for sections in re.findall(r"README: ([^.)]*)", panel["description"]):
            named |= set(sections.split(", "))
    assert len(named) > 5
    assert named <= headings


def test_a_flaw_in_a_query_is_found():
    for query, flaw in {
        "sum(outlit_proxy_queues)": "no sum",
        "outlit_proxy_nothing": "no metric",
        'rate(outlit_proxy_events_dead_total{reason="bored"}[5m])': "never with",
        "outlit_proxy_events_dead_total": "rate",
        'outlit_proxy_queues{reason="bored"}': "no label",
    }.items():
        [found] = flaws(query)
        assert flaw in found
    with pytest.raises(ValueError, match="unclosed"):
        promql.parse("sum(")

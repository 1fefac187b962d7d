"""What the README names exists, and what operators must know is in it."""

import re
from pathlib import Path
from typing import cast

import click
import pytest

from proxy.buffer import Buffer
from proxy.cli import main
from proxy.ledger import Dead, Dropped, Pause, Underfull, Unsafe
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, make_app
from proxy.settings import SETTINGS
from proxy.settings.redis_url import parse_target
from proxy.wire.answers import Code

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
TABLES = {setting.table for setting in SETTINGS}
FAMILIES = list(Metrics().registry.collect())
METRICS = {family.name for family in FAMILIES} | {
    sample.name for family in FAMILIES for sample in family.samples
}
SCHEMES = r"(?:rediss?|unix|redis\+sentinel|redis\+cluster)://"


def section(heading: str) -> str:
    """What stands under a heading of the third order."""
    text = README.partition(f"\n### {heading}\n")[2]
    assert text, heading
    return re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]


def test_each_command_is_named_and_each_that_is_named_exists():
    there = {
        (name, verb)
        for name, command in main.commands.items()
        for verb in (command.commands if isinstance(command, click.Group) else [""])
    }
    named = {
        (name, verb)
        for name, verbs in re.findall(
            r"^\| `outlit-proxy ([a-z]+)(?: ([a-z]+(?:\\\|[a-z]+)*))?[ `]", README, re.MULTILINE
        )
        for verb in (verbs.split(r"\|") if verbs else [""])
    }
    assert named == there


def test_each_route_of_operations_is_named_and_each_that_is_named_exists():
    nothing = cast(Buffer, None)
    metrics = Metrics()
    app = make_app(nothing, Bookkeeper(nothing, metrics, retention_s=1.0), metrics, Health(), "a-token")
    there = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    named: set[tuple[str, str]] = set()
    for line in re.findall(r"^\| (`(?:GET|POST) /.*?) \|", README, re.MULTILINE):
        method, path = "", ""
        for found in re.findall(r"`(GET |POST )?([/…][^`\[ ]*)", line):
            method = found[0].strip() or method
            path = found[1].replace("…", path.rpartition("/")[0])
            named.add((method, path))
    probes = {("GET", path) for path in ("/metrics", "/livez", "/readyz", "/startupz")}
    assert all(f"`{path}" in README for _, path in probes)
    assert named | probes == there


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_each_metric_that_is_named_exists(text: str):
    named = set(re.findall(r"`(outlit_proxy_[a-z_]+[a-z])(?:\{[a-z,]+\})?`", text))
    assert named
    assert named <= METRICS | {"outlit_proxy_send"}


def test_what_is_of_the_buffer_is_named_where_replicas_are_explained():
    """Whoever sums such a metric over replicas counts everything several times."""
    said = section("Several replicas")
    of_the_buffer = [family.name for family in FAMILIES if family.documentation.endswith("of the buffer.")]
    assert len(of_the_buffer) > 5
    assert not [name for name in of_the_buffer if f"`{name}`" not in said]


@pytest.mark.parametrize("reason", Underfull)
def test_each_reason_of_an_underfull_request_is_explained(reason: Underfull):
    [row] = re.findall(r"^\| .*`outlit_proxy_batch_underfull_total\{reason\}`.*$", README, re.MULTILINE)
    assert f"`{reason}` (" in row


def test_each_alert_names_metrics_and_label_values_that_exist():
    table = README.partition("### What to alert on")[2].partition("\n###")[0].replace(r"\|", "|")
    alerts = re.findall(r"^\| `(.+)` (?:for .*)?\|", table, re.MULTILINE)
    assert len(alerts) == 9
    for alert in alerts:
        metrics = re.findall(r"outlit_proxy_[a-z_]+", alert)
        assert metrics
        assert set(metrics) <= METRICS, alert
        reasons = {
            reason for given in re.findall(r'reason=~?"([^"]*)"', alert) for reason in given.split("|")
        }
        assert reasons <= {*Pause, *Dropped}, alert


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_each_setting_that_is_named_exists(text: str):
    tables = "|".join(sorted(TABLES))
    named = set(re.findall(rf"`((?:{tables})\.[a-z_]+)(?:`| = )", text))
    assert "buffer.durability" in named
    assert named <= {setting.name for setting in SETTINGS}


def test_each_setting_of_the_buffer_is_explained():
    named = {setting.name for setting in SETTINGS if setting.table == "buffer"} - {"buffer.dedup_window"}
    assert not [name for name in named if f"`{name}" not in README]


def test_each_setting_of_delivery_and_dead_letters_is_named():
    # Those that have nothing to be said of them beyond their meaning stand in the example alone.
    named = {setting.name for setting in SETTINGS if setting.table in ("delivery", "dead")}
    named -= {"delivery.linger", "delivery.timeout"}
    assert not [name for name in named if f"`{name}" not in README]


def test_each_error_code_is_explained():
    assert not [code for code in Code if f"| `{code}` |" not in README]


@pytest.mark.parametrize("reason", Pause)
def test_each_reason_of_a_pause_says_what_it_means_how_it_ends_and_what_to_do(reason: Pause):
    [row] = re.findall(rf"^\| `{reason}` \|.*$", section("When Outlit is the trouble"), re.MULTILINE)
    assert len(row.split("|")) == 6


@pytest.mark.parametrize("reason", Dead)
def test_each_reason_of_a_dead_letter_says_why_and_what_to_do(reason: Dead):
    [row] = re.findall(rf"^\| `{reason}` \|.*$", section("Dead letters"), re.MULTILINE)
    assert len(row.split("|")) == 5


@pytest.mark.parametrize("reason", Unsafe)
def test_each_reason_why_a_redis_is_unsafe_has_its_remedy(reason: Unsafe):
    [row] = re.findall(rf"^\| \**`{reason}`\** \|.*$", README, re.MULTILINE)
    assert len(row.split("|")) == 5


def test_each_form_of_a_redis_url_can_be_read():
    forms = re.findall(rf"^\| `({SCHEMES}[^`]*)` \|", README, re.MULTILINE)
    assert len(forms) == 5
    for form in forms:
        full = (
            re.sub(r"[\[\]]", "", form).replace(",…", "").replace("rediss://…", "rediss://user:pw@host:1/0")
        )
        full = full.replace("/db", "/0").replace("=n", "=0").replace(":port", ":6379")
        assert parse_target(full).kind


def test_the_links_within_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", README)) <= anchors
    for path in re.findall(r"\]\(((?!#|https?:)[^)]*)\)", README):
        assert (ROOT / path).exists(), path

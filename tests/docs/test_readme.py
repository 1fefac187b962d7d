"""What the README names exists, and what operators must know is in it."""

import re
from pathlib import Path

import pytest

from proxy.ledger import Unsafe
from proxy.metrics import Metrics
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


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_each_metric_that_is_named_exists(text: str):
    named = set(re.findall(r"`(outlit_proxy_[a-z_]+[a-z])(?:\{[a-z,]+\})?`", text))
    assert named
    assert named <= METRICS | {"outlit_proxy_send"}


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_each_setting_that_is_named_exists(text: str):
    tables = "|".join(sorted(TABLES))
    named = set(re.findall(rf"`((?:{tables})\.[a-z_]+)(?:`| = )", text))
    assert "buffer.durability" in named
    assert named <= {setting.name for setting in SETTINGS}


def test_each_setting_of_the_buffer_is_explained():
    named = {setting.name for setting in SETTINGS if setting.table == "buffer"} - {"buffer.dedup_window"}
    assert not [name for name in named if f"`{name}" not in README]


def test_each_error_code_is_explained():
    assert not [code for code in Code if f"| `{code}` |" not in README]


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

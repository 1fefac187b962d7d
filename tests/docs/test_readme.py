"""What the README names exists, and what operators must know is in it."""

import ast
import os
import re
from pathlib import Path

import click
import pytest

from proxy.cli import main
from proxy.gateway.codes import KINDS
from proxy.ledger import Dead, Pause, PlatformOutcome, Underfull, Unsafe
from proxy.metrics import Metrics
from proxy.ops.symptoms import SECTION, Symptom
from proxy.settings import SETTINGS
from proxy.settings.redis_url import parse_target
from proxy.wire.answers import Code
from tests.docs import metrics_table
from tests.docs.documents import DOCUMENTS, ROOT, commands, named, section
from tests.docs.listeners import routes

README = (ROOT / "README.md").read_text(encoding="utf-8")
REDIS = (ROOT / "deploy" / "redis" / "README.md").read_text(encoding="utf-8")
TABLES = {setting.table for setting in SETTINGS}
FAMILIES = list(Metrics().registry.collect())
METRICS = {family.name for family in FAMILIES} | {
    sample.name for family in FAMILIES for sample in family.samples
}
SCHEMES = r"(?:rediss?|unix|redis\+sentinel|redis\+cluster)://"


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


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def _commands() -> dict[str, set[str]]:
    """The options of each command, by its words: `dead list`."""
    options = {}
    for name, command in main.commands.items():
        options[name] = _options(command)
        verbs = command.commands if isinstance(command, click.Group) else {}
        options |= {f"{name} {verb}": _options(of_verb) for verb, of_verb in verbs.items()}
    return options


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_option_that_a_command_is_given_is_one_of_its(document: Path):
    text = document.read_text(encoding="utf-8")
    typed = [command.text for command in commands(text)] + re.findall(r"`([^`\n]+)`", text)
    known = _commands()
    for line in typed:
        for name, verb, rest in re.findall(r"outlit-proxy ([a-z]+)(?: ([a-z]+))?((?: +[^|#;&]+)?)", line):
            words = f"{name} {verb}" if f"{name} {verb}" in known else name
            given = {option.partition("=")[0] for option in rest.split() if option.startswith("--")}
            # Where no such command is: `helm install outlit-proxy deploy/chart`.
            assert given <= known.get(words, given), line


def test_each_option_that_the_readme_speaks_of_exists():
    known = set[str]().union(*_commands().values())
    spoken_of = {
        word for code in re.findall(r"`(--[^`\n]+)`", README) for word in re.findall(r"--[a-z-]+", code)
    }
    assert len(spoken_of) > 10
    assert spoken_of <= known


def test_the_exit_codes_are_the_ones_of_the_command_line():
    assert "0 stopped, 1 failed, 2 usage, 78 configuration" in section(README, "stopping")
    assert click.UsageError.exit_code == 2
    assert os.EX_CONFIG == 78


def test_each_route_of_operations_is_named_and_each_that_is_named_exists():
    named: set[tuple[str, str]] = set()
    for line in re.findall(r"^\| (`(?:GET|POST|DELETE) /.*?) \|", README, re.MULTILINE):
        method, path = "", ""
        for found in re.findall(r"`(GET |POST |DELETE )?([/…][^`\[ ]*)", line):
            method = found[0].strip() or method
            path = found[1].replace("…", path.rpartition("/")[0])
            named.add((method, path))
    probes = {("GET", path) for path in ("/metrics", "/livez", "/readyz", "/startupz")}
    assert not [path for _, path in probes if f"`{path}`" not in README and f"`{path}[" not in README]
    assert named | probes == routes()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_metric_that_is_named_exists(document: Path):
    text = document.read_text(encoding="utf-8")
    # In code, with labels or in an expression; `outlit_proxy_buffer_…` names a family.
    said = {
        name
        for code in re.findall(r"`[^`\n]+`", text)
        for name in re.findall(r"outlit_proxy_[a-z_]*[a-z]\b(?!…)", code)
    }
    assert said <= METRICS | {"outlit_proxy_send"}


def test_the_table_of_all_metrics_is_what_the_code_says():
    """Else: python -m tests.docs.metrics_table."""
    assert metrics_table.FILE.read_text(encoding="utf-8") == metrics_table.text()


def test_what_is_of_the_buffer_is_named_where_replicas_are_explained():
    """Whoever sums such a metric over replicas counts everything several times."""
    said = section(REDIS, "several-replicas")
    of_the_buffer = [family.name for family in FAMILIES if family.documentation.endswith("of the buffer.")]
    assert len(of_the_buffer) > 5
    assert not [name for name in of_the_buffer if f"`{name}`" not in said]


@pytest.mark.parametrize("reason", Underfull)
def test_each_reason_of_an_underfull_request_is_explained(reason: Underfull):
    [row] = re.findall(r"^\| .*`outlit_proxy_batch_underfull_total\{reason\}`.*$", README, re.MULTILINE)
    assert f"`{reason}` (" in row


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_setting_that_is_named_exists(document: Path):
    text = document.read_text(encoding="utf-8")
    tables = "|".join(sorted(TABLES))
    said = set(re.findall(rf"`((?:{tables})\.[a-z_]+)(?:`| = )", text))
    assert said <= {setting.name for setting in SETTINGS}


def test_each_setting_of_the_buffer_is_explained():
    named = {setting.name for setting in SETTINGS if setting.table == "buffer"}
    assert not [name for name in named if f"`{name}" not in README + REDIS]


def test_each_setting_of_delivery_and_dead_letters_is_named():
    # Those that have nothing to be said of them beyond their meaning stand in the reference alone.
    named = {setting.name for setting in SETTINGS if setting.table in ("delivery", "dead")}
    named -= {"delivery.linger", "delivery.timeout"}
    assert not [name for name in named if f"`{name}" not in README + REDIS]


def test_each_error_code_is_explained():
    assert not [code for code in Code if f"| `{code}` |" not in README]


def test_each_code_of_the_gateway_is_explained_with_its_status():
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| \S", section(README, "its-own-answers"), re.MULTILINE)
    assert sorted(rows) == sorted((code, str(kind.status)) for code, kind in KINDS.items())


def test_each_outcome_of_a_call_of_the_gateway_is_explained():
    said = section(README, "what-travels-and-how-far")
    [table] = re.findall(r"^\| `outcome` \|.*\n((?:\|.*\n)+)", said, re.MULTILINE)
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} == set(PlatformOutcome)


def test_each_setting_of_the_gateway_is_named_where_it_is_explained():
    said = section(README, "the-platform-gateway")
    named = {setting.name for setting in SETTINGS if setting.table == "gateway"} | {"ops.allowed_hosts"}
    assert len(named) > 3
    assert not [name for name in named if f"`{name}`" not in said]


@pytest.mark.parametrize("reason", Pause)
def test_each_reason_of_a_pause_says_what_it_means_how_it_ends_and_what_to_do(reason: Pause):
    [row] = re.findall(rf"^\| `{reason}` \|.*$", section(README, "when-outlit-is-the-trouble"), re.MULTILINE)
    assert len(row.split("|")) == 6


@pytest.mark.parametrize("reason", Dead)
def test_each_reason_of_a_dead_letter_says_why_and_what_to_do(reason: Dead):
    [row] = re.findall(rf"^\| `{reason}` \|.*$", section(README, "dead-letters"), re.MULTILINE)
    assert len(row.split("|")) == 5


@pytest.mark.parametrize("reason", Unsafe)
def test_each_reason_why_a_redis_is_unsafe_has_its_remedy(reason: Unsafe):
    [row] = re.findall(rf"^\| \**`{reason}`\** \|.*$", README, re.MULTILINE)
    assert len(row.split("|")) == 5


def test_each_form_of_a_redis_url_can_be_read():
    forms = re.findall(rf"^\| `({SCHEMES}[^`]*)` \|", REDIS, re.MULTILINE)
    assert len(forms) == 5
    for form in forms:
        full = (
            re.sub(r"[\[\]]", "", form).replace(",…", "").replace("rediss://…", "rediss://user:pw@host:1/0")
        )
        full = full.replace("/db", "/0").replace("=n", "=0").replace(":port", ":6379")
        assert parse_target(full).kind


@pytest.mark.parametrize("symptom", Symptom)
def test_each_symptom_of_the_status_page_is_explained_where_the_page_points(symptom: Symptom):
    assert f"`{symptom}`" in section(README, SECTION[symptom].removeprefix("#"))


def _sayings() -> list[str]:
    """Every text in the code; a number, or what is filled in, is #."""
    said = []
    for file in (ROOT / "proxy").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "#" for part in node.values]
                said.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    return said


@pytest.mark.parametrize(
    "anchor", ["when-the-buffer-is-the-trouble", "when-redis-is-the-trouble", "upgrading"]
)
def test_each_message_that_is_explained_is_one_that_is_said(anchor: str):
    """Operators look for what stands in their log; so it stands there in italics, word for word."""
    sayings = _sayings()
    tables = "\n".join(re.findall(r"^\|.*$", section(README, anchor), re.MULTILINE))
    messages = re.findall(r"(?<!\*)\*([^*`|]+?) ?…?\*(?!\*)", tables)
    assert len(messages) >= 2
    assert not [
        each for each in messages if not any(re.sub(r"\d+", "#", each) in saying for saying in sayings)
    ]

"""What the README says of versions: of the stored layout, and of what the proxy runs on and with."""

import re
import tomllib

import yaml

from proxy.buffer.redis.survey import LAYOUT_VERSION
from proxy.buffer.sqlite.files import LAYOUT
from tests.docs.documents import README, ROOT, section

TEXT = README.read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def supported(name: str) -> str:
    """The second cell of its row."""
    (cell,) = re.findall(rf"^\| {name} \| ([^|]*) \|", section(TEXT, "supported-versions"), re.MULTILINE)
    return str(cell)


def test_the_layout_that_is_written_is_the_one_that_the_readme_names():
    (named,) = re.findall(r"now \*\*(\d+)\*\*", section(TEXT, "upgrading"))
    assert LAYOUT == LAYOUT_VERSION == int(named)


def test_the_pythons_are_the_ones_that_the_package_names():
    named = re.findall(r"3\.\d+", supported("Python"))
    classifiers = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert named == classifiers
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_sqlite_is_the_one_that_comes_with_the_package():
    (apsw,) = [line for line in PROJECT["dependencies"] if line.startswith("apsw")]
    assert apsw.partition(">=")[2] in supported("SQLite")


def test_kubernetes_is_the_one_that_the_chart_asks_for():
    chart = yaml.safe_load((ROOT / "deploy" / "chart" / "Chart.yaml").read_text(encoding="utf-8"))
    least = supported("Kubernetes").partition(" ")[0]
    assert chart["kubeVersion"].startswith(f">={least}.")

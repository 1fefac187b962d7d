import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.deploy.containers import CREATED, NAME, NEED, REVISION, VERSION, Image, Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image, built in some two minutes; for long tests alone. Of its gigabytes nothing is left."""
    subprocess.run([NEED, "buildah", "debootstrap"], check=True)
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE=(.*)$", dockerfile, re.MULTILINE)
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.make_base(base)
        store.build(NAME, ROOT, VERSION=VERSION, REVISION=REVISION, CREATED=CREATED)
        with store.unpacked(NAME) as unpacked:
            yield unpacked

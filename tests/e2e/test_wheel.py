"""The other tests run the source tree; an operator installs a wheel. Here is what could differ."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_every_file_of_the_package_and_starts(tmp_path: Path):
    # With the locked build backend of this environment: nothing is fetched.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("outlit_proxy-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("proxy/")}
        archive.extractall(tmp_path / "installed")
    files = (file for file in (ROOT / "proxy").rglob("*") if file.is_file() and file.suffix != ".pyc")
    assert packed == {file.relative_to(ROOT).as_posix() for file in files}

    started = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "outlit-proxy" in started.stdout

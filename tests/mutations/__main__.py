"""Each promise broken on purpose, once: a test must notice. `make mutations`, or this module with numbers.

    python -m tests.mutations [--only WORD]

A mutation is a piece of text of one file, what stands there instead, and the tests that should fail. It is
made in a copy of the tree. A mutation that nobody notices, or whose text is no longer there, fails the run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, Mutation

TREE = Path(__file__).parents[2]
COPIED = ("proxy", "tests", "config", "deploy", "pyproject.toml", "README.md")
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests made of a mutation."""

    mutation: Mutation
    noticed: bool
    by: str


def tried(mutation: Mutation) -> Outcome:
    """Run the mutation's tests on a tree that has it."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = TREE / name
            if source.is_dir():
                shutil.copytree(
                    source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
                )
            else:
                shutil.copy(source, tree / name)
        file = tree / mutation.file
        text = file.read_text("utf-8")
        if text.count(mutation.old) != 1:
            return Outcome(
                mutation,
                noticed=False,
                by=f"not made: its text stands {text.count(mutation.old)} times there",
            )
        file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
        return outcome_of(mutation, tree)


def outcome_of(mutation: Mutation, tree: Path) -> Outcome:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *mutation.tests,
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(mutation, noticed=True, by=f"not finished in {TIMEOUT_S:.0f} s")
    failed = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    if run.returncode == 1 and failed:
        return Outcome(mutation, noticed=True, by=failed[0].partition("::")[2])
    if run.returncode == 0:
        return Outcome(mutation, noticed=False, by="nobody")
    return Outcome(
        mutation, noticed=False, by=f"the tests did not run: {run.stdout.strip().splitlines()[-1:]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="mutations whose name holds this word")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    if not chosen:
        print(f"no mutation is called {options.only}", file=sys.stderr)
        return 2
    unnoticed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(tried, chosen):
            unnoticed += not outcome.noticed
            print(
                f"{'noticed ' if outcome.noticed else 'SURVIVED'}  {outcome.mutation.name:<58} {outcome.by}",
                flush=True,
            )
    print(f"{len(chosen) - unnoticed} of {len(chosen)} mutations noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())

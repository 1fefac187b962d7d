"""A mutation whose text is gone tests nothing: `make mutations`, which takes long, would tell so late."""

from pathlib import Path

import pytest

from tests.mutations.catalogue import MUTATIONS, Mutation

TREE = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_text_stands_once_and_its_tests_are_there(mutation: Mutation) -> None:
    assert (TREE / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.new != mutation.old
    for path in mutation.tests:
        assert (TREE / path.partition("::")[0]).exists(), path

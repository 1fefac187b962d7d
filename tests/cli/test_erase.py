"""``outlit-proxy erase``: asks, takes one person out, and says what it could not reach."""

import pytest

from tests.cli.operator import Operator, fresh
from tests.sandbox.bodies import VISITOR


def test_a_person_is_taken_out_by_each_name(operator: Operator, key: str) -> None:
    operator.outage(key)
    operator.post(key, fresh("identify", email="ann@acme.example", userId="u-7"), fresh(), fresh())
    operator.post(key, fresh("identify", email=..., userId="u-8"))
    for whom, held in [
        (("--email", "ANN@acme.example"), "1 held event"),
        (("--user-id", "u-8"), "1 held event"),
        (("--visitor", VISITOR), "2 held events"),
        (("--visitor", VISITOR), "0 held events"),
    ]:
        result = operator.run("erase", *whom, "--key", key, "--yes")
        assert (result.exit_code, result.stdout) == (0, f"{held} and 0 dead letters erased\n"), whom


def test_dead_letters_go_too(operator: Operator, key: str) -> None:
    operator.die(key, fresh("identify", email="ann@acme.example"))
    assert operator.told("erase", "--email", "ann@acme.example", "--key", key, "--yes") == {
        "erased": {"held": 0, "dead": 1},
        "leased": 0,
    }
    assert operator.dead(key) == 0


def test_without_a_terminal_and_without_yes_nothing_happens(operator: Operator, key: str) -> None:
    operator.die(key, fresh())
    result = operator.run("erase", "--visitor", VISITOR, "--key", key)
    assert result.exit_code == 2
    assert "There is no terminal to ask on: say --yes." in result.stderr
    assert operator.dead(key) == 1


def test_at_a_terminal_it_asks(operator: Operator, key: str) -> None:
    operator.die(key, fresh())
    erase = ["erase", "--visitor", VISITOR, "--key", key]
    code, shown = operator.on_a_terminal(erase, "\n")
    assert code == 1
    assert "Erase everything that is held of this person? It cannot be undone. [y/N]: " in shown
    assert operator.dead(key) == 1
    code, shown = operator.on_a_terminal(erase, "y\n")
    assert code == 0
    assert "0 held events and 1 dead letter erased" in shown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "give one of --visitor, --email and --user-id."),
        (("--email", "a@b.co", "--user-id", "7"), "give one of --visitor, --email and --user-id."),
        (("--visitor", "nonsense"), "visitor: not a UUID"),
        (("--email", "nonsense"), "email: not an e-mail address"),
        (("--user-id", ""), "user_id: is empty"),
        (("--email", "a@b.co", "--key", "nonsense"), "key: not a public key"),
    ],
)
def test_wrong_usage_is_exit_code_2(operator: Operator, arguments: tuple[str, ...], error: str) -> None:
    result = operator.run("erase", *arguments, "--yes")
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr

"""The search for a canary finds it: else what finds nothing would prove nothing."""

import pytest

from tests.gateway.canary import Canary, rendered

OWN, ANOTHER = Canary(), Canary()


@pytest.mark.parametrize("form", OWN.needles)
def test_the_search_finds_each_form(form: str) -> None:
    needle = OWN.needles[form]
    for text in (f"x{needle}y", f"x{needle.upper()}y", f"{{'a': b'{needle}'}}".encode()):
        with pytest.raises(AssertionError, match="the key is shown: here"):
            OWN.assert_not_in(text, "here")
    ANOTHER.assert_not_in(needle, "another's")


def test_the_search_finds_a_key_in_the_frames_of_a_cause() -> None:
    def holds(key: str) -> None:
        raise OSError("no word of it")

    def fails(key: str) -> None:
        try:
            holds(key)
        except OSError as error:
            del key
            raise RuntimeError("nor here") from error

    with pytest.raises(RuntimeError) as caught:
        fails(OWN.key)
    assert OWN.found_in(rendered(caught.value))

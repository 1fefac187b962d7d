"""What must never have been sent: secrets in form fields and in the query parameters of addresses.

The real service takes such events, and so does the sandbox: they are reported, not refused, because a refusal
would hide in the dead letters what is a leak.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from proxy.sandbox.schema import Object, Path, Problem

# Written as they are compared: without the separators that the rule ignores.
_NAMES: Final = re.compile(
    "password|passwd|pass|pwd|token|secret|apikey|creditcard|ccnumber|cardnumber|cvv|cvc|ssn|socialsecurity"
    "|bankaccount|routingnumber"
)
_SEPARATORS: Final = re.compile(r"[-_\s]+")
_CARD_OR_ACCOUNT: Final = re.compile(r"[0-9]{9}|[0-9]{13,19}")
_REDACTED: Final = re.compile(r"\W*(?:redacted)?\W*", re.IGNORECASE)
"""What may stand for a query parameter's value that was taken out: nothing, or the word in any brackets."""


def leaks(event: Object, at: Path) -> Iterator[Problem]:
    """Name every secret in `event`, which stands at `at` in the body. No message quotes a value."""
    fields = event.get("formFields")
    if isinstance(fields, dict):
        for name, value in fields.items():
            if is_sensitive_name(name):
                yield Problem((*at, "formFields", name), "A form field with a sensitive name")
            elif isinstance(value, str) and is_sensitive_value(value):
                yield Problem((*at, "formFields", name), "A form field that holds a card or account number")
    for place in ("url", "referrer"):
        address = event.get(place)
        if isinstance(address, str) and "?" in address:
            for name in _unredacted_parameters(address):
                yield Problem((*at, place), f"A query parameter with a sensitive name, {name!a}")


def is_sensitive_name(name: str) -> bool:
    """Say whether `name` contains a listed one, whatever its case and separators."""
    return _NAMES.search(_SEPARATORS.sub("", name).lower()) is not None


def is_sensitive_value(value: str) -> bool:
    """Say whether `value` is 9 or 13 to 19 digits, spaces and dashes aside."""
    return _CARD_OR_ACCOUNT.fullmatch(re.sub(r"[\s-]+", "", value)) is not None


def _unredacted_parameters(address: str) -> Iterator[str]:
    # By hand: urlsplit raises on brackets that are no IPv6 address, and user ids follow server:// unescaped.
    query = address.partition("#")[0].partition("?")[2]
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        name = unquote_plus(name)
        if is_sensitive_name(name) and _REDACTED.fullmatch(unquote_plus(value)) is None:
            yield name

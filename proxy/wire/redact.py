"""What is never stored or sent on: secrets in form fields and in the query parameters of addresses.

The browser client drops such fields by itself, but a page's own list *replaces* the client's, so
passwords do arrive. Names are matched inside the field's name without regard to case, `-`, `_` and
spaces; values by looking like a card, account or social security number.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_plus

REDACTED = "redacted"
"""What stands in an address for a parameter's value."""

_SECRET_NAMES = re.compile(
    "pass|pwd|token|secret|apikey|creditcard|ccnumber|cardnumber|cvv|cvc|ssn|socialsecurity"
    "|bankaccount|routingnumber"  # "password" and "passwd" contain "pass"
)
_IGNORED_IN_NAMES = re.compile(r"[-_\s]+")  # of spaces every kind: what was pasted often has another
_IGNORED_IN_VALUES = re.compile(r"[-\s]+")

# Parameters stand behind `?` or `&` (some sites: `;`), in the fragment of a single-page application too.
_PARAMETER_NAME = re.compile(r"[?&;#]([^=&;?#]*)=")
_PARAMETER_END = re.compile(r"[&#]|\Z")


def is_secret_name(name: str) -> bool:
    """Whether a form field of this name is taken to hold a secret."""
    return _remembered_name(name) if len(name) <= _REMEMBERED_CHARS else _searched_name(name)


def is_secret_parameter(name: str) -> bool:
    """Whether a query parameter is taken to hold a secret; `name` as it stands in the address."""
    return _remembered_parameter(name) if len(name) <= _REMEMBERED_CHARS else _searched_parameter(name)


def _searched_name(name: str) -> bool:
    return _SECRET_NAMES.search(_IGNORED_IN_NAMES.sub("", name.casefold())) is not None


def _searched_parameter(name: str) -> bool:
    return _searched_name(unquote_plus(name))


_REMEMBERED_CHARS = 100
"""Longer names are looked at each time: clients make them up, and must not fill the memory with them."""

_remembered_name = lru_cache(maxsize=4096)(_searched_name)
_remembered_parameter = lru_cache(maxsize=4096)(_searched_parameter)


def is_secret_value(value: str) -> bool:
    """Whether a form field's value looks like a card (13-19 digits) or social security (9 digits) number."""
    digits = _IGNORED_IN_VALUES.sub("", value)
    return (len(digits) == 9 or 13 <= len(digits) <= 19) and digits.isdecimal()


def redact_form(fields: Mapping[str, object]) -> dict[str, object] | None:
    """`fields` without those that hold secrets; None where there is nothing to take out."""
    kept = {
        name: value
        for name, value in fields.items()
        if not is_secret_name(name) and not (isinstance(value, str) and is_secret_value(value))
    }
    return kept if len(kept) < len(fields) else None


def may_hold_secrets(addresses: str) -> bool:
    """Whether `redact_address` might find anything in one of several addresses, which stand on a line each.

    Where two meet, a name may be found that is in neither; none is missed, for what is taken for one ends
    before the next character that begins one.
    """
    return any(map(is_secret_parameter, {*_PARAMETER_NAME.findall(addresses)}))


def redact_address(address: str) -> str | None:
    """`address` with the values of secret parameters replaced; None where there is nothing to replace."""
    if "=" not in address:
        return None
    pieces: list[str] = []
    kept_from = 0
    for match in _PARAMETER_NAME.finditer(address):
        # A name within a value that is cut already needs no look of its own.
        if match.start() >= kept_from and is_secret_parameter(match[1]):
            pieces += address[kept_from : match.end()], REDACTED
            end = _PARAMETER_END.search(address, match.end())
            kept_from = end.start() if end else len(address)
    if not pieces:
        return None
    return "".join(pieces) + address[kept_from:]

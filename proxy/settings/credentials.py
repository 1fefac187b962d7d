"""How a secret is written: what it must look like, so that none is taken for another.

Each ``parse_*`` is as those in ``values``: the value, or ValueError with what is wrong and what to write.
"""

import re

from pydantic import SecretStr

PASSWORD_LENGTHS = range(1, 513)
# Shorter tokens can be guessed over a network; much longer ones outgrow a request header (8,190 bytes).
TOKEN_LENGTHS = range(8, 513)
API_KEY_LENGTHS = TOKEN_LENGTHS

_API_KEY_PREFIX = "ok_"
_VISIBLE = re.compile(r"[!-~]+")


def parse_password(value: object) -> SecretStr:
    """The password of a Redis: any text without control characters."""
    password = _text(value)
    if not _is_of(PASSWORD_LENGTHS, password).isprintable():
        raise ValueError("must have no control characters: write the password, and nothing else")
    return SecretStr(password)


def parse_token(value: object) -> SecretStr:
    """A bearer token. Outlit's own API keys begin with `ok_`: one pasted here would go to every operator."""
    token = _text(value)
    if token.startswith(_API_KEY_PREFIX):
        raise ValueError(
            'must not begin with "ok_", as an API key of Outlit does: make one of your own (gateway.api_key'
            " is for that key)"
        )
    return SecretStr(_sendable(_is_of(TOKEN_LENGTHS, token)))


def parse_api_key(value: object) -> SecretStr:
    """A secret API key of Outlit. Anything else, such as ops.token pasted here, would be sent to Outlit."""
    key = _text(value)
    if not key.startswith(_API_KEY_PREFIX):
        raise ValueError(
            'must begin with "ok_", as a secret API key of Outlit does: write one (ops.token is for a token'
            " of your own, front.public_keys for public keys)"
        )
    return SecretStr(_sendable(_is_of(API_KEY_LENGTHS, key)))


def _text(value: object) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError("not a text: write it in quotes")  # noqa: TRY004
    return text


def _is_of(lengths: range, text: str) -> str:
    if len(text) not in lengths:
        raise ValueError(f"must have {lengths.start} to {lengths.stop - 1} characters")
    return text


def _sendable(text: str) -> str:
    if not _VISIBLE.fullmatch(text):
        raise ValueError("must be visible ASCII without spaces: it is sent in a header")
    return text

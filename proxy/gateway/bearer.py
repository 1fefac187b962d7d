"""Who calls: an operator, by ops.token, or somebody with an API key of their own."""

import re
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from pydantic import SecretStr


class Operators(Protocol):
    """Who the operators are. `token`: what they give; None: there are none, and the gateway is off."""

    token: str | None

    def allows(self, request: web.Request) -> bool:
        """Whether a request has the token."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call; `key`: the API key that they gave, None for an operator."""

    key: SecretStr | None


# As gateway.api_key may be. What begins otherwise is no key of Outlit's, and is not shown to anybody.
_OWN_KEY = re.compile(r"(?i:bearer) +(ok_[!-~]{1,509})")


def read_caller(request: web.Request, operators: Operators) -> Caller | None:
    """Who calls; None for anybody else. A request with two Authorization headers is of nobody."""
    if len(request.headers.getall("Authorization", ())) != 1:
        return None
    if operators.allows(request):
        return Caller(None)
    own = _OWN_KEY.fullmatch(request.headers["Authorization"])
    return Caller(SecretStr(own[1])) if own else None

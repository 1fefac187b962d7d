"""The gateway to the Platform API: whether it is on, for whom, and whether Outlit takes its key.

The key is in no line of this, and nothing that Outlit says is either, but for the organization's id: whoever
answers in Outlit's place has just been given the key, and may say it.
"""

import json
import re

import aiohttp
from pydantic import SecretStr

from proxy.checklist import Checked, error, ok, skipped, warning
from proxy.checks.unanswered import why
from proxy.outgoing import Sent, open_session
from proxy.settings import Settings, is_in_clear

_NAME = "gateway"
_LONGEST_S = 10.0
_MOST_BYTES = 65_536
_ORGANIZATION = re.compile(r"(?!ok_)[A-Za-z0-9_.-]{1,64}")


async def look_at_gateway(settings: Settings, *, offline: bool, reached: bool) -> Checked:
    """One POST to validate-api-key, which no plan counts, where there is a key and it may travel.

    `offline`: nobody is asked. `reached`: whether upstream gave an answer just now; else it is not waited for
    again.
    """
    key, url = settings.gateway.api_key, settings.upstream.url
    if settings.ops.token is None:
        return _off(key)
    if key is None:
        return ok(
            _NAME, "on for who has ops.token or an API key; the former need gateway.api_key, which is not set"
        )
    if is_in_clear(url):
        return warning(
            _NAME,
            f"gateway.api_key would go to {url} in clear, for all on the way to read, so it was not sent now:"
            " write https://",
        )
    if offline:
        return skipped(_NAME, f"{url} is not asked whether gateway.api_key is valid (--offline)")
    if not reached:
        return _unknown("upstream cannot be asked")
    return await _asked(url, key, min(settings.gateway.timeout_s, _LONGEST_S))


def _off(key: SecretStr | None) -> Checked:
    if key is None:
        return ok(_NAME, "off: it needs ops.token")
    return warning(
        _NAME,
        "off, though gateway.api_key is set: it needs ops.token; set that, or take the key away",
    )


async def _asked(url: str, key: SecretStr, within_s: float) -> Checked:
    try:
        async with (
            open_session() as session,
            session.post(
                f"{url}/api/validate-api-key",
                headers={"Authorization": f"Bearer {key.get_secret_value()}", "Accept": "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s),
                trace_request_ctx=Sent(),
            ) as answer,
        ):
            return _answered(answer.status, await _body(answer))
    except (aiohttp.ClientConnectorError, TimeoutError) as problem:
        return _unknown(f"{url} {why(problem, within_s)}")
    except (aiohttp.ClientError, OSError):
        return _unknown(f"{url} gave no whole answer")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """What was answered; as much of it as is needed to see that it is too long."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > _MOST_BYTES:
            break
    return bytes(body)


def _answered(status: int, body: bytes) -> Checked:
    if status == 401:
        return error(
            _NAME,
            "Outlit refuses gateway.api_key (401): make a new key there, put it in the old one's place, and"
            " reload, or restart where it comes as a variable or credential",
        )
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    match status, said:
        case 200, {"valid": True}:
            named = said.get("organizationId")
            is_plain = isinstance(named, str) and _ORGANIZATION.fullmatch(named)
            return ok(
                _NAME, "on; gateway.api_key is valid" + (f" (organization {named})" if is_plain else "")
            )
        case 503, _:
            return _unknown("Outlit answered 503, try again")
        case _:
            return _unknown(f"the answer was {status}, and not as Outlit's: is upstream.url right?")


def _unknown(why_not: str) -> Checked:
    return warning(_NAME, f"whether gateway.api_key is valid cannot be told: {why_not}")

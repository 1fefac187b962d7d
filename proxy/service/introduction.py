"""What a process says of itself when it begins to serve: what it is, where, and what is off."""

from collections.abc import Mapping

import structlog

from proxy import __version__
from proxy.settings import Settings, is_in_clear

_log = structlog.get_logger("service")


def introduce(settings: Settings, front_url: str, ops_url: str, buffer: Mapping[str, object]) -> None:
    """Say it in the log, a line a room. `buffer`: what its engine says of itself."""
    _log.info("outlit-proxy", version=__version__)
    for name in settings.overridden:
        _log.warning(f"{name} is what the environment says, and not the file", origin=settings.origins[name])
    _log.info(
        "front",
        listen=str(settings.front.listen),
        url=front_url,
        keys=list(settings.front.public_keys) or "any pk_ key",
    )
    is_administered = settings.ops.token is not None
    _log.info("operations", url=ops_url, administration="on" if is_administered else "off")
    _introduce_gateway(settings, is_on=is_administered)
    _log.info("buffer", **buffer)
    _log.info(
        "upstream",
        url=settings.upstream.url,
        limit_per_s=settings.delivery.limit_per_s,
        rate_share=settings.delivery.rate_share,
    )


def _introduce_gateway(settings: Settings, *, is_on: bool) -> None:
    of_gateway = settings.gateway
    if is_on:
        key = "set" if of_gateway.api_key else "none: callers give their own"
        _log.info("gateway", state="on", api_key=key, tools=list(of_gateway.tools))
        if of_gateway.api_key is not None and is_in_clear(settings.upstream.url):
            _log.warning(
                "gateway.api_key is sent in clear, for all on the way to read: write upstream.url with https"
            )
        return
    _log.info("gateway", state="off")
    if of_gateway.api_key is not None:
        _log.warning("gateway.api_key is set, and the gateway is off: set ops.token to use it")

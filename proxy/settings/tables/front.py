"""The listener for clients."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.addresses import ListenAddress
from proxy.settings.kinds import (
    ALL,
    RESTART,
    Bytes,
    Kind,
    Listen,
    Networks,
    Origins,
    PathPrefixes,
    PublicKeys,
    Seconds,
    Whole,
)
from proxy.settings.tables.table import GB, KB, MB, MINUTE_S, TB, Clash, FrozenTable
from proxy.settings.values import show_size


class UnknownKeyQuota(FrozenTable):
    """What public keys may hold that are not listed and never had an upstream success."""

    queues: Whole = Field(
        default=1_000, ge=1, le=1_000_000, description="waiting queues of each such public key"
    )
    keys: Whole = Field(
        default=100, ge=1, le=1_000_000, description="such public keys that hold anything at one time"
    )


Quota = Annotated[
    UnknownKeyQuota,
    Kind("table", UnknownKeyQuota.model_dump, example={"queues": 1000, "keys": 100}),
]


class FrontSettings(FrozenTable):
    """The listener for clients: who may post, how much, and how long they may take."""

    listen: Annotated[Listen, RESTART] = Field(
        default=ListenAddress("127.0.0.1", 8080),
        description="where clients connect; a host left out means every interface",
    )
    path_prefixes: PathPrefixes = Field(
        default=("/api/i/v1",),
        description="paths before /{publicKey}/events under which events are taken",
    )
    public_keys: PublicKeys = Field(
        default=(), description="public keys that may post, free of unknown_key_quota; empty: any pk_ key"
    )
    allowed_origins: Origins = Field(
        default=(ALL,),
        description="origins of web pages that may post; empty: none, so only clients that send no Origin",
    )
    trusted_proxies: Networks = Field(
        default=(), description="peers whose X-Forwarded-For and Forwarded headers name the client's address"
    )
    client_ip: Literal["forward", "truncate", "drop"] = Field(
        default="forward",
        description="the client's address that is stored and sent: whole, cut to /24 or /48, or none",
    )
    max_body_bytes: Bytes = Field(
        default=10 * MB,
        validation_alias="max_body",
        ge=KB,
        le=GB,
        description="largest body of one request, after decompression; 413 beyond",
    )
    max_events: Whole = Field(
        default=5_000, ge=1, le=100_000, description="most events in one request; 413 beyond"
    )
    max_pending_bytes: Bytes = Field(
        default=256 * MB,
        ge=MB,
        le=TB,
        description="bytes of clients' bodies in memory at once, over all requests; 503 beyond",
    )
    header_timeout_s: Seconds = Field(
        default=10.0,
        validation_alias="header_timeout",
        ge=0.1,
        le=10 * MINUTE_S,
        description="how long a client may take to send a request's headers",
    )
    body_timeout_s: Seconds = Field(
        default=20.0,
        validation_alias="body_timeout",
        ge=0.1,
        le=10 * MINUTE_S,
        description="how long a client may take to send a request's body; 408 beyond",
    )
    max_connections: Whole = Field(
        default=10_000, ge=1, le=1_000_000, description="open connections of clients"
    )
    unknown: Literal["forward", "refuse"] = Field(
        default="forward",
        description="event types and fields this version does not know: pass them on, or refuse",
    )
    unknown_key_quota: Quota = Field(
        default=UnknownKeyQuota(),
        description="for keys neither listed nor ever accepted upstream: queues each, and such keys in all",
    )

    @model_validator(mode="after")
    def _largest_body_fits_in_memory(self) -> Self:
        if self.max_pending_bytes < self.max_body_bytes:
            raise Clash(
                f"front.max_pending_bytes ({show_size(self.max_pending_bytes)}) must not be less than"
                f" front.max_body ({show_size(self.max_body_bytes)}): such a body would be refused for ever",
                "front.max_pending_bytes",
                "front.max_body",
            )
        return self

"""Every setting: name, unit, bounds, default, meaning.

The models are the one list. ``SETTINGS`` is read off them; flags, environment names, ``config show``, the
example, the reference and the JSON Schema come from ``SETTINGS``. ``notes`` has what of a setting does not
fit into a line. A setting whose mechanism does not exist is not here.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from proxy.settings.kinds import (
    RESTART,
    Buffer,
    Bytes,
    Kind,
    Listen,
    Networks,
    Number,
    Origins,
    Password,
    PathPrefixes,
    PublicKeys,
    Seconds,
    Token,
    UpstreamUrl,
    Whole,
    toml_text,
)
from proxy.settings.redis_url import SCHEMES, Target, parse_target
from proxy.settings.setting import Setting, Table, settings_of, tables_of
from proxy.settings.values import BufferUrl, ListenAddress, parse_buffer_url, show_duration, show_size

_KB, _MB, _GB, _TB = 1_000, 1_000_000, 1_000_000_000, 1_000_000_000_000
_MINUTE_S, _HOUR_S, _DAY_S, _YEAR_S = 60, 3_600, 86_400, 31_536_000

# What is left of a lease when its request has timed out must suffice to settle it: otherwise another worker
# reads the same events again while their fate is being written down.
SETTLE_S = 5.0


class Clash(ValueError):
    """Two settings that are right one by one and wrong together. `names`: the likelier culprit first."""

    def __init__(self, problem: str, *names: str) -> None:
        super().__init__(problem)
        self.names = names


class _Table(BaseModel):
    """Frozen, closed, and quiet about values. Code writes the attribute's name, sources the operator's."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )


class UnknownKeyQuota(_Table):
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


class FrontSettings(_Table):
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
        default=("*",),
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
        default=10 * _MB,
        validation_alias="max_body",
        ge=_KB,
        le=_GB,
        description="largest body of one request, after decompression; 413 beyond",
    )
    max_events: Whole = Field(
        default=5_000, ge=1, le=100_000, description="most events in one request; 413 beyond"
    )
    max_pending_bytes: Bytes = Field(
        default=256 * _MB,
        ge=_MB,
        le=_TB,
        description="bytes of clients' bodies in memory at once, over all requests; 503 beyond",
    )
    header_timeout_s: Seconds = Field(
        default=10.0,
        validation_alias="header_timeout",
        ge=0.1,
        le=10 * _MINUTE_S,
        description="how long a client may take to send a request's headers",
    )
    body_timeout_s: Seconds = Field(
        default=20.0,
        validation_alias="body_timeout",
        ge=0.1,
        le=10 * _MINUTE_S,
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


class OpsSettings(_Table):
    """The listener for operators: health, metrics, administration."""

    listen: Annotated[Listen, RESTART] = Field(
        default=ListenAddress("127.0.0.1", 9090), description="where operators, probes and Prometheus connect"
    )
    token: Token = Field(
        default=None, description="bearer token of administration, 8 to 512 characters; off without one"
    )


_REDIS_DURABILITIES = ("everysec", "always", "replica")
_FILE_DURABILITIES = ("always", "normal")
_WAIT_TIMEOUT_S = 1.0


class BufferSettings(_Table):
    """Where acknowledged events are kept until they are delivered."""

    url: Annotated[Buffer, RESTART] = Field(
        default=parse_buffer_url("sqlite:///data/outlit-proxy.db"),
        description="a file (three slashes: under the working directory, four: absolute), or a Redis",
    )
    password: Annotated[Password, RESTART] = Field(
        default=None, description="password of the Redis, where it does not stand in the URL"
    )
    durability: Annotated[Literal["always", "normal", "everysec", "replica"], RESTART] = Field(
        default="always",
        description="a file: always or normal; Redis: everysec (then the default), always or replica",
    )
    replicas: Annotated[Whole, RESTART] = Field(
        default=1, ge=1, le=10, description="replicas of Redis that have an event before the answer"
    )
    wait_timeout_s: Annotated[Seconds, RESTART] = Field(
        default=_WAIT_TIMEOUT_S,
        validation_alias="wait_timeout",
        ge=0.01,
        le=4,
        description="how long Redis may take to pass an event to its replicas, or to its disk; 503 beyond",
    )
    max_bytes: Bytes = Field(
        default=4 * _GB,
        ge=_MB,
        le=100 * _TB,
        description="stored bytes in all, overhead included; 503 beyond",
    )
    max_bytes_per_key: Bytes = Field(
        default=2 * _GB, ge=_MB, le=100 * _TB, description="stored bytes of one public key; 503 beyond"
    )
    dedup_window_s: Seconds = Field(
        default=10.0 * _MINUTE_S,
        validation_alias="dedup_window",
        ge=1,
        le=_DAY_S,
        description="how long an event that is sent again is recognised as the same",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_of_the_engine(cls, given: object) -> object:
        """Redis is synced each second by default: with `always` each answer would wait for its disk."""
        if not isinstance(given, dict) or "durability" in given:
            return given
        url = given.get("url", "")
        text = url.written.get_secret_value() if isinstance(url, BufferUrl) else str(url)
        is_redis = text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))
        return {**given, "durability": "everysec"} if is_redis else given

    @model_validator(mode="after")
    def _password_and_url_agree(self) -> Self:
        if self.password is not None and not self.url.is_redis:
            raise Clash(
                "buffer.password is for a Redis, and buffer.url is a file: leave the password out, or write"
                " the Redis into buffer.url",
                "buffer.password",
                "buffer.url",
            )
        try:
            _ = self.target
        except ValueError as error:
            raise Clash(f"buffer.url {error}", "buffer.url", "buffer.password") from None
        return self

    @model_validator(mode="after")
    def _durability_of_the_engine(self) -> Self:
        choices = _REDIS_DURABILITIES if self.url.is_redis else _FILE_DURABILITIES
        if self.durability not in choices:
            *others, last = map(toml_text, choices)
            raise Clash(
                f"buffer.durability is {toml_text(self.durability)}, which {self._engine} does not have:"
                f" write {', '.join(others)} or {last}",
                "buffer.durability",
                "buffer.url",
            )
        return self

    @model_validator(mode="after")
    def _waits_for_what_it_counts(self) -> Self:
        if self.replicas > 1 and self.durability != "replica":
            raise Clash(
                f"buffer.replicas is {self.replicas}, but nothing waits for them with buffer.durability"
                f' {toml_text(self.durability)}: set that to "replica", or leave buffer.replicas out',
                "buffer.replicas",
                "buffer.durability",
            )
        waits = self.url.is_redis and self.durability != "everysec"
        if self.wait_timeout_s != _WAIT_TIMEOUT_S and not waits:
            raise Clash(
                f"buffer.wait_timeout is {show_duration(self.wait_timeout_s)}, but nothing waits with"
                f" buffer.durability {toml_text(self.durability)} of {self._engine}: leave it out, or have"
                ' a Redis with "always" or "replica"',
                "buffer.wait_timeout",
                "buffer.durability",
            )
        return self

    @property
    def _engine(self) -> str:
        return "a Redis" if self.url.is_redis else "a file"

    @property
    def path(self) -> Path:
        """The buffer's file, relative to the working directory where the URL has three slashes."""
        return Path(self.url.written.get_secret_value().removeprefix("sqlite:///"))

    @property
    def target(self) -> Target | None:
        """The Redis that the buffer is; None where it is a file."""
        if not self.url.is_redis:
            return None
        password = None if self.password is None else self.password.get_secret_value()
        return parse_target(self.url.written.get_secret_value(), password)


class DeliverySettings(_Table):
    """How events leave: batching, the rate budget, and what happens at exit."""

    linger_s: Seconds = Field(
        default=1.0,
        validation_alias="linger",
        ge=0,
        le=_MINUTE_S,
        description="how long a queue's first event waits for company before it is due",
    )
    in_flight: Whole = Field(
        default=64,
        ge=1,
        le=1_000,
        description="upstream requests at one time, of this process; a quarter is kept for keys with none",
    )
    limit_per_s: Whole = Field(
        default=100,
        ge=1,
        le=10_000,
        description="upstream's limit, requests per second for each public key; answers' headers correct it",
    )
    rate_share: Number = Field(
        default=1.0,
        gt=0,
        le=1,
        description="this deployment's part of the limit, where several share a key but no buffer",
    )
    timeout_s: Seconds = Field(
        default=10.0,
        validation_alias="timeout",
        ge=0.1,
        le=9 * _MINUTE_S,
        description="how long one upstream request may take",
    )
    lease_s: Seconds = Field(
        default=30.0,
        validation_alias="lease",
        ge=5,
        le=10 * _MINUTE_S,
        description="how long a claimed queue is one worker's; more than timeout + 5s",
    )
    max_age_s: Seconds = Field(
        default=3.0 * _DAY_S,
        validation_alias="max_age",
        ge=_MINUTE_S,
        le=_YEAR_S,
        description="age at which an event that upstream forbids, or has failed to take 10 times, is dead",
    )
    on_exit: Literal["keep", "drain"] = Field(
        default="keep", description="what is held at exit: left in the buffer, or sent first, within grace"
    )
    grace_s: Seconds = Field(
        default=25.0,
        validation_alias="grace",
        ge=0,
        le=_HOUR_S,
        description="from the signal to stop until the process ends; keep it below the supervisor's own",
    )

    @model_validator(mode="after")
    def _lease_outlasts_request_and_settle(self) -> Self:
        if self.lease_s <= self.timeout_s + SETTLE_S:
            raise Clash(
                f"delivery.lease ({show_duration(self.lease_s)}) must exceed delivery.timeout"
                f" ({show_duration(self.timeout_s)}) by more than {show_duration(SETTLE_S)}:"
                " lengthen the lease or shorten the timeout",
                "delivery.lease",
                "delivery.timeout",
            )
        return self


class DeadSettings(_Table):
    """Dead letters: events that ended undelivered and are kept to be looked at."""

    max_bytes: Bytes = Field(
        default=500 * _MB,
        ge=_MB,
        le=_TB,
        description="stored bytes of dead letters, in all; beyond, the oldest are given up",
    )
    retention_s: Seconds = Field(
        default=30.0 * _DAY_S,
        validation_alias="retention",
        ge=_MINUTE_S,
        le=10 * _YEAR_S,
        description="how long a dead letter is kept; then it is given up",
    )


class UpstreamSettings(_Table):
    """Where batches go."""

    url: UpstreamUrl = Field(
        default="https://app.outlit.ai",
        description="Outlit's address; /api/i/v1/{publicKey}/events is appended",
    )


class MetricsSettings(_Table):
    """How much the metrics tell apart."""

    max_key_labels: Whole = Field(
        default=20,
        ge=0,
        le=1_000,
        description="public keys that metrics name one by one; the rest are `other`",
    )


class LogSettings(_Table):
    """Logs, which go to stderr."""

    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="how they are written; auto: as text on a terminal, as JSON elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe lines that are written"
    )


class Settings(_Table):
    """All settings of one process. `load` makes it from sources; ``Settings()`` is the defaults."""

    front: FrontSettings = FrontSettings()
    ops: OpsSettings = OpsSettings()
    buffer: BufferSettings = BufferSettings()
    delivery: DeliverySettings = DeliverySettings()
    dead: DeadSettings = DeadSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    _given: dict[str, str] = PrivateAttr(default_factory=dict)
    _overridden: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _listeners_apart(self) -> Self:
        if self.front.listen == self.ops.listen and self.front.listen.port != 0:
            raise Clash(
                f"ops.listen is {self.ops.listen}, as front.listen is: give operations a port of its own",
                "ops.listen",
                "front.listen",
            )
        return self

    def model_post_init(self, context: object) -> None:
        """Keep what `load` passes as validation context."""
        if isinstance(context, Mapping):
            self._given = dict(context["origins"])
            self._overridden = tuple(context["overridden"])

    @property
    def origins(self) -> Mapping[str, str]:
        """Whence each value: "default", "file /x.toml", "environment OUTLIT_PROXY_…" or "flag --…"."""
        return MappingProxyType(
            {setting.name: self._given.get(setting.name, "default") for setting in SETTINGS}
        )

    @property
    def overridden(self) -> tuple[str, ...]:
        """Settings of which the file says something else than the environment, which counts."""
        return self._overridden

    def effective(self) -> dict[str, object]:
        """Each setting's value as an operator would write it, in the order of SETTINGS.

        Texts, numbers, lists and dicts only; a secret is "***", one that is not set None.
        """
        return {
            setting.name: setting.shown(getattr(getattr(self, setting.table), setting.attribute))
            for setting in SETTINGS
        }


SETTINGS: tuple[Setting, ...] = tuple(settings_of(Settings))
TABLES: tuple[Table, ...] = tuple(tables_of(Settings))

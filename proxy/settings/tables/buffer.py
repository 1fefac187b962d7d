"""The buffer: a file or a Redis."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.addresses import BufferUrl, parse_buffer_url
from proxy.settings.kinds import RESTART, Buffer, Bytes, Password, Seconds, Whole, toml_text
from proxy.settings.redis_url import SCHEMES, Target, parse_target
from proxy.settings.tables.table import DAY_S, GB, MB, MINUTE_S, TB, Clash, FrozenTable
from proxy.settings.values import show_duration

_REDIS_DURABILITIES = ("everysec", "always", "replica")
_FILE_DURABILITIES = ("always", "normal")
_WAIT_TIMEOUT_S = 1.0


class BufferSettings(FrozenTable):
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
        default=4 * GB,
        ge=MB,
        le=100 * TB,
        description="stored bytes in all, overhead included; 503 beyond",
    )
    max_bytes_per_key: Bytes = Field(
        default=2 * GB, ge=MB, le=100 * TB, description="stored bytes of one public key; 503 beyond"
    )
    dedup_window_s: Seconds = Field(
        default=10.0 * MINUTE_S,
        validation_alias="dedup_window",
        ge=1,
        le=DAY_S,
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

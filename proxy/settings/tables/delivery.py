"""Delivery: batching, the rate budget, and the exit."""

from typing import Literal, Self

from pydantic import Field, model_validator

from proxy.settings.kinds import Number, Seconds, Whole
from proxy.settings.tables.table import DAY_S, HOUR_S, MINUTE_S, YEAR_S, Clash, FrozenTable
from proxy.settings.values import show_duration

# What is left of a lease when its request has timed out must suffice to settle it: otherwise another worker
# reads the same events again while their fate is being written down.
SETTLE_S = 5.0


class DeliverySettings(FrozenTable):
    """How events leave: batching, the rate budget, and what happens at exit."""

    linger_s: Seconds = Field(
        default=1.0,
        validation_alias="linger",
        ge=0,
        le=MINUTE_S,
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
        le=9 * MINUTE_S,
        description="how long one upstream request may take",
    )
    lease_s: Seconds = Field(
        default=30.0,
        validation_alias="lease",
        ge=5,
        le=10 * MINUTE_S,
        description="how long a claimed queue is one worker's; more than timeout + 5s",
    )
    max_age_s: Seconds = Field(
        default=3.0 * DAY_S,
        validation_alias="max_age",
        ge=MINUTE_S,
        le=YEAR_S,
        description="age at which an event that upstream forbids, or has failed to take 10 times, is dead",
    )
    on_exit: Literal["keep", "drain"] = Field(
        default="keep", description="what is held at exit: left in the buffer, or sent first, within grace"
    )
    grace_s: Seconds = Field(
        default=25.0,
        validation_alias="grace",
        ge=0,
        le=HOUR_S,
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

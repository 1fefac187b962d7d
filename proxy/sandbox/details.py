"""What the fields of an order may hold beside one another, and how an order is shown."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar

WhatT_co = TypeVar("WhatT_co", bound=StrEnum, covariant=True)


class Detailed(Protocol[WhatT_co]):
    """A dataclass of which some fields are for some values of `what` alone."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def what(self) -> WhatT_co:
        """Give what happens."""


def misplaced(order: Detailed[WhatT_co], details: Mapping[WhatT_co, frozenset[str]]) -> Iterator[str]:
    """Name the fields that are set and are another's. `details`: the fields of those that have any."""
    others = frozenset().union(*details.values()) - details.get(order.what, frozenset())
    for each in fields(order):
        if each.name in others and getattr(order, each.name) != each.default:
            yield f"{order.what} takes no {each.name}"


def shown(order: Detailed[StrEnum]) -> dict[str, object]:
    """Give an order as the JSON object that `orders` reads: what differs from its defaults."""
    said = ((each, getattr(order, each.name)) for each in fields(order))
    return {
        each.name: value
        for each, value in said
        if each.name == "what"
        or value != (each.default_factory() if each.default_factory is not MISSING else each.default)
    }

"""What may be said of an exception whose message, or whose variables, may hold what somebody sent."""

import traceback
from collections.abc import Iterator
from pathlib import PurePath

_MAX_CHAINED = 10


def whereabouts(error: BaseException) -> str:
    """What kind of exception, raised where, after which others; none of their messages."""
    return ", after ".join(
        f"{type(each).__name__} in "
        + " < ".join(
            f"{PurePath(frame.filename).name}:{frame.lineno}"
            for frame in reversed(traceback.extract_tb(each.__traceback__))
        )
        for each in _chain(error)
    )


def forget_variables(error: BaseException) -> None:
    """Clear the variables of all that an exception came through; its lines stay."""
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it followed, the last one first; so many at most."""
    following: BaseException | None = error
    for _ in range(_MAX_CHAINED):
        if following is None:
            return
        yield following
        following = following.__cause__ or following.__context__

"""What ``outlit-proxy check`` looks at: all that a start needs, and what an operator may have overlooked.

What is said of the buffer comes from the engines, by the code of the start; ``surroundings`` is the machine,
``exposure`` what the settings let whom do, ``upstream`` the way out, ``gateway`` the Platform API's key.
Nothing is changed by a look, and nothing is sent that Outlit would count. A failed look is a line; none
raises.
"""

from collections.abc import AsyncIterator

from proxy.checklist import Checked, Grade, ok, skipped, warning
from proxy.checks.exposure import exposure
from proxy.checks.gateway import look_at_gateway
from proxy.checks.surroundings import listener, open_files, parser
from proxy.checks.upstream import look_at_upstream
from proxy.engines import look_at_buffer
from proxy.settings import Settings

__all__ = ["checks"]


async def checks(settings: Settings, *, offline: bool) -> AsyncIterator[Checked]:
    """Every look, one after another, as it ends. `offline`: neither Redis nor upstream is asked."""
    yield _settings(settings)
    if settings.overridden:
        names = ", ".join(settings.overridden)
        yield warning(
            "overridden",
            f"of {names} the environment says something else than the file, and counts: if the file is right,"
            " take the variables away (an image sets some)",
        )
    yield parser()
    yield await listener("front.listen", settings.front.listen)
    yield await listener("ops.listen", settings.ops.listen)
    yield open_files(settings)
    for checked in exposure(settings):
        yield checked
    async for checked in look_at_buffer(settings, offline=offline):
        yield checked
    if offline:
        way_out = [skipped("upstream", f"{settings.upstream.url} is not asked (--offline)")]
    else:
        way_out = await look_at_upstream(settings.upstream.url, settings.delivery.timeout_s)
    for checked in way_out:
        yield checked
    reached = all(checked.grade is not Grade.ERROR for checked in way_out)
    yield await look_at_gateway(settings, offline=offline, reached=reached)


def _settings(settings: Settings) -> Checked:
    given = [origin for origin in settings.origins.values() if origin != "default"]
    if not given:
        return ok("settings", "all are defaults")
    # A file by its path; of the environment and flags, which one it was is for `config show --origin`.
    sources = dict.fromkeys(
        origin if origin.startswith("file ") else origin.partition(" ")[0] for origin in given
    )
    return ok("settings", f"{len(given)} given, by {' and '.join(sources)}; the others are defaults")

"""What a start on this Redis would find, without being one: for ``outlit-proxy check``.

The same looks as at the start, asked once. Nothing is written: not even the layout marker.
"""

from collections.abc import AsyncIterator

from proxy.buffer.contract import BufferFault
from proxy.buffer.redis import rights
from proxy.buffer.redis.engine import RedisBuffer
from proxy.buffer.redis.link import Durability, Link, open_link
from proxy.buffer.redis.survey import Survey
from proxy.buffer.values import Terms
from proxy.checklist import Checked, Grade, error, ok, warning
from proxy.ledger import Unsafe
from proxy.settings.redis_url import Target

_NAME = "redis"


async def look(
    target: Target, terms: Terms, durability: Durability, replicas: int, wait_timeout_s: float
) -> AsyncIterator[Checked]:
    """What there is to say of a Redis, as far as it can be reached."""
    survey = Survey(
        target,
        terms,
        durability,
        replicas,
        note_unsafe=lambda _reason, _is_so: None,
        note_loss=lambda: None,
    )
    try:
        link = await open_link(
            target,
            durability=durability,
            replicas=replicas,
            wait_timeout_s=wait_timeout_s,
            greet=survey.recognise,
        )
    except BufferFault as fault:
        yield error(_NAME, str(fault))
        return
    try:
        async for checked in _looks(link, survey, target, terms, durability):
            yield checked
    except BufferFault as fault:
        yield error(_NAME, str(fault))
    finally:
        await link.close()


async def _looks(
    link: Link, survey: Survey, target: Target, terms: Terms, durability: Durability
) -> AsyncIterator[Checked]:
    found = await survey.findings(link)
    what = survey.shown()
    yield ok(
        _NAME,
        f"{what['server']} at {target}; primaries: {what['primaries']}, append-only file:"
        f" {what['append_only_file']}",
    )
    for reason, finding in found.items():
        yield Checked(f"redis {reason}", Grade.ERROR if finding.is_fatal else Grade.WARNING, finding.text)
    if survey.unseen() is not None:
        yield warning("redis persistence", str(survey.unseen()))
    fine = [reason.value for reason in Unsafe if reason not in found]
    yield ok("redis safety", f"nothing was found against its {', '.join(fine)}")
    if any(finding.is_fatal for finding in found.values()):
        return
    if missing := await rights.missing(link, durability):
        yield error(
            "redis rights",
            f"Redis at {target} lets this user run too little, and a script that is refused in its middle"
            f" leaves half of its work done: widen its ACL: {' '.join(f'+{each}' for each in missing)}",
        )
        return
    yield ok("redis rights", "this user may run all that the proxy runs")
    buffer = await RedisBuffer.opened(link, terms, full=survey.full, background=False)
    try:
        await buffer.check()
    except BufferFault as fault:
        # So it starts all the same: what is held must drain.
        yield warning("redis room", f"posts would be answered 503 now: {fault}")
    else:
        yield ok("redis room", "an event would be kept now")

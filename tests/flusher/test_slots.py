import asyncio

from proxy.flusher.slots import Slots
from proxy.wire.limits import PublicKey

ONE, OTHER = PublicKey("pk_one"), PublicKey("pk_other")


def waiting(slots: Slots, key: PublicKey) -> asyncio.Task[None]:
    return asyncio.create_task(slots.acquire(key))


async def let_all_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_key_leaves_a_quarter_to_keys_that_have_nothing_in_flight() -> None:
    slots = Slots(8)
    taken = [waiting(slots, ONE) for _ in range(8)]
    await let_all_run()
    assert sum(task.done() for task in taken) == 6
    await asyncio.wait_for(slots.acquire(OTHER), 1)
    await asyncio.wait_for(slots.acquire(PublicKey("pk_third")), 1)
    for task in taken:
        task.cancel()


async def test_a_slot_given_back_goes_to_who_waits() -> None:
    slots = Slots(1)
    await slots.acquire(ONE)
    waiters = [waiting(slots, ONE), waiting(slots, OTHER)]
    await let_all_run()
    assert not any(task.done() for task in waiters)
    slots.release(ONE)
    await let_all_run()
    assert [task.done() for task in waiters] == [True, False]
    slots.release(ONE)
    await asyncio.wait_for(waiters[1], 1)


async def test_with_few_slots_none_is_kept() -> None:
    slots = Slots(3)
    for _ in range(3):
        await asyncio.wait_for(slots.acquire(ONE), 1)


async def test_more_slots_let_in_who_waits() -> None:
    slots = Slots(1)
    await slots.acquire(ONE)
    waiter = waiting(slots, OTHER)
    await let_all_run()
    slots.resize(2)
    await asyncio.wait_for(waiter, 1)


async def test_fewer_slots_are_given_back_before_one_is_free() -> None:
    slots = Slots(3)
    for _ in range(3):
        await slots.acquire(ONE)
    slots.resize(1)
    waiter = waiting(slots, ONE)
    for _ in range(2):
        slots.release(ONE)
        await let_all_run()
        assert not waiter.done()
    slots.release(ONE)
    await asyncio.wait_for(waiter, 1)

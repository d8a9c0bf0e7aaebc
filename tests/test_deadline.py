"""Deadlines: who is late is ended, as ``asyncio.timeout`` would; cancelled by somebody else stays cancelled."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from harvester.deadline import TICK, Deadlines


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def test_late() -> None:
    """What waits longer than it may gets a TimeoutError at most a look later, and the task can go on."""
    deadlines = Deadlines(asyncio.get_running_loop())
    began = now()
    with pytest.raises(TimeoutError), deadlines.at(began + 0.02) as deadline:
        await asyncio.sleep(60)
    assert deadline.expired
    assert now() - began < 0.02 + TICK + 1
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_in_time() -> None:
    """Nothing happens to a block that has ended, and the timer stops with the last one."""
    deadlines = Deadlines(asyncio.get_running_loop())
    with deadlines.at(now() + TICK / 2) as deadline:
        pass
    await asyncio.sleep(3 * TICK)
    assert not deadline.expired
    assert deadlines._timer is None


async def test_moved() -> None:
    """A deadline can be moved while the block runs, both ways."""
    deadlines = Deadlines(asyncio.get_running_loop())
    with deadlines.at(now()) as deadline:
        deadline.when = now() + 60
        await asyncio.sleep(2 * TICK)

    async def wait() -> None:
        with deadlines.at(now() + 60) as deadline:
            deadline.when = now()
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await wait()


async def test_only_the_late_ones() -> None:
    """Each call has its own."""
    deadlines = Deadlines(asyncio.get_running_loop())

    async def wait(until: float, seconds: float) -> bool:
        try:
            with deadlines.at(now() + until):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return False
        return True

    waits = wait(0, 60), wait(60, 0.1), wait(0.01, 60), wait(60, 0)
    assert list(await asyncio.gather(*waits)) == [False, True, False, True]


async def test_cancelled_by_somebody_else() -> None:
    """That is no timeout, also if both happen."""
    deadlines = Deadlines(asyncio.get_running_loop())
    late = asyncio.Event()

    async def wait(until: float) -> None:
        with deadlines.at(now() + until):
            try:
                await asyncio.sleep(60)
            finally:
                late.set()

    for until in (60.0, 0.0):
        late.clear()
        task = asyncio.create_task(wait(until))
        await asyncio.sleep(0)
        if not until:
            deadlines._look()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert late.is_set()


async def test_errors_pass() -> None:
    """Another error of the block is not hidden."""
    with pytest.raises(ValueError, match="mine"), Deadlines(asyncio.get_running_loop()).at(now()):
        raise ValueError("mine")


def test_outside_of_a_task() -> None:
    """There is nothing to end."""
    loop = asyncio.new_event_loop()
    with closing(loop), pytest.raises(RuntimeError, match="a deadline is a task's"):
        Deadlines(loop).at(0)

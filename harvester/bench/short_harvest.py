"""A few seconds of harvesting, timed: permit, call, parse, hand over to the writer, as a run's workers do it."""

from __future__ import annotations

import asyncio
import time
from math import isfinite
from pathlib import Path
from typing import Final

from harvester.bench.diagnosis import Work
from harvester.bench.load import Calls, now, settle
from harvester.bench.scratch import Scratch
from harvester.errors import HarvesterError
from harvester.pace import Pacer
from harvester.writer import Writer

WARM_UP: Final = 1 / 3  # of the time
_SCHEDULED: Final = Path("/proc/thread-self/schedstat")  # nanoseconds on a processor, and waiting for one
_BILLION: Final = 1e9


class ShortHarvest:
    """Workers of one app that go round until time or calls are used up.

    Args:
        calls: makes them.
        pacer: when they may go.
        keep: takes the pages.
    """

    def __init__(self, calls: Calls, pacer: Pacer, keep: Scratch) -> None:
        self._calls = calls
        self._pacer = pacer
        self._keep = keep
        self._writer = Writer()
        self._waiting: set[asyncio.Task[None]] = set()
        self._permit = self._head = self._body = self._parsing = self._writing = 0.0
        self._outcomes = {"accepted": 0, "refused": 0, "failed": 0}
        self._accepted: list[float] = []  # when
        self._end = 0.0

    async def run(self, seconds: float, workers: int) -> Work:
        """Harvest for so many seconds with so many workers; return where the time went.

        Raises:
            LocalError: the disk is full or broken.
        """
        began, busy, pace = now(), busy_seconds(), self._pacer.rate
        self._end = began + seconds
        try:
            async with asyncio.TaskGroup() as background:
                committing = background.create_task(self._writer.run())
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._work()) for _ in range(workers)]
                    await asyncio.wait(tasks, timeout=seconds)
                    for task in self._waiting:
                        task.cancel()  # a permit that comes later helps nobody
                ended, busy = now(), busy_seconds() - busy
                await self._writer.flush()
                drained = now()
                committing.cancel()
        except* HarvesterError as errors:
            raise first(errors) from None
        finally:
            self._writer.stop()
        calm = began + WARM_UP * seconds  # the first calls leave together; later they have found their pace
        steady = sum(calm < at <= self._end for at in self._accepted) / (self._end - calm)
        return Work(
            seconds=ended - began,
            drain=drained - ended,
            workers=workers,
            calls=sum(self._outcomes.values()),
            accepted=self._outcomes["accepted"],
            refused=self._outcomes["refused"],
            failed=self._outcomes["failed"],
            rate=steady or self._outcomes["accepted"] / (ended - began),
            received=self._keep.received,
            pace=pace if isfinite(pace) else None,
            busy=busy,
            committing=self._keep.seconds,
            permit=self._permit,
            first_byte=self._head,
            body=self._body,
            parsing=self._parsing,
            writing=self._writing,
        )

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine of a task; for the type checker
        while now() < self._end and not self._keep.full and not self._calls.bound.spent:
            began = now()
            self._waiting.add(me)
            try:
                permitted = await self._pacer.permit()
            finally:
                self._waiting.discard(me)
                self._permit += now() - began
            if not await self._calls.take():
                self._pacer.answered(permitted, accepted=False)
                return
            made = await self._calls.make()
            self._outcomes[made.outcome] += 1
            self._head += made.head - made.sent
            self._body += made.whole - made.head
            self._parsing += made.read - made.whole
            settle(self._pacer, permitted, made)
            if made.page is not None:
                self._accepted.append(made.read)
                began = now()
                self._keep.add(made.page)
                await self._writer.add(self._keep, len(made.page.lines))
                self._writing += now() - began


def busy_seconds() -> float:
    """Return for how long this thread has been at work so far, or has waited for a processor to be.

    Where the system does not tell of the waiting, the work alone.
    """
    try:
        on_it, waiting = _SCHEDULED.read_text(encoding="ascii").split()[:2]
    except OSError:
        return time.thread_time()
    return (int(on_it) + int(waiting)) / _BILLION


def first(errors: BaseExceptionGroup[HarvesterError]) -> HarvesterError:
    """Return one of the errors of a group, which tell of the same."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, HarvesterError) else HarvesterError(str(error))

"""Group commits: when they happen, in which thread, and who waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from harvester import writer
from harvester.errors import LocalError
from harvester.writer import Writer


class Committer:
    """Counts batches and commits, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.batches = 0
        self.commits = 0
        self.handed_over: set[str] = set()
        self.threads: set[str] = set()
        self.may_go = threading.Event()
        self.may_go.set()
        self.error: Exception | None = None
        self.committed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def batch(self) -> Callable[[], None]:
        """Hand over; every batch has a commit of its own."""
        self.batches += 1
        self.handed_over.add(threading.current_thread().name)
        return self._commit

    def _commit(self) -> None:
        """Pretend to write."""
        assert self.may_go.wait(5)
        self.commits += 1
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self.committed.set)
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def at_work() -> AsyncIterator[Writer]:
    """Run a writer in the background."""
    here = Writer()
    task = asyncio.create_task(here.run())
    try:
        yield here
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        here.stop()


async def until(event: asyncio.Event) -> None:
    """Wait for something that has to happen soon."""
    async with asyncio.timeout(5):
        await event.wait()


async def test_pages_of_an_interval_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages come in an interval, each dataset is committed once, in the writer's thread."""
    monkeypatch.setattr(writer, "INTERVAL", 0.02)
    one, two = Committer(), Committer()
    async with at_work() as here:
        for _ in range(50):
            await here.add(one, 1)
            await here.add(two, 1)
        await until(one.committed)
        await until(two.committed)
        assert (one.commits, two.commits) == (1, 1)
        one.committed.clear()
        await here.add(one, 1)
        await until(one.committed)
        assert (one.commits, two.commits) == (2, 1)
    assert one.threads == two.threads == {"writer_0"}
    assert one.handed_over == two.handed_over == {threading.current_thread().name}


async def test_what_comes_during_a_commit_is_in_the_next_batch() -> None:
    """A batch is handed over when its turn comes, so that what comes while the disk is busy waits for the next one."""
    one, two = Committer(), Committer()
    here = Writer()
    await here.add(one, 1)
    await here.add(two, 1)
    one.may_go.clear()
    flushing = asyncio.create_task(here.flush())
    await asyncio.sleep(0)  # as far as the first commit
    await here.add(one, 1)
    assert (one.batches, two.batches) == (1, 0)
    one.may_go.set()
    await flushing
    assert (one.batches, two.batches) == (1, 1)
    await here.flush()
    assert (one.batches, one.commits, two.batches) == (2, 2, 1)
    here.stop()


async def test_nothing_is_committed_while_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle writer leaves the disk alone."""
    monkeypatch.setattr(writer, "INTERVAL", 0.001)
    one = Committer()
    async with at_work() as here:
        await here.add(one, 1)
        await until(one.committed)
        await asyncio.sleep(0.05)
    assert one.commits == 1


async def test_much_at_once_is_committed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full batch does not wait for the interval."""
    monkeypatch.setattr(writer, "INTERVAL", 3_600.0)
    one = Committer()
    async with at_work() as here:
        await here.add(one, writer.BATCH - 1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert one.commits == 0
        await here.add(one, 1)
        await until(one.committed)


async def test_who_brings_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pending is bounded: bringing more waits until a commit is done."""
    monkeypatch.setattr(writer, "INTERVAL", 3_600.0)
    one = Committer()
    one.may_go.clear()
    async with at_work() as here:
        waiting = asyncio.create_task(here.add(one, writer.PENDING))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        one.may_go.set()
        async with asyncio.timeout(5):
            await waiting
        assert one.commits == 1


async def test_an_error_of_the_disk_ends_the_writer_and_frees_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes out of ``run``; nobody hangs on a commit that will not come."""
    monkeypatch.setattr(writer, "INTERVAL", 0.001)
    one = Committer()
    one.error = LocalError("disk full")
    here = Writer()
    try:
        running = asyncio.create_task(here.run())
        async with asyncio.timeout(5):
            await here.add(one, writer.PENDING)
            with pytest.raises(LocalError, match="disk full"):
                await running
    finally:
        here.stop()


async def test_flush_commits_what_is_pending_now() -> None:
    """``flush`` waits until everything announced is durable; a second one has nothing to do."""
    one = Committer()
    here = Writer()
    await here.add(one, 1)
    await here.flush()
    await here.flush()
    here.stop()
    assert one.commits == 1


async def test_work_is_done_in_order_and_its_result_comes_back() -> None:
    """``do`` runs after what was given before it, and ``stop`` waits for what runs."""
    order: list[int] = []
    here = Writer()

    def work(number: int) -> int:
        order.append(number)
        return number * number

    assert await asyncio.gather(*(here.do(partial(work, number)) for number in range(20))) == [
        number * number for number in range(20)
    ]
    assert order == list(range(20))
    last = asyncio.ensure_future(here.do(lambda: work(20)))
    await asyncio.sleep(0)
    here.stop()
    assert order[-1] == 20
    assert await last == 400

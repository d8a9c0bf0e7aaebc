"""The one thread that writes: pages of all datasets in group commits, about one a second.

The event loop never waits for a disk. What is pending is bounded: whoever brings more waits until a commit is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

INTERVAL: Final = 1.0  # seconds between commits while pages come in
BATCH: Final = 4 * 2**20  # bytes that bring a commit forward
PENDING: Final = 2 * BATCH  # bytes above which bringing more has to wait


class Committer(Protocol):
    """Somebody whose pages wait to be committed."""

    def batch(self) -> Callable[[], None]:
        """Hand over everything pending, in the event loop; return what writes and syncs it, in the writer's thread."""


class Writer:
    """Group commits for everybody; close it with ``stop`` once all have been flushed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: dict[int, Committer] = {}
        self._bytes = 0
        self._due = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def add(self, committer: Committer, size: int) -> None:
        """Announce that so many more bytes of a committer are pending."""
        self._waiting[id(committer)] = committer
        self._bytes += size
        self._due.set()
        if self._bytes >= BATCH:
            self._full.set()
            if self._bytes >= PENDING:
                self._room.clear()
                await self._room.wait()

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._due.wait()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Commit everything that is pending now."""
        waiting, self._waiting = list(self._waiting.values()), {}
        self._bytes = 0
        self._due.clear()
        self._full.clear()
        try:
            for committer in waiting:
                await self.do(committer.batch())
        finally:
            self._room.set()

    async def do(self, work: Callable[[], T]) -> T:
        """Run something in the writer's thread, after whatever is running there."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def stop(self) -> None:
        """End the thread."""
        self._thread.shutdown()

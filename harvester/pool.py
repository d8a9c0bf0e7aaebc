"""The children of a run as their parent sees them: lending whole shards, taking in what comes of them.

The parent alone decides. It lends what its frontier has not begun, takes reports of pages as if it had asked for them,
records the shards that children have sealed, and adopts the journals of those that they could not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Final, Self

from harvester.attempt import counter
from harvester.dataset_run import DatasetRun
from harvester.errors import LocalError
from harvester.events import Events
from harvester.messages import Block, Failed, FromChild, Inbox, Left, Recall, Report, Sealed, ToChild, encoded
from harvester.store.folder import DatasetFolder
from harvester.writer import Writer

AHEAD: Final = 2_000  # pages that a child has to fetch while it is not lent more
BLOCKS: Final = 8  # of one app that a child has at most, however small they are
TICK: Final = 0.05  # seconds between looks whether there is something to lend
REST: Final = 3.0  # seconds for which a child that had to give pages back is lent nothing of that app
PATIENCE: Final = 10.0  # seconds that a child may take to end a block that is recalled
_READ: Final = 2**18


class Lent:
    """A block that a child has.

    Attributes:
        left: how many of its pages have neither come nor come back.
        end: what has come of it, once that is known.
        returned: pages that the child could not get.
        recalled: since when it is wanted back; 0 if it is not.
    """

    def __init__(self, number: int, member: DatasetRun, shard: int, pages: range, left: int) -> None:
        self.number = number
        self.member = member
        self.shard = shard
        self.pages = pages
        self.left = left
        self.returned: list[int] = []
        self.recalled = 0.0
        self.end: asyncio.Future[Sealed | Left] = asyncio.get_running_loop().create_future()


class Child:
    """One child process and the stream to it.

    Attributes:
        pid: of the process.
    """

    def __init__(self, pid: int, stream: socket.socket) -> None:
        self.pid = pid
        self._socket = stream
        self._stream: asyncio.StreamWriter | None = None
        self._takes: dict[int, Callable[[FromChild], None]] = {}
        self._status: int | None = None

    async def listen(self) -> None:
        """Pass on what it says, until it ends.

        Raises:
            LocalError: it has ended with a block in its hands.
        """
        reader, self._stream = await asyncio.open_unix_connection(sock=self._socket.dup())
        inbox: Inbox[FromChild] = Inbox(FromChild)
        with suppress(ConnectionError):
            while data := await reader.read(_READ):
                for message in inbox.feed(data):
                    self._takes[message.number](message)
        raise LocalError(
            f"a process of this run has ended unexpectedly: {await asyncio.to_thread(self._wait)}",
            hint="run again: what is kept is not fetched again; with fewer --processes if memory is short",
        )

    @property
    def ready(self) -> bool:
        """Whether it can be talked to."""
        return self._stream is not None

    @property
    def busy(self) -> bool:
        """Whether it has a block."""
        return bool(self._takes)

    def lend(self, block: Block, take: Callable[[FromChild], None]) -> None:
        """Hand a block over; ``take`` is told of it until ``forget``."""
        self._takes[block.number] = take
        self.tell(block)

    def tell(self, message: ToChild) -> None:
        """Send a message."""
        assert self._stream is not None  # noqa: S101 - for the type checker; ready was looked at
        self._stream.write(encoded(message))

    def forget(self, number: int) -> None:
        """Expect nothing more of a block."""
        del self._takes[number]

    def let_go(self) -> None:
        """Forget the stream, which another process goes on with."""
        self._socket.close()

    def end(self) -> None:
        """See to it that the process is gone."""
        if self._status is not None:
            return
        if self.busy:  # nobody wants what it is doing, and it must not go on with it
            os.kill(self.pid, signal.SIGKILL)
        with suppress(OSError):  # it has ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._stream is not None:
            self._stream.close()
        self._wait()

    def _wait(self) -> str:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        code = self._status
        return f"signal {-code}" if code < 0 else f"exit status {code}"


class Pool:
    """All children of a run."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = tuple(children)
        self.numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    async def listen(self) -> None:
        """Pass on what children say, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(child.listen())

    def end(self) -> None:
        """See to it that all of them are gone; a second call does nothing."""
        for child in self.children:
            child.end()


class Lender:
    """Lets children take part in the work of one app.

    Args:
        pool: the children.
        members: the app's datasets.
        writer: makes things durable, in the order in which it is asked to.
        events: told of what is not as it should be.
        may: whether the app may be called by children at present.
        wake: told when other pages may be worth asking for.
        go_on: takes a dataset to its next phase, if nothing of the present one is left.
    """

    def __init__(
        self,
        pool: Pool,
        members: Sequence[DatasetRun],
        writer: Writer,
        events: Events,
        may: Callable[[], bool],
        wake: Callable[[], None],
        go_on: Callable[[DatasetRun], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._members = deque(members)
        self._writer = writer
        self._events = events
        self._may = may
        self._go_on = go_on
        self._wake = wake
        self._closed = False
        self._changed = asyncio.Event()  # a block has ended, or it is over
        self._prepared: dict[str, str] = {}  # with which charset children may write, by dataset
        self._rests: dict[int, float] = {}  # until when, by process

    def close(self) -> None:
        """Lend nothing more, and have everything back."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Lend until closed, and then until everything is back."""
        async with asyncio.TaskGroup() as group:
            for child in self._pool.children:
                group.create_task(self._share(child, group))

    async def _share(self, child: Child, group: asyncio.TaskGroup) -> None:
        out: list[Lent] = []
        while out or not self._closed:
            out = [lent for lent in out if not lent.end.done()]
            for lent in out:
                self._recall(child, lent)
            while child.ready and self._room(child, out):
                more = await self._lend(child)
                if more is None:
                    break
                out.append(more)
                group.create_task(self._settle(child, more))
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._changed.wait()

    def _room(self, child: Child, out: Sequence[Lent]) -> bool:
        if self._closed or not self._may() or counter() < self._rests.get(child.pid, 0.0):
            return False
        return len(out) < BLOCKS and sum(lent.left for lent in out) < AHEAD

    def _recall(self, child: Child, lent: Lent) -> None:
        """Have a block back that nobody wants any more; a child that does not hear is ended."""
        if lent.recalled:
            if counter() > lent.recalled + PATIENCE:
                os.kill(child.pid, signal.SIGKILL)
        elif self._closed or lent.member.finished:
            lent.recalled = counter()
            child.tell(Recall(lent.number))

    async def _lend(self, child: Child) -> Lent | None:
        """Lend a shard of the next dataset that has one."""
        for _ in range(len(self._members)):
            member = self._members[0]
            self._members.rotate(-1)
            if not (member.lendable and await self._is_prepared(member)):
                continue
            layout, frontier = member.snapshot.layout, member.frontier
            found = frontier.lend(layout.pages_per_shard) if layout is not None and self._wanted(member) else None
            if layout is None or found is None:
                continue
            pages, here = found
            lent = Lent(next(self._pool.numbers), member, layout.shard_of(pages[0]), pages, len(pages) - len(here))
            if here:
                await self._writer.do(member.hand_over(lent.shard))
            path = member.snapshot.path
            block = Block(
                number=lent.number,
                dataset=member.dataset.name,
                charset=member.dataset.charset,
                echoes=frontier.echoes is not False,
                path=str(path),
                owner=DatasetFolder(path.parent).owner(),
                layout=layout,
                shard=lent.shard,
                here=here,
            )
            child.lend(block, partial(self._take, lent))
            self._events.tell("lent", dataset=member.dataset.name, shard=lent.shard, process=child.pid)
            return lent
        return None

    def _wanted(self, member: DatasetRun) -> bool:
        return member.lendable and not self._closed

    async def _is_prepared(self, member: DatasetRun) -> bool:
        name, charset = member.dataset.name, member.dataset.charset
        if self._prepared.get(name) != charset and await self._writer.do(member.prepare()):
            self._prepared[name] = charset
        return self._prepared.get(name) == member.dataset.charset

    def _take(self, lent: Lent, message: FromChild) -> None:
        """Take in what a child says of a block."""
        if isinstance(message, Failed):
            raise LocalError(message.message, hint=message.hint)
        if not isinstance(message, Report):
            lent.end.set_result(message)
            self._changed.set()
            return
        member = lent.member
        member.counts.calls += message.calls
        for code, text, times in message.refused:
            member.counts.refused += times
            self._events.sum("over limit", member.dataset.name, code, text, times)
        lent.left -= len(message.pages) + len(message.returned)
        if message.pages:
            member.health.succeeded(counter())
            member.told(message.pages, datetime.now(UTC))
        lent.returned += message.returned
        self._wake()

    async def _settle(self, child: Child, lent: Lent) -> None:
        """Take a shard over when its block has ended."""
        end, member = await lent.end, lent.member
        child.forget(lent.number)
        if isinstance(end, Sealed) and member.frontier.here(lent.pages):
            await self._writer.do(partial(member.keeper.record, end.entry, end.records))
        else:
            await self._writer.do(partial(member.keeper.adopt, lent.shard))
            if isinstance(end, Left) and not lent.recalled:
                self._rests[child.pid] = counter() + REST * bool(end.why)
                self._events.tell("block back", dataset=member.dataset.name, shard=lent.shard, reason=end.why)
        for page in lent.returned:  # not before: their journal was the child's
            member.frontier.put_back(page)
        member.frontier.returned()
        self._wake()
        await self._go_on(member)

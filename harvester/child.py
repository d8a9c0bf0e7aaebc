"""The processes that help a run: made before it begins, each fetches the blocks that the parent lends it.

They are forked before there is an event loop, a thread or a lock, so they know the job with its secrets without being
told, and inherit no hold on anything. A child ends when the stream to its parent does, whatever has become of that;
what it may still be writing then, the next run waits for, since the child holds a lock while it does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, NoReturn, Self

from harvester.app_run import DRAIN, UNPACED, calls_possible, pacer_for
from harvester.attempt import Again, Caller, Decision, Keep, counter
from harvester.block import Work
from harvester.concurrency import MOST, Concurrency
from harvester.errors import HarvesterError, UsageError
from harvester.events import Events
from harvester.health import Health
from harvester.job import Job
from harvester.messages import Block, FromChild, Inbox, Left, Recall, Report, ToChild, encoded
from harvester.model import App, Kind
from harvester.platforms import PLATFORMS
from harvester.pool import Child, Pool
from harvester.send import Sender
from harvester.writer import Writer

REPORT: Final = 0.1  # seconds between reports
_READ: Final = 2**16

Run = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine in an event loop."""


def fork(job: Job, processes: int, run: Run) -> Pool:
    """Make the children of a run of so many processes, this one included; before any loop, thread or lock.

    Raises:
        UsageError: this system cannot.
    """
    if processes > 1 and not hasattr(os, "fork"):
        raise UsageError("this system cannot fork, so a run has one process here", hint="leave --processes out")
    children: list[Child] = []
    gc.collect()
    gc.freeze()  # so that the collector does not copy what parent and children share
    for _ in range(processes - 1):
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            for other in children:  # or they would not see the parent's end
                other.let_go()
            ours.close()
            _be_child(job, processes, theirs, run, parent)
        theirs.close()
        children.append(Child(pid, ours))
    return Pool(children)


def _be_child(job: Job, processes: int, parent: socket.socket, run: Run, parent_pid: int) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # they come to the whole group, and the parent has its own ways
        if os.getppid() == parent_pid:
            run(_serve(job, processes, parent))
        code = 0
    except BaseException:  # noqa: BLE001 - the last resort of a process: the parent sees the code, people the words
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the parent's is to be flushed or cleaned up here


async def _serve(job: Job, processes: int, parent: socket.socket) -> None:
    reader, stream = await asyncio.open_unix_connection(sock=parent)
    writer = Writer()
    inbox: Inbox[ToChild] = Inbox(ToChild)
    crews: dict[str, Crew] = {}
    apps = {dataset.app.name: dataset.app for dataset in job.datasets}
    datasets = {dataset.name: dataset for dataset in job.datasets}

    def tell(message: FromChild | None) -> None:
        if message is not None:
            stream.write(encoded(message))

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        group.create_task(_reports(crews, tell))
        while data := await reader.read(_READ):
            for message in inbox.feed(data):
                if isinstance(message, Recall):
                    for crew in crews.values():
                        crew.recall(message.number)
                    continue
                dataset = datasets[message.dataset]
                name = dataset.app.name
                if name not in crews:
                    most = calls_possible(len(apps), len(datasets))
                    crews[name] = Crew(job, apps[name], processes, most, writer, group, tell)
                    await stack.enter_async_context(crews[name])
                crews[name].add(message)
        os._exit(0)  # the parent has gone, or needs nothing more: whatever is under way here is nobody's


async def _reports(crews: dict[str, Crew], tell: Callable[[FromChild | None], None]) -> None:
    while True:
        await asyncio.sleep(REPORT)
        for crew in crews.values():
            for work in crew.works.values():
                tell(work.report())


class Crew:
    """The workers of one app in a child.

    Args:
        job: of the run.
        app: whose calls they make.
        processes: that share the calls in flight, where the job file says how many there may be.
        most: calls in flight that this process has descriptors for.
        writer: makes pages durable.
        group: where tasks run.
        tell: sends a message to the parent.

    Attributes:
        works: the blocks that have not ended, by number.
    """

    def __init__(
        self,
        job: Job,
        app: App,
        processes: int,
        most: int,
        writer: Writer,
        group: asyncio.TaskGroup,
        tell: Callable[[FromChild | None], None],
    ) -> None:
        self.works: dict[int, Work] = {}
        self._job = job
        self._writer = writer
        self._group = group
        self._tell = tell
        self._pacer = pacer_for(app, job.run.limit_patience, Events())
        self._sender = Sender.of(app, job.run.timeout)
        self._caller = Caller(app, PLATFORMS[app.platform], self._pacer, self._sender, job.run.attempts)
        self._health = Health(counter(), job.run.stall_patience)
        self._asking: deque[Work] = deque()
        self._workers: dict[asyncio.Task[None], Work | None] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._concurrency = None
        self._slots = min(UNPACED, most)
        if job.run.concurrency != "auto":
            self._slots = min(job.run.concurrency // processes, most)
        elif app.rate_limit is not None:
            self._concurrency = Concurrency(app.rate_limit * app.rate_share, min(MOST, most))
            self._slots = self._concurrency.slots
        self._proven = False  # the first call goes alone, so that a wrong clock costs one call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sender.__aexit__(None, None, None)
        self._pacer.close()

    def add(self, block: Block) -> None:
        """Begin a block, or give it back if that cannot be."""
        dataset = next(dataset for dataset in self._job.datasets if dataset.name == block.dataset)
        try:
            if not (self._pacer.shared and self._slots):
                raise UsageError("the limit cannot be shared")
            work = Work(block, dataset, self._health)
        except HarvesterError as error:
            pages = sorted(set(block.layout.pages_of(block.shard)) - set(block.here))
            self._tell(Report(number=block.number, pages=[], calls=0, refused=[], returned=pages))
            self._tell(Left(block.number, error.message))
            return
        self.works[block.number] = work
        self._asking.append(work)
        self._staff()

    def recall(self, number: int) -> None:
        """Send nothing more for a block; what is in flight has ``DRAIN`` seconds."""
        work = self.works.get(number)
        if work is None or work.ending:
            return
        work.recall()
        for worker, its in list(self._workers.items()):
            if its is work and worker not in self._sending:
                worker.cancel()
        asyncio.get_running_loop().call_later(DRAIN, self._cut, work)
        self._look(work)

    def _cut(self, work: Work) -> None:
        for worker, its in list(self._workers.items()):
            if its is work:
                worker.cancel()

    def _staff(self) -> None:
        most = self._slots if self._proven else 1
        while len(self._workers) < most and self._asking:
            worker = self._group.create_task(self._work())
            self._workers[worker] = None

    def _next(self) -> tuple[Work, int] | None:
        while self._asking:
            work = self._asking[0]
            if (page := work.next()) is not None:
                return work, page
            self._asking.popleft()
            self._look(work)
        return None

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine of a TaskGroup is a task; for the type checker
        work: Work | None = None
        try:
            while len(self._workers) <= self._slots and (turn := self._next()) is not None:
                work, page = turn
                self._workers[me] = work
                kept = await self._ask(me, work, page)
                self._look(work)
                if kept:
                    await self._writer.add(work, kept)
        except asyncio.CancelledError:
            if work is None or not work.ending:
                raise
            self._look(work)  # it was recalled
        finally:
            del self._workers[me]
        self._staff()

    async def _ask(self, me: asyncio.Task[None], work: Work, page: int) -> int:
        """Ask for one page; return the bytes that are to be kept."""
        try:
            permitted = await self._pacer.permit()
            if work.ending:
                self._pacer.answered(permitted, accepted=False)
                work.again(page)
                return 0
            self._sending.add(me)
            crowd = len(self._sending)
            work.called()
            decision = await self._caller.attempt(work.subject, page, permitted)
        except BaseException:
            work.again(page)
            raise
        finally:
            self._sending.discard(me)
        if isinstance(decision, Keep) and work.fits(page, decision.page):
            work.keep(page, decision.page)
            self._adapt(permitted, crowd)
            return len(decision.page.lines)
        self._follow(work, page, decision)
        return 0

    def _follow(self, work: Work, page: int, decision: Decision) -> None:
        """Ask again where it is the rate or the clock; leave everything else to the parent."""
        if isinstance(decision, Keep):
            work.give_back(page, "pages that take a closer look")
            return
        verdict = decision.verdict
        if isinstance(decision, Again) and verdict.kind in {Kind.OVER_LIMIT, Kind.CLOCK}:
            over = verdict.kind is Kind.OVER_LIMIT
            work.again(page, (verdict.code, verdict.text) if over else None)
            if over and self._pacer.exhausted:
                work.recall(f"nothing but refusals: {verdict.code}")
            elif work not in self._asking and not work.ending:
                self._asking.appendleft(work)
        else:
            work.give_back(page, f"{verdict.code}: {verdict.meaning}")

    def _adapt(self, sent: float, crowd: int) -> None:
        """Let the number of calls in flight follow what an answer has shown."""
        if self._concurrency is not None:
            starved = len(self._sending) >= self._slots and not self._pacer.waiting
            self._concurrency.answered(counter(), sent, crowd, starved=starved)
            if self._concurrency.slots != self._slots:
                self._slots = self._concurrency.slots
                self._staff()
        if not self._proven:
            self._proven = True
            self._staff()

    def _look(self, work: Work) -> None:
        """End a block that has nothing left under way."""
        if work.over and not work.ended:
            self._group.create_task(self._end(work))
            work.ended = True

    async def _end(self, work: Work) -> None:
        ending = work.end()
        self._tell(work.report())
        ended = await self._writer.do(ending)
        self._tell(work.report())
        self._tell(ended)
        with suppress(KeyError):
            del self.works[work.block.number]

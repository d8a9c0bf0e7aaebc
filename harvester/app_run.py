"""The workers of one app: a turn, a permit, an attempt, and what follows; one loop, read it from top to bottom."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from math import isfinite
from typing import Final, cast

from msgspec.structs import replace

from harvester.attempt import Again, Caller, Decision, Keep, Leave, Refuse, counter
from harvester.concurrency import MOST, Concurrency
from harvester.dataset_run import DatasetRun, Stop
from harvester.errors import Exit, HarvesterError, LocalError
from harvester.events import Events
from harvester.health import Health
from harvester.job import RunSettings
from harvester.model import App, Kind, Verdict
from harvester.pace import Pacer
from harvester.platforms import PLATFORMS
from harvester.pool import Lender, Pool
from harvester.schedule import Budget, Schedule, Turn
from harvester.send import Sender
from harvester.shortage import Shortage
from harvester.slots import SharedSlots, path_for, state_folder
from harvester.writer import Writer

UNPACED: Final = 64  # calls in flight where no rate limit says how many are of use
OTHER_FILES: Final = 32  # open files beside connections: the interpreter's, the log, what is written just now
DATASET_FILES: Final = 4  # the same for each dataset: its folders, lock, index, ledger
DRAIN: Final = 5.0  # seconds that calls in flight get when the run is told to stop


def calls_possible(apps: int, datasets: int) -> int:
    """Return for how many calls in flight each app has descriptors, after those that the store and the rest need."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, (files - OTHER_FILES - DATASET_FILES * datasets) // max(1, apps))


def pacer_for(app: App, patience: float, events: Events) -> Pacer:
    """Return the pacer of an app, which shares its moments with other processes of this machine.

    Args:
        app: whose limit it is.
        patience: seconds of nothing but refusals.
        events: told of the pace, and if the moments cannot be shared.
    """
    if app.rate_limit is None:
        return Pacer(None, patience, counter)
    limit = app.rate_limit * app.rate_share
    slots = None
    try:
        slots = SharedSlots(path_for(state_folder(os.environ), app.platform, app.url, app.id))
    except OSError as error:
        events.tell("limit not shared", app=app.name, reason=error.strerror or "no state folder")
    pacer = Pacer(limit, patience, counter, app.headroom, slots)
    events.tell("pace", app=app.name, limit=limit, headroom=app.headroom, rate=round(pacer.rate, 3), burst=pacer.burst)
    return pacer


class AppRun:
    """All datasets of one app, sharing its pacer, its connections and its workers.

    Args:
        app: whose credentials sign.
        members: its datasets.
        settings: of the run.
        budget: of the whole run.
        events: told of everything.
        writer: makes pages durable.
        reread: fetches the app's secret once more (``Job.rereaders``).
        most: calls in flight that this process has descriptors for.
        pool: processes that may fetch whole shards.
    """

    def __init__(  # noqa: PLR0913 - wiring; each is made elsewhere
        self,
        app: App,
        members: Sequence[DatasetRun],
        settings: RunSettings,
        *,
        budget: Budget,
        events: Events,
        writer: Writer,
        reread: Callable[[App], App | None] | None = None,
        most: int = MOST,
        pool: Pool | None = None,
    ) -> None:
        self.app = app
        self.members = members
        self._settings = settings
        self._events = events
        self._writer = writer
        self._pacer = pacer_for(app, settings.limit_patience, events)
        self._budget = budget
        self._schedule = Schedule(members, budget, counter)
        self._concurrency = None
        self._slots = min(UNPACED, most)
        if settings.concurrency != "auto":
            processes = 1 if pool is None else 1 + len(pool.children)
            theirs = settings.concurrency // processes
            pool = pool if theirs else None
            self._slots = min(settings.concurrency - (processes - 1) * theirs, most)
        elif app.rate_limit is not None:
            self._concurrency = Concurrency(app.rate_limit * app.rate_share, min(MOST, most))
            self._slots = self._concurrency.slots
        self._wanted = self._slots  # what they are while nothing is short
        self._group = asyncio.TaskGroup()
        self._workers: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._down: set[Health] = set()
        self._reread = reread
        self._shortage = Shortage()
        self._lender = None
        if pool is not None:
            self._lender = Lender(
                pool,
                members,
                writer,
                events,
                may=lambda: self._may_lend(app),
                wake=self._schedule.wake,
                go_on=self._go_on,
            )

    async def run(self) -> None:
        """Work until every dataset of the app is done, stopped or interrupted."""
        with closing(self._pacer):
            try:
                connections = Sender.of(self.app, self._settings.timeout)
            except LocalError as error:  # this app's affair: the others go on
                self._stop_all(
                    Stop(exit=error.exit, message="; ".join([error.message, *error.causes]), hint=error.hint)
                )
                return
            async with connections as sender:
                platform, attempts = PLATFORMS[self.app.platform], self._settings.attempts
                caller = Caller(self.app, platform, self._pacer, sender, attempts, self._reread)
                for member in self.members:
                    if member.ledger is not None:
                        member.ledger.use_clock(lambda: caller.clock.now(counter()))
                    await self._go_on(member)
                async with asyncio.TaskGroup() as lending:
                    if self._lender is not None:
                        lending.create_task(self._lender.run())
                    async with self._group:
                        self._staff(caller)
                    if self._lender is not None:
                        self._lender.close()

    def _may_lend(self, app: App) -> bool:
        """Tell whether other processes may call: by the same limit, with the secret that they know, for no bound."""
        bound = (self._budget.pages, self._budget.calls) != (None, None)
        return self._pacer.shared and self.app is app and not (bound or self._schedule.closed)

    def _staff(self, caller: Caller) -> None:
        """Have one worker per slot; those that are too many leave by themselves."""
        while len(self._workers) < self._slots:
            worker = self._group.create_task(self._work(caller))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def stop(self) -> None:
        """Send nothing more; give what is in flight ``DRAIN`` seconds."""
        self._schedule.close()
        if self._lender is not None:
            self._lender.close()
        for worker in self._workers - self._sending:
            worker.cancel()
        if self._sending:
            await asyncio.wait(self._sending, timeout=DRAIN)
        for worker in self._workers:
            worker.cancel()

    async def _work(self, caller: Caller) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine of a TaskGroup is a task; for the type checker
        while len(self._workers) <= self._slots and (turn := await self._schedule.take()) is not None:
            member = cast(DatasetRun, turn.member)
            permitted = await self._pacer.permit()
            if not await self._may_call(turn, member):
                self._pacer.answered(permitted, accepted=False)
                self._schedule.again(turn, after=0)
                self._schedule.give_back(turn, called=False, kept=False)
                await self._go_on(member)
                continue
            self._sending.add(me)
            crowd = len(self._sending)
            try:
                member.counts.calls += 1
                decision = await caller.attempt(member.subject, turn.page, permitted)
                if caller.app is not self.app:
                    self.app = caller.app
                    self._events.tell("new secret", app=self.app.name)
                kept = self._follow(turn, member, decision)
                if isinstance(decision, Again) and decision.local:
                    self._spare(permitted, crowd, decision.verdict)
                elif isinstance(decision, Keep):
                    self._adapt(permitted, crowd, caller)
            finally:
                self._sending.discard(me)
            self._schedule.give_back(turn, called=True, kept=kept)
            if kept and isinstance(decision, Keep):
                await self._writer.add(member, len(decision.page.lines))
            if not member.pages.in_flight:
                self._sending.add(me)  # not to be cancelled before its time either
                await self._go_on(member)
                self._sending.discard(me)
        self._workers.discard(me)  # at once, so that of several that look only those leave who are too many

    async def _may_call(self, turn: Turn, member: DatasetRun) -> bool:
        """Look once more before a call: the end may have been found meanwhile, or the allowance used up."""
        if member.finished or not (turn.probe or member.pages.wanted(turn.page)):
            return False
        if member.ledger is None or not member.metered:
            return True
        taken = await asyncio.to_thread(member.ledger.take)
        if taken and self._schedule.closed:  # the run was stopped meanwhile
            await asyncio.to_thread(member.ledger.give_back)
            return False
        if not taken and member.reading is not None:
            member.reading.cut_short()  # all pages are here: what was read again so far has to do
        elif not taken:
            resets = member.ledger.state().resets
            when = f", which resets on {resets:%Y-%m-%d} (Beijing time)" if resets else ""
            member.stop = Stop(
                exit=Exit.BUDGET,
                message=f"the allowance of {member.dataset.max_calls:,} calls is used up{when}",
                hint="run again when it resets; `harvester quota JOB` shows what is left",
            )
        return taken

    async def _go_on(self, member: DatasetRun) -> None:
        """Take a dataset to its next phase, or to its end, if nothing of the present one is left."""
        while not (member.concluded or member.changing or member.pages.in_flight) and member.pages.exhausted:
            member.changing = True
            try:
                if not member.stopped and member.frontier.complete:
                    await self._writer.do(member.settle())
                    if member.go_on(self._calls_left(member)):
                        continue
                await self.conclude(member)
            finally:
                member.changing = False
                self._schedule.wake()

    def _calls_left(self, member: DatasetRun) -> int | None:
        """Return how many calls a dataset may still make, by the run's bound and the platform's allowance."""
        allowed = [] if self._budget.calls is None else [self._budget.calls]
        if member.ledger is not None and (left := member.ledger.state().left) is not None:
            allowed.append(left)
        return min(allowed, default=None)

    def _adapt(self, sent: float, crowd: int, caller: Caller) -> None:
        """Let the number of calls in flight follow what an answer has shown."""
        if (concurrency := self._concurrency) is not None:
            starved = len(self._sending) >= self._slots and not self._pacer.waiting
            change = concurrency.answered(counter(), sent, crowd, starved=starved)
            if change:
                self._events.tell(
                    "in flight",
                    app=self.app.name,
                    calls=concurrency.slots,
                    because=change,
                    latency=round(concurrency.latency, 3),
                )
            self._wanted = concurrency.slots
        slots = int(min(self._wanted, self._shortage.most(counter())))
        if slots != self._slots:
            self._slots = slots
            self._staff(caller)

    def _spare(self, sent: float, crowd: int, verdict: Verdict) -> None:
        """Have fewer calls in flight: this machine has no descriptor or port left for another one."""
        if self._shortage.met(counter(), sent, crowd):
            self._slots = int(min(self._slots, self._shortage.most(counter())))
            self._events.tell("fewer calls", app=self.app.name, calls=self._slots, reason=verdict.meaning)

    async def conclude(self, member: DatasetRun) -> None:
        """Bring one dataset to its end in this run."""
        if member.concluded:
            return
        member.concluded = True
        if not member.stopped and not member.planned and not member.frontier.complete:
            member.stop = self._unfinished(member)
        try:
            await self._writer.do(member.last_batch())
        except HarvesterError as error:  # the other datasets go on; a full disk will stop them by itself
            member.stop = Stop(exit=error.exit, message="; ".join([error.message, *error.causes]), hint=error.hint)
        self._events.tell("concluded", dataset=member.dataset.name, published=member.published)

    def explain_permissions(self) -> None:
        """Say whom missing permissions concern: credentials that open another dataset are good."""
        lacking = [member for member in self.members if member.stop is not None and member.stop.about == "permission"]
        works = any(member.frontier.done for member in self.members)
        for member in lacking:
            if member.stop is not None and (
                note := permission_note(works=works, all_lack=lacking == list(self.members))
            ):
                member.stop = replace(member.stop, message=f"{member.stop.message}; {note}")

    def _unfinished(self, member: DatasetRun) -> Stop:
        missing = member.frontier.missing()
        if not missing:
            return self._endless(member)
        shown = ", ".join(f"{page:,}" for page in missing[:5]) + (
            f" and {len(missing) - 5:,} more" if missing[5:] else ""
        )
        why = member.failures.get(missing[0], "")
        return Stop(
            exit=Exit.OPEN_PAGES,
            message=f"open after temporary failures: page{'s' if missing[1:] else ''} {shown}"
            + (f"; {why}" if why else ""),
            hint="run again: what is kept is not fetched again"
            + ("; bytes that nobody could read are in quarantine/ of the snapshot" if member.unreadable else ""),
        )

    @staticmethod
    def _endless(member: DatasetRun) -> Stop:
        """Say why no end was found although nothing is left to ask for."""
        page = member.frontier.failing
        if not page:
            return Stop(exit=Exit.OPEN_PAGES, message="the end of the list could not be established", hint="run again")
        return Stop(
            exit=Exit.REFUSED,
            message=f"refused by the platform: page {page:,}: {member.failures.get(page, '')}; pages further on do not "
            "fail alike, so this is not the end of the list",
            hint="if the platform mends the page, run again: what is kept is not fetched again",
        )

    # -- what follows from an answer ----------------------------------------------------------------------------

    def _follow(self, turn: Turn, member: DatasetRun, decision: Decision) -> bool:
        """Act on a decision; return whether a page was kept."""
        name = member.dataset.name
        if not (isinstance(decision, Again) and decision.verdict.kind is Kind.CLOCK):
            self._schedule.together()
        match decision:
            case Keep(page):
                if member.health in self._down:
                    self._down.discard(member.health)
                    self._events.tell("up again", app=self.app.name, dataset=name)
                return False if turn.probe else member.accept(turn.page, page, datetime.now(UTC))
            case Again(verdict, after):
                self._again(member, decision)
                if turn.probe or not member.past_end(turn.page, verdict, final=False):
                    self._schedule.again(turn, after)
                else:
                    member.failures[turn.page] = told(verdict)
            case Leave() | Refuse():
                if turn.probe or not member.past_end(turn.page, decision.verdict, final=True):
                    self._give_up(turn, member, decision)
                else:
                    member.failures[turn.page] = told(decision.verdict)
        return False

    def _give_up(self, turn: Turn, member: DatasetRun, decision: Leave | Refuse) -> None:
        """Leave a page open, or stop whomever the platform refuses."""
        verdict = decision.verdict
        if isinstance(decision, Refuse):
            self._refuse(member, decision)
        else:
            self._events.tell(
                "left open", dataset=member.dataset.name, page=turn.page, code=verdict.code, text=verdict.text
            )
            if decision.body:
                member.set_aside(turn.page, decision.body, verdict.meaning)
            member.failures[turn.page] = told(verdict)
        if not turn.probe:
            member.pages.leave_open(turn.page)

    def _again(self, member: DatasetRun, decision: Again) -> None:
        name, verdict, paused = member.dataset.name, decision.verdict, decision.paused
        if verdict.kind is Kind.OVER_LIMIT:
            member.counts.refused += 1
            self._events.sum("over limit", name, verdict.code, verdict.text)
            if paused:
                self._events.tell(
                    "paused",
                    app=self.app.name,
                    code=verdict.code,
                    text=verdict.text,
                    seconds=round(paused, 2),
                    rate=round(self._pacer.rate, 2) if isfinite(self._pacer.rate) else None,
                )
            member.limited += 1
            if member.metered and member.limited > 1 and not member.finished:
                member.stop = Stop(
                    exit=Exit.BUDGET,
                    message=f"over the limit twice, so the allowance is probably used up: {told(verdict)}",
                    hint="run again when it resets; if `harvester quota JOB` says that calls are left, put it right "
                    "with --set-used",
                )
            if self._pacer.exhausted:
                self._stop_all(
                    Stop(
                        exit=Exit.BUDGET,
                        message=f"nothing but refusals for {self._settings.limit_patience:g} s: {told(verdict)}",
                        hint="the allowance is probably used up; run again when it resets",
                    )
                )
            return
        member.counts.retried += 1
        self._events.sum("failed", name, verdict.code, verdict.text or verdict.meaning)
        health = member.health
        if health.down and health not in self._down:
            self._down.add(health)
            self._events.tell("down", app=self.app.name, dataset=name, failure=health.last_error)
        if health.hopeless(counter()):
            stop = Stop(
                exit=Exit.LOCAL if decision.ours else Exit.OPEN_PAGES,
                message=("" if decision.ours else "the platform is down: ")
                + f"no good answer for {health.silence(counter()):.0f} s; the last failure: {health.last_error}",
                hint=f"{verdict.hint}, then run again"
                if decision.ours
                else "check the network and the platform's announcements, then run again",
            )
            for other in self.members:
                if other.health is health and not other.stopped:
                    other.stop = stop

    def _refuse(self, member: DatasetRun, decision: Refuse) -> None:
        verdict = decision.verdict
        stop = Stop(
            exit=Exit.LOCAL if decision.ours else Exit.REFUSED,
            message=("" if decision.ours else "refused by the platform: ") + told(verdict),
            hint=verdict.hint,
            about=verdict.about,
        )
        self._events.tell(
            "refused",
            dataset=member.dataset.name,
            app=self.app.name,
            concerns=verdict.concerns,
            code=verdict.code,
            text=verdict.text,
        )
        if verdict.concerns == "app":
            self._stop_all(stop)
        elif not member.stopped:
            member.stop = stop

    def _stop_all(self, stop: Stop) -> None:
        for member in self.members:
            if not member.stopped and not member.concluded:
                member.stop = stop


def permission_note(*, works: bool, all_lack: bool) -> str:
    """Tell missing permissions from wrong credentials by what happened to the app's other datasets."""
    if works:
        return "the credentials are good, for another dataset of this app works"
    return "every dataset of this app gets this answer, so check the credentials first" if all_lack else ""


def told(verdict: Verdict) -> str:
    """Render a verdict: the platform's own code and text, then what it means."""
    words = f" 「{verdict.text}」" if verdict.text else ""
    return f"{verdict.code}{words} - {verdict.meaning}"

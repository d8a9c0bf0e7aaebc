"""One gateway while it is measured: a first call, ever more calls, probes, a short harvest. See ``bench``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from harvester.app_run import UNPACED, calls_possible, pacer_for, told
from harvester.attempt import Again, Caller, Decision, Keep, Leave, Refuse, Subject, counter
from harvester.bench.counting import Counting
from harvester.bench.diagnosis import Work, diagnose
from harvester.bench.load import Bound, Calls, TimedSender, now
from harvester.bench.offering import Answer, Offer, Step, even, figures
from harvester.bench.probing import probe
from harvester.bench.ramp import REST, is_refused, ramp
from harvester.bench.report import Report
from harvester.bench.scratch import scratch
from harvester.bench.short_harvest import ShortHarvest
from harvester.concurrency import FEWEST, MOST, SPARE
from harvester.errors import Exit
from harvester.events import Events
from harvester.health import Health
from harvester.job import Job
from harvester.ledger import counted_calls
from harvester.model import Dataset, Kind, Page
from harvester.pace import Pacer
from harvester.platforms import PLATFORMS

R = TypeVar("R")

FIRST: Final = 20.0  # calls a second that ramping begins with, if the job file says nothing
PART: Final = 4  # else this part of what it says
HARVEST: Final = 3.0  # seconds of the short harvest
STEPS: Final = (0.25, 0.5, 1.0)  # of the pace that a platform is offered
STEP: Final = 1.3  # seconds of each at most
_NOT_OBSERVED: Final = Counting(kind="unknown", remark="not observed")
_USED_UP: Final = Counting(kind="unknown", remark="not observed: the calls or seconds allowed were used up")


class Limits(Struct, frozen=True, kw_only=True):
    """What the caller allows: calls and seconds; None for no bound."""

    calls: int | None = None
    seconds: float | None = None


async def measure(job: Job, dataset: Dataset, limits: Limits, *, own: bool, tell: Callable[[str], None]) -> Report:
    """Measure the gateway of a dataset.

    Args:
        job: of the dataset, for its settings and its output folder.
        dataset: whose first page is asked for.
        limits: what the caller allows.
        own: whether the gateway is one's own, so that it may be offered more than it takes.
        tell: is told what goes on.
    """
    app = dataset.app
    bound = Bound(limits.calls, None if limits.seconds is None else now() + limits.seconds)
    with ExitStack() as stack:
        ledger = counted_calls(dataset, stack)
        pacer = stack.enter_context(closing(pacer_for(app, job.run.limit_patience, Events())))
        sender = TimedSender.of(app, job.run.timeout)
        async with sender:
            caller = Caller(app, PLATFORMS[app.platform], pacer, sender, attempts=1)
            if ledger is not None:
                ledger.use_clock(lambda: caller.clock.now(counter()))
            calls = Calls(
                dataset=dataset,
                platform=PLATFORMS[app.platform],
                sender=sender,
                clock=lambda: caller.clock.now(counter()),
                bound=bound,
                ledger=ledger,
            )
            measurement = _Measurement(job, dataset, calls, pacer, limits, own=own, tell=tell)
            return await measurement.run(caller)


class _Measurement:
    """One dataset's gateway while it is measured."""

    def __init__(
        self,
        job: Job,
        dataset: Dataset,
        calls: Calls,
        pacer: Pacer,
        limits: Limits,
        *,
        own: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._job = job
        self._dataset = dataset
        self._calls = calls
        self._pacer = pacer
        self._limits = limits
        self._tell = tell
        self._own = own
        self._most = calls_possible(1, 1)
        self._made = 0
        self._steps: list[Step] = []

    async def run(self, caller: Caller) -> Report:
        """Call once to see whether it works; then offer, probe, harvest."""
        decision = await self._first(caller)
        if not isinstance(decision, Keep):
            return self._without(decision)
        counting = _NOT_OBSERVED
        if self._own:
            counting = await self._count()
        else:
            await self._steps_below()
        work = await self._harvest(decision.page)
        return self._report(counting, work)

    async def _first(self, caller: Caller) -> Decision | None:
        """Make the first call, once more if the clock had to be put right; None if no call was left."""
        subject = Subject(self._dataset, Health(counter(), self._job.run.stall_patience))
        decision: Decision | None = None
        for _ in range(2):
            if not await self._calls.take():
                return None
            self._made += 1
            decision = await caller.attempt(subject, 1, await self._pacer.permit())
            if isinstance(decision, Keep) or decision.verdict.kind is not Kind.CLOCK:
                break
        return decision

    def _without(self, decision: Again | Leave | Refuse | None) -> Report:
        """Return the report of what could not be measured, for a reason."""
        report = self._report(_NOT_OBSERVED, None)
        if decision is None:
            hint = "`harvester quota JOB` shows when the allowance resets"
            return replace(report, exit=Exit.BUDGET, message="no call is left", hint=hint)
        verdict = decision.verdict
        if not isinstance(decision, Leave) and decision.ours:
            code = Exit.LOCAL
        elif isinstance(decision, Refuse):
            code = Exit.REFUSED
        else:
            code = Exit.BUDGET if verdict.kind is Kind.OVER_LIMIT else Exit.OPEN_PAGES
        return replace(report, exit=code, message=told(verdict), hint=verdict.hint)

    async def _count(self) -> Counting:
        """Find out what an own gateway grants, and how it counts."""
        granted = self._dataset.app.rate_limit
        self._tell("offering more and more calls a second, until some are refused")
        found = await self._follow(ramp(max(1.0, granted / PART) if granted else FIRST))
        if found is None:
            return _USED_UP
        if found.refused is not None:
            self._tell("probing how the gateway counts: bursts, and pauses between them")
        counting = await self._follow(probe(found)) or _USED_UP
        if not self._calls.bound.spent:
            await asyncio.sleep(REST)  # the harvest begins with windows that are empty
        if granted is None and counting.limit is not None:
            self._pacer = Pacer(counting.limit, self._job.run.limit_patience, counter)  # as a job file would have it
        return counting

    async def _follow(self, procedure: Generator[Offer, Sequence[Answer], R]) -> R | None:
        """Make the offers of a procedure; None if the bound ended it."""
        try:
            offer = next(procedure)
            while True:
                answers = await self._offer(offer)
                if self._calls.bound.spent:
                    procedure.close()
                    return None
                offer = procedure.send(answers)
        except StopIteration as result:
            found: R = result.value
            return found

    async def _offer(self, offer: Offer) -> list[Answer]:
        answers = await self._calls.offer(offer, self._most, None if self._own else self._pacer)
        self._made += len(answers)
        if offer.rate and answers:
            step = figures(replace(offer, moments=offer.moments[: len(answers)]), answers)
            self._steps.append(step)
            self._tell(
                f"{step.offered:,.1f} calls/s offered, {step.accepted:,.1f} accepted, {step.refused:,.1f} refused"
            )
        return answers

    async def _steps_below(self) -> None:
        """Offer a platform parts of what it grants, up to all that a run would use, with half of what is allowed."""
        seconds = STEP if self._limits.seconds is None else min(STEP, self._limits.seconds / 2 / len(STEPS))
        most = math.inf if self._limits.calls is None else max(1, self._limits.calls // 2 // len(STEPS))
        for part in STEPS:
            rate = min(self._pacer.rate, MOST) * part
            count = min(most, max(1, round(rate * seconds)))
            await self._offer(Offer(moments=even(rate, count / rate), rate=rate))
            if self._calls.bound.spent or is_refused(self._steps[-1]):
                return

    async def _harvest(self, page: Page) -> Work | None:
        """Harvest for a few seconds, as a run would."""
        settings = self._job.run
        if self._calls.bound.spent:
            return None
        workers = self._workers()
        self._tell(f"harvesting for {HARVEST:g} s with {workers} calls in flight")
        with scratch(self._job.output, page, settings.rows_per_shard, settings.compression) as keep:
            work = await ShortHarvest(self._calls, self._pacer, keep).run(HARVEST, workers)
        self._made += work.calls
        return work if work.calls else None

    def _workers(self) -> int:
        """Return how many calls a run would have in flight: as the job says, or as many as the latency asks for."""
        settings = self._job.run
        if self._dataset.max_calls is not None:
            return 1  # every call is paid for: one is under way at a time
        if settings.concurrency != "auto":
            return min(settings.concurrency, self._most)
        rate = self._pacer.rate
        if math.isinf(rate):
            return min(UNPACED, self._most)
        latency = min((step.p50 for step in self._steps if step.accepted), default=0.0)
        needed = max(4, min(FEWEST, math.ceil(rate)), math.ceil(SPARE * rate * latency) + 2)
        return min(needed, MOST, self._most)

    def _report(self, counting: Counting, work: Work | None) -> Report:
        app = self._dataset.app
        return Report(
            dataset=self._dataset.name,
            address=PLATFORMS[app.platform].target(self._dataset),
            own=self._own,
            steps=tuple(sorted(self._steps, key=lambda step: step.offered)),
            counting=counting,
            granted=None if app.rate_limit is None else app.rate_limit * app.rate_share,
            work=work,
            diagnosis=None if work is None else diagnose(work),
            calls=self._made,
            failures=dict(self._calls.failures),
        )

"""One attempt at one page, and what follows from its answer.

The order is permit, then time, nonce and signature, then send: no signature waits for anything, and every attempt,
also a repeated one, is a new call in every way.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.clock import ServerClock
from harvester.health import Health, backoff
from harvester.model import App, Dataset, Kind, Page, Platform, Reply, Verdict
from harvester.pace import Pacer
from harvester.send import Sender, SendError

# Seconds since boot, counted also while the machine sleeps, where the system tells them.
counter: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Keep(Struct, frozen=True, gc=False):
    """The page is good."""

    page: Page


class Again(Struct, frozen=True, gc=False):
    """The page goes back to the queue for so many seconds; ``paused`` if the whole app was told to slow down."""

    verdict: Verdict
    after: float = 0.0
    paused: float = 0.0


class Leave(Struct, frozen=True, gc=False):
    """The page stays open in this run; ``body`` is kept where nobody could read it."""

    verdict: Verdict
    body: bytes = b""


class Refuse(Struct, frozen=True, gc=False):
    """The platform has decided; ``verdict.concerns`` says whom it stops."""

    verdict: Verdict


Decision = Keep | Again | Leave | Refuse


class Failures(Struct, frozen=True, gc=False):
    """How often a page has failed to its own account, and when it did last."""

    count: int
    at: float


class Subject:
    """What is asked for, and how its pages have fared: the dataset, its host, the failures that count."""

    def __init__(self, dataset: Dataset, health: Health) -> None:
        self.dataset = dataset
        self.health = health
        self.failures: dict[int, Failures] = {}


class Caller:
    """Makes the calls of one app and judges their answers.

    Args:
        app: who signs.
        platform: how.
        pacer: when.
        sender: over which connections.
        attempts: failures of one page after which it stays open.
    """

    def __init__(self, app: App, platform: Platform, pacer: Pacer, sender: Sender, attempts: int) -> None:
        self.app = app
        self.pacer = pacer
        self.clock = ServerClock(time.time(), counter())
        self._platform = platform
        self._sender = sender
        self._attempts = attempts
        self._random = Random()  # noqa: S311 - jitter of back-offs, not a secret
        self._last_date = ""
        self._corrected: float | None = None  # when the clock was last put right, until a call succeeds after it

    async def attempt(self, subject: Subject, page: int, permitted: float) -> Decision:
        """Ask once for a page, counted from 1, with the permit that ``pacer.permit`` gave at ``permitted``."""
        dataset = subject.dataset
        request = self._platform.build(dataset, page - 1 + dataset.first_page)
        sent = counter()
        signed = self._platform.sign(request, self.app, self.clock.now(sent), str(uuid.uuid4()))
        try:
            reply = await self._sender.send(signed)
        except SendError as error:
            self.pacer.answered(permitted, accepted=False)
            return self._failed(_unsent(error), b"", page, subject, sent)
        answer = self._platform.read(dataset, reply)
        received = counter()
        if isinstance(answer, Page):
            self._watch(reply, sent, received)
            self.pacer.answered(permitted, accepted=True)
            subject.health.succeeded(received)
            if self._corrected is not None and permitted > self._corrected:
                self._corrected = None
            subject.failures.pop(page, None)
            return Keep(answer)
        if answer.kind is Kind.OVER_LIMIT:
            return Again(answer, paused=self.pacer.refused(permitted, answer.retry_after, self.clock.now(received)))
        self.pacer.answered(permitted, accepted=False)
        if answer.kind is Kind.CLOCK:
            return self._clock(answer, reply, permitted, (sent, received))
        return self._failed(answer, reply.body, page, subject, sent)

    def _watch(self, reply: Reply, sent: float, received: float) -> None:
        date = reply.headers.get("Date", "")
        if date != self._last_date:  # it changes once a second; most answers have nothing new to say
            self._last_date = date
            self.clock.observe(date, sent, received)

    def _clock(self, verdict: Verdict, reply: Reply, permitted: float, span: tuple[float, float]) -> Decision:
        """Put the clock right and sign once more; if that was done already, believe the refusal."""
        if self._corrected is None:
            self.clock.forget()
            self.clock.observe(reply.headers.get("Date", ""), *span)
            self._corrected = self.pacer.now()
            return Again(verdict)
        if permitted <= self._corrected:
            return Again(verdict)
        told = (
            f"the clocks differ by {self.clock.offset:+.0f} s, which has been allowed for"
            if self.clock.known
            else "the answer has no Date, so the platform's clock is not known"
        )
        return Refuse(replace(verdict, meaning=f"{verdict.meaning}; {told}"))

    def _failed(self, verdict: Verdict, body: bytes, page: int, subject: Subject, sent: float) -> Decision:
        if verdict.kind is Kind.REFUSED:
            return Refuse(verdict)
        now, before = counter(), subject.failures.get(page)
        if not self._is_the_pages(verdict, before, subject.health, sent):
            subject.health.turn_down(now)
            return Again(verdict)
        count = 1 if before is None else before.count + 1
        subject.failures[page] = Failures(count, now)
        if count < min(self._attempts, verdict.tries or self._attempts):
            return Again(verdict, after=backoff(count, self._random))
        return Refuse(verdict) if verdict.then == "refused" else Leave(verdict, body if verdict.quarantine else b"")

    def _is_the_pages(self, verdict: Verdict, before: Failures | None, health: Health, sent: float) -> bool:
        """Tell whose failure it is: the page's, or the host's.

        An answer that is not the platform's, or that nobody can read, shows that the way is open: it is the page's. So
        is a code that the platform gives to single queries, which has a number of tries of its own. Anything else is
        the host's if nothing was served since the page last failed.
        """
        alive = health.failed(sent, f"{verdict.code}: {verdict.meaning}")
        if verdict.then == "refused" or verdict.quarantine:
            return True
        return alive and (verdict.tries is not None or before is None or health.good > before.at)


def _unsent(error: SendError) -> Verdict:
    return Verdict(
        kind=Kind.REFUSED if error.final else Kind.AGAIN,
        code="no answer",
        text="",
        meaning=error.text,
        hint="check `url` and the network between this machine and the platform",
        concerns="app",
    )

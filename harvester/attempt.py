"""One attempt at one page, and what follows from its answer.

The order is permit, then time, nonce and signature, then send: no signature waits for anything, and every attempt,
also a repeated one, is a new call in every way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from math import inf
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.clock import ServerClock
from harvester.errors import HarvesterError
from harvester.health import Health, backoff
from harvester.model import App, Dataset, Kind, Page, Platform, Reply, Verdict
from harvester.nonces import nonces
from harvester.pace import Pacer
from harvester.platforms.status import UNREADABLE_TRIES, is_markup
from harvester.retries import RetryBudget
from harvester.send import Sender, SendError

# Seconds since boot, counted also while the machine sleeps, where the system tells them.
counter: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


NETWORK_LOGIN: Final = 511  # what only somebody between us and the platform may answer (RFC 6585, section 6)
_PASSWORD_FIELD: Final = re.compile(rb"<input\b[^<>]*\btype\s*=\s*[\"']?password\b", re.IGNORECASE)


class Keep(Struct, frozen=True, gc=False):
    """The page is good."""

    page: Page


class Again(Struct, frozen=True, gc=False):
    """The page goes back to the queue for so many seconds; ``paused`` if the whole app was told to slow down.

    ``ours`` if it is not the platform that failed but our own side, ``local`` if this machine had no descriptor or port
    left for the call.
    """

    verdict: Verdict
    after: float = 0.0
    paused: float = 0.0
    ours: bool = False
    local: bool = False


class Leave(Struct, frozen=True, gc=False):
    """The page stays open in this run; ``body`` is kept where nobody could read it."""

    verdict: Verdict
    body: bytes = b""


class Refuse(Struct, frozen=True, gc=False):
    """The platform has decided; ``verdict.concerns`` says whom it stops. ``ours`` if our own side has, not it."""

    verdict: Verdict
    ours: bool = False


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
        reread: fetches the app's secret once more: returns the app with another one, or None (``Job.rereaders``).
    """

    def __init__(
        self,
        app: App,
        platform: Platform,
        pacer: Pacer,
        sender: Sender,
        attempts: int,
        reread: Callable[[App], App | None] | None = None,
    ) -> None:
        self.app = app
        self.pacer = pacer
        self.clock = ServerClock(time.time(), counter())
        self._platform = platform
        self._sender = sender
        self._attempts = attempts
        self._nonces = nonces()
        self._random = Random()  # noqa: S311 - jitter of back-offs, not a secret
        self._last_date = ""
        self._corrected: float | None = None  # when the clock was last put right, until a call succeeds after it
        self._retries = RetryBudget(counter())
        self._reread = reread
        self._rereading = asyncio.Lock()
        self._proven = False  # whether the platform has taken the present secret
        self._renewed = -inf  # since when it is the present one

    async def attempt(self, subject: Subject, page: int, permitted: float) -> Decision:
        """Ask once for a page, counted from 1, with the permit that ``pacer.permit`` gave at ``permitted``."""
        dataset = subject.dataset
        request = self._platform.build(dataset, page - 1 + dataset.first_page)
        sent = counter()
        self._retries.called(sent)
        signed = self._platform.sign(request, self.app, self.clock.now(sent), next(self._nonces))
        try:
            reply = await self._sender.send(signed)
        except SendError as error:
            self.pacer.answered(permitted, accepted=False)
            return self._unsent(error, page, subject, sent)
        answer = self._platform.read(dataset, reply)
        received = counter()
        subject.health.reach.heard(received)
        if isinstance(answer, Page):
            self._watch(reply, sent, received)
            self.pacer.answered(permitted, accepted=True)
            subject.health.succeeded(received)
            if self._corrected is not None and permitted > self._corrected:
                self._corrected = None
            self._proven |= permitted > self._renewed
            subject.failures.pop(page, None)
            return Keep(answer)
        if answer.kind is Kind.OVER_LIMIT:
            return Again(answer, paused=self.pacer.refused(permitted, answer.retry_after, self.clock.now(received)))
        self.pacer.answered(permitted, accepted=False)
        if answer.kind is Kind.CLOCK:
            decision = self._clock(answer, reply, permitted, (sent, received))
        else:
            decision = self._failed(answer, reply, page, subject, sent)
        if isinstance(decision, Refuse) and answer.concerns == "app" and answer.code in self._platform.CODES:
            return await self._with_another_secret(decision, permitted)
        return decision

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

    async def _with_another_secret(self, refusal: Refuse, permitted: float) -> Decision:
        """Look for a new secret before a refusal of one that was good is believed: somebody may have replaced it."""
        async with self._rereading:
            if permitted <= self._renewed:
                return Again(refusal.verdict)
            if self._reread is None or not self._proven:
                return refusal
            self._proven = False
            try:
                app = await asyncio.to_thread(self._reread, self.app)
            except HarvesterError as error:
                told = f"{refusal.verdict.meaning}; it was good until now, and reading it again failed: {error.message}"
                return Refuse(replace(refusal.verdict, meaning=told))
            if app is None:
                return refusal
            self.app, self._renewed = app, self.pacer.now()
            return Again(refusal.verdict)

    def _unsent(self, error: SendError, page: int, subject: Subject, sent: float) -> Decision:
        """Judge a call without an answer: it says nothing about its page if it did not leave our own side."""
        ours = error.ours or error.local
        verdict = Verdict(
            kind=Kind.REFUSED if error.final else Kind.AGAIN,
            code="no answer",
            text="",
            meaning=error.text,
            hint=_hint(error),
            concerns="app",
        )
        if error.final:
            return Refuse(verdict, ours=ours)
        if not self._is_the_pages(verdict, subject.failures.get(page), subject.health, sent):
            subject.health.turn_down(counter(), None if error.local else sent)
            return Again(verdict, ours=ours, local=error.local)
        decision = self._charged(verdict, page, subject, fault=not ours, sent=not error.local)
        return replace(decision, ours=ours, local=error.local) if isinstance(decision, Again) else decision

    def _failed(self, verdict: Verdict, reply: Reply, page: int, subject: Subject, sent: float) -> Decision:
        if _is_login(reply):
            verdict = replace(
                verdict,
                kind=Kind.AGAIN,
                meaning="the login page of a network or a proxy between this machine and the platform"
                + (f"; the job file's proxy is {self.app.proxy}" if self.app.proxy else ""),
                hint="log in from this machine, or have it exempted; then run again",
                concerns="app",
                tries=UNREADABLE_TRIES,
                then="refused",
            )
            decision = self._judged(verdict, b"", page, subject, sent)
            return decision if isinstance(decision, Keep | Leave) else replace(decision, ours=True)
        return self._judged(verdict, reply.body, page, subject, sent)

    def _judged(self, verdict: Verdict, body: bytes, page: int, subject: Subject, sent: float) -> Decision:
        if verdict.kind is Kind.REFUSED:
            return Refuse(verdict)
        if not self._is_the_pages(verdict, subject.failures.get(page), subject.health, sent):
            subject.health.turn_down(counter())
            return Again(verdict)
        return self._charged(verdict, page, subject, body)

    def _charged(
        self, verdict: Verdict, page: int, subject: Subject, body: bytes = b"", *, fault: bool = True, sent: bool = True
    ) -> Decision:
        """Ask for a page again after a while, or no more if it has failed too often.

        What is not the platform's ``fault`` costs the page nothing, and what was not ``sent`` is no repetition.
        """
        now, before = counter(), subject.failures.get(page)
        count = (0 if before is None else before.count) + fault
        subject.failures[page] = Failures(count, now)
        if not fault or count < min(self._attempts, verdict.tries or self._attempts):
            delay = self._retries.delay(now) if sent else 0.0
            return Again(verdict, after=max(backoff(max(1, count), self._random), delay))
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


def _is_login(reply: Reply) -> bool:
    """Tell a network's login page from a platform's refusal: an interface for programs has no field for a password."""
    return reply.status == NETWORK_LOGIN or (is_markup(reply.body) and _PASSWORD_FIELD.search(reply.body) is not None)


def _hint(error: SendError) -> str:
    if error.local:
        return "let this machine open more files (`ulimit -n`), or set `concurrency` in [run] to a smaller number"
    if error.ours:
        return "check `proxy` in the job file, or the environment's if it says so, and that proxy itself"
    return "check `url` and the network between this machine and the platform"

"""When the next call of an app may go: one ``AsyncLimiter`` for all its datasets, and one pause for all its callers.

``AsyncLimiter(300, 1)`` would let 599 calls through in its first second, because a bucket that starts empty admits a
burst of its whole size on top of the rate. A small bucket over a scaled period admits ``burst - 1`` on top. Calls that
leave evenly can arrive bunched by the jitter on the way, so for no second to exceed the limit the pace has to satisfy

    rate x (1 s + jitter) + burst - 1 <= limit.

The rate is ``headroom`` of the limit, the burst what is left for ``JITTER``: 3 at 300 calls per second, 1 below 100.

Around the limiter stands what it lacks: a rate that follows what the platform accepts (``rate``), moments shared with
other processes (``slots``), a pause, after which one call goes alone to see whether it is over, and a wait that sleeps
once: the limiter's own looks at the clock until it has moved, and uvloop's moves by whole milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from math import inf, isinf
from typing import Final

from aiolimiter import AsyncLimiter

from harvester.rate import Rate
from harvester.slots import Slots

HEADROOM: Final = 0.975
JITTER: Final = 0.010  # seconds
BURST_FROM: Final = 100.0  # calls per second
LARGEST_BURST: Final = 3  # enough to make up for timers that are rounded up to whole milliseconds
SLACK: Final = 0.003  # seconds that a late waking may make up for without a burst
SLACK_PART: Final = 0.3  # of the interval, which is all that it may make up for
TICK: Final = 0.001  # seconds; no timer is finer
DUE: Final = 0.001  # seconds; a moment so near is now, for timers have whole milliseconds
LONGEST_RETRY_AFTER: Final = 120.0  # seconds; what a server may ask for, bounded


class Pacer:
    """Permits for one app.

    Args:
        limit: calls per second that may arrive at the platform, also below 1; None for no limit.
        patience: seconds of nothing but refusals after which the allowance counts as used up.
        now: seconds of a clock that all processes of the machine share and nobody sets.
        headroom: the part of the limit that is used.
        slots: moments shared with other processes; None to pace this process alone.
    """

    def __init__(
        self,
        limit: float | None,
        patience: float,
        now: Callable[[], float],
        headroom: float = HEADROOM,
        slots: Slots | None = None,
    ) -> None:
        ceiling = inf if limit is None else limit * headroom
        self.now = now
        self.waiting = 0  # callers that wait for a permit
        self._slots = slots
        self.burst = 1 if limit is None else burst_for(limit, ceiling)
        self._rate = Rate(ceiling, now())
        self._limiter = None if limit is None else self._bucket(ceiling, self.burst)
        self._paced = (ceiling, self.burst)  # the rate and the burst that the limiter was made for
        self._patience = patience
        self._line = asyncio.Lock()  # first come, first served; one task at a time waits for a future moment
        self._last = -inf  # when the last permit was given
        self._start = 0.0  # when the block of shared moments at hand begins
        self._left = 0  # moments left in it
        self._resume_at = 0.0
        self._refused_since = inf
        self._episode_began = -1.0
        self._probing = False  # one call at a time, until one is accepted
        self._probe_out = False
        self._probe_back = asyncio.Event()

    @property
    def rate(self) -> float:
        """Calls per second at present."""
        return self._rate.value

    @property
    def shared(self) -> bool:
        """Whether other processes keep to the same limit, or there is none."""
        return self._slots is not None or isinf(self._rate.value)

    def close(self) -> None:
        """Let go of what is shared."""
        if self._slots is not None:
            self._slots.close()

    async def permit(self) -> float:
        """Wait for leave to send one call now; return the moment it was given."""
        if isinf(self._rate.value) and not self._probing:
            return self.now()
        self.waiting += 1
        try:
            async with self._line:
                while not await self._granted():
                    pass
                self._probe_out = self._probing
                self._last = self.now()
                return self._last
        finally:
            self.waiting -= 1

    async def _granted(self) -> bool:
        """Wait for whatever has to come next; return whether that was all."""
        if (wait := self._resume_at - self.now()) > DUE:
            await asyncio.sleep(wait)
            return False
        if self._probing and self._probe_out:
            self._probe_back.clear()
            await self._probe_back.wait()
            return False
        limiter = self._limiter if self._left > 0 else await self._adjusted()  # within a block nothing changes
        if limiter is None:
            return True
        if self._slots is not None and (wait := self._moment(self._slots) - self.now()) > DUE:
            await asyncio.sleep(wait)
            return False
        if not limiter.has_capacity():
            rate, burst = self._paced
            drained = self._last + (1 + burst - limiter.max_rate) / rate
            await asyncio.sleep(max(TICK, drained - self.now()))
            return False
        await limiter.acquire()
        self._left -= 1
        return True

    async def _adjusted(self) -> AsyncLimiter | None:
        """Return the limiter for the present rate; a new one begins full, so that a change is no burst."""
        self._rate.advance(self.now())
        wanted = (self._rate.value, 1 if self._rate.cut or self._probing else self.burst)
        if wanted != self._paced:
            self._paced = wanted
            self._limiter = None if isinf(self._rate.value) else self._bucket(*wanted)
            if self._limiter is not None:
                await self._limiter.acquire(self._limiter.max_rate)
        return self._limiter

    def _bucket(self, rate: float, burst: int) -> AsyncLimiter:
        """Return a bucket that a late waking does not cost its next permit: a little larger than the burst.

        Where shared moments keep the pace it only guards it, so one burst larger, and it is never waited for.
        """
        size = burst + (burst if self._slots is not None else min(SLACK_PART, rate * SLACK))
        return AsyncLimiter(size, size / rate)

    def _moment(self, slots: Slots) -> float:
        """Return the shared moment of the next permit, taking a block if none is left."""
        rate, burst = self._paced
        if self._left <= 0 or self.now() - self._start > max(burst / rate, JITTER):  # a block long past has lapsed
            interval, self._left = 1 / rate, burst
            slack = max((self._left - 1) * interval, min(SLACK, SLACK_PART * interval))
            self._start = slots.take(self.now(), self._left, interval, slack)
        return self._start

    def answered(self, permitted: float, *, accepted: bool) -> None:
        """Note that a call is back and was not refused for its rate; ``accepted`` if the platform served it.

        What left before the present pause began says nothing about it.
        """
        if permitted <= self._episode_began:
            return
        if accepted:
            self._rate.accepted(permitted, self.now())
            self._refused_since = inf
            self._probing = False
        self._release()

    def refused(self, permitted: float, retry_after: str, wall: float) -> float:
        """Note a refusal for over-limit of a call that was permitted at that moment; pause everybody.

        Refusals of calls that left before the pause began belong to the same episode and change nothing.

        Args:
            permitted: what ``permit`` returned for the call.
            retry_after: the header of that name, seconds or a date, or "".
            wall: the server's Unix time, to read a date against.

        Returns:
            The length of the pause in seconds that begins now; 0 if one is under way.
        """
        if permitted <= self._episode_began:
            return 0.0
        now = self._episode_began = self.now()
        pause = self._rate.refused(permitted, now, min(seconds(retry_after, wall) or 0.0, LONGEST_RETRY_AFTER))
        self._refused_since = min(self._refused_since, now)
        self._probing = True
        self._left = 0
        self._resume_at = now + pause
        if self._slots is not None:
            self._slots.hold(now + pause)
        self._release()
        return pause

    @property
    def exhausted(self) -> bool:
        """Whether nothing but refusals came back for as long as the patience lasts."""
        return self._episode_began - self._refused_since >= self._patience

    def _release(self) -> None:
        self._probe_out = False
        self._probe_back.set()


def burst_for(limit: float, rate: float) -> int:
    """Return the largest burst that keeps the inequality above, with what the bucket is larger than the burst."""
    return 1 if limit < BURST_FROM else max(1, min(LARGEST_BURST, 1 + int(limit - rate * (1 + JITTER) - SLACK_PART)))


def seconds(retry_after: str, wall: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or a date relative to the server's time; None if it says neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall)
    except (ValueError, OverflowError):
        return None

"""When the next call of an app may go: one ``AsyncLimiter`` for all its datasets, and one pause for all its callers.

``AsyncLimiter(300, 1)`` would let 599 calls through in its first second, because a bucket that starts empty admits a
burst of its whole size on top of the rate. A small bucket over a scaled period admits ``burst - 1`` on top. Calls that
leave evenly can arrive bunched by the jitter on the way, so for no second to exceed the limit the pace has to satisfy

    rate x (1 s + jitter) + burst - 1 <= limit.

The rate is ``HEADROOM`` of the limit, the burst what is left for ``JITTER``, at most 3; 1 below 100 calls per second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

from aiolimiter import AsyncLimiter

HEADROOM: Final = 0.975
JITTER: Final = 0.010  # seconds
BURST_FROM: Final = 100.0  # calls per second
LARGEST_BURST: Final = 3  # enough to make up for timers that are rounded up to whole milliseconds
FIRST_PAUSE: Final = 1.05  # seconds; a little more than any one-second window
LONGEST_PAUSE: Final = 30.0  # seconds
LONGEST_RETRY_AFTER: Final = 120.0  # seconds; what a server may ask for, bounded


class Pacer:
    """Permits for one app.

    Args:
        rate_limit: calls per second that the platform grants, also below 1; None for no limit.
        patience: seconds of nothing but refusals after which the allowance counts as used up.
        now: monotonic time in seconds.
    """

    def __init__(self, rate_limit: float | None, patience: float, now: Callable[[], float]) -> None:
        self._limiter = None if rate_limit is None else _limiter(rate_limit)
        self._patience = patience
        self.now = now
        self._line = asyncio.Lock()  # first come, first served; one task at a time waits for a future moment
        self._resume_at = 0.0
        self._episode_began = -1.0
        self._refusals = 0  # episodes since the last accepted call
        self._refused_since = 0.0
        self._probe_out = False
        self._probe_back = asyncio.Event()

    async def permit(self) -> float:
        """Wait for leave to send one call now; return the moment it was given."""
        if self._limiter is None and not self._refusals:
            return self.now()
        async with self._line:
            while True:
                if (wait := self._resume_at - self.now()) > 0:
                    await asyncio.sleep(wait)
                elif self._refusals and self._probe_out:
                    self._probe_back.clear()
                    await self._probe_back.wait()
                else:
                    if self._limiter is not None:
                        await self._limiter.acquire()
                    if self._resume_at <= self.now():
                        break
            self._probe_out = self._refusals > 0
            return self.now()

    def answered(self, permitted: float, *, accepted: bool) -> None:
        """Note that a call is back and was not refused for its rate; ``accepted`` if the platform served it.

        What left before the present pause began says nothing about it.
        """
        if permitted > self._episode_began:
            if accepted:
                self._refusals = 0
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
        self._release()
        now = self._episode_began = self.now()
        if not self._refusals:
            self._refused_since = now
        self._refusals += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 16))
        asked = seconds(retry_after, wall)
        if asked is not None:
            pause = max(FIRST_PAUSE, min(asked, LONGEST_RETRY_AFTER))
        self._resume_at = now + pause
        return pause

    @property
    def exhausted(self) -> bool:
        """Whether nothing but refusals came back for as long as the patience lasts."""
        return self._refusals > 1 and self.now() - self._refused_since >= self._patience

    def _release(self) -> None:
        self._probe_out = False
        self._probe_back.set()


def _limiter(limit: float) -> AsyncLimiter:
    """Return the largest bucket that keeps the inequality above."""
    rate = limit * HEADROOM
    burst = 1 if limit < BURST_FROM else min(LARGEST_BURST, 1 + int(limit - rate * (1 + JITTER)))
    return AsyncLimiter(burst, burst / rate)


def seconds(retry_after: str, wall: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or a date relative to the server's time; None if it says neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall)
    except ValueError:
        return None

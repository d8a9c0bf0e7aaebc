"""How many calls of an app may be repetitions: a tenth of them, and one a second besides.

Beyond that, repeating makes matters worse for a platform that fails under load. A mirror can wait, so what exceeds the
budget is put off, never refused.
"""

from __future__ import annotations

from math import exp
from typing import Final

SHARE: Final = 0.1  # of all calls
FLOOR: Final = 1.0  # a second
RESERVE: Final = 500.0  # repetitions at hand when nothing has failed: a restart of the server drops all calls at once
LONGEST: Final = 10.0  # seconds that one repetition is put off at most
WINDOW: Final = 60.0  # seconds for which what was not used is kept
TICK: Final = 0.02  # seconds within which calls count as made at one moment


class RetryBudget:
    """Repetitions that may still be made; ``now`` is a monotonic reading in seconds.

    What was saved is bounded by ``RESERVE`` and a tenth of the latest calls. So between any two moments ``t`` seconds
    apart, with ``n`` calls made, at most ``SHARE * n + FLOOR * t`` repetitions may go at once beside what was saved
    before. Further ones are told to wait for as long as the missing will take to come in at the present rate of calls,
    but not longer than ``LONGEST``.
    """

    def __init__(self, now: float) -> None:
        self._stock = RESERVE
        self._new = 0  # calls since the last look at the time
        self._recent = 0.0  # calls; each fades with the time constant WINDOW
        self._seconds = 0.0  # that they were made in, which fade like them
        self._at = now

    def called(self, now: float) -> None:
        """Note a call, whatever it is for."""
        if now >= self._at + TICK:
            self._advance(now)
        self._new += 1

    def delay(self, now: float) -> float:
        """Take one repetition out; return the seconds until it may go."""
        self._advance(now)
        rate = FLOOR + SHARE * self._recent / max(1.0, self._seconds)
        self._stock = max(self._stock - 1, -LONGEST * rate)
        return max(0.0, -self._stock / rate)

    def _advance(self, now: float) -> None:
        self._recent += self._new
        self._stock += SHARE * self._new
        self._new = 0
        passed, self._at = max(0.0, now - self._at), max(now, self._at)
        faded = exp(-passed / WINDOW)
        self._recent *= faded
        self._seconds = self._seconds * faded + WINDOW * (1 - faded)
        self._stock = min(self._stock + FLOOR * passed, RESERVE + SHARE * self._recent)

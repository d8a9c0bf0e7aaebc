"""How many calls of an app are in flight: as many as bring more accepted calls, and not one for show.

By Little's law answers per second are slots / latency. Whether more slots help is not known beforehand: a far server
answers as fast as before, a busy one only answers later. So when slots, not permits, hold the calls back, more slots
are tried. If the latency of the calls that used them has grown as the slots have, nothing was won: the trial is taken
back and not repeated for a while.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Final, Literal

FEWEST: Final = 16  # slots to begin with, unless a second's calls are fewer
MOST: Final = 1024
GROWTH: Final = 6  # a trial's slots over those before
SPARE: Final = 1.25  # slots over what rate x latency asks for
SAMPLE: Final = 16  # answers that a decision rests on
CROWDED: Final = 0.75  # of the slots in flight that make a call's latency tell of the trial
WORTH: Final = 0.5  # of the growth in slots that answers per second have to grow for a trial to stay
FIRST_REST: Final = 10.0  # seconds until the next trial after one that brought nothing
LONGEST_REST: Final = 120.0  # seconds

Change = Literal["", "latency", "server"]
"""Why the number of slots has changed: the way is long, or the server is busy; "" if it has not."""


class Concurrency:
    """The number of slots of one app; ``now`` is a monotonic reading in seconds.

    Args:
        rate: calls per second that permits allow.
        most: slots that are never exceeded.
    """

    def __init__(self, rate: float, most: int = MOST) -> None:
        self._fewest = min(most, max(4, min(FEWEST, math.ceil(rate))))
        self.slots = self._fewest
        self.latency = 0.0  # seconds, the median of recent answers
        self._rate = rate
        self._most = most
        self._recent: deque[tuple[float, bool]] = deque(maxlen=SAMPLE)  # latency, and whether slots held calls back
        self._before: tuple[int, float] | None = None  # slots and latency before the trial that is under way
        self._began = 0.0  # when it began
        self._crowded: list[float] = []  # latencies of calls that used its slots
        self._others = 0  # answers since then to calls that did not need them
        self._rest_until = 0.0
        self._rest = FIRST_REST

    def answered(self, now: float, sent: float, crowd: int, *, starved: bool) -> Change:
        """Take in an answer; return whether ``slots`` has changed, and why.

        Args:
            now: when it came.
            sent: when its call was sent.
            crowd: how many calls were in flight then.
            starved: whether every slot is taken while a permit could be had.
        """
        self._recent.append((now - sent, starved))
        if self._before is not None:
            return self._look(now, sent, crowd)
        if len(self._recent) < SAMPLE:
            return ""
        self.latency = median(entry[0] for entry in self._recent)
        needed = max(self._fewest, math.ceil(SPARE * self._rate * self.latency) + 2)
        held_back = 2 * sum(entry[1] for entry in self._recent) > SAMPLE
        if held_back and needed > self.slots and now >= self._rest_until and self.slots < self._most:
            self._before, self._began = (self.slots, self.latency), now
            self._crowded, self._others = [], 0
            self.slots = min(self._most, GROWTH * self.slots, needed)
            return "latency"
        if not held_back and self.slots > 2 * needed:
            self.slots = needed
        return ""

    def _look(self, now: float, sent: float, crowd: int) -> Change:
        """Decide about the trial once enough of the calls that it let through are back."""
        if sent < self._began or self._before is None:
            return ""
        if crowd >= CROWDED * self.slots:
            self._crowded.append(now - sent)
        else:
            self._others += 1
        if len(self._crowded) < SAMPLE:
            if self._others >= 4 * self.slots:  # the permits are what holds the calls back: good as it is
                self._before = None
            return ""
        slots, latency = self._before
        self._before = None
        grown = self.slots / slots
        if grown * latency / max(median(self._crowded), 1e-9) >= 1 + WORTH * (grown - 1):
            self._rest = FIRST_REST
            return ""
        self.slots = slots
        self._recent.clear()
        self._rest_until, self._rest = now + self._rest, min(LONGEST_REST, 2 * self._rest)
        return "server"

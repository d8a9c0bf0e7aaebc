"""Is a host answering, and what does a failed call say: about its page, or about the platform?

A failure is the page's only while the host serves other pages: it has answered well within ten seconds before the
call was sent, or its last answer was good. Otherwise the platform is down: nothing counts, one probe goes out every
few seconds, and patience is measured in time.

All this is judged for each app and host, because what a platform answers is about who asks: one app's trouble is not
another's. Only that no answer comes at all is about the host alone. So the apps that call one host by the same way
share that (``Reach``): when one finds nobody there, the others send single probes too, until one of them is answered,
well or badly. An app that had failures of its own still waits for a good answer of its own.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final

RECENT: Final = 10.0  # seconds before a call within which a success elsewhere blames its failure on the page
PROBE_INTERVAL: Final = 3.0  # seconds between probes of a host that is down
NEVER_PATIENCE: Final = 30.0  # seconds for a host that has not answered once in this run
BACKOFF_BASE: Final = 0.1  # seconds
BACKOFF_CAP: Final = 20.0  # seconds


class Reach:
    """Whether anybody answers at a host, as all apps that call it have found."""

    def __init__(self) -> None:
        self.lost = False
        self.answered = -inf  # when any answer last came, good or bad
        self.probe = -inf  # while it is lost: when to look again

    def heard(self, now: float) -> None:
        """Note an answer."""
        self.answered, self.lost = now, False

    def missed(self, sent: float, now: float) -> None:
        """Note that a call sent at ``sent`` brought none; that counts if nobody else has been answered since."""
        if self.answered < sent:
            self.lost, self.probe = True, now + PROBE_INTERVAL


class Health:
    """The state of one host as an app's answers show it; ``now`` is a monotonic reading in seconds.

    Args:
        started: when the first call to it became possible.
        patience: seconds without a good answer after which a host that has answered before is given up.
        reach: what the apps that call this host share; nothing is shared without it.
    """

    def __init__(self, started: float, patience: float, reach: Reach | None = None) -> None:
        self.reach = reach or Reach()
        self.in_flight = 0  # calls under way; the schedule counts them
        self.last_error = ""
        self._patience = patience
        self._started = started
        self.good = -inf  # when it last answered well
        self._failing = False  # whether its last answer was a failure
        self._down = False
        self._next_probe = started

    @property
    def down(self) -> bool:
        """Whether the host gets no calls but probes."""
        return self._down or self.reach.lost

    def succeeded(self, now: float) -> None:
        """Note a good answer."""
        self.good, self._down, self._failing = now, False, False
        self.reach.heard(now)

    def failed(self, sent: float, error: str) -> bool:
        """Note the failure of a call that was sent at ``sent``; return whether the host serves other pages."""
        self.last_error = error
        alive = self.good > -inf and (not self._failing or self.good >= sent - RECENT)
        self._failing = True
        return alive

    def turn_down(self, now: float, missed: float | None = None) -> None:
        """Believe that the host is down, and leave it alone until the next probe.

        Args:
            now: when the call failed.
            missed: when it was sent, if it brought no answer at all.
        """
        self._down, self._next_probe = True, now + PROBE_INTERVAL
        if missed is not None:
            self.reach.missed(missed, now)

    def rest(self, now: float) -> float:
        """Return the seconds until the host may be called; 0 while it is up or a probe is due."""
        due = max(self._next_probe if self._down else now, self.reach.probe if self.reach.lost else now)
        return max(0.0, due - now)

    def silence(self, now: float) -> float:
        """Return the seconds since the last good answer, or since the start."""
        return now - max(self._started, self.good)

    def hopeless(self, now: float) -> bool:
        """Whether patience has run out."""
        if not self.down:
            return False
        return self.silence(now) >= (self._patience if self.good > -inf else min(NEVER_PATIENCE, self._patience))


def backoff(failures: int, random: Random) -> float:
    """Return seconds to wait after the given number of failures of one page: full jitter, doubling, capped."""
    return random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(failures, 16)))

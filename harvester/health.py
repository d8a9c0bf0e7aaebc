"""Is a host answering, and what does a failed call say: about its page, or about the platform?

A failure is the page's only while the host serves other pages: it has answered well within ten seconds before the
call was sent, or its last answer was good. Otherwise the platform is down: nothing counts, one probe goes out every
few seconds, and patience is measured in time.
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


class Health:
    """The state of one host as its own answers show it; ``now`` is a monotonic reading in seconds.

    Args:
        started: when the first call to it became possible.
        patience: seconds without a good answer after which a host that has answered before is given up.
    """

    def __init__(self, started: float, patience: float) -> None:
        self.down = False
        self.in_flight = 0  # calls under way; the schedule counts them
        self.last_error = ""
        self._patience = patience
        self._started = started
        self.good = -inf  # when it last answered well
        self._failing = False  # whether its last answer was a failure
        self._next_probe = started

    def succeeded(self, now: float) -> None:
        """Note a good answer."""
        self.good, self.down, self._failing = now, False, False

    def failed(self, sent: float, error: str) -> bool:
        """Note the failure of a call that was sent at ``sent``; return whether the host serves other pages."""
        self.last_error = error
        alive = self.good > -inf and (not self._failing or self.good >= sent - RECENT)
        self._failing = True
        return alive

    def turn_down(self, now: float) -> None:
        """Believe that the host is down, and leave it alone until the next probe."""
        self.down, self._next_probe = True, now + PROBE_INTERVAL

    def rest(self, now: float) -> float:
        """Return the seconds until the host may be called; 0 while it is up or a probe is due."""
        return max(0.0, self._next_probe - now) if self.down else 0.0

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

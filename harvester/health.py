"""Is a host answering, and what does a failed call say: about its page, or about the platform?

A failure counts against a page only while the host serves other pages. Otherwise the platform is down: nothing
counts, one probe goes out every few seconds, and patience is measured in time.
"""

from __future__ import annotations

from random import Random
from typing import Final

RECENT: Final = 10.0  # seconds within which a success elsewhere blames a failure on the page
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
        self._good: float | None = None
        self._next_probe = started

    def succeeded(self, now: float) -> None:
        """Note a good answer."""
        self._good, self.down = now, False

    def failed(self, now: float, error: str) -> bool:
        """Note a failure; return whether it counts against its page."""
        self.last_error = error
        if self._good is not None and now - self._good <= RECENT:
            return True
        if not self.down:
            self.down, self._next_probe = True, now
        self._next_probe = max(self._next_probe, now + PROBE_INTERVAL)
        return False

    def rest(self, now: float) -> float:
        """Return the seconds until the host may be called; 0 while it is up or a probe is due."""
        return max(0.0, self._next_probe - now) if self.down else 0.0

    def silence(self, now: float) -> float:
        """Return the seconds since the last good answer, or since the start."""
        return now - (self._started if self._good is None else self._good)

    def hopeless(self, now: float) -> bool:
        """Whether patience has run out."""
        if not self.down:
            return False
        return self.silence(now) >= (min(NEVER_PATIENCE, self._patience) if self._good is None else self._patience)


def backoff(failures: int, random: Random) -> float:
    """Return seconds to wait after the given number of failures of one page: full jitter, doubling, capped."""
    return random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(failures, 16)))

"""A server's clock, read from the ``Date`` headers of its answers.

Signatures carry the server's time, not this machine's: a host clock that is wrong, or stepped in mid-run, must not
cost the run. So the clock is anchored to a counter that nobody sets (seconds since boot, handed in by the caller) and
the anchor is moved by what the server says.
"""

from __future__ import annotations

from collections import deque
from email.utils import parsedate_to_datetime
from typing import Final

SAMPLES: Final = 16
RESOLUTION: Final = 1.0  # seconds; a Date header is cut to whole seconds


class ServerClock:
    """The time at the server for a reading of the local counter.

    Args:
        wall: this machine's Unix time in seconds, believed until the server has spoken.
        counter: the reading of the counter at the same moment, in seconds.
    """

    def __init__(self, wall: float, counter: float) -> None:
        self._host = wall - counter
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)  # (uncertainty, server time - counter)
        self._anchor = self._host

    @property
    def known(self) -> bool:
        """Whether the server has spoken."""
        return bool(self._samples)

    @property
    def offset(self) -> float:
        """How many seconds the server is ahead of this machine's clock as it stood at the start."""
        return self._anchor - self._host

    def now(self, counter: float) -> float:
        """Return the server's Unix time in seconds at a reading of the counter."""
        return self._anchor + counter

    def observe(self, date: str, sent: float, received: float) -> None:
        """Take in the ``Date`` of an answer that is the platform's own; anything unreadable is ignored.

        The server wrote it between the two readings, hence the midpoint; the least uncertain recent sample counts.
        A host clock that agrees within that uncertainty is finer than the header and is kept.
        """
        try:
            stamp = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):  # a year of many digits is the latter
            return
        uncertainty = (received - sent) / 2 + RESOLUTION / 2
        self._samples.append((uncertainty, stamp + RESOLUTION / 2 - (sent + received) / 2))
        uncertainty, anchor = min(self._samples)
        self._anchor = self._host if abs(anchor - self._host) <= uncertainty else anchor

    def forget(self) -> None:
        """Drop old samples: the server has said that its time is another one, so only new answers count."""
        self._samples.clear()

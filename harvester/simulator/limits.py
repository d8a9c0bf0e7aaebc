"""Ways in which a platform counts an app's calls. Pure: the time of a call is an argument."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Limit(Protocol):
    """Decides about one call after the other; whoever implements it counts in its own way."""

    def admit(self, now: float) -> bool:
        """Say whether a call that arrives at ``now`` (seconds, never decreasing) is within the limit."""


class SlidingLog:
    """At most ``limit * window`` admitted calls in any ``window`` seconds; refused calls do not count.

    A call leaves the window exactly ``window`` seconds after it was admitted. Where ``limit * window`` is no whole
    number the window is scaled with the rounded-down count (0.5 calls per second are one call in two seconds), so
    the rate is kept exactly.

    Args:
        limit: calls per second, above zero.
        window: length of the window in seconds.
    """

    def __init__(self, limit: float, window: float = 1.0) -> None:
        self._capacity = max(1, int(limit * window))
        self._span = self._capacity / limit
        self._admitted: deque[float] = deque(maxlen=self._capacity)

    def admit(self, now: float) -> bool:
        """Admit the call unless the window that ends at ``now`` is full."""
        admitted = self._admitted
        if len(admitted) == self._capacity and now - admitted[0] < self._span:
            return False
        admitted.append(now)  # a full deque drops its oldest entry, which has left the window
        return True

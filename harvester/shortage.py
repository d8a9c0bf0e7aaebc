"""How many calls may be in flight after this machine has run out of descriptors or ports."""

from __future__ import annotations

from math import inf
from typing import Final

KEPT: Final = 0.75  # of the calls that were in flight when nothing was left for another one
REST: Final = 60.0  # seconds until twice as many are tried again; ports are given back after as long


class Shortage:
    """The bound that a shortage puts on one app; ``now`` is a monotonic reading in seconds."""

    def __init__(self) -> None:
        self._most = inf
        self._since = -inf  # when it was put, lowered or doubled

    def met(self, now: float, sent: float, crowd: int) -> bool:
        """Note that a call found nothing left; return whether fewer may be in flight from now on.

        Args:
            now: when it was found.
            sent: when the call had its permit: one from before the bound says nothing about it.
            crowd: calls in flight then, this one included: while they are more than the bound it has not been tried.
        """
        if sent <= self._since or crowd > self._most or self._most <= 1:
            return False
        self._most, self._since = max(1.0, KEPT * crowd), now
        return True

    def most(self, now: float) -> float:
        """Return how many calls may be in flight; ``inf`` while nothing is short."""
        if self._most < inf and now - self._since >= REST:
            self._most, self._since = 2 * self._most, now
        return self._most

"""The simulator's ways of counting, in front of a procedure whose time is set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import TypeVar

from harvester.bench.offering import Answer, Offer, Outcome
from harvester.simulator import Limit

R = TypeVar("R")
TOOK = 0.002  # seconds for an answer


def chance(seed: object) -> Random:
    """Return what draws the same again and again."""
    return Random(str(seed))  # noqa: S311 - to be repeatable


class Gateway:
    """Answers offers as a gateway that counts in some way.

    Args:
        limit: decides.
        draw: where chance comes from.
        jitter: seconds by which calls may arrive late, at most.
        now: when the first offer begins.
    """

    def __init__(self, limit: Limit, draw: Random, jitter: float = 0.001, now: float = 0.0) -> None:
        self.now = now
        self.calls = 0
        self._limit = limit
        self._draw = draw
        self._jitter = jitter

    def answer(self, offer: Offer) -> list[Answer]:
        """Let the calls of an offer arrive, and time pass."""
        begun = self.now + offer.idle
        arrivals = sorted((moment + self._draw.uniform(0, self._jitter), moment) for moment in offer.moments)
        self.calls += len(arrivals)
        self.now = begun + arrivals[-1][0] + TOOK
        return [self._decided(begun, moment, arrival) for arrival, moment in arrivals]

    def _decided(self, begun: float, moment: float, arrival: float) -> Answer:
        outcome: Outcome = "accepted" if self._limit.admit(begun + arrival) else "refused"
        sent = moment + self._draw.uniform(0, self._jitter / 4)  # what the client knows of the arrival
        return Answer(moment, sent, arrival + TOOK, outcome)


def follow(procedure: Generator[Offer, Sequence[Answer], R], answer: Callable[[Offer], Sequence[Answer]]) -> R:
    """Answer the offers of a procedure until it returns."""
    try:
        offer = next(procedure)
        while True:
            offer = procedure.send(answer(offer))
    except StopIteration as result:
        found: R = result.value
        return found

"""What is offered to a gateway and what comes back: an open-loop schedule, its answers, their figures. Pure.

Calls have their moments beforehand and leave whether or not earlier ones are back. Latency counts from the moment that
was meant, so that a server which stalls cannot hide it by keeping the client from asking (coordinated omission).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from typing import Literal

from msgspec import Struct

Outcome = Literal["accepted", "refused", "failed"]
"""Refused is for the rate; failed is everything else that brought no page."""


class Offer(Struct, frozen=True, kw_only=True):
    """Calls to make: first nothing for ``idle`` seconds, then one at each of ``moments``, in seconds from there.

    ``rate`` is that of the calls after the first ``lead``, in calls a second; 0 if they have none.
    """

    moments: tuple[float, ...]
    idle: float = 0.0
    rate: float = 0.0
    lead: int = 0


class Answer(Struct, frozen=True, gc=False):
    """One call of an offer: when it was to go, went, and was answered, in seconds from the offer's start."""

    meant: float
    sent: float
    done: float
    outcome: Outcome


class Step(Struct, frozen=True, kw_only=True):
    """Figures of one offer: rates in calls a second, latencies in seconds from the moment that was meant.

    ``accepted`` and ``refused`` are rates over the time of the offer, ``failed`` too. ``growth`` is what the latency of
    the last third has more than that of the first one: work that piles up.
    """

    offered: float
    accepted: float
    refused: float
    failed: float
    calls: int
    p50: float
    p90: float
    p99: float
    longest: float
    growth: float


def even(rate: float, seconds: float) -> tuple[float, ...]:
    """Return moments that lie evenly, at least one."""
    return tuple(number / rate for number in range(max(1, round(rate * seconds))))


def burst(start: float, count: int, rate: float) -> tuple[float, ...]:
    """Return the moments of so many calls from ``start`` on, as close as ``rate`` calls a second."""
    return tuple(accumulate(repeat(1 / rate, count - 1), initial=start))


def figures(offer: Offer, answers: Sequence[Answer]) -> Step:
    """Return the figures of an offer that has a rate, without what leads up to it; at least one answer."""
    begun = offer.moments[offer.lead]
    answers = [answer for answer in answers if answer.meant >= begun]
    seconds = len(offer.moments[offer.lead :]) / offer.rate
    latencies = [answer.done - answer.meant for answer in sorted(answers, key=_meant)]
    third = max(1, len(latencies) // 3)
    ranked = sorted(latencies)
    outcomes = [answer.outcome for answer in answers]
    return Step(
        offered=offer.rate,
        accepted=outcomes.count("accepted") / seconds,
        refused=outcomes.count("refused") / seconds,
        failed=outcomes.count("failed") / seconds,
        calls=len(answers),
        p50=quantile(ranked, 0.5),
        p90=quantile(ranked, 0.9),
        p99=quantile(ranked, 0.99),
        longest=ranked[-1],
        growth=max(0.0, quantile(sorted(latencies[-third:]), 0.5) - quantile(sorted(latencies[:third]), 0.5)),
    )


def quantile(ranked: Sequence[float], share: float) -> float:
    """Return the smallest of some sorted values that at least such a share of them does not exceed."""
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]


def judged(answers: Iterable[Answer]) -> list[Answer]:
    """Return the answers that a gateway has decided, in the order in which their calls went."""
    return sorted((answer for answer in answers if answer.outcome != "failed"), key=_sent)


def _meant(answer: Answer) -> float:
    return answer.meant


def _sent(answer: Answer) -> float:
    return answer.sent

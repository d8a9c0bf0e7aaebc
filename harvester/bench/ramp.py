"""Which rates a gateway takes: more and more is offered until some of it is refused, then the gap is narrowed. Pure.

A procedure here is a generator: it yields offers and is sent their answers, so that a test can answer in virtual time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from math import sqrt
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.bench.offering import Answer, Offer, Step, even, figures, judged

STEP: Final = 1.3  # seconds of one step: more than the second in which most gateways count
REST: Final = 2.2  # seconds after a refusal: two windows of a second, for who counts the one before too
LONGEST_REST: Final = 20.0  # seconds that a gateway gets to forget
MOST: Final = 5120.0  # calls a second; about what one process can send
LEAST: Final = 0.5  # calls a second
CLOSE: Final = 1.15  # the gap between taken and refused, as a ratio, that is narrow enough
NARROWING: Final = 3  # steps to get there
TOLERATED: Final = 0.005  # share of refusals that may be chance: jitter on the way
EVENLY: Final = 0.8  # of the time between two calls; less is a call that went too soon
PILED_UP: Final = 0.1  # seconds by which latency grows within a step that is more than can be served
FAILING: Final = 0.05  # share of failures that says the same


class Range(Struct, frozen=True, kw_only=True):
    """What ramping has found, in calls a second.

    ``taken`` is the highest rate without refusals, 0 if there was none; ``refused`` the lowest with some, None if no
    limit was met. ``rest`` are the seconds after which a refused gateway took calls again; None if it did not.
    ``swamped`` is the rate at which work piled up instead, 0 if it did not.
    """

    taken: float
    refused: float | None
    rest: float | None = REST
    swamped: float = 0.0


def ramp(first: float, most: float = MOST, seconds: float = STEP) -> Generator[Offer, Sequence[Answer], Range]:
    """Double the offered rate from ``first`` on, until it is refused, piles up, or reaches ``most``."""
    found, rate, forgetting, narrowed = Range(taken=0.0, refused=None), min(first, most), False, 0
    while True:
        offer = Offer(moments=even(rate, seconds), idle=(found.rest or 0.0) if forgetting else 1 / rate, rate=rate)
        answers = yield offer
        step = figures(offer, answers)
        if forgetting and min(answers, key=_sent).outcome == "refused":  # it still counts what came before
            rest = 2 * (found.rest or REST)
            found = replace(found, rest=rest if rest <= LONGEST_REST else None)
            if found.rest is None:
                return found
            continue
        if is_swamped(step) and not is_refused(step):
            if found.swamped == rate:
                return found
            found = replace(found, swamped=rate)  # it may have been chance: once more
            continue
        found = replace(found, swamped=0.0)
        forgetting = is_refused(step) and not bunched(answers, rate)
        found = replace(found, refused=rate) if forgetting else replace(found, taken=rate)
        narrowed += found.refused is not None and found.taken > 0
        following = _following(found, rate, most, narrowed)
        if following is None:
            return found
        rate = following


def _following(found: Range, rate: float, most: float, narrowed: int) -> float | None:
    """Return the rate to offer next; None if there is none."""
    if found.refused is None:
        return min(most, 2 * rate) if rate < most else None
    if not found.taken:
        return max(LEAST, rate / 2) if rate > LEAST else None
    if found.refused / found.taken <= CLOSE or narrowed > NARROWING:
        return None
    return sqrt(found.taken * found.refused)


def is_refused(step: Step) -> bool:
    """Tell whether more was refused than chance would have it."""
    return step.refused > TOLERATED * step.offered


def bunched(answers: Sequence[Answer], rate: float) -> bool:
    """Tell whether calls were refused only because they went too soon after another: this machine was late with it."""
    ordered = judged(answers)
    fair = sum(
        later.outcome == "refused" and later.sent - earlier.sent > EVENLY / rate for earlier, later in pairwise(ordered)
    )
    return fair <= TOLERATED * len(ordered)


def is_swamped(step: Step) -> bool:
    """Tell whether more was offered than the server, or this machine, gets done."""
    return step.growth > PILED_UP or step.failed > FAILING * step.offered


def _sent(answer: Answer) -> float:
    return answer.sent

"""What to offer a gateway to find out how it counts. Pure.

Two offers tell. The first goes on above the limit (``counting`` says what follows from it). The second is for windows:
a third of one, a whole one 0.6 of its length after that, another whole one 1.1 after the start; twice, half a window
apart.

=======================  ============  ==============  ================================================
taken of a window        second burst  third burst     because
=======================  ============  ==============  ================================================
sliding                  2/3           1/3             only the first third has left it
from the first call      2/3           all             it ended one length after the first call
by the calendar          all, at least once            it turned between the bursts, at a moment of its own
weighted, refused count  2/3           nothing         what was refused is in it
=======================  ============  ==============  ================================================

Some cannot be told apart from outside, because they decide alike: a token bucket, a leaky bucket of the same depth and
nginx's with a burst of one less; a weighted window, a sliding log and a window that every call prolongs, where all of
them count refused calls.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import accumulate, pairwise
from math import sqrt
from statistics import median
from typing import Final

from msgspec.structs import replace

from harvester.bench.counting import DENSE, Counting, depth_of, is_odd, judge, taken_of, window_kind
from harvester.bench.offering import Answer, Offer, burst, judged
from harvester.bench.ramp import LONGEST_REST, MOST, REST, Range

ABOVE: Final = 2.3  # what goes on above the limit, over it; no whole number, so that calls do not fall in step
STEADY: Final = 3.5  # seconds of it
UNEVEN: Final = 0.618  # golden section: multiples of it, less the whole, spread evenly without ever repeating
TRIES: Final = 3  # until what is found is usual; time on the way may be uneven
TAKEN: Final = 0.75  # of what was meant to be above the limit; more says that it was not
FEWEST: Final = 6  # calls a window has to take for its kind to be told
FIRST, SECOND, THIRD, AGAIN = 0.0, 0.6, 1.1, 3.5  # when the bursts begin, in windows
FILLED: Final = 0.7  # of what has come in meanwhile, that a bucket which is full holds at most
LATE: Final = 0.05  # seconds that a call may be late, and not pass for one of another burst
UNEVENLY: Final = 0.1  # of the calls that are late by more; what was refused then need not be what went too soon


def probe(found: Range) -> Generator[Offer, Sequence[Answer], Counting]:
    """Find out how a gateway counts whose limit lies within the range that ramping has found."""
    if found.refused is None:
        piled_up = f"calls pile up at {found.swamped:,.0f}/s: the server, or this machine, is not fast enough for more"
        return Counting(kind="none", remark=piled_up if found.swamped else "")
    middle = sqrt((found.taken or found.refused / 2) * found.refused)
    if found.rest is None:
        remark = "it has taken nothing for a long while after a refusal: a long window, or a quota that is used up"
        return Counting(kind="unknown", limit=middle, remark=remark)
    counting = yield from _judged(found)
    if counting.kind == "bucket":
        return (yield from _filled(counting, found.rest))
    if counting.kind not in {"window", "refused count"} or counting.window is None or counting.depth is None:
        return counting
    if counting.depth < FEWEST:
        return replace(counting, remark="too few calls in a window to tell of which kind it is")
    fitting = {"refused count"} if counting.kind == "refused count" else {"sliding", "first call", "calendar"}
    offer = _thirds(counting.depth, counting.window, max(found.rest, 2 * counting.window))
    for _ in range(TRIES):
        answers = yield offer
        kind = window_kind(shares(offer, judged(answers), counting.depth, counting.window))
        if kind in fitting:
            return replace(counting, kind=kind)
    remark = "bursts around the end of a window do not tell: time on the way is too uneven, or it is of another kind"
    return replace(counting, kind="window", remark=remark)


def _judged(found: Range) -> Generator[Offer, Sequence[Answer], Counting]:
    """Offer more than the limit, again with twice as much where it was not, and judge what has come back."""
    rate, rest, tries = found.refused or MOST, found.rest or REST, 0
    while True:
        answers = judged((yield _above(rate, rest)))
        steady = answers[_at_once(rate) :]
        if len(steady) < FEWEST:
            return Counting(kind="unknown", remark="too many calls brought no answer")
        if taken_of(steady) <= TAKEN * len(steady):
            counting, tries = judge(answers[: _at_once(rate)], steady, replace(found, refused=rate)), tries + 1
            late = lateness(answers)
            if late <= UNEVENLY and not is_odd(counting, replace(found, refused=rate)):
                return counting
            if tries == TRIES:
                return replace(counting, remark=_uneven(late) if late > UNEVENLY else "")
            continue
        if rate >= MOST:
            return Counting(kind="unknown", remark="it refuses a few calls at any rate")
        rate *= 2


def _emptied(count: int, limit: float, idle: float) -> Generator[Offer, Sequence[Answer], int]:
    """Empty a bucket by a burst; return how deep it was."""
    return depth_of(judged((yield Offer(moments=burst(0.0, count, DENSE * limit), idle=idle))), limit)


def lateness(answers: Sequence[Answer]) -> float:
    """Return the share of calls that went, or were answered, much later than others: who was refused is then chance."""
    usual = median(answer.done - answer.sent for answer in answers)
    late = sum(answer.sent - answer.meant > LATE or answer.done - answer.sent > usual + LATE for answer in answers)
    return late / len(answers)


def _uneven(late: float) -> str:
    return f"uncertain: {late:.0%} of the calls were more than {LATE * 1000:.0f} ms late; try when less else is running"


def _filled(counting: Counting, idle: float) -> Generator[Offer, Sequence[Answer], Counting]:
    """Look again how deep a bucket is: once more after a longer while, if it was as deep as it had had time to fill."""
    limit, depth = counting.limit or 1.0, counting.depth or 1
    while depth > FILLED * limit * idle and idle < LONGEST_REST:
        idle = min(LONGEST_REST, 4 * idle)
        depth = yield from _emptied(int(1.3 * limit * idle) + 1, limit, idle)
    if depth > 1:
        count = int(1.5 * depth) + FEWEST
        again = yield from _emptied(count, limit, idle)
        depth = sorted((depth, again, (yield from _emptied(count, limit, idle))))[1]
    remark = counting.remark
    if depth > FILLED * limit * idle:
        remark = "at least as deep as that: it had not had time to fill"
    if limit < FEWEST:
        remark = "or a window: so few calls a second do not tell"
    return replace(counting, depth=depth, remark=remark)


# Above the limit


def _above(rate: float, rest: float) -> Offer:
    """Return an offer that no gateway takes whole: a burst, then more than the limit for some windows.

    The gaps after the burst are uneven, so that a bucket which holds one call shows how long it takes to fill.
    """
    at_once = burst(0.0, _at_once(rate), DENSE * rate)
    seconds = STEADY if rest <= REST else 2.5 * rest
    gaps = (((number * UNEVEN) % 1 + 0.5) / (ABOVE * rate) for number in range(int(ABOVE * rate * seconds)))
    moments = at_once + tuple(accumulate(gaps, initial=at_once[-1]))[1:]
    return Offer(moments=moments, idle=rest, rate=ABOVE * rate, lead=len(at_once))


def _at_once(rate: float) -> int:
    return int(1.25 * rate) + FEWEST


# Bursts around the end of a window


def _thirds(depth: int, window: float, rest: float) -> Offer:
    third, rate = max(1, depth // 3), DENSE * depth / window
    moments: tuple[float, ...] = ()
    for start in (0.0, AGAIN * window):
        for at, count in ((FIRST, third), (SECOND, depth), (THIRD, depth)):
            moments += burst(start + at * window, count, rate)
    return Offer(moments=moments, idle=rest)


def shares(offer: Offer, answers: Sequence[Answer], depth: int, window: float) -> list[tuple[float, float]]:
    """Return for both times what was taken of the second and of the third burst, over what a window takes."""
    begun = offer.moments[0]
    found = []
    for start in (0.0, AGAIN):
        bounds = [begun + window * (start + at) - min(LATE, 0.04 * window) for at in (SECOND, THIRD, AGAIN)]
        counts = [
            sum(answer.outcome == "accepted" and low <= answer.meant < high for answer in answers)
            for low, high in pairwise(bounds)
        ]
        found.append((counts[0] / depth, counts[1] / depth))
    return found

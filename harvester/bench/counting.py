"""How a gateway counts, as its answers tell: a window or a bucket, how long, how deep. Pure.

What goes on above the limit after a burst tells: a bucket takes calls evenly all the time, a window takes a lump, then
nothing until it opens again, and a gateway that counts refused calls as well takes nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import linear_regression, median
from typing import Final, Literal

from msgspec import Struct

from harvester.bench.offering import Answer
from harvester.bench.ramp import STEP, Range

DENSE: Final = 8  # a burst's rate over the limit's
LUMP: Final = 3  # calls of the limit that could have been taken meanwhile part what was taken into lumps
STARVED: Final = 0.3  # of that time, after which nothing was taken
SILENCE: Final = 0.3  # of the time, in which a window that is full takes nothing
ALIKE: Final = 0.5  # of the longest gap between lumps
JITTER: Final = 0.01  # seconds; what is told apart takes longer
PART: Final = 20  # calls that make one of ``PARTS``
PARTS: Final = 12  # of that time, in each of which a bucket is filled evenly
REFUSALS: Final = 12  # of a burst, that the rate can be read from
DOUBTFUL: Final = 0.2  # of the answers may contradict a time that is read from them, by jitter and whole milliseconds
AGREEING: Final = 0.6  # of the rate that was taken for some seconds; a window of a second grants more
BEYOND: Final = 1.15  # of the rate that was refused; a limit is not so high
OFF: Final = 0.15  # of a window, that a count may be off
USUAL: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)  # seconds
EXACT: Final = 0.03  # by which a measured length may differ from a usual one that it is taken for

Kind = Literal["none", "bucket", "sliding", "first call", "calendar", "refused count", "weighted", "window", "unknown"]

WORDS: Final[dict[Kind, str]] = {
    "none": "no limit was met",
    "bucket": "a bucket (token, leaky, or nginx's limit_req with a burst of one less: they decide alike)",
    "sliding": "a sliding window that counts accepted calls",
    "first call": "a window that begins with the first call",
    "calendar": "windows that follow one another by the clock",
    "refused count": "a window that counts refused calls too (weighted as HAProxy's, sliding, or prolonged by every "
    "call: they decide alike), so that whoever goes on above the limit gets nothing",
    "weighted": "a weighted window that counts accepted calls",
    "window": "a window, of a kind that cannot be told",
    "unknown": "in a way that cannot be told",
}
"""What each kind is called, and which are one family because nothing that a client sees tells them apart."""


class Counting(Struct, frozen=True, kw_only=True):
    """How a gateway counts: ``limit`` in calls a second, ``window`` in seconds, ``depth`` in calls at once.

    The depth is that of the bucket, or what a window takes. None is what is not known, or what there is not.
    """

    kind: Kind
    limit: float | None = None
    window: float | None = None
    depth: int | None = None
    remark: str = ""

    @property
    def words(self) -> str:
        """The kind in words."""
        return WORDS[self.kind]


def judge(at_once: Sequence[Answer], steady: Sequence[Answer], found: Range) -> Counting:
    """Tell buckets, windows, and who counts refused calls.

    Args:
        at_once: answers to a burst that no gateway takes whole, ``DENSE`` times as dense as the limit or denser.
        steady: answers to what followed it, above the limit for some windows.
        found: by ramping.
    """
    taken = [answer.sent for answer in steady if answer.outcome == "accepted"]
    if len(taken) < 2 or taken[-1] < steady[0].sent + STARVED * (steady[-1].sent - steady[0].sent):  # noqa: PLR2004
        return _starved(at_once, found)
    limit = _evenly(taken)
    gap = max(LUMP * (taken[-1] - taken[0]) / len(taken), 2 * JITTER)
    lumps = _lumps(steady, gap)
    if len(lumps) > 1:  # a window's gaps are alike; shorter ones are its memory of a machine that was late
        longest = max(later[0] - earlier[-1] for earlier, later in pairwise(lumps))
        lumps = _lumps(steady, max(gap, ALIKE * longest))
    silence = sum(later[0] - earlier[-1] for earlier, later in pairwise(lumps))
    if silence > SILENCE * (taken[-1] - taken[0]) and median(map(len, lumps)) > 1:
        return _window(at_once[0].sent, steady, lumps)
    if taken[0] - steady[0].sent < gap:
        return _bucket(at_once, steady, limit)
    return Counting(kind="weighted", limit=limit, depth=taken_of(at_once), window=_usual(taken_of(at_once) / limit))


def _evenly(taken: Sequence[float]) -> float:
    """Return the rate at which calls were taken: that of most parts of the time, for in some the way may be slow."""
    size = len(taken) // PARTS
    if size < PART:
        return (len(taken) - 1) / (taken[-1] - taken[0])
    return median(size / (taken[start + size] - taken[start]) for start in range(0, len(taken) - size, size))


def _starved(at_once: Sequence[Answer], found: Range) -> Counting:
    """Take it that refused calls count: whoever goes on is not let in again."""
    depth, rate = taken_of(at_once), found.refused or 0.0
    low, high = depth / rate / 1.05, depth / (found.taken or rate / 2) * 1.05
    fitting = [length for length in USUAL if low <= length <= high]
    window = min(fitting, key=lambda length: abs(length - sqrt(low * high)), default=sqrt(low * high))
    return Counting(kind="refused count", limit=depth / window, depth=depth, window=window)


def _bucket(at_once: Sequence[Answer], steady: Sequence[Answer], limit: float) -> Counting:
    """Return the bucket: filled at the rate of what it takes while it is empty, as deep as the burst has shown."""
    if _holds_one(at_once):
        seconds, doubtful = _filling(steady)
        return Counting(kind="bucket", limit=1 / seconds if doubtful < DOUBTFUL else limit, depth=1)
    return Counting(kind="bucket", limit=limit, depth=depth_of(at_once, limit))


def _holds_one(at_once: Sequence[Answer]) -> bool:
    """Tell whether a bucket takes no two calls at once: by the beginning of a burst, or by the whole of it."""
    if taken_of(at_once[: DENSE // 2]) == 1:
        return True
    emptied = _emptied(at_once)
    return len(emptied) >= REFUSALS and linear_regression(*zip(*emptied, strict=True)).intercept < 1.5  # noqa: PLR2004


def depth_of(at_once: Sequence[Answer], limit: float) -> int:
    """Return how many calls a bucket has taken at once, less what came in meanwhile."""
    emptied = _emptied(at_once)
    return max(1, round(median(count - limit * at for at, count in emptied))) if emptied else len(at_once)


def _emptied(at_once: Sequence[Answer]) -> list[tuple[float, float]]:
    """Return when calls of a burst were refused, and how many had been taken by then, half a call in doubt."""
    accepted = 0
    emptied = []
    for answer in at_once:
        if answer.outcome == "accepted":
            accepted += 1
        else:
            emptied.append((answer.sent - at_once[0].sent, accepted + 0.5))
    return emptied


def _filling(steady: Sequence[Answer]) -> tuple[float, float]:
    """Return the seconds after which a bucket that holds one call takes another, and the share that contradicts it."""
    gaps: list[tuple[float, bool]] = []
    last: float | None = None
    for answer in steady:
        taken = answer.outcome == "accepted"
        if last is not None:
            gaps.append((answer.sent - last, taken))
        if taken:
            last = answer.sent
    gaps.sort()
    wrong = fewest = sum(not taken for _, taken in gaps)
    best = gaps[0][0]
    for (gap, taken), (following, _) in pairwise(gaps):
        wrong += 1 if taken else -1
        if wrong < fewest:
            fewest, best = wrong, (gap + following) / 2
    return best, fewest / len(gaps)


def _window(begun: float, steady: Sequence[Answer], lumps: Sequence[Sequence[float]]) -> Counting:
    """Return the window, from the lumps that it takes of what goes on above the limit."""
    cut = steady[-1].outcome == "accepted" or len(lumps[-1]) < len(lumps[-2]) * (1 - OFF)
    starts = [lump[0] for lump in lumps]
    lengths = [later - earlier for earlier, later in pairwise(starts)] or [starts[0] - begun]
    unsure = (steady[-1].sent - steady[0].sent) / len(steady)
    window, depth = _usual(median(lengths), unsure), round(median(map(len, lumps[:-1] if cut else lumps)))
    return Counting(kind="window", limit=depth / window, depth=depth, window=window)


def _lumps(answers: Sequence[Answer], gap: float) -> list[list[float]]:
    """Return when calls were accepted, parted where for so many seconds others were refused.

    Seconds in which nothing was sent say nothing: this machine may have been late.
    """
    lumps: list[list[float]] = []
    refused: list[float] = []
    for answer in answers:
        if answer.outcome == "refused":
            refused.append(answer.sent)
            continue
        if not lumps or (refused and refused[-1] - refused[0] >= gap / 2 and answer.sent - lumps[-1][-1] >= gap):
            lumps.append([])
        lumps[-1].append(answer.sent)
        refused.clear()
    return lumps


def is_odd(counting: Counting, found: Range) -> bool:
    """Tell whether what was found is unusual, or contradicts what ramping has found: both may be noise."""
    if counting.limit is None:
        return False
    if found.refused is not None and counting.limit > BEYOND * found.refused:
        return True
    if counting.window is None:
        return False
    return counting.window not in USUAL or (counting.window < STEP and counting.limit < AGREEING * found.taken)


def window_kind(pairs: Sequence[tuple[float, float]]) -> Kind:
    """Tell windows by what they take, see the table above."""
    if any(second > 1 - OFF for second, _ in pairs):
        return "calendar"
    if any(abs(second - 2 / 3) > OFF for second, _ in pairs):
        return "window"
    known: tuple[tuple[Kind, float], ...] = (("sliding", 1 / 3), ("first call", 1.0), ("refused count", 0.0))
    for kind, share in known:
        if all(abs(third - share) < OFF for _, third in pairs):
            return kind
    return "window"


def taken_of(answers: Sequence[Answer]) -> int:
    """Return how many were accepted."""
    return sum(answer.outcome == "accepted" for answer in answers)


def _usual(length: float, unsure: float = 0.0) -> float:
    """Return a usual length that differs by no more than measuring does, else the length itself."""
    return next((usual for usual in USUAL if abs(length - usual) <= max(unsure, EXACT * usual)), length)

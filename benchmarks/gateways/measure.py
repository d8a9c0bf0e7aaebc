"""From a gateway's own log, and the rows a contender holds, to figures. Pure, apart from reading the rows' files."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from math import floor
from pathlib import Path
from typing import NamedTuple

PAGE = 20  # rows
SECOND = 1_000_000  # microseconds; whole ones, for differences of Unix times as floats are not exact


class Arrival(NamedTuple):
    """A call as the gateway logged it: Unix seconds, the path asked for, and whether it was refused."""

    at: float
    path: str
    refused: bool


class Second(NamedTuple):
    """Counts of one second, counted from the first arrival."""

    offered: int
    accepted: int
    refused: int


class Rate(NamedTuple):
    """What a gateway saw in a window; rates are per second, shares in percent."""

    offered: float
    accepted: float
    of_limit: float
    refused: float
    any_second: int
    first_second: int
    seconds: list[Second]


class Held(NamedTuple):
    """Rows that a contender holds, against those of the dataset."""

    lost: int
    doubled: int


def rate(arrivals: Sequence[Arrival], limit: float, window: float) -> Rate:
    """Count the first ``window`` seconds after the first arrival; the peaks are over the whole log."""
    if not arrivals:
        return Rate(0, 0, 0, 0, 0, 0, [])
    times = [round(arrival.at * SECOND) for arrival in arrivals]
    inside = arrivals[: bisect_left(times, times[0] + window * SECOND)]
    accepted = sum(not arrival.refused for arrival in inside)
    return Rate(
        offered=len(inside) / window,
        accepted=accepted / window,
        of_limit=100 * accepted / window / limit,
        refused=100 * (1 - accepted / len(inside)),
        any_second=peak(times),
        first_second=bisect_left(times, times[0] + SECOND),
        seconds=per_second(inside, arrivals[0].at, round(window)),
    )


def peak(times: Iterable[int]) -> int:
    """Return the most events in any second; times are in microseconds, those exactly 1 s apart do not share one."""
    recent: deque[int] = deque()
    most = 0
    for now in times:
        recent.append(now)
        while now - recent[0] >= SECOND:
            recent.popleft()
        most = max(most, len(recent))
    return most


def per_second(arrivals: Iterable[Arrival], began: float, seconds: int) -> list[Second]:
    """Return one entry for each of so many seconds from ``began`` on."""
    accepted, refused = [0] * seconds, [0] * seconds
    for arrival in arrivals:
        second = floor(arrival.at - began)
        if 0 <= second < seconds:
            (refused if arrival.refused else accepted)[second] += 1
    return [Second(good + bad, good, bad) for good, bad in zip(accepted, refused, strict=True)]


def settled(
    seconds: Sequence[Second], limit: float, share: float = 0.9, refused: float = 0.02, span: int = 5
) -> int | None:
    """Return the first second from which ``span`` seconds together have enough accepted and few refused, or None."""
    for start in range(len(seconds) - span + 1):
        part = seconds[start : start + span]
        offered = sum(second.offered for second in part)
        accepted = sum(second.accepted for second in part)
        if accepted >= share * limit * span and offered - accepted <= refused * offered:
            return start
    return None


def held(files: Iterable[Path], expected: int) -> Held:
    """Count the rows in files of one JSON object a line; lines of other kinds, as in journals, are passed over."""
    total, distinct = 0, set()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    total += 1
                    distinct.add(hash(line))
    return Held(lost=expected - len(distinct), doubled=total - len(distinct))

"""How many calls are in flight, in front of modelled servers: far ones, busy ones, and pages that grow slower."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.concurrency import FIRST_REST, LONGEST_REST, MOST, Concurrency

RATE: Final = 292.5  # calls per second

Answer = Callable[[float], float]
"""When a call that is sent at one moment is answered."""


def far(latency: Callable[[float], float], jitter: float = 0.1) -> Answer:
    """Return a server that serves any number at once, each after so many seconds, give or take a tenth."""
    chance = Random(1)  # noqa: S311 - a model
    return lambda now: now + latency(now) * chance.uniform(1 - jitter, 1 + jitter)


def busy(capacity: float, latency: float = 0.02) -> Answer:
    """Return a server that serves one call after the other, so many a second whatever is in flight."""
    free = [0.0]

    def answer(now: float) -> float:
        free[0] = max(free[0], now) + 1 / capacity
        return free[0] + latency

    return answer


@dataclass
class Harvest:
    """Workers that wait for a permit, send, and send again; one more or less whenever the slots say so."""

    concurrency: Concurrency
    answer: Answer
    rate: float = RATE
    answered: list[float] = field(default_factory=list)
    slots: list[tuple[float, int]] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)
    most_in_flight: int = 0

    def run(self, seconds: float) -> Harvest:
        """Take every permit and answer in its order."""
        calls = self.concurrency
        back: list[tuple[float, float, int]] = []  # when it comes, when its call was sent, in which crowd
        permit, now, workers = 0.0, 0.0, calls.slots
        self.slots.append((0.0, workers))
        while now < seconds:
            if len(back) < workers and (not back or max(now, permit) <= back[0][0]):
                now = max(now, permit)
                permit = now + 1 / self.rate
                heappush(back, (self.answer(now), now, len(back) + 1))
                self.most_in_flight = max(self.most_in_flight, len(back))
                continue
            now, sent, crowd = back[0]
            change = calls.answered(now, sent, crowd, starved=len(back) >= calls.slots and workers <= len(back))
            heappop(back)
            self.answered.append(now)
            if change:
                self.said.append((now, change))
            if calls.slots != self.slots[-1][1]:
                self.slots.append((now, calls.slots))
            workers = max(calls.slots, len(back))  # who is under way stays until it is back
        return self

    def per_second(self, begin: float, end: float) -> float:
        """Return the answers per second between two moments."""
        return (bisect_left(self.answered, end) - bisect_left(self.answered, begin)) / (end - begin)

    def reached(self, slots: int) -> float:
        """Return when there were so many slots for the first time."""
        return next((moment for moment, number in self.slots if number >= slots), inf)

    def words(self) -> set[str]:
        """Return the reasons that were given."""
        return {word for _, word in self.said}


@pytest.mark.parametrize(
    ("rate", "most", "slots"), [(0.5, MOST, 4), (1, MOST, 4), (10, MOST, 10), (300, MOST, 16), (300, 2, 2), (1, 1, 1)]
)
def test_few_slots_to_begin_with(rate: float, most: int, slots: int) -> None:
    """Sixteen, at low rates no more than a second's calls, and never above the most."""
    assert Concurrency(rate, most).slots == slots


def test_a_near_server_needs_no_more() -> None:
    """At 20 ms the first slots are enough for the whole rate: nothing changes, nothing is said."""
    harvest = Harvest(Concurrency(RATE), far(lambda _: 0.02)).run(30)
    assert harvest.slots == [(0.0, 16)]
    assert harvest.said == []
    assert harvest.per_second(1, 30) >= 0.99 * RATE


@pytest.mark.parametrize("latency", [0.1, 0.8, 2.0])
def test_a_far_server_gets_the_slots_that_its_way_needs(latency: float) -> None:
    """By Little's law; within ten seconds of the start, and the rate is used from then on."""
    harvest = Harvest(Concurrency(RATE), far(lambda _: latency)).run(60)
    print(f"{latency} s: {harvest.slots}, {harvest.per_second(20, 60) / RATE:.1%}")
    assert harvest.reached(int(0.95 * RATE * latency)) <= 10
    assert harvest.per_second(20, 60) >= 0.95 * RATE
    assert harvest.words() == {"latency"}
    assert harvest.slots[-1][1] <= 2 * RATE * latency, "and not many more"


def test_a_server_that_moves_away_is_followed() -> None:
    """20 ms become 2 s: within ten seconds there are slots for 95 % of the rate, and when it is back they go."""
    harvest = Harvest(Concurrency(RATE), far(lambda now: 2.0 if 10 <= now < 60 else 0.02)).run(120)
    print(harvest.slots, harvest.said)
    assert harvest.reached(int(0.95 * RATE * 2)) - 10 <= 10
    assert harvest.per_second(30, 60) >= 0.95 * RATE
    assert harvest.slots[-1][1] < 40
    assert harvest.per_second(70, 120) >= 0.95 * RATE
    assert harvest.words() == {"latency"}


def test_pages_that_grow_slower_keep_their_rate() -> None:
    """Deep pages take longer: from 20 ms to 1.5 s within a minute, the slots keep up."""
    harvest = Harvest(Concurrency(RATE), far(lambda now: 0.02 + min(now, 60) / 60 * 1.48)).run(90)
    print(harvest.slots, harvest.per_second(0, 90) / RATE)
    assert harvest.per_second(0, 90) >= 0.93 * RATE
    assert harvest.per_second(70, 90) >= 0.95 * RATE
    assert harvest.words() == {"latency"}


@pytest.mark.parametrize("capacity", [20.0, 50.0, 150.0])
def test_a_busy_server_is_not_crowded(capacity: float) -> None:
    """Whatever is in flight it serves so many a second: each trial is taken back, and the next waits twice as long."""
    harvest = Harvest(Concurrency(RATE), busy(capacity)).run(300)
    print(harvest.said, harvest.slots)
    assert [word for _, word in harvest.said] == ["latency", "server"] * (len(harvest.said) // 2)
    assert {number for _, number in harvest.slots[::2]} == {16}
    assert harvest.slots[-1][1] == 16
    tried = [moment for moment, word in harvest.said if word == "latency"]
    ended = [moment for moment, word in harvest.said if word == "server"]
    rests = [later - earlier for earlier, later in zip(ended, tried[1:], strict=False)]
    expected = [min(LONGEST_REST, FIRST_REST * 2**number) for number in range(len(rests))]
    assert len(rests) >= 3
    assert rests == pytest.approx(expected, abs=2)
    assert harvest.per_second(10, 300) >= 0.99 * capacity, "it is kept busy all the same"


def test_a_server_that_is_busy_no_more_gets_its_slots() -> None:
    """The rests that a busy hour has left behind end, and a far server is served as far ones are."""
    slow = busy(50.0)
    quick = far(lambda _: 0.8)
    harvest = Harvest(Concurrency(RATE), lambda now: slow(now) if now < 120 else quick(now)).run(300)
    print(harvest.said, harvest.slots)
    assert harvest.per_second(260, 300) >= 0.95 * RATE


def test_a_trial_that_stays_ends_the_long_rests() -> None:
    """Busy, far, and busy again: the next trial comes as soon as it did at first."""
    first, quick, again = busy(50.0), far(lambda _: 0.8), busy(50.0)
    harvest = Harvest(
        Concurrency(RATE), lambda now: first(now) if now < 70 else quick(now) if now < 150 else again(now)
    ).run(300)
    print(harvest.said)
    ended = [moment for moment, word in harvest.said if word == "server"]
    tried = [moment for moment, word in harvest.said if word == "latency"]
    assert ended[2] < 70, "three in vain"
    back = next(moment for moment in ended if moment > 150)
    assert next(moment for moment in tried if moment > back) - back == pytest.approx(FIRST_REST, abs=3)


@pytest.mark.parametrize("answer", [far(lambda _: 30.0), far(lambda _: 2.0), busy(50.0)])
@pytest.mark.parametrize("most", [1, 5, 100])
def test_never_more_than_the_most(answer: Answer, most: int) -> None:
    """However far the server is."""
    harvest = Harvest(Concurrency(RATE, most), answer).run(200)
    assert max(number for _, number in harvest.slots) <= most
    assert harvest.most_in_flight <= most


def test_a_low_rate_stays_with_few() -> None:
    """Two calls a second to a server 1.5 s away: four slots are what it takes."""
    harvest = Harvest(Concurrency(2.0), far(lambda _: 1.5), rate=2.0).run(120)
    assert max(number for _, number in harvest.slots) <= 8
    assert harvest.per_second(10, 120) >= 0.95 * 2


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 5), st.floats(0, 1.2), st.booleans()), max_size=400))
def test_whatever_is_answered_the_slots_stay_within_bounds(steps: list[tuple[float, float, float, bool]]) -> None:
    """Never below those at the begin, never above the most; a reason is given only with a change."""
    calls, now = Concurrency(RATE, 200), 0.0
    least = calls.slots
    for later, latency, crowd, starved in steps:
        now += later
        before = calls.slots
        change = calls.answered(now, now - latency, int(crowd * before), starved=starved)
        assert least <= calls.slots <= 200
        assert {"latency": calls.slots > before, "server": calls.slots < before, "": calls.slots <= before}[change]


def test_trials_do_not_overlap() -> None:
    """Between two that grow there is time for the first to tell."""
    harvest = Harvest(Concurrency(RATE), far(lambda _: 2.0)).run(60)
    grown = [moment for moment, word in harvest.said if word == "latency"]
    assert all(later - earlier >= 2.0 * 0.9 for earlier, later in pairwise(grown))

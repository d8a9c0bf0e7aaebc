"""What a rate learns from refusals, alone with set time and in front of modelled limiters of every common kind."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil, inf, isfinite
from random import Random
from typing import Final, Protocol

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harvester.pace import SLACK, SLACK_PART, burst_for
from harvester.rate import (
    BACK,
    BELOW,
    FALLS,
    LONGEST_PAUSE,
    QUIET,
    RISE_EVERY,
    SHORT_PAUSE,
    SLOWEST,
    SOON,
    WINDOW_PAUSE,
    Rate,
)

LIMIT: Final = 300.0  # calls per second, as configured
CEILING: Final = 0.975 * LIMIT
ROUND_TRIPS: Final = (0.02, 0.05)  # seconds
JITTER: Final = 0.010  # seconds a call may be late on its way there
TIMER: Final = 0.001  # seconds; no waking is finer
SEEDS: Final = (1, 2)


# -- one episode at a time ----------------------------------------------------------------------------------------


def steadily(rate: Rate, per_second: float, begin: float, end: float) -> None:
    """Have so many calls a second accepted, each at the moment it was permitted."""
    for number in range(1, ceil((end - begin) * per_second)):
        rate.accepted(begin + number / per_second, begin + number / per_second)


def until_higher(rate: Rate, now: float, most: float = 200.0) -> float:
    """Return after how many seconds of quiet the rate rises, to 10 ms."""
    before = rate.value
    for tick in range(int(most * 100)):
        rate.advance(now + tick / 100)
        if rate.value > before:
            return tick / 100
    return inf


def test_a_new_rate_is_its_ceiling_and_stays_there() -> None:
    """Without a refusal nothing is believed."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, CEILING, 0, 30)
    rate.advance(1000.0)
    assert (rate.value, rate.cut, rate.locked_out) == (CEILING, False, False)


def test_an_episode_is_one_reaction() -> None:
    """All that was permitted before the reaction changes nothing more, refused or accepted."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 3)
    assert rate.refused(2.9, 3.0) > 0
    after = rate.value
    assert [rate.refused(permitted, 3.0 + permitted / 100) for permitted in (2.9, 2.99, 3.0)] == [0.0, 0.0, 0.0]
    rate.accepted(3.0, 3.02)
    assert rate.value == after
    assert rate.refused(3.5, 3.6) > 0, "this one left after the reaction"
    assert rate.locked_out, "and what came back late from before does not count as accepted since"


def test_what_was_accepted_over_a_second_is_a_measurement() -> None:
    """The rate becomes a little less than it."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    assert rate.refused(4.99, 5.0) == SHORT_PAUSE
    assert rate.value == pytest.approx(BELOW * 150, rel=0.02)
    assert rate.cut


def test_a_measurement_never_raises_the_rate() -> None:
    """More may be accepted in a second than the rate, by the burst."""
    rate = Rate(100.0, 0.0)
    steadily(rate, 120, 0, 5)
    rate.refused(4.99, 5.0)
    assert rate.value <= 100.0


def test_what_was_accepted_in_less_than_a_second_is_a_guess() -> None:
    """A full bucket lets through what says nothing of the rate: it is halved, and windows are given time to empty."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, CEILING, 0, 0.4)
    assert rate.refused(0.39, 0.4) == WINDOW_PAUSE
    assert rate.value == CEILING / 2


def test_few_accepted_calls_are_no_measurement() -> None:
    """Three accepted calls in a second are no count of what a platform grants an app of three hundred."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 3, 0, 5)
    rate.refused(4.99, 5.0)
    assert rate.value == CEILING / 2


def test_a_guess_is_left_sooner_than_a_measurement() -> None:
    """Both rise by time alone, counted from the end of the pause."""
    guessed, measured = Rate(CEILING, 0.0), Rate(CEILING, 0.0)
    steadily(guessed, CEILING, 0, 0.4)
    pause = guessed.refused(0.39, 0.4)
    assert until_higher(guessed, 0.4 + pause) == pytest.approx(SOON, abs=0.011)
    steadily(measured, 150, 0, 5)
    pause = measured.refused(4.99, 5.0)
    assert until_higher(measured, 5.0 + pause) == pytest.approx(QUIET, abs=0.011)


def test_a_guess_above_what_was_held_goes_back_below_it() -> None:
    """What went well for a while is known; it need not be halved."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    pause = rate.refused(4.99, 5.0)
    held = rate.value
    rate.advance(5.0 + pause + QUIET)
    assert rate.value > held
    rate._since = 16.0  # as if sending had just begun again
    steadily(rate, 150, 16, 16.3)
    rate.refused(16.29, 16.3)
    assert CEILING / 4 < rate.value <= held


def test_rises_grow_up_to_the_ceiling_and_end_the_cut() -> None:
    """By time alone, each at least as large as the last, none beyond the ceiling."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0) + QUIET
    rates = [rate.value]
    while rate.cut:
        rate.advance(now)
        rates.append(rate.value)
        now += RISE_EVERY
        assert now < 120, "it has to get there"
    assert rates[-1] == CEILING
    steps = [later / earlier for earlier, later in pairwise(rates[:-1])]
    assert steps == sorted(steps)
    assert steps[0] > 1
    rate.advance(now + 1000)
    assert rate.value == CEILING


def test_between_rises_time_has_to_pass() -> None:
    """Asking often does not raise it faster, and neither do successes."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0) + QUIET
    rate.advance(now)
    risen = rate.value
    steadily(rate, 300, now, now + 1.9)
    for tick in range(190):
        rate.advance(now + tick / 100)
    assert rate.value == risen


def test_a_lockout_leaves_the_rate_alone_and_pauses_grow() -> None:
    """If nothing at all is accepted nothing is learnt; the first accepted probe ends it."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, CEILING, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0)
    before, pauses = rate.value, []
    for _ in range(12):
        pauses.append(rate.refused(now, now + 0.02))
        now += 0.02 + pauses[-1]
        rate.advance(now)
    assert (rate.value, rate.locked_out) == (before, True)
    assert all(later >= min(2 * earlier, LONGEST_PAUSE) for earlier, later in pairwise(pauses))
    assert pauses[0] == WINDOW_PAUSE
    assert pauses[-1] == LONGEST_PAUSE == max(pauses)
    rate.accepted(now, now + 0.02)
    assert (rate.value, rate.locked_out) == (CEILING, False), "the rate from before the first refusal is back"
    steadily(rate, 100, now + 1, now + 4)
    assert rate.refused(now + 3.99, now + 4) < WINDOW_PAUSE, "pauses start over"


def test_a_lockout_brings_back_the_rate_from_before_it_and_no_more() -> None:
    """What had been learnt earlier is not forgotten."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0)
    known = rate.value
    steadily(rate, 140, now, now + 5)
    now += 5.0
    now += rate.refused(now - 0.01, now)
    assert rate.value < known < CEILING
    for _ in range(4):
        now += rate.refused(now, now + 0.02) + 0.02
    rate.accepted(now, now + 0.02)
    assert rate.value == known


def test_guesses_that_do_not_end_it_become_halves() -> None:
    """A few small steps below what was held, then it is no longer believed in."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0) + QUIET
    rate.advance(now)
    steps = []
    for _ in range(FALLS + 1):
        before = rate.value
        rate._since = now
        rate.accepted(now + 0.1, now + 0.1)
        now += rate.refused(now + 0.2, now + 0.2) + 0.2
        steps.append(rate.value / before)
    assert all(BACK - 0.05 <= step <= BACK for step in steps[:-1])
    assert steps[-1] == 0.5


def test_one_window_that_had_not_emptied_is_no_lockout() -> None:
    """A single probe that is refused as well leaves the cut as it is."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    now = 5.0 + rate.refused(4.99, 5.0)
    before = rate.value
    now += rate.refused(now, now + 0.02) + 0.02
    rate.accepted(now, now + 0.02)
    assert rate.value == before < CEILING


def test_episodes_that_follow_closely_ask_for_windows_to_be_emptied() -> None:
    """A limiter that counts what it refuses recovers only when left alone for its window."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 150, 0, 5)
    end = 5.0 + rate.refused(4.99, 5.0)
    steadily(rate, 140, end, end + 2)
    assert rate.refused(end + 1.99, end + 2) == WINDOW_PAUSE


def test_a_pause_that_was_asked_for_is_part_of_the_reaction() -> None:
    """It is not shortened, and neither sending nor quiet is counted from its inside."""
    rate = Rate(CEILING, 0.0)
    steadily(rate, 200, 0, 5)
    assert rate.refused(4.99, 5.0, asked=30.0) == 30.0
    assert rate.refused(4.99, 5.0, asked=60.0) == 0.0
    before = rate.value
    rate.advance(34.9)
    assert rate.value == before
    steadily(rate, 190, 35, 35.3)
    rate.refused(35.29, 35.3)
    assert rate.value == before / 2
    assert Rate(CEILING, 0.0).refused(1.0, 1.1, asked=0.01) == WINDOW_PAUSE


def test_no_rate_falls_below_one_call_a_minute() -> None:
    """However often it is cut."""
    rate, now = Rate(1.0, 0.0), 0.0
    for _ in range(40):
        rate.accepted(now + 0.1, now + 0.1)
        now += 0.2
        now += rate.refused(now, now)
    assert rate.value == pytest.approx(SLOWEST)


def test_no_limit_is_one_from_the_first_refusal_on() -> None:
    """An infinite rate becomes half of what went through, or what was measured."""
    guessed, measured = Rate(inf, 0.0), Rate(inf, 0.0)
    steadily(guessed, 1000, 0, 0.5)
    guessed.refused(0.49, 0.5)
    assert guessed.value == pytest.approx(500, rel=0.02)
    steadily(measured, 1000, 0, 5)
    measured.refused(4.99, 5.0)
    assert measured.value == pytest.approx(BELOW * 1000, rel=0.02)


ROSE_IN_A_LOCKOUT: Final = [
    (kind, 2.0 if number == 7 else 1.0, 1.0 if number == 8 else 0.0) for number, kind in enumerate("ara+raara+rra")
]
"""What was held before a lockout is less than what the rate has risen to; found by Hypothesis."""


@example(0.4875, ROSE_IN_A_LOCKOUT)
@given(
    st.sampled_from([0.4875, 9.75, 292.5, inf]),
    st.lists(st.tuples(st.sampled_from("ara+"), st.floats(0.001, 5), st.floats(0, 3)), max_size=60),
)
def test_whatever_happens_a_rate_is_one(ceiling: float, steps: Sequence[tuple[str, float, float]]) -> None:
    """Above nothing, never above the ceiling, lower only by a refusal, higher only by time or when a lockout ends."""
    rate, now = Rate(ceiling, 0.0), 0.0
    for kind, later, ago in steps:
        now += later
        before = rate.value
        if kind == "a":
            rate.accepted(now - ago, now)
            assert rate.value >= before
        elif kind == "r":
            pause = rate.refused(now - ago, now)
            assert 0 <= pause <= LONGEST_PAUSE
            assert rate.value <= before
            assert pause or rate.value == before
        else:
            rate.advance(now)
            assert rate.value >= before
        assert min(SLOWEST, ceiling) <= rate.value <= ceiling
        assert rate.cut or rate.value == ceiling


# -- in front of a limiter ----------------------------------------------------------------------------------------

Limit = Callable[[float], float]
"""Calls per second that a platform grants at a moment."""


class Limiter(Protocol):
    """What stands before a platform."""

    def admits(self, now: float) -> bool:
        """Count one call; return whether it is served."""


@dataclass
class Sliding:
    """An exact log: as many accepted calls in the second up to now."""

    limit: Limit
    log: deque[float] = field(default_factory=deque)

    def admits(self, now: float) -> bool:
        """Count one call."""
        while self.log and self.log[0] <= now - 1:
            self.log.popleft()
        served = len(self.log) < self.limit(now)
        if served:
            self.log.append(now)
        return served


@dataclass
class Calendar:
    """A counter that is zero again at the begin of every second; ``offset`` is where in ours that lies."""

    limit: Limit
    offset: float
    second: int = -1
    count: int = 0

    def admits(self, now: float) -> bool:
        """Count one call."""
        if (second := int(now + self.offset)) != self.second:
            self.second, self.count = second, 0
        self.count += 1
        return self.count <= self.limit(now)


@dataclass
class Weighted:
    """Two counters, the earlier one fading out; refused calls count, so pressing on never ends it."""

    limit: Limit
    offset: float
    second: int = 0
    current: int = 0
    earlier: int = 0

    def admits(self, now: float) -> bool:
        """Count one call."""
        second, passed = divmod(now + self.offset, 1)
        if second != self.second:
            self.earlier = self.current if second == self.second + 1 else 0
            self.current, self.second = 0, int(second)
        self.current += 1
        return self.current + self.earlier * (1 - passed) <= self.limit(now)


@dataclass
class Bucket:
    """A bucket of so many calls that leaks at the limit."""

    limit: Limit
    size: int
    level: float = 0.0
    last: float = 0.0

    def admits(self, now: float) -> bool:
        """Count one call."""
        self.level = max(0.0, self.level - (now - self.last) * self.limit(now))
        self.last = now
        served = self.level + 1 <= self.size and self.limit(now) > 0
        self.level += served
        return served


LIMITERS: Final[dict[str, Callable[[Limit, Random], Limiter]]] = {
    "sliding": lambda limit, _: Sliding(limit),
    "calendar": lambda limit, chance: Calendar(limit, chance.random()),
    "weighted": lambda limit, chance: Weighted(limit, chance.random()),
    "bucket of 4": lambda limit, _: Bucket(limit, 4),
    "bucket of 16": lambda limit, _: Bucket(limit, 16),
}


class Client:
    """Sends whenever it may, as ``Pacer`` would let it: a burst only uncut, one pause for all, then a probe alone."""

    def __init__(self, limiter: Limiter, round_trip: float, chance: Random) -> None:
        self.served: list[float] = []  # when each call arrived that was
        self.refused: list[float] = []  # and each that was not
        self.sent: list[float] = []
        self.rate = Rate(CEILING, 0.0)
        self._limiter = limiter
        self._way = round_trip / 2
        self._chance = chance

    def run(self, seconds: float) -> Client:
        """Send for so long; every event is taken in its order."""
        permits, served_back, refused_back, arriving = range(4)
        events: list[tuple[float, int, float]] = [(0.0, permits, 0.0)]
        due = resume_at = 0.0  # when the next permit is due if nothing was saved up, and the end of the pause
        probing = probe_out = False
        while events:
            now, kind, sent = heappop(events)
            if now > seconds:
                break
            if kind == arriving:
                served = self._limiter.admits(now)
                (self.served if served else self.refused).append(now)
                heappush(events, (now + self._way, served_back if served else refused_back, sent))
            elif kind == permits:
                if now < resume_at or (probing and probe_out):
                    heappush(events, (max(resume_at, now + TIMER), permits, 0.0))
                    continue
                self.rate.advance(now)
                burst = 1 if self.rate.cut or probing else burst_for(LIMIT, self.rate.value)
                saved = burst - 1 + min(SLACK_PART, self.rate.value * SLACK)
                due = max(due, now - saved / self.rate.value) + 1 / self.rate.value
                probe_out = probing
                self.sent.append(now)
                heappush(events, (now + self._way + self._chance.uniform(0, JITTER), arriving, now))
                heappush(events, (max(now, ceil((due - saved / self.rate.value) / TIMER) * TIMER), permits, 0.0))
            elif kind == served_back:
                self.rate.accepted(sent, now)
                if sent >= resume_at:
                    probing = probe_out = False
            elif pause := self.rate.refused(sent, now):
                resume_at, probing, probe_out = now + pause, True, False
        return self

    def per_second(self, begin: float, end: float) -> float:
        """Return the served calls per second between two moments."""
        return count(self.served, begin, end) / (end - begin)

    def part_refused(self, begin: float, end: float) -> float:
        """Return which part of the calls was refused between two moments."""
        refused = count(self.refused, begin, end)
        return refused / max(1, refused + count(self.served, begin, end))

    def settled(self, limit: float, after: float, seconds: float) -> float:
        """Return when the first five seconds begin that use 90 % of a limit and have at most 2 % refused."""
        begin = after
        while begin + 5 <= seconds:
            if self.per_second(begin, begin + 5) >= 0.9 * limit and self.part_refused(begin, begin + 5) <= 0.02:
                return begin
            begin += 0.1
        return inf


def count(moments: Sequence[float], begin: float, end: float) -> int:
    """Return how many of the moments lie between two."""
    return bisect_left(moments, end) - bisect_left(moments, begin)


def client(kind: str, limit: Limit, round_trip: float, seed: int, seconds: float) -> Client:
    """Return a client that has sent for so long."""
    chance = Random(seed)  # noqa: S311 - a model
    return Client(LIMITERS[kind](limit, chance), round_trip, chance).run(seconds)


every_limiter = pytest.mark.parametrize("kind", LIMITERS)
every_way = pytest.mark.parametrize("round_trip", ROUND_TRIPS)
every_seed = pytest.mark.parametrize("seed", SEEDS)


@every_limiter
@every_way
@every_seed
def test_a_true_limit_is_not_touched(kind: str, round_trip: float, seed: int) -> None:
    """If the platform grants what was configured nothing is refused, and all of the rate is used."""
    harvest = client(kind, lambda _: LIMIT, round_trip, seed, 30)
    assert harvest.refused == []
    assert harvest.per_second(1, 29) >= 0.99 * CEILING


@every_limiter
@every_way
@every_seed
def test_half_the_limit_is_found(kind: str, round_trip: float, seed: int) -> None:
    """300 configured, 150 granted: settled within 10 s, then 95 % used for a minute and next to nothing refused."""
    harvest = client(kind, lambda _: 150.0, round_trip, seed, 80)
    settled = harvest.settled(150, 0, 80)
    used, refused = harvest.per_second(10, 70) / 150, harvest.part_refused(10, 70)
    print(f"settled {settled:.1f} s, {count(harvest.refused, 0, 30)} refused, then {used:.1%} used, {refused:.2%}")
    assert settled <= 10
    assert count(harvest.refused, 0, 30) <= 60
    assert used >= 0.95
    assert refused <= 0.002


@every_limiter
@every_way
@every_seed
def test_a_small_part_of_the_limit_is_found(kind: str, round_trip: float, seed: int) -> None:
    """300 configured, 40 granted: 90 % used in the minute after the first ten seconds."""
    harvest = client(kind, lambda _: 40.0, round_trip, seed, 70)
    used = harvest.per_second(10, 70) / 40
    print(f"{used:.1%} used, {harvest.part_refused(10, 70):.2%} refused")
    assert used >= 0.9


@every_limiter
@every_way
@every_seed
def test_a_limit_that_falls_and_comes_back_is_followed(kind: str, round_trip: float, seed: int) -> None:
    """300, 100 for 40 s, 300: down within 12 s, above 90 % again within a minute."""
    harvest = client(kind, lambda now: 100.0 if 20 <= now < 60 else LIMIT, round_trip, seed, 130)
    down, up = harvest.settled(100, 20, 60) - 20, harvest.settled(LIMIT, 60, 130) - 60
    print(f"down in {down:.1f} s, up in {up:.1f} s")
    assert down <= 12
    assert up <= 60


@every_limiter
@every_way
@every_seed
def test_a_platform_that_refuses_everything_is_hardly_called(kind: str, round_trip: float, seed: int) -> None:
    """A minute of refusals costs 20 calls besides those that were under way; soon after it the rate is back."""
    harvest = client(kind, lambda now: 0.0 if 10 <= now < 70 else LIMIT, round_trip, seed, 100)
    under_way = ceil((round_trip + JITTER) * CEILING)
    called = count(harvest.refused, 10, 70)
    back = next((begin for begin in range(70, 95) if harvest.per_second(begin, begin + 5) >= 0.95 * CEILING), inf) - 70
    print(f"{called} calls, {under_way} of them under way; back in {back} s")
    assert called <= 20 + under_way
    assert back <= 15
    assert isfinite(harvest.rate.value)

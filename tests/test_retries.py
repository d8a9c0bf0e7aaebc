"""How many calls may be repetitions, and how long the others wait."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.retries import FLOOR, LONGEST, RESERVE, SHARE, WINDOW, RetryBudget


def test_a_reserve_is_there_from_the_start() -> None:
    """Then one a second, each a second after the one before; none waits longer than a few seconds."""
    budget = RetryBudget(100.0)
    delays = [budget.delay(100.0) for _ in range(520)]
    assert delays[:503] == [0.0] * 500 + [1.0, 2.0, 3.0]
    assert delays[-10:] == [LONGEST] * 10


def test_what_is_not_used_is_kept_for_a_minute() -> None:
    """However long nothing was repeated, the next minute's burst is bounded."""
    budget = RetryBudget(0.0)
    for _ in range(1_000):
        budget.called(0.0)
    assert sum(budget.delay(1e6) == 0.0 for _ in range(900)) == RESERVE


@pytest.mark.parametrize(("share", "most"), [(0.01, 0.0), (0.1, 0.0), (0.3, LONGEST)])
def test_a_tenth_of_the_calls_waits_for_nothing(share: float, most: float) -> None:
    """At 300 calls a second for a minute; what fails more often is slowed down, not stopped."""
    budget, delays, owed = RetryBudget(0.0), [], 0.0
    for call in range(18_000):
        budget.called(call / 300)
        owed += share
        if owed >= 1:
            owed -= 1
            delays.append(budget.delay(call / 300))
    assert bool(most) is (max(delays) > 0)
    assert max(delays) <= most + 1e-9


def test_how_long_the_missing_takes_at_the_present_rate() -> None:
    """Also soon after the start, when little has been seen."""
    budget = RetryBudget(0.0)
    for call in range(900):
        budget.called(call / 300)
    delays = [budget.delay(3.0) for _ in range(700)]
    at_once = delays.count(0.0)
    assert at_once == pytest.approx(RESERVE + SHARE * 900, abs=4)  # what was saved has begun to fade
    assert delays[-1] == pytest.approx((700 - at_once) / (FLOOR + SHARE * 300), rel=0.05)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 400), st.integers(0, 80)),
        max_size=40,
    )
)
def test_never_more_than_the_budget(steps: list[tuple[float, int, int]]) -> None:
    """Between any two moments: a tenth of the calls, one a second, and what can have been saved before."""
    budget, now = RetryBudget(0.0), 0.0
    history: list[tuple[float, int, int]] = []  # when, calls, repetitions that went at once
    for gap, made, failed in steps:
        now += gap
        for _ in range(made):
            budget.called(now)
        history.append((now, made, sum(budget.delay(now) == 0.0 for _ in range(failed))))
    for first, (start, _, _) in enumerate(history):
        saved = RESERVE + SHARE * sum(made * exp((at - start) / WINDOW) for at, made, _ in history[:first])
        calls = repeated = 0
        for end, made, went in history[first:]:
            calls, repeated = calls + made, repeated + went
            assert repeated <= saved + SHARE * calls + FLOOR * (end - start) + 1e-6

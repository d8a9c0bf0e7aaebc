"""How the simulated platforms count calls; the time is set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.limits import SlidingLog


def test_full_window_opens_exactly_one_second_after_its_first_call() -> None:
    """A call leaves the window after exactly one second, not a hair before."""
    log = SlidingLog(2)
    assert [log.admit(now) for now in (10.0, 10.5, 10.75)] == [True, True, False]
    assert not log.admit(10.999)
    assert log.admit(11.0)
    assert not log.admit(11.25)
    assert log.admit(11.5)


def test_refused_calls_do_not_count() -> None:
    """Hammering at a full window does not keep it full."""
    log = SlidingLog(1)
    assert log.admit(0.0)
    assert not any(log.admit(step / 16) for step in range(1, 16))
    assert log.admit(1.0)


@pytest.mark.parametrize(
    ("limit", "window", "capacity", "span"),
    [(300, 1.0, 300, 1.0), (0.5, 1.0, 1, 2.0), (2.5, 1.0, 2, 0.8), (1, 60.0, 60, 60.0)],
)
def test_rate_is_kept_exactly_where_it_is_no_whole_number(
    limit: float, window: float, capacity: int, span: float
) -> None:
    """The window is scaled with the rounded-down count."""
    log = SlidingLog(limit, window)
    assert sum(log.admit(0.0) for _ in range(400)) == capacity
    assert not log.admit(span * 0.999)
    assert log.admit(span)


@given(st.integers(1, 5), st.lists(st.integers(0, 2000), min_size=1, max_size=60))
def test_no_second_ever_holds_more_than_the_limit(limit: int, gaps: list[int]) -> None:
    """Whatever the arrivals: a call is admitted if and only if the second before it holds fewer than the limit."""
    log = SlidingLog(limit)
    admitted: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        in_window = sum(now - earlier < 1024 for earlier in admitted)
        fits = log.admit(now / 1024)  # binary fractions: exact in floating point
        assert fits == (in_window < limit)
        if fits:
            admitted.append(now)

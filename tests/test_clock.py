"""The server's time, learned from headers that are cut to whole seconds."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.clock import SAMPLES, ServerClock

WALL = 1_600_000_000.0


def date(moment: float) -> str:
    """Write a Date header as a server does."""
    return formatdate(int(moment), usegmt=True)


def test_until_the_server_speaks_the_host_is_believed() -> None:
    """The time runs with the counter, not with the host's clock."""
    clock = ServerClock(WALL, 50.0)
    assert not clock.known
    assert clock.offset == 0
    assert clock.now(50.0) == WALL
    assert clock.now(60.5) == WALL + 10.5


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 4), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_the_error_is_at_most_that_of_the_best_sample(ahead: float, calls: list[tuple[float, float, float]]) -> None:
    """Whatever the host's error and the delays: within half the round trip and half a second, or twice that."""
    clock = ServerClock(WALL, 0.0)
    counter, trips = 0.0, []
    for pause, trip, share in calls:
        counter += pause
        clock.observe(date(WALL + ahead + counter + trip * share), counter, counter + trip)
        counter += trip
        trips.append(trip)
    best = min(trips[-SAMPLES:]) / 2 + 0.5
    # The host's own clock is kept while it agrees within the uncertainty, hence twice.
    assert abs(clock.now(counter) - (WALL + ahead + counter)) <= 2 * best + 1e-3


@pytest.mark.parametrize("ahead", [-400.0, 400.0, 86400.0])
def test_a_wrong_host_clock_is_put_right(ahead: float) -> None:
    """One answer is enough to come within a second."""
    clock = ServerClock(WALL, 0.0)
    clock.observe(date(WALL + ahead + 0.1), 0.0, 0.2)
    assert clock.known
    assert clock.now(0.2) == pytest.approx(WALL + ahead + 0.2, abs=1)
    assert clock.offset == pytest.approx(ahead, abs=1)


def test_a_header_stands_for_the_middle_of_its_second() -> None:
    """And was written in the middle between sending and receiving."""
    clock = ServerClock(WALL, 0.0)
    clock.observe(date(WALL + 400), 2.0, 4.0)
    assert clock.now(3.0) == WALL + 400.5


def test_a_host_clock_that_agrees_is_kept() -> None:
    """It is finer than a header of whole seconds."""
    clock = ServerClock(WALL + 0.3, 0.0)
    clock.observe(date(WALL), 0.0, 0.1)
    assert clock.known
    assert clock.offset == 0


HUGE_YEAR = f"Thu, 01 Jan {10**20} 00:00:00 GMT"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "Thu, 99 Foo 2020 00:00:00 GMT",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "0",
        "\x00",
        "Mon, 1 Jan 1 0:0:0",
        HUGE_YEAR,
    ],
)
def test_what_is_no_date_is_ignored(header: str) -> None:
    """A broken header costs nothing."""
    clock = ServerClock(WALL, 0.0)
    clock.observe(header, 0.0, 0.1)
    assert clock.now(1.0) == WALL + 1 or clock.known


@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,5} \w{3} \d{1,6} \d\d:\d\d:\d\d \S{0,6}", fullmatch=True))
def test_no_header_raises(header: str) -> None:
    """Whatever a server writes there."""
    ServerClock(WALL, 0.0).observe(header, 0.0, 0.1)


def test_old_samples_are_forgotten_when_the_server_says_so() -> None:
    """After a step of the server's clock only new answers count."""
    clock = ServerClock(WALL, 0.0)
    clock.observe(date(WALL + 500), 0.0, 0.01)
    clock.forget()
    assert not clock.known
    clock.observe(date(WALL + 900), 0.0, 3.0)
    assert clock.offset == pytest.approx(900, abs=2.1)

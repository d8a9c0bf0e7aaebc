"""How the simulated platforms count calls; the time is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.limits import (
    KINDS,
    Bucket,
    CalendarWindow,
    FirstHitWindow,
    Limit,
    NginxBucket,
    ScheduledLimit,
    SlidingLog,
    Steps,
    WeightedWindow,
    make_limit,
)

GAPS = st.lists(st.integers(0, 2000), min_size=1, max_size=60)
TICK = 1024
"""Arrivals are counted in parts of a second that are exact in floating point."""


def arrivals(gaps: Iterable[int]) -> list[int]:
    """Return the moments, in parts of a second, that lie so far apart."""
    moments, now = [], 0
    for gap in gaps:
        now += gap
        moments.append(now)
    return moments


def verdicts(limit: Limit, moments: Iterable[int]) -> list[bool]:
    """Return what is admitted of calls at these moments."""
    return [limit.admit(moment / TICK) for moment in moments]


def decided(moments: Iterable[int], fits: Callable[[int, list[int], list[int]], bool]) -> list[bool]:
    """Return what a plain model decides that looks at all earlier calls and at all admitted ones."""
    earlier, admitted, found = list[int](), list[int](), list[bool]()
    for moment in moments:
        found.append(fits(moment, earlier, admitted))
        earlier.append(moment)
        if found[-1]:
            admitted.append(moment)
    return found


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


@given(st.integers(1, 5), GAPS)
def test_no_second_ever_holds_more_than_the_limit(limit: int, gaps: list[int]) -> None:
    """Whatever the arrivals: a call is admitted if and only if the second before it holds fewer than the limit."""

    def fits(moment: int, _: list[int], admitted: list[int]) -> bool:
        return sum(moment - earlier < TICK for earlier in admitted) < limit

    assert verdicts(SlidingLog(limit), arrivals(gaps)) == decided(arrivals(gaps), fits)


def test_a_calendar_second_begins_on_the_second() -> None:
    """Twice the limit around the turn, which the phase puts where the platform's clock has it."""
    window = CalendarWindow(2, phase=100.25)
    assert [window.admit(now) for now in (0.5, 0.6, 0.7, 0.749)] == [True, True, False, False]
    assert [window.admit(now) for now in (0.75, 0.75, 1.7)] == [True, True, False]
    assert window.admit(1.75)


@given(st.integers(1, 5), st.integers(0, TICK), GAPS)
def test_calendar_seconds_agree_with_a_plain_count(limit: int, phase: int, gaps: list[int]) -> None:
    """Admitted if and only if fewer than the limit were admitted in the same second of the calendar."""

    def fits(moment: int, _: list[int], admitted: list[int]) -> bool:
        return sum((moment + phase) // TICK == (earlier + phase) // TICK for earlier in admitted) < limit

    assert verdicts(CalendarWindow(limit, phase / TICK), arrivals(gaps)) == decided(arrivals(gaps), fits)


def test_a_window_from_the_first_hit_opens_with_the_next_hit() -> None:
    """Its second is over after exactly one second, however long nobody calls; refused calls do not prolong it."""
    window = FirstHitWindow(2)
    assert [window.admit(now) for now in (7.25, 7.5, 7.75, 8.249)] == [True, True, False, False]
    assert [window.admit(now) for now in (8.25, 9.2, 9.24)] == [True, True, False]
    assert [window.admit(now) for now in (20.9, 21.8, 21.899, 21.9)] == [True, True, False, True]


@given(st.integers(1, 5), GAPS)
def test_first_hit_windows_agree_with_a_plain_count(limit: int, gaps: list[int]) -> None:
    """Windows are found anew from all calls; a call fits while its window admitted fewer than the limit."""

    def fits(moment: int, earlier: list[int], admitted: list[int]) -> bool:
        opened = [-TICK]
        for hit in [*earlier, moment]:
            if hit - opened[-1] >= TICK:
                opened.append(hit)
        return sum(at >= opened[-1] for at in admitted) < limit

    # A window without an admitted call cannot be: its first hit is always admitted.
    assert verdicts(FirstHitWindow(limit), arrivals(gaps)) == decided(arrivals(gaps), fits)


def test_weighted_windows_count_what_they_refuse() -> None:
    """Four admitted calls and four refused ones weigh as eight; they fade by the millisecond."""
    for moment, fits in ((51.0, False), (51.5, False), (51.501, True)):
        window = WeightedWindow(4)
        assert [window.admit(50.0) for _ in range(8)] == [True] * 4 + [False] * 4
        assert window.admit(moment) == fits  # 1 + 8 * the part of the second that is left, rounded down


def test_hammering_keeps_a_weighted_window_closed() -> None:
    """Slightly above the limit nearly nothing goes through, slightly below it everything."""
    window = WeightedWindow(300)
    assert sum(window.admit(second + step / 310) for second in range(10) for step in range(310)) < 400
    window = WeightedWindow(300)
    assert all(window.admit(second + step / 297) for second in range(10) for step in range(297))


def test_weighted_windows_start_anew_after_two_periods() -> None:
    """At the next call, not at a multiple of the period; a call sooner than that goes into the following one."""
    window = WeightedWindow(1)
    assert [window.admit(now) for now in (5.0, 5.999, 6.999)] == [True, False, True]
    window = WeightedWindow(1)
    assert [window.admit(now) for now in (5.0, 7.0, 7.001)] == [True, True, False]
    window = WeightedWindow(2)
    assert [window.admit(now) for now in (5.0, 9.5, 10.4, 10.45)] == [True, True, True, False]


@given(st.integers(1, 5), st.lists(st.integers(0, 1500), min_size=1, max_size=60))
def test_weighted_windows_agree_with_exact_fractions(limit: int, gaps: list[int]) -> None:
    """Periods are found anew from all calls, the rate is a fraction, and only more than the limit is refused."""

    def fits(moment: int, earlier: list[int], _: list[int]) -> bool:
        hits = [*earlier, moment]
        start = hits[0]
        for before, hit in pairwise(hits):
            while hit - start >= 1000:
                start = hit if hit - start >= 2000 else start + 1000
            assert before <= hit
        present = sum(start <= hit for hit in hits)
        past = sum(start - 1000 <= hit < start for hit in hits)
        rate = present + Fraction(past * (start + 1000 - moment), 1000)
        return rate < limit + 1  # a rate that is rounded down exceeds the limit from the next whole number on

    moments = arrivals(gaps)
    window = WeightedWindow(limit)
    assert [window.admit((moment + 0.5) / 1000) for moment in moments] == decided(moments, fits)


def test_a_bucket_fills_with_whole_tokens() -> None:
    """The depth at once, then one for every token's time; refused calls take nothing, idling fills to the depth."""
    bucket = Bucket(4, 3)
    assert [bucket.admit(8.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.admit(now) for now in (8.125, 8.249, 8.25, 8.25)] == [False, False, True, False]
    assert [bucket.admit(20.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("kind", ["token", "leaky"])
@given(limit=st.sampled_from([1, 2, 4, 8]), depth=st.integers(1, 6), gaps=GAPS)
def test_buckets_agree_with_a_leaking_level(kind: str, limit: int, depth: int, gaps: list[int]) -> None:
    """The level leaks at the rate, an admitted call raises it by one, and what would overflow is refused."""
    level, last, found = Fraction(0), 0, []
    for moment in arrivals(gaps):
        level = max(Fraction(0), level - Fraction((moment - last) * limit, TICK))
        last = moment
        found.append(level + 1 <= depth)
        level += found[-1]
    assert verdicts(make_limit(f"{kind}:{depth}", limit), arrivals(gaps)) == found


def test_nginx_without_a_burst_wants_whole_milliseconds_between_calls() -> None:
    """At 300 calls per second 3 ms are too few, 4 ms enough; fractions of a millisecond are cut off."""
    bucket = NginxBucket(300)
    assert [bucket.admit(now) for now in (9.0, 9.0, 9.0035, 9.0041)] == [True, False, False, True]
    assert [bucket.admit(now) for now in (9.0079, 9.0081)] == [False, True]  # 3 ms by its clock, then 4


def test_nginx_takes_a_burst_at_once() -> None:
    """One call and the burst; then one for every 1/300 s, with whole milliseconds and thousandths of calls."""
    bucket = NginxBucket(300, 2)
    assert [bucket.admit(9.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.admit(now) for now in (9.0031, 9.0041, 9.0041)] == [False, True, False]
    # The 4 ms brought 1.2 calls, 0.2 more than were used: 3 ms with 0.9 calls are enough now.
    assert [bucket.admit(now) for now in (9.0061, 9.0071)] == [False, True]


@given(st.integers(1, 1200), st.integers(0, 4), st.lists(st.integers(0, 900), min_size=1, max_size=60))
def test_nginx_agrees_with_a_plain_account(limit: int, burst: int, gaps: list[int]) -> None:
    """Thousandths of calls, drained by whole milliseconds; only an admitted call is booked."""
    excess, last, found = -1000, 0, []
    moments = arrivals(gaps)
    for moment in moments:
        after = max(excess - limit * (moment - last) + 1000, 0)  # limit calls/s are limit thousandths per millisecond
        found.append(after <= burst * 1000)
        if found[-1]:
            excess, last = after, moment
    bucket = NginxBucket(limit, burst)
    assert [bucket.admit((moment + 0.5) / 1000) for moment in moments] == found


@pytest.mark.parametrize("kind", [kind.replace("DEPTH", "1").replace("BURST", "2") for kind in KINDS])
def test_every_kind_keeps_the_rate_in_the_long_run(kind: str) -> None:
    """Flooded or at half the rate: what goes through in a minute is the rate, whatever the kind.

    Flooded, a kind that counts refused calls lets nothing through after its first second, and one that cuts off
    milliseconds gives one call in 4 ms or less.
    """
    flooded = make_limit(kind, 300)
    admitted = sum(flooded.admit(step / 4096) for step in range(60 * 4096))
    assert 240 * 60 <= admitted <= 300 * 61 if kind != "weighted" else admitted == 300
    polite = make_limit(kind, 300)
    assert all(polite.admit(step / 128) for step in range(60 * 128))


def test_names_of_kinds() -> None:
    """Each name makes its kind; others are refused with the list of names."""
    made = {kind: type(make_limit(kind.replace("DEPTH", "7").replace("BURST", "0"), 1)) for kind in KINDS}
    assert list(made.values()) == [
        SlidingLog,
        CalendarWindow,
        FirstHitWindow,
        WeightedWindow,
        Bucket,
        Bucket,
        NginxBucket,
        NginxBucket,
    ]
    for name in ("", "slide", "sliding:", "sliding:3", "token", "token:", "token:0", "leaky:-1", "nginx:", "nginx:１"):
        with pytest.raises(ValueError, match="first-hit"):
            make_limit(name, 1)


def test_depth_and_burst_are_what_the_name_says() -> None:
    """So many calls at once."""
    for kind, at_once in (("token:7", 7), ("leaky:7", 7), ("nginx", 1), ("nginx:5", 6)):
        limit = make_limit(kind, 1)
        assert sum(limit.admit(1.0) for _ in range(20)) == at_once


def test_steps_count_from_the_first_question() -> None:
    """A value holds from exactly its second on; several that are due at once are the last of them."""
    steps = Steps(1.0, [(10.0, 2.0), (40.0, 3.0), (41.0, 4.0)])
    assert [steps.at(now) for now in (1000.0, 1009.999, 1010.0, 1039.0, 1041.0, 2000.0)] == [1, 1, 2, 2, 4, 4]


def test_a_lower_limit_counts_what_was_admitted_before() -> None:
    """The sliding second forgets nothing when the limit changes, down or up."""
    limit = ScheduledLimit(SlidingLog, 4, [(1.0, 2.0), (3.0, 4.0)])
    assert [limit.admit(now) for now in (0.0, 0.25, 0.5, 0.75)] == [True] * 4
    assert [limit.admit(now) for now in (1.0, 1.25, 1.499, 1.5, 1.75)] == [False, False, False, True, True]
    assert [limit.admit(now) for now in (2.5, 2.75, 3.0, 3.25, 3.49, 3.5)] == [True, True, True, True, False, True]


def test_a_limit_of_zero_refuses_everything() -> None:
    """Until the next change, and what it refused does not count afterwards."""
    for kind in ("sliding", "weighted", "token:2", "nginx:1"):
        limit = ScheduledLimit(lambda rate, kind=kind: make_limit(kind, rate), 2, [(10.0, 0.0), (12.0, 2.0)])  # type: ignore[misc]  # the default binds the name
        assert limit.admit(0.0)
        assert not any(limit.admit(10.0 + step / 64) for step in range(128))
        assert limit.admit(12.0)


@pytest.mark.parametrize("kind", [kind.replace("DEPTH", "2").replace("BURST", "1") for kind in KINDS])
def test_every_kind_follows_a_change(kind: str) -> None:
    """Below the rate of the moment everything goes through, a flood only at the new rate."""
    limit = ScheduledLimit(lambda rate: make_limit(kind, rate), 8, [(10.0, 4.0)])
    assert all(limit.admit(second + step / 7) for second in range(10) for step in range(7))
    assert all(limit.admit(second + step / 3) for second in range(12, 20) for step in range(3))
    flood = sum(limit.admit(20 + step / 16) for step in range(160))
    assert flood <= 44
    assert flood >= 36 or kind == "weighted"

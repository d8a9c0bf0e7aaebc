"""Counts for a day, a month and a date: what begins when, and a line that no damage passes."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harvester.call_counts import Counts, beijing_day, line, next_reset, parse

COUNTS = Counts(day=date(2026, 11, 22), today=5, month=105, since=1105, until="2027-01-01", ahead=7, boot="boot-1")

days = st.dates(date(2026, 1, 1), date(2028, 12, 31))
resets = st.sampled_from(["day", "month"]) | days.map(str)
some_counts = st.builds(
    Counts,
    day=days,
    today=st.integers(0, 10**12 - 1),
    month=st.integers(0, 10**12 - 1),
    since=st.integers(0, 10**12 - 1),
    until=st.just("-") | days.map(str),
    ahead=st.integers(0, 10**12 - 1),
    ready=st.booleans(),
    boot=st.sampled_from(["-", "c3e26f08-4a43-4134-888d-cd6ab11862b2"]),
)


def counted(counts: Counts) -> tuple[int, int, int]:
    """Return the three counts."""
    return counts.today, counts.month, counts.since


def test_a_day_begins_at_midnight_in_beijing() -> None:
    """Sixteen hours after midnight in Greenwich."""
    assert beijing_day(1795363199.999) == date(2026, 11, 22)
    assert beijing_day(1795363200.0) == date(2026, 11, 23)


@pytest.mark.parametrize(
    ("reset", "day", "moment"),
    [
        ("day", date(2026, 12, 31), "2027-01-01T00:00:00+08:00"),
        ("day", date(2028, 2, 28), "2028-02-29T00:00:00+08:00"),
        ("month", date(2026, 1, 31), "2026-02-01T00:00:00+08:00"),
        ("month", date(2026, 2, 1), "2026-03-01T00:00:00+08:00"),
        ("month", date(2026, 12, 1), "2027-01-01T00:00:00+08:00"),
        ("2026-12-01", date(2026, 11, 30), "2026-12-01T00:00:00+08:00"),
        ("2026-12-01", date(2026, 12, 1), None),
        ("2026-12-01", date(2027, 1, 1), None),
    ],
)
def test_the_next_reset(reset: str, day: date, moment: str | None) -> None:
    """The start of the next day or month, or the date until it has come."""
    found = next_reset(reset, day)
    assert (found.isoformat() if found else None) == moment


@pytest.mark.parametrize(
    ("today", "reset", "expected"),
    [
        (date(2026, 11, 22), "day", (5, 105, 1105)),
        (date(2026, 11, 23), "day", (0, 105, 1105)),
        (date(2026, 11, 23), "month", (0, 105, 1105)),
        (date(2026, 12, 22), "day", (0, 0, 1105)),
        (date(2027, 11, 22), "month", (0, 0, 0)),
        (date(2026, 12, 31), "2027-01-01", (0, 0, 1105)),
        (date(2027, 1, 1), "2027-01-01", (0, 0, 0)),
        (date(2027, 1, 1), "2028-01-01", (0, 0, 1105)),
        (date(2026, 11, 23), "2026-11-22", (0, 105, 1105)),
        (date(2026, 11, 23), "2026-11-23", (0, 105, 0)),
        (date(2026, 11, 21), "day", (5, 105, 1105)),
        (date(2026, 10, 31), "month", (5, 105, 1105)),
    ],
)
def test_what_begins_anew(today: date, reset: str, expected: tuple[int, int, int]) -> None:
    """Each count on its own date and on no other, whichever of them the job looks at; nothing when a clock goes back.

    A new date keeps what was counted, unless all of it was counted before that date.
    """
    rolled = COUNTS.rolled(today, reset)
    assert counted(rolled) == expected
    assert rolled.day == max(today, COUNTS.day)
    assert rolled.ahead == (0 if today > COUNTS.day else 7)


@given(some_counts, days, resets, resets)
def test_a_change_of_the_reset_forgets_no_call_of_today(counts: Counts, day: date, one: str, other: str) -> None:
    """Whatever forms jobs state, in whatever order: what is counted on a day is in every count of that day."""
    called = counts.rolled(day, one).plus(3)
    after = called.rolled(called.day, other)
    assert counted(after) == counted(called)
    assert called.toward(other) == after.toward(other) >= 3


@given(days, st.integers(0, 400), st.just("-") | days.map(str))
def test_a_call_given_back_is_taken_off_where_it_still_counts(day: date, later: int, until: str) -> None:
    """Taking one off never makes room in a day, month or span that the call was not counted in."""
    now = day + timedelta(days=later)
    counts = replace(COUNTS, day=now, until=until)
    kept = (now != day, (now.year, now.month) != (day.year, day.month), until != "-" and str(day) < until <= str(now))
    assert counted(counts.minus(day)) == (4 + kept[0], 104 + kept[1], 1104 + kept[2])
    assert counted(replace(counts, today=0, month=0, since=0).minus(day)) == (0, 0, 0)


def test_reserved_calls_count_as_used_after_a_power_cut_only() -> None:
    """Another boot may have lost counts; in the same one the reservation stands, unless its sync was cut short."""
    assert counted(COUNTS.settled("boot-2")) == (12, 112, 1112)
    assert (COUNTS.settled("boot-2").ahead, COUNTS.settled("boot-2").boot) == (0, "boot-2")
    assert COUNTS.settled("boot-1") == COUNTS
    unsynced = replace(COUNTS, ready=False)
    assert unsynced.settled("boot-1") == replace(COUNTS, ahead=0)
    assert counted(unsynced.settled("boot-2")) == (12, 112, 1112)


@pytest.mark.parametrize(("reset", "field"), [("day", "today"), ("month", "month"), ("2027-01-01", "since")])
def test_each_form_has_its_count(reset: str, field: str) -> None:
    """To look at and to put right."""
    assert COUNTS.toward(reset) == getattr(COUNTS, field)
    assert COUNTS.corrected(reset, 3) == replace(COUNTS, **{field: 3})


def test_the_line() -> None:
    """The form on disk, pinned: a file of today must be read by every later version."""
    assert line(COUNTS) == (
        b"harvester-calls 1 2026-11-22 000000000005 000000000105 000000001105 2027-01-01 000000000007 1 "
        b"boot-1                               baf6ddf4\n"
    )


@given(some_counts)
def test_a_line_is_read_back(counts: Counts) -> None:
    """Every count, in a line of one length, shorter than a disk's sector."""
    assert parse(line(counts)) == counts
    assert len(line(counts)) == len(line(COUNTS)) < 512


@given(some_counts, st.data())
def test_no_damage_passes(counts: Counts, data: st.DataObject) -> None:
    """A flipped bit anywhere, a cut, more at the end."""
    good = line(counts)
    at, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(good)
    flipped[at] ^= 1 << bit
    for bad in (bytes(flipped), good[:at], good + b"\n", good + good):
        assert parse(bad) is None


@given(st.binary(max_size=200))
def test_no_bytes_make_an_error(data: bytes) -> None:
    """What is no line is none."""
    assert parse(data) is None

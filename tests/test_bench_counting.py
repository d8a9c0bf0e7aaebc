"""What follows from a gateway's answers; how they are asked for is tested with ``probing``."""

from __future__ import annotations

import pytest

from harvester.bench.counting import WORDS, Counting, Kind, depth_of, is_odd, judge, window_kind
from harvester.bench.offering import Answer, Outcome
from harvester.bench.ramp import Range

FOUND = Range(taken=90.0, refused=110.0)


def answers(outcomes: str, start: float, gap: float) -> list[Answer]:
    """Return answers to even calls: ``+`` is accepted."""
    told: dict[str, Outcome] = {"+": "accepted", "-": "refused"}
    moments = [start + number * gap for number in range(len(outcomes))]
    return [Answer(at, at, at, told[outcome]) for at, outcome in zip(moments, outcomes, strict=True)]


def test_a_bucket_takes_calls_evenly() -> None:
    """Four at once, then every second one of 200 calls a second."""
    found = judge(answers("++++" + 6 * "-", 0.0, 0.0001), answers("+-" * 300, 0.001, 0.005), FOUND)
    assert (found.kind, found.depth) == ("bucket", 4)
    assert found.limit == pytest.approx(100, rel=0.01)


def test_a_window_takes_lumps() -> None:
    """A hundred, then nothing until it opens."""
    found = judge(answers("+" * 100 + "-" * 20, 0.0, 0.0001), answers(("-" * 100 + "+" * 100) * 3, 0.5, 0.005), FOUND)
    assert (found.kind, found.depth, found.window, found.limit) == ("window", 100, 1.0, 100)


def test_short_gaps_within_a_lump_are_no_windows() -> None:
    """A sliding window lets in late what had come late; its length is from one long gap to the next."""
    lump = "+" * 40 + "-" * 10 + "+" * 60
    found = judge(answers("+" * 100 + "-" * 20, 0.0, 0.0001), answers(("-" * 90 + lump) * 3, 0.5, 0.005), FOUND)
    assert (found.kind, found.depth, found.window) == ("window", 100, 1.0)


def test_who_counts_refused_calls_takes_nothing_any_more() -> None:
    """Its length follows from its content and the rates that ramping has found."""
    found = judge(answers("+" * 200 + "-" * 20, 0.0, 0.0001), answers("-" * 600, 0.5, 0.005), FOUND)
    assert (found.kind, found.depth, found.window, found.limit) == ("refused count", 200, 2.0, 100)


def test_depth_is_what_was_taken_less_what_came_in() -> None:
    """Ten at once, and one more in each 10 ms."""
    burst = answers("+" * 10 + ("+" + "-" * 9) * 5, 0.0, 0.001)
    assert depth_of(burst, 100) == 10
    assert depth_of(answers("+++", 0.0, 0.001), 100) == 3


@pytest.mark.parametrize(
    ("counting", "taken", "odd"),
    [
        (Counting(kind="window", limit=100.0, window=1.0, depth=100), 100, False),
        (Counting(kind="window", limit=100.0, window=1.0, depth=100), 250, True),
        (Counting(kind="window", limit=10.0, window=10.0, depth=100), 74, False),
        (Counting(kind="window", limit=100.0, window=0.4, depth=40), 100, True),
        (Counting(kind="bucket", limit=10.0, depth=100), 74, False),
        (Counting(kind="bucket", limit=400.0, depth=100), 74, True),
        (Counting(kind="unknown"), 74, False),
    ],
)
def test_what_contradicts_ramping_or_is_unusual_is_odd(counting: Counting, taken: float, odd: bool) -> None:  # noqa: FBT001
    """A window grants its limit, so it would not have taken more; nor is a limit above what was refused."""
    assert is_odd(counting, Range(taken=taken, refused=300)) is odd


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ([(0.67, 0.33), (0.66, 0.34)], "sliding"),
        ([(0.67, 1.0), (0.67, 1.0)], "first call"),
        ([(1.0, 0.0), (0.67, 1.0)], "calendar"),
        ([(0.67, 0.0), (0.67, 0.02)], "refused count"),
        ([(0.67, 0.6), (0.67, 0.6)], "window"),
        ([(0.3, 0.3), (0.67, 0.33)], "window"),
    ],
)
def test_what_windows_take_of_bursts_tells_them_apart(pairs: list[tuple[float, float]], kind: Kind) -> None:
    """The table in the module."""
    assert window_kind(pairs) == kind


def test_families_are_named() -> None:
    """Who decides alike cannot be told apart, and the words say who."""
    assert "token" in WORDS["bucket"]
    assert "nginx" in WORDS["bucket"]
    assert "HAProxy" in WORDS["refused count"]

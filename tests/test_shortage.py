"""How many calls a machine without descriptors may have in flight."""

from __future__ import annotations

from math import inf

from harvester.shortage import REST, Shortage


def test_nothing_is_bounded_while_nothing_is_short() -> None:
    """Until the first failure there is no bound."""
    assert Shortage().most(1e9) == inf


def test_calls_of_one_moment_lower_the_bound_once() -> None:
    """Sixty-four that fail together say the same thing; one that left under the bound says more."""
    shortage = Shortage()
    assert [shortage.met(10.0, 9.0, 64 - failed) for failed in range(64)] == [True] + [False] * 63
    assert shortage.most(10.0) == 48
    assert not shortage.met(12.0, 11.0, 50), "more than the bound are still under way"
    assert shortage.met(12.0, 11.0, 40)
    assert shortage.most(12.0) == 30


def test_one_call_is_always_possible() -> None:
    """However short it is."""
    shortage = Shortage()
    assert [shortage.met(second + 0.5, float(second), 1) for second in range(10)] == [True] + [False] * 9
    assert shortage.most(11.0) == 1


def test_more_is_tried_again_after_a_while() -> None:
    """Twice as many a minute, as long as nothing is short again."""
    shortage = Shortage()
    shortage.met(0.0, -1.0, 16)
    assert [shortage.most(REST * part) for part in (0.5, 0.99, 1.0, 1.5, 2.0)] == [12, 12, 24, 24, 48]
    shortage.met(2 * REST + 1, 2 * REST + 0.5, 20)
    assert shortage.most(2 * REST + 1) == 15

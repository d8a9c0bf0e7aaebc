"""Offers, answers and their figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.bench.offering import Answer, Offer, Outcome, burst, even, figures, judged, quantile


def answers(latencies: list[float], rate: float, outcome: Outcome = "accepted") -> list[Answer]:
    """Return answers to even calls that took so many seconds from the moment that was meant."""
    return [
        Answer(number / rate, number / rate, number / rate + took, outcome) for number, took in enumerate(latencies)
    ]


def test_even_moments_lie_evenly_and_there_is_at_least_one() -> None:
    """Rate times seconds, rounded."""
    assert even(4, 1) == (0, 0.25, 0.5, 0.75)
    assert even(0.5, 1.3) == (0,)


def test_a_burst_begins_where_it_should() -> None:
    """Calls are as close as its rate says."""
    assert burst(1.0, 3, 4) == (1.0, 1.25, 1.5)
    assert burst(1.0, 1, 4) == (1.0,)


def test_latency_counts_from_the_moment_that_was_meant() -> None:
    """A client that could not send in time cannot hide what the server did to it."""
    late = Answer(0.0, 0.9, 1.0, "accepted")
    step = figures(Offer(moments=(0.0,), rate=1.0), [late])
    assert (step.p50, step.longest) == (1.0, 1.0)


def test_figures_of_a_step() -> None:
    """Rates are over the time of the offer, percentiles are values that occurred."""
    offer = Offer(moments=even(10, 1), rate=10.0)
    found = [*answers([0.01 * (number + 1) for number in range(8)], 10), Answer(0.8, 0.8, 0.9, "refused")]
    step = figures(offer, [*found, Answer(0.9, 0.9, 1.0, "failed")])
    assert (step.offered, step.accepted, step.refused, step.failed, step.calls) == (10, 8, 1, 1, 10)
    assert (step.p50, step.p90, step.p99) == pytest.approx((0.05, 0.1, 0.1))
    assert step.growth == pytest.approx(0.08)


def test_what_leads_up_to_an_offer_is_no_part_of_its_figures() -> None:
    """A burst before the even part has a rate of its own."""
    offer = Offer(moments=(0.0, 0.001, 1.0, 1.5), rate=2.0, lead=2)
    found = [Answer(moment, moment, moment + 0.1, "refused" if moment < 1 else "accepted") for moment in offer.moments]
    step = figures(offer, found)
    assert (step.accepted, step.refused, step.calls) == (2.0, 0.0, 2)


def test_only_what_was_decided_is_judged_in_the_order_of_sending() -> None:
    """Failures say nothing of how a gateway counts."""
    first, second = Answer(0.1, 0.1, 0.2, "refused"), Answer(0.0, 0.3, 0.4, "accepted")
    assert judged([second, Answer(0.0, 0.0, 0.1, "failed"), first]) == [first, second]


@given(st.lists(st.floats(0, 10), min_size=1).map(sorted), st.floats(0.01, 1))
def test_a_quantile_is_the_smallest_value_that_reaches_its_share(ranked: list[float], share: float) -> None:
    """At least that share is not above it, and less than that is below it."""
    found = quantile(ranked, share)
    assert found in ranked
    assert sum(value <= found for value in ranked) >= share * len(ranked) - 1e-9
    assert sum(value < found for value in ranked) < share * len(ranked)

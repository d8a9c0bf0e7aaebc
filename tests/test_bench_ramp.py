"""Ramping, in virtual time."""

from __future__ import annotations

import pytest
from simulated_gateway import Gateway, chance, follow

from harvester.bench.offering import Answer, Offer, Outcome
from harvester.bench.ramp import LEAST, LONGEST_REST, MOST, REST, Range, ramp
from harvester.simulator import make_limit


@pytest.mark.parametrize("first", [5.0, 20.0, 2000.0])
@pytest.mark.parametrize("kind", ["sliding", "weighted", "token:4"])
def test_the_limit_lies_in_the_range_wherever_ramping_begins(kind: str, first: float) -> None:
    """Doubled until refused, halved until taken, then narrowed."""
    gateway = Gateway(make_limit(kind, 300), chance(1), now=50.0)
    found = follow(ramp(first), gateway.answer)
    assert found.refused is not None
    assert found.taken <= 303 < 1.02 * found.refused <= 1.3 * found.taken
    assert (found.rest, found.swamped) == (REST, 0)


def test_rates_double_then_narrow() -> None:
    """After a refusal the gateway gets its rest; otherwise it is left alone for one call's time."""
    offers: list[Offer] = []
    gateway = Gateway(make_limit("sliding", 100), chance(1))

    def noted(offer: Offer) -> list[Answer]:
        offers.append(offer)
        return gateway.answer(offer)

    follow(ramp(20.0), noted)
    assert [round(offer.rate) for offer in offers] == [20, 40, 80, 160, 113, 95, 104]
    assert [round(offer.idle, 3) for offer in offers] == [0.05, 0.025, 0.013, 0.006, 2.2, 2.2, 0.01]


def test_no_limit_is_none() -> None:
    """It ends at the most that one process can send."""

    def take(offer: Offer) -> list[Answer]:
        return [Answer(moment, moment, moment + 0.001, "accepted") for moment in offer.moments]

    assert follow(ramp(1000.0, seconds=0.01), take) == Range(taken=MOST, refused=None)


def test_work_that_piles_up_ends_it() -> None:
    """The server answers 100 calls a second, whatever comes."""
    free = 0.0

    def serve(offer: Offer) -> list[Answer]:
        nonlocal free
        free, found = 0.0, []
        for moment in offer.moments:
            free = max(free, moment) + 0.01
            found.append(Answer(moment, moment, free, "accepted"))
        return found

    assert follow(ramp(20.0), serve) == Range(taken=80, refused=None, swamped=160)


def test_who_never_forgets_is_left_alone() -> None:
    """Rests double up to the longest; then it is a long window, or a quota."""
    rests: list[float] = []

    def refuse(offer: Offer) -> list[Answer]:
        rests.append(offer.idle)
        outcome: Outcome = "accepted" if offer.rate <= 20 and len(rests) == 1 else "refused"
        return [Answer(moment, moment, moment, outcome) for moment in offer.moments]

    found = follow(ramp(20.0), refuse)
    assert found == Range(taken=20, refused=40, rest=None)
    assert [round(rest, 3) for rest in rests] == [0.05, 0.025, 2.2, 4.4, 8.8, 17.6]
    assert rests[-1] <= LONGEST_REST


def test_a_gateway_that_takes_nothing_ends_it_too() -> None:
    """Halving has an end; every step's first call is taken, for it is not a matter of forgetting."""

    def refuse(offer: Offer) -> list[Answer]:
        rest = [Answer(moment, moment, moment, "refused") for moment in offer.moments]
        return [Answer(-1.0, -10.0, 0.0, "accepted"), *rest]

    assert follow(ramp(4.0), refuse) == Range(taken=0.0, refused=LEAST)


def test_refusals_of_calls_that_were_late_and_bunched_count_for_nothing() -> None:
    """A gateway that takes one call every 4 ms cannot help it if this machine sends three together."""

    def bunched(offer: Offer) -> list[Answer]:
        found = []
        for number, moment in enumerate(offer.moments):
            late = offer.rate == 160 and number % 20 == 1  # it goes with the next one
            sent = offer.moments[min(number + late, len(offer.moments) - 1)]
            refused = (offer.rate == 160 and number % 20 == 2) or offer.rate > 250
            found.append(Answer(moment, sent, sent, "refused" if refused else "accepted"))
        return found

    assert follow(ramp(20.0), bunched).taken >= 160

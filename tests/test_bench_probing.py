"""How gateways count is found out: the simulator's kinds, in virtual time, whose phase and jitter are drawn."""

from __future__ import annotations

import pytest
from simulated_gateway import Gateway, chance, follow

from harvester.bench.counting import Counting, Kind
from harvester.bench.offering import Answer, Offer
from harvester.bench.probing import probe
from harvester.bench.ramp import Range, ramp
from harvester.simulator import SlidingLog, make_limit

SEEDS = range(5)


def counted(kind: str, limit: float, seed: int) -> Counting:
    """Ramp and probe a gateway that begins at some moment of a second."""
    draw = chance(f"{kind} {limit} {seed}")
    gateway = Gateway(make_limit(kind, limit, phase=draw.random()), draw, now=draw.uniform(5, 10))
    return follow(probe(follow(ramp(20.0), gateway.answer)), gateway.answer)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limit", [10, 40, 300, 1000])
@pytest.mark.parametrize(
    ("kind", "called"),
    [("sliding", "sliding"), ("calendar", "calendar"), ("first-hit", "first call"), ("weighted", "refused count")],
)
def test_windows_are_told_apart(kind: str, called: Kind, limit: int, seed: int) -> None:
    """Limit, length and content are exact."""
    found = counted(kind, limit, seed)
    assert (found.kind, found.window, found.depth) == (called, 1.0, limit)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limit", [10, 40, 300])
@pytest.mark.parametrize(
    ("kind", "depth"), [("token:16", 16), ("leaky:16", 16), ("nginx:5", 6), ("nginx:20", 21), ("token:2", 2)]
)
def test_buckets_show_their_depth(kind: str, depth: int, limit: int, seed: int) -> None:
    """A token bucket, a leaky one and nginx's are one family; a burst of 5 beside the first call are 6."""
    found = counted(kind, limit, seed)
    assert (found.kind, found.depth, found.window) == ("bucket", depth, None)
    assert found.limit == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limit", [10, 40, 300])
def test_a_bucket_of_one_call_shows_how_long_it_takes_to_fill(limit: int, seed: int) -> None:
    """Nginx without a burst; its whole milliseconds make what it grants depend on the spacing."""
    found = counted("nginx", limit, seed)
    assert (found.kind, found.depth) == ("bucket", 1)
    assert found.limit == pytest.approx(limit, rel=0.15)


@pytest.mark.parametrize("limit", [40, 300])
def test_a_deep_bucket_is_no_window(limit: int) -> None:
    """It holds 300 calls, and gets the time to fill."""
    found = counted("token:300", limit, 1)
    assert (found.kind, found.remark) == ("bucket", "")
    assert found.depth == pytest.approx(300, abs=1)


def test_a_bucket_deeper_than_one_can_wait_for_is_at_least_so_deep() -> None:
    """At 10 calls a second 300 would take half a minute."""
    found = counted("token:300", 10, 1)
    assert found.kind == "bucket"
    assert found.depth is not None
    assert 190 <= found.depth <= 220
    assert found.remark.startswith("at least")


def test_a_longer_window_is_measured() -> None:
    """100 calls in 10 seconds: after a refusal it takes longer to forget."""
    gateway = Gateway(SlidingLog(10, window=10.0), chance(1), now=3.0)
    found = follow(probe(follow(ramp(20.0), gateway.answer)), gateway.answer)
    assert (found.kind, found.window, found.depth, found.limit) == ("sliding", 10.0, 100, 10.0)


def test_a_weighted_window_that_counts_accepted_calls_only_is_another_kind() -> None:
    """As some counters in Redis: once its first period is over, it takes calls evenly."""

    class Weighted:
        start, past, present = -9.0, 0, 0

        def change(self, limit: float) -> None:
            raise NotImplementedError

        def admit(self, now: float) -> bool:
            if now - self.start >= 1:
                self.past = self.present if now - self.start < 2 else 0
                self.start, self.present = (self.start + 1 if now - self.start < 2 else now), 0
            fits = self.present + self.past * (1 - (now - self.start)) < 300
            self.present += fits
            return fits

    gateway = Gateway(Weighted(), chance(1), now=3.0)
    found = follow(probe(follow(ramp(20.0), gateway.answer)), gateway.answer)
    assert (found.kind, found.window) == ("weighted", 1.0)
    assert found.depth == pytest.approx(300, abs=6)
    assert found.limit == pytest.approx(300, rel=0.02)


def test_three_calls_in_a_window_are_too_few_to_tell() -> None:
    """What is known is said, and what is not."""
    found = counted("sliding", 3, 1)
    assert found.limit == pytest.approx(3, rel=0.15)
    assert found.remark == "or a window: so few calls a second do not tell"


def test_a_range_that_is_too_low_is_seen() -> None:
    """What was to be above the limit is taken: twice as much is offered."""
    gateway = Gateway(make_limit("nginx:5", 300), chance(1), now=3.0)
    found = follow(probe(Range(taken=80, refused=92)), gateway.answer)
    assert (found.kind, found.depth) == ("bucket", 6)
    assert found.limit == pytest.approx(300, rel=0.02)


def test_a_machine_that_is_late_makes_no_window_of_a_bucket() -> None:
    """Calls that should have gone within 50 ms go together at the end, ten times a second."""
    gateway = Gateway(make_limit("nginx:20", 300), chance(1), now=3.0)

    def late(offer: Offer) -> list[Answer]:
        """Let each call arrive when the machine has time."""
        sent = [moment if moment % 0.1 < 0.05 else moment - moment % 0.1 + 0.1 for moment in offer.moments]
        answers = gateway.answer(Offer(moments=tuple(sent), idle=offer.idle, rate=offer.rate, lead=offer.lead))
        return [
            Answer(meant, answer.sent, answer.done, answer.outcome)
            for meant, answer in zip(offer.moments, answers, strict=True)
        ]

    found = follow(probe(Range(taken=269, refused=320)), late)
    assert found.kind == "bucket"
    assert found.depth == pytest.approx(21, abs=2)
    assert found.limit is not None
    assert 240 < found.limit <= 303


def test_what_is_odd_is_looked_at_again() -> None:
    """A machine that stands still for a third of the first look makes a window seem longer than it is."""
    gateway = Gateway(make_limit("sliding", 300), chance(1), now=3.0)
    looks = 0

    def uneven(offer: Offer) -> list[Answer]:
        nonlocal looks
        looks += offer.lead > 0
        answers = gateway.answer(offer)
        if offer.lead and looks == 1:
            return [Answer(a.meant, 1.2 * a.sent, a.done, a.outcome) for a in answers]
        return answers

    found = follow(probe(Range(taken=269, refused=320)), uneven)
    assert (looks, found.kind, found.window, found.depth) == (2, "sliding", 1.0, 300)


def test_a_window_that_fits_none_of_the_known_kinds_is_said_to_be_one() -> None:
    """Limit, length and content are known all the same; bursts were tried three times."""
    bursts = 0
    gateway = Gateway(make_limit("sliding", 300), chance(1), now=3.0)

    def strange(offer: Offer) -> list[Answer]:
        nonlocal bursts
        answers = gateway.answer(offer)
        if offer.rate:
            return answers
        bursts += 1
        return [Answer(a.meant, a.sent, a.done, "refused") for a in answers]

    found = follow(probe(Range(taken=269, refused=320)), strange)
    assert (bursts, found.kind, found.limit, found.window, found.depth) == (3, "window", 300, 1.0, 300)
    assert found.remark.startswith("bursts")


def test_a_machine_that_is_busy_makes_a_finding_uncertain() -> None:
    """Every fifth call was late: three looks, then what was found is said with that."""
    gateway = Gateway(make_limit("calendar", 300), chance(1), now=3.0)

    def busy(offer: Offer) -> list[Answer]:
        return [
            Answer(a.meant, a.sent, a.done + 0.2 * (number % 5 == 0), a.outcome)
            for number, a in enumerate(gateway.answer(offer))
        ]

    found = follow(probe(Range(taken=269, refused=320)), busy)
    assert found.kind == "calendar"
    assert found.remark.startswith("uncertain: 20% of the calls were more than 50 ms late")


def test_nothing_to_probe() -> None:
    """Without a limit, or where the gateway does not forget, nothing is sent."""
    assert follow(probe(Range(taken=5120, refused=None)), _never).kind == "none"
    swamped = follow(probe(Range(taken=640, refused=None, swamped=1280)), _never)
    assert (swamped.kind, "1,280/s" in swamped.remark) == ("none", True)
    locked = follow(probe(Range(taken=20, refused=40, rest=None)), _never)
    assert locked.kind == "unknown"
    assert locked.limit == pytest.approx(28.3, abs=0.1)


def test_failures_say_nothing_about_counting() -> None:
    """A server that breaks under the load is no bucket."""

    def fail(offer: Offer) -> list[Answer]:
        return [Answer(moment, moment, moment, "failed") for moment in offer.moments]

    found = follow(probe(Range(taken=20, refused=40)), fail)
    assert (found.kind, found.remark) == ("unknown", "too many calls brought no answer")


def _never(offer: Offer) -> list[Answer]:
    raise AssertionError(f"nothing is to be sent, and {offer} is")

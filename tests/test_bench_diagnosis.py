"""Bottlenecks are named right: figures of planted ones, drawn with noise."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace
from simulated_gateway import chance

from harvester.bench.diagnosis import Stage, Work, diagnose

RUNS = 20
NEEDED = 19


def work(draw: Random, *, rate: float, workers: int, pace: float | None, **stages: float) -> Work:
    """Return figures of 3 s, with what is common to all: little of everything, up to 20 % of noise.

    ``stages`` are seconds per call, but for ``drain`` in all and ``busy`` of each second.
    """
    seconds = 3.0
    calls = max(1, round(rate * seconds))

    def noisy(value: float) -> float:
        return value * draw.uniform(0.8, 1.2)

    parts = {"first_byte": 0.002, "body": 0.0002, "parsing": 0.0001, "writing": 0.00005, **stages}
    drain, busy, committing = parts.pop("drain", 0.02), parts.pop("busy", 0.3), parts.pop("committing", 0.1)
    sums = {stage: noisy(each) * calls for stage, each in parts.items()}
    rest = max(0.0, workers * seconds - sum(sums.values()))
    permit = rest * draw.uniform(0.95, 1.0) if pace else 0.0
    return Work(
        seconds=seconds,
        drain=noisy(drain),
        workers=workers,
        calls=calls,
        accepted=calls,
        refused=0,
        failed=0,
        rate=calls / seconds,
        received=calls * 5000,
        pace=pace,
        busy=min(1.0, noisy(busy)) * seconds,
        committing=committing * (seconds + noisy(drain)),
        permit=permit,
        **sums,
    )


def permit(draw: Random) -> Work:
    """Return what a limit looks like, near and far."""
    pace, latency = draw.uniform(5, 1000), draw.uniform(0.001, 0.5)
    workers = max(16, int(1.25 * pace * latency) + 2)
    return work(draw, rate=pace * draw.uniform(0.95, 1.0), workers=workers, pace=pace, first_byte=latency)


def first_byte(draw: Random) -> Work:
    """Return what a far server looks like to few calls at once."""
    workers, latency = draw.randint(2, 64), draw.uniform(0.05, 2)
    rate = workers / latency
    return work(draw, rate=rate, workers=workers, pace=rate * draw.uniform(1.3, 10), first_byte=latency / 1.2, busy=0.1)


def body(draw: Random) -> Work:
    """Return what a slow line looks like."""
    workers, took = draw.randint(4, 64), draw.uniform(0.2, 2)
    rate = workers / took
    return work(draw, rate=rate, workers=workers, pace=None, body=took / 1.2, first_byte=0.05, busy=0.2)


def parsing(draw: Random) -> Work:
    """Return what large pages look like: the loop has no time, so that answers wait for it too."""
    workers, each = draw.randint(2, 16), draw.uniform(0.005, 0.05)
    return work(
        draw,
        rate=0.9 / each,
        workers=workers,
        pace=None,
        parsing=each * 0.85,
        first_byte=each * workers * 0.5,
        body=each * workers * 0.3,
        busy=1.1,
    )


def own_work(draw: Random) -> Work:
    """Return what a fast gateway without a limit looks like."""
    each = draw.uniform(80e-6, 300e-6)
    return work(draw, rate=1 / each, workers=64, pace=None, first_byte=each * 50, parsing=each / 8, busy=1.15)


def writing(draw: Random) -> Work:
    """Return what a slow disk looks like: either workers wait for it, or it has much to catch up with."""
    pace = draw.uniform(100, 1000)
    if draw.random() < 0.5:
        return work(draw, rate=pace * 0.98, workers=16, pace=pace, drain=draw.uniform(2, 10), committing=0.8)
    return work(
        draw, rate=pace / 3, workers=16, pace=pace, writing=16 / pace * 2, drain=draw.uniform(0.5, 2), committing=0.8
    )


@pytest.mark.parametrize(
    ("planted", "stage"),
    [
        (permit, "permit"),
        (first_byte, "first byte"),
        (body, "body"),
        (parsing, "parsing"),
        (own_work, "own work"),
        (writing, "writing"),
    ],
)
def test_what_is_planted_is_named(planted: Callable[[Random], Work], stage: Stage) -> None:
    """In 19 of 20 runs at least."""
    named = [diagnose(planted(chance(f"{stage} {seed}"))).bottleneck for seed in range(RUNS)]
    assert named.count(stage) >= NEEDED, named


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_of_all_time(seed: int) -> None:
    """They add up to 1, and none is negative."""
    for planted in (permit, first_byte, body, parsing, own_work, writing):
        shares = diagnose(planted(chance(seed))).shares
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0


def golden(**changes: float | None) -> Work:
    """Return figures of ten workers at 100 calls a second, of which they use all."""
    known = Work(
        seconds=3.0,
        drain=0.0,
        workers=10,
        calls=300,
        accepted=300,
        refused=0,
        failed=0,
        rate=100.0,
        received=3_000_000,
        pace=100.0,
        busy=0.3,
        committing=0.6,
        permit=24.0,
        first_byte=3.0,
        body=0.9,
        parsing=0.6,
        writing=0.3,
    )
    return replace(known, **changes)


def test_shares_of_known_figures() -> None:
    """What is left is the worker's own."""
    assert diagnose(golden()).shares == pytest.approx(
        {"permit": 0.8, "first byte": 0.1, "body": 0.03, "parsing": 0.02, "writing": 0.01, "own work": 0.04}
    )


@pytest.mark.parametrize(
    ("changes", "stage", "words"),
    [
        ({}, "permit", "100% of the permits are used at 100 calls/s"),
        ({"drain": 2.0, "committing": 4.5}, "writing", "workers wait 41% of their time for it, at 0.6 MB/s"),
        ({"pace": None, "permit": 0.0, "busy": 2.9, "parsing": 2.0}, "parsing", "6.67 ms of processor time a page"),
        ({"pace": None, "permit": 0.0, "busy": 2.9, "drain": 2.0, "committing": 2.5}, "own work", "97% of one core"),
        ({"pace": None, "permit": 0.0, "busy": 2.9}, "own work", "97% of one core is used"),
        ({"pace": None, "permit": 0.0, "first_byte": 24.0}, "first byte", "after 0.08 s on average with 10 calls"),
        ({"pace": None, "permit": 0.0, "body": 24.0}, "body", "a body takes 0.08 s to arrive at 1 MB/s in all"),
    ],
)
def test_one_sentence_says_what_and_what_to_change(changes: dict[str, float], stage: Stage, words: str) -> None:
    """With the figures that it rests on."""
    found = diagnose(golden(**changes))
    assert (found.bottleneck, found.sentence.count("bottleneck")) == (stage, 1)
    assert words in found.sentence

"""Whose failure is it: the page's, or the host's."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from harvester.health import BACKOFF_BASE, BACKOFF_CAP, NEVER_PATIENCE, PROBE_INTERVAL, RECENT, Health, backoff


def test_a_host_serves_others_for_a_while_after_a_good_answer() -> None:
    """Calls sent up to ten seconds after it are blamed on their pages, however many of them fail."""
    health = Health(0.0, 300.0)
    health.succeeded(100.0)
    assert health.good == 100.0
    for _ in range(3):
        assert health.failed(100.0 + RECENT, "x")
    assert not health.failed(100.1 + RECENT, "y")
    assert health.last_error == "y"
    assert not health.down, "the caller turns it down, not the failure"


@pytest.mark.parametrize("sent", [100.0, 105.0, 100.1 + RECENT, 1e6])
def test_the_failure_after_a_good_answer_is_the_pages(sent: float) -> None:
    """With calls far apart, or time-outs longer than that while, one good answer blames the one failure after it."""
    health = Health(0.0, 300.0)
    health.succeeded(100.0)
    assert health.failed(sent, "x")
    assert health.failed(sent, "x") is (sent <= 100.0 + RECENT)
    health.succeeded(2e6)
    assert health.failed(3e6, "x")


def test_a_host_that_never_answered_serves_nothing() -> None:
    """Its first failure is already its own."""
    health = Health(0.0, 300.0)
    assert health.good == -inf
    assert not health.failed(0.0, "x")


def test_a_host_that_is_down_is_probed_every_few_seconds() -> None:
    """Each failure puts the next probe off; a good answer ends it."""
    health = Health(0.0, 300.0)
    assert health.rest(0.0) == 0
    health.turn_down(1.0)
    assert health.rest(1.0) == PROBE_INTERVAL
    health.turn_down(3.0)
    assert health.rest(3.0) == PROBE_INTERVAL
    assert health.rest(3.0 + PROBE_INTERVAL) == 0
    health.succeeded(4.0)
    assert not health.down
    assert health.rest(4.0) == 0


def test_patience_is_time_and_short_for_a_host_that_never_answered() -> None:
    """Half a minute without any answer at all, the set patience otherwise; never while it is up."""
    never, patient = Health(0.0, 300.0), Health(0.0, 300.0)
    patient.succeeded(1.0)
    assert not never.hopeless(1000.0)
    for health in (never, patient):
        health.turn_down(20.0)
    assert not never.hopeless(NEVER_PATIENCE - 0.1)
    assert never.hopeless(NEVER_PATIENCE)
    assert not patient.hopeless(300.9)
    assert patient.hopeless(301.0)
    assert patient.silence(301.0) == 300.0
    assert Health(0.0, 5.0).silence(2.0) == 2.0


def test_a_short_patience_holds_for_a_host_that_never_answered_too() -> None:
    """The shorter of the two."""
    health = Health(0.0, 5.0)
    health.turn_down(1.0)
    assert not health.hopeless(4.9)
    assert health.hopeless(5.0)


def test_back_off_doubles_with_full_jitter_up_to_its_cap() -> None:
    """Spread over the whole range, so that pages do not come back together."""
    random = Random(1)  # noqa: S311 - the same waits in every run
    for failures, most in ((1, 2 * BACKOFF_BASE), (4, 16 * BACKOFF_BASE), (30, BACKOFF_CAP), (10**6, BACKOFF_CAP)):
        waits = [backoff(failures, random) for _ in range(500)]
        assert 0.0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most

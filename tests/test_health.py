"""Whose failure is it: the page's, or the host's."""

from __future__ import annotations

from random import Random

from harvester.health import BACKOFF_BASE, BACKOFF_CAP, NEVER_PATIENCE, PROBE_INTERVAL, RECENT, Health, backoff


def test_a_failure_counts_while_the_host_serves_others() -> None:
    """Up to ten seconds after the last good answer."""
    health = Health(0.0, 300.0)
    health.succeeded(100.0)
    assert health.failed(100.0 + RECENT, "x")
    assert health.rest(100.0 + RECENT) == 0
    assert not health.failed(100.1 + RECENT, "y")
    assert health.down
    assert health.last_error == "y"


def test_a_host_that_is_down_is_probed_every_few_seconds() -> None:
    """Each failure puts the next probe off; a good answer ends it."""
    health = Health(0.0, 300.0)
    assert health.rest(0.0) == 0
    assert not health.failed(1.0, "x")
    assert health.rest(1.0) == PROBE_INTERVAL
    assert not health.failed(3.0, "x")
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
        health.failed(20.0, "x")
    assert not never.hopeless(NEVER_PATIENCE - 0.1)
    assert never.hopeless(NEVER_PATIENCE)
    assert not patient.hopeless(300.9)
    assert patient.hopeless(301.0)
    assert patient.silence(301.0) == 300.0
    assert Health(0.0, 5.0).silence(2.0) == 2.0


def test_a_short_patience_holds_for_a_host_that_never_answered_too() -> None:
    """The shorter of the two."""
    health = Health(0.0, 5.0)
    health.failed(1.0, "x")
    assert not health.hopeless(4.9)
    assert health.hopeless(5.0)


def test_back_off_doubles_with_full_jitter_up_to_its_cap() -> None:
    """Spread over the whole range, so that pages do not come back together."""
    random = Random(1)  # noqa: S311 - the same waits in every run
    for failures, most in ((1, 2 * BACKOFF_BASE), (4, 16 * BACKOFF_BASE), (30, BACKOFF_CAP), (10**6, BACKOFF_CAP)):
        waits = [backoff(failures, random) for _ in range(500)]
        assert 0.0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most

"""Whose failure is it: the page's, or the host's."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from harvester.health import BACKOFF_BASE, BACKOFF_CAP, NEVER_PATIENCE, PROBE_INTERVAL, RECENT, Health, Reach, backoff


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


def two_apps() -> tuple[Health, Health]:
    """Return how two apps find one host, which has answered both."""
    reach = Reach()
    one, other = Health(0.0, 300.0, reach), Health(0.0, 300.0, reach)
    for health in (one, other):
        health.succeeded(10.0)
    return one, other


def test_a_host_that_does_not_answer_one_app_is_probed_by_all() -> None:
    """Nobody there is nobody there for everybody: the other app learns it without a call of its own."""
    one, other = two_apps()
    one.turn_down(21.0, missed=20.0)
    assert one.down
    assert other.down
    assert [health.rest(22.0) for health in (one, other)] == [PROBE_INTERVAL - 1] * 2
    assert other.rest(21.0 + PROBE_INTERVAL) == 0


@pytest.mark.parametrize("good", [True, False])
def test_any_answer_to_any_app_finds_the_host_again(good: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """The app that had no failure of its own goes on at once, the one that had probes for itself."""
    one, other = two_apps()
    one.turn_down(21.0, missed=20.0)
    if good:
        other.succeeded(25.0)
    else:
        other.reach.heard(25.0)
    assert not other.down
    assert other.rest(25.0) == 0
    assert one.down
    assert one.rest(25.0) == 0
    one.succeeded(26.0)
    assert not one.down


def test_what_one_app_is_answered_is_its_own_affair() -> None:
    """Bad answers turn the host down for the app that gets them, and for nobody else."""
    one, other = two_apps()
    one.turn_down(21.0)
    assert one.down
    assert not other.down


@pytest.mark.parametrize(("answered", "shared"), [(19.0, True), (20.5, False)])
def test_a_call_without_an_answer_means_nothing_while_others_are_answered(answered: float, shared: bool) -> None:  # noqa: FBT001
    """One query that hangs is its app's; the host is not there only if nobody was answered since it was sent."""
    one, other = two_apps()
    other.reach.heard(answered)
    one.turn_down(50.0, missed=20.0)
    assert one.down
    assert other.down is shared


def test_patience_with_a_host_is_each_apps_own() -> None:
    """An app that is answered well never gives up, whatever happens to the other."""
    one, other = two_apps()
    one.turn_down(21.0)
    other.succeeded(400.0)
    assert one.hopeless(400.0)
    assert not other.hopeless(400.0)


def test_back_off_doubles_with_full_jitter_up_to_its_cap() -> None:
    """Spread over the whole range, so that pages do not come back together."""
    random = Random(1)  # noqa: S311 - the same waits in every run
    for failures, most in ((1, 2 * BACKOFF_BASE), (4, 16 * BACKOFF_BASE), (30, BACKOFF_CAP), (10**6, BACKOFF_CAP)):
        waits = [backoff(failures, random) for _ in range(500)]
        assert 0.0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most

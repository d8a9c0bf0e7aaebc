"""A platform is measured within what the user and its job file allow; an own gateway until it refuses."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace
from scripted_portal import Portal, Script, good, job_for, portal, reply
from test_bench_load import OVER_LIMIT

from harvester.bench import measurement
from harvester.bench.load import now
from harvester.bench.measurement import Limits, measure
from harvester.bench.report import Report
from harvester.errors import Exit
from harvester.job import Job
from harvester.ledger import ledger_of
from harvester.simulator import make_limit
from harvester.slots import state_folder


@asynccontextmanager
async def measured(
    script: Script, tmp_path: Path, limits: Limits, *, own: bool = False, limit: object = 100, run: str = ""
) -> AsyncIterator[tuple[Report, Portal, Job, list[str]]]:
    """Measure a portal."""
    said: list[str] = []
    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, limit=limit, run=run)
        report = await measure(job, job.datasets[0], limits, own=own, tell=said.append)
        yield report, served, job, said


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for moments."""
    monkeypatch.setattr(measurement, "HARVEST", 0.4)
    monkeypatch.setattr(measurement, "REST", 0.1)


async def test_a_platform_gets_no_more_calls_than_it_may(tmp_path: Path) -> None:
    """Half of them in steps up to the pace of a run, the rest as a harvest; its limit is not observed."""
    async with measured(lambda page, _: good(page), tmp_path, Limits(calls=40), limit=100) as (report, served, job, _):
        assert served.asked[1] == report.calls
        assert report.calls <= 40
        assert [round(step.offered, 1) for step in report.steps] == [24.4, 48.8, 97.5]
        assert [step.calls for step in report.steps] == [6, 6, 6]
        assert (report.counting.kind, report.counting.remark) == ("unknown", "not observed")
        assert (report.granted, report.exit, report.limit) == (100, Exit.OK, None)
        assert report.work is not None
        assert not job.output.exists()


async def test_a_platform_is_never_offered_more_than_its_rate_limit(tmp_path: Path) -> None:
    """Seen from the other side: no second has more calls than the limit."""
    arrivals: list[float] = []

    def noted(page: int, _: int) -> web.Response:
        arrivals.append(time.monotonic())
        return good(page)

    async with measured(noted, tmp_path, Limits(seconds=2.4), limit=50) as (report, _, __, ___):
        assert report.calls == len(arrivals) > 20
    assert max(sum(0 <= later - first < 1 for later in arrivals) for first in arrivals) <= 50


async def test_seconds_bound_it_too(tmp_path: Path) -> None:
    """The harvest is cut short."""
    began = now()
    async with measured(lambda page, _: good(page), tmp_path, Limits(seconds=0.5), limit=100) as (report, *_):
        assert report.exit is Exit.OK
    assert now() - began < 1.5


async def test_a_refusal_ends_the_steps(tmp_path: Path) -> None:
    """Nobody is asked for more than he has just refused."""

    def refuse(page: int, time_asked: int) -> web.Response:
        return good(page) if time_asked < 9 else reply(OVER_LIMIT)

    async with measured(refuse, tmp_path, Limits(calls=60), limit=100) as (report, served, _, __):
        assert len(report.steps) == 1
        assert report.steps[0].refused > 0
        assert served.asked[1] <= 12


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ({"errcode": 1403, "errmsg": "no"}, Exit.REFUSED, "no permission"),
        (OVER_LIMIT, Exit.BUDGET, "more calls per second"),
        ({"errcode": 500, "errmsg": "oops"}, Exit.OPEN_PAGES, "internal error"),
    ],
)
async def test_a_first_call_that_fails_is_the_only_one(tmp_path: Path, answer: object, code: Exit, words: str) -> None:
    """There is nothing to measure, for a reason that is told."""
    async with measured(lambda _, __: reply(answer), tmp_path, Limits(calls=20), limit=100) as (report, served, _, __):
        assert (report.exit, report.work, served.asked[1]) == (code, None, 1)
        assert words in report.message


async def test_an_allowance_is_kept_to(tmp_path: Path) -> None:
    """Every call is in the ledger, one is under way at a time, and nothing is sent when it is used up."""
    async with portal(lambda page, _: good(page)) as (served, url):
        job = job_for(tmp_path, url, limit=100, datasets="max_calls = 12")
        dataset = job.datasets[0]
        report = await measure(job, dataset, Limits(calls=100), own=False, tell=lambda _: None)
        assert served.asked[1] == report.calls == 12
        ledger = ledger_of(dataset, state_folder(os.environ), time.time)
        assert ledger.state().used == 12
        report = await measure(job, dataset, Limits(calls=100), own=False, tell=lambda _: None)
        assert (report.exit, report.calls, served.asked[1]) == (Exit.BUDGET, 0, 12)


async def test_an_own_gateway_is_offered_more_until_it_refuses(tmp_path: Path) -> None:
    """And what it was told to harvest with follows from what was found."""
    gate, began = make_limit("token:4", 60), now()

    def decide(page: int, _: int) -> web.Response:
        return good(page) if gate.admit(now() - began) else reply(OVER_LIMIT)

    async with measured(decide, tmp_path, Limits(calls=160), own=True) as (report, served, _, said):
        assert report.own
        assert any(step.refused for step in report.steps)
        assert report.counting.remark == "not observed: the calls or seconds allowed were used up"
        assert served.asked[1] == report.calls == 160
        assert said[0].startswith("offering")
        assert [step.offered for step in report.steps] == sorted(step.offered for step in report.steps)


async def test_workers_are_those_of_a_run(tmp_path: Path) -> None:
    """As the job file says; else as many as latency and rate ask for."""
    limits = Limits(calls=30)
    async with measured(lambda page, _: good(page), tmp_path, limits, run="concurrency = 3") as (report, *_):
        assert report.work is not None
        assert report.work.workers == 3
    (tmp_path / "other").mkdir()
    async with measured(lambda page, _: good(page), tmp_path / "other", Limits(calls=30), limit=100) as (report, *_):
        assert report.work is not None
        assert report.work.workers == 16
    assert replace(report, granted=None).efficiency is None

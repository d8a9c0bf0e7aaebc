"""A few moments of harvesting against scripted portals, and where the time went."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from scripted_portal import good, reply
from test_bench_load import OVER_LIMIT, calls_to

from harvester.bench import short_harvest
from harvester.bench.load import Bound, now
from harvester.bench.scratch import Scratch, scratch
from harvester.bench.short_harvest import ShortHarvest, busy_seconds
from harvester.errors import LocalError
from harvester.model import Page
from harvester.pace import Pacer

PAGE = Page(b"{}\n" * 20, 20)


async def test_workers_wait_for_permits_or_for_answers(tmp_path: Path) -> None:
    """All pages are durable in the end; the stages are sums over all workers."""
    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(lambda page, _: good(page)) as (calls, served):
            work = await ShortHarvest(calls, Pacer(100, 60, now), keep).run(0.5, 4)
        journal = next(tmp_path.glob(".harvester-bench-*/snapshot/part-00000.pages")).read_bytes()
    assert work.calls == work.accepted == served.asked[1]
    assert journal.count(b"\nP ") == work.accepted
    assert work.received == work.accepted * len(good_lines())
    assert 30 <= work.accepted <= 51
    assert 0.5 * 4 * work.seconds < work.permit <= 4 * work.seconds
    assert (work.pace, work.workers) == (97.5, 4)
    assert 60 <= work.rate <= 110


async def test_a_slow_answer_is_waited_for(tmp_path: Path) -> None:
    """Two workers of 0.1 s each: 20 calls a second, and no permit is waited for."""

    async def slow(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.1)
        return good(page)

    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(slow) as (calls, _):
            work = await ShortHarvest(calls, Pacer(None, 60, now), keep).run(0.6, 2)
    assert work.pace is None
    assert 8 <= work.accepted <= 12
    assert work.first_byte > 0.8 * 2 * work.seconds
    assert work.permit < 0.1


async def test_who_still_waits_for_a_permit_at_the_end_goes(tmp_path: Path) -> None:
    """At one call in two seconds, nobody holds up the end."""
    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(lambda page, _: good(page)) as (calls, _):
            work = await ShortHarvest(calls, Pacer(0.5, 60, now), keep).run(0.2, 16)
    assert work.seconds < 1.5
    assert work.accepted <= 1


async def test_refusals_slow_it_down_as_they_do_a_run(tmp_path: Path) -> None:
    """They are counted, and the pacer is told."""
    pacer = Pacer(200, 60, now)
    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(lambda page, n: good(page) if n < 10 else reply(OVER_LIMIT)) as (calls, _):
            work = await ShortHarvest(calls, pacer, keep).run(0.4, 4)
    assert work.accepted == 9
    assert 1 <= work.refused <= 6
    assert pacer.rate < 195


async def test_no_more_calls_than_are_allowed(tmp_path: Path) -> None:
    """It ends early, and there is nothing to wait for."""
    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(lambda page, _: good(page), Bound(calls=5)) as (calls, served):
            work = await ShortHarvest(calls, Pacer(None, 60, now), keep).run(5, 4)
    assert work.calls == served.asked[1] == 5
    assert work.seconds < 3


async def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a measurement; nobody goes on."""

    def broken(*_: object) -> None:
        raise LocalError("no room")

    monkeypatch.setattr(Scratch, "_commit", broken)
    with scratch(tmp_path, PAGE, 100_000, "none") as keep:
        async with calls_to(lambda page, _: good(page)) as (calls, _):
            with pytest.raises(LocalError, match="no room"):
                await ShortHarvest(calls, Pacer(100, 60, now), keep).run(0.2, 2)


def test_time_at_work_is_told_with_and_without_the_systems_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It grows with work."""
    for source in (short_harvest._SCHEDULED, tmp_path / "none"):
        monkeypatch.setattr(short_harvest, "_SCHEDULED", source)
        before = busy_seconds()
        assert sum(range(300_000)) > 0
        assert 0 < busy_seconds() - before < 5


def good_lines() -> bytes:
    """Return the rows of the scripted page as they are kept."""
    return b"".join(b'{"ID":"1-%d"}\n' % row for row in range(20))

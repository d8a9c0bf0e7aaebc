"""Whole runs against real servers: the simulator, and a portal that answers by script."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from scripted_portal import (
    EMPTY,
    as_served,
    certificate,
    facts,
    good,
    job_for,
    lines,
    listed,
    parts,
    portal,
    reply,
    rows_of,
)

from harvester import health
from harvester.errors import Exit
from harvester.events import Events
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.simulator import Config, Quirks, Simulator, jobfile


async def test_both_platforms_row_for_row(tmp_path: Path) -> None:
    """Four datasets of two platforms arrive as the simulator's tables have them, in order, and are proven."""
    async with Simulator(Config(rows=1_010, rate_limit=None)) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, None, simulator.tables)
        result = await mirror(Job.load(tmp_path / "job.toml", environ={}))
        assert result.exit is Exit.OK
        for platform, tables in simulator.tables.items():
            for name, table in tables.items():
                expected = [table.row_bytes(row) for row in range(len(table))]
                assert lines(result, f"{platform}-{name}") == expected
        assert {entry.verdict for entry in result.datasets} == {"proven"}
        assert simulator.stats.as_dict()["repeated_nonces"] == 0


@pytest.mark.parametrize("past_end", ["empty", "null", "last", "first"])
@pytest.mark.parametrize("rows", [0, 1, 19, 20, 21, 400])
async def test_every_end(tmp_path: Path, past_end: Any, rows: int) -> None:  # noqa: ANN401 - a Literal of the simulator
    """Whatever a pager does past its end, and however many rows there are, exactly they are mirrored."""
    async with Simulator(Config(rows=rows, rate_limit=None, quirks={"": Quirks(past_end=past_end)})) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, None, simulator.tables)
        result = await mirror(Job.load(tmp_path / "job.toml", environ={}))
        assert result.exit is Exit.OK
        for entry in result.datasets:
            platform, _, name = entry.name.partition("-")
            table = simulator.tables[platform][name]
            assert lines(result, entry.name) == [table.row_bytes(row) for row in range(rows)]


async def test_what_is_published_is_left_alone(tmp_path: Path) -> None:
    """A second run sends nothing and says how old the mirror is; ``fresh`` makes a second snapshot."""
    async with portal(lambda page, _: good(page) if page <= 3 else reply(EMPTY)) as (served, url):
        job = job_for(tmp_path, url)
        first = await mirror(job)
        calls = served.asked.total()
        again = await mirror(job)
        assert served.asked.total() == calls
        assert "published 0.0 hours ago" in again.datasets[0].why
        fresh = await mirror(job, Options(fresh=True))
        assert fresh.datasets[0].snapshot != first.datasets[0].snapshot
        assert lines(fresh, "d") == lines(first, "d")
        current = tmp_path / "mirror" / "d" / "current"
        assert os.path.realpath(current) == os.path.realpath(fresh.datasets[0].snapshot)


async def test_an_interrupted_run_is_continued(tmp_path: Path) -> None:
    """The word to stop lets calls in flight finish; the next run fetches the rest, then reads all a second time."""
    interrupt: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def slow(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.02)
        if page == 30 and not interrupt.done():
            interrupt.set_result(Exit.INTERRUPTED)
        return good(page) if page <= 60 else reply(EMPTY)

    async with portal(slow) as (served, url):
        job = job_for(tmp_path, url, run="concurrency = 4\nrows_per_shard = 200")
        result = await mirror(job, interrupt=interrupt)
        assert result.exit is Exit.INTERRUPTED
        assert 20 <= result.datasets[0].pages < 60
        result = await mirror(job)
        assert result.exit is Exit.OK
        assert lines(result, "d") == as_served(range(1, 61))
        assert {page: times for page, times in served.asked.items() if times > 1} == {
            **dict.fromkeys(range(1, 61), 2),
            61: 3,  # the edge is looked at twice, and once more at the second reading
        }


async def test_transient_failures_are_retried_and_signed_anew(tmp_path: Path) -> None:
    """Failures of all kinds on a tenth of the pages change no byte; every attempt has a nonce of its own."""

    def flaky(page: int, times: int) -> web.Response:
        if page > 50:
            return reply(EMPTY)
        if page % 10 == 3 and times <= 2:
            return (reply({"errcode": 500, "errmsg": "oops"}), web.Response(status=502, text="<html>bad gateway"))[
                times - 1
            ]
        if page % 10 == 7 and times == 1:
            return web.Response(text='{"errcode": 0, "data": {"data": [{"ID"')
        return good(page)

    async with portal(flaky) as (served, url):
        result = await mirror(job_for(tmp_path, url))
        assert result.exit is Exit.OK
        assert len(lines(result, "d")) == 1000
        assert result.datasets[0].retried == 15
        assert len(set(served.nonces)) == len(served.nonces) == result.datasets[0].calls


async def test_a_page_that_never_comes_stays_open(tmp_path: Path) -> None:
    """100106 is tried three times, then the page stays open (exit 4); later it alone is fetched before the check."""
    broken = True

    def script(page: int, _: int) -> web.Response:
        if page == 17 and broken:
            return reply({"errcode": "100106", "errmsg": "exec sql false"})
        return good(page) if page <= 40 else reply(EMPTY)

    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, run="rows_per_shard = 200")
        result = await mirror(job)
        assert result.exit is Exit.OPEN_PAGES
        assert served.asked[17] == 3
        assert "17" in result.datasets[0].why
        shards = [part.name for part in parts(result)]
        assert shards == ["part-00000.jsonl", "part-00001.pages", "part-00002.jsonl", "part-00003.jsonl"]
        broken, before = False, Counter(served.asked)
        result = await mirror(job)
        assert result.exit is Exit.OK
        assert served.asked - before == Counter([17, *range(1, 42)])
        assert lines(result, "d") == as_served(range(1, 41))


async def test_a_body_nobody_can_read_is_quarantined(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 leave their page open and are kept for somebody to look at."""

    def script(page: int, _: int) -> web.Response:
        if page == 5:
            return web.Response(body=b'{"errcode":0,"data":{"data":[{"ID":"\xff\xfe"}]}}')
        return good(page) if page <= 9 else reply(EMPTY)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OPEN_PAGES
    kept = Path(result.datasets[0].snapshot) / "quarantine"
    assert (kept / "page-00000005.body").read_bytes().endswith(b'"\xff\xfe"}]}}')
    assert "not UTF-8: byte 0xff" in (kept / "page-00000005.why").read_text()


async def test_an_unknown_code_is_a_refusal(tmp_path: Path) -> None:
    """A code nobody documented at page 16 ends with exit 3 and its text, never as the end of the list."""

    def script(page: int, _: int) -> web.Response:
        return reply({"errcode": "8888", "errmsg": "维护"}) if page == 16 else good(page)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.REFUSED
    assert "8888 「维护」" in result.datasets[0].why
    assert not result.datasets[0].published


async def test_a_refused_dataset_leaves_the_others_alone(tmp_path: Path) -> None:
    """1403 on one interface stops that dataset; the message says that the credentials are good."""
    async with Simulator(Config(rows=100, rate_limit=None, platforms=("wuhan",))) as simulator:
        path = tmp_path / "job.toml"
        jobfile.write(path, simulator.url, None, simulator.tables)
        path.write_text(path.read_text() + '\n[datasets.gone]\napp = "wuhan"\nservice = "gone"\n')
        result = await mirror(Job.load(path, environ={}))
    by_name = {entry.name: entry for entry in result.datasets}
    assert result.exit is by_name["gone"].exit is Exit.REFUSED
    assert "100101" in by_name["gone"].why
    assert by_name["wuhan-companies"].published
    assert by_name["wuhan-investors"].published


async def test_no_permission_with_good_credentials_says_so(tmp_path: Path) -> None:
    """When another dataset of the app works, a 1403 is about the subscription."""

    async def script(page: int, _: int) -> web.Response:
        return good(page) if page == 1 else reply(EMPTY)

    refused = reply({"errcode": 1403, "errmsg": "您没有权限调用此接口"}).body

    async with portal(lambda *_: web.Response(body=refused)) as (_, no), portal(script) as (_, yes):
        result = await mirror(job_for(tmp_path, no, datasets=f'[datasets.e]\nurl = "{yes}e"'))
    assert result.exit is Exit.REFUSED
    assert "the credentials are good" in result.datasets[0].why
    assert result.datasets[1].published


async def test_wrong_credentials_cost_two_calls(tmp_path: Path) -> None:
    """1433 stops the app after one correction of the clock; nobody hammers."""
    async with portal(lambda *_: reply({"errcode": "1433", "errmsg": "请求签名错误"})) as (served, url):
        result = await mirror(job_for(tmp_path, url, datasets='[datasets.e]\nservice = "e"'))
    assert result.exit is Exit.REFUSED
    assert served.asked.total() == 2
    assert all("1433" in entry.why and "请求签名错误" in entry.why for entry in result.datasets)


@pytest.mark.parametrize("hours", [-1, 1, 8])
async def test_a_wrong_clock_costs_one_refused_call(tmp_path: Path, hours: int) -> None:
    """A platform whose clock is hours away is understood from its Date header."""
    import time  # noqa: PLC0415 - only here

    config = Config(rows=400, rate_limit=None, clock=lambda: time.time() + hours * 3600)
    async with Simulator(config) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, None, simulator.tables)
        result = await mirror(Job.load(tmp_path / "job.toml", environ={}))
        refused = simulator.stats.as_dict()["refused"]
    assert result.exit is Exit.OK
    assert sum(refused.values()) <= 2  # one for each platform's app


async def test_one_pause_for_the_whole_app(tmp_path: Path) -> None:
    """Over the limit is one pause for everybody, costs no attempt and loses nothing."""
    refused: set[int] = set()
    twelve = asyncio.Event()

    async def script(page: int, _: int) -> web.Response:
        if 100 < page < 200 and page % 2 and len(refused) < 12:  # none of those that probe for the end
            refused.add(page)
            if len(refused) == 12:  # all of them under way
                twelve.set()
            await twelve.wait()
            return reply({"errcode": 1141, "errmsg": "请求频率过高"})
        return good(page) if page <= 300 else reply(EMPTY)

    async with portal(script) as (served, url), asyncio.timeout(30):
        result = await mirror(job_for(tmp_path, url, run="attempts = 1\nconcurrency = 16", datasets="recheck = 0"))
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 301))
    assert served.most_in_flight >= 12
    assert result.datasets[0].refused == 12
    assert 1 <= len(facts(result, "paused")) <= 3
    assert sum(entry["times"] for entry in facts(result, "over limit")) == 12


async def test_nothing_but_refusals_ends_with_exit_6(tmp_path: Path) -> None:
    """A quota that is used up ends the run, resumable, after ``limit_patience``."""
    async with portal(lambda *_: web.Response(status=429, headers={"Retry-After": "1"})) as (served, url):
        result = await mirror(job_for(tmp_path, url, run="limit_patience = 2"))
    assert result.exit is Exit.BUDGET
    assert served.asked.total() <= 4
    assert "nothing but refusals" in result.datasets[0].why


async def test_a_platform_that_is_down_is_given_up_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no good answer at all nothing counts against a page, probes are single, and the run ends with exit 4."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.4)
    async with portal(lambda *_: web.Response(status=503, text="down")) as (served, url):
        result = await mirror(job_for(tmp_path, url, run="attempts = 2"))
    assert result.exit is Exit.OPEN_PAGES
    assert 4 <= served.asked.total() <= 10
    assert served.most_in_flight == 1
    assert "the platform is down" in result.datasets[0].why
    assert "HTTP 503" in result.datasets[0].why


async def test_an_outage_in_mid_run_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing answers, failures count against no page; the first good answer ends it."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr(health, "RECENT", 0.0)
    outage = False
    probes = 0

    def script(page: int, _: int) -> web.Response:
        nonlocal outage, probes
        if page == 20 and not probes:
            outage = True
        if outage:
            probes += 1
            outage = probes < 40
            return web.Response(status=500, text="down")
        return good(page) if page <= 50 else reply(EMPTY)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="attempts = 2\nconcurrency = 8"))
    assert result.exit is Exit.OK
    assert len(lines(result, "d")) == 1000
    assert [entry["app"] for entry in facts(result, "down")]
    assert [entry["app"] for entry in facts(result, "up again")]


async def test_a_page_that_hangs_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that always runs into the time-out ends as open, however long the time-out is."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr(health, "RECENT", 0.05)

    async def script(page: int, _: int) -> web.Response:
        if page == 7:
            await asyncio.sleep(30)
        return good(page) if page <= 9 else reply(EMPTY)

    async with portal(script) as (_, url), asyncio.timeout(30):
        result = await mirror(job_for(tmp_path, url, run="attempts = 3\ntimeout = 0.3"))
    assert result.exit is Exit.OPEN_PAGES
    assert "page 7" in result.datasets[0].why
    assert result.datasets[0].pages == 8


async def test_a_long_outage_opens_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are dropped for a while cost single probes, and no page its attempts."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.02)
    asked = 0

    def script(page: int, _: int) -> web.Response:
        nonlocal asked
        asked += 1
        if 100 <= asked < 250:
            return web.Response(status=502)
        return good(page) if page <= 150 else reply(EMPTY)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="attempts = 3"))
    assert result.exit is Exit.OK
    assert len(lines(result, "d")) == 3000


async def test_rows_beyond_a_supposed_end_revoke_it(tmp_path: Path) -> None:
    """Pages that are empty when they are asked for the first time do not end the list: no answer is believed alone."""

    def script(page: int, times: int) -> web.Response:
        return reply(EMPTY) if page > 100 or (page >= 60 and times == 1) else good(page)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 101))


async def test_a_lie_about_all_that_follows_is_noticed_when_it_ends(tmp_path: Path) -> None:
    """Whoever is told for a while that the list ends at page 59 learns at the second reading that it does not."""
    lies = True

    def script(page: int, times: int) -> web.Response:
        nonlocal lies
        lies = lies and not (page == 1 and times > 1)
        return reply(EMPTY) if page > 100 or (lies and page >= 60) else good(page)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 101))


@pytest.mark.parametrize("past_end", ["last", "first"])
async def test_repeated_pages_are_not_counted(tmp_path: Path, past_end: Any) -> None:  # noqa: ANN401 - a Literal
    """Rows that were read past the end and dropped appear in no count."""
    async with Simulator(Config(rows=1_020, rate_limit=None, quirks={"": Quirks(past_end=past_end)})) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, None, simulator.tables)
        result = await mirror(Job.load(tmp_path / "job.toml", environ={}))
    assert [entry.rows for entry in result.datasets] == [1_020] * 4
    assert [entry.verdict for entry in result.datasets] == ["likely"] * 4
    for entry in result.datasets:
        current = json.loads((tmp_path / "mirror" / entry.name / "current.json").read_text())
        assert current["rows"] == 1_020


async def test_a_first_page_nobody_can_read(tmp_path: Path) -> None:
    """An unreadable page 1 is told as such at once, its bytes are kept, and it is not taken for an outage."""
    async with portal(lambda *_: web.Response(body=b"\xff")) as (served, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OPEN_PAGES
    assert served.asked[1] == 4
    assert "cannot be read (not UTF-8" in result.datasets[0].why
    assert "quarantine" in result.datasets[0].hint


async def test_a_published_dataset_that_became_another_is_refused(tmp_path: Path) -> None:
    """New parameters for a published dataset are said, not answered with the old rows."""
    async with portal(lambda page, _: good(page) if page <= 2 else reply(EMPTY)) as (_, url):
        assert (await mirror(job_for(tmp_path, url))).exit is Exit.OK
        changed = job_for(tmp_path, url, datasets='params = { regno = "1" }')
        result = await mirror(changed)
        assert result.exit is Exit.USAGE
        assert "the parameters" in result.datasets[0].why
        assert (await mirror(changed, Options(fresh=True))).exit is Exit.OK


@pytest.mark.parametrize(
    "headers",
    [{"Date": "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"}, {"Retry-After": "1 Jan 99999999999999999999"}],
)
async def test_absurd_headers_end_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    """Dates that no calendar holds are ignored."""

    def script(page: int, times: int) -> web.Response:
        if page == 2 and times == 1:
            return web.Response(status=429, headers=headers)
        answer = good(page) if page <= 3 else reply(EMPTY)
        answer.headers.update(headers)
        return answer

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    assert len(lines(result, "d")) == 60


async def test_datasets_share_fairly(tmp_path: Path) -> None:
    """Two datasets of an app advance together, whatever their order in the job file."""
    order: list[str] = []

    async def script(name: str, page: int) -> web.Response:
        order.append(name)
        await asyncio.sleep(0.001)
        return good(page) if page <= 40 else reply(EMPTY)

    async with (
        portal(lambda page, _: script("d", page)) as (_, one),
        portal(lambda page, _: script("e", page)) as (_, two),
    ):
        await mirror(job_for(tmp_path, one, run="concurrency = 4", datasets=f'[datasets.e]\nurl = "{two}e"'))
    middle = order[10:60]
    assert 15 <= middle.count("d") <= 35


@pytest.mark.parametrize("option", ["max_pages", "max_calls"])
async def test_budgets_are_kept_to_the_call(tmp_path: Path, option: str) -> None:
    """``--max-pages`` and ``--max-calls`` stop exactly there, with exit 6, and the next run goes on."""
    async with portal(listed(30)) as (served, url):
        job = job_for(tmp_path, url)
        result = await mirror(job, Options(max_pages=12) if option == "max_pages" else Options(max_calls=12))
        assert result.exit is Exit.BUDGET
        if option == "max_pages":
            assert result.datasets[0].pages == 12
            assert served.asked.total() == 12 + sum(page > 30 for page in served.asked)
        else:
            assert served.asked.total() == 12
        result = await mirror(job)
        assert result.exit is Exit.OK
        assert lines(result, "d") == as_served(range(1, 31))
        assert {page: times for page, times in served.asked.items() if times > 1} == {
            **dict.fromkeys(range(1, 31), 2),
            31: 3,  # the edge is looked at twice, and once more at the second reading
        }


@pytest.mark.parametrize("calls", [1, 2, 7])
async def test_apps_share_a_budget(tmp_path: Path, calls: int) -> None:
    """Two apps together make exactly the calls that are allowed, and neither waits for what the other has spent."""
    async with Simulator(Config(rows=1_000, rate_limit=None)) as simulator:
        jobfile.write(tmp_path / "job.toml", simulator.url, None, simulator.tables)
        async with asyncio.timeout(20):
            result = await mirror(Job.load(tmp_path / "job.toml", environ={}), Options(max_calls=calls))
        assert result.exit is Exit.BUDGET
        assert simulator.stats.as_dict()["calls"] == calls


async def test_a_changed_identity_is_refused(tmp_path: Path) -> None:
    """An open snapshot of other parameters is not mixed with; the hint names ``--fresh``."""
    async with portal(lambda page, _: good(page)) as (served, url):
        await mirror(job_for(tmp_path, url), Options(max_pages=5))
        asked = served.asked.total()
        changed = job_for(tmp_path, url, datasets='params = { regno = "1" }')
        result = await mirror(changed)
        assert result.exit is Exit.USAGE
        assert "the parameters" in result.datasets[0].why
        assert "--fresh" in result.datasets[0].hint
        assert served.asked.total() == asked


async def test_a_mistake_before_the_first_page_needs_no_fresh(tmp_path: Path) -> None:
    """A snapshot that holds no page yet takes over corrected settings."""
    async with portal(lambda *_: reply({"errcode": "100101"})) as (_, wrong):
        assert (await mirror(job_for(tmp_path, wrong))).exit is Exit.REFUSED
    async with portal(lambda page, _: good(page) if page <= 2 else reply(EMPTY)) as (_, right):
        result = await mirror(job_for(tmp_path, right))
    assert result.exit is Exit.OK
    assert len(list((tmp_path / "mirror" / "d").glob("2*Z"))) == 1


async def test_one_writer_per_dataset(tmp_path: Path) -> None:
    """While a run works on a dataset another one is refused with exit 8 and changes nothing."""
    started, release = asyncio.Event(), asyncio.Event()

    async def script(page: int, _: int) -> web.Response:
        started.set()
        await release.wait()
        return good(page) if page <= 2 else reply(EMPTY)

    async with portal(script) as (_, url):
        job = job_for(tmp_path, url)
        first = asyncio.create_task(mirror(job))
        await started.wait()
        second = await mirror(job)
        assert second.exit is Exit.LOCKED
        assert "in use by process" in second.datasets[0].why
        release.set()
        assert (await first).exit is Exit.OK


async def test_an_unpaged_interface_costs_two_calls(tmp_path: Path) -> None:
    """``paging = "none"`` asks once, keeps what comes, and has it confirmed by a second call."""
    async with portal(lambda *_: reply({"errcode": 0, "data": rows_of(1, 33)})) as (served, url):
        result = await mirror(job_for(tmp_path, url, datasets='paging = "none"'))
    assert result.exit is Exit.OK
    assert served.queries == [{}, {}]
    assert result.datasets[0].calls == 2
    assert result.datasets[0].verdict == "proven"
    assert len(lines(result, "d")) == 33


async def test_a_wrong_total_is_not_proven(tmp_path: Path) -> None:
    """A total that its pages do not bear out is exit 5: kept, not published; the pages are all there."""

    async def script(request: web.BaseRequest) -> web.StreamResponse:
        form = await request.post()
        page = json.loads(str(form["param"]))["pageNum"]
        rows = rows_of(page) if page <= 3 else []
        return reply({"result": True, "code": "1000", "total": "75", "count": len(rows), "data": rows})

    runner = web.ServerRunner(web.Server(script))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        (tmp_path / "secret").write_text("s")
        (tmp_path / "secret").chmod(0o600)
        (tmp_path / "job.toml").write_text(
            '[apps.s]\nplatform = "sipop"\napp_key = "k"\napp_secret = { file = "secret" }\nrate_limit = "none"\n'
            f'url = "http://127.0.0.1:{runner.addresses[0][1]}/"\n[datasets.d]\nmethod = "m"\n'
        )
        result = await mirror(Job.load(tmp_path / "job.toml", environ={}))
    finally:
        await runner.cleanup()
    assert result.exit is Exit.NOT_PROVEN
    assert "claims 75 rows" in result.datasets[0].why
    assert not (tmp_path / "mirror" / "d" / "current").exists()
    assert len(lines(result, "d")) == 60


async def test_the_package_describes_the_shards(tmp_path: Path) -> None:
    """``datapackage.json`` names each shard with bytes, rows, digest and pages, and carries the certificate."""
    async with portal(lambda page, _: good(page) if page <= 25 else reply(EMPTY)) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="rows_per_shard = 200", datasets='title = "出资人"'))
    package = json.loads((Path(result.datasets[0].snapshot) / "datapackage.json").read_text())
    assert [resource["harvester"]["pages"] for resource in package["resources"]] == [[1, 10], [11, 20], [21, 25]]
    assert package["title"] == "出资人"
    shown = package["harvester"]["certificate"]
    assert shown["verdict"] == "proven"
    assert shown["evidence"]["end"]["how"] == "empty"
    assert shown["evidence"]["end"]["beyond"][0] == 26
    assert shown["read"]["from"].endswith("+08:00")
    assert shown["calls"] == result.datasets[0].calls
    assert certificate(result).evidence.read_again.pages == 25


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_compressed_shards_hold_the_same_rows(tmp_path: Path, compression: str) -> None:
    """Compressed shards decompress to the very lines."""
    import gzip  # noqa: PLC0415 - only here

    import zstandard  # noqa: PLC0415

    async with portal(lambda page, _: good(page) if page <= 12 else reply(EMPTY)) as (_, url):
        result = await mirror(job_for(tmp_path, url, run=f'rows_per_shard = 100\ncompression = "{compression}"'))
    unpack = (
        gzip.decompress
        if compression == "gzip"
        else lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)
    )
    found = b"".join(unpack(part.read_bytes()) for part in parts(result))
    assert found.splitlines() == [
        json.dumps(row, separators=(",", ":")).encode() for page in range(1, 13) for row in rows_of(page)
    ]


async def test_events_reach_every_sink(tmp_path: Path) -> None:
    """What the log holds is what a caller's own sink is told."""
    told: list[str] = []
    events = Events(lambda event, _: told.append(event))
    async with portal(lambda page, _: good(page) if page <= 2 else reply(EMPTY)) as (_, url):
        result = await mirror(job_for(tmp_path, url), events=events)
    logged = [json.loads(line)["event"] for line in (Path(result.path) / "events.jsonl").read_text().splitlines()]
    assert [event for event in told if event != "tick"] == logged
    assert logged[0] == "began"
    assert logged[-1] == "ended"
    assert json.loads((Path(result.path) / "result.json").read_text())["datasets"][0]["name"] == "d"
    assert "<td>d</td>" in (Path(result.path) / "report.html").read_text()

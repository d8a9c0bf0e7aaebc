"""What makes a mirror proven, likely or neither, in whole runs against a portal that answers by script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from scripted_portal import EMPTY, Script, as_served, certificate, good, job_for, lines, listed, portal, reply

from harvester import health
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.report import Result

SIZE = 20


class Table:
    """Rows that may change while they are read; ``calls`` counts the answers."""

    def __init__(self, rows: int, change: Callable[[Table, int, int], None] = lambda *_: None) -> None:
        self.rows = [f"{row}" for row in range(rows)]
        self.calls = 0
        self._change = change

    def __call__(self, page: int, times: int) -> web.Response:
        """Answer, after whatever happens to the rows at this call."""
        self.calls += 1
        self._change(self, page, times)
        return answer(page, [{"ID": row} for row in self.rows[(page - 1) * SIZE : page * SIZE]])

    @property
    def lines(self) -> list[bytes]:
        """The rows as a mirror has them."""
        return [b'{"ID":"%b"}' % row.encode() for row in self.rows]


def answer(page: int, rows: list[dict[str, str]], size: int = SIZE) -> web.Response:
    """Return a page of these rows that states a size."""
    return reply({"errcode": 0, "data": {"pageNo": page, "pageSize": size, "data": rows}})


def published(tmp_path: Path) -> bool:
    """Tell whether readers see a snapshot."""
    return (tmp_path / "mirror" / "d" / "current").exists()


def why(result: Result) -> str:
    """Return what the first dataset's result says."""
    return result.datasets[0].why


# -- the second reading -------------------------------------------------------------------------------------------


async def test_a_changed_page_is_mended(tmp_path: Path) -> None:
    """A value that changes after the walk is in the mirror, and the certificate says that one page was read anew."""

    def change(table: Table, page: int, times: int) -> None:
        if (page, times) == (1, 2):
            table.rows[777] = "changed"

    table = Table(2_000, change)
    async with portal(table) as (served, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    assert lines(result, "d") == table.lines
    again = certificate(result).evidence.read_again
    assert (again.pages, again.changed, again.mended, again.rounds) == (100, 0, 1, 1)
    assert certificate(result).verdict == "proven"
    assert all(served.asked[page] == 3 for page in range(1, 101)), "the walk, and two checks"


async def test_a_shift_is_mended(tmp_path: Path) -> None:
    """A row that is inserted at the head in mid-walk moves every row behind it: none is missing, none there twice."""

    def change(table: Table, _: int, __: int) -> None:
        if table.calls == 60:
            table.rows.insert(0, "new")

    table = Table(2_000, change)
    async with portal(table) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="rows_per_shard = 300", datasets='key = "ID"'))
    assert result.exit is Exit.OK
    assert lines(result, "d") == table.lines
    found = certificate(result)
    assert found.verdict == "proven"
    assert found.evidence.rows == 2_001
    assert found.evidence.key is not None
    assert (found.evidence.key.distinct, found.evidence.key.doubled) == (2_001, 0)
    assert 1 <= found.evidence.read_again.rounds <= 2


async def test_data_that_goes_on_moving_is_not_proven(tmp_path: Path) -> None:
    """After two rounds nobody waits any longer: exit 5, kept, not published."""

    def change(table: Table, _: int, __: int) -> None:
        if table.calls % 30 == 0:
            table.rows.insert(0, f"new {table.calls}")

    async with portal(Table(1_000, change)) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.NOT_PROVEN
    assert re.search(r"[0-9]+ of [0-9]+ pages had changed .* also after 2 rounds of mending", why(result))
    assert not published(tmp_path)
    assert len(lines(result, "d")) >= 1_000


@pytest.mark.parametrize("more", [1, 70, 3_000])
async def test_a_list_that_grows_after_the_walk(tmp_path: Path, more: int) -> None:
    """Rows that are added at the end between the two readings are mirrored too, by one round."""

    def change(table: Table, page: int, times: int) -> None:
        if (page, times) == (1, 2):
            table.rows += [f"more {row}" for row in range(more)]

    table = Table(990, change)
    async with portal(table) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="rows_per_shard = 300"))
    assert result.exit is Exit.OK
    assert lines(result, "d") == table.lines
    assert certificate(result).evidence.read_again.rounds == 1
    assert certificate(result).verdict == "proven"


async def test_a_list_that_shrinks_after_the_walk(tmp_path: Path) -> None:
    """Rows that are gone at the second reading are not in the mirror."""

    def change(table: Table, page: int, times: int) -> None:
        if (page, times) == (1, 2):
            del table.rows[500:]

    table = Table(990, change)
    async with portal(table) as (_, url):
        result = await mirror(job_for(tmp_path, url, run="rows_per_shard = 300"))
    assert result.exit is Exit.OK
    assert lines(result, "d") == table.lines
    assert certificate(result).verdict == "proven"


async def test_interrupted_in_the_second_reading(tmp_path: Path) -> None:
    """The next run goes on with it: what was under way is read a third time at most; then it publishes."""
    interrupt: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def script(page: int, times: int) -> web.Response:
        await asyncio.sleep(0.01)
        if page == 20 and times == 2 and not interrupt.done():
            interrupt.set_result(Exit.INTERRUPTED)
        return good(page) if page <= 60 else reply(EMPTY)

    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, run="concurrency = 4")
        result = await mirror(job, interrupt=interrupt)
        assert result.exit is Exit.INTERRUPTED
        assert result.datasets[0].pages == 60
        assert not published(tmp_path)
        before = served.asked.total()
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert all(served.asked[page] >= 2 for page in range(1, 62))
    assert sum(served.asked[page] > 2 for page in range(1, 62)) <= 4
    assert served.asked.total() - before < 61 - 15
    assert certificate(result).evidence.read_again.pages == 60
    assert certificate(result).verdict == "proven"
    assert lines(result, "d") == as_served(range(1, 61))


async def test_changes_found_before_an_interruption_are_kept(tmp_path: Path) -> None:
    """What an interrupted second reading has mended stays mended, and what it has not is found by the next one."""
    interrupt: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    moved = False

    async def script(page: int, times: int) -> web.Response:
        nonlocal moved
        moved = moved or (page == 1 and times == 2)
        await asyncio.sleep(0.01)
        if page == 30 and times == 2 and not interrupt.done():
            interrupt.set_result(Exit.INTERRUPTED)
        rows = [{"ID": f"{page}-{row}{'*' if moved and page in {2, 59} else ''}"} for row in range(SIZE)]
        return answer(page, rows if page <= 60 else [])

    async with portal(script) as (_, url):
        job = job_for(tmp_path, url, run="concurrency = 4\nrows_per_shard = 200")
        assert (await mirror(job, interrupt=interrupt)).exit is Exit.INTERRUPTED
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert [line for line in lines(result, "d") if b"*" in line] == [
        b'{"ID":"%d-%d*"}' % (page, row) for page in (2, 59) for row in range(SIZE)
    ]
    assert len(lines(result, "d")) == 1_200
    assert certificate(result).verdict == "proven"


@pytest.mark.parametrize(
    ("setting", "exit_", "verdict", "reason"),
    [
        ("", Exit.OK, "proven", ""),
        ("strict = true", Exit.OK, "proven", ""),
        ("expect_rows = 980", Exit.OK, "proven", ""),
        ('key = "ID"', Exit.OK, "proven", ""),
        ("recheck = 0", Exit.OK, "likely", "the pages were read once"),
        ("recheck = 10", Exit.OK, "likely", "only 10 of 49 pages were read a second time"),
        ("recheck = 0\nstrict = true", Exit.NOT_PROVEN, "likely", "`strict` asks for proven; the pages were read once"),
        ("expect_rows = 981", Exit.NOT_PROVEN, "not proven", "`expect_rows` says 981 rows, the pages hold 980"),
        ('key = "no such column"', Exit.NOT_PROVEN, "not proven", "980 rows without no such column"),
    ],
)
async def test_settings_of_the_proof(tmp_path: Path, setting: str, exit_: Exit, verdict: str, reason: str) -> None:
    """The same flawless list under each of them; what is not published is kept, and says why."""
    async with portal(listed(49)) as (_, url):
        result = await mirror(job_for(tmp_path, url, datasets=setting))
    assert result.exit is exit_
    assert certificate(result).verdict == result.datasets[0].verdict == verdict
    assert reason in why(result)
    assert bool(why(result)) is bool(reason)
    assert published(tmp_path) is (exit_ is Exit.OK)
    assert lines(result, "d") == as_served(range(1, 50))


async def test_a_doubled_key_is_not_proven(tmp_path: Path) -> None:
    """One row that is there twice is found among all, whatever else its rows hold."""
    table = Table(981)
    table.rows[970] = table.rows[11]
    async with portal(table) as (_, url):
        result = await mirror(job_for(tmp_path, url, datasets='key = "ID"'))
    assert result.exit is Exit.NOT_PROVEN
    assert why(result) == "1 value of the key ID more than once"
    assert not published(tmp_path)


@pytest.mark.parametrize("rows", [1_000, 5_000])
async def test_a_window_is_a_weakness(tmp_path: Path, rows: int) -> None:
    """So many rows and no total: servers are known to cut lists off there."""
    async with portal(Table(rows)) as (_, url):
        result = await mirror(job_for(tmp_path, url, datasets="recheck = 700"))
    assert result.exit is Exit.OK
    assert certificate(result).verdict == "likely"
    assert "a number at which servers cut lists off" in why(result)


async def test_an_unpaged_answer_that_changes(tmp_path: Path) -> None:
    """The confirmation brings other rows: they are kept, and have to be confirmed themselves."""

    def script(_: int, times: int) -> web.Response:
        return reply({"errcode": 0, "data": [{"ID": "old" if times == 1 else "new"}]})

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url, datasets='paging = "none"'))
    assert result.exit is Exit.OK
    assert lines(result, "d") == [b'{"ID":"new"}']
    assert result.datasets[0].calls == 3
    assert certificate(result).verdict == "proven"


# -- the page size ------------------------------------------------------------------------------------------------


def rows(page: int, count: int = SIZE) -> list[dict[str, str]]:
    """Return rows that no other page has."""
    return [{"ID": f"{page}-{row}"} for row in range(count)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda page, _: answer(page, rows(page, 21 if page == 30 else 20)), "page 30 has 21 rows where page 1 had 20"),
        (lambda page, _: answer(page, rows(page), 25 if page == 30 else 20), "page 30 states a size of 25"),
        (lambda page, _: answer(page, rows(page, 10 if 30 <= page < 50 else 20)), "10 pages in a row up to page"),
        (lambda page, times: answer(page, rows(page, 10 if times > 1 else 20)), "page 1 has 10 rows now, it had 20"),
    ],
    ids=["more rows", "another size stated", "ten short pages", "page 1 read again"],
)
async def test_a_page_size_that_changes_ends_the_snapshot(tmp_path: Path, script: Script, words: str) -> None:
    """Every row boundary has moved: exit 5 with the hint ``--fresh``, and the next run begins a new snapshot."""
    async with portal(lambda page, times: script(page, times) if page <= 100 else reply(EMPTY)) as (served, url):
        job = job_for(tmp_path, url, run="concurrency = 1")
        result = await mirror(job)
        assert result.exit is Exit.NOT_PROVEN
        assert "the page size changed while pages were read" in why(result)
        assert words in why(result)
        assert "--fresh" in result.datasets[0].hint
        assert not published(tmp_path)
        calls = served.asked.total()
        served.script = listed(100)
        again = await mirror(job)
        assert again.exit is Exit.OK
        assert again.datasets[0].snapshot != result.datasets[0].snapshot
        assert served.asked.total() - calls >= 201, "from the first page on"
        assert Path(result.datasets[0].snapshot).is_dir(), "kept"


# -- failures at the end and in the midst -------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["7001", "500", "100106"])
@pytest.mark.parametrize("pages", [1, 2, 45])
async def test_an_error_past_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, pages: int) -> None:
    """A platform that fails on every page past its last one: all pages are there, likely at most, the code is named."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.02)

    def script(page: int, _: int) -> web.Response:
        return good(page) if page <= pages else reply({"errcode": code, "errmsg": "?"})

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, pages + 1))
    found = certificate(result)
    assert found.verdict == "likely"
    assert found.evidence.end.how == f"error {code}"
    assert len(found.evidence.end.beyond) >= 3
    assert why(result) == f"past the end the platform answers with error {code}, not with an empty page"


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("total", [17, 40, 300])
async def test_an_unknown_code_in_the_midst(tmp_path: Path, total: int, concurrency: int) -> None:
    """A code at page 16 alone is a refusal and never the end, whatever lies behind it."""

    def script(page: int, _: int) -> web.Response:
        if page == 16:
            return reply({"errcode": "8888", "errmsg": "维护"})
        return good(page) if page <= total else reply(EMPTY)

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url, run=f"concurrency = {concurrency}"))
    assert result.exit is Exit.REFUSED
    assert "8888 「维护」" in why(result)
    assert not published(tmp_path)


async def test_different_errors_are_no_end(tmp_path: Path) -> None:
    """Pages past the last one that fail with a code each say nothing together."""

    def script(page: int, _: int) -> web.Response:
        return good(page) if page <= 45 else reply({"errcode": f"7{page:03}", "errmsg": "?"})

    async with portal(script) as (_, url):
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is not Exit.OK
    assert not published(tmp_path)


# -- the charset --------------------------------------------------------------------------------------------------

# What reads as one text in UTF-8 and as another in GB18030: only the dataset's charset can tell.
AMBIGUOUS = "中文".encode().decode("gb18030")


def gb18030(page: int, _: int, declared: str = "; charset=GBK") -> web.Response:
    """Return a page in GB18030 that says so on page 1 only."""
    text = "武汉市" if page == 1 else AMBIGUOUS
    held = [{"ID": f"{page}-{row}", "名称": text} for row in range(SIZE)] if page <= 30 else []
    body = {"errcode": 0, "data": {"pageNo": page, "pageSize": SIZE, "data": held}}
    return web.Response(
        body=json.dumps(body, ensure_ascii=False).encode("gb18030"),
        headers={"Content-Type": f"application/json{declared if page == 1 else ''}"},
    )


async def test_a_charset_is_decided_once(tmp_path: Path) -> None:
    """The first page decides, a later run goes by it, and a job file that says otherwise is refused (exit 2)."""
    async with portal(gb18030) as (served, url):
        result = await mirror(job_for(tmp_path, url), Options(max_pages=10))
        assert result.exit is Exit.BUDGET
        asked = served.asked.total()
        refused = await mirror(job_for(tmp_path, url, datasets='charset = "utf-8"'))
        assert refused.exit is Exit.USAGE
        assert "was read as gb18030 so far, and now `charset` says utf-8" in why(refused)
        assert served.asked.total() == asked
        result = await mirror(job_for(tmp_path, url))
    assert result.exit is Exit.OK
    found = [json.loads(line) for line in lines(result, "d")]
    assert [row["名称"] for row in found] == ["武汉市"] * SIZE + [AMBIGUOUS] * 29 * SIZE
    assert certificate(result).verdict == "proven"
    assert certificate(result).evidence.repairs["charset"] == 30


async def test_a_charset_that_nobody_stated_is_a_guess(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are read as GB18030, which is not proven until the job file says it."""
    async with portal(lambda page, times: gb18030(page, times, declared="")) as (_, url):
        result = await mirror(job_for(tmp_path, url))
        assert result.exit is Exit.NOT_PROVEN
        assert "by guessing" in why(result)
        assert not published(tmp_path)
        result = await mirror(job_for(tmp_path, url, datasets='charset = "gb18030"'))
    assert result.exit is Exit.OK
    assert certificate(result).verdict == "proven"


# -- calls that are counted ---------------------------------------------------------------------------------------


async def test_an_allowance_is_kept_over_runs(tmp_path: Path) -> None:
    """One call at a time, and never more than the allowance, by whatever run, snapshot or mirror; exit 6."""

    async def script(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.001)
        return good(page) if page <= 30 else reply(EMPTY)

    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, datasets="max_calls = 12")
        for fresh in (False, False, True):
            result = await mirror(job, Options(fresh=fresh))
            assert result.exit is Exit.BUDGET
            assert "the allowance of 12 calls is used up, which resets on" in why(result)
            assert served.asked.total() == 12
        (tmp_path / "elsewhere").mkdir()
        result = await mirror(job_for(tmp_path / "elsewhere", url, datasets="max_calls = 12"))
        assert result.exit is Exit.BUDGET
        assert served.asked.total() == 12
        assert served.most_in_flight == 1


async def test_what_an_allowance_has_bought_is_kept(tmp_path: Path) -> None:
    """A larger allowance goes on where the smaller one ended, and buys no page twice but for the second reading."""
    async with portal(listed(30)) as (served, url):
        assert (await mirror(job_for(tmp_path, url, datasets="max_calls = 20"))).exit is Exit.BUDGET
        assert served.asked.total() == 20
        result = await mirror(job_for(tmp_path, url, datasets="max_calls = 100"))
        assert result.exit is Exit.OK
        assert served.asked.total() <= 100
        assert served.most_in_flight == 1
        assert lines(result, "d") == as_served(range(1, 31))
        assert all(served.asked[page] == 2 for page in range(1, 31))
        assert certificate(result).verdict == "proven"


@pytest.mark.parametrize("plan", [False, True])
async def test_fifteen_pages_for_twenty_calls(tmp_path: Path, plan: bool) -> None:  # noqa: FBT001 - from the table
    """They are all there, whether somebody planned first or not; the second reading is shortened, which is said."""
    async with portal(listed(15)) as (served, url):
        job = job_for(tmp_path, url, datasets="max_calls = 20")
        if plan:
            planned = await mirror(job, Options(plan=True))
            assert planned.exit is Exit.OK
            assert planned.datasets[0].outlook is not None
            assert planned.datasets[0].outlook.pages == 15
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert served.asked.total() <= 20
    assert lines(result, "d") == as_served(range(1, 16))
    assert certificate(result).verdict == "likely"


async def test_over_the_limit_twice_is_the_allowance(tmp_path: Path) -> None:
    """Where calls are counted a second refusal is believed: two calls, exit 6."""
    async with portal(lambda *_: web.Response(status=429, headers={"Retry-After": "1"})) as (served, url):
        result = await mirror(job_for(tmp_path, url, datasets="max_calls = 100"))
    assert result.exit is Exit.BUDGET
    assert served.asked.total() == 2
    assert "over the limit twice" in why(result)

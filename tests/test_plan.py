"""What a plan says and what it costs: the run that follows makes the calls that were promised, and none twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import log2
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace
from scripted_portal import good, job_for, listed, portal

from harvester.certificate import recorded
from harvester.check import check
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.outlook import Outlook
from harvester.plan import FIELDS, Plan, plans_of
from harvester.report import DatasetResult, Result
from harvester.simulator import Config, Simulator, jobfile, parse_quirks

PLAN: Final = Options(plan=True)
SIZES: Final = {"wuhan": 20, "sipop": 50}
NAMES: Final = {"wuhan": "companies", "sipop": "patent.search"}
OUTLOOK: Final = Outlook(pages=50, rows=995, exact=True, calls=94, again=50, seconds=None, left=None, key_seconds=0.0)


def planned(code: Exit = Exit.OK, **entry: Any) -> Plan:  # noqa: ANN401 - fields of a result
    """Return the plan of a run's only dataset."""
    dataset = DatasetResult(name="d", exit=code, **entry)
    (plan,) = plans_of(Result(exit=dataset.exit, path="", began="", ended="", datasets=(dataset,)))
    return plan


def seen(**facts: Any) -> Plan:  # noqa: ANN401 - fields of an outlook
    """Return the plan that an outlook gives."""
    return planned(outlook=replace(OUTLOOK, **facts))


# Words


def test_numbers_are_taken_over() -> None:
    """Without a limit there is no time, without an allowance no share, without a key no time for it."""
    assert seen() == Plan(dataset="d", exit=Exit.OK, pages=50, rows=995, exact=True, calls=94)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.001, "0:00:01"), (59.4, "0:00:59"), (59.6, "0:01:00"), (3_599, "0:59:59"), (360_000, "100:00:00")],
)
def test_durations(seconds: float, words: str) -> None:
    """Hours, minutes and seconds, and never nothing; the number itself is there for machines."""
    found = seen(seconds=seconds, key_seconds=seconds)
    assert (found.time, found.key_time, found.seconds) == (words, words, seconds)


@pytest.mark.parametrize(
    ("left", "share", "remark"),
    [
        (940, "10%", ""),
        (94, "100%", ""),
        (47, "200%", "47 calls more than are left: it will take until the allowance resets"),
        (0, "100%", "94 calls more than are left: it will take until the allowance resets"),
    ],
)
def test_the_share_of_an_allowance(left: int, share: str, remark: str) -> None:
    """A plan that does not fit says by how much."""
    found = seen(left=left)
    assert (found.left, found.share, found.remark) == (left, share, remark)


def test_what_could_not_be_found_out() -> None:
    """The reason stands in the place of numbers, also where an outlook was begun; so does what is published."""
    refused = planned(Exit.REFUSED, why="1403 - no permission", hint="subscribe", outlook=OUTLOOK)
    assert refused == Plan(dataset="d", exit=Exit.REFUSED, remark="1403 - no permission", hint="subscribe")
    assert (
        planned(why="published 0.1 hours ago; nothing was sent").remark == "published 0.1 hours ago; nothing was sent"
    )


def test_the_columns_of_the_table() -> None:
    """Each is a field, in the order of the questions that it answers."""
    assert FIELDS == ("dataset", "pages", "rows", "calls", "time", "left", "share", "key_time")
    assert set(FIELDS) <= set(Plan.__struct_fields__)


# What a plan costs, and what the run after it


@asynccontextmanager
async def played(
    folder: Path,
    platform: str,
    rows: int,
    settings: str = "",
    **config: Any,  # noqa: ANN401 - the simulator's
) -> AsyncIterator[tuple[Simulator, Job, Options, Options]]:
    """Play one platform; yields it, a job, and how to plan and to run its first dataset."""
    async with Simulator(Config(rows=rows, rate_limit=None, platforms=(platform,), **config)) as simulator:
        path = folder / "job.toml"
        jobfile.write(path, simulator.url, None, simulator.tables)
        path.write_text(f"{path.read_text()}\n[defaults]\n{settings}\n")
        names = (f"{platform}-{NAMES[platform]}",)
        yield simulator, Job.load(path, environ={}), Options(datasets=names, plan=True), Options(datasets=names)


def asked(simulator: Simulator) -> Mapping[int, int]:
    """Return how often each page was asked for."""
    (pages,) = simulator.stats.pages.values()
    return pages


LISTS: Final = (
    *(("", pages) for pages in (0, 0.1, 1, 1.5, 3, 4, 20, 99.5, 750)),
    *(("recheck = 0", pages) for pages in (0, 1.5, 20)),
    *(("recheck = 7", pages) for pages in (1.5, 99.5)),
    *(("max_calls = 1_000", pages) for pages in (0, 1, 99.5)),
    *(("max_calls = 150", pages) for pages in (1.5, 99.5)),
)


@pytest.mark.parametrize("platform", SIZES)
@pytest.mark.parametrize(("settings", "full_pages"), LISTS)
async def test_a_run_makes_the_calls_that_were_planned(
    tmp_path: Path, platform: str, settings: str, full_pages: float
) -> None:
    """Exactly these on a clean list; finding the end takes few, and what it brought is not fetched again."""
    rows = round(full_pages * SIZES[platform])
    pages = -(-rows // SIZES[platform])
    async with played(tmp_path, platform, rows, settings) as (simulator, job, plan, run):
        planning = await mirror(job, plan)
        (found,), outlook = plans_of(planning), planning.datasets[0].outlook
        spent = simulator.stats.calls
        assert outlook is not None
        assert (found.exit, found.pages, found.rows, found.exact) == (Exit.OK, pages, rows, True)
        assert spent <= 4 * log2(max(pages, 1)) + 10
        result = await mirror(job, run)
        (entry,) = result.datasets
        assert entry.exit is Exit.OK, entry.why
        assert entry.rows == rows
        assert entry.calls == found.calls == simulator.stats.calls - spent
        within = {page: times for page, times in asked(simulator).items() if page <= max(pages, 1)}
        edge = not pages and "max_calls" not in settings  # of an empty list, page 1 is asked for once more
        assert sum(within.values()) == max(pages, 1) + edge + outlook.again
        assert not simulator.stats.refused


@pytest.mark.parametrize("quirk", ["past_end=last", "past_end=last,echo=absent", "past_end=first", "past_end=error"])
@pytest.mark.parametrize("platform", SIZES)
async def test_promises_hold_for_other_ends(tmp_path: Path, platform: str, quirk: str) -> None:
    """A list that ends in a repetition costs what was planned as well.

    That pages fail is not believed from one run to the next, so where it is the end, it has to be found again.
    """
    quirks = parse_quirks([quirk + (",total=absent" if platform == "sipop" else "")])
    async with played(tmp_path, platform, 1_990, quirks=quirks) as (simulator, job, plan, run):
        (found,) = plans_of(await mirror(job, plan))
        spent = simulator.stats.calls
        (entry,) = (await mirror(job, run)).datasets
    assert (entry.exit, entry.rows, entry.verdict) == (Exit.OK, 1_990, "likely")
    assert found.pages == -(-1_990 // SIZES[platform])
    assert found.calls is not None
    again = 2 * log2(found.pages) + 8 if quirk == "past_end=error" else 0
    assert found.calls <= entry.calls <= found.calls + again
    assert entry.calls == simulator.stats.calls - spent


async def test_a_second_plan_sends_nothing(tmp_path: Path) -> None:
    """What the first has found is kept, the end too; nothing is published, and the numbers are the same."""
    async with played(tmp_path, "wuhan", 1_995) as (simulator, job, plan, run):
        (first,) = plans_of(await mirror(job, plan))
        spent = simulator.stats.calls
        (second,) = plans_of(await mirror(job, plan))
        assert second.exit is Exit.OK
        assert (second.pages, second.calls) == (first.pages, first.calls)
        assert simulator.stats.calls == spent
        assert not list(tmp_path.glob("mirror/*/current*"))
        (entry,) = (await mirror(job, run)).datasets
        assert entry.published


async def test_a_plan_of_what_is_published(tmp_path: Path) -> None:
    """It says how old the mirror is, and sends nothing."""
    async with played(tmp_path, "wuhan", 95) as (simulator, job, plan, run):
        await mirror(job, run)
        spent = simulator.stats.calls
        result = await mirror(job, plan)
        assert simulator.stats.calls == spent
    (found,) = plans_of(result)
    assert (found.exit, found.calls) == (Exit.OK, None)
    assert found.remark.startswith("published 0.0 hours ago")


async def test_pages_found_by_a_plan_survive_a_change_of_mind(tmp_path: Path) -> None:
    """A run with another ``recheck`` goes on with them, for the dataset is the same one."""
    async with portal(listed(30)) as (served, url):
        await mirror(job_for(tmp_path, url), PLAN)
        before = served.asked.copy()
        assert 1 < sum(page <= 30 for page in before) < 30
        (entry,) = (await mirror(job_for(tmp_path, url, datasets="recheck = 0\n"))).datasets
    assert entry.rows == 600
    assert all(served.asked[page] == 1 for page in range(1, 31))


async def test_the_time_that_a_plan_states(tmp_path: Path) -> None:
    """The calls at the app's pace: rate_limit x rate_share x headroom."""
    async with portal(listed(30)) as (_, url):
        job = job_for(tmp_path, url, limit="100\nrate_share = 0.5\nheadroom = 0.8", datasets='key = "ID"\n')
        (found,) = plans_of(await mirror(job, PLAN))
    assert found.calls is not None
    assert found.seconds == pytest.approx(found.calls / 40)
    assert (found.time, found.key_time) == ("0:00:01", "0:00:01")


async def test_an_unpaged_dataset(tmp_path: Path) -> None:
    """One call to plan, which brings all there is, and one to confirm it."""
    async with portal(lambda page, _: good(page)) as (served, url):
        job = job_for(tmp_path, url, datasets='paging = "none"\n')
        # Without pages there is no page number; the script answers whatever is asked as page 1.
        served.script = lambda _page, _times: good(1, 15)
        (found,) = plans_of(await mirror(job, PLAN))
        assert (found.pages, found.rows, found.calls, sum(served.asked.values())) == (1, 15, 1, 1)
        (entry,) = (await mirror(job)).datasets
        assert (entry.exit, entry.verdict, entry.calls) == (Exit.OK, "proven", 1)


async def test_an_unpaged_answer_that_looks_like_a_full_page_is_not_proven(tmp_path: Path) -> None:
    """It states a page size, and has just as many rows: there may be more pages."""
    async with portal(lambda _page, _times: good(1)) as (_, url):
        (entry,) = (await mirror(job_for(tmp_path, url, datasets='paging = "none"\n'))).datasets
    assert (entry.exit, entry.verdict) == (Exit.NOT_PROVEN, "not proven")
    assert "states a page size of 20" in entry.why


# Allowances


async def test_a_plan_keeps_to_the_allowance(tmp_path: Path) -> None:
    """It stops with exit 6 when nothing is left, and says when it resets; what it has read is kept."""
    async with portal(listed(2_000)) as (served, url):
        job = job_for(tmp_path, url, datasets='max_calls = 7\ncalls_reset = "2099-01-01"\n')
        (found,) = plans_of(await mirror(job, PLAN))
        assert (found.exit, found.pages) == (Exit.BUDGET, None)
        assert "allowance of 7 calls is used up, which resets on 2099-01-01" in found.remark
        assert sum(served.asked.values()) == 7
        assert (await mirror(job)).exit is Exit.BUDGET
        assert sum(served.asked.values()) == 7


async def test_a_list_that_does_not_fit(tmp_path: Path) -> None:
    """The plan says how many calls are lacking; the run uses what is left and no more."""
    async with portal(listed(50)) as (served, url):
        job = job_for(tmp_path, url, datasets="max_calls = 30\n")
        (found,) = plans_of(await mirror(job, PLAN))
        assert found.calls is not None
        assert found.left == 30 - sum(served.asked.values())
        assert found.calls == 50 - sum(page <= 50 for page in served.asked)
        assert f"{found.calls - found.left} calls more than are left" in found.remark
        (entry,) = (await mirror(job)).datasets
        assert (entry.exit, entry.calls) == (Exit.BUDGET, found.left)
        assert set(served.asked.values()) == {1}


@pytest.mark.parametrize("commands", ["check plan run", "plan run", "check run", "run", "check plan plan run run"])
@pytest.mark.parametrize("platform", SIZES)
async def test_fifteen_pages_within_twenty_calls(tmp_path: Path, platform: str, commands: str) -> None:
    """From nothing, whatever is done first; the second reading is what is short, and the verdict says so."""
    rows = 15 * SIZES[platform] - 7
    async with played(tmp_path, platform, rows, "max_calls = 20", quota="20/month") as (simulator, job, plan, run):
        for command in commands.split():
            if command == "check":
                (finding,) = await check(job, [each for each in job.datasets if each.name in run.datasets])
                assert (finding.exit, finding.message) == (Exit.OK, "")
                continue
            (entry,) = (await mirror(job, plan if command == "plan" else run)).datasets
            assert entry.exit is Exit.OK, entry.why
        assert simulator.stats.accepted == 20
        assert not simulator.stats.refused
        assert [asked(simulator)[page] for page in range(1, 16)] == [2, *[1] * 13, 2]
    (snapshot,) = tmp_path.glob("mirror/*/current")
    said = recorded((snapshot / "datapackage.json").read_bytes())
    assert (said.verdict, said.evidence.rows) == ("likely", rows)
    assert said.reasons == ("only 2 of 15 pages were read a second time",)

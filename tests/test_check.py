"""One call per dataset, against interfaces that answer by script."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace
from scripted_portal import as_served, lines, listed, portal
from scripted_portal import job_for as job_of

from harvester.check import Finding, check, exit_of, explain_permissions
from harvester.errors import Exit
from harvester.harvest import mirror
from harvester.job import Job
from harvester.store.folder import DatasetFolder

Script = Callable[[str], web.Response]
"""From an interface's name to its answer."""


def says(body: object, status: int = 200, **headers: str) -> web.Response:
    """Return a JSON answer."""
    return web.json_response(body, status=status, headers=headers)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve interfaces on loopback; yields the address and the names that were called."""
    called: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        assert (await request.json())["query"].get("pageNo", "1") == "1"
        called.append(request.path.removeprefix("/"))
        return script(called[-1])

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", called
    finally:
        await runner.cleanup()


def job_for(folder: Path, url: str, names: str, more: str = "") -> Job:
    """Return a job of one app with a dataset for every letter of ``names``."""
    (folder / "token").touch(0o600)
    (folder / "token").write_text("made up")
    tables = "".join(f'[datasets.{name}]\nservice = "{name}"\n{more}' for name in names)
    (folder / "job.toml").write_text(
        '[apps.w]\nplatform = "wuhan"\npassid = "id"\ntoken = { file = "token" }\n'
        f'url = "{url}"\nrate_limit = "none"\n{tables}'
    )
    return Job.load(folder / "job.toml", environ={})


async def findings(folder: Path, script: Script, names: str = "d", more: str = "") -> tuple[list[Finding], list[str]]:
    """Check datasets; return what was found and what was called."""
    async with serving(script) as (url, called):
        job = job_for(folder, url, names, more)
        return await check(job, job.datasets), called


ROWS = [{"ID": str(number)} for number in range(20)]


async def test_a_usable_dataset(tmp_path: Path) -> None:
    """Page size, first row and the clock's offset come from one call."""
    page = {"errcode": "0", "data": {"pageNo": 1, "pageSize": 20, "data": ROWS}}
    (found,), called = await findings(tmp_path, lambda _: says(page, Date=formatdate(time.time() + 90, usegmt=True)))
    assert found.clock_offset in {89, 90, 91}
    assert found == Finding(
        dataset="d",
        app="w",
        state="usable",
        exit=Exit.OK,
        page_size=20,
        clock_offset=found.clock_offset,
        first_row='{"ID":"0"}',
    )
    assert called == ["d"]


@pytest.mark.parametrize(
    ("data", "more", "state", "size"),
    [
        (ROWS, "", "unpaged", 20),
        ({"ID": "1"}, "", "unpaged", 1),
        ({"pageNo": 1, "data": ROWS}, "", "usable", 20),
        ({"pageNo": 1, "data": ROWS}, 'paging = "none"\n', "unpaged", 20),
    ],
    ids=["a bare list", "one object", "a numbered page", "said to be unpaged"],
)
async def test_paged_or_not(tmp_path: Path, data: object, more: str, state: str, size: int) -> None:
    """An answer that says nothing of pages is unpaged, and so is what the job file says is."""
    (found,), _ = await findings(tmp_path, lambda _: says({"errcode": 0, "data": data}), more=more)
    assert (found.state, found.page_size, found.exit) == (state, size, Exit.OK)


async def test_no_rows_is_usable_but_said(tmp_path: Path) -> None:
    """Parameters that match nothing are no failure, but probably not meant."""
    (found,), _ = await findings(tmp_path, lambda _: says({"errcode": 0, "data": {"data": []}}))
    assert (found.state, found.exit, found.first_row) == ("usable", Exit.OK, "")
    assert found.message == "no rows match the parameters"


async def test_a_long_row_is_cut(tmp_path: Path) -> None:
    """Sixty characters of the first row are enough."""
    body = '{"errcode":0,"data":[{"名":"%s"}]}' % ("汉" * 100)
    (found,), _ = await findings(tmp_path, lambda _: web.Response(text=body))
    assert len(found.first_row) == 60
    assert found.first_row.endswith("汉…")


@pytest.mark.parametrize(
    ("answer", "state", "code", "exit_code"),
    [
        ({"errcode": "1403", "errmsg": "无权限"}, "no permission", "1403", Exit.REFUSED),
        ({"errcode": "100101"}, "wrong or withdrawn", "100101", Exit.REFUSED),
        ({"errcode": "8888"}, "refused", "8888", Exit.REFUSED),
        ({"errcode": 1141}, "over limit", "1141", Exit.BUDGET),
        ({"errcode": "100106"}, "no answer", "100106", Exit.OPEN_PAGES),
        (404, "wrong or withdrawn", "HTTP 404", Exit.REFUSED),
        (429, "over limit", "HTTP 429", Exit.BUDGET),
        (502, "no answer", "HTTP 502", Exit.OPEN_PAGES),
        (302, "refused", "HTTP 302", Exit.REFUSED),
        (403, "refused", "HTTP 403", Exit.REFUSED),
    ],
)
async def test_what_does_not_work(
    tmp_path: Path, answer: dict[str, Any] | int, state: str, code: str, exit_code: Exit
) -> None:
    """Each failure is sorted by what its user can do about it, after exactly one call."""
    script = (lambda _: web.Response(status=answer, text="?")) if isinstance(answer, int) else lambda _: says(answer)
    (found,), called = await findings(tmp_path, script)
    assert (found.state, found.code, found.exit) == (state, code, exit_code)
    assert found.message.startswith(code)
    assert called == ["d"]


async def test_rejected_parameters_on_sipop(tmp_path: Path) -> None:
    """SIPOP's answer to parameters that it rejects is ``key required``."""

    async def handle(_: web.BaseRequest) -> web.Response:
        return says({"code": "1009", "desc": "?"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "secret").write_text("made up")
    (tmp_path / "job.toml").write_text(
        '[apps.s]\nplatform = "sipop"\napp_key = "k"\napp_secret = { file = "secret" }\nrate_limit = "none"\n'
        f'url = "http://127.0.0.1:{runner.addresses[0][1]}/"\n[datasets.d]\nmethod = "m"\n'
    )
    job = Job.load(tmp_path / "job.toml", environ={})
    try:
        (found,) = await check(job, job.datasets)
    finally:
        await runner.cleanup()
    assert (found.state, found.exit) == ("key required", Exit.REFUSED)


@pytest.mark.parametrize("mended", [True, False])
async def test_a_clock_refusal_costs_a_second_call(tmp_path: Path, mended: bool) -> None:  # noqa: FBT001 - from the table
    """A refused signature is tried once more with the platform's time; then it is believed."""
    answers = iter([{"errcode": "1433"}, {"errcode": 0, "data": ROWS} if mended else {"errcode": "1433"}])
    date = formatdate(time.time() - 3_600, usegmt=True)
    (found,), called = await findings(tmp_path, lambda _: says(next(answers), Date=date))
    assert called == ["d", "d"]
    assert found.exit is (Exit.OK if mended else Exit.REFUSED)
    assert found.clock_offset in {-3_601, -3_600, -3_599}


async def test_every_dataset_is_called_once(tmp_path: Path) -> None:
    """One that fails leaves the others alone; findings come in the job file's order."""
    answers = {"a": {"errcode": 0, "data": ROWS}, "b": {"errcode": "1403"}, "c": {"errcode": 0, "data": ROWS}}
    found, called = await findings(tmp_path, lambda name: says(answers[name]), "abc")
    assert called == ["a", "b", "c"]
    assert [finding.exit for finding in found] == [Exit.OK, Exit.REFUSED, Exit.OK]
    assert "the credentials are good" in found[1].message
    assert exit_of(found) is Exit.REFUSED


def finding(state: str, code: Exit) -> Finding:
    """Return a finding."""
    return Finding(dataset="d", app="w", state=state, exit=code, message="1403")


def test_whom_a_missing_permission_concerns() -> None:
    """With a dataset that works the credentials are good; if all lack permission they are suspect; else no note."""
    lacking, works = finding("no permission", Exit.REFUSED), finding("usable", Exit.OK)
    other = finding("refused", Exit.REFUSED)
    assert "the credentials are good" in explain_permissions([lacking, works])[0].message
    assert "check the credentials first" in explain_permissions([lacking, lacking])[1].message
    assert explain_permissions([lacking, other]) == [lacking, other]
    assert explain_permissions([works, other]) == [works, other]


def test_the_exit_code_of_a_check() -> None:
    """The gravest finding's, and 0 for none."""
    assert exit_of([]) is Exit.OK
    assert exit_of([finding("over limit", Exit.BUDGET), finding("no answer", Exit.OPEN_PAGES)]) is Exit.BUDGET
    assert json.loads(json.dumps(exit_of([finding("refused", Exit.REFUSED)]))) == 3


# Where calls are counted

METERED = "max_calls = 20\n"


async def test_page_1_of_a_metered_dataset_is_kept(tmp_path: Path) -> None:
    """The call was paid for: neither a second check nor the run loses it, and the run does not make it again."""
    async with portal(listed(5)) as (served, url):
        job = job_of(tmp_path, url, datasets=f"{METERED}recheck = 0\n")
        for calls in (1, 2):
            (found,) = await check(job, job.datasets)
            assert (found.state, found.message) == ("usable", "")
            assert sum(served.asked.values()) == served.asked[1] == calls
        assert not list(tmp_path.glob("mirror/d/current*"))
        result = await mirror(job)
        assert served.asked[1] == 2
    (entry,) = result.datasets
    assert (entry.exit, entry.verdict, entry.pages) == (Exit.OK, "likely", 5)
    assert lines(result, "d") == as_served(range(1, 6))


async def test_page_1_of_others_is_not(tmp_path: Path) -> None:
    """Without an allowance, a check writes nothing."""
    async with portal(listed(5)) as (_, url):
        job = job_of(tmp_path, url)
        await check(job, job.datasets)
    assert not (tmp_path / "mirror").exists()


async def test_a_published_mirror_is_left_alone(tmp_path: Path) -> None:
    """A check of a metered dataset begins no snapshot beside it."""
    async with portal(listed(5)) as (_, url):
        job = job_of(tmp_path, url, datasets=METERED)
        assert (await mirror(job)).exit is Exit.OK
        before = sorted((tmp_path / "mirror" / "d").rglob("*"))
        (found,) = await check(job, job.datasets)
        assert (found.state, found.message) == ("usable", "")
        assert sorted((tmp_path / "mirror" / "d").rglob("*")) == before


async def test_a_page_that_cannot_be_kept(tmp_path: Path) -> None:
    """What was found is told all the same, with the reason: somebody works on the dataset."""
    async with portal(listed(5)) as (_, url):
        job = job_of(tmp_path, url, datasets=METERED)
        with DatasetFolder(job.output / "d").lock():
            (found,) = await check(job, job.datasets)
    assert (found.state, found.exit, found.page_size) == ("usable", Exit.OK, 20)
    assert found.message.startswith("page 1 could not be kept for `run`: ")


async def test_the_allowance_is_kept_to(tmp_path: Path) -> None:
    """The call that is one too many is not made, also if it is the second one after a clock refusal."""
    async with portal(listed(5)) as (served, url):
        job = job_of(tmp_path, url, datasets="max_calls = 2\n")
        states = [(await check(job, job.datasets))[0] for _ in range(3)]
        assert [found.state for found in states] == ["usable", "usable", "over limit"]
        assert "the allowance of 2 calls is used up; nothing was sent" in states[2].message
        assert "harvester quota JOB" in states[2].hint
        assert exit_of(states) is Exit.BUDGET
        assert sum(served.asked.values()) == 2

    date = formatdate(time.time() - 3_600, usegmt=True)
    async with portal(lambda *_: says({"errcode": "1433"}, Date=date)) as (served, url):
        job = job_of(tmp_path, url, datasets="max_calls = 1\n")
        job = replace(job, datasets=(replace(job.datasets[0], service="e"),))
        (found,) = await check(job, job.datasets)
        assert (found.state, sum(served.asked.values())) == ("over limit", 1)


async def test_calls_without_an_allowance_count_where_another_job_has_one(tmp_path: Path) -> None:
    """They use up what that job may still send."""
    async with portal(listed(5)) as (served, url):
        metered, free = job_of(tmp_path, url, datasets="max_calls = 3\n"), job_of(tmp_path, url)
        checks = [(await check(job, job.datasets))[0].state for job in (metered, free, free, metered)]
        assert checks == ["usable", "usable", "usable", "over limit"]
        assert sum(served.asked.values()) == 3

"""The workers of one app: how many, in which order a call comes about, how they are stopped, and words for refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest
from aiohttp import web

from harvester import app_run, attempt, pace
from harvester.app_run import permission_note, told
from harvester.certificate import Evidence
from harvester.clock import ServerClock
from harvester.errors import DamagedError, Exit
from harvester.harvest import mirror
from harvester.job import Job
from harvester.keeper import Keeper
from harvester.model import Kind, Verdict
from harvester.store.folder import DatasetFolder

Script = Callable[[int, web.BaseRequest], Awaitable[bytes | None]]
"""Called with page and call; what it returns is the answer, None the page."""


@asynccontextmanager
async def serving(folder: Path, script: Script, run: str = "", names: str = "d") -> AsyncIterator[Job]:
    """Serve three pages of 20 rows on loopback; yields a job that mirrors them, once for every letter."""

    async def handle(request: web.BaseRequest) -> web.Response:
        page = int((await request.json())["query"]["pageNo"])
        if (body := await script(page, request)) is not None:
            return web.Response(body=body)
        rows = [{"ID": f"{page}-{row}"} for row in range(20 if page <= 3 else 0)]
        return web.json_response({"errcode": 0, "data": {"pageNo": page, "data": rows}})

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (folder / "token").touch(0o600)
    (folder / "token").write_text("made up")
    (folder / "job.toml").write_text(
        '[apps.w]\nplatform = "wuhan"\npassid = "id"\ntoken = { file = "token" }\nrate_limit = "none"\n'
        f'url = "http://127.0.0.1:{runner.addresses[0][1]}/"\n[run]\n{run}\n'
        + "".join(f'[datasets.{name}]\nservice = "{name}"\n' for name in names)
    )
    try:
        yield Job.load(folder / "job.toml", environ={})
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_calls_under_way_than_said(tmp_path: Path, concurrency: int) -> None:
    """``concurrency`` bounds the calls in flight over all datasets of the app, and is made use of."""
    in_flight = most = 0

    async def count(_: int, __: web.BaseRequest) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1

    async with serving(tmp_path, count, f"concurrency = {concurrency}", names="de") as job:
        assert (await mirror(job)).exit is Exit.OK
    assert most == concurrency


async def test_permit_comes_before_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a permit takes, the time that is signed is that of the sending."""
    elapsed = 0.0
    counter = attempt.counter
    permit = pace.Pacer.permit

    async def slow(self: pace.Pacer) -> float:
        nonlocal elapsed
        elapsed += 1_000  # more than any signature lives
        return await permit(self)

    ages: list[float] = []

    async def note(_: int, request: web.BaseRequest) -> None:
        ages.append(time() + elapsed - int(request.headers["x-tif-timestamp"]))

    monkeypatch.setattr(attempt, "counter", lambda: counter() + elapsed)
    monkeypatch.setattr(ServerClock, "observe", lambda *_: None)  # the server's clock does not jump along
    monkeypatch.setattr(pace.Pacer, "permit", slow)
    async with serving(tmp_path, note, "concurrency = 1") as job:
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert len(ages) == result.datasets[0].calls >= 6
    assert max(ages) < 3
    assert elapsed >= 1_000 * len(ages)  # no call without a permit


async def test_the_first_call_goes_alone(tmp_path: Path) -> None:
    """A wrong secret or clock costs one call, not as many as there are workers."""
    in_flight = most_before_the_first = most = 0
    answered = False

    async def count(page: int, _: web.BaseRequest) -> None:
        nonlocal in_flight, most, most_before_the_first, answered
        in_flight += 1
        if not answered:
            most_before_the_first = max(most_before_the_first, in_flight)
        most = max(most, in_flight)
        await asyncio.sleep(0.02)
        answered |= page == 1
        in_flight -= 1

    async with serving(tmp_path, count, "concurrency = 8", names="de") as job:
        assert (await mirror(job)).exit is Exit.OK
    assert most_before_the_first == 1
    assert most > 1


@pytest.mark.parametrize("answers", [True, False])
async def test_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:  # noqa: FBT001 - from the table
    """Calls in flight may finish for a while and are kept; nothing new is sent; then they are dropped."""
    monkeypatch.setattr(app_run, "DRAIN", 5.0 if answers else 0.05)
    interrupt: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    asked: list[int] = []
    dropped = asyncio.Event()

    async def script(page: int, _: web.BaseRequest) -> None:
        asked.append(page)
        if page == 2:
            interrupt.set_result(Exit.TERMINATED)
            if answers:
                await asyncio.sleep(0.05)
            else:
                await dropped.wait()

    async with serving(tmp_path, script, "concurrency = 1") as job:
        async with asyncio.timeout(5):
            result = await mirror(job, interrupt=interrupt)
        dropped.set()
    assert result.exit is Exit.TERMINATED
    assert asked == [1, 2]
    assert result.datasets[0].pages == (2 if answers else 1)
    assert "everything fetched is kept" in result.datasets[0].why


def test_words_for_a_verdict() -> None:
    """The platform's own code and text come first, then what they mean."""
    verdict = Verdict(kind=Kind.REFUSED, code="1403", text="无权限", meaning="no permission")
    assert told(verdict) == "1403 「无权限」 - no permission"
    assert told(Verdict(kind=Kind.AGAIN, code="no answer", text="", meaning="the connection broke")) == (
        "no answer - the connection broke"
    )


@pytest.mark.parametrize(
    ("works", "all_lack", "words"),
    [(True, False, "the credentials are good"), (False, True, "check the credentials first"), (False, False, "")],
)
def test_words_for_a_missing_permission(*, works: bool, all_lack: bool, words: str) -> None:
    """What happened to the other datasets tells a missing subscription from wrong credentials."""
    note = permission_note(works=works, all_lack=all_lack)
    assert words in note
    assert bool(note) is bool(words)


async def test_missing_permissions_are_explained(tmp_path: Path) -> None:
    """A run whose only dataset is refused says that the credentials are suspect."""

    async def refuse(_: int, __: web.BaseRequest) -> bytes:
        return b'{"errcode":1403,"errmsg":"?"}'

    async with serving(tmp_path, refuse) as job:
        result = await mirror(job)
    assert result.exit is Exit.REFUSED
    assert result.datasets[0].calls == 1
    assert result.datasets[0].why.endswith("so check the credentials first")


async def test_why_a_page_is_open_is_told(tmp_path: Path) -> None:
    """The reason of the first open page stands in the result, and where its unreadable bytes are."""

    async def garble(page: int, _: web.BaseRequest) -> bytes | None:
        return b"\xff" if page == 2 else None

    async with serving(tmp_path, garble) as job:
        result = await mirror(job)
    assert result.exit is Exit.OPEN_PAGES
    assert result.datasets[0].why.startswith("open after temporary failures: page 2; HTTP 200")
    assert "cannot be read (not UTF-8" in result.datasets[0].why
    assert "quarantine/" in result.datasets[0].hint


async def test_a_dataset_that_cannot_be_concluded_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage found at the end is the result of its dataset, with its exit code; the other one is published."""
    judge = Keeper.judge

    def damaged(self: Keeper, evidence: Evidence, about: dict[str, Any]) -> None:
        if self.snapshot.path.parent.name == "d":
            raise DamagedError("part-00000.jsonl is damaged", causes=["its hash differs"], hint="run --fresh")
        judge(self, evidence, about)

    async def good(_: int, __: web.BaseRequest) -> None:
        return None

    monkeypatch.setattr(Keeper, "judge", damaged)
    async with serving(tmp_path, good, names="de") as job:
        result = await mirror(job)
    one, other = result.datasets
    assert (one.exit, one.published) == (Exit.LOCAL, False)
    assert (one.why, one.hint) == ("part-00000.jsonl is damaged; its hash differs", "run --fresh")
    assert (other.exit, other.published) == (Exit.OK, True)
    assert result.exit is Exit.LOCAL


async def test_one_dataset_that_cannot_be_opened_is_a_result_too(tmp_path: Path) -> None:
    """A lock, other settings or damage are never raised, also with one dataset alone, and nothing is sent."""
    calls = 0

    async def count(_: int, __: web.BaseRequest) -> None:
        nonlocal calls
        calls += 1

    async with serving(tmp_path, count) as job:
        folder = DatasetFolder(job.output / "d")
        with folder.lock():
            result = await mirror(job)
        assert (result.exit, result.datasets[0].exit) == (Exit.LOCKED, Exit.LOCKED)
        assert calls == 0
        assert (await mirror(job)).exit is Exit.OK
        so_far = calls
        (folder.path / "current.json").write_bytes(b"{")
        result = await mirror(job)
    assert result.exit is Exit.LOCAL
    assert "current.json" in result.datasets[0].why
    assert calls == so_far

"""Disks that are too small, full, read-only or gone: exit 7 in words, and an exact continuation when there is room."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from msgspec.structs import replace
from scripted_portal import EMPTY, as_served, certificate, facts, good, job_for, lines, listed, portal, reply

from harvester import disk, harvest
from harvester.errors import Exit, LocalError
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.report import DatasetResult, Result
from harvester.store.durable import Folder
from harvester.store.verify import verify_snapshot

PAGES: Final = 30
LAYOUT: Final = "rows_per_shard = 200\nconcurrency = 2"


def only(result: Result) -> DatasetResult:
    """Return what became of the one dataset."""
    (entry,) = result.datasets
    return entry


def mounted(path: Path, options: str) -> Iterator[Path]:
    """Give a small file system in memory for the block."""
    path.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", path], check=False)  # noqa: S603 - ours
    if not done or done.returncode:
        pytest.skip("only who may mount file systems can have a small one")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)  # noqa: S603, S607 - ours


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 2 MiB."""
    yield from mounted(tmp_path / "small", "size=2m")


def fill(path: Path) -> None:
    """Leave no room at all on the disk of a folder."""
    with (path / "filler").open("wb", buffering=0) as file:
        for size in (65_536, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - what ends the loop


def free_of(*left: int) -> Callable[[Path], int]:
    """Return a stand-in for ``disk.free`` that gives these numbers one after the other, the last one for ever."""
    rest = list(left)
    return lambda _: rest.pop(0) if rest[1:] else rest[0]


# -- before the first call ----------------------------------------------------------------------------------------


async def test_too_small_before_the_first_call(small: Path, tmp_path: Path) -> None:
    """One message: how much is free, how much it takes; nothing is sent, and the lock is free again."""
    async with portal(listed(PAGES)) as (served, url):
        job = replace(job_for(tmp_path, url), output=small)
        for _ in range(2):
            with pytest.raises(LocalError) as caught:
                await mirror(job)
            assert caught.value.message.startswith(f"not enough room on the disk for {small}: 2.")
            assert caught.value.message.endswith("MB are free, this run needs 33.6 MB")
            assert "--output DIR" in caught.value.hint
        assert not served.asked


async def test_what_is_known_of_a_list_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a plan the end is known: its rows, as large as those that are here, have to fit; else nothing is sent."""
    async with portal(listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        assert (await mirror(job, Options(plan=True))).exit is Exit.OK
        served.asked.clear()
        monkeypatch.setattr(disk, "free", free_of(disk.RESERVE + 8_000))
        with pytest.raises(LocalError, match=r"this run needs 33\.6 MB") as caught:
            await mirror(job)
        assert "`harvester plan JOB`" in caught.value.hint
        assert not served.asked
        monkeypatch.setattr(disk, "free", free_of(disk.RESERVE + 14_000))
        result = await mirror(job)
        assert result.exit is Exit.OK
        size = sum(file.stat().st_size for file in Path(only(result).snapshot).glob("part-*"))
        assert 8_000 < size < 14_000, "what was said to be needed was"


async def test_a_total_is_believed_until_the_end_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that claims a thousand times as much is taken at its word, until a plan has found the end."""

    def script(page: int, _: int) -> web.Response:
        rows = [{"ID": f"{page}-{row}"} for row in range(20)] if page <= PAGES else []
        return reply({"errcode": 0, "data": {"pageNo": page, "pageSize": 20, "total": 600_000, "data": rows}})

    async with portal(script) as (_, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        assert (await mirror(job, Options(max_calls=1))).exit is Exit.BUDGET
        monkeypatch.setattr(disk, "free", free_of(disk.RESERVE + 100_000))
        with pytest.raises(LocalError, match=r"this run needs 4\d\.\d MB"):
            await mirror(job)
        assert (await mirror(job, Options(plan=True))).exit is Exit.OK
        assert (await mirror(job)).exit is Exit.NOT_PROVEN


async def test_nothing_due_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason for not saying that the mirror is there."""
    async with portal(listed(PAGES)) as (_, url):
        job = job_for(tmp_path, url)
        assert (await mirror(job)).exit is Exit.OK
        monkeypatch.setattr(disk, "free", free_of(0))
        assert (await mirror(job)).exit is Exit.OK
        assert (await mirror(job, Options(repair=True))).exit is Exit.OK


async def test_read_only(tmp_path: Path) -> None:
    """Nothing can be written, so nothing is sent."""
    for place in mounted(tmp_path / "small", "size=2m,ro"):
        async with portal(listed(PAGES)) as (served, url):
            with pytest.raises(LocalError, match=os.strerror(errno.EROFS)) as caught:
                await mirror(replace(job_for(tmp_path, url), output=place))
            assert "--output DIR" in caught.value.hint
            assert not served.asked


async def test_no_log_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot be begun ends the run in words, before anything is sent; later it may fail."""

    def refuse(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(harvest, "Log", refuse)
    async with portal(listed(PAGES)) as (served, url):
        with pytest.raises(LocalError, match=r"events\.jsonl: No space left") as caught:
            await mirror(job_for(tmp_path, url))
        assert "free some space" in caught.value.hint
        assert not served.asked


# -- while it goes on ---------------------------------------------------------------------------------------------


async def continued(job: Job, served: Any, last: int = PAGES) -> None:  # noqa: ANN401 - a portal
    """Run again, where there is room; nothing that was durable is read a second time but for the second reading."""
    result = await mirror(job)
    assert result.exit is Exit.OK, only(result).why
    assert lines(result, "d") == as_served(range(1, last + 1))
    assert certificate(result).verdict == "proven"
    assert set(verify_snapshot(Path(only(result).snapshot)).symbols) == {"."}
    assert len(set(served.nonces)) == len(served.nonces)


async def test_the_reserve_ends_a_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When little is left the run stops before the disk does: what has arrived is kept; exit 7, and then exactly on."""
    monkeypatch.setattr(harvest, "TICK", 0.1)
    monkeypatch.setattr(harvest, "shortage", disk.shortage)
    monkeypatch.setattr(disk, "free", free_of(10**12, 10**12, disk.RESERVE, disk.RESERVE - 1))

    async def slow(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.02)
        return good(page) if page <= PAGES else reply(EMPTY)

    async with portal(slow) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        result = await mirror(job)
        entry = only(result)
        assert (result.exit, entry.exit) == (Exit.LOCAL, Exit.LOCAL)
        assert entry.why == f"the disk is almost full: 33.6 MB are free for {tmp_path / 'mirror'}"
        assert entry.hint == "free some space, then run again: everything fetched is kept"
        asked = set(served.asked)
        assert 0 < len(asked) < PAGES
        assert entry.pages == len([page for page in asked if page <= PAGES])
        assert facts(result, "ended")
        monkeypatch.undo()
        served.asked.clear()
        await continued(job, served)
        assert all(served.asked[page] == 1 for page in asked if page <= PAGES), "the second reading's"


async def test_a_real_disk_that_fills_up(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the reserve the disk itself says no, wherever the run is then: exit 7, the log silent, and exactly on."""
    monkeypatch.setattr(disk, "RESERVE", 0)
    full_at = 0

    def script(page: int, times: int) -> web.Response:
        if page == full_at and times == 1 and not (small / "filler").exists():
            fill(small)
        return good(page) if page <= PAGES else reply(EMPTY)

    async with portal(script) as (served, url):
        for full_at in (1, 9, PAGES):
            job = replace(job_for(tmp_path, url, run=LAYOUT), output=small / f"mirror-{full_at}")
            served.asked.clear()
            result = await mirror(job)
            assert result.exit is Exit.LOCAL
            assert os.strerror(errno.ENOSPC) in only(result).why
            assert "free some space, then run again" in only(result).hint
            (small / "filler").unlink()
            await continued(job, served)


@pytest.mark.parametrize("name", ["journal", "shard", "index", "checkpoint", "package", "pointer"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_every_file_may_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """A disk or a quota that is full when this file is written: exit 7 names it, and a run with room goes on."""
    named = {
        "journal": "part-00001.pages",
        "shard": "part-00001.jsonl",
        "index": "pages.idx",
        "checkpoint": "checkpoint.json",
        "package": "datapackage.json",
        "pointer": "current.json",
    }[name]
    real = Folder.opened
    seen = 0

    def opened(folder: Folder, file: str, flags: int, doing: str) -> Any:  # noqa: ANN401 - a context manager
        nonlocal seen
        if file.removeprefix(".tmp-") == named and flags & (os.O_WRONLY | os.O_RDWR):
            seen += 1
            if name not in {"index", "checkpoint"} or seen > 2:  # let it begin
                raise LocalError(f"cannot write {folder.path / file}: {os.strerror(number)}", hint="free some space")
        return real(folder, file, flags, doing)

    async with portal(listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        monkeypatch.setattr(Folder, "opened", opened)
        result = await mirror(job)
        assert result.exit is Exit.LOCAL, name
        assert named in only(result).why
        assert os.strerror(number) in only(result).why
        assert only(result).hint == "free some space"
        assert not (tmp_path / "mirror" / "d" / "current").exists()
        monkeypatch.undo()
        await continued(job, served)


@pytest.mark.parametrize("name", ["events.jsonl", "result.json", "report.html"])
async def test_a_log_or_report_never_stops_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The disk of the runs' folder is full: the mirror is complete, and nothing half written is left of a result."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name.removeprefix(".tmp-") == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    if name == "events.jsonl":
        monkeypatch.setattr("harvester.events.encoded", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    else:
        monkeypatch.setattr(os, "write", write)
    async with portal(listed(PAGES)) as (_, url):
        result = await mirror(job_for(tmp_path, url, run=LAYOUT))
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, PAGES + 1))
    assert (Path(result.path) / "events.jsonl").exists()
    if name != "events.jsonl":
        assert not (Path(result.path) / name).exists()
        assert [fact["reason"] for fact in facts(result, "no report")] == [
            f"cannot write {Path(result.path)}/.tmp-{name}: No space left on device"
        ]


async def test_an_output_folder_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes it while a run writes into it gets an end in words, and the next run begins anew."""
    monkeypatch.setattr(harvest, "TICK", 0.05)

    async def script(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.02)
        if page == 9:
            shutil.rmtree(tmp_path / "mirror", ignore_errors=True)
        return good(page) if page <= PAGES else reply(EMPTY)

    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        result = await mirror(job)
        assert result.exit is Exit.LOCAL
        assert os.strerror(errno.ENOENT) in only(result).why
        served.script = listed(PAGES)
        await continued(job, served)


# -- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (33_554_432, "33.6 MB"),
        (5e9, "5.0 GB"),
        (7.25e15, "7,250.0 TB"),
    ],
)
def test_sizes_in_words(size: float, words: str) -> None:
    """As people write them."""
    assert disk.in_words(size) == words


def test_free_is_what_this_user_may_write(tmp_path: Path) -> None:
    """As the system has it; a folder that is gone is told."""
    assert 0 < disk.free(tmp_path) <= shutil.disk_usage(tmp_path).total
    with pytest.raises(LocalError, match="cannot look at"):
        disk.free(tmp_path / "gone")

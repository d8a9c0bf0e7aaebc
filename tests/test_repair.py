"""Whole runs that mend a mirror: only what is damaged is read again, and what that shows decides what is published."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from msgspec.structs import replace
from scripted_portal import (
    EMPTY,
    Portal,
    Script,
    as_served,
    certificate,
    good,
    job_for,
    lines,
    listed,
    portal,
    reply,
    rows_of,
)

from harvester import health, repair
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.lifecycle import held_snapshot, identity, open_snapshot
from harvester.platforms import wuhan
from harvester.recount import snapshot_fault
from harvester.report import DatasetResult, Result
from harvester.shard import commit_marker
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

REPAIR: Final = Options(repair=True)
PAGES: Final = 13  # four shards of four pages, the last of one
LAYOUT: Final = "rows_per_shard = 80\nconcurrency = 4"


def flip(path: Path, offset: int) -> None:
    """Flip a bit."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def current(tmp_path: Path) -> Path:
    """Return the published snapshot."""
    folder = DatasetFolder(tmp_path / "mirror" / "d")
    return folder.path / (folder.current() or "")


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every shard and of the index of a snapshot."""
    files = [*sorted(path.glob("part-*")), path / "pages.idx"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def manifest(path: Path) -> dict[str, Any]:
    """Return a snapshot's data package without what a repair adds: the number of calls, and a note."""
    found: dict[str, Any] = json.loads((path / "datapackage.json").read_bytes())
    for part in (found["harvester"]["notes"], found["harvester"]["certificate"]):
        del part["calls"]
    found["harvester"]["notes"].pop("repair", None)
    return found


def only(result: Result) -> DatasetResult:
    """Return what became of the one dataset."""
    (entry,) = result.datasets
    return entry


@asynccontextmanager
async def mirrored(
    tmp_path: Path, script: Script | None = None, run: str = LAYOUT, datasets: str = ""
) -> AsyncIterator[tuple[Portal, Job, Path]]:
    """Mirror a script; yield the portal, which has counted nothing yet, the job and the published snapshot."""
    async with portal(script or listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=run, datasets=datasets)
        result = await mirror(job)
        assert result.exit is Exit.OK, only(result).why
        served.asked.clear()
        yield served, job, current(tmp_path)


# -- the data is what it was --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hurt", "asked"),
    [
        (lambda path: flip(path / "part-00001.jsonl", 3), [5]),
        (lambda path: (path / "part-00003.jsonl").unlink(), [13]),
        (lambda path: (path / "part-00000.jsonl").unlink(), [1, 2, 3, 4]),
        (lambda path: (path / "part-00002.jsonl").write_bytes(b""), [9, 10, 11, 12]),
        (lambda path: flip(path / "pages.idx", 24 * 6), [6]),
        (lambda path: flip(path / "pages.idx", 24 * 6 + 19), []),  # a row count, which can be counted again
        (lambda path: flip(path / "pages.idx", 3), []),
        (lambda path: (path / "pages.idx").unlink(), list(range(1, 14))),
        (lambda path: (path / "part-00004.jsonl").write_bytes(b"1\n"), []),
        (lambda path: (path / "part-00000.jsonl.gz").write_bytes(b"1\n"), []),
        (lambda path: (path / "part-mine").write_bytes(b"1\n"), []),
    ],
    ids=("page", "last", "first", "cut", "digest", "rows", "head", "index", "beyond", "other kind", "stranger"),
)
async def test_only_what_is_damaged_is_read_again(
    tmp_path: Path, hurt: Callable[[Path], object], asked: list[int]
) -> None:
    """The bytes and the certificate are then those that were published; the damaged snapshot stays as it was left."""
    async with mirrored(tmp_path) as (served, job, path):
        before, said = digests(path), manifest(path)
        hurt(path)
        left = {file.name: file.read_bytes() for file in path.iterdir()}
        assert set(verify_snapshot(path).symbols) & set("X?+")
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK, only(result).why
        assert dict(served.asked) == dict.fromkeys(asked, 1)
        mended = current(tmp_path)
        assert mended != path
        assert (digests(mended), manifest(mended)) == (before, said)
        assert verify_snapshot(mended).symbols == "...."
        assert snapshot_fault(mended) == ""
        assert {file.name: file.read_bytes() for file in path.iterdir()} == left
        entry = only(result)
        assert (entry.verdict, entry.published, entry.calls) == ("proven", True, len(asked))
        assert "the certificate stands" in entry.why
        assert f"{len(asked)} page" in entry.why
        assert lines(result, "d") == as_served(range(1, PAGES + 1))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_compressed_shards(tmp_path: Path, compression: str) -> None:
    """Their lines count, not their bytes."""
    run = f'{LAYOUT}\ncompression = "{compression}"'
    async with mirrored(tmp_path, run=run) as (served, job, path):
        (shard,) = path.glob("part-00001.*")
        shard.write_bytes(shard.read_bytes()[:-9])
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert "the certificate stands" in only(result).why
        assert set(served.asked) <= {5, 6, 7, 8}
        assert verify_snapshot(current(tmp_path)).symbols == "...."


async def test_nothing_damaged_nothing_sent(tmp_path: Path) -> None:
    """Neither where all is sound, nor where nothing was begun."""
    async with mirrored(tmp_path) as (served, job, path):
        before = digests(path)
        result = await mirror(job, REPAIR)
        entry = only(result)
        assert (result.exit, entry.why, entry.snapshot) == (
            Exit.OK,
            "no damage found; nothing was sent",
            str(path),
        )
        assert (entry.verdict, entry.rows, entry.published) == ("proven", 260, True)
        shutil.rmtree(tmp_path / "mirror" / "d")
        nothing = only(await mirror(job, REPAIR))
        assert (nothing.exit, nothing.why) == (Exit.OK, "there is nothing to repair yet; nothing was sent")
        assert not served.asked
        assert before


async def test_sound_shards_are_shared(tmp_path: Path) -> None:
    """A large mirror is not copied for one page: what is sound is the same file in both snapshots."""
    async with mirrored(tmp_path) as (_, job, path):
        flip(path / "part-00001.jsonl", 3)
        await mirror(job, REPAIR)
        mended = current(tmp_path)
        assert [(path / name).samefile(mended / name) for name in sorted(digests(mended))] == [
            False,
            True,
            False,
            True,
            True,
        ]


async def test_the_age_is_that_of_the_data(tmp_path: Path) -> None:
    """A mended mirror is no newer than its rows; a name that is taken is not used again."""
    async with mirrored(tmp_path) as (_, job, path):
        old = path.rename(path.with_name("20250101T000000Z"))
        DatasetFolder(old.parent).publish(old.name, {"verdict": "proven", "rows": 260})
        for number in (1, 2):
            flip(current(tmp_path) / "part-00001.jsonl", 3)
            assert (await mirror(job, REPAIR)).exit is Exit.OK
            assert current(tmp_path).name == f"20250101T00000{number}Z"


async def test_pages_without_rows(tmp_path: Path) -> None:
    """A hole that is missing now is asked for again, twice as at first; the verdict stays what it was."""
    async with portal(with_hole) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        assert (await mirror(job)).exit is Exit.NOT_PROVEN
        (path,) = (tmp_path / "mirror" / "d").glob("2*Z")
        (path / "part-00001.jsonl").unlink()
        served.asked.clear()
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.NOT_PROVEN
        assert "page 6 stayed empty" in only(result).why
        assert certificate(result).evidence.holes == (6,)
        assert set(served.asked) >= {5, 6, 7, 8}
        assert verify_snapshot(path).symbols == "...."


async def test_a_published_mirror_with_a_hole_is_mended(tmp_path: Path) -> None:
    """Published by somebody who looked at it: the hole is read again, and is one still."""
    async with portal(with_hole) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        path = Path(only(await mirror(job)).snapshot)
        accepted(path)
        (path / "part-00001.jsonl").unlink()
        served.asked.clear()
        result = await mirror(job, REPAIR)
        assert dict(served.asked) == {5: 1, 6: 2, 7: 1, 8: 1}
        assert "the certificate stands" in only(result).why
        assert "page 6 stayed empty" in only(result).why
        assert result.exit is Exit.NOT_PROVEN
        assert current(tmp_path) == path


def with_hole(page: int, _: int) -> web.Response:
    """Answer as a list does whose page 6 is empty."""
    return good(page) if page <= PAGES and page != 6 else reply(EMPTY)


def accepted(path: Path) -> None:
    """Publish a snapshot that was held back."""
    with Snapshot.open(path) as snapshot:
        DatasetFolder(path.parent).publish(path.name, {"verdict": "not proven", "rows": 0})
        snapshot.close_open()


# -- the data has moved -------------------------------------------------------------------------------------------


def moved(changed: set[int], last: int = PAGES) -> Script:
    """Return the script of a list in which some pages have other rows than before."""
    return lambda page, _: reply(EMPTY) if page > last else reply_with(page, "new") if page in changed else good(page)


def reply_with(page: int, what: str) -> web.Response:
    """Return a page with other rows."""
    rows = [{"ID": f"{page}-{row}-{what}"} for row in range(20)]
    return reply({"errcode": 0, "data": {"pageNo": page, "pageSize": 20, "data": rows}})


async def test_moved_data_is_judged_anew(tmp_path: Path) -> None:
    """Two pages have changed, one of them where nothing was damaged: the second reading mends that one too."""
    async with mirrored(tmp_path) as (served, job, path):
        flip(path / "part-00001.jsonl", 3)
        served.script = moved({5, 11})
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        entry, evidence = only(result), certificate(result).evidence
        assert entry.published
        assert "1 page read again and 1 of them changed: the data has moved since, so all was judged anew" in entry.why
        assert (evidence.read_again.mended, evidence.read_again.pages, evidence.read_again.changed) == (2, 13, 0)
        got = lines(result, "d")
        assert got[80] == b'{"ID":"5-0-new"}'
        assert got[200] == b'{"ID":"11-0-new"}'
        assert len(got) == 260
        assert snapshot_fault(current(tmp_path)) == ""


async def test_moved_data_without_a_second_reading_is_not_published(tmp_path: Path) -> None:
    """Old and new pages side by side prove nothing: it is held back, and readers keep what they had."""
    async with mirrored(tmp_path, datasets="recheck = 0") as (served, job, path):
        flip(path / "part-00001.jsonl", 3)
        served.script = moved({5})
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.NOT_PROVEN
        assert "1 of 1 page had changed when they were read again" in only(result).why
        assert not only(result).published
        assert current(tmp_path) == path
        assert certificate(result).evidence.read_again.changed == 1


async def test_data_that_goes_on_moving_is_held_back(tmp_path: Path) -> None:
    """Also with a second reading."""
    async with mirrored(tmp_path) as (served, job, path):
        flip(path / "part-00001.jsonl", 3)
        served.script = lambda page, times: reply(EMPTY) if page > PAGES else reply_with(page, f"{times}")
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.NOT_PROVEN
        assert current(tmp_path) == path


@pytest.mark.parametrize("last", [4, 12])
async def test_a_list_that_has_become_shorter(tmp_path: Path, last: int) -> None:
    """Pages of the end are not there any more: nothing is published, and what to do is said."""
    async with mirrored(tmp_path) as (served, job, path):
        (path / "part-00003.jsonl").unlink()
        served.script = listed(last)
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.NOT_PROVEN
        assert "page 13 has no rows any more: the list has become shorter since" in only(result).why
        assert "--fresh" in only(result).hint
        assert current(tmp_path) == path
        assert (await mirror(job)).exit is Exit.OK, "nothing is due"


async def test_a_list_that_has_become_longer(tmp_path: Path) -> None:
    """What was added since does not concern the pages that are mended."""
    async with mirrored(tmp_path) as (served, job, path):
        (path / "part-00003.jsonl").unlink()
        served.script = listed(20)
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert dict(served.asked) == {13: 1}
        assert len(lines(result, "d")) == 260


async def test_a_total_that_has_moved(tmp_path: Path) -> None:
    """The platform counts more rows now, but the pages are what they were: the evidence is that of then."""
    total = 260

    def script(page: int, _: int) -> web.Response:
        rows = rows_of(page) if page <= PAGES else []
        return reply({"errcode": 0, "data": {"pageNo": page, "pageSize": 20, "total": total, "data": rows}})

    async with mirrored(tmp_path, script) as (_, job, path):
        said = manifest(path)
        assert said["harvester"]["certificate"]["evidence"]["total"]["last"] == 260
        flip(path / "part-00001.jsonl", 3)
        total = 261
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert manifest(current(tmp_path)) == said
        assert snapshot_fault(current(tmp_path)) == ""


# -- stops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [REPAIR, Options()], ids=["repair", "plain"])
async def test_a_repair_goes_on(tmp_path: Path, options: Options) -> None:
    """A page that is not to be had leaves the repair open; readers have the old one; later only that page is read."""
    async with mirrored(tmp_path, run=f"{LAYOUT}\nattempts = 2") as (served, job, path):
        before, said = digests(path), manifest(path)
        (path / "part-00001.jsonl").unlink()
        served.script = lambda page, times: (
            reply({"errcode": "100106", "errmsg": "exec sql false"}) if page == 7 else listed(PAGES)(page, times)
        )
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OPEN_PAGES
        assert only(result).why.startswith("damaged: part-00001.jsonl; not repaired yet; open after")
        assert current(tmp_path) == path
        served.asked.clear()
        served.script = listed(PAGES)
        result = await mirror(job, options)
        assert result.exit is Exit.OK
        assert dict(served.asked) == {7: 1}
        assert (digests(current(tmp_path)), manifest(current(tmp_path))) == (before, said)
        assert len(DatasetFolder(path.parent).snapshots()) == 2


async def test_a_repair_that_meets_moved_data_after_a_stop(tmp_path: Path) -> None:
    """What the first run fetched had changed already; the second one knows, though its own page is what it was."""
    async with mirrored(tmp_path, run=f"{LAYOUT}\nattempts = 2") as (served, job, path):
        (path / "part-00001.jsonl").unlink()
        served.script = lambda page, times: (
            reply({"errcode": "100106", "errmsg": "exec sql false"}) if page == 7 else moved({5})(page, times)
        )
        assert (await mirror(job, REPAIR)).exit is Exit.OPEN_PAGES
        served.script = moved({5})
        result = await mirror(job)
        assert result.exit is Exit.OK
        assert "the data has moved since" in only(result).why
        assert certificate(result).evidence.read_again.pages == 13
        assert lines(result, "d")[80] == b'{"ID":"5-0-new"}'


async def test_a_repair_copy_that_is_damaged_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worth nothing: the published snapshot is still there to begin from."""
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.2)
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    async with mirrored(tmp_path, run=f"{LAYOUT}\nattempts = 2") as (served, job, path):
        before = digests(path)
        (path / "part-00001.jsonl").unlink()
        served.script = lambda _, __: reply({"errcode": "100106", "errmsg": "exec sql false"})
        assert (await mirror(job, REPAIR)).exit is Exit.OPEN_PAGES
        copy = DatasetFolder(path.parent).snapshots()[-1]
        (path.parent / copy / "checkpoint.json").write_bytes(b"{")
        served.script = listed(PAGES)
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert current(tmp_path).name > copy
        assert digests(current(tmp_path)) == before


async def test_a_repaired_mirror_is_repaired_again(tmp_path: Path) -> None:
    """However often."""
    async with mirrored(tmp_path) as (served, job, path):
        before, said = digests(path), manifest(path)
        for number in range(3):
            flip(current(tmp_path) / f"part-0000{number}.jsonl", 3)
            served.asked.clear()
            assert (await mirror(job, REPAIR)).exit is Exit.OK
            assert dict(served.asked) == {4 * number + 1: 1}
            assert (digests(current(tmp_path)), manifest(current(tmp_path))) == (before, said)


# -- open snapshots, and what cannot be mended --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "offset"), [("part-00000.jsonl", 40), ("part-00002.pages", 40), ("pages.idx", 3)])
async def test_an_open_snapshot_is_mended_and_continued(tmp_path: Path, name: str, offset: int) -> None:
    """What is sound of it is kept; a plain run refuses it and says how to repair."""
    stuck = True

    def script(page: int, _: int) -> web.Response:
        if page == 11 and stuck:
            return reply({"errcode": "100106"})
        return good(page) if page <= PAGES else reply(EMPTY)

    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, run=f"{LAYOUT}\nattempts = 2")
        first = await mirror(job)
        assert first.exit is Exit.OPEN_PAGES
        path = Path(only(first).snapshot)
        flip(path / name, offset)
        if name.endswith(".pages"):
            (path / name).write_bytes((path / name).read_bytes() + commit_marker((path / name).stat().st_size))
        stuck = False
        refused = only(await mirror(job))
        assert refused.exit is Exit.LOCAL
        assert "`harvester run JOB --dataset d --repair`" in refused.hint
        served.asked.clear()
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert only(result).snapshot == str(path)
        assert lines(result, "d") == as_served(range(1, PAGES + 1))
        assert certificate(result).verdict == "proven"
        assert snapshot_fault(path) == ""


async def test_a_held_snapshot_that_is_mended_is_open_again(tmp_path: Path) -> None:
    """From the moment that something is missing in it: also if the process is killed then."""
    async with portal(with_hole) as (_, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        path = Path(only(await mirror(job)).snapshot)
        folder = DatasetFolder(path.parent)
        assert held_snapshot(folder) is not None
        (path / "part-00001.jsonl").unlink()
        with folder.lock():
            snapshot = repair.begin(folder, identity(job.datasets[0], wuhan))
            assert isinstance(snapshot, Snapshot)
            snapshot.close()
        assert held_snapshot(folder) is None
        assert open_snapshot(folder) == path.name
        assert (await mirror(job)).exit is Exit.NOT_PROVEN
        assert verify_snapshot(path).symbols == "...."


async def test_an_open_snapshot_without_damage_is_left_alone(tmp_path: Path) -> None:
    """Repairing is not continuing."""
    async with portal(listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        assert (await mirror(job, Options(max_pages=6))).exit is Exit.BUDGET
        served.asked.clear()
        entry = only(await mirror(job, REPAIR))
        assert (entry.exit, entry.why) == (Exit.OK, "no damage found; nothing was sent")
        assert not entry.published
        assert not served.asked
        assert (await mirror(job)).exit is Exit.OK


async def test_a_stranger_in_an_open_snapshot_is_not_deleted(tmp_path: Path) -> None:
    """Whose file it is nobody knows: it is named, and nothing is sent. One named like a shard goes."""
    async with portal(listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        path = Path(only(await mirror(job, Options(max_pages=6))).snapshot)
        (path / "part-mine").write_bytes(b"mine")
        served.asked.clear()
        entry = only(await mirror(job, REPAIR))
        assert (entry.exit, entry.why) == (Exit.LOCAL, f"{path / 'part-mine'} is no file of harvester's")
        assert not served.asked
        (path / "part-mine").rename(path / "part-00007.jsonl.gz")
        assert (await mirror(job, REPAIR)).exit is Exit.OK
        assert not (path / "part-00007.jsonl.gz").exists()


@pytest.mark.parametrize("name", ["checkpoint.json", "datapackage.json"])
@pytest.mark.parametrize("options", [REPAIR, Options()], ids=["repair", "plain"])
async def test_what_says_to_whom_the_pages_belong_cannot_be_mended(tmp_path: Path, name: str, options: Options) -> None:
    """Nothing is started over silently: exit 7 names the file and `--fresh`, and leaves everything as it is."""
    async with portal(listed(PAGES)) as (served, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        first = await mirror(job, Options(max_pages=6) if name == "checkpoint.json" else Options())
        path = Path(only(first).snapshot)
        flip(path / name, 3)
        served.asked.clear()
        left = {file.name: file.read_bytes() for file in path.iterdir()}
        entry = only(await mirror(job, options))
        if name == "datapackage.json" and not options.repair:
            assert entry.exit is Exit.OK, "nothing is due, and it was not looked at"
        else:
            assert entry.exit is Exit.LOCAL
            assert name in entry.why
            assert "`harvester run JOB --dataset d --fresh`" in entry.hint
        assert not served.asked
        assert {file.name: file.read_bytes() for file in path.iterdir()} == left
        assert DatasetFolder(path.parent).snapshots() == [path.name]
        assert (await mirror(job, Options(fresh=True))).exit is Exit.OK


async def test_a_false_certificate_is_judged_anew(tmp_path: Path) -> None:
    """It does not say what its evidence gives: no page is missing, and all are read a second time."""
    async with mirrored(tmp_path) as (served, job, path):
        package = path / "datapackage.json"
        package.write_bytes(package.read_bytes().replace(b'"rows": 260,\n', b'"rows": 261,\n'))
        assert snapshot_fault(path)
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK, only(result).why
        assert set(served.asked) == set(range(1, PAGES + 2))
        assert only(result).why == "damaged: datapackage.json; repaired"
        assert snapshot_fault(current(tmp_path)) == ""


@pytest.mark.parametrize("data", [b"", b"{", b'{"snapshot":"20000101T000000Z"}'])
async def test_a_damaged_pointer_is_mended(tmp_path: Path, data: bytes) -> None:
    """What was published is known without it; nothing is sent."""
    async with mirrored(tmp_path) as (served, job, path):
        before = (path.parent / "current.json").read_bytes()
        (path.parent / "current.json").write_bytes(data)
        refused = only(await mirror(job))
        assert refused.exit is Exit.LOCAL
        assert "--repair" in refused.hint
        entry = only(await mirror(job, REPAIR))
        assert entry.exit is Exit.OK
        assert entry.why == f"current.json was damaged; it names {path.name} again; nothing was sent"
        assert (path.parent / "current.json").read_bytes() == before
        assert not served.asked


async def test_a_pointer_to_nothing_stays_damaged(tmp_path: Path) -> None:
    """Without a finished snapshot there is nothing to point at."""
    async with portal(listed(PAGES)) as (_, url):
        job = job_for(tmp_path, url, run=LAYOUT)
        await mirror(job, Options(max_pages=6))
        (tmp_path / "mirror" / "d" / "current.json").write_bytes(b"{")
        entry = only(await mirror(job, REPAIR))
        assert entry.exit is Exit.LOCAL
        assert "current.json" in entry.why


async def test_another_dataset_is_not_mixed_in(tmp_path: Path) -> None:
    """Pages of other settings never mend a mirror."""
    async with mirrored(tmp_path) as (served, job, path):
        flip(path / "part-00001.jsonl", 3)
        other = replace(job, datasets=tuple(replace(dataset, params={"a": "b"}) for dataset in job.datasets))
        entry = only(await mirror(other, REPAIR))
        assert entry.exit is Exit.USAGE
        assert "the parameters" in entry.why
        assert not served.asked
        assert DatasetFolder(path.parent).snapshots() == [path.name]


async def test_the_published_one_comes_first(tmp_path: Path) -> None:
    """Beside an open snapshot the published one is mended; the open one goes on afterwards."""
    async with mirrored(tmp_path) as (served, job, path):
        await asyncio.sleep(1.1)  # names of snapshots are seconds, and the mended one takes the next
        assert (await mirror(job, Options(fresh=True, max_pages=6))).exit is Exit.BUDGET
        (later,) = set(DatasetFolder(path.parent).snapshots()) - {path.name}
        flip(path / "part-00001.jsonl", 3)
        served.asked.clear()
        assert (await mirror(job, REPAIR)).exit is Exit.OK
        assert dict(served.asked) == {5: 1}
        assert path.name < current(tmp_path).name
        assert (await mirror(job)).exit is Exit.OK
        assert current(tmp_path).name == later or current(tmp_path).name > later


async def test_a_budget_holds_for_a_repair(tmp_path: Path) -> None:
    """It goes on when there are calls again."""
    async with mirrored(tmp_path) as (served, job, path):
        (path / "part-00001.jsonl").unlink()
        assert (await mirror(job, replace(REPAIR, max_calls=2))).exit is Exit.BUDGET
        assert (await mirror(job, replace(REPAIR, max_calls=2))).exit is Exit.OK
        assert dict(served.asked) == dict.fromkeys((5, 6, 7, 8), 1)
        assert current(tmp_path) != path


async def test_an_unpaged_dataset_is_mended(tmp_path: Path) -> None:
    """Its one answer is read again."""
    async with mirrored(tmp_path, lambda _, __: good(1, 13), datasets='paging = "none"') as (served, job, path):
        before = digests(path)
        flip(path / "part-00000.jsonl", 3)
        result = await mirror(job, REPAIR)
        assert result.exit is Exit.OK
        assert served.asked.total() == 1
        assert digests(current(tmp_path)) == before

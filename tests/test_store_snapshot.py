"""A snapshot through its whole life: every stop, every loss of power, every damage, and repair."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_store_filling import (
    CREATED,
    IDENTITY,
    NAME,
    NEXT,
    begun,
    content,
    continued,
    finished,
    flip,
    linux,
    missing,
    page,
    pages,
)

from harvester.errors import DamagedError, LocalError, UsageError
from harvester.model import Page, page_digest
from harvester.shard import Compression, Layout, PageRecord, index_record, resources
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

IN_MEMORY = next((folder for folder in (Path("/dev/shm"),) if os.access(folder, os.W_OK)), None)  # noqa: S108 - made safely


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """Return a folder where a thousand little files cost no disk: what is durable is for ``Disk`` to say."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda _: None, raising=False)
        yield Path(folder)


def test_empty_dataset_finishes(tmp_path: Path) -> None:
    """No page at all is a dataset too, with or without a layout."""
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        snapshot.set_end({"last": 0})
        snapshot.finish({"resources": []})
        snapshot.close_open()
    assert verify_snapshot(tmp_path / NAME).symbols == ""


def test_finish_hashes_once_more(tmp_path: Path) -> None:
    """A shard that changed on disk after it was sealed is not published."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2))
        snapshot.set_end({"last": 2})
        with pytest.raises(ValueError, match="not sealed"):
            snapshot.finish({})
        snapshot.seal(0)
        flip(snapshot.path / "part-00000.jsonl", 3)
        with pytest.raises(DamagedError, match="SHA-256 differs"):
            snapshot.finish({})
        assert not (snapshot.path / "datapackage.json").exists()


def test_finish_cuts_the_index(tmp_path: Path) -> None:
    """Records of pages that once lay beyond the end do not stay."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        snapshot.set_end({"last": 2})
        snapshot.seal(0)
        snapshot._index.put(3, index_record(PageRecord(3, 2, 0, 9, bytes(range(16)))))  # stopped before it was cut
        assert snapshot.layout
        snapshot.finish({"resources": resources(snapshot.layout, snapshot.sealed.values())})
        snapshot.close_open()
        assert sorted(content(snapshot.path)) == ["datapackage.json", "pages.idx", "part-00000.jsonl"]
        assert (snapshot.path / "pages.idx").stat().st_size == 24 * 3
    assert verify_snapshot(snapshot.path).symbols == "."


def test_copied_mirror_is_continued(tmp_path: Path) -> None:
    """Another time of modification with the same bytes is no damage; it is hashed once and noted."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        os.utime(snapshot.path / "part-00000.jsonl", ns=(5, 5))
    with continued(snapshot) as again:
        assert again.sealed[0].mtime_ns == 5
    with Snapshot.open(snapshot.path) as third:
        assert third.sealed[0].mtime_ns == 5


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (lambda shard: shard.unlink(), "is missing"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-1]), "bytes instead of"),
        (lambda shard: flip(shard, 0), "SHA-256 differs"),
    ],
)
def test_changed_shard_is_named_and_repaired(tmp_path: Path, hurt: Callable[[Path], None], words: str) -> None:
    """Resuming says which file, what and how to repair; repairing asks again only for pages that are not sound."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4, 5))
        before = snapshot.seal(0)
    shard = snapshot.path / "part-00000.jsonl"
    hurt(shard)
    with Snapshot.open(snapshot.path) as again:
        with pytest.raises(DamagedError) as caught:
            again.recover()
        assert f"part-00000.jsonl {caught.value.causes[0].split(' ', 1)[1]}" in str(caught.value)
        assert words in str(caught.value)
        assert "--repair" in caught.value.hint
        again.recover(repair=True)
        lost = missing(again, 0)
        assert lost == {"is missing": [1, 2, 3, 4], "bytes instead of": [4], "SHA-256 differs": [1]}[words]
        again.append(pages(*lost))
        assert again.seal(0).sha256 == before.sha256
        assert missing(again, 1) == [6, 7, 8]


def test_repair_of_a_broken_compressed_shard(tmp_path: Path) -> None:
    """What decompresses before the defect and has its digest is kept."""
    with begun(tmp_path, "gzip") as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        before = snapshot.seal(0)
    flip(snapshot.path / "part-00000.jsonl.gz", before.file_bytes // 2)
    with continued(snapshot, repair=True) as again:
        lost = missing(again, 0)
        assert lost
        again.append(pages(*lost))
        assert again.seal(0).content_sha256 == before.content_sha256


def test_damaged_journal_is_named_and_repaired(tmp_path: Path) -> None:
    """Damage before a marker stops the run with its place; repairing keeps what stands before it."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1))
        snapshot.append(pages(2))
        snapshot.append(pages(3))
    journal = snapshot.path / "part-00000.pages"
    place = journal.read_bytes().index(page(2).lines)
    flip(journal, place + 5)
    with Snapshot.open(snapshot.path) as again:
        with pytest.raises(DamagedError, match=rf"damaged at offset {place}\n  page 2 is not what was written"):
            again.recover()
        assert journal.exists()
        assert [kept.page for kept in again.recover(repair=True)] == [1]
        again.append(pages(2, 3, 4))
        assert again.seal(0).rows == 8


def test_journal_without_layout_is_damage(tmp_path: Path) -> None:
    """The layout was durable before the first journal; without it somebody changed the checkpoint."""
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        (snapshot.path / "part-00000.pages").write_bytes(b"")
        with pytest.raises(DamagedError, match="layout"):
            snapshot.recover()


@pytest.mark.parametrize("place", range(0, 200, 3))
def test_flipped_checkpoint_is_refused(tmp_path: Path, place: int) -> None:
    """No changed checkpoint is ever started from."""
    begun(tmp_path).close()
    path = tmp_path / "investors" / NAME
    flip(path / "checkpoint.json", place)
    with pytest.raises(DamagedError, match="damaged"):
        Snapshot.open(path)


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    """Mistakes of the caller are errors at once and change nothing."""
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        with pytest.raises(ValueError, match="not frozen"):
            snapshot.append(pages(1))
        with pytest.raises(ValueError, match="end is not known"):
            snapshot.finish({})
        snapshot.freeze(Layout(8, 2))
        with pytest.raises(ValueError, match="frozen already"):
            snapshot.freeze(Layout(8, 2))
        with pytest.raises(ValueError, match="lacks pages"):
            snapshot.seal(0)
        with pytest.raises(ValueError, match="or 0"):
            snapshot.set_end({"last": -1})
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        with pytest.raises(ValueError, match="are sealed"):
            snapshot.append(pages(2))
        with pytest.raises(LocalError, match="there already"):
            Snapshot.create(tmp_path / NAME, IDENTITY, CREATED)
    with pytest.raises(DamagedError, match=r"no checkpoint\.json"):
        Snapshot.open(tmp_path)


def test_missing_library_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that asks for zstd without the extra learns so when the layout is frozen."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        with pytest.raises(UsageError, match=r"'\.\[zstd\]'"):
            snapshot.freeze(Layout(8, 2, "zstd"))
        assert snapshot.layout is None


def test_missing_library_is_said_before_a_snapshot_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine the extra may be missing; nothing is fetched that could not be sealed."""
    begun(tmp_path, "zstd").close()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with (
        Snapshot.open(tmp_path / "investors" / NAME) as snapshot,
        pytest.raises(UsageError, match=r"'\.\[zstd\]'"),
    ):
        snapshot.recover()


def test_quarantine(tmp_path: Path) -> None:
    """An unreadable answer is kept with the reason, the latest of a page."""
    with begun(tmp_path) as snapshot:
        snapshot.quarantine(16, b"<html>", "first")
        path = snapshot.quarantine(16, b"\xff", "not UTF-8")
        assert path == snapshot.path / "quarantine" / "page-00000016.body"
        assert content(path.parent) == {"page-00000016.body": b"\xff", "page-00000016.why": b"not UTF-8\n"}


@linux
def test_recovery_syncs_what_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that a killed run wrote but did not sync are durable before a marker vouches for them."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1))
    journal = snapshot.path / "part-00000.pages"
    disk = Disk(monkeypatch, 0)
    with continued(snapshot):
        assert disk.files[journal.stat().st_ino] == journal.read_bytes()
    disk.close()


class Promised:
    """What a run was told: pages with the version that is durable, and publications."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {}
        self.published: list[str] = []

    def cut(self, last: int) -> None:
        """Forget the pages beyond an end."""
        self.kept = {number: version for number, version in self.kept.items() if number <= last}


def test_recovery_deletes_only_what_is_durably_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may have renamed the checkpoint in memory only: the folder is synced before a journal goes."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        journal = (snapshot.path / "part-00000.pages").read_bytes()
        snapshot.seal(0)
    (snapshot.path / "part-00000.pages").write_bytes(journal)
    done: list[str] = []
    fsync, unlink = os.fsync, os.unlink

    def synced(fd: int) -> None:
        done.append("sync")
        fsync(fd)

    def unlinked(name: str, *, dir_fd: int) -> None:
        done.append(name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "unlink", unlinked)
    with continued(snapshot):
        assert done[:3] == ["sync", "sync", "part-00000.pages"]


def night(root: Path, promised: Promised) -> None:
    """One run over a dataset of eleven pages: whatever was there before, it ends with the snapshot published.

    The end is found early, everything sealed, the end moves on, and two pages turn out to have changed.
    """
    dataset = DatasetFolder(root / "mirror" / "investors")
    with dataset.lock():
        path = dataset.path / NAME
        if not dataset.snapshots():
            Snapshot.create(path, IDENTITY, CREATED).close()
        if dataset.current() == NAME and not (path / "checkpoint.json").exists():
            return
        with Snapshot.open(path) as snapshot:
            snapshot.recover()
            if snapshot.layout is None:
                snapshot.freeze(Layout(8, 2))
            if snapshot.end is None:
                for batch in ([9, 2, 12], [4, 3, 1], [5, 7], [8, 14], [6, 10, 11]):
                    keep(snapshot, batch, promised)
                promised.cut(10)
                snapshot.set_end({"last": 10})
            seal(snapshot)
            if snapshot.last == 10:
                snapshot.set_end({"last": 11})
            keep(snapshot, [11], promised)
            seal(snapshot)
            for again in (pages(2, 6, version=1), pages(3, version=1)):
                changed = [(n, new) for n, new in again if snapshot.digest_of(n) != page_digest(new.lines)]
                snapshot.rewrite(changed)
                promised.kept |= {number: 1 for number, _ in changed}
            publish(dataset, snapshot, promised)


def keep(snapshot: Snapshot, numbers: list[int], promised: Promised) -> None:
    """Append what is missing of a batch and seal what is complete."""
    held = set(snapshot.pages())
    wanted = [number for number in numbers if number not in held]
    snapshot.append(pages(*wanted))
    promised.kept |= dict.fromkeys(wanted, 0)
    assert snapshot.layout
    for shard in {snapshot.layout.shard_of(number) for number in numbers}:
        if snapshot.complete(shard) and shard not in snapshot.sealed:
            snapshot.seal(shard)


def seal(snapshot: Snapshot) -> None:
    """Seal what is complete, up to the end."""
    assert snapshot.layout
    assert snapshot.last is not None
    for shard in snapshot.layout.shards(snapshot.last):
        if snapshot.complete(shard) and shard not in snapshot.sealed:
            snapshot.seal(shard)


def publish(dataset: DatasetFolder, snapshot: Snapshot, promised: Promised) -> None:
    """Seal, finish, publish and close."""
    seal(snapshot)
    assert snapshot.layout
    found = resources(snapshot.layout, snapshot.sealed.values())
    snapshot.finish({"created": CREATED, "resources": found, "harvester": snapshot.package_members()})
    dataset.publish(snapshot.path.name, {"rows": 20})
    promised.published.append(snapshot.path.name)
    snapshot.close_open()


def repair(root: Path, promised: Promised) -> None:
    """One run that mends a published snapshot: whatever was there before, it ends with it published again."""
    dataset = DatasetFolder(root / "mirror" / "investors")
    damaged, path = dataset.path / NAME, dataset.path / NEXT
    with dataset.lock():
        if dataset.current() == NEXT and not (path / "checkpoint.json").exists():
            return
        is_open = path.exists()
        with Snapshot.open(path) if is_open else Snapshot.from_package(damaged, path) as snapshot:
            snapshot.recover(repair=True)
            versions = {2: 1, 3: 1, 6: 1}
            for shard in range(3):
                lost = missing(snapshot, shard)
                snapshot.append([(number, page(number, versions.get(number, 0))) for number in lost])
                promised.kept |= {number: versions.get(number, 0) for number in lost}
            publish(dataset, snapshot, promised)


def hurt_and_mended(path: Path, hurt: Callable[[], object]) -> list[int]:
    """Damage a published snapshot of nine pages and mend it; returns the pages that had to be read again."""
    before = content(path)
    hurt()
    damaged = content(path)
    with Snapshot.from_package(path, path.with_name(NEXT)) as snapshot:
        snapshot.recover(repair=True)
        lost = [number for shard in range(3) for number in missing(snapshot, shard)]
        snapshot.append(pages(*lost))
        for shard in range(3):
            if shard not in snapshot.sealed:
                snapshot.seal(shard)
        finished(snapshot)
    assert content(path.with_name(NEXT)) == before
    assert content(path) == damaged, "it stays as it is"
    return lost


def published(root: Path, compression: Compression = "none") -> Path:
    """Make a finished snapshot of nine pages in three shards, with notes."""
    snapshot = begun(root, compression)
    snapshot.append(pages(*range(1, 10)))
    snapshot.set_end({"last": 9, "how": "empty", "beyond": [10, 11]})
    snapshot.notes = {"calls": 13}
    for shard in range(3):
        snapshot.seal(shard)
    return finished(snapshot)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_published_snapshot_is_opened_again(tmp_path: Path, compression: Compression) -> None:
    """Nothing of what the checkpoint held is lost, and the times of the shards are found again."""
    path = published(tmp_path, compression)
    with Snapshot.from_package(path, path.with_name(NEXT), {"more": 1}) as snapshot:
        assert snapshot.recover() == []
        assert (snapshot.identity, snapshot.created, snapshot.notes) == (IDENTITY, CREATED, {"calls": 13, "more": 1})
        assert (snapshot.layout, snapshot.end) == (
            Layout(8, 2, compression),
            {"last": 9, "how": "empty", "beyond": [10, 11]},
        )
        times = {file.stat().st_mtime_ns for file in path.glob("part-*")}
        assert {entry.mtime_ns for entry in snapshot.sealed.values()} == times
        with pytest.raises(LocalError, match="there already"):
            Snapshot.from_package(path, path.with_name(NEXT))
    with Snapshot.open(path.with_name(NEXT)) as again:
        assert again.sealed == snapshot.sealed
    assert not (path / "checkpoint.json").exists()


def test_sound_shards_are_not_copied(tmp_path: Path) -> None:
    """They are the same files; the index, into which records are written, is not."""
    path = published(tmp_path)
    new = path.with_name(NEXT)
    Snapshot.from_package(path, new).close()
    same = {file.name: file.samefile(new / file.name) for file in path.iterdir() if (new / file.name).exists()}
    assert same == {"pages.idx": False, **dict.fromkeys((f"part-0000{shard}.jsonl" for shard in range(3)), True)}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_shards_are_copied_where_a_file_has_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Not every file system, or one that is full of names, gives a file a second one."""
    path = published(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with Snapshot.from_package(path, path.with_name(NEXT)) as snapshot:
        assert snapshot.recover() == []
    shards = [file.name for file in path.glob("part-*")]
    assert all((path / name).read_bytes() == (path.with_name(NEXT) / name).read_bytes() for name in shards)
    assert not any((path / name).samefile(path.with_name(NEXT) / name) for name in shards)


def test_other_errors_of_a_link_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason to copy; nothing appears."""
    path = published(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LocalError, match=os.strerror(errno.ENOSPC)):
        Snapshot.from_package(path, path.with_name(NEXT))
    assert not path.with_name(NEXT).exists()


@pytest.mark.parametrize(
    ("name", "offset", "lost"),
    [
        ("part-00000.jsonl", 3, [1]),
        ("pages.idx", 24 * 6, [6]),  # a digest
        ("pages.idx", 24 * 6 + 19, []),  # a row count: it can be counted again
        ("pages.idx", 24 * 6 + 23, [6, 8]),  # a length: nobody knows where later pages begin; page 7 is empty
        ("pages.idx", 3, []),  # the head
    ],
)
def test_published_snapshot_is_mended(tmp_path: Path, name: str, offset: int, lost: list[int]) -> None:
    """Only what is not sound is read again, and the files are then those that were published, byte for byte."""
    path = published(tmp_path)

    def hurt() -> None:
        when = (path / name).stat()
        flip(path / name, offset)
        os.utime(path / name, ns=(when.st_atime_ns, when.st_mtime_ns))
        assert "X" in verify_snapshot(path).symbols

    assert hurt_and_mended(path, hurt) == lost


@pytest.mark.parametrize(("name", "lost"), [("part-00001.jsonl.gz", [5, 6, 7, 8]), ("pages.idx", list(range(1, 10)))])
def test_published_snapshot_that_lacks_a_file_is_mended(tmp_path: Path, name: str, lost: list[int]) -> None:
    """Also a compressed one; without the index no page is known from another."""
    path = published(tmp_path, "gzip")
    assert hurt_and_mended(path, (path / name).unlink) == lost


def test_package_that_does_not_say_how_is_not_repaired(tmp_path: Path) -> None:
    """Those of the first version: in words, and nothing is written."""
    path = published(tmp_path)
    found = json.loads((path / "datapackage.json").read_bytes())
    del found["harvester"]
    (path / "datapackage.json").write_text(json.dumps(found))
    before = content(path)
    with pytest.raises(LocalError, match="cannot repair") as caught:
        Snapshot.from_package(path, path.with_name(NEXT))
    assert not path.with_name(NEXT).exists()
    assert not isinstance(caught.value, DamagedError)
    assert "--fresh" in caught.value.hint
    assert content(path) == before
    assert verify_snapshot(path).symbols == "..."


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (lambda index: index.unlink(), "pages.idx is missing"),
        (lambda index: flip(index, 2), "does not begin as it should"),
        (lambda index: index.write_bytes(index.read_bytes()[:-1]), "pages.idx ends before page 4"),
    ],
)
def test_index_that_cannot_be_is_named_before_anything_is_added(
    tmp_path: Path, hurt: Callable[[Path], None], words: str
) -> None:
    """Without it no sealed page could be compared or kept."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
    hurt(snapshot.path / "pages.idx")
    with Snapshot.open(snapshot.path) as again, pytest.raises(DamagedError, match=words):
        again.recover()


class PowerCutError(BaseException):
    """The run ends here; nothing may catch it."""


class Disk:
    """Stands between the store and the system: counts what changes files, stops before one, remembers what is durable.

    Durable is a file's content at its last sync and a folder's names at its last sync, nothing else.
    """

    CHANGES: ClassVar = ("write", "rename", "unlink", "ftruncate", "mkdir", "symlink", "link", "fsync", "fdatasync")

    def __init__(self, patch: pytest.MonkeyPatch, stop: int) -> None:
        self.count = 0
        self.stop = stop
        self.held: list[int] = []  # duplicates of descriptors: a number of a file in use is never given to another
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, tuple[str, int, str]]] = {}  # kind, number and target of each name
        for name in self.CHANGES:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def adopt(self, folder: Path) -> None:
        """Take what lies in a folder for durable."""
        for path in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir() and not inner.is_symlink())):
            fd = os.open(path, os.O_RDONLY)
            self._sync(fd)
            os.close(fd)
            for file in path.iterdir():
                if file.is_file() and not file.is_symlink():
                    fd = os.open(file, os.O_RDONLY)
                    self._sync(fd)
                    os.close(fd)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - stands for many calls of the system
            self.count += 1
            if self.count == self.stop:
                raise PowerCutError
            if name in {"fsync", "fdatasync"}:
                return self._sync(args[0])
            return call(*args, **options)

        return counted

    def _sync(self, fd: int) -> None:
        number = os.fstat(fd).st_ino
        self.held.append(os.dup(fd))
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            with os.scandir(fd) as entries:
                self.folders[number] = {entry.name: self._entry(entry, fd) for entry in entries}
        else:
            self.files[number] = Path(f"/dev/fd/{fd}").read_bytes()

    @staticmethod
    def _entry(entry: os.DirEntry[str], folder: int) -> tuple[str, int, str]:
        if entry.is_symlink():
            return "link", entry.inode(), os.readlink(entry.name, dir_fd=folder)
        return "folder" if entry.is_dir() else "file", entry.inode(), ""

    def image(self, number: int, target: Path) -> None:
        """Write what would be left of the folder with this number after a loss of power."""
        target.mkdir()
        for name, (kind, inner, link) in self.folders.get(number, {}).items():
            if kind == "link":
                (target / name).symlink_to(link)
            elif kind == "folder":
                self.image(inner, target / name)
            else:
                (target / name).write_bytes(self.files.get(inner, b""))

    def close(self) -> None:
        """Let go of what kept numbers from being given away."""
        for fd in self.held:
            os.close(fd)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mirror as one run without a stop leaves it."""
    root = tmp_path_factory.mktemp("undisturbed")
    night(root, Promised())
    return root / "mirror"


def hurt(mirror: Path) -> None:
    """Damage a published snapshot: a page of the first shard, a row count and a digest in the index."""
    path = mirror / "investors" / NAME
    flip(path / "part-00000.jsonl", 3)
    flip(path / "pages.idx", 24 * 5 + 19)
    flip(path / "pages.idx", 24 * 10)


def stopped(
    tmp_path: Path, run: Callable[[Path, Promised], None], before: Path | None, *, power: bool, least: int = 60
) -> Iterator[tuple[Path, Promised]]:
    """Stop a run before each change of a file in turn; yield what is left and what had been promised.

    Args:
        tmp_path: where.
        run: does its work in a folder.
        before: the mirror that it finds there.
        power: leave only what is durable.
        least: how many changes there are at the least.
    """
    stop, over = 1, False
    while not over:
        root = tmp_path / f"stop-{stop}"
        root.mkdir()
        if before is not None:
            shutil.copytree(before, root / "mirror", symlinks=True)
        promised = Promised()
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, stop)
            disk.adopt(root)
            try:
                run(root, promised)
                over = True
            except PowerCutError:
                pass
        if power:
            disk.image(root.stat().st_ino, tmp_path / f"image-{stop}")
            root = tmp_path / f"image-{stop}"
        disk.close()
        yield root, promised
        stop += 1
    assert stop > least


def demand_kept(path: Path, promised: Promised) -> None:
    """Every page that was reported as kept is there, as it was then or newer."""
    with Snapshot.open(path) as snapshot:
        digests = {kept.page: kept.digest for kept in snapshot.recover()}
        sealed = {n for entry in snapshot.sealed.values() for n in range(entry.first, entry.last + 1)}
        digests |= {number: snapshot.digest_of(number) for number in sealed}
        for number, version in promised.kept.items():
            if snapshot.last is None or number <= snapshot.last:
                assert digests[number] in {page_digest(page(number, v).lines) for v in range(version, 2)}
        assert set(verify_snapshot(path).symbols) <= {".", "o"}


@linux
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_stop_anywhere(fast_path: Path, undisturbed: Path, power: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Whatever step it stops before, nothing promised is lost and the next run ends with the very same bytes."""
    wanted = content(undisturbed / "investors" / NAME)
    for root, promised in stopped(fast_path, night, None, power=power):
        dataset = DatasetFolder(root / "mirror" / "investors")
        path = dataset.path / NAME
        assert [dataset.current()] * len(promised.published) == promised.published
        if dataset.current() is not None:
            assert (path / "datapackage.json").read_bytes() == wanted["datapackage.json"]
        if (path / "checkpoint.json").exists():
            demand_kept(path, promised)
        night(root, Promised())
        assert content(path) == wanted
        assert dataset.current() == NAME
        assert (dataset.path / "current" / "datapackage.json").exists()
        shutil.rmtree(root)


@linux
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_stop_anywhere_in_a_repair(fast_path: Path, undisturbed: Path, power: bool) -> None:  # noqa: FBT001 - as above
    """A published snapshot that is mended, however often that is stopped, ends with the bytes it was published with."""
    wanted = content(undisturbed / "investors" / NAME)
    damaged = fast_path / "damaged"
    shutil.copytree(undisturbed, damaged, symlinks=True)
    hurt(damaged)
    assert verify_snapshot(damaged / "investors" / NAME).symbols == "XXX"
    left = content(damaged / "investors" / NAME)
    for root, promised in stopped(fast_path, repair, damaged, power=power):
        dataset = DatasetFolder(root / "mirror" / "investors")
        path = dataset.path / NEXT
        assert promised.published in ([], [dataset.current()])
        if dataset.current() == NEXT:
            assert verify_snapshot(path).symbols == "..."
        if (path / "checkpoint.json").exists() and promised.kept:
            demand_kept(path, promised)
        repair(root, Promised())
        assert content(path) == wanted
        assert dataset.current() == NEXT
        assert content(dataset.path / NAME) == left, "what readers saw until then"
        shutil.rmtree(root)


@linux
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_what_is_taken_over_appears_at_once(fast_path: Path, undisturbed: Path, power: bool) -> None:  # noqa: FBT001 - as above
    """Whenever it stops: either nothing is to be seen of the new snapshot, or all of it is there."""

    def take_over(root: Path, _: Promised) -> None:
        folder = DatasetFolder(root / "mirror" / "investors")
        with folder.lock():
            Snapshot.from_package(folder.path / NAME, folder.path / NEXT).close()

    for root, promised in stopped(fast_path, take_over, undisturbed, power=power, least=12):
        folder = DatasetFolder(root / "mirror" / "investors")
        if (folder.path / NEXT).exists():
            with Snapshot.open(folder.path / NEXT) as snapshot:
                assert snapshot.recover() == []
                assert sorted(snapshot.sealed) == [0, 1, 2]
        else:
            take_over(root, promised)
            assert verify_snapshot(folder.path / NEXT).symbols == "..."
        shutil.rmtree(root)


class Life(RuleBasedStateMachine):
    """A snapshot against a model that is a dictionary from page to version."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.model: dict[int, int] = {}
        self.last: int | None = None
        self.version = 0
        self.generation = 0

    @initialize(compression=st.sampled_from(["none", "gzip"]), per_shard=st.integers(1, 4))
    def begin(self, compression: Compression, per_shard: int) -> None:
        """Any compression, any size of shard."""
        self.snapshot = begun(self.root, compression, per_shard)
        self.per_shard = per_shard

    def drawn(self, numbers: list[int]) -> list[tuple[int, Page]]:
        """Return new versions of those pages whose shard is not sealed."""
        self.version += 1
        free = [n for n in numbers if (n - 1) // self.per_shard not in self.snapshot.sealed]
        return pages(*free, version=self.version)

    def keep(self, batch: list[tuple[int, Page]]) -> None:
        """Do to the model what a batch does."""
        self.model |= {n: self.version for n, _ in batch if self.last is None or n <= self.last}

    @rule(numbers=st.lists(st.integers(1, 12), max_size=6))
    def append(self, numbers: list[int]) -> None:
        """Pages in any order, some of them again."""
        batch = self.drawn(numbers)
        self.snapshot.append(batch)
        self.keep(batch)

    @rule(numbers=st.lists(st.integers(1, 12), min_size=1, max_size=6), cut=st.floats(0, 1), hole=st.booleans())
    def crash(self, numbers: list[int], cut: float, hole: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Stop in the middle of a batch: of each journal a part of the batch is there, or zeros stand in for it."""
        before = {path: path.stat().st_size for path in self.snapshot.path.glob("*.pages")}
        batch = self.drawn(numbers)
        self.snapshot.append(batch)
        self.snapshot.close()
        for path in self.snapshot.path.glob("*.pages"):
            old, data = before.get(path, 0), path.read_bytes()
            size = old + int(cut * (len(data) - old))
            path.write_bytes(data[:size] + bytes(len(data) - size if hole else 0))
        self.snapshot = Snapshot.open(self.snapshot.path)
        kept = {found.page: found.digest for found in self.snapshot.recover()}
        allowed = self.model.copy()
        self.keep(batch)
        for number in list(self.model):
            if self.shard_of(number) in self.snapshot.sealed:
                continue
            versions = {page_digest(page(number, v).lines): v for v in (self.model[number], allowed.get(number, -1))}
            if number in kept:
                self.model[number] = versions[kept[number]]
            else:
                assert number not in allowed
                del self.model[number]

    @rule(repair=st.booleans())
    def restart(self, repair: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Nothing is lost, and there is nothing to repair."""
        self.snapshot = continued(self.snapshot, repair=repair)

    @rule(shard=st.integers(0, 11))
    def seal(self, shard: int) -> None:
        """Finish a shard if it can be."""
        if self.snapshot.complete(shard) and shard not in self.snapshot.sealed and self.range_of(shard):
            self.snapshot.seal(shard)

    @rule(numbers=st.lists(st.integers(1, 12), max_size=4))
    def rewrite(self, numbers: list[int]) -> None:
        """New versions of pages, sealed or not; nothing beside them is lost."""
        self.version += 1
        batch = pages(*numbers, version=self.version)
        self.snapshot.rewrite(batch)
        self.keep(batch)

    @rule()
    def publish(self) -> None:
        """Fill, finish, and open again from what was published."""
        last = self.fill()
        before = self.snapshot.sealed
        path = finished(self.snapshot)
        self.generation += 1
        self.snapshot = Snapshot.from_package(path, path.with_name(f"{NAME}{self.generation}"))
        assert self.snapshot.recover() == []
        assert self.snapshot.sealed == before
        assert self.snapshot.last == last

    def fill(self) -> int:
        """Add what is missing up to the end, and seal everything; returns the end."""
        last = self.last if self.last is not None else max(self.model, default=0)
        self.end(last)
        assert self.snapshot.layout
        for shard in self.snapshot.layout.shards(last):
            lost = missing(self.snapshot, shard)
            self.snapshot.append(pages(*lost))
            self.model |= dict.fromkeys(lost, 0)
            if shard not in self.snapshot.sealed:
                self.snapshot.seal(shard)
        return last

    @precondition(lambda self: self.snapshot.sealed)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A flipped bit is seen by ``verify`` and mended by reading the lost pages again."""
        shard = data.draw(st.sampled_from(sorted(self.snapshot.sealed)))
        entry = self.snapshot.sealed[shard]
        if not entry.file_bytes:
            return
        assert self.snapshot.layout
        flip(
            self.snapshot.path / self.snapshot.layout.shard_name(shard), data.draw(st.integers(0, entry.file_bytes - 1))
        )
        assert "X" in verify_snapshot(self.snapshot.path).symbols
        self.snapshot = continued(self.snapshot, repair=True)
        lost = missing(self.snapshot, shard)
        self.snapshot.append([(n, page(n, self.model[n])) for n in lost])

    @rule(last=st.integers(0, 12))
    def end(self, last: int) -> None:
        """The end becomes known, or moves."""
        self.snapshot.set_end({"last": last})
        self.last = last
        self.model = {n: v for n, v in self.model.items() if n <= last}

    def shard_of(self, number: int) -> int:
        """Return the shard of a page."""
        return (number - 1) // self.per_shard

    def range_of(self, shard: int) -> range:
        """Return the pages of a shard, cut at the end."""
        stop = (shard + 1) * self.per_shard
        return range(shard * self.per_shard + 1, (stop if self.last is None else min(stop, self.last)) + 1)

    @invariant()
    def what_is_missing_is_what_the_model_lacks(self) -> None:
        """The snapshot lacks exactly what the model lacks."""
        assert set(self.snapshot.pages()) == self.model.keys()

    @invariant()
    def what_is_sealed_is_what_the_model_holds(self) -> None:
        """Lines and digests of sealed pages are those of the model, in page order; whatever happened, all are good."""
        entries = sorted(self.snapshot.sealed.values(), key=lambda entry: entry.first)
        wanted = [(n, page(n, self.model[n]).lines) for entry in entries for n in range(entry.first, entry.last + 1)]
        assert list(self.snapshot.lines()) == wanted
        assert [self.snapshot.digest_of(n) for n, _ in wanted] == [page_digest(lines) for _, lines in wanted]
        assert list(self.snapshot.page_digests()) == [page_digest(lines) for _, lines in wanted if lines]
        assert set(verify_snapshot(self.snapshot.path).symbols) <= {".", "o"}

    def teardown(self) -> None:
        """Fill what is missing and finish: the shards hold the model's pages in order."""
        last = self.fill()
        found = verify_snapshot(finished(self.snapshot))
        assert set(found.symbols) <= {"."}
        assert found.pages == last
        shutil.rmtree(self.root)


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLife = Life.TestCase

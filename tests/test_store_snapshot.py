"""A snapshot through its whole life: every stop, every loss of power, every damage."""

from __future__ import annotations

import errno
import os
import re
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

from harvester.errors import DamagedError, LocalError, UsageError
from harvester.model import Page
from harvester.shard import Compression, Layout, page_digest, resources
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

FORMAT = (Path(__file__).parent.parent / "harvester" / "FORMAT.md").read_text()
NAME = "20261121T020000Z"
CREATED = "2026-11-21T02:00:00+00:00"
IDENTITY = {"platform": "wuhan"}


linux = pytest.mark.skipif(sys.platform == "darwin", reason="stands in for fdatasync, which macOS lacks")


def example(name: str) -> bytes:
    """Return one block of the worked example in FORMAT.md."""
    found = re.search(rf"^```{name}\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].encode()


def page(number: int, version: int = 0) -> Page:
    """Return a page of two rows, or of none where the number divides by 7."""
    rows = 0 if number % 7 == 0 else 2
    return Page(b"".join(b'{"page":%d,"row":%d,"v":%d}\n' % (number, row, version) for row in range(rows)), rows)


def pages(*numbers: int, version: int = 0) -> list[tuple[int, Page]]:
    """Return pages with their numbers, as ``append`` takes them."""
    return [(number, page(number, version)) for number in numbers]


def begun(root: Path, compression: Compression = "none", per_shard: int = 4) -> Snapshot:
    """Begin a snapshot with so many pages a shard."""
    snapshot = Snapshot.create(root / "investors" / NAME, IDENTITY, CREATED)
    snapshot.freeze(Layout(per_shard * 2, 2, compression))
    return snapshot


def continued(snapshot: Snapshot, **options: bool) -> Snapshot:
    """Do what the next process does: open the same folder and recover."""
    snapshot.close()
    again = Snapshot.open(snapshot.path)
    again.recover(**options)
    return again


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file; its time of modification changes with it."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def test_worked_example(tmp_path: Path) -> None:
    """Every file of the example in FORMAT.md is what the store writes, byte for byte."""
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        snapshot.freeze(Layout(4, 2))
        snapshot.set_end({"last": 2})
        snapshot.append([(2, Page(b'{"id":3}\n{"id":4}\n', 2))])
        snapshot.append([(1, Page(b'{"id":1}\n{"id":2}\n', 2))])
        assert (tmp_path / NAME / "part-00000.pages").read_bytes() == example("journal")
        assert (tmp_path / NAME / "checkpoint.json").read_bytes() == example("checkpoint")
        snapshot.seal(0)
    assert (tmp_path / NAME / "part-00000.jsonl").read_bytes() == example("shard")
    assert (tmp_path / NAME / "pages.idx").read_bytes().hex() == example("index").decode().replace("\n", "")
    assert not (tmp_path / NAME / "part-00000.pages").exists()


def test_seal_records_what_it_wrote(tmp_path: Path) -> None:
    """The entry of a shard counts its rows and bytes and knows its file."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(6, 8, 5, 7))
        assert (snapshot.complete(0), snapshot.complete(1), snapshot.missing(1)) == (False, True, [])
        entry = snapshot.seal(1)
        file = snapshot.path / "part-00001.jsonl"
        assert file.read_bytes() == b"".join(page(number).lines for number in (5, 6, 7, 8))
        assert (entry.number, entry.first, entry.last, entry.rows) == (1, 5, 8, 6)
        assert entry.bytes == entry.file_bytes == file.stat().st_size
        assert entry.mtime_ns == file.stat().st_mtime_ns
        assert snapshot.sealed == {1: entry}
    with Snapshot.open(snapshot.path) as again:
        assert (again.identity, again.created, again.layout) == (IDENTITY, CREATED, Layout(8, 2))
        assert (again.end, again.notes, again.sealed) == (None, {}, {1: entry})


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_shards_hold_the_same(tmp_path: Path, compression: Compression) -> None:
    """A compressed shard verifies, reopens to the same pages and seals to the same file."""
    with begun(tmp_path, compression) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        entry = snapshot.seal(0)
        assert entry.content_sha256 != entry.sha256
        assert verify_snapshot(snapshot.path).symbols == "."
        assert snapshot.reopen(0) == []
        assert snapshot.seal(0).sha256 == entry.sha256


def test_last_of_a_doubled_page_counts(tmp_path: Path) -> None:
    """Within a batch, between batches and after recovery."""
    with begun(tmp_path) as first:
        first.append(pages(1, 2) + pages(1, version=1))
        first.append(pages(2, version=2))
    with Snapshot.open(first.path) as snapshot:
        kept = snapshot.recover()
        assert [(found.page, found.rows) for found in kept] == [(1, 2), (2, 2)]
        assert [found.digest for found in kept] == [page_digest(page(1, 1).lines), page_digest(page(2, 2).lines)]
        snapshot.append(pages(3, 4) + pages(1, version=3))
        snapshot.seal(0)
        wanted = [page(1, 3), page(2, 2), page(3), page(4)]
        assert (first.path / "part-00000.jsonl").read_bytes() == b"".join(one.lines for one in wanted)


def test_end_cuts_the_last_shard(tmp_path: Path) -> None:
    """Pages beyond the end go, and never come back when it moves on; later ones are left out at once."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(5, 6, 7, 9, 13))
        snapshot.set_end({"last": 6, "by": "empty page"})
        snapshot.append(pages(7, 8))
        assert snapshot.complete(1)
        assert [name.name for name in sorted(snapshot.path.glob("part-*"))] == ["part-00001.pages"]
        snapshot.set_end({"last": 7})
        assert snapshot.missing(1) == [7]
    with Snapshot.open(snapshot.path) as again:
        assert [kept.page for kept in again.recover()] == [5, 6]
        assert again.end == {"last": 7}


def test_end_reopens_a_shard_that_it_cuts(tmp_path: Path) -> None:
    """A sealed shard is taken apart when the end moves into it or out of it; one beyond it goes."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(*range(1, 13)))
        for number in range(3):
            snapshot.seal(number)
        snapshot.set_end({"last": 6})
        assert sorted(snapshot.sealed) == [0]
        assert snapshot.complete(1)
        assert snapshot.seal(1).last == 6
        snapshot.set_end({"last": 8})
        assert snapshot.missing(1) == [7, 8]
        assert not (snapshot.path / "part-00002.jsonl").exists()
        assert verify_snapshot(snapshot.path).symbols == ".o"


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
        assert "--fresh" in caught.value.hint
        again.recover(repair=True)
        lost = again.missing(0)
        assert lost == {"is missing": [1, 2, 3, 4], "bytes instead of": [4], "SHA-256 differs": [1]}[words]
        again.append(pages(*lost))
        assert again.seal(0).sha256 == before.sha256
        assert again.missing(1) == [6, 7, 8]


def test_repair_of_a_broken_compressed_shard(tmp_path: Path) -> None:
    """What decompresses before the defect and has its digest is kept."""
    with begun(tmp_path, "gzip") as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        before = snapshot.seal(0)
    flip(snapshot.path / "part-00000.jsonl.gz", before.file_bytes // 2)
    with continued(snapshot, repair=True) as again:
        lost = again.missing(0)
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


def test_journal_that_changes_meanwhile_is_not_sealed(tmp_path: Path) -> None:
    """Each page's digest is checked again on its way into the shard, and the journal's length before a batch."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4, 5))
        journal = snapshot.path / "part-00000.pages"
        flip(journal, journal.read_bytes().index(page(3).lines))
        with pytest.raises(DamagedError, match="page 3 is not what was written"):
            snapshot.seal(0)
        assert snapshot.sealed == {}
        with (snapshot.path / "part-00001.pages").open("ab") as file:
            file.write(b"x")
        with pytest.raises(DamagedError, match="length"):
            snapshot.append(pages(6))


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


def test_move_of_the_end_withdraws_the_package(tmp_path: Path) -> None:
    """A data package never describes shards that are being changed."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        for change in (lambda: snapshot.set_end({"last": 8}), lambda: snapshot.reopen(0)):
            snapshot.set_end({"last": 4})
            snapshot.finish({"resources": []})
            change()
            assert not (snapshot.path / "datapackage.json").exists()


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


def test_short_writes_are_invisible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes seven bytes at a time changes nothing."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(2, 1, 4, 3))
        snapshot.seal(0)
    assert verify_snapshot(snapshot.path).symbols == "."


@linux
@pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("fdatasync", errno.EIO)])
def test_error_of_the_disk_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """It says which file and why, nothing is tried again, and the next run loses nothing that was kept."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1))
        calls: list[int] = []

        def fail(fd: int, *_: object) -> int:
            calls.append(fd)
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(LocalError, match=r"cannot write .*part-00000\.pages") as caught:
                snapshot.append(pages(2))
            assert os.strerror(number) in caught.value.message
            assert caught.value.hint
        with pytest.raises(LocalError, match="after an error"):
            snapshot.save()
        assert len(calls) == 1
    with continued(snapshot) as again:
        assert 1 not in again.missing(0)


def night(root: Path, kept: set[int], published: list[str]) -> None:
    """One run over a dataset of eleven pages: whatever was there before, it ends with the snapshot published.

    ``kept`` and ``published`` learn what the caller was told, at the moment it was told.
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
            for batch in ([9, 2, 12], [4, 3, 1], [5, 7], [8, 14], [6, 10, 11]):
                wanted = [n for n in batch if n in snapshot.missing((n - 1) // 4)]
                snapshot.append(pages(*wanted))
                kept.update(wanted)
                for number in {(n - 1) // 4 for n in batch}:
                    if snapshot.complete(number) and number not in snapshot.sealed:
                        snapshot.seal(number)
            if snapshot.end is None:
                snapshot.reopen(1)
                snapshot.set_end({"last": 11})
            for number in range(3):
                if number not in snapshot.sealed:
                    snapshot.seal(number)
            assert snapshot.layout
            snapshot.finish({"resources": resources(snapshot.layout, snapshot.sealed.values())})
            dataset.publish(NAME, {"rows": 20})
            published.append(NAME)
            snapshot.close_open()


class PowerCutError(BaseException):
    """The run ends here; nothing may catch it."""


class Disk:
    """Stands between the store and the system: counts what changes files, stops before one, remembers what is durable.

    Durable is a file's content at its last sync and a folder's names at its last sync, nothing else.
    """

    CHANGES: ClassVar = ("write", "rename", "unlink", "ftruncate", "mkdir", "symlink", "fsync", "fdatasync")

    def __init__(self, patch: pytest.MonkeyPatch, stop: int) -> None:
        self.count = 0
        self.stop = stop
        self.held: list[int] = []  # duplicates of descriptors: a number of a file in use is never given to another
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, tuple[str, int, str]]] = {}  # kind, number and target of each name
        for name in self.CHANGES:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The snapshot as one run without a stop leaves it."""
    root = tmp_path_factory.mktemp("undisturbed")
    night(root, set(), [])
    return content(root / "mirror" / "investors" / NAME)


def stopped_nights(tmp_path: Path, *, power: bool) -> Iterator[tuple[Path, set[int], list[str]]]:
    """Stop a night before each change of a file in turn; yield what is left and what had been promised."""
    stop, finished = 1, False
    while not finished:
        root = tmp_path / f"stop-{stop}"
        root.mkdir()
        kept: set[int] = set()
        published: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, stop)
            try:
                night(root, kept, published)
                finished = True
            except PowerCutError:
                pass
        if power:
            disk.image(root.stat().st_ino, tmp_path / f"image-{stop}")
            root = tmp_path / f"image-{stop}"
        disk.close()
        yield root, kept, published
        stop += 1
    assert stop > 100


@linux
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_stop_anywhere(tmp_path: Path, undisturbed: dict[str, bytes], power: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Whatever step it stops before, nothing promised is lost and the next run ends with the very same bytes."""
    for root, kept, published in stopped_nights(tmp_path, power=power):
        dataset = DatasetFolder(root / "mirror" / "investors")
        path = dataset.path / NAME
        assert [dataset.current()] * len(published) == published
        if dataset.current() is not None:
            assert (path / "datapackage.json").read_bytes() == undisturbed["datapackage.json"]
        if (path / "checkpoint.json").exists():
            with Snapshot.open(path) as snapshot:
                snapshot.recover()
                last = snapshot.end["last"] if snapshot.end else 14
                assert not [n for n in kept if n <= last and n in snapshot.missing((n - 1) // 4)]
                assert set(verify_snapshot(path).symbols) <= {".", "o"}
        night(root, set(), [])
        assert content(path) == undisturbed
        assert dataset.current() == NAME
        assert (dataset.path / "current" / "datapackage.json").exists()
        shutil.rmtree(root)


class Life(RuleBasedStateMachine):
    """A snapshot against a model that is a dictionary from page to version."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.model: dict[int, int] = {}
        self.last: int | None = None
        self.version = 0

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

    @precondition(lambda self: self.snapshot.sealed)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        """Nothing of a sound shard is lost when it is taken apart."""
        shard = data.draw(st.sampled_from(sorted(self.snapshot.sealed)))
        assert self.snapshot.reopen(shard) == []

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
        lost = self.snapshot.missing(shard)
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
        for shard in range(self.shard_of(12) + 1):
            lacking = [n for n in self.range_of(shard) if n not in self.model]
            assert self.snapshot.missing(shard) == lacking

    @invariant()
    def nothing_is_damaged(self) -> None:
        """Whatever happened, every sealed shard is good."""
        assert set(verify_snapshot(self.snapshot.path).symbols) <= {".", "o"}

    def teardown(self) -> None:
        """Fill what is missing and finish: the shards hold the model's pages in order."""
        last = self.last if self.last is not None else max(self.model, default=0)
        self.end(last)
        assert self.snapshot.layout
        for shard in self.snapshot.layout.shards(last):
            lost = self.snapshot.missing(shard)
            self.snapshot.append(pages(*lost))
            self.model |= dict.fromkeys(lost, 0)
            if shard not in self.snapshot.sealed:
                self.snapshot.seal(shard)
        self.snapshot.finish({"resources": resources(self.snapshot.layout, self.snapshot.sealed.values())})
        self.snapshot.close_open()
        self.snapshot.close()
        found = verify_snapshot(self.snapshot.path)
        assert set(found.symbols) <= {"."}
        assert found.pages == last
        shutil.rmtree(self.root)


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLife = Life.TestCase

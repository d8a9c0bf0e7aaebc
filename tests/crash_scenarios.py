"""What a caller of the store does, from wherever the last process stopped, to a published snapshot; what it was told.

Each scenario may be begun on any rest of itself: it looks at what is there, as a run does, and does what is left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from harvester.model import Page
from harvester.shard import Layout, resources
from harvester.store.durable import Folder
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

OLD: Final = "20261120T020000Z"
NAME: Final = "20261121T020000Z"
IDENTITY: Final = {"platform": "wuhan"}
LAYOUT: Final = Layout(2, 1)  # two pages a shard
UNREAD: Final = 9
"""The page whose answer nobody could read."""
_ROW: Final = re.compile(rb'\{"page":(\d+),"v":(\d+)\}\n')


class Promises:
    """All that was promised up to some moment, and the comparison of a folder with it."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}
        self.sealed: set[int] = set()
        self.end: int | None = None
        self.unread = False
        self.mended = False
        self.published: str | None = None
        self.closed = False

    def learn(self, promise: str, *values: Any) -> None:  # noqa: ANN401 - what is promised differs
        """Take one more promise in; some take an older one back."""
        match promise:
            case "kept":
                self.pages |= dict(values[0])
            case "moving end":  # from now on pages beyond it may go
                self.pages = {number: version for number, version in self.pages.items() if number <= values[0]}
                self.sealed = {shard for shard in self.sealed if LAYOUT.pages_of(shard)[-1] <= values[0]}
            case "sealed":
                self.sealed.add(values[0])
            case "reopening":
                self.sealed.discard(values[0])
            case _:
                assert promise in {"end", "unread", "mended", "published", "closed"}
                setattr(self, promise, values[0] if values else True)

    def compare_folder(self, dataset: DatasetFolder, *, readable: bool) -> None:
        """Look at what readers see, before anything is recovered; ``readable`` if that has to be sound."""
        current = dataset.current()
        if self.published:
            assert current == self.published, "published, and not any more"
        if current is not None and (readable or self.closed):
            found = verify_snapshot(dataset.path / current)
            assert set(found.symbols) == {"."}, "readers see an unfinished snapshot"
            assert (dataset.path / current / "datapackage.json").exists(), "readers see no data package"
        link = dataset.path / "current"
        if link.is_symlink():
            assert current is not None, "the link shows what current.json does not"
            assert str(link.readlink()) <= current, "the link is ahead of current.json"
        if self.closed:
            assert not (dataset.path / NAME / "checkpoint.json").exists(), "closed, and open again"
        if self.unread:
            quarantine = dataset.path / NAME / "quarantine"
            assert (quarantine / f"page-{UNREAD:08d}.body").read_bytes() == b"<html>", "put aside, and gone"

    def compare_snapshot(self, snapshot: Snapshot, kept: Iterable[int]) -> None:
        """Look at a snapshot that was recovered; ``kept`` are the pages said to be in journals."""
        there = versions(snapshot.path)
        for number, version in self.pages.items():
            assert there.get(number, -1) >= version, f"page {number} was promised and is gone"
        sealed = {n for entry in snapshot.sealed.values() for n in range(entry.first, entry.last + 1)}
        assert sealed | set(kept) == there.keys(), "said to be kept and not there, or there and not said"
        assert self.sealed <= snapshot.sealed.keys(), "sealed, and not any more"
        if self.end is not None:
            assert snapshot.end == {"last": self.end}, "the end was known"
            assert max(there, default=0) <= self.end, "pages beyond the end came back"
        assert set(verify_snapshot(snapshot.path).symbols) <= {".", "o"}


def versions(path: Path) -> dict[int, int]:
    """Return the version of each page in a snapshot's shards and journals, read without the store's help."""
    found: dict[int, int] = {}
    for file in (*path.glob("part-*.jsonl"), *path.glob("part-*.pages")):
        found.update((int(number), int(version)) for number, version in _ROW.findall(file.read_bytes()))
    return found


def page(number: int, version: int = 0) -> Page:
    """Return a page of one row that says which it is."""
    return Page(b'{"page":%d,"v":%d}\n' % (number, version), 1)


def finish(snapshot: Snapshot) -> None:
    """Write a data package that the snapshot can be opened from again."""
    shards = resources(LAYOUT, snapshot.sealed.values())
    snapshot.finish({"created": snapshot.created, "resources": shards, "harvester": snapshot.package_members()})


class Script:
    """One process that works on the dataset below ``root``.

    Args:
        root: the folder of all datasets' output.
        told: learns every promise.
        recovered: is shown the snapshot, and the pages in its journals, as soon as it is in order.
    """

    repair: bool = False
    readable: bool = True
    """Whether readers have a sound snapshot at any time."""
    batches: tuple[tuple[int, ...], ...]
    last: int

    def __init__(self, root: Path, told: Callable[..., None], recovered: Callable[[Snapshot, list[int]], None]) -> None:
        self.dataset = DatasetFolder(root / "mirror" / "investors")
        self.path = self.dataset.path / NAME
        self.told = told
        self._recovered = recovered

    @classmethod
    def prepare(cls, root: Path) -> None:
        """Put there what lay there before the first process; nothing."""

    def run(self) -> None:
        """Work to the end."""
        with self.dataset.lock():
            if NAME not in self.dataset.snapshots():
                self.begin()
            if self.dataset.current() == NAME:
                assert not (self.path / "checkpoint.json").exists(), "published, and to be worked on"
                return
            with Snapshot.open(self.path) as snapshot:
                self.held = {kept.page for kept in snapshot.recover(repair=self.repair)}
                self._recovered(snapshot, sorted(self.held))
                self.told("kept", sorted(versions(self.path).items()))
                if self.repair:
                    self.told("mended")
                self.held |= {n for entry in snapshot.sealed.values() for n in range(entry.first, entry.last + 1)}
                if snapshot.layout is None:
                    snapshot.freeze(LAYOUT)
                self.fill(snapshot)
                self.publish(snapshot)

    def begin(self) -> None:
        """Make the snapshot."""
        Snapshot.create(self.path, IDENTITY, "2026-11-21T02:00:00+00:00").close()

    def fill(self, snapshot: Snapshot) -> None:
        """Keep the pages that are missing, batch by batch; seal what is complete; say where the end is."""
        for batch in self.batches:
            self.keep(snapshot, [n for n in batch if n not in self.held])
            for shard in sorted({LAYOUT.shard_of(number) for number in batch}):
                self.seal(snapshot, shard)
        self.set_end(snapshot)

    def keep(self, snapshot: Snapshot, numbers: list[int], version: int = 0) -> None:
        """Keep pages; those beyond the end are left out."""
        if snapshot.end is not None:
            numbers = [number for number in numbers if number <= snapshot.end["last"]]
        snapshot.append([(number, page(number, version)) for number in numbers])
        self.held.update(numbers)
        self.told("kept", [(number, version) for number in numbers])

    def seal(self, snapshot: Snapshot, shard: int) -> None:
        """Seal a shard if it can be."""
        last = None if snapshot.end is None else snapshot.end["last"]
        if shard not in snapshot.sealed and LAYOUT.pages_of(shard, last) and snapshot.complete(shard):
            snapshot.seal(shard)
            self.told("sealed", shard)

    def set_end(self, snapshot: Snapshot) -> None:
        """Say where the end is, once."""
        if snapshot.end is None:
            self.told("moving end", self.last)
            snapshot.set_end({"last": self.last})
            self.told("end", self.last)

    def publish(self, snapshot: Snapshot) -> None:
        """Finish, publish, close."""
        for shard in LAYOUT.shards(self.last):
            self.seal(snapshot, shard)
        finish(snapshot)
        self.dataset.publish(NAME, {"rows": self.last})
        self.told("published", NAME)
        with Folder(self.path) as folder, folder.opened(".tmp-left", os.O_WRONLY | os.O_CREAT, "write"):
            pass  # what something else that was stopped has left behind
        snapshot.close_open()
        self.told("closed")


class Fill(Script):
    """The first snapshot of a dataset: four shards are sealed, then the end turns out to lie between two of them."""

    batches = ((3, 1), (2, 5), (6, 4), (8, 7))
    last = 6


class Mend(Script):
    """A second one, beside a published one: an unreadable answer, ends inside sealed shards, a page read again."""

    batches = ((1, 2), (3, 5), (4, 6), (8, 7, 9))
    last = 5

    @classmethod
    def prepare(cls, root: Path) -> None:
        """A published snapshot lies there."""
        dataset = DatasetFolder(root / "mirror" / "investors")
        with dataset.lock(), Snapshot.create(dataset.path / OLD, IDENTITY, "2026-11-20T02:00:00+00:00") as snapshot:
            snapshot.freeze(LAYOUT)
            snapshot.append([(1, page(1))])
            snapshot.set_end({"last": 1})
            snapshot.seal(0)
            finish(snapshot)
            dataset.publish(OLD, {})
            snapshot.close_open()

    def fill(self, snapshot: Snapshot) -> None:
        """Page 1 is read again and has changed: the new one replaces it in its sealed shard."""
        if snapshot.end is None:
            snapshot.quarantine(UNREAD, b"<html>", "not JSON")
            self.told("unread")
        if not snapshot.notes.get("end forgotten") or snapshot.end == {"last": 3}:
            self.find_end_too_early(snapshot)
        super().fill(snapshot)
        if not snapshot.notes.get("read again"):
            self.told("reopening", 0)
            snapshot.rewrite([(1, page(1, 1))])
            self.told("kept", [(1, 1)])
            snapshot.notes["read again"] = True
            self.seal(snapshot, 0)

    def find_end_too_early(self, snapshot: Snapshot) -> None:
        """Seal a shard that ends with page 3, and learn that there are more."""
        self.keep(snapshot, [number for number in (1, 2, 3) if number not in self.held])
        if snapshot.end is None:
            self.told("moving end", 3)
            snapshot.set_end({"last": 3})
            self.told("end", 3)
        self.seal(snapshot, 1)
        self.told("reopening", 1)
        self.told("end", None)
        snapshot.notes["end forgotten"] = True
        snapshot.forget_end()


class Repair(Script):
    """A snapshot with a changed shard, another one missing, an index and a journal that were changed too."""

    repair = True
    batches = ((1, 2, 3), (4, 5, 6))
    last = 6

    @classmethod
    def prepare(cls, root: Path) -> None:
        """Damage everything but the checkpoint."""
        path = root / "mirror" / "investors" / NAME
        with Snapshot.create(path, IDENTITY, "2026-11-21T02:00:00+00:00") as snapshot:
            snapshot.freeze(LAYOUT)
            snapshot.append([(n, page(n)) for n in (1, 2, 3, 4)])
            snapshot.seal(0)
            snapshot.seal(1)
            snapshot.append([(5, page(5))])
            snapshot.append([(6, page(6))])
        shard, journal = path / "part-00000.jsonl", path / "part-00002.pages"
        shard.write_bytes(shard.read_bytes().replace(b'"page":2', b'"page":3'))
        (path / "part-00001.jsonl").unlink()
        journal.write_bytes(journal.read_bytes().replace(b'"page":5', b'"page":4'))
        index = path / "pages.idx"
        index.write_bytes(b"H" + index.read_bytes()[1:])


class Again(Script):
    """A published snapshot of which a shard and the index were damaged since; what is left of it is published anew."""

    repair = True
    readable = False
    batches = ((1, 2, 3), (4, 5, 6))
    last = 6

    @classmethod
    def prepare(cls, root: Path) -> None:
        """Publish, then flip a bit in a shard and cut the index."""
        dataset = DatasetFolder(root / "mirror" / "investors")
        with dataset.lock(), Snapshot.create(dataset.path / OLD, IDENTITY, "2026-11-20T02:00:00+00:00") as snapshot:
            snapshot.freeze(LAYOUT)
            snapshot.append([(number, page(number)) for number in range(1, 7)])
            snapshot.set_end({"last": 6})
            for number in LAYOUT.shards(6):
                snapshot.seal(number)
            finish(snapshot)
            dataset.publish(OLD, {})
            snapshot.close_open()
        shard, index = dataset.path / OLD / "part-00001.jsonl", dataset.path / OLD / "pages.idx"
        shard.write_bytes(shard.read_bytes().replace(b'"page":4', b'"page":5'))
        index.write_bytes(index.read_bytes()[:-30])

    def begin(self) -> None:
        """Take what the damaged one holds."""
        Snapshot.from_package(self.dataset.path / OLD, self.path).close()


SCRIPTS: Final = {"fill": Fill, "mend": Mend, "repair": Repair, "again": Again}

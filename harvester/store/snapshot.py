"""The life of a snapshot on disk: begun, left and continued, finished, taken over for repair.

Everything here waits for the disk, so one thread calls it. Formats and the order of writes are those of FORMAT.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from msgspec.structs import replace

from harvester.errors import LocalError
from harvester.shard import JOURNAL_FILE, Layout
from harvester.store.checkpoint import CHECKPOINT, Checkpoint, encode
from harvester.store.contents import read_checkpoint
from harvester.store.durable import TEMPORARY, Folder, LostError, fresh_hint, make_folder
from harvester.store.filling import Filling
from harvester.store.folder import remove_open
from harvester.store.index import INDEX
from harvester.store.journal import Journal
from harvester.store.package import PACKAGE, read_package
from harvester.store.recovery import changed_shards, demand_none, in_words
from harvester.store.sealed import hash_fault
from harvester.store.shardfile import require

QUARANTINE: Final = "quarantine"
_FOR_PEOPLE: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class Kept(NamedTuple):
    """A page found in a journal: it is kept, its shard not finished yet."""

    page: int
    rows: int
    digest: bytes


class Snapshot(Filling):
    """A snapshot that is begun, or continued: then ``recover`` comes before anything is added.

    ``open`` needs the checkpoint of one that is unfinished; ``from_package`` begins one with what a finished one holds.
    """

    @classmethod
    def create(cls, path: Path, identity: dict[str, Any], created: str) -> Snapshot:
        """Begin a snapshot in a new folder, which appears together with its checkpoint.

        Raises:
            LocalError: there is such a folder already, or it cannot be made.
        """
        content = Checkpoint(identity=identity, created=created, layout=None, end=None, notes={}, sealed=[])
        with _appearing(path, content):
            pass
        return cls(Folder(path), content)

    @classmethod
    def from_package(cls, finished: Path, path: Path, notes: dict[str, Any] | None = None) -> Snapshot:
        """Begin a snapshot that holds what a finished one does, to be repaired; the finished one stays as it is.

        It appears together with its checkpoint. Shards are the same files under a second name, so this takes little
        time and room. ``recover`` then reads every one of them, since a package does not say when they were written.

        Args:
            finished: the folder of the finished snapshot.
            path: the folder of the new one, beside it.
            notes: the caller's own, beside those that the package holds.

        Raises:
            DamagedError: its data package is missing or damaged.
            LocalError: there is a new folder already, it cannot be made, or the package does not hold what it takes.
        """
        with Folder(finished) as source:
            content = read_package(source)
            if content.end is None:
                raise LocalError(
                    f"cannot repair {finished}: the version of harvester that wrote it did not record how",
                    hint=fresh_hint(finished),
                )
            content = replace(content, notes=content.notes | (notes or {}))
            with _appearing(path, content) as draft:
                for name in [INDEX, *_shard_names(content)]:
                    if source.is_file(name):
                        draft.take(name, source, shared=name != INDEX)
        return cls(Folder(path), content)

    def finish(self, package: dict[str, Any]) -> None:
        """Hash every shard once more and write the data package; the snapshot can then be published.

        Args:
            package: the whole content of ``datapackage.json``: its resources come from ``shard.resources``, and what
                ``package_members`` returns stands under ``harvester``.

        Raises:
            ValueError: the end is not known, or a shard is not sealed.
            DamagedError: a shard is not what was written.
        """
        last = self.last
        if last is None:
            raise ValueError("the end is not known")
        layout = self.layout
        expected = layout.shards(last) if layout else range(0)
        if sorted(self.sealed) != list(expected):
            raise ValueError(f"{len(expected) - len(self.sealed)} shards are not sealed")
        with self._changing():
            if layout is not None:
                faults = {number: hash_fault(self._folder, layout, entry) for number, entry in self.sealed.items()}
                demand_none(self.path, in_words(layout, faults))
                self._index.cut(last)
            self._folder.replace(PACKAGE, orjson.dumps(package, option=_FOR_PEOPLE))

    def close_open(self) -> None:
        """Remove what only an open snapshot needs; after publication."""
        with self._changing():
            remove_open(self._folder)

    def quarantine(self, page: int, body: bytes, why: str) -> Path:
        """Keep an answer that could not be read, and why; returns the file of its bytes."""
        with self._changing():
            make_folder(self.path / QUARANTINE)
            with Folder(self.path / QUARANTINE) as folder:
                name = f"page-{page:08d}"
                folder.replace(f"{name}.body", body)
                folder.replace(f"{name}.why", why.encode() + b"\n")
                return folder.path / f"{name}.body"

    def recover(self, *, repair: bool = False) -> list[Kept]:
        """Bring the folder into order after whatever stopped the last run; before anything is added.

        Torn tails are cut off, files that nothing points at deleted, sealed shards looked at. A shard whose time of
        modification has changed is hashed, so that a copied or restored mirror can be continued.

        Args:
            repair: read everything, and keep what is sound of damaged files instead of raising; the other pages are
                missing then.

        Returns:
            The pages in journals, those that were kept before, in page order.

        Raises:
            DamagedError: files are missing or not what was written; names each, and says how to repair.
        """
        if self.layout is not None:
            require(self.layout.compression)
        with self._changing():
            self._settle()
            self._drop_leftovers(strangers_too=repair)
            if self.layout is not None:
                self._look_at_sealed(self.layout, repair=repair)
            kept: dict[int, Kept] = {}
            for name in self._folder.names():
                match = JOURNAL_FILE.fullmatch(name)
                if match:
                    kept |= self._replay(int(match[1]), repair=repair)
            self._folder.sync()
            self._save()
            return [kept[page] for page in sorted(kept)]

    def adopt(self, shard: int) -> list[Kept]:
        """Take over the journal that another process has left of a shard; a file of that shard, if there is one, goes.

        That process has made durable what is there. Should the shard's file come back, ``recover`` deletes it again.

        Returns:
            The pages that are kept, in page order; none if there is no journal.

        Raises:
            DamagedError: it was changed where it had been durable.
        """
        with self._changing():
            layout, kept = self._frozen(), {}
            self._folder.unlink(layout.shard_name(shard))
            if self._folder.is_file(layout.journal_name(shard)):
                kept = self._replay(shard, repair=False)
            return [kept[page] for page in sorted(kept)]

    @classmethod
    def _recorded(cls, folder: Folder) -> Checkpoint:
        found = read_checkpoint(folder)
        if found is None:
            raise LostError(f"cannot continue {folder.path}: there is no {CHECKPOINT}", hint=fresh_hint(folder.path))
        return found

    def _settle(self) -> None:
        """Make durable what a killed process had only in memory: the names that all further steps rely on."""
        self._folder.sync()
        with Folder(self.path.resolve().parent) as above:
            above.sync()

    def _look_at_sealed(self, layout: Layout, *, repair: bool) -> None:
        """Refuse shards and an index that are not what was recorded; or take apart the shards concerned."""
        if repair:
            self._index.mend()
        faults = changed_shards(self._folder, layout, self.sealed, thorough=repair)
        if repair:
            for shard in faults:
                self._reopen(shard, ())
            return
        last = max((entry.last for entry in self.sealed.values()), default=0)
        demand_none(self.path, [*self._index.faults(last), *in_words(layout, faults)])

    def _replay(self, shard: int, *, repair: bool) -> dict[int, Kept]:
        if self.layout is None:  # it is durable before the first journal is
            raise LostError(f"{self.path} has a journal of shard {shard} but no layout", hint=fresh_hint(self.path))
        journal = Journal(self._folder, self.layout, shard)
        records = journal.replay(repair=repair)
        self._journals[shard] = journal
        last = journal.pages[-1] if self.last is None else self.last
        journal.keep_until(last)
        return {record.page: Kept(record.page, record.rows, record.digest) for record in records if record.page <= last}


def _shard_names(content: Checkpoint) -> list[str]:
    return [content.layout.shard_name(entry.number) for entry in content.sealed] if content.layout else []


@contextmanager
def _appearing(path: Path, content: Checkpoint) -> Iterator[Folder]:
    """Make a snapshot's folder: the block may fill it; then it gets its checkpoint and, all at once, its name.

    Raises:
        LocalError: there is such a folder already, or it cannot be made.
    """
    make_folder(path.parent)
    draft = path.with_name(TEMPORARY + path.name)
    with Folder(path.parent) as above:
        if above.stat(path.name) is not None:
            raise LocalError(f"cannot create {path}: it is there already", hint="run again in a second")
        make_folder(draft)
        with Folder(draft) as folder:
            yield folder
            folder.replace(CHECKPOINT, encode(content))
        above.rename(draft.name, path.name)

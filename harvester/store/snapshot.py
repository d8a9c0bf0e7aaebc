"""A snapshot on disk while it is being filled: pages into journals, journals into finished shards.

Everything here waits for the disk, so one thread calls it. Formats and the order of writes are those of FORMAT.md:
nothing points at what is not yet durable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from harvester.errors import DamagedError, LocalError
from harvester.model import Page
from harvester.shard import (
    INDEX_HEAD,
    INDEX_RECORD_BYTES,
    JOURNAL_FILE,
    SHARD_FILE,
    Layout,
    PageRecord,
    ShardEntry,
    index_record,
)
from harvester.store.checkpoint import Checkpoint, decode, encode
from harvester.store.durable import TEMPORARY, Folder, make_folder, repair_hint, sync, write_all
from harvester.store.journal import Journal
from harvester.store.sealed import INDEX, hash_fault, index_records, sealed_stat, sound_pages
from harvester.store.shardfile import require, write_shard

CHECKPOINT: Final = "checkpoint.json"
PACKAGE: Final = "datapackage.json"
QUARANTINE: Final = "quarantine"
_FOR_PEOPLE: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_CAUSES_SHOWN: Final = 10


class Kept(NamedTuple):
    """A page found in a journal: it is kept, its shard not finished yet."""

    page: int
    rows: int
    digest: bytes


class Snapshot:
    """A snapshot that is being filled. After an error of the disk it refuses everything but ``close``.

    Attributes:
        identity: what makes the dataset the same one; as given to ``create``.
        created: when the snapshot was begun; as given to ``create``.
        layout: None until ``freeze``.
        end: what ``set_end`` was given last, with at least ``last``, the number of the last page; else None.
        notes: the caller's own; saved whenever the checkpoint is.
        sealed: the finished shards by number.
    """

    def __init__(self, folder: Folder, content: Checkpoint) -> None:
        self.identity: Final = content.identity
        self.created: Final = content.created
        self.layout = content.layout
        self.end = content.end
        self.notes = content.notes
        self.sealed = {entry.number: entry for entry in content.sealed}
        self._folder = folder
        self._journals: dict[int, Journal] = {}
        self._failed = False

    @classmethod
    def create(cls, path: Path, identity: dict[str, Any], created: str) -> Snapshot:
        """Begin a snapshot in a new folder, which appears together with its checkpoint.

        Raises:
            LocalError: there is such a folder already, or it cannot be made.
        """
        content = Checkpoint(identity=identity, created=created, layout=None, end=None, notes={}, sealed=[])
        make_folder(path.parent)
        draft = path.with_name(TEMPORARY + path.name)
        with Folder(path.parent) as above:
            if above.stat(path.name) is not None:
                raise LocalError(f"cannot create {path}: it is there already", hint="run again in a second")
            make_folder(draft)
            with Folder(draft) as folder:
                folder.replace(CHECKPOINT, encode(content))
            above.rename(draft.name, path.name)
        return cls(Folder(path), content)

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """Open a snapshot to continue or inspect it; changes nothing. ``recover`` comes before anything is added.

        Raises:
            DamagedError: its checkpoint is missing or not what was written.
            LocalError: a newer version wrote it, or it cannot be read.
        """
        folder = Folder(path)
        try:
            return cls(folder, _read_checkpoint(folder))
        except BaseException:
            folder.close()
            raise

    @property
    def path(self) -> Path:
        """The snapshot's folder."""
        return self._folder.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; saves nothing."""
        self._folder.close()

    def freeze(self, layout: Layout) -> None:
        """Fix how pages are laid out, durably; before the first page, and once.

        Raises:
            UsageError: the library of the layout's compression is not installed.
        """
        if self.layout is not None:
            raise ValueError("the layout is frozen already")
        require(layout.compression)
        with self._changing():
            self._folder.replace(INDEX, INDEX_HEAD)
            self.layout = layout
            self._save()

    def save(self) -> None:
        """Write the checkpoint with the present ``notes``."""
        with self._changing():
            self._save()

    def append(self, pages: Sequence[tuple[int, Page]]) -> None:
        """Keep pages, in any order: when this returns they survive a stop. Of a page given twice the last counts.

        Pages beyond the end are left out.

        Raises:
            ValueError: a page belongs to a sealed shard (``reopen`` it first), or a page is not well formed.
            LocalError: the disk is full or broken; the pages may or may not have been kept.
        """
        layout = self._frozen()
        batches: dict[int, list[tuple[int, Page]]] = {}
        for number, page in pages:
            if self._last is None or number <= self._last:
                batches.setdefault(layout.shard_of(number), []).append((number, page))
        if sealed := batches.keys() & self.sealed.keys():
            raise ValueError(f"shards {sorted(sealed)} are sealed")
        with self._changing():
            created = False
            for shard, batch in batches.items():
                journal = self._journals.get(shard) or Journal(self._folder, layout, shard)
                created |= journal.append(batch)
                self._journals[shard] = journal
            if created:
                self._folder.sync()

    def complete(self, shard: int) -> bool:
        """Tell whether every page of a shard, as far as the end is known, is kept or sealed."""
        if shard in self.sealed:
            return True
        journal = self._journals.get(shard)
        return journal is not None and journal.held == len(self._frozen().pages_of(shard, self._last))

    def edge_digests(self) -> dict[int, bytes]:
        """Return the digests of the outer pages of every sealed shard, from the index."""
        edges = {page for entry in self.sealed.values() for page in (entry.first, entry.last)}
        records = (index_records(self._folder, range(page, page + 1)) for page in sorted(edges))
        return {record.page: record.digest for found in records for record in found}

    def pages(self) -> Iterator[int]:
        """Yield the pages that are durable, sealed or in journals, without changing anything."""
        for entry in self.sealed.values():
            yield from range(entry.first, entry.last + 1)
        for name in self._folder.names():
            match = JOURNAL_FILE.fullmatch(name)
            if match and self.layout is not None and int(match[1]) not in self.sealed:
                records = Journal(self._folder, self.layout, int(match[1])).scan().records
                yield from {record.page for record in records}

    def missing(self, shard: int) -> list[int]:
        """Return the pages of a shard that are neither kept nor sealed, as far as the end is known."""
        if shard in self.sealed:
            return []
        pages = self._frozen().pages_of(shard, self._last)
        return self._journals[shard].missing(pages) if shard in self._journals else list(pages)

    def seal(self, shard: int) -> ShardEntry:
        """Turn a complete journal into a finished shard, its pages in order.

        Raises:
            DamagedError: a page in the journal is not what was written; the journal stays.
        """
        if shard in self.sealed or not self.complete(shard):
            raise ValueError(f"shard {shard} is sealed already or lacks pages")
        layout = self._frozen()
        journal = self._journals[shard]
        name = layout.shard_name(shard)
        records: list[PageRecord] = []

        def lines_in_order() -> Iterator[bytes]:
            for record, lines in journal.read(layout.pages_of(shard, self._last)):
                records.append(record)
                yield lines

        with self._changing():
            with self._folder.replacing(name) as fd:
                written = write_shard(fd, lines_in_order(), layout.compression)
                stored = os.fstat(fd)
            with self._folder.opened(INDEX, os.O_WRONLY, "write") as fd:
                os.lseek(fd, records[0].page * INDEX_RECORD_BYTES, os.SEEK_SET)
                write_all(fd, b"".join(map(index_record, records)))
                sync(fd)
            self.sealed[shard] = ShardEntry(
                number=shard,
                first=records[0].page,
                last=records[-1].page,
                rows=sum(record.rows for record in records),
                bytes=written.bytes,
                sha256=written.sha256,
                file_bytes=written.file_bytes,
                mtime_ns=stored.st_mtime_ns,
                content_sha256=written.content_sha256,
            )
            self._save()
            del self._journals[shard]
            self._folder.unlink(journal.name)
        return self.sealed[shard]

    def reopen(self, shard: int) -> list[int]:
        """Take a sealed shard apart again, to put other pages into it or because it is damaged.

        Returns:
            The pages that are not what the index says, and have to be fetched again.
        """
        layout = self._frozen()
        entry = self.sealed[shard]
        with self._changing():
            self._folder.unlink(PACKAGE)
            journal = Journal(self._folder, layout, shard)
            journal.rewrite(sound_pages(self._folder, layout, entry))
            self._journals[shard] = journal
            del self.sealed[shard]
            self._save()
            self._folder.unlink(layout.shard_name(shard))
        return journal.missing(range(entry.first, entry.last + 1))

    def set_end(self, end: dict[str, Any]) -> None:
        """Say what is known of the dataset's end, durably, and drop the pages beyond it.

        Args:
            end: at least ``last``, the number of the last page; 0 if there is none at all.
        """
        last = end["last"]
        if not isinstance(last, int) or last < 0:
            raise ValueError("end['last'] is the number of a page, or 0")
        with self._changing():
            if self.layout is not None:
                for entry in list(self.sealed.values()):
                    pages = self.layout.pages_of(entry.number, last)
                    if pages and pages[-1] != entry.last:
                        self.reopen(entry.number)
            self._folder.unlink(PACKAGE)
            self.end = end
            self.sealed = {number: entry for number, entry in self.sealed.items() if entry.first <= last}
            self._save()
            self._journals = {number: kept for number, kept in self._journals.items() if kept.pages[0] <= last}
            self._drop_leftovers()
            for journal in self._journals.values():
                journal.keep_until(last)

    def finish(self, package: dict[str, Any]) -> None:
        """Hash every shard once more and write the data package; the snapshot can then be published.

        Args:
            package: the whole content of ``datapackage.json``; its resources come from ``shard.resources``.

        Raises:
            ValueError: the end is not known, or a shard is not sealed.
            DamagedError: a shard is not what was written.
        """
        last = self._last
        if last is None:
            raise ValueError("the end is not known")
        layout = self.layout
        expected = layout.shards(last) if layout else range(0)
        if sorted(self.sealed) != list(expected):
            raise ValueError(f"{len(expected) - len(self.sealed)} shards are not sealed")
        with self._changing():
            if layout is not None:
                self._demand({number: hash_fault(self._folder, layout, entry) for number, entry in self.sealed.items()})
                with self._folder.opened(INDEX, os.O_WRONLY, "write") as fd:
                    os.ftruncate(fd, (last + 1) * INDEX_RECORD_BYTES)
                    os.fsync(fd)
            self._folder.replace(PACKAGE, orjson.dumps(package, option=_FOR_PEOPLE))

    def close_open(self) -> None:
        """Remove what only an open snapshot needs; after publication."""
        with self._changing():
            for name in self._folder.names():
                if JOURNAL_FILE.fullmatch(name) or name.startswith(TEMPORARY):
                    self._folder.unlink(name)
            self._folder.unlink(CHECKPOINT)
            self._folder.sync()

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
            repair: keep what is sound of damaged files instead of raising; the other pages are missing then.

        Returns:
            The pages in journals, those that were kept before, in page order.

        Raises:
            DamagedError: files are missing or not what was written; names each, and says how to repair.
        """
        if self.layout is not None:
            require(self.layout.compression)
        with self._changing():
            self._drop_leftovers()
            faults = self._look_at_sealed()
            if not repair:
                self._demand(faults)
            for shard in faults:
                self.reopen(shard)
            kept: dict[int, Kept] = {}
            for name in self._folder.names():
                match = JOURNAL_FILE.fullmatch(name)
                if match:
                    kept |= self._replay(int(match[1]), repair=repair)
            self._folder.sync()
            self._save()
            return [kept[page] for page in sorted(kept)]

    @property
    def _last(self) -> int | None:
        return None if self.end is None else self.end["last"]

    def _frozen(self) -> Layout:
        if self.layout is None:
            raise ValueError("the layout is not frozen yet")
        return self.layout

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Refuse to go on after an error of the disk: what memory says and what is durable may differ from then on."""
        if self._failed:
            raise LocalError(f"cannot go on with {self.path} after an error", hint="run again")
        try:
            yield
        except DamagedError:
            raise  # found while reading; what is durable is as before
        except LocalError:
            self._failed = True
            raise

    def _save(self) -> None:
        content = Checkpoint(
            identity=self.identity,
            created=self.created,
            layout=self.layout,
            end=self.end,
            notes=self.notes,
            sealed=[self.sealed[number] for number in sorted(self.sealed)],
        )
        self._folder.replace(CHECKPOINT, encode(content))

    def _drop_leftovers(self) -> None:
        """Delete what nothing points at: drafts, what is beyond the end, and either half of a seal cut short."""
        names = self._folder.names()
        for name in names:
            match = JOURNAL_FILE.fullmatch(name) or SHARD_FILE.fullmatch(name)
            if name.startswith(TEMPORARY) or (match and self._is_leftover(int(match[1]), name, names)):
                self._folder.unlink(name)

    def _is_leftover(self, shard: int, name: str, names: list[str]) -> bool:
        layout = self.layout
        if layout is None:
            return False
        journal = layout.journal_name(shard)
        if self._last is not None and not layout.pages_of(shard, self._last):
            return True
        if shard in self.sealed:
            return name == journal
        return name == layout.shard_name(shard) and journal in names

    def _look_at_sealed(self) -> dict[int, str]:
        """Return what is wrong with sealed shards, by number; note the new times of those that only look changed."""
        faults: dict[int, str] = {}
        for number, entry in self.sealed.items():
            found = sealed_stat(self._folder, self._frozen(), entry)
            if isinstance(found, str):
                faults[number] = found
            else:
                self.sealed[number] = found
        return faults

    def _replay(self, shard: int, *, repair: bool) -> dict[int, Kept]:
        if self.layout is None:  # it is durable before the first journal is
            raise DamagedError(f"{self.path} has a journal of shard {shard} but no layout", hint=repair_hint(self.path))
        journal = Journal(self._folder, self.layout, shard)
        records = journal.replay(repair=repair)
        self._journals[shard] = journal
        last = journal.pages[-1] if self._last is None else self._last
        journal.keep_until(last)
        return {record.page: Kept(record.page, record.rows, record.digest) for record in records if record.page <= last}

    def _demand(self, faults: dict[int, str]) -> None:
        """Raise if there are faults, given by number of shard; an empty text is none."""
        causes = [f"{self._frozen().shard_name(shard)} {fault}" for shard, fault in faults.items() if fault]
        if not causes:
            return
        shown = causes[:_CAUSES_SHOWN]
        if len(shown) < len(causes):
            shown.append(f"and {len(causes) - len(shown)} more")
        raise DamagedError(f"{self.path} does not hold what was written", causes=shown, hint=repair_hint(self.path))


def _read_checkpoint(folder: Folder) -> Checkpoint:
    data = folder.read(CHECKPOINT)
    if data is None:
        raise DamagedError(
            f"cannot continue {folder.path}: there is no {CHECKPOINT}",
            hint=repair_hint(folder.path),
        )
    return decode(data, folder.path / CHECKPOINT)

"""A snapshot as it lies on disk, for reading: what is known of it, which pages are there, their digests and lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from harvester.shard import JOURNAL_FILE, Layout, ShardEntry
from harvester.store.checkpoint import CHECKPOINT, Checkpoint, decode
from harvester.store.durable import Folder
from harvester.store.index import Index
from harvester.store.journal import Journal
from harvester.store.package import members, read_package
from harvester.store.sealed import checked_pages, records_of


class Contents:
    """What a snapshot, finished or open, holds. Nothing here changes a file.

    Attributes:
        identity: what makes the dataset the same one.
        created: when the snapshot was begun.
        layout: how pages are laid out in shards; None until that is known.
        end: what is known of the end, with at least ``last``, the number of the last page; else None.
        notes: the caller's own, as last saved.
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
        self._index = Index(folder)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a snapshot by its checkpoint, or by its data package if it is finished.

        Raises:
            DamagedError: both are missing, or what is there is not what was written.
            LocalError: a newer version wrote it, or it cannot be read.
        """
        folder = Folder(path)
        try:
            return cls(folder, cls._recorded(folder))
        except BaseException:
            folder.close()
            raise

    @property
    def path(self) -> Path:
        """The snapshot's folder."""
        return self._folder.path

    @property
    def last(self) -> int | None:
        """The number of the last page, 0 if there is none at all; None while that is not known."""
        return None if self.end is None else self.end["last"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder and its files; saves nothing."""
        self._index.close()
        self._folder.close()

    def pages(self) -> Iterator[int]:
        """Yield the pages that are durable, sealed or in journals."""
        for entry in self._in_order():
            yield from range(entry.first, entry.last + 1)
        for name in self._folder.names():
            match = JOURNAL_FILE.fullmatch(name)
            if match and self.layout is not None and int(match[1]) not in self.sealed:
                records = Journal(self._folder, self.layout, int(match[1])).scan().records
                yield from {record.page for record in records}

    def journal_bytes(self) -> int:
        """Return how much room the journals take."""
        found = (self._folder.stat(name) for name in self._folder.names() if JOURNAL_FILE.fullmatch(name))
        return sum(journal.st_size for journal in found if journal is not None)

    def digest_of(self, page: int) -> bytes:
        """Return the 16 bytes that stand for a page's lines, by one read of the index; empty if there are none.

        They are those of when its shard was sealed last: of a page that was replaced since, or that came back from a
        journal, what ``rewrite`` was given or ``recover`` returned is newer.
        """
        if self.layout is None or page < 1 or (self.last is not None and page > self.last):
            return b""
        return self._index.digest(page)

    def edge_digests(self) -> dict[int, bytes]:
        """Return the digests of the outer pages of every sealed shard."""
        edges = {page for entry in self.sealed.values() for page in (entry.first, entry.last)}
        return {page: digest for page in edges if (digest := self.digest_of(page))}

    def page_digests(self) -> Iterator[bytes]:
        """Yield the digests of the sealed pages that have rows, in page order; a shard at a time in memory.

        Raises:
            DamagedError: the index lacks one.
        """
        for entry in self._in_order():
            yield from (record.digest for record in records_of(self._folder, entry) if record.rows)

    def lines(self, first: int = 1, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the sealed pages from ``first`` to ``last``, each with its lines, in page order.

        Raises:
            DamagedError: a page is not what was written.
            LocalError: a shard cannot be read.
        """
        for entry in self._in_order():
            stop = entry.last if last is None else min(last, entry.last)
            if self.layout is not None and max(first, entry.first) <= stop:
                yield from checked_pages(self._folder, self.layout, entry, range(first, stop + 1))

    def package_members(self) -> dict[str, Any]:
        """Return what a data package has to hold under ``harvester`` for the snapshot to be opened from it."""
        return members(self._content())

    def _in_order(self) -> list[ShardEntry]:
        return [self.sealed[number] for number in sorted(self.sealed)]

    def _content(self) -> Checkpoint:
        return Checkpoint(
            identity=self.identity,
            created=self.created,
            layout=self.layout,
            end=self.end,
            notes=self.notes,
            sealed=self._in_order(),
        )

    def _frozen(self) -> Layout:
        if self.layout is None:
            raise ValueError("the layout is not frozen yet")
        return self.layout

    @classmethod
    def _recorded(cls, folder: Folder) -> Checkpoint:
        found = read_checkpoint(folder)
        return read_package(folder) if found is None else found


def read_checkpoint(folder: Folder) -> Checkpoint | None:
    """Read the checkpoint of an open snapshot; None if there is none.

    Raises:
        DamagedError: it is not what was written.
        LocalError: a newer version wrote it, or it cannot be read.
    """
    data = folder.read(CHECKPOINT)
    return None if data is None else decode(data, folder.path / CHECKPOINT)

"""Filling a snapshot: pages into journals, journals into finished shards, and back when they have to change.

Everything here waits for the disk, so one thread calls it. The order of writes is that of FORMAT.md: nothing points at
what is not yet durable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harvester.errors import DamagedError, LocalError
from harvester.model import Page
from harvester.shard import Layout, ShardEntry, index_record
from harvester.store.checkpoint import CHECKPOINT, Checkpoint, encode
from harvester.store.contents import Contents
from harvester.store.durable import Folder
from harvester.store.journal import Journal
from harvester.store.package import PACKAGE
from harvester.store.recovery import demand_none, leftovers, strangers
from harvester.store.sealed import sound_pages, write_sealed
from harvester.store.shardfile import require


class Filling(Contents):
    """A snapshot that takes pages. After an error of the disk it refuses to change anything more.

    Attributes:
        layout: None until ``freeze``.
        end: what ``set_end`` was given last; None before.
        notes: the caller's own; saved whenever the checkpoint is.
    """

    def __init__(self, folder: Folder, content: Checkpoint) -> None:
        super().__init__(folder, content)
        self._journals: dict[int, Journal] = {}
        self._failed = False

    def freeze(self, layout: Layout) -> None:
        """Fix how pages are laid out, durably; before the first page, and once.

        Raises:
            UsageError: the library of the layout's compression is not installed.
        """
        if self.layout is not None:
            raise ValueError("the layout is frozen already")
        require(layout.compression)
        with self._changing():
            self._index.create()
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
            ValueError: a page belongs to a sealed shard (``rewrite`` replaces those), or a page is not well formed.
            LocalError: the disk is full or broken; the pages may or may not have been kept.
        """
        batches = self._by_shard(pages)
        if sealed := batches.keys() & self.sealed.keys():
            raise ValueError(f"shards {sorted(sealed)} are sealed")
        with self._changing():
            created = False
            for shard, batch in batches.items():
                journal = self._journals.get(shard) or Journal(self._folder, self._frozen(), shard)
                created |= journal.append(batch)
                self._journals[shard] = journal
            if created:
                self._folder.sync()

    def rewrite(self, pages: Sequence[tuple[int, Page]]) -> None:
        """Replace pages, wherever they are, as durably as ``append``; a shard concerned has to be sealed again.

        It is copied once, by the first call that concerns it; after that its journal grows.

        Raises:
            DamagedError: another page of a shard concerned is not what was written; that shard stays as it is.
            ValueError: a page is not well formed.
            LocalError: the disk is full or broken; the pages may or may not have been kept.
        """
        for shard, batch in self._by_shard(pages).items():
            if shard in self.sealed:
                entry = self.sealed[shard]
                with self._changing():
                    self._reopen(shard, set(range(entry.first, entry.last + 1)) - {number for number, _ in batch})
        self.append(pages)

    def complete(self, shard: int) -> bool:
        """Tell whether every page of a shard, as far as the end is known, is kept or sealed."""
        if shard in self.sealed:
            return True
        journal = self._journals.get(shard)
        return journal is not None and journal.held == len(self._frozen().pages_of(shard, self.last))

    def seal(self, shard: int) -> ShardEntry:
        """Turn a complete journal into a finished shard, its pages in order.

        Raises:
            DamagedError: a page in the journal is not what was written; the journal stays.
        """
        if shard in self.sealed or not self.complete(shard):
            raise ValueError(f"shard {shard} is sealed already or lacks pages")
        journal = self._journals[shard]
        with self._changing():
            layout = self._frozen()
            with journal.whole(layout.pages_of(shard, self.last)) as (records, lines):
                entry = write_sealed(self._folder, layout, shard, records, lines)
        self.record(entry, b"".join(map(index_record, records)))
        return entry

    def hand_over(self, shard: int) -> None:
        """Forget the journal of a shard: another process goes on with it."""
        self._journals.pop(shard, None)

    def record(self, entry: ShardEntry, records: bytes) -> None:
        """Record a shard whose file was made durable from its journal, here or by another process; the journal goes.

        Args:
            entry: of the shard.
            records: of its pages, as they stand in the index.
        """
        with self._changing():
            self._index.put(entry.first, records)
            self.sealed[entry.number] = entry
            self._save()
            self._journals.pop(entry.number, None)
            self._folder.unlink(self._frozen().journal_name(entry.number))

    def set_end(self, end: dict[str, Any]) -> None:
        """Say what is known of the dataset's end, durably, and drop the pages beyond it.

        The end may move, also when everything is sealed: the shard that it cuts otherwise than before is unsealed.

        Args:
            end: at least ``last``, the number of the last page; 0 if there is none at all.

        Raises:
            DamagedError: a page of the shard that it cuts is not what was written; nothing was changed.
        """
        last = end["last"]
        if not isinstance(last, int) or last < 0:
            raise ValueError("end['last'] is the number of a page, or 0")
        with self._changing():
            if self.layout is not None:
                for entry in self._in_order():
                    pages = self.layout.pages_of(entry.number, last)
                    if pages and pages[-1] != entry.last:
                        self._reopen(entry.number, range(entry.first, min(entry.last, last) + 1))
            self._folder.unlink(PACKAGE)
            self.end = end
            self.sealed = {number: entry for number, entry in self.sealed.items() if entry.first <= last}
            self._save()
            if self.layout is not None:
                self._index.cut(last)
            self._journals = {number: kept for number, kept in self._journals.items() if kept.pages[0] <= last}
            self._drop_leftovers()
            for journal in self._journals.values():
                journal.keep_until(last)

    def forget_end(self) -> None:
        """Say that the end is not known any more, durably, so that pages beyond it can come."""
        last, layout = self.last, self.layout
        if last is None:
            return
        with self._changing():
            entry = self.sealed.get(layout.shard_of(last)) if layout is not None and last else None
            if layout is not None and entry is not None and layout.pages_of(entry.number)[-1] != entry.last:
                self._reopen(entry.number, range(entry.first, entry.last + 1))
            self._folder.unlink(PACKAGE)
            self.end = None
            self._save()

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
        self._folder.replace(CHECKPOINT, encode(self._content()))

    def _by_shard(self, pages: Sequence[tuple[int, Page]]) -> dict[int, list[tuple[int, Page]]]:
        """Sort pages by shard and leave out those beyond the end."""
        layout = self._frozen()
        batches: dict[int, list[tuple[int, Page]]] = {}
        for number, page in pages:
            if self.last is None or number <= self.last:
                batches.setdefault(layout.shard_of(number), []).append((number, page))
        return batches

    def _reopen(self, shard: int, required: Collection[int]) -> None:
        """Take a sealed shard apart: its sound pages become a journal.

        Args:
            shard: its number.
            required: pages without which it stays as it is.

        Raises:
            DamagedError: one of these is not what the index says.
        """
        layout = self._frozen()
        journal = Journal(self._folder, layout, shard)

        def sound() -> Iterator[tuple[int, Page]]:
            lost = set(required)
            for number, page in sound_pages(self._folder, layout, self.sealed[shard]):
                lost.discard(number)
                yield number, page
            demand_none(self.path, (f"page {n} in {layout.shard_name(shard)} has changed" for n in sorted(lost)))

        journal.rewrite(sound())
        self._folder.unlink(PACKAGE)
        self._journals[shard] = journal
        del self.sealed[shard]
        self._save()
        self._folder.unlink(layout.shard_name(shard))

    def _drop_leftovers(self, *, strangers_too: bool = False) -> None:
        names = self._folder.names()
        found = leftovers(names, self.layout, self.last, self.sealed)
        if strangers_too and self.layout is not None:
            found += strangers(names, self.layout, self.sealed)
        for name in found:
            self._folder.unlink(name)

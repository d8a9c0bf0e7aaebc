"""The journal of one unfinished shard on disk: batches in, pages out in any order.

Of each page only its place in the file is held in memory. Nothing is kept open between two calls, so a slow page that
leaves hundreds of shards unfinished costs no file descriptors.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from harvester.errors import DamagedError, LocalError
from harvester.model import Page
from harvester.shard import (
    JOURNAL_VERSION,
    PAGE_HEADER_MAX,
    JournalContent,
    Layout,
    PageRecord,
    commit_marker,
    journal_start,
    page_digest,
    page_header,
    parse_page_header,
    read_journal,
)
from harvester.store.durable import Folder, explained, fresh_hint, read_at, repair_hint, sync, write_all


class Journal:
    """One shard's journal; the file appears with the first batch.

    Attributes:
        name: the file's name.
        pages: the full range of the shard, whatever the dataset's end.
        held: how many different pages are in it.
    """

    __slots__ = ("_folder", "_length", "_offsets", "_shard", "held", "name", "pages")

    def __init__(self, folder: Folder, layout: Layout, shard: int) -> None:
        self.name = layout.journal_name(shard)
        self.pages = layout.pages_of(shard)
        self.held = 0
        self._folder = folder
        self._shard = shard
        self._length = 0
        self._offsets = array("Q", bytes(8 * len(self.pages)))  # of header lines; 0, the file's first line, is no page

    def append(self, batch: Sequence[tuple[int, Page]]) -> bool:
        """Write a batch and return when it is durable; true for a new file, whose folder the caller has to sync.

        Raises:
            LocalError: the file cannot be written, or is not as it was left.
        """
        new = not self._length
        pieces = [journal_start(self._shard) if new else commit_marker(self._length)]
        places: list[tuple[int, int]] = []
        offset = self._length + len(pieces[0])
        for number, page in batch:
            header = page_header(number, page)
            places.append((number, offset))
            pieces += (header, page.lines)
            offset += len(header) + len(page.lines)
        with self._folder.opened(self.name, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), "write") as fd:
            if os.lseek(fd, 0, os.SEEK_END) != self._length:
                raise self._damaged(self._length, "its length is not the one it was left with")
            try:
                write_all(fd, b"".join(pieces))
                sync(fd)
            except OSError:
                # The system may take the batch for written now, and tell the next process so: it must not be there.
                with suppress(OSError):  # the error that is raised came first
                    os.ftruncate(fd, self._length)
                raise
        self._length = offset
        for number, place in places:
            self._put(number, place)
        return new

    def read(self, pages: Iterable[int]) -> Iterator[tuple[PageRecord, bytes]]:
        """Yield pages that are in it, in the order asked for, each with its lines.

        Raises:
            DamagedError: a page is not what was written.
            LocalError: the file cannot be read.
        """
        with self._folder.opened(self.name, os.O_RDONLY, "read") as fd:
            for page in pages:
                yield self._page(fd, page)

    def rewrite(self, pages: Iterable[tuple[int, Page]]) -> None:
        """Replace the file by one that holds just these pages, durably."""
        places: list[tuple[int, int]] = []
        start = journal_start(self._shard)
        length = len(start)
        with self._folder.replacing(self.name) as fd:
            write_all(fd, start)
            for number, page in pages:
                header = page_header(number, page)
                write_all(fd, header + page.lines)
                places.append((number, length))
                length += len(header) + len(page.lines)
        self._length = length
        self.held = 0
        self._offsets = array("Q", bytes(8 * len(self.pages)))
        for number, place in places:
            self._put(number, place)

    def keep_until(self, last: int) -> None:
        """Drop the pages after ``last``, durably, so that they cannot come back."""
        held = [page for page, offset in enumerate(self._offsets, self.pages.start) if offset]
        if held and held[-1] > last:
            kept = [page for page in held if page <= last]
            self.rewrite((record.page, Page(lines, record.rows)) for record, lines in self.read(kept))

    def scan(self) -> JournalContent:
        """Read and check the whole file as it lies there; changes neither it nor what is held in memory.

        Raises:
            LocalError: a newer version wrote it, or it cannot be read.
        """
        with self._folder.opened(self.name, os.O_RDONLY, "read") as fd:
            return self._parse(fd, os.fstat(fd).st_size)

    def replay(self, *, repair: bool) -> list[PageRecord]:
        """Read the file that an earlier process left; cut its torn tail off and sync what stays.

        Args:
            repair: treat damage as a torn tail: keep what stands before it.

        Returns:
            Its records in file order; a page may stand twice.

        Raises:
            DamagedError: it was changed where it had been durable.
            LocalError: it cannot be read or written.
        """
        with self._folder.opened(self.name, os.O_RDWR, "recover") as fd:
            size = os.fstat(fd).st_size
            records, good, damage, _ = self._parse(fd, size)
            if damage and not repair:
                raise self._damaged(damage.offset, f"{damage.reason} ({damage.length} bytes)")
            if good < size:
                os.ftruncate(fd, good)
            os.fsync(fd)
        if not good:
            self._folder.unlink(self.name)
        self._length = good
        for record in records:
            self._put(record.page, record.offset - record.header)
        return records

    def _parse(self, fd: int, size: int) -> JournalContent:
        if not size:  # an empty file cannot be mapped
            return read_journal(b"", self._shard, self.pages)
        with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            content = read_journal(view, self._shard, self.pages)
        if content.version > JOURNAL_VERSION:
            raise LocalError(
                f"cannot continue from {self._folder.path / self.name}: it has version {content.version}, this program "
                f"knows {JOURNAL_VERSION}",
                hint=f"upgrade harvester; or {fresh_hint(self._folder.path)}",
            )
        return content

    def _page(self, fd: int, page: int) -> tuple[PageRecord, bytes]:
        offset = self._offsets[page - self.pages.start]
        with explained("read", self._folder.path / self.name):
            record = parse_page_header(read_at(fd, PAGE_HEADER_MAX, offset), base=offset)
            if record is not None and record.page == page:
                lines = read_at(fd, record.length, record.offset)
                if page_digest(lines) == record.digest:
                    return record, lines
        raise self._damaged(offset, f"page {page} is not what was written")

    def _put(self, page: int, offset: int) -> None:
        place = page - self.pages.start
        self.held += not self._offsets[place]
        self._offsets[place] = offset

    def _damaged(self, offset: int, reason: str) -> DamagedError:
        path = self._folder.path / self.name
        return DamagedError(
            f"{path} is damaged at offset {offset}", causes=[reason], hint=repair_hint(self._folder.path)
        )

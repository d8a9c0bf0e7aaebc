"""The journal of one unfinished shard on disk: batches in, pages out in any order.

Of each page its place in the file and its record for the index are held in memory, 32 bytes. Nothing is kept open
between two calls, so a slow page that leaves hundreds of shards unfinished costs no file descriptors.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Final

from harvester.errors import DamagedError, LocalError
from harvester.model import Page, page_digest
from harvester.shard import (
    INDEX_RECORD_BYTES,
    JOURNAL_VERSION,
    JournalContent,
    Layout,
    PageRecord,
    commit_marker,
    index_record,
    journal_start,
    page_header,
    read_index,
    read_journal,
)
from harvester.store.durable import Folder, explained, fresh_hint, read_at, repair_hint, sync, write_all
from harvester.store.shardfile import file_blocks, file_digest

_JOINED: Final = 512  # headers and pages that go to the file in one piece
_MAPPED: Final = 2**22  # bytes of a mapped file that may count as memory


class Journal:
    """One shard's journal; the file appears with the first batch.

    Attributes:
        name: the file's name.
        pages: the full range of the shard, whatever the dataset's end.
        held: how many different pages are in it.
    """

    __slots__ = ("_content", "_folder", "_length", "_offsets", "_records", "_shard", "held", "name", "pages")

    def __init__(self, folder: Folder, layout: Layout, shard: int) -> None:
        self.name = layout.journal_name(shard)
        self.pages = layout.pages_of(shard)
        self._folder = folder
        self._shard = shard
        self._start_over()

    def _start_over(self) -> None:
        self.held = 0
        self._length = 0
        self._content = sha256()  # of the whole file
        self._offsets = array("Q", bytes(8 * len(self.pages)))  # of lines; 0 is where the file's first line is
        self._records = bytearray(INDEX_RECORD_BYTES * len(self.pages))

    def append(self, batch: Sequence[tuple[int, Page]]) -> bool:
        """Write a batch and return when it is durable; true for a new file, whose folder the caller has to sync.

        Raises:
            LocalError: the file cannot be written, or is not as it was left.
        """
        new = not self._length
        pieces = [journal_start(self._shard) if new else commit_marker(self._length)]
        content = self._content.copy()
        records: list[PageRecord] = []
        offset = self._length + len(pieces[0])
        for number, page in batch:
            header, lines = page_header(number, page), page.lines
            offset += len(header)
            records.append(PageRecord(number, page.rows, offset, len(lines), page.digest, len(header)))
            pieces += (header, lines)
            offset += len(lines)
        with self._folder.opened(self.name, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), "write") as fd:
            if os.lseek(fd, 0, os.SEEK_END) != self._length:
                raise self._damaged(self._length, "its length is not the one it was left with")
            try:
                for at in range(0, len(pieces), _JOINED):
                    block = b"".join(pieces[at : at + _JOINED])
                    write_all(fd, block)
                    content.update(block)
                sync(fd)
            except OSError:
                # The system may take the batch for written now, and tell the next process so: it must not be there.
                with suppress(OSError):  # the error that is raised came first
                    os.ftruncate(fd, self._length)
                raise
        self._length, self._content = offset, content
        for record in records:
            self._put(record)
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

    @contextmanager
    def whole(self, pages: range) -> Iterator[tuple[list[PageRecord], Iterator[bytes]]]:
        """Map the file; give the records of consecutive pages, which are all in it, and their lines one by one.

        The file is compared with what was written once, as a whole: page by page that takes much longer.

        Raises:
            DamagedError: it is not what was written.
            LocalError: it cannot be read.
        """
        first = pages.start - self.pages.start
        packed = bytes(self._records[INDEX_RECORD_BYTES * first : INDEX_RECORD_BYTES * (first + len(pages))])
        records = read_index(packed, pages.start)
        with self._folder.opened(self.name, os.O_RDONLY, "read") as fd:
            if os.fstat(fd).st_size != self._length:
                raise self._damaged(self._length, "its length is not the one it was left with")
            with explained("read", self._folder.path / self.name):
                content = file_digest(fd)
            if content != self._content.hexdigest():
                for page in self._held():
                    self._page(fd, page)  # which says where
                raise self._damaged(0, "what stands between its pages is not what was written")
            with mmap.mmap(fd, self._length, access=mmap.ACCESS_READ) as mapped:
                yield records, _lines(mapped, self._offsets[first : first + len(pages)], records)

    def rewrite(self, pages: Iterable[tuple[int, Page]]) -> None:
        """Replace the file by one that holds just these pages, durably."""
        records: list[PageRecord] = []
        start = journal_start(self._shard)
        content, length = sha256(start), len(start)
        with self._folder.replacing(self.name) as fd:
            write_all(fd, start)
            for number, page in pages:
                header, lines = page_header(number, page), page.lines
                write_all(fd, header + lines)
                content.update(header + lines)
                length += len(header)
                records.append(PageRecord(number, page.rows, length, len(lines), page.digest, len(header)))
                length += len(lines)
        self._start_over()
        self._length, self._content = length, content
        for record in records:
            self._put(record)

    def keep_until(self, last: int) -> None:
        """Drop the pages after ``last``, durably, so that they cannot come back."""
        held = self._held()
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
            self._start_over()
            if good:
                os.lseek(fd, 0, os.SEEK_SET)
                for block in file_blocks(fd):
                    self._content.update(block)
        if not good:
            self._folder.unlink(self.name)
        self._length = good
        for record in records:
            self._put(record)
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

    def _held(self) -> list[int]:
        return [page for page, offset in enumerate(self._offsets, self.pages.start) if offset]

    def _page(self, fd: int, page: int) -> tuple[PageRecord, bytes]:
        place = page - self.pages.start
        offset = self._offsets[place]
        packed = self._records[INDEX_RECORD_BYTES * place : INDEX_RECORD_BYTES * (place + 1)]
        (record,) = read_index(bytes(packed), page)
        with explained("read", self._folder.path / self.name):
            lines = read_at(fd, record.length, offset)
        if page_digest(lines) != record.digest:
            raise self._damaged(offset, f"page {page} is not what was written")
        return record._replace(offset=offset), lines

    def _put(self, record: PageRecord) -> None:
        place = record.page - self.pages.start
        self.held += not self._offsets[place]
        self._offsets[place] = record.offset
        self._records[INDEX_RECORD_BYTES * place : INDEX_RECORD_BYTES * (place + 1)] = index_record(record)

    def _damaged(self, offset: int, reason: str) -> DamagedError:
        path = self._folder.path / self.name
        return DamagedError(
            f"{path} is damaged at offset {offset}", causes=[reason], hint=repair_hint(self._folder.path)
        )


def _lines(mapped: mmap.mmap, places: Iterable[int], records: Iterable[PageRecord]) -> Iterator[bytes]:
    read = 0
    for place, record in zip(places, records, strict=True):
        yield mapped[place : place + record.length]
        read += record.length
        if read >= _MAPPED:
            mapped.madvise(mmap.MADV_DONTNEED)  # the system's cache still has it
            read = 0

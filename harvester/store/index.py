"""``pages.idx`` on disk: digest, rows and bytes of every sealed page, each at a place that its number gives."""

from __future__ import annotations

import os
from typing import Final

from harvester.shard import INDEX_HEAD, INDEX_RECORD_BYTES, PageRecord, read_index
from harvester.store.durable import Folder, explained, read_at, sync, write_all

INDEX: Final = "pages.idx"


class Index:
    """The index of one snapshot.

    Reading keeps a descriptor open from the first look on, so a digest costs one call of the system. It may be read
    in one thread while another writes: a record is one write, and records of other pages are not touched.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fd = -1

    def close(self) -> None:
        """Let go of the file; the next look opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def records(self, pages: range) -> list[PageRecord]:
        """Return the records of consecutive pages, up to the first that is not there."""
        return read_index(self._read(len(pages), pages.start), pages.start)

    def digest(self, page: int) -> bytes:
        """Return the digest recorded of a page when its shard was sealed last; empty if it never was."""
        found = read_index(self._read(1, page), page)
        return found[0].digest if found else b""

    def faults(self, last: int) -> list[str]:
        """Say in words why it cannot hold the records up to page ``last``; nothing if it can."""
        if not self._open():
            return [f"{INDEX} is missing, or does not begin as it should"]
        with explained("look at", self._folder.path / INDEX):
            size = os.fstat(self._fd).st_size
        return [f"{INDEX} ends before page {last}"] if size < (last + 1) * INDEX_RECORD_BYTES else []

    def create(self) -> None:
        """Begin it, durably; whatever was there is gone."""
        self.close()
        self._folder.replace(INDEX, INDEX_HEAD)

    def mend(self) -> None:
        """Make sure that there is an index and that it begins as it should; the records stay."""
        if self._open():
            return
        if not self._folder.is_file(INDEX):
            self.create()
            return
        with self._folder.opened(INDEX, os.O_WRONLY, "write") as fd:
            write_all(fd, INDEX_HEAD)
            sync(fd)

    def put(self, first: int, records: bytes) -> None:
        """Put in the records, as they stand in the file, of the pages from ``first`` on, durably."""
        with self._folder.opened(INDEX, os.O_WRONLY, "write") as fd:
            os.lseek(fd, first * INDEX_RECORD_BYTES, os.SEEK_SET)
            write_all(fd, records)
            sync(fd)

    def cut(self, last: int) -> None:
        """Drop what lies after the record of page ``last``, durably."""
        with self._folder.opened(INDEX, os.O_WRONLY, "write") as fd:
            os.ftruncate(fd, (last + 1) * INDEX_RECORD_BYTES)
            os.fsync(fd)

    def _read(self, count: int, page: int) -> bytes:
        if not self._open():
            return b""
        with explained("read", self._folder.path / INDEX):
            return read_at(self._fd, count * INDEX_RECORD_BYTES, page * INDEX_RECORD_BYTES)

    def _open(self) -> bool:
        """Open it if it is there and begins as an index does; without that nothing in it is believed."""
        if self._fd >= 0:
            return True
        if not self._folder.is_file(INDEX):
            return False
        with self._folder.opened(INDEX, os.O_RDONLY, "read") as fd:
            if read_at(fd, INDEX_RECORD_BYTES, 0) != INDEX_HEAD:
                return False
            self._fd = os.dup(fd)
        return True


def index_records(folder: Folder, pages: range) -> list[PageRecord]:
    """Return the records of consecutive pages, up to the first that is not there; keeps nothing open."""
    index = Index(folder)
    try:
        return index.records(pages)
    finally:
        index.close()

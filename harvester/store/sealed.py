"""Looking at finished shards: are they what was recorded, and which of their pages still are?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from harvester.errors import DamagedError
from harvester.model import Page
from harvester.shard import INDEX_HEAD, INDEX_RECORD_BYTES, Layout, PageRecord, ShardEntry, page_digest, read_index
from harvester.store.durable import Folder, read_at
from harvester.store.shardfile import cut, file_digest, read_shard

INDEX: Final = "pages.idx"


def sealed_stat(folder: Folder, layout: Layout, entry: ShardEntry) -> ShardEntry | str:
    """Look at a shard as cheaply as can be: length and time of modification, the content only if the time differs.

    Returns:
        The entry, with the file's present time; or in words what is wrong.
    """
    found = folder.stat(layout.shard_name(entry.number))
    if found is None:
        return "is missing"
    if found.st_size != entry.file_bytes:
        return f"has {found.st_size} bytes instead of {entry.file_bytes}"
    if found.st_mtime_ns == entry.mtime_ns:
        return entry
    return hash_fault(folder, layout, entry) or replace(entry, mtime_ns=found.st_mtime_ns)


def hash_fault(folder: Folder, layout: Layout, entry: ShardEntry) -> str:
    """Say in words what is wrong with a shard's file as a whole; empty if nothing is."""
    name = layout.shard_name(entry.number)
    if not folder.is_file(name):
        return "is missing"
    with folder.opened(name, os.O_RDONLY, "read") as fd:
        return "" if file_digest(fd) == entry.sha256 else "is not what was written: its SHA-256 differs"


def index_records(folder: Folder, pages: range) -> list[PageRecord]:
    """Return the index's records of consecutive pages, up to the first that is not there."""
    if not folder.is_file(INDEX):
        return []
    with folder.opened(INDEX, os.O_RDONLY, "read") as fd:
        if read_at(fd, INDEX_RECORD_BYTES, 0) != INDEX_HEAD:
            return []
        data = read_at(fd, len(pages) * INDEX_RECORD_BYTES, pages.start * INDEX_RECORD_BYTES)
    return read_index(data, pages.start)


def sound_pages(folder: Folder, layout: Layout, entry: ShardEntry) -> Iterator[tuple[int, Page]]:
    """Yield the pages of a shard that are still what the index says; none if there is nothing to compare."""
    name = layout.shard_name(entry.number)
    if not folder.is_file(name):
        return
    records = index_records(folder, range(entry.first, entry.last + 1))
    with folder.opened(name, os.O_RDONLY, "read") as fd:
        pieces = cut(read_shard(fd, layout.compression, name), (record.length for record in records))
        try:
            for record, lines in zip(records, pieces, strict=False):
                if page_digest(lines) == record.digest:
                    yield record.page, Page(lines, record.rows)
        except DamagedError:
            return  # the rest of a compressed file cannot be had: its pages are missing

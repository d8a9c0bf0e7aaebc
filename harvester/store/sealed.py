"""Finished shards: writing them with what is recorded of them, and looking whether that is still true."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from harvester.errors import DamagedError
from harvester.model import Page, page_digest
from harvester.shard import Layout, PageRecord, ShardEntry, has_twins
from harvester.store.durable import Folder, repair_hint
from harvester.store.index import INDEX, index_records
from harvester.store.shardfile import cut, file_digest, read_shard, write_shard


def write_sealed(
    folder: Folder, layout: Layout, shard: int, records: Sequence[PageRecord], lines: Iterable[bytes]
) -> ShardEntry:
    """Write the file of a shard, durably, from all of its pages in order; of their lines one page is held at a time.

    Returns:
        What is to be recorded of the shard.
    """
    twins = 0

    def counted() -> Iterator[bytes]:
        nonlocal twins
        for record, page in zip(records, lines, strict=True):
            twins += has_twins(page, record.rows)
            yield page

    with folder.replacing(layout.shard_name(shard)) as fd:
        written = write_shard(fd, counted(), layout.compression)
        stored = os.fstat(fd)
    return ShardEntry(
        number=shard,
        first=records[0].page,
        last=records[-1].page,
        rows=sum(record.rows for record in records),
        bytes=written.bytes,
        sha256=written.sha256,
        file_bytes=written.file_bytes,
        mtime_ns=stored.st_mtime_ns,
        content_sha256=written.content_sha256,
        twins=twins,
    )


def sealed_stat(folder: Folder, layout: Layout, entry: ShardEntry, *, thorough: bool = False) -> ShardEntry | str:
    """Look at a shard as cheaply as can be: length and time of modification, the content only if the time differs.

    Args:
        folder: the snapshot's.
        layout: of the snapshot.
        entry: what was recorded of the shard.
        thorough: hash the file whatever its time, and compare every page with the index.

    Returns:
        The entry, with the file's present time; or in words what is wrong.
    """
    found = folder.stat(layout.shard_name(entry.number))
    if found is None:
        return "is missing"
    if found.st_size != entry.file_bytes:
        return f"has {found.st_size} bytes instead of {entry.file_bytes}"
    if found.st_mtime_ns == entry.mtime_ns and not thorough:
        return entry
    fault = hash_fault(folder, layout, entry)
    if not fault and thorough:
        pages = stored_pages(folder, layout, entry.number, index_records(folder, _pages(entry)))
        if sum(agrees(record, lines) for record, lines in pages) < len(_pages(entry)):
            fault = f"does not agree with {INDEX}"
    return fault or replace(entry, mtime_ns=found.st_mtime_ns)


def hash_fault(folder: Folder, layout: Layout, entry: ShardEntry) -> str:
    """Say in words what is wrong with a shard's file as a whole; empty if nothing is."""
    name = layout.shard_name(entry.number)
    if not folder.is_file(name):
        return "is missing"
    with folder.opened(name, os.O_RDONLY, "read") as fd:
        return "" if file_digest(fd) == entry.sha256 else "is not what was written: its SHA-256 differs"


def stored_pages(
    folder: Folder, layout: Layout, shard: int, records: Sequence[PageRecord]
) -> Iterator[tuple[PageRecord, bytes]]:
    """Yield the lines of a shard cut as the index says, right or not; the first that are short are the last.

    Args:
        folder: the snapshot's.
        layout: of the snapshot.
        shard: its number.
        records: those of its pages, from the first on.

    Raises:
        DamagedError: the file does not decompress.
        LocalError: it cannot be read.
    """
    name = layout.shard_name(shard)
    with folder.opened(name, os.O_RDONLY, "read") as fd:
        pieces = cut(read_shard(fd, layout.compression, name), (record.length for record in records))
        yield from zip(records, pieces, strict=False)


def agrees(record: PageRecord, lines: bytes) -> bool:
    """Tell whether these are the lines that a record of the index is of."""
    return page_digest(lines) == record.digest and lines.count(b"\n") == record.rows


def sound_pages(folder: Folder, layout: Layout, entry: ShardEntry) -> Iterator[tuple[int, Page]]:
    """Yield the pages of a shard that still have their digest; none if there is nothing to compare."""
    if not folder.is_file(layout.shard_name(entry.number)):
        return
    try:
        for record, lines in stored_pages(folder, layout, entry.number, index_records(folder, _pages(entry))):
            if page_digest(lines) == record.digest:
                yield record.page, Page(lines, lines.count(b"\n"))
    except DamagedError:
        return  # the rest of a compressed file cannot be had: its pages are missing


def records_of(folder: Folder, entry: ShardEntry) -> list[PageRecord]:
    """Return the index's records of all pages of a shard.

    Raises:
        DamagedError: some are not there.
    """
    records = index_records(folder, _pages(entry))
    if len(records) < len(_pages(entry)):
        raise _damaged(folder, f"{INDEX} has no record of page {entry.first + len(records)}")
    return records


def checked_pages(folder: Folder, layout: Layout, entry: ShardEntry, wanted: range) -> Iterator[tuple[int, bytes]]:
    """Yield those pages of a shard that are ``wanted``, each with its lines.

    Raises:
        DamagedError: one of them is not what was written.
        LocalError: the file cannot be read.
    """
    for record, lines in stored_pages(folder, layout, entry.number, records_of(folder, entry)):
        if record.page >= wanted.stop:
            return
        if record.page in wanted:
            if not agrees(record, lines):
                name = layout.shard_name(entry.number)
                raise _damaged(folder, f"{name}: offset {record.offset}: page {record.page} is not what was written")
            yield record.page, lines


def _pages(entry: ShardEntry) -> range:
    return range(entry.first, entry.last + 1)


def _damaged(folder: Folder, reason: str) -> DamagedError:
    return DamagedError(f"{folder.path} does not hold what was written", causes=[reason], hint=repair_hint(folder.path))

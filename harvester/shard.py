"""What data files hold, as bytes: shards of pages, their journals and the index.

Nothing here opens a file, reads a clock or waits: bytes in, values out, and back. FORMAT.md beside this file is the
rule that it follows.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, TypeGuard
from zlib import crc32

from msgspec import Struct

from harvester.model import Page, page_digest

Compression = Literal["none", "gzip", "zstd"]

_INDEX_RECORD: Final = struct.Struct(">16sII")

JOURNAL_VERSION: Final = 1
INDEX_VERSION: Final = 1
INDEX_RECORD_BYTES: Final = 24
INDEX_HEAD: Final = _INDEX_RECORD.pack(b"harvester-index\n", INDEX_VERSION, INDEX_RECORD_BYTES)
INDEX_HOLE: Final = bytes(16)
"""What stands for the digest of a page that is not sealed yet."""

SHARD_FILE: Final = re.compile(r"part-(\d{5,})\.jsonl(?:\.gz|\.zst)?")
JOURNAL_FILE: Final = re.compile(r"part-(\d{5,})\.pages")

_SUFFIX: Final = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_FIRST_LINE = re.compile(rb"J harvester-pages (\d{1,10}) (\d{1,10}) ([0-9a-f]{8})\n")
_PAGE_LINE = re.compile(rb"P (\d{1,10}) (\d{1,10}) (\d{1,10}) ([0-9a-f]{32}) ([0-9a-f]{8})\n")
_MARKER_LINE = re.compile(rb"C (\d{1,20}) ([0-9a-f]{8})\n")
_CRC_TAIL: Final = 10  # a space, eight digits, a line feed
_UINT32_MAX: Final = 0xFFFFFFFF


class Layout(Struct, frozen=True):
    """How pages are laid out in shards; frozen before the first page is kept.

    ``page_size`` is the size seen in the answers, not the one asked for.
    """

    rows_per_shard: int
    page_size: int
    compression: Compression = "none"

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1 or self.page_size < 1:
            raise ValueError("rows_per_shard and page_size are at least 1")

    @property
    def pages_per_shard(self) -> int:
        """Pages in a full shard; at least one, however large a page is."""
        return max(1, self.rows_per_shard // self.page_size)

    def shard_of(self, page: int) -> int:
        """Return the number, from 0, of the shard that holds ``page``, counted from 1."""
        return (page - 1) // self.pages_per_shard

    def pages_of(self, shard: int, last: int | None = None) -> range:
        """Return the pages of a shard, cut at the dataset's ``last`` page where that is known; may be empty."""
        first = shard * self.pages_per_shard + 1
        stop = first + self.pages_per_shard
        return range(first, stop if last is None else max(first, min(stop, last + 1)))

    def shards(self, last: int) -> range:
        """Return the numbers of all shards of a dataset whose last page is ``last``."""
        return range(self.shard_of(last) + 1)

    def shard_name(self, shard: int) -> str:
        """Return the name of a finished shard's file."""
        return f"part-{shard:05d}.jsonl{_SUFFIX[self.compression]}"

    def journal_name(self, shard: int) -> str:
        """Return the name of an unfinished shard's journal."""
        return f"part-{shard:05d}.pages"


class ShardEntry(Struct, frozen=True, kw_only=True):
    """What is recorded of a sealed shard.

    ``first`` and ``last`` are pages. ``rows`` and ``bytes`` count its lines, uncompressed; ``sha256``, ``file_bytes``
    and ``mtime_ns`` are of the file as stored; ``content_sha256`` is of the lines and empty unless compressed.
    ``twins`` counts the pages within which two rows are the same, byte for byte.
    """

    number: int
    first: int
    last: int
    rows: int
    bytes: int
    sha256: str
    file_bytes: int
    mtime_ns: int
    content_sha256: str = ""
    twins: int = 0


class PageRecord(NamedTuple):
    """One page as found in a journal or in the index: ``offset`` is that of its lines, ``length`` their bytes.

    ``header`` is the length of the header line before them; 0 in the index, which has none.
    """

    page: int
    rows: int
    offset: int
    length: int
    digest: bytes
    header: int = 0


class Damage(NamedTuple):
    """Where something that had been durable is no longer what was written; offset and length in bytes."""

    offset: int
    length: int
    reason: str


class JournalContent(NamedTuple):
    """What a journal holds: its records in file order, up to which byte it is good, and what is wrong before a marker.

    ``good_length`` short of the file's length without ``damage`` is a torn tail. ``version`` is the one that its first
    line states, if that is intact.
    """

    records: list[PageRecord]
    good_length: int
    damage: Damage | None
    version: int = JOURNAL_VERSION


def has_twins(lines: bytes, rows: int) -> bool:
    """Tell whether two of a page's rows are the same, byte for byte."""
    return len(set(lines.split(b"\n"))) <= rows  # the split gives one piece more than rows, an empty one at the end


def journal_start(shard: int) -> bytes:
    """Return the first line of a shard's journal."""
    return _control_line(b"J harvester-pages %d %d" % (JOURNAL_VERSION, shard))


def commit_marker(offset: int) -> bytes:
    """Return the line that says everything before ``offset``, where it is put, had been synced."""
    return _control_line(b"C %d" % offset)


def page_header(number: int, page: Page) -> bytes:
    """Return the line that goes before a page's lines in a journal.

    Raises:
        ValueError: ``page`` does not hold the lines it claims to, or its number or size is out of range.
    """
    lines = page.lines
    if lines.count(b"\n") != page.rows or (lines and lines[-1] != ord("\n")):
        raise ValueError(f"page {number} does not hold {page.rows} lines, each ended by a line feed")
    if not 1 <= number <= _UINT32_MAX or len(lines) > _UINT32_MAX:
        raise ValueError(f"page {number} of {len(lines)} bytes is out of range")
    return _control_line(b"P %d %d %d %b" % (number, page.rows, len(lines), page.digest.hex().encode()))


def parse_page_header(data: bytes | memoryview, at: int = 0) -> PageRecord | None:
    """Read the header line at ``at`` in a journal; None if there is no intact one."""
    line = _PAGE_LINE.match(data, at)
    if line is None or not _intact(line):
        return None
    page, rows, length = int(line[1]), int(line[2]), int(line[3])
    digest = bytes.fromhex(line[4].decode())
    return PageRecord(page, rows, line.end(), length, digest, line.end() - at)


def read_journal(data: bytes | memoryview, shard: int, pages: range) -> JournalContent:
    """Read a whole journal, checking every checksum and digest. Never raises on any bytes.

    Args:
        data: the file.
        shard: the number of the shard that it should belong to.
        pages: the pages that may stand in it.
    """
    records: list[PageRecord] = []
    first = _FIRST_LINE.match(data)
    if first is None or not _intact(first):
        return _broken(data, records, 0, Damage(0, 1, "the first line is not that of a journal"))
    if (int(first[1]), int(first[2])) != (JOURNAL_VERSION, shard):
        reason = f"a journal of version {int(first[1])} and shard {int(first[2])}, not {JOURNAL_VERSION} and {shard}"
        return JournalContent(records, 0, Damage(0, first.end(), reason), int(first[1]))
    at = first.end()
    while at < len(data):
        marker = _MARKER_LINE.match(data, at)
        if _marks(marker):
            at = marker.end()
            continue
        record = parse_page_header(data, at)
        if record is None:
            return _broken(data, records, at, Damage(at, 1, "neither the header of a page nor a commit marker"))
        start, end = record.offset, record.offset + record.length
        if record.page not in pages:
            reason = f"page {record.page} does not belong to shard {shard}"
            return _broken(data, records, at, Damage(at, start - at, reason))
        if page_digest(data[start:end]) != record.digest:
            reason = f"page {record.page} is not what was written"
            return _broken(data, records, at, Damage(start, record.length, reason))
        records.append(record)
        at = end
    return JournalContent(records, at, None)


def index_record(record: PageRecord) -> bytes:
    """Return the 24 bytes that stand for a page in ``pages.idx``."""
    return _INDEX_RECORD.pack(record.digest, record.rows, record.length)


def read_index(data: bytes, first: int) -> list[PageRecord]:
    """Read consecutive records of the index, the first of them of page ``first``, up to one that is not there.

    ``offset`` of a record counts from the first of these pages' lines.
    """
    records: list[PageRecord] = []
    offset = 0
    whole = len(data) - len(data) % INDEX_RECORD_BYTES
    for page, (digest, rows, length) in enumerate(_INDEX_RECORD.iter_unpack(data[:whole]), first):
        if digest == INDEX_HOLE:
            break
        records.append(PageRecord(page, rows, offset, length, digest))
        offset += length
    return records


def resources(layout: Layout, entries: Iterable[ShardEntry]) -> list[dict[str, Any]]:
    """Return the resources of a data package, one for each shard, in order.

    Their form is that of the Frictionless Data Package standard, version 1, "Data Resource".
    """
    return [_resource(layout, entry) for entry in sorted(entries, key=lambda entry: entry.number)]


def _resource(layout: Layout, entry: ShardEntry) -> dict[str, Any]:
    ours: dict[str, Any] = {"number": entry.number, "pages": [entry.first, entry.last], "rows": entry.rows}
    resource: dict[str, Any] = {
        "name": f"part-{entry.number:05d}",
        "path": layout.shard_name(entry.number),
        "format": "jsonl",
        "mediatype": "application/x-ndjson",
        "encoding": "utf-8",
        "bytes": entry.file_bytes,
        "hash": f"sha256:{entry.sha256}",
    }
    if layout.compression != "none":
        resource["compression"] = _SUFFIX[layout.compression][1:]
        ours |= {"bytes": entry.bytes, "sha256": entry.content_sha256}
    if entry.twins:
        ours["twins"] = entry.twins
    return resource | {"harvester": ours}


def _control_line(text: bytes) -> bytes:
    return b"%b %08x\n" % (text, crc32(text))


def _intact(line: re.Match[bytes]) -> bool:
    """Tell whether a line that looks right carries its own checksum, the eight digits at its end."""
    whole = line[0]
    return crc32(whole[:-_CRC_TAIL]) == int(whole[-_CRC_TAIL:], 16)


def _marks(line: re.Match[bytes] | None) -> TypeGuard[re.Match[bytes]]:
    """Tell whether this is an intact marker that stands at the offset it names."""
    return line is not None and int(line[1]) == line.start() and _intact(line)


def _broken(data: bytes | memoryview, records: list[PageRecord], good: int, damage: Damage) -> JournalContent:
    """Apply the rule of the torn tail: a defect is damage only if a marker after it says that it had been durable."""
    vouched = any(_marks(line) for line in _MARKER_LINE.finditer(data, good))
    return JournalContent(records, good, damage if vouched else None)

"""Bytes of journals, index and shards: golden values, and what is said of damaged ones."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.model import Page, page_digest
from harvester.shard import (
    INDEX_HEAD,
    JournalContent,
    Layout,
    PageRecord,
    ShardEntry,
    commit_marker,
    has_twins,
    index_record,
    journal_start,
    page_header,
    parse_page_header,
    read_index,
    read_journal,
    resources,
)

FORMAT = (Path(__file__).parent.parent / "harvester" / "FORMAT.md").read_text()
PAGES = range(1, 9)


def example(name: str) -> bytes:
    """Return one block of the worked example in FORMAT.md."""
    found = re.search(rf"^```{name}\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].encode()


def page(number: int, rows: int = 2) -> Page:
    """Return a page whose rows name it."""
    return Page(b"".join(b'{"page":%d,"row":%d}\n' % (number, row) for row in range(rows)), rows)


def journal_of(batches: list[list[int]]) -> bytes:
    """Write a journal of shard 3 the way the store does: every batch but the first begins with a marker."""
    data = journal_start(3)
    for number, batch in enumerate(batches):
        data += commit_marker(len(data)) if number else b""
        data += b"".join(page_header(p, page(p, p % 3)) + page(p, p % 3).lines for p in batch)
    return data


def read(data: bytes) -> JournalContent:
    """Read a journal of shard 3 the way a mapped file is read."""
    return read_journal(memoryview(data), 3, PAGES)


JOURNAL = journal_of([[2, 5], [1], [8, 3, 2]])
MARKERS = [found.start() for found in re.finditer(rb"^C ", JOURNAL, re.MULTILINE)]
WHOLE = read(JOURNAL).records


def test_journal_is_the_worked_example() -> None:
    """The journal in FORMAT.md is, byte for byte, what two batches give, and reads back as its pages."""
    second, first = Page(b'{"id":3}\n{"id":4}\n', 2), Page(b'{"id":1}\n{"id":2}\n', 2)
    written = journal_start(0) + page_header(2, second) + second.lines
    written += commit_marker(len(written)) + page_header(1, first) + first.lines
    assert written == example("journal")
    assert read_journal(written, 0, range(1, 3)) == JournalContent(
        [
            PageRecord(2, 2, 82, 18, bytes.fromhex("e4041553d396ba78a593e28785493b6b"), 51),
            PageRecord(1, 2, 166, 18, bytes.fromhex("c63f6dd68b68601e7315ea40d28bc34e"), 51),
        ],
        184,
        None,
    )


def test_index_is_the_worked_example() -> None:
    """The index in FORMAT.md is what its two pages give, and reads back with running offsets."""
    lines = example("shard")
    halves = lines[:18], lines[18:]
    records = [PageRecord(n + 1, 2, 18 * n, 18, page_digest(half)) for n, half in enumerate(halves)]
    written = INDEX_HEAD + b"".join(map(index_record, records))
    assert written.hex() == example("index").decode().replace("\n", "")
    assert read_index(written[24:], 1) == records


def test_index_ends_at_a_hole() -> None:
    """A page that is not sealed ends what is read; an empty page is no hole; half a record is none."""
    empty = PageRecord(1, 0, 0, 0, page_digest(b""))
    data = index_record(empty) + bytes(24) + index_record(empty)
    assert read_index(data, 1) == [empty]
    assert read_index(data[:23], 1) == []


@pytest.mark.parametrize(
    ("rows", "size", "pages"), [(100_000, 50, 2000), (100_000, 300, 333), (10, 50, 1), (50, 50, 1), (99, 50, 1)]
)
def test_pages_per_shard(rows: int, size: int, pages: int) -> None:
    """Whole pages only, and at least one."""
    assert Layout(rows, size).pages_per_shard == pages


def test_layout_refuses_nothing_per_shard() -> None:
    """A page size of 0 would put every page into one shard or none."""
    with pytest.raises(ValueError, match="at least 1"):
        Layout(100, 0)


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 10**9), st.integers(0, 10**4))
def test_shards_tile_the_pages(rows: int, size: int, number: int, last: int) -> None:
    """Every page is in the one shard that names it; the shards of a dataset cover it without gap."""
    layout = Layout(rows, size)
    assert number in layout.pages_of(layout.shard_of(number))
    ranges = [layout.pages_of(shard, last) for shard in layout.shards(last)]
    assert all(ranges)
    assert sum(map(len, ranges)) == last
    assert [one.stop for one in ranges[:-1]] == [one.start for one in ranges[1:]]
    assert not layout.pages_of(len(ranges), last)


def test_names() -> None:
    """Finished and growing files cannot be taken for one another, whatever the compression."""
    layouts = [Layout(10, 1), Layout(10, 1, "gzip"), Layout(10, 1, "zstd")]
    assert [layout.shard_name(7) for layout in layouts] == [
        "part-00007.jsonl",
        "part-00007.jsonl.gz",
        "part-00007.jsonl.zst",
    ]
    assert {layout.journal_name(123_456) for layout in layouts} == {"part-123456.pages"}


@pytest.mark.parametrize("bad", [Page(b"{}\n{}", 2), Page(b"{}\n", 2), Page(b"{}\n{}\n", 1), Page(b"", 1)])
def test_header_refuses_a_page_that_is_not_lines(bad: Page) -> None:
    """What is not one row a line would make later records unreadable."""
    with pytest.raises(ValueError, match="line feed"):
        page_header(1, bad)


def test_header_refuses_a_number_out_of_range() -> None:
    """Page 0 would be the index's head."""
    with pytest.raises(ValueError, match="out of range"):
        page_header(0, page(1))


def test_header_of_the_last_page_that_there_can_be() -> None:
    """The largest number that the index has room for."""
    header = page_header(2**32 - 1, page(1))
    assert parse_page_header(header + b"x") == PageRecord(
        2**32 - 1, 2, len(header), 2 * 19, page_digest(page(1).lines), len(header)
    )


def test_journal_of_another_shard_or_version_is_damage() -> None:
    """An intact first line that names something else is no crash, whatever follows."""
    damage = read_journal(JOURNAL, 4, PAGES).damage
    assert damage
    assert damage.reason == "a journal of version 1 and shard 3, not 1 and 4"


def test_page_of_another_shard_before_a_marker_is_damage() -> None:
    """An intact record in the wrong journal is never used."""
    content = read_journal(JOURNAL, 3, range(3, 9))
    assert content.records == []
    assert content.damage
    assert content.damage.reason == "page 2 does not belong to shard 3"


def test_damage_names_the_place() -> None:
    """A flipped bit in a row is reported with the page, its offset and its length."""
    hurt = bytearray(JOURNAL)
    place = JOURNAL.index(b'"row":1')
    hurt[place] ^= 1
    found = read(bytes(hurt))
    assert found.damage
    assert found.damage.reason == "page 2 is not what was written"
    assert found.damage.offset <= place < found.damage.offset + found.damage.length
    assert found.damage.length == len(page(2).lines)


@given(st.integers(0, len(JOURNAL)))
def test_any_cut_is_a_torn_tail(size: int) -> None:
    """A journal cut anywhere keeps exactly the records that are whole, and is never called damaged."""
    content = read(JOURNAL[:size])
    assert content.damage is None
    assert content.records == [record for record in WHOLE if record.offset + record.length <= size]
    assert content.good_length <= size
    assert read(JOURNAL[: content.good_length]).records == content.records


@pytest.mark.parametrize("bit", range(8))
def test_any_flip_is_found(bit: int) -> None:
    """A changed bit before the last marker is damage, after it a torn tail; wrong rows never come out."""
    for place in range(len(JOURNAL)):
        hurt = bytearray(JOURNAL)
        hurt[place] ^= 1 << bit
        content = read(bytes(hurt))
        assert content.records == WHOLE[: len(content.records)]
        assert content.good_length <= place
        assert (content.damage is not None) == (place < MARKERS[-1])


def test_marker_vouches_only_at_its_own_place() -> None:
    """A marker that names another offset, or whose checksum is wrong, makes no damage of a torn tail."""
    torn = JOURNAL + b"P torn"
    assert read(torn + commit_marker(7)) == read(torn)
    right = commit_marker(len(torn))
    assert read(torn + right).damage
    assert read(torn + right[:-2] + (b"0" if right[-2:-1] != b"0" else b"1") + b"\n") == read(torn)


@given(st.integers(MARKERS[-1], len(JOURNAL)), st.data())
def test_holes_in_the_last_batch_are_a_torn_tail(size: int, data: st.DataObject) -> None:
    """A power cut may lose blocks in the middle of the last batch while later ones are there."""
    start = data.draw(st.integers(MARKERS[-1], size))
    content = read(JOURNAL[:start] + bytes(size - start) + JOURNAL[size:])
    assert content.damage is None
    assert content.records == WHOLE[: len(content.records)]
    assert len(content.records) >= 3


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    """Nothing makes the reader raise."""
    assert read(data).records == []
    assert read(JOURNAL + data).records == WHOLE


@given(st.lists(st.lists(st.sampled_from(PAGES), max_size=4), max_size=5))
def test_what_is_written_is_read(batches: list[list[int]]) -> None:
    """Pages come out in the order of arrival, doubled ones twice, with the place of their lines."""
    data = journal_of(batches)
    content = read(data)
    assert (content.good_length, content.damage) == (len(data), None)
    assert [record.page for record in content.records] == [number for batch in batches for number in batch]
    for record in content.records:
        assert data[record.offset : record.offset + record.length] == page(record.page, record.page % 3).lines
        assert parse_page_header(data, record.offset - record.header) == record
    ends = list(accumulate(record.header + record.length for record in content.records))
    assert not ends or ends[-1] < len(data)


def test_resources_of_plain_shards() -> None:
    """The members a data package needs, sizes and digest of the file as stored."""
    entry = ShardEntry(number=7, first=15, last=16, rows=4, bytes=36, sha256="ab", file_bytes=36, mtime_ns=1)
    assert resources(Layout(4, 2), [entry]) == [
        {
            "name": "part-00007",
            "path": "part-00007.jsonl",
            "format": "jsonl",
            "mediatype": "application/x-ndjson",
            "encoding": "utf-8",
            "bytes": 36,
            "hash": "sha256:ab",
            "harvester": {"number": 7, "pages": [15, 16], "rows": 4},
        }
    ]


def test_resources_of_compressed_shards() -> None:
    """A compressed shard also says what its lines are, since its own bytes depend on a library's version."""
    entry = ShardEntry(
        number=0, first=1, last=2, rows=4, bytes=36, sha256="ab", file_bytes=61, mtime_ns=1, content_sha256="cd"
    )
    (resource,) = resources(Layout(4, 2, "gzip"), [entry])
    assert (resource["path"], resource["bytes"], resource["compression"]) == ("part-00000.jsonl.gz", 61, "gz")
    assert resource["harvester"] == {"number": 0, "pages": [1, 2], "rows": 4, "bytes": 36, "sha256": "cd"}


@pytest.mark.parametrize(
    ("lines", "twins"),
    [
        (b"", False),
        (b"1\n", False),
        (b"1\n2\n", False),
        (b"1\n1\n", True),
        (b"null\n2\nnull\n", True),
        (b'"a\rb"\n"a\rb" \n', False),
    ],
)
def test_twins_are_rows_of_the_same_bytes(lines: bytes, twins: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Whatever they hold; only a line feed ends a row."""
    assert has_twins(lines, lines.count(b"\n")) is twins


def test_resource_names_twins_where_there_are_any() -> None:
    """A shard without them looks as it always did."""
    entry = ShardEntry(number=0, first=1, last=2, rows=4, bytes=8, sha256="a", file_bytes=8, mtime_ns=1)
    twice = ShardEntry(number=0, first=1, last=2, rows=4, bytes=8, sha256="a", file_bytes=8, mtime_ns=1, twins=3)
    assert resources(Layout(4, 2), [entry])[0]["harvester"] == {"number": 0, "pages": [1, 2], "rows": 4}
    assert resources(Layout(4, 2), [twice])[0]["harvester"]["twins"] == 3

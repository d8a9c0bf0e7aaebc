"""Pages into journals and shards, and back: what is written, what is replaced, how the end cuts."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

from harvester.errors import DamagedError, LocalError
from harvester.model import Page, page_digest
from harvester.shard import Compression, Layout, resources
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

FORMAT = (Path(__file__).parent.parent / "harvester" / "FORMAT.md").read_text()
NAME = "20261121T020000Z"
NEXT = "20261121T020001Z"
CREATED = "2026-11-21T02:00:00+00:00"
IDENTITY = {"platform": "wuhan"}

linux = pytest.mark.skipif(sys.platform == "darwin", reason="stands in for fdatasync, which macOS lacks")


def example(name: str) -> bytes:
    """Return one block of the worked example in FORMAT.md."""
    found = re.search(rf"^```{name}\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].encode()


def page(number: int, version: int = 0) -> Page:
    """Return a page of two rows, or of none where the number divides by 7."""
    rows = 0 if number % 7 == 0 else 2
    return Page(b"".join(b'{"page":%d,"row":%d,"v":%d}\n' % (number, row, version) for row in range(rows)), rows)


def pages(*numbers: int, version: int = 0) -> list[tuple[int, Page]]:
    """Return pages with their numbers, as ``append`` takes them."""
    return [(number, page(number, version)) for number in numbers]


def begun(root: Path, compression: Compression = "none", per_shard: int = 4) -> Snapshot:
    """Begin a snapshot with so many pages a shard."""
    snapshot = Snapshot.create(root / "investors" / NAME, IDENTITY, CREATED)
    snapshot.freeze(Layout(per_shard * 2, 2, compression))
    return snapshot


def continued(snapshot: Snapshot, **options: bool) -> Snapshot:
    """Do what the next process does: open the same folder and recover."""
    snapshot.close()
    again = Snapshot.open(snapshot.path)
    again.recover(**options)
    return again


def missing(snapshot: Snapshot, shard: int) -> list[int]:
    """Return the pages of a shard that are neither kept nor sealed, as far as the end is known."""
    assert snapshot.layout
    held = set(snapshot.pages())
    return [number for number in snapshot.layout.pages_of(shard, snapshot.last) if number not in held]


def finished(snapshot: Snapshot) -> Path:
    """Finish a snapshot whose shards are all sealed, and close it."""
    assert snapshot.layout
    found = resources(snapshot.layout, snapshot.sealed.values())
    package = {"created": CREATED, "resources": found, "harvester": snapshot.package_members()}
    snapshot.finish(package)
    snapshot.close_open()
    snapshot.close()
    return snapshot.path


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file; its time of modification changes with it."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def test_worked_example(tmp_path: Path) -> None:
    """Every file of the example in FORMAT.md is what the store writes, byte for byte."""
    with Snapshot.create(tmp_path / NAME, IDENTITY, CREATED) as snapshot:
        snapshot.freeze(Layout(4, 2))
        snapshot.set_end({"last": 2})
        snapshot.append([(2, Page(b'{"id":3}\n{"id":4}\n', 2))])
        snapshot.append([(1, Page(b'{"id":1}\n{"id":2}\n', 2))])
        assert (tmp_path / NAME / "part-00000.pages").read_bytes() == example("journal")
        assert (tmp_path / NAME / "checkpoint.json").read_bytes() == example("checkpoint")
        snapshot.seal(0)
    assert (tmp_path / NAME / "part-00000.jsonl").read_bytes() == example("shard")
    assert (tmp_path / NAME / "pages.idx").read_bytes().hex() == example("index").decode().replace("\n", "")
    assert not (tmp_path / NAME / "part-00000.pages").exists()


def test_seal_records_what_it_wrote(tmp_path: Path) -> None:
    """The entry of a shard counts its rows and bytes and knows its file."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(6, 8, 5, 7))
        assert (snapshot.complete(0), snapshot.complete(1), missing(snapshot, 1)) == (False, True, [])
        entry = snapshot.seal(1)
        file = snapshot.path / "part-00001.jsonl"
        assert file.read_bytes() == b"".join(page(number).lines for number in (5, 6, 7, 8))
        assert (entry.number, entry.first, entry.last, entry.rows) == (1, 5, 8, 6)
        assert entry.bytes == entry.file_bytes == file.stat().st_size
        assert entry.mtime_ns == file.stat().st_mtime_ns
        assert snapshot.sealed == {1: entry}
    with Snapshot.open(snapshot.path) as again:
        assert (again.identity, again.created, again.layout) == (IDENTITY, CREATED, Layout(8, 2))
        assert (again.end, again.notes, again.sealed) == (None, {}, {1: entry})


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_shards_hold_the_same(tmp_path: Path, compression: Compression) -> None:
    """A compressed shard verifies, reopens to the same pages and seals to the same file."""
    with begun(tmp_path, compression) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        entry = snapshot.seal(0)
        assert entry.content_sha256 != entry.sha256
        assert verify_snapshot(snapshot.path).symbols == "."
        snapshot.rewrite(pages(3))
        assert snapshot.seal(0).sha256 == entry.sha256


def test_last_of_a_doubled_page_counts(tmp_path: Path) -> None:
    """Within a batch, between batches and after recovery."""
    with begun(tmp_path) as first:
        first.append(pages(1, 2) + pages(1, version=1))
        first.append(pages(2, version=2))
    with Snapshot.open(first.path) as snapshot:
        kept = snapshot.recover()
        assert [(found.page, found.rows) for found in kept] == [(1, 2), (2, 2)]
        assert [found.digest for found in kept] == [page_digest(page(1, 1).lines), page_digest(page(2, 2).lines)]
        snapshot.append(pages(3, 4) + pages(1, version=3))
        snapshot.seal(0)
        wanted = [page(1, 3), page(2, 2), page(3), page(4)]
        assert (first.path / "part-00000.jsonl").read_bytes() == b"".join(one.lines for one in wanted)


def test_end_cuts_the_last_shard(tmp_path: Path) -> None:
    """Pages beyond the end go, and never come back when it moves on; later ones are left out at once."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(5, 6, 7, 9, 13))
        snapshot.set_end({"last": 6, "by": "empty page"})
        snapshot.append(pages(7, 8))
        assert snapshot.complete(1)
        assert [name.name for name in sorted(snapshot.path.glob("part-*"))] == ["part-00001.pages"]
        snapshot.set_end({"last": 7})
        assert missing(snapshot, 1) == [7]
    with Snapshot.open(snapshot.path) as again:
        assert [kept.page for kept in again.recover()] == [5, 6]
        assert again.end == {"last": 7}


def test_end_reopens_a_shard_that_it_cuts(tmp_path: Path) -> None:
    """A sealed shard is taken apart when the end moves into it or out of it; one beyond it goes."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(*range(1, 13)))
        for number in range(3):
            snapshot.seal(number)
        snapshot.set_end({"last": 6})
        assert sorted(snapshot.sealed) == [0]
        assert snapshot.complete(1)
        assert snapshot.seal(1).last == 6
        snapshot.set_end({"last": 8})
        assert missing(snapshot, 1) == [7, 8]
        assert not (snapshot.path / "part-00002.jsonl").exists()
        assert verify_snapshot(snapshot.path).symbols == ".o"


def test_journal_that_changes_meanwhile_is_not_sealed(tmp_path: Path) -> None:
    """Each page's digest is checked again on its way into the shard, and the journal's length before a batch."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4, 5))
        journal = snapshot.path / "part-00000.pages"
        flip(journal, journal.read_bytes().index(page(3).lines))
        with pytest.raises(DamagedError, match="page 3 is not what was written"):
            snapshot.seal(0)
        assert snapshot.sealed == {}
        with (snapshot.path / "part-00001.pages").open("ab") as file:
            file.write(b"x")
        with pytest.raises(DamagedError, match="length"):
            snapshot.append(pages(6))


def test_move_of_the_end_withdraws_the_package(tmp_path: Path) -> None:
    """A data package never describes shards that are being changed."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        for growing in (True, False):
            snapshot.set_end({"last": 4})
            snapshot.finish({"resources": []})
            if growing:
                snapshot.set_end({"last": 8})
            else:
                snapshot.rewrite(pages(1))
            assert not (snapshot.path / "datapackage.json").exists()


def test_short_writes_are_invisible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes seven bytes at a time changes nothing."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(2, 1, 4, 3))
        snapshot.seal(0)
    assert verify_snapshot(snapshot.path).symbols == "."


@linux
@pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("fdatasync", errno.EIO)])
def test_error_of_the_disk_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """It says which file and why, nothing is tried again, and the next run loses nothing that was kept."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1))
        calls: list[int] = []

        def fail(fd: int, *_: object) -> int:
            calls.append(fd)
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(LocalError, match=r"cannot write .*part-00000\.pages") as caught:
                snapshot.append(pages(2))
            assert os.strerror(number) in caught.value.message
            assert caught.value.hint
        with pytest.raises(LocalError, match="after an error"):
            snapshot.save()
        assert len(calls) == 1
    with continued(snapshot) as again:
        assert 1 not in missing(again, 0)


def test_twins_are_counted_while_sealing(tmp_path: Path) -> None:
    """Pages within which two rows are the same; the same row on two pages is none, and neither are empty pages."""
    with begun(tmp_path) as snapshot:
        twice, once = Page(b"[1]\n[2]\n[1]\n", 3), Page(b"[1]\n", 1)
        snapshot.append([(1, twice), (2, once), (3, Page(b"", 0)), (4, Page(b"null\n" * 3, 3)), *pages(5, 6, 7, 8)])
        assert (snapshot.seal(0).twins, snapshot.seal(1).twins) == (2, 0)
    with Snapshot.open(snapshot.path) as again:
        assert (again.sealed[0].twins, again.sealed[1].twins) == (2, 0)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_rewritten_pages_take_the_place_of_sealed_ones(tmp_path: Path, compression: Compression) -> None:
    """Sealed or in a journal, a page is replaced; sealed again, shards and index are those of the new pages."""
    with begun(tmp_path / "a", compression) as snapshot:
        snapshot.append(pages(1, 2, 3, 4, 5, 6, 7, 8, 9))
        snapshot.seal(0)
        snapshot.seal(1)
        snapshot.rewrite(pages(2, 6, 9, version=1))
        assert snapshot.sealed == {}
        assert snapshot.digest_of(2) == page_digest(page(2).lines)  # until it is sealed again
        snapshot.rewrite(pages(2, version=2))
        snapshot.seal(0)
        snapshot.seal(1)
        assert snapshot.digest_of(2) == page_digest(page(2, 2).lines)
    with begun(tmp_path / "b", compression) as straight:
        straight.append(pages(1, 3, 4, 5, 7, 8) + pages(2, version=2) + pages(6, 9, version=1))
        straight.seal(0)
        straight.seal(1)
    for name in ("pages.idx", *(path.name for path in straight.path.glob("*.jsonl*"))):
        assert (snapshot.path / name).read_bytes() == (straight.path / name).read_bytes()
    with continued(snapshot) as again:
        again.append(pages(10, 11, 12))
        again.seal(2)
        assert b"".join(lines for _, lines in again.lines(9, 9)) == page(9, 1).lines


def test_rewriting_copies_a_shard_once(tmp_path: Path) -> None:
    """After the first call the journal grows by what each call brings, and not by the shard."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        snapshot.rewrite(pages(1, version=1))
        journal = snapshot.path / "part-00000.pages"
        before = journal.read_bytes()
        snapshot.rewrite(pages(2, version=1))
        assert journal.read_bytes().startswith(before)
        assert journal.read_bytes().count(b"\nP ") == 4 + 2
        assert not (snapshot.path / "part-00000.jsonl").exists()


def test_rewriting_demands_the_pages_beside(tmp_path: Path) -> None:
    """A shard is not taken apart if another of its pages would be lost; the one to be replaced may be damaged."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        flip(snapshot.path / "part-00000.jsonl", len(page(1).lines) + 3)
        with pytest.raises(DamagedError, match=r"page 2 in part-00000\.jsonl has changed"):
            snapshot.rewrite(pages(1, 3, version=1))
        assert sorted(snapshot.sealed) == [0]
        assert (snapshot.path / "part-00000.jsonl").exists()
        snapshot.rewrite(pages(2))
        assert snapshot.seal(0).rows == 8
    assert verify_snapshot(snapshot.path).symbols == "."


def test_rewriting_leaves_out_what_is_beyond_the_end(tmp_path: Path) -> None:
    """As ``append`` does: nothing is taken apart for a page that is not wanted."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2))
        snapshot.set_end({"last": 2})
        entry = snapshot.seal(0)
        snapshot.rewrite(pages(3, 9))
        assert snapshot.sealed == {0: entry}


@pytest.mark.parametrize(
    ("last", "shards", "lacking"),
    [
        (6, [0], {1: []}),  # cuts the second of three
        (8, [0, 1], {}),  # between two
        (9, [0, 1], {2: []}),  # cuts the last further
        (11, [0, 1], {2: [11]}),  # grows within the last
        (14, [0, 1], {2: [11, 12], 3: [13, 14]}),  # grows by one more
        (0, [], {}),
    ],
)
def test_end_moves_after_everything_was_sealed(
    tmp_path: Path, last: int, shards: list[int], lacking: dict[int, list[int]]
) -> None:
    """Shorter or longer, with the package written already: only the shards cut otherwise are open again."""
    straight = begun(tmp_path / "straight")
    straight.append(pages(*range(1, last + 1)))
    straight.set_end({"last": last})
    for number in range(-(-last // 4)):
        straight.seal(number)
    with begun(tmp_path / "moved") as snapshot:
        snapshot.append(pages(*range(1, 11)))
        snapshot.set_end({"last": 10})
        for number in range(3):
            snapshot.seal(number)
        snapshot.finish({"resources": []})
        snapshot.set_end({"last": last})
        assert not (snapshot.path / "datapackage.json").exists()
        assert sorted(snapshot.sealed) == shards
        assert {number: missing(snapshot, number) for number in lacking} == lacking
    again = Snapshot.open(snapshot.path)
    assert [found.page for found in again.recover()] == list(range(len(shards) * 4 + 1, min(last, 10) + 1))
    assert again.digest_of(last + 1) == b""
    for number, wanted in lacking.items():
        again.append(pages(*wanted))
        again.seal(number)
    assert content(finished(again)) == content(finished(straight))


def test_end_is_forgotten(tmp_path: Path) -> None:
    """Pages beyond it can come again, and survive a stop; the shard that it cut is open, and the index says no more."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(*range(1, 13)))
        for number in range(3):
            snapshot.seal(number)
        snapshot.set_end({"last": 6})
        snapshot.seal(1)
        snapshot.finish({"resources": []})
        snapshot.forget_end()
        assert not (snapshot.path / "datapackage.json").exists()
        assert (snapshot.last, sorted(snapshot.sealed), missing(snapshot, 1)) == (None, [0], [7, 8])
        assert [bool(snapshot.digest_of(n)) for n in (6, 7, 9)] == [True, False, False]
        snapshot.append(pages(9))
        snapshot.forget_end()
    with Snapshot.open(snapshot.path) as again:
        assert [kept.page for kept in again.recover()] == [5, 6, 9]
        assert again.last is None
        again.set_end({"last": 4})
        again.forget_end()
        assert sorted(again.sealed) == [0]  # it ended with the last page of a shard


def test_end_demands_the_pages_of_the_shard_it_cuts(tmp_path: Path) -> None:
    """A damaged page stops it before anything has changed, unless it lies beyond the new end."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        flip(snapshot.path / "part-00000.jsonl", 2 * len(page(1).lines) + 3)
        with pytest.raises(DamagedError, match="page 3 in"):
            snapshot.set_end({"last": 3})
        assert (snapshot.end, sorted(snapshot.sealed)) == (None, [0])
        snapshot.set_end({"last": 2})
        assert missing(snapshot, 0) == []

"""Looking at finished shards: cheap where nothing changed, exact where something did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvester.errors import DamagedError
from harvester.model import Page
from harvester.shard import Layout, ShardEntry
from harvester.store import sealed
from harvester.store.durable import Folder
from harvester.store.sealed import checked_pages, hash_fault, records_of, sealed_stat, sound_pages
from harvester.store.snapshot import Snapshot

LAYOUT = Layout(6, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Return a snapshot's folder with one shard of three pages, 24 bytes in all."""
    with Snapshot.create(tmp_path / "s", {}, "") as snapshot:
        snapshot.freeze(LAYOUT)
        snapshot.append([(number, Page(b"[%d]\n[0]\n" % number, 2)) for number in (3, 1, 2)])
        snapshot.seal(0)
    with Folder(tmp_path / "s") as opened:
        yield opened


def entry(folder: Folder) -> ShardEntry:
    """Return what is recorded of the shard."""
    with Snapshot.open(folder.path) as snapshot:
        return snapshot.sealed[0]


def test_unchanged_shard_is_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuing costs what is open, not what is done."""
    monkeypatch.setattr(sealed, "file_digest", lambda _: pytest.fail("read"))
    recorded = entry(folder)
    assert sealed_stat(folder, LAYOUT, recorded) is recorded


def test_changed_time_alone_is_noted(folder: Folder) -> None:
    """The same bytes under another time give an entry with that time."""
    recorded = entry(folder)
    os.utime(folder.path / "part-00000.jsonl", ns=(9, 9))
    found = sealed_stat(folder, LAYOUT, recorded)
    assert isinstance(found, ShardEntry)
    assert found.mtime_ns == 9


def test_faults_in_words(folder: Folder) -> None:
    """Length first, then content, then absence."""
    recorded, file = entry(folder), folder.path / "part-00000.jsonl"
    file.write_bytes(b"[1]\n")
    assert sealed_stat(folder, LAYOUT, recorded) == "has 4 bytes instead of 24"
    file.write_bytes(b"[1]\n" * 6)
    assert sealed_stat(folder, LAYOUT, recorded) == hash_fault(folder, LAYOUT, recorded)
    assert "SHA-256 differs" in hash_fault(folder, LAYOUT, recorded)
    file.unlink()
    assert sealed_stat(folder, LAYOUT, recorded) == hash_fault(folder, LAYOUT, recorded) == "is missing"


def test_sound_pages_are_those_with_their_digest(folder: Folder) -> None:
    """A page that changed is left out, those after it are found again."""
    recorded, file = entry(folder), folder.path / "part-00000.jsonl"
    assert [number for number, _ in sound_pages(folder, LAYOUT, recorded)] == [1, 2, 3]
    file.write_bytes(file.read_bytes().replace(b"[2]", b"[7]"))
    assert list(sound_pages(folder, LAYOUT, recorded)) == [(1, Page(b"[1]\n[0]\n", 2)), (3, Page(b"[3]\n[0]\n", 2))]
    file.unlink()
    assert list(sound_pages(folder, LAYOUT, recorded)) == []


def test_thorough_look_reads_everything(folder: Folder) -> None:
    """Whatever the time of the file says, and the index with it."""
    recorded = entry(folder)
    assert sealed_stat(folder, LAYOUT, recorded, thorough=True) == recorded
    index = folder.path / "pages.idx"
    before = index.read_bytes()
    for place in (24 * 2, 24 * 2 + 19, 24 * 2 + 23):
        index.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        assert sealed_stat(folder, LAYOUT, recorded) is recorded
        assert sealed_stat(folder, LAYOUT, recorded, thorough=True) == "does not agree with pages.idx"
    index.write_bytes(before)
    file = folder.path / "part-00000.jsonl"
    file.write_bytes(file.read_bytes().replace(b"[2]", b"[7]"))
    os.utime(file, ns=(recorded.mtime_ns, recorded.mtime_ns))
    assert sealed_stat(folder, LAYOUT, recorded) is recorded
    assert "SHA-256 differs" in str(sealed_stat(folder, LAYOUT, recorded, thorough=True))


def test_rows_of_a_sound_page_are_counted_again(folder: Folder) -> None:
    """Its digest says that its lines are right; a wrong count in the index does not lose it."""
    index = folder.path / "pages.idx"
    data = bytearray(index.read_bytes())
    data[24 * 2 + 19] = 9
    index.write_bytes(data)
    assert [(number, page.rows) for number, page in sound_pages(folder, LAYOUT, entry(folder))] == [
        (1, 2),
        (2, 2),
        (3, 2),
    ]


def test_checked_pages_are_right_or_refused(folder: Folder) -> None:
    """Only the wanted ones are looked at; what has changed is named with its place."""
    recorded, file = entry(folder), folder.path / "part-00000.jsonl"
    assert list(checked_pages(folder, LAYOUT, recorded, range(2, 9))) == [(2, b"[2]\n[0]\n"), (3, b"[3]\n[0]\n")]
    file.write_bytes(file.read_bytes().replace(b"[2]", b"[7]"))
    assert [number for number, _ in checked_pages(folder, LAYOUT, recorded, range(1, 2))] == [1]
    with pytest.raises(DamagedError, match=r"part-00000\.jsonl: offset 8: page 2 is not what was written"):
        list(checked_pages(folder, LAYOUT, recorded, range(1, 4)))
    file.write_bytes(file.read_bytes()[:16])
    with pytest.raises(DamagedError, match="page 3 is not"):
        list(checked_pages(folder, LAYOUT, recorded, range(3, 4)))
    index = folder.path / "pages.idx"
    index.write_bytes(index.read_bytes()[: 24 * 3])
    with pytest.raises(DamagedError, match=r"pages\.idx has no record of page 3"):
        records_of(folder, recorded)

"""Looking at finished shards: cheap where nothing changed, exact where something did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvester.model import Page
from harvester.shard import Layout, ShardEntry
from harvester.store import sealed
from harvester.store.durable import Folder
from harvester.store.sealed import hash_fault, index_records, sealed_stat, sound_pages
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


def test_index_that_is_not_one_has_no_records(folder: Folder) -> None:
    """Without a right head, or without the file, nothing is believed."""
    assert [record.page for record in index_records(folder, range(1, 9))] == [1, 2, 3]
    index = folder.path / "pages.idx"
    index.write_bytes(b"x" + index.read_bytes()[1:])
    assert index_records(folder, range(1, 4)) == []
    index.unlink()
    assert index_records(folder, range(1, 4)) == []

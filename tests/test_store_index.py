"""The index on disk: records where their pages' numbers say, and nothing believed without the head."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvester.errors import LocalError
from harvester.model import page_digest
from harvester.shard import INDEX_HEAD, PageRecord, index_record
from harvester.store.durable import Folder
from harvester.store.index import Index, index_records


def records(first: int, last: int, version: int = 0) -> list[PageRecord]:
    """Return records of pages of one row of five bytes."""
    return [PageRecord(n, 1, 5 * (n - first), 5, page_digest(b"%d/%d" % (n, version))) for n in range(first, last + 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Return a folder with an index of pages 3 to 5, and a hole before them."""
    with Folder(tmp_path) as opened:
        index = Index(opened)
        index.create()
        index.put(3, b"".join(map(index_record, records(3, 5))))
        yield opened


def test_records_lie_where_their_page_says(folder: Folder) -> None:
    """24 bytes a page; holes and what lies past the end are no records."""
    data = (folder.path / "pages.idx").read_bytes()
    assert data == INDEX_HEAD + bytes(48) + b"".join(map(index_record, records(3, 5)))
    assert index_records(folder, range(3, 6)) == records(3, 5)
    assert index_records(folder, range(4, 9)) == records(4, 5)
    assert index_records(folder, range(1, 6)) == []


def test_digest_costs_one_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look there is one call of the system a page, and it sees what was written meanwhile."""
    index = Index(folder)
    assert [index.digest(n) for n in (2, 3, 6)] == [b"", page_digest(b"3/0"), b""]
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened again"))
    reads: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, at: int) -> bytes:
        reads.append(at)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", counted)
    assert index.digest(4) == page_digest(b"4/0")
    assert reads == [24 * 4]
    monkeypatch.undo()
    index.put(4, b"".join(map(index_record, records(4, 6, version=1))))
    assert [index.digest(n) for n in (3, 4, 6)] == [page_digest(b"3/0"), page_digest(b"4/1"), page_digest(b"6/1")]
    index.close()
    index.close()
    assert index.digest(3) == page_digest(b"3/0")
    index.create()
    assert index.digest(3) == b""
    index.close()


def test_index_is_cut_after_a_page(folder: Folder) -> None:
    """What lay beyond the end is gone."""
    index = Index(folder)
    index.cut(4)
    assert (folder.path / "pages.idx").stat().st_size == 24 * 5
    assert [len(index.faults(last)) for last in (4, 5)] == [0, 1]
    assert index.faults(5) == ["pages.idx ends before page 5"]
    index.close()


def test_index_that_is_not_one_has_no_records(folder: Folder) -> None:
    """Without a right head, or without the file, nothing is believed; mending puts back only what is known."""
    path = folder.path / "pages.idx"
    before = path.read_bytes()
    path.write_bytes(b"x" + before[1:])
    index = Index(folder)
    assert (index.records(range(3, 6)), index.digest(3)) == ([], b"")
    assert "begin" in index.faults(0)[0]
    index.mend()
    assert path.read_bytes() == before
    assert index.faults(5) == []
    index.close()
    path.unlink()
    assert index.records(range(3, 6)) == []
    index.mend()
    assert path.read_bytes() == INDEX_HEAD
    index.mend()
    index.close()


def test_error_of_the_disk_is_put_in_words(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest that cannot be read is an error with the file's name, not a page without one."""
    index = Index(folder)
    assert index.digest(3)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with pytest.raises(LocalError, match=r"cannot read .*pages\.idx: Input/output error"):
            index.digest(3)
    index.close()

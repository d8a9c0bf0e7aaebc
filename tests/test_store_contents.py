"""Reading a snapshot, open or finished: which pages, digests and lines it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_store_filling import CREATED, IDENTITY, begun, content, finished, flip, page, pages

from harvester.errors import DamagedError
from harvester.model import page_digest
from harvester.shard import Compression, Layout, PageRecord, index_record
from harvester.store.contents import Contents
from harvester.store.snapshot import Snapshot


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_finished_snapshot_is_read_by_its_package(tmp_path: Path, compression: Compression) -> None:
    """Everything a certificate is made of, without a checkpoint and without changing a file."""
    snapshot = begun(tmp_path, compression)
    snapshot.append(pages(*range(1, 11)))
    snapshot.set_end({"last": 10})
    for shard in range(3):
        snapshot.seal(shard)
    path = finished(snapshot)
    before = content(path)
    with Contents.open(path) as found:
        assert (found.identity, found.created, found.layout) == (IDENTITY, CREATED, Layout(8, 2, compression))
        assert (found.last, list(found.pages())) == (10, list(range(1, 11)))
        assert list(found.lines()) == [(n, page(n).lines) for n in range(1, 11)]
        assert list(found.lines(3, 6)) == [(n, page(n).lines) for n in range(3, 7)]
        assert list(found.lines(9)) == [(n, page(n).lines) for n in (9, 10)]
        assert list(found.lines(11)) == list(found.lines(4, 3)) == []
        assert list(found.page_digests()) == [page_digest(page(n).lines) for n in range(1, 11) if n != 7]
        assert found.digest_of(7) == page_digest(b"")
        assert found.edge_digests() == {n: page_digest(page(n).lines) for n in (1, 4, 5, 8, 9, 10)}
    assert content(path) == before


def test_what_is_not_sealed_has_no_digest(tmp_path: Path) -> None:
    """Before the layout, in a journal, beyond the end, or a number that no page has."""
    with Snapshot.create(tmp_path / "s", {}, "") as empty:
        assert (empty.digest_of(1), list(empty.lines()), list(empty.page_digests())) == (b"", [], [])
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4, 5))
        snapshot.seal(0)
        assert [bool(snapshot.digest_of(n)) for n in (-1, 0, 1, 4, 5, 99)] == [False, False, True, True, False, False]
        assert [number for number, _ in snapshot.lines()] == [1, 2, 3, 4]
        snapshot.set_end({"last": 2})
        snapshot._index.put(3, index_record(PageRecord(3, 1, 0, 2, page_digest(b"1\n"))))  # stopped before it was cut
        assert [bool(snapshot.digest_of(n)) for n in (2, 3)] == [True, False]


def test_damage_is_not_counted_over(tmp_path: Path) -> None:
    """A changed page or a hole in the index stops the reader instead of leaving rows out."""
    with begun(tmp_path) as snapshot:
        snapshot.append(pages(1, 2, 3, 4))
        snapshot.seal(0)
        flip(snapshot.path / "part-00000.jsonl", 3)
        assert [number for number, _ in snapshot.lines(2)] == [2, 3, 4]
        with pytest.raises(DamagedError, match="page 1 is not what was written"):
            list(snapshot.lines())
        index = snapshot.path / "pages.idx"
        index.write_bytes(index.read_bytes()[: 24 * 4])
        with pytest.raises(DamagedError, match="no record of page 4"):
            list(snapshot.page_digests())


def test_damaged_checkpoint_is_not_read_past(tmp_path: Path) -> None:
    """The data package does not stand in for a checkpoint that is there."""
    snapshot = begun(tmp_path)
    snapshot.append(pages(1))
    snapshot.set_end({"last": 1})
    snapshot.seal(0)
    snapshot.finish({"resources": []})
    snapshot.close()
    flip(snapshot.path / "checkpoint.json", 9)
    with pytest.raises(DamagedError, match="checkpoint"):
        Contents.open(snapshot.path)

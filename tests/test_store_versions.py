"""Snapshots as earlier versions left them, kept as files: every later version goes on from them, to the same bytes.

``data/v1`` was written once and is never written again: ``open`` has a sealed shard and two journals, ``finished`` is a
published one. Both are of eight pages of two rows, three pages a shard.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import pytest

from harvester.errors import DamagedError, LocalError
from harvester.model import Page
from harvester.shard import Layout, resources
from harvester.store.checkpoint import FORMAT
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

V1: Final = Path(__file__).parent / "data" / "v1"
NAME: Final = "20261121T020000Z"
NEXT: Final = "20261121T020001Z"
NOTES: Final = {"calls": 9, "charset": "", "holes": [], "rows_on_page_1": 2}
END: Final = {"last": 8, "how": "empty", "beyond": [9, 16, 30]}
DIGESTS: Final = {
    "part-00000.jsonl": "beec99719878d80249b879803d56f6202aa2b5d8c5d46bf1f9756c075696abbc",
    "part-00001.jsonl": "017ee81ce1c0b2fd71e76af38b740a2215284df4677bef613e196181e24233c4",
    "part-00002.jsonl": "7f1f7417b764d6d976f60ca71ece3fd7a07bfdc56243efbeb8e0c714181b6e95",
    "pages.idx": "80cfa950820bddf1dd7f74f97ec29089a65e1f5b7401daa2dc997526c2f74feb",
}


def page(number: int) -> Page:
    """Return a page of the dataset that the files are of."""
    return Page(b'{"id":%d}\n{"id":%d}\n' % (2 * number - 1, 2 * number), 2)


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of shards and index."""
    files = [*path.glob("part-*"), path / "pages.idx"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Return an open snapshot of version 1."""
    return Path(shutil.copytree(V1 / "open", tmp_path / "d" / NAME))


def test_an_open_snapshot_is_continued(left: Path) -> None:
    """Everything that was kept is there; filled and finished, it is what version 1 would have made of it."""
    with Snapshot.open(left) as snapshot:
        assert [(kept.page, kept.rows) for kept in snapshot.recover()] == [(4, 2), (5, 2), (8, 2)]
        assert (snapshot.created, snapshot.notes, snapshot.end) == ("2026-11-21T02:00:00+00:00", NOTES, None)
        assert snapshot.identity["platform"] == "wuhan"
        assert snapshot.layout == Layout(6, 2)
        assert [(entry.first, entry.last, entry.twins) for entry in snapshot.sealed.values()] == [(1, 3, 0)]
        snapshot.append([(number, page(number)) for number in (6, 7)])
        snapshot.set_end(END)
        for shard in (1, 2):
            snapshot.seal(shard)
        ours = snapshot.package_members()
        found = resources(Layout(6, 2), snapshot.sealed.values())
        snapshot.finish({"created": snapshot.created, "resources": found, "harvester": ours})
        snapshot.close_open()
    assert digests(left) == DIGESTS
    assert json.loads((left / "datapackage.json").read_bytes()) == json.loads(
        (V1 / "finished" / "datapackage.json").read_bytes()
    )


def test_a_finished_snapshot_is_verified_and_taken_over(tmp_path: Path) -> None:
    """As one of today: its files say all that a repair needs."""
    path = Path(shutil.copytree(V1 / "finished", tmp_path / "d" / NAME))
    assert (verify_snapshot(path).symbols, verify_snapshot(path).rows) == ("...", 16)
    (path / "part-00001.jsonl").unlink()
    with Snapshot.from_package(path, path.with_name(NEXT)) as snapshot:
        assert snapshot.recover(repair=True) == []
        assert (snapshot.notes, snapshot.end) == (NOTES, END)
        snapshot.append([(number, page(number)) for number in (4, 5, 6)])
        snapshot.seal(1)
    assert digests(path.with_name(NEXT)) == DIGESTS


def content(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file of a folder with its time."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}


def newer_checkpoint(path: Path) -> None:
    """Give the checkpoint the next version, and a body that this one does not know."""
    body = b'{"anything":1}'
    digest = hashlib.sha256(b"%b 2\n%b" % (FORMAT.encode(), body)).hexdigest()
    head: dict[str, Any] = {"format": FORMAT, "version": 2, "sha256": digest}
    text = json.dumps(head).encode()[:-1] + b', "body":' + body + b"}\n"
    (path / "checkpoint.json").write_bytes(text)


def newer_journal(path: Path) -> None:
    """Give a journal the next version."""
    journal = path / "part-00001.pages"
    first, _, rest = journal.read_bytes().partition(b"\n")
    changed = first[:-9].replace(b" 1 1", b" 2 1")
    journal.write_bytes(b"%b %08x\n%b" % (changed, crc32(changed), rest))


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("newer", [newer_checkpoint, newer_journal])
def test_newer_versions_are_refused(left: Path, newer: Any, repair: bool) -> None:  # noqa: ANN401, FBT001 - parameters of pytest
    """With the advice to upgrade; it is no damage, and nothing is changed."""
    newer(left)
    before = content(left)
    with (
        pytest.raises(LocalError, match="has version 2, this program knows 1") as caught,
        Snapshot.open(left) as snapshot,
    ):
        snapshot.recover(repair=repair)
    assert not isinstance(caught.value, DamagedError)
    assert "upgrade harvester" in caught.value.hint
    assert content(left) == before


def test_a_newer_journal_is_not_verified(left: Path) -> None:
    """It cannot be told whether it is sound."""
    newer_journal(left)
    with pytest.raises(LocalError, match="version 2"):
        verify_snapshot(left)


def test_a_newer_index_without_a_newer_checkpoint_is_damage(left: Path) -> None:
    """Its version never goes up alone, so this is a changed bit."""
    index = left / "pages.idx"
    index.write_bytes(index.read_bytes().replace(b"\0\0\0\1", b"\0\0\0\2", 1))
    with Snapshot.open(left) as snapshot, pytest.raises(DamagedError, match="does not begin as it should"):
        snapshot.recover()

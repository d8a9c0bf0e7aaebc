"""What ``verify`` says of finished and open snapshots, sound and hurt."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harvester.errors import DamagedError, Exit
from harvester.model import Page
from harvester.shard import Compression, Layout, resources
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot


def page(number: int) -> tuple[int, Page]:
    """Return a page of two rows of 11 bytes."""
    return number, Page(b'{"page":%2d}\n' % number * 2, 2)


def filled(path: Path, numbers: range, last: int | None, compression: Compression = "none") -> Snapshot:
    """Make a snapshot of two pages a shard, sealed where complete."""
    snapshot = Snapshot.create(path, {}, "")
    snapshot.freeze(Layout(4, 2, compression))
    snapshot.append([page(number) for number in numbers])
    if last is not None:
        snapshot.set_end({"last": last})
    for shard in range(4):
        if snapshot.complete(shard):
            snapshot.seal(shard)
    return snapshot


def finished(path: Path, compression: Compression = "none") -> Path:
    """Make a finished snapshot of five pages in three shards."""
    with filled(path / "s", range(1, 6), 5, compression) as snapshot:
        assert snapshot.layout
        snapshot.finish({"resources": resources(snapshot.layout, snapshot.sealed.values())})
        snapshot.close_open()
    return snapshot.path


def edit(path: Path, change: Callable[[bytearray], object]) -> None:
    """Change a file's bytes in place."""
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def package(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the resources of a data package."""
    found = json.loads((path / "datapackage.json").read_bytes())
    change(found["resources"])
    (path / "datapackage.json").write_text(json.dumps(found))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_sound(tmp_path: Path, compression: Compression) -> None:
    """Every shard is good; pages and rows are counted; nothing is changed."""
    path = finished(tmp_path, compression)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    found = verify_snapshot(path)
    assert (found.symbols, found.pages, found.rows, found.exit) == ("...", 5, 10, Exit.OK)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_flipped_bit_is_placed(tmp_path: Path) -> None:
    """The page, its offset and length are named, and the other shards stay good."""
    path = finished(tmp_path)
    edit(path / "part-00001.jsonl", lambda data: data.__setitem__(30, data[30] ^ 4))
    found = verify_snapshot(path)
    assert (found.symbols, found.pages, found.exit) == (".X.", 3, Exit.LOCAL)
    assert found.shards[1].reasons == (
        "part-00001.jsonl is not what was written: its SHA-256 differs",
        "part-00001.jsonl: offset 24, 24 bytes: page 4 has changed",
    )


def test_cut_and_longer_files(tmp_path: Path) -> None:
    """A cut is placed; bytes after the last page are seen too."""
    path = finished(tmp_path)
    edit(path / "part-00000.jsonl", lambda data: data.__delitem__(slice(20, None)))
    edit(path / "part-00001.jsonl", lambda data: data.extend(b"{}\n"))
    found = verify_snapshot(path)
    assert found.symbols == "XX."
    assert found.shards[0].reasons[1] == "part-00000.jsonl: offset 0: page 1 is cut after 20 bytes"
    assert found.shards[1].reasons == ("part-00001.jsonl is not what was written: its SHA-256 differs",)


def test_missing_and_extra(tmp_path: Path) -> None:
    """A shard that is gone, a file that a reader would take for one; other files are nobody's business."""
    path = finished(tmp_path)
    (path / "part-00002.jsonl").unlink()
    shutil.copy(path / "part-00000.jsonl", path / "part-00003.jsonl")
    (path / "notes.txt").write_bytes(b"")
    found = verify_snapshot(path)
    assert found.symbols == "..?+"
    assert (found.shards[3].name, found.exit) == ("part-00003.jsonl", Exit.LOCAL)


def test_link_in_place_of_a_shard_is_missing(tmp_path: Path) -> None:
    """A shard is a file of its own."""
    path = finished(tmp_path)
    (path / "part-00000.jsonl").rename(tmp_path / "elsewhere")
    (path / "part-00000.jsonl").symlink_to(tmp_path / "elsewhere")
    assert verify_snapshot(path).symbols == "?.."


@pytest.mark.parametrize("place", [24 * 3 + 2, 24 * 3 + 19, 24 * 3 + 23])
def test_damaged_index_is_blamed(tmp_path: Path, place: int) -> None:
    """Where a shard's own digest is right, a wrong digest, row count or length is the index's fault."""
    path = finished(tmp_path)
    edit(path / "pages.idx", lambda data: data.__setitem__(place, data[place] ^ 1))
    found = verify_snapshot(path)
    assert found.symbols == ".X."
    assert "pages.idx: offset 72: wrong record of page 3" in found.shards[1].reasons


def test_short_or_foreign_index(tmp_path: Path) -> None:
    """Records that are not there are named; an index without its head holds none."""
    path = finished(tmp_path)
    edit(path / "pages.idx", lambda data: data.__delitem__(slice(24 * 5, None)))
    found = verify_snapshot(path)
    assert (found.symbols, found.shards[2].reasons) == ("..X", ("pages.idx: offset 120: no record of page 5",))
    edit(path / "pages.idx", lambda data: data.__setitem__(0, 0))
    assert verify_snapshot(path).symbols == "XXX"


def test_broken_compression_is_reported(tmp_path: Path) -> None:
    """A defect that stops decompression is a reason, not a crash."""
    path = finished(tmp_path, "gzip")
    edit(path / "part-00000.jsonl.gz", lambda data: data.__setitem__(12, data[12] ^ 0x55))
    found = verify_snapshot(path)
    assert found.symbols == "X.."
    assert len(found.shards[0].reasons) >= 2


def test_member_added_to_a_compressed_file(tmp_path: Path) -> None:
    """A second gzip member, which readers would take for rows, is damage."""
    path = finished(tmp_path, "gzip")
    edit(path / "part-00000.jsonl.gz", lambda data: data.extend(gzip.compress(b"{}\n")))
    assert verify_snapshot(path).symbols == "X.."


def test_gap_in_the_pages(tmp_path: Path) -> None:
    """Page ranges that do not follow one another are damage even if each shard is what it says."""
    path = finished(tmp_path)
    package(path, lambda found: found[1]["harvester"].update(pages=[3, 3], rows=2))
    found = verify_snapshot(path)
    assert found.symbols == ".X."
    assert "holds pages 3 to 3, which are not those of its number" in found.shards[1].reasons


def test_rows_after_the_last_page(tmp_path: Path) -> None:
    """A shard that holds more than the pages it is said to hold is damaged, whatever its digest."""
    path = finished(tmp_path)
    package(path, lambda found: found.pop())
    package(path, lambda found: found[1]["harvester"].update(pages=[3, 3], rows=2))
    found = verify_snapshot(path)
    assert found.symbols == ".X+"
    assert found.shards[1].reasons == ("pages.idx: its pages 3 to 3 add up to 2 rows of 24 bytes, not 2 of 48",)


def test_extra_file_alone_is_a_fault(tmp_path: Path) -> None:
    """A reader that takes all shards of the folder would take it too."""
    path = finished(tmp_path)
    shutil.copy(path / "part-00000.jsonl", path / "part-00003.jsonl")
    found = verify_snapshot(path)
    assert (found.symbols, found.rows, found.exit) == ("...+", 10, Exit.LOCAL)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop(0),
        lambda found: found[0].update(path="../elsewhere.jsonl"),
        lambda found: found[0].update(compression="rar"),
        lambda found: found[0].pop("harvester"),
        lambda found: found[0]["harvester"].update(pages=[5, 1]),
    ],
)
def test_data_package_that_cannot_be(tmp_path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Names and numbers in it are compared with what they must be, never followed."""
    path = finished(tmp_path)
    package(path, change)
    with pytest.raises(DamagedError, match=r"datapackage\.json"):
        verify_snapshot(path)


def test_nothing_to_verify_against(tmp_path: Path) -> None:
    """Neither a checkpoint nor a data package: say so."""
    with pytest.raises(DamagedError, match="missing or damaged"):
        verify_snapshot(tmp_path)


def test_open_snapshot(tmp_path: Path) -> None:
    """Sealed shards are checked, unfinished ones counted; without an end up to the last one seen."""
    filled(tmp_path / "a", range(1, 6), None).close()
    found = verify_snapshot(tmp_path / "a")
    assert (found.symbols, found.pages, found.exit) == ("..o", 4, Exit.OPEN_PAGES)
    assert found.shards[2].reasons == ("1 of 2 pages are here",)
    filled(tmp_path / "b", range(1, 3), 8).close()
    found = verify_snapshot(tmp_path / "b")
    assert found.symbols == ".ooo"
    assert found.shards[3].reasons == ("none of its pages is here yet",)


def test_damaged_journal(tmp_path: Path) -> None:
    """Damage before a marker shows with its place; a torn tail is only an unfinished shard."""
    with filled(tmp_path / "s", range(5, 6), None) as snapshot:
        snapshot.append([page(5)])
    journal = tmp_path / "s" / "part-00002.pages"
    edit(journal, lambda data: data.pop())
    assert verify_snapshot(tmp_path / "s").symbols == "ooo"
    edit(journal, lambda data: data.__setitem__(90, data[90] ^ 1))
    found = verify_snapshot(tmp_path / "s")
    assert found.symbols == "ooX"
    assert found.shards[2].reasons == ("part-00002.pages: offset 82, 24 bytes: page 5 is not what was written",)


def test_seal_cut_short_is_unfinished(tmp_path: Path) -> None:
    """A shard's file beside its journal is the ordinary result of a stop, not an extra file."""
    filled(tmp_path / "s", range(1, 2), None).close()
    (tmp_path / "s" / "part-00000.jsonl").write_bytes(b"")
    (tmp_path / "s" / "part-00009.jsonl").write_bytes(b"")
    assert verify_snapshot(tmp_path / "s").symbols == "o+"

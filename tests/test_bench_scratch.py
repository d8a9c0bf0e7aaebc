"""Pages on their way to a disk, in a folder that nobody keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from harvester.bench import scratch as module
from harvester.bench.scratch import scratch
from harvester.errors import LocalError
from harvester.model import Page

PAGE = Page(b'{"a":1}\n' * 20, 20)


def test_pages_are_kept_and_sealed_as_in_a_run(tmp_path: Path) -> None:
    """Whole shards are sealed, the rest is in a journal."""
    with scratch(tmp_path / "mirror", PAGE, 100, "none") as keep:
        for _ in range(12):
            keep.add(PAGE)
        keep.batch()()
        (place,) = tmp_path.glob(".harvester-bench-*/snapshot")
        names = {path.name for path in place.iterdir()}
        assert {"part-00000.jsonl", "part-00001.jsonl", "part-00002.pages"} <= names
        assert (place / "part-00000.jsonl").read_bytes() == PAGE.lines * 5
        assert keep.received == 12 * len(PAGE.lines)
        assert keep.seconds > 0


def test_nothing_is_left(tmp_path: Path) -> None:
    """Not even when it ends badly; the output folder is not made."""
    with pytest.raises(KeyError), scratch(tmp_path / "mirror", PAGE, 100, "none"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_it_is_full_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring fills no disk."""
    monkeypatch.setattr(module, "MOST", 2 * len(PAGE.lines))
    with scratch(tmp_path, PAGE, 100, "none") as keep:
        keep.add(PAGE)
        assert not keep.full
        keep.add(PAGE)
        assert keep.full


def test_a_disk_without_room_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how much is needed."""
    monkeypatch.setattr(module, "free", lambda _: 1_000_000)
    with pytest.raises(LocalError, match="not enough room"), scratch(tmp_path, PAGE, 100, "none"):
        raise AssertionError


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest that there is."""
    monkeypatch.setattr(module, "free", lambda _: 10**12)
    with pytest.raises(LocalError, match="/proc/self"), scratch(Path("/proc/self/mirror"), PAGE, 100, "none"):
        raise AssertionError

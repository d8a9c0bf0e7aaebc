"""What is said of a mirror: published, open, damaged or not begun; nothing on disk changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harvester.errors import LocalError, UsageError
from harvester.lifecycle import OVER
from harvester.model import Page
from harvester.shard import Layout
from harvester.status import State, dataset_folders, states
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)
FIRST, SECOND = "20261121T020000Z", "20261122T020000Z"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file under a folder with its time."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def one(path: Path) -> State:
    """Describe one dataset, and see to it that looking changes nothing."""
    before = contents(path)
    (state,) = states([path], "harvester run job.toml", NOW)
    assert contents(path) == before
    return state


def publish(path: Path, name: str = FIRST, rows: int = 0) -> None:
    """Publish a snapshot."""
    with Snapshot.create(path / name, {}, "") as snapshot:
        snapshot.set_end({"last": 0})
        snapshot.finish({"resources": []})
        DatasetFolder(path).publish(name, {"verdict": "likely", "rows": rows})
        snapshot.close_open()


def begin(path: Path, name: str, pages: int, last: int | None = None) -> None:
    """Begin a snapshot that holds so many pages of two rows, four pages a shard."""
    with Snapshot.create(path / name, {}, "") as snapshot:
        snapshot.freeze(Layout(8, 2, "none"))
        snapshot.append([(number, Page(b"1\n2\n", 2)) for number in range(1, pages + 1)])
        if pages >= 4:
            snapshot.seal(0)
        if last is not None:
            snapshot.set_end({"last": last})


def test_not_begun(tmp_path: Path) -> None:
    """A dataset of the job that has no folder yet is to be run."""
    assert one(tmp_path / "d") == State(dataset="d", next="harvester run job.toml --dataset d")
    assert not (tmp_path / "d").exists()


def test_published(tmp_path: Path) -> None:
    """A published snapshot has a verdict, rows and an age; next comes ``verify``."""
    publish(tmp_path / "d", rows=41)
    assert one(tmp_path / "d") == State(
        dataset="d",
        published=FIRST,
        verdict="likely",
        rows=41,
        age_hours=27.5,
        next=f"harvester verify {tmp_path / 'd'}",
    )


def test_open_beside_a_published_one(tmp_path: Path) -> None:
    """An open snapshot is described beside the published one: pages in shards and journals, and of how many."""
    publish(tmp_path / "d", rows=41)
    begin(tmp_path / "d", SECOND, pages=6, last=9)
    state = one(tmp_path / "d")
    assert (state.published, state.open, state.rows) == (FIRST, SECOND, 41)
    assert (state.open_pages_kept, state.open_pages_in_all) == (6, 9)
    assert state.next == "harvester run job.toml --dataset d"


def test_open_without_an_end(tmp_path: Path) -> None:
    """Before the end is known nobody says how many pages there are."""
    begin(tmp_path / "d", FIRST, pages=3)
    state = one(tmp_path / "d")
    assert (state.published, state.open, state.age_hours) == ("", FIRST, None)
    assert (state.open_pages_kept, state.open_pages_in_all) == (3, None)


def hold(path: Path, name: str) -> None:
    """Begin a snapshot that is whole and was not published, for two reasons."""
    begin(path, name, pages=3, last=3)
    with Snapshot.open(path / name) as snapshot:
        snapshot.notes = {OVER: ["page 2 stayed empty", "the total moved"]}
        snapshot.save()


@pytest.mark.parametrize("published", [False, True])
def test_held_back(tmp_path: Path, published: bool) -> None:  # noqa: FBT001 - from the table
    """A whole snapshot that was not published is named with its reasons; next comes a fresh one."""
    if published:
        publish(tmp_path / "d", rows=41)
    hold(tmp_path / "d", SECOND)
    assert one(tmp_path / "d") == State(
        dataset="d",
        published=FIRST if published else "",
        verdict="likely" if published else "",
        rows=41 if published else None,
        age_hours=27.5 if published else None,
        held=f"{SECOND}: page 2 stayed empty; the total moved",
        next="harvester run job.toml --dataset d --fresh",
    )


def test_open_after_one_that_was_held_back(tmp_path: Path) -> None:
    """The one under way is what matters then."""
    hold(tmp_path / "d", FIRST)
    begin(tmp_path / "d", SECOND, pages=3)
    state = one(tmp_path / "d")
    assert (state.open, state.held) == (SECOND, "")
    assert state.next == "harvester run job.toml --dataset d"


def test_open_after_one_that_is_damaged(tmp_path: Path) -> None:
    """Damage that a fresh snapshot has left behind is no problem any more."""
    begin(tmp_path / "d", FIRST, pages=3)
    (tmp_path / "d" / FIRST / "checkpoint.json").write_bytes(b"{")
    begin(tmp_path / "d", SECOND, pages=3)
    state = one(tmp_path / "d")
    assert (state.open, state.problem) == (SECOND, "")
    assert state.next == "harvester run job.toml --dataset d"


@pytest.mark.parametrize(("file", "way"), [("current.json", "--repair"), (f"{SECOND}/checkpoint.json", "--fresh")])
def test_damaged(tmp_path: Path, file: str, way: str) -> None:
    """Damage is told as a problem of its dataset, with what helps; the others are described all the same."""
    for name in ("d", "e"):
        publish(tmp_path / name)
        begin(tmp_path / name, SECOND, pages=1)
    (tmp_path / "d" / file).write_bytes(b'{"snap')
    damaged, good = states([tmp_path / "d", tmp_path / "e"], "harvester run job.toml", NOW)
    assert file in damaged.problem
    assert damaged.next == f"harvester run job.toml --dataset d {way}"
    assert good.problem == ""
    assert good.open == SECOND


def test_what_cannot_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not to be had just now is named; neither repairing nor beginning anew would help."""
    publish(tmp_path / "d")

    def refuse(_: DatasetFolder) -> str:
        raise LocalError("cannot open folder d: Permission denied")

    monkeypatch.setattr(DatasetFolder, "current", refuse)
    (state,) = states([tmp_path / "d"], "harvester run job.toml", NOW)
    assert (state.problem, state.next) == (
        "cannot open folder d: Permission denied",
        "harvester run job.toml --dataset d",
    )


def test_the_datasets_of_a_mirror(tmp_path: Path) -> None:
    """Folders with snapshots are datasets, in order of their names; runs and other folders are not."""
    for name in ("b", "a"):
        publish(tmp_path / name)
    (tmp_path / "runs" / "20261121T020000Z-3f2a").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert dataset_folders(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert dataset_folders(tmp_path / "a") == [tmp_path / "a"]
    assert dataset_folders(tmp_path / "runs") == []


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_mirror(tmp_path: Path, name: str) -> None:
    """What is no folder is a mistake in the command."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there is no folder"):
        dataset_folders(tmp_path / name)

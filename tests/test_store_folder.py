"""A dataset's folder: the lock, the list of snapshots, publication."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvester.errors import DamagedError, Exit, LockedError
from harvester.store.durable import Folder
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

OLD, NEW = "20261120T020000Z", "20261121T020000Z"
HOLDER = """
import sys, time
from pathlib import Path
from harvester.store.folder import DatasetFolder
with DatasetFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def snapshot(dataset: DatasetFolder, name: str) -> None:
    """Begin a snapshot and leave it."""
    Snapshot.create(dataset.path / name, {}, "").close()


def test_second_process_is_refused_at_once(tmp_path: Path) -> None:
    """It learns within a second who is there, changes nothing, and may in as soon as the first is dead."""
    dataset = DatasetFolder(tmp_path / "mirror" / "investors")
    command = [sys.executable, "-c", HOLDER, str(dataset.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:  # noqa: S603 - our own program
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"locked\n"
            lock = dataset.path / ".lock"
            owner = json.loads(lock.read_bytes())
            before = (lock.read_bytes(), lock.stat().st_mtime_ns, os.listdir(dataset.path))  # noqa: PTH208 - names
            started = time.monotonic()
            with pytest.raises(LockedError, match=rf"in use by process {holder.pid} on .* since 20") as caught:
                dataset.lock().__enter__()
            assert time.monotonic() - started < 1
            assert caught.value.exit == Exit.LOCKED
            assert owner["pid"] == holder.pid
            assert (lock.read_bytes(), lock.stat().st_mtime_ns, os.listdir(dataset.path)) == before  # noqa: PTH208
        finally:
            holder.send_signal(signal.SIGKILL)
    with dataset.lock():
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_lock_is_released_and_stays(tmp_path: Path) -> None:
    """The file outlives the lock; the same process is refused a second one just as well."""
    dataset = DatasetFolder(tmp_path / "investors")
    for _ in range(2):
        with dataset.lock(), pytest.raises(LockedError), dataset.lock():
            pytest.fail("locked twice")
        assert (tmp_path / "investors" / ".lock").exists()


def test_lock_removes_drafts(tmp_path: Path) -> None:
    """A snapshot folder that a stopped run had not finished creating goes; everything else stays."""
    dataset = DatasetFolder(tmp_path)
    snapshot(dataset, OLD)
    (tmp_path / f".tmp-{NEW}").mkdir()
    (tmp_path / f".tmp-{NEW}" / "checkpoint.json").write_bytes(b"")
    (tmp_path / ".tmp-mine").mkdir()
    with dataset.lock():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".tmp-mine", OLD]


def test_snapshots_are_listed_oldest_first(tmp_path: Path) -> None:
    """Only what is named like one; none where there is no folder yet."""
    dataset = DatasetFolder(tmp_path / "investors")
    assert (dataset.snapshots(), dataset.current()) == ([], None)
    for name in (NEW, OLD):
        snapshot(dataset, name)
    (dataset.path / "notes").mkdir()
    assert dataset.snapshots() == [OLD, NEW]


def test_publish_moves_both_pointers(tmp_path: Path) -> None:
    """The file for programs and the link for readers name the new snapshot; the file keeps the summary."""
    dataset = DatasetFolder(tmp_path)
    for name in (OLD, NEW):
        snapshot(dataset, name)
        dataset.publish(name, {"rows": 3})
    assert dataset.current() == NEW
    assert json.loads((tmp_path / "current.json").read_bytes()) == {"snapshot": NEW, "rows": 3}
    assert (tmp_path / "current").readlink() == Path(NEW)
    assert not list(tmp_path.glob(".tmp-*"))


def test_publish_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system knows no symbolic links the file alone says what is published."""
    dataset = DatasetFolder(tmp_path)
    snapshot(dataset, NEW)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    dataset.publish(NEW, {})
    assert dataset.current() == NEW
    assert not (tmp_path / "current").exists()


def test_publish_refuses_a_path(tmp_path: Path) -> None:
    """Only a snapshot's name can be published."""
    with pytest.raises(ValueError, match="not the name"):
        DatasetFolder(tmp_path).publish("../elsewhere", {})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"snapshot":7}', b'{"snapshot":"../x"}', b'{"snapshot":"20261122T020000Z"}']
)
def test_damaged_current_is_named(tmp_path: Path, content: bytes) -> None:
    """Neither a torn file nor one that points nowhere is taken for an answer."""
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"current\.json") as caught:
        DatasetFolder(tmp_path).current()
    assert f"`harvester run JOB --dataset {shlex.quote(tmp_path.name)} --repair`" in caught.value.hint


def test_a_publication_that_was_cut_short_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the lock next sets the link, then closes: readers have that snapshot, so nobody works on it."""
    dataset = DatasetFolder(tmp_path / "investors")
    with dataset.lock():
        snapshot(dataset, OLD)
        dataset.publish(OLD, {})
        snapshot(dataset, NEW)
        with monkeypatch.context() as killed:
            killed.setattr(Folder, "replace_link", interrupted)
            with pytest.raises(KeyboardInterrupt):
                dataset.publish(NEW, {})
    steps: list[tuple[str, bool]] = []
    unlink = os.unlink

    def watched(name: str, *, dir_fd: int) -> None:
        steps.append((name, (dataset.path / "current").readlink() == Path(NEW)))
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", watched)
    with dataset.lock():
        assert ("checkpoint.json", True) in steps
        assert not (dataset.path / NEW / "checkpoint.json").exists()
        assert (dataset.path / OLD / "checkpoint.json").exists()


def interrupted(*_: object) -> bool:
    """Stop here."""
    raise KeyboardInterrupt


def test_who_takes_the_lock_need_not_know_what_is_published(tmp_path: Path) -> None:
    """A pointer that is damaged stays as it is until somebody asks for it."""
    dataset = DatasetFolder(tmp_path / "investors")
    with dataset.lock():
        (dataset.path / "current.json").write_bytes(b"{")
    with dataset.lock():
        assert (dataset.path / "current.json").read_bytes() == b"{"

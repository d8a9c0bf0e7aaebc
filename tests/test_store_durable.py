"""Files and folders: errors in words, atomic replacement, no symbolic links."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harvester.errors import LocalError, LockedError
from harvester.store.durable import Folder, explained, locked, make_folder, read_at, write_all


def test_error_says_what_where_and_why(tmp_path: Path) -> None:
    """The message names the deed, the file and the system's reason; a full disk comes with advice."""
    with pytest.raises(LocalError) as caught, explained("write", tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"cannot write {tmp_path / 'x'}: No space left on device"
    assert "free some space" in caught.value.hint


def test_write_all_goes_on_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little the system takes, everything arrives once and in order."""
    write = os.write
    with Folder(tmp_path) as folder, folder.opened("x", os.O_WRONLY | os.O_CREAT, "write") as fd:
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        write_all(fd, b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_read_at_goes_on_after_a_short_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the end of the file makes the answer shorter."""
    (tmp_path / "x").write_bytes(b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
    with Folder(tmp_path) as folder, folder.opened("x", os.O_RDONLY, "read") as fd:
        assert read_at(fd, 5, 2) == b"23456"
        assert read_at(fd, 50, 8) == b"89"
        assert read_at(fd, 5, 10) == b""


def test_replace_leaves_the_old_until_the_new_is_whole(tmp_path: Path) -> None:
    """A stop while writing changes nothing under the file's own name."""
    with Folder(tmp_path) as folder:
        folder.replace("x", b"old")
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117 - the stop is inside the block that writes
            with folder.replacing("x") as fd:
                write_all(fd, b"ne")
                raise KeyboardInterrupt
        assert folder.read("x") == b"old"
        folder.replace("x", b"new")
        assert (folder.read("x"), folder.names()) == (b"new", ["x"])


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in the place of a file, a lock or a folder is refused and its target left alone."""
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "folder").symlink_to(tmp_path)
    with Folder(tmp_path) as folder:
        assert not folder.is_file("link")
        with pytest.raises(LocalError, match="cannot read"):
            folder.read("link")
        with pytest.raises(LocalError, match="cannot write"), folder.opened("link", os.O_WRONLY, "write"):
            pytest.fail("opened")
        folder.replace("link", b"other")
    with pytest.raises(LocalError, match="open folder"):
        Folder(tmp_path / "folder")
    (tmp_path / ".lock").symlink_to("target")
    with pytest.raises(LocalError, match="symbolic link"), locked(tmp_path / ".lock"):
        pytest.fail("locked")
    assert (tmp_path / "target").read_bytes() == b"mine"


def test_missing_things(tmp_path: Path) -> None:
    """What is not there is None or nothing to delete; a folder that is not there is an error."""
    with Folder(tmp_path) as folder:
        assert folder.stat("x") is None
        assert folder.read("x") is None
        folder.unlink("x")
        with pytest.raises(LocalError, match="cannot write"):
            folder.rename("x", "y")
    with pytest.raises(LocalError, match="cannot open folder"):
        Folder(tmp_path / "nowhere")


def test_close_twice(tmp_path: Path) -> None:
    """A second close does not close somebody else's file."""
    folder = Folder(tmp_path)
    folder.close()
    with (tmp_path / "x").open("wb") as file:
        folder.close()
        file.write(b"still open")


def test_make_folder(tmp_path: Path) -> None:
    """Everything above is created too; again is no error; a file in the way is."""
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot create folder"):
        make_folder(tmp_path / "file" / "c")


def test_folder_that_is_there_is_synced_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed may have made it in memory only; above it nothing is opened that is not ours."""
    (tmp_path / "a").mkdir()
    synced: list[Path] = []
    monkeypatch.setattr(Folder, "sync", lambda self: synced.append(self.path))
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "b" / "c")
    assert synced == [tmp_path, tmp_path, tmp_path / "b"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    make_folder(tmp_path / "a")
    assert len(synced) == 3


def test_owner_of_a_lock_is_named(tmp_path: Path) -> None:
    """Process, host and time; somebody who has not written his name yet is still refused for."""
    path = tmp_path / ".lock"
    with locked(path, lambda: datetime(2026, 11, 21, 2, tzinfo=UTC)):
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .+ since 2026-11-21T02:00:00\+00:00"):
            locked(path).__enter__()
        path.write_bytes(b"")
        with pytest.raises(LockedError, match="in use by another process"):
            locked(path).__enter__()


def test_scratch_has_no_name(tmp_path: Path) -> None:
    """It can be written and read back, is in no listing, and takes nobody's place."""
    (tmp_path / ".tmp-scratch").symlink_to("target")
    (tmp_path / "target").write_bytes(b"mine")
    with Folder(tmp_path) as folder:
        one, two = folder.scratch(), folder.scratch()
        assert folder.names() == ["target"]
        write_all(one, b"1")
        write_all(two, b"22")
        assert (read_at(one, 9, 0), read_at(two, 9, 0)) == (b"1", b"22")
        os.close(one)
        os.close(two)
    assert (tmp_path / "target").read_bytes() == b"mine"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["rename", "unlink", "mkdir", "symlink", "link"])
def test_a_signal_while_names_change(call: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the change had happened when the signal came, it has happened once."""
    real = getattr(os, call)
    interrupted = False

    def once(*places: object, **folders: object) -> None:
        nonlocal interrupted
        if interrupted or when == "after":
            real(*places, **folders)
        if not interrupted:
            interrupted = True
            raise InterruptedError

    monkeypatch.setattr(os, call, once)
    make_folder(tmp_path / "old" / "new")
    with Folder(tmp_path / "old") as old, Folder(tmp_path / "old" / "new") as new:
        old.replace("file", b"content")
        new.take("file", old, shared=True)
        assert new.replace_link("link", "file")
        old.unlink("file")
        assert new.names() == ["file", "link"]
        assert new.read("file") == b"content"
        assert old.names() == ["new"]
    assert interrupted

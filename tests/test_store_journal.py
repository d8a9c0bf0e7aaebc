"""One journal on disk: batches, order, memory, replay."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

import pytest

from harvester.errors import DamagedError, LocalError
from harvester.model import Page
from harvester.shard import Layout
from harvester.store.durable import Folder
from harvester.store.journal import Journal

LAYOUT = Layout(8, 2)
FIRST_LINE = b"J harvester-pages 1 1 0c7bbff9"


def page(number: int) -> tuple[int, Page]:
    """Return a page of one row."""
    return number, Page(b"[%d]\n" % number, 1)


def lines(journal: Journal, *numbers: int) -> bytes:
    """Return what a journal has of these pages, in this order."""
    return b"".join(found for _, found in journal.read(numbers))


def test_batches(tmp_path: Path) -> None:
    """The first creates the file, the second begins with a marker; pages come out in any order."""
    with Folder(tmp_path) as folder:
        journal = Journal(folder, LAYOUT, 1)
        assert (journal.name, journal.pages) == ("part-00001.pages", range(5, 9))
        assert journal.append([page(7), page(5)])
        size = (tmp_path / journal.name).stat().st_size
        assert not journal.append([page(6), page(5)])
        data = (tmp_path / journal.name).read_bytes()
        assert data[size:].startswith(b"C %d " % size)
        assert journal.held == 3
        assert lines(journal, 5, 6, 7, 5) == b"[5]\n[6]\n[7]\n[5]\n"


def test_first_batch_never_takes_a_file_over(tmp_path: Path) -> None:
    """What an earlier run left is recovered, not appended to blindly."""
    (tmp_path / "part-00001.pages").write_bytes(b"")
    with Folder(tmp_path) as folder, pytest.raises(LocalError, match="File exists"):
        Journal(folder, LAYOUT, 1).append([page(5)])


def test_replay_gives_what_append_gave(tmp_path: Path) -> None:
    """The next process finds the same pages, cuts the torn tail off and goes on."""
    with Folder(tmp_path) as folder:
        Journal(folder, LAYOUT, 1).append([page(6), page(5)])
        with (tmp_path / "part-00001.pages").open("ab") as file:
            file.write(b"P 7 1")
        journal = Journal(folder, LAYOUT, 1)
        assert len(journal.scan().records) == 2
        assert journal.held == 0
        assert [record.page for record in journal.replay(repair=False)] == [6, 5]
        journal.append([page(7)])
        assert lines(journal, 5, 6, 7) == b"[5]\n[6]\n[7]\n"
        assert journal.scan().damage is None


@pytest.mark.parametrize("torn", [b"", b"J harv"])
def test_file_without_its_first_line_goes(tmp_path: Path, torn: bytes) -> None:
    """A run that stopped while creating the file leaves nothing behind; the next batch creates it anew."""
    (tmp_path / "part-00001.pages").write_bytes(torn)
    with Folder(tmp_path) as folder:
        journal = Journal(folder, LAYOUT, 1)
        assert journal.replay(repair=False) == []
        assert folder.names() == []
        assert journal.append([page(5)])


def test_rewrite_and_keep_until(tmp_path: Path) -> None:
    """A journal can be replaced by some of its pages; the others are gone from the file too."""
    with Folder(tmp_path) as folder:
        journal = Journal(folder, LAYOUT, 1)
        journal.append([page(7), page(5), page(6)])
        journal.keep_until(7)
        assert journal.held == 3
        journal.keep_until(5)
        assert journal.held == 1
        assert [record.page for record in journal.scan().records] == [5]
        journal.rewrite([])
        assert (tmp_path / journal.name).read_bytes() == FIRST_LINE + b"\n"
        journal.append([page(8)])
        assert [record.page for record in Journal(folder, LAYOUT, 1).replay(repair=False)] == [8]


def test_page_that_changed_is_not_given_out(tmp_path: Path) -> None:
    """Reading checks the digest, and names file, offset and page."""
    with Folder(tmp_path) as folder:
        journal = Journal(folder, LAYOUT, 1)
        journal.append([page(5)])
        file = tmp_path / journal.name
        file.write_bytes(file.read_bytes().replace(b"[5]", b"[6]"))
        with pytest.raises(DamagedError, match=rf"{journal.name} is damaged at offset 81\n  page 5 is not") as caught:
            lines(journal, 5)
    assert f"--dataset {shlex.quote(tmp_path.parent.name)} --repair`" in caught.value.hint


@pytest.mark.parametrize("earlier", [0, 1])
def test_batch_that_failed_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int) -> None:
    """After a sync that failed the system may call it written; the next process must not find it."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Folder(tmp_path) as folder:
        journal = Journal(folder, LAYOUT, 1)
        if earlier:
            journal.append([page(5)])
        with monkeypatch.context() as patch:
            patch.setattr("harvester.store.journal.sync", fail)
            with pytest.raises(LocalError, match="error"):
                journal.append([page(6)])
        assert [record.page for record in Journal(folder, LAYOUT, 1).replay(repair=False)] == [5] * earlier

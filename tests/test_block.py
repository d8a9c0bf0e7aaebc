"""A block in another process: the files are the same as without, and whatever is not plain goes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harvester.block import FAILURES, Work
from harvester.errors import LockedError
from harvester.health import Health
from harvester.messages import Block, Failed, Left, Sealed, Told
from harvester.model import App, Dataset, Page, Secret
from harvester.shard import Layout
from harvester.store import durable
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

APP = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
DATASET = Dataset(name="D", app=APP, service="s", page_param="pageNo", first_page=0)
LAYOUT = Layout(40, 2)
SHARD = 1
PAGES = LAYOUT.pages_of(SHARD)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Snapshot]:
    """Return the snapshot of a run that holds the lock."""
    folder = DatasetFolder(tmp_path / "D")
    with folder.lock(), Snapshot.create(folder.path / "20261121T020000Z", {}, "") as snapshot:
        snapshot.freeze(LAYOUT)
        yield snapshot


def lent(snapshot: Snapshot, *, charset: str = "", echoes: bool = True, owner: bytes = b"", here: Any = ()) -> Work:  # noqa: ANN401 - numbers
    """Return a block at work."""
    block = Block(
        number=1,
        dataset="D",
        charset=charset,
        echoes=echoes,
        path=str(snapshot.path),
        owner=owner or DatasetFolder(snapshot.path.parent).owner(),
        layout=LAYOUT,
        shard=SHARD,
        here=list(here),
    )
    return Work(block, DATASET, Health(0, 1))


def page(number: int, /, **more: Any) -> Page:  # noqa: ANN401 - fields of a page
    """Return a page of two rows."""
    return Page(b'{"a":%d}\n{"b":%d}\n' % (number, number), 2, **more)


def fetch(work: Work, but: int = 0) -> None:
    """Bring every page, the last of them first, but one."""
    numbers = []
    while (number := work.next()) is not None:
        numbers.append(number)
    for number in reversed(numbers):
        if number == but:
            work.give_back(number, "HTTP 502")
        else:
            work.keep(number, page(number))
    assert work.over


def itself(root: Path) -> dict[str, bytes]:
    """Return the files of a snapshot that one process has filled."""
    with Snapshot.create(root / "alone", {}, "") as snapshot:
        snapshot.freeze(LAYOUT)
        snapshot.append([(number, page(number)) for number in PAGES])
        snapshot.seal(SHARD)
        return files(snapshot)


def files(snapshot: Snapshot) -> dict[str, bytes]:
    """Return what lies in a snapshot's folder but the checkpoint."""
    return {file.name: file.read_bytes() for file in snapshot.path.iterdir() if file.name != "checkpoint.json"}


def test_sealed_elsewhere(parent: Snapshot, tmp_path: Path) -> None:
    """The parent records what the child has written; nothing differs from a shard of its own."""
    work = lent(parent)
    fetch(work)
    work.batch()()
    end = work.end()()
    assert isinstance(end, Sealed)
    assert {"part-00001.pages", "part-00001.jsonl"} <= files(parent).keys()
    parent.record(end.entry, end.records)
    assert files(parent) == itself(tmp_path)
    with Snapshot.open(parent.path) as again:
        assert again.recover() == []
        assert again.sealed == {SHARD: end.entry}


def test_pages_that_were_there_before(parent: Snapshot, tmp_path: Path) -> None:
    """The child goes on with the parent's journal, and asks for none of its pages."""
    here = [PAGES[2], PAGES[9]]
    parent.append([(number, page(number)) for number in here])
    parent.hand_over(SHARD)
    assert not parent.complete(SHARD)
    work = lent(parent, here=here)
    fetch(work)
    end = work.end()()
    assert isinstance(end, Sealed)
    report = work.report()
    assert report is not None
    assert sorted(told.page for told in report.pages) == [number for number in PAGES if number not in here]
    parent.record(end.entry, end.records)
    assert files(parent) == itself(tmp_path)


def test_left_with_a_page_missing(parent: Snapshot, tmp_path: Path) -> None:
    """The parent adopts the journal, brings the page and seals."""
    work = lent(parent)
    fetch(work, but=PAGES[4])
    assert work.end()() == Left(1, "")
    report = work.report()
    assert report is not None
    assert report.returned == [PAGES[4]]
    assert [kept.page for kept in parent.adopt(SHARD)] == [number for number in PAGES if number != PAGES[4]]
    parent.append([(PAGES[4], page(PAGES[4]))])
    parent.seal(SHARD)
    assert files(parent) == itself(tmp_path)


def test_a_shard_that_is_not_believed(parent: Snapshot, tmp_path: Path) -> None:
    """The child has written the file, the parent wants it otherwise: the pages are back in a journal."""
    work = lent(parent)
    fetch(work)
    assert isinstance(work.end()(), Sealed)
    assert len(parent.adopt(SHARD)) == len(PAGES)
    assert "part-00001.jsonl" not in files(parent)
    parent.seal(SHARD)
    assert files(parent) == itself(tmp_path)


def test_nothing_came(parent: Snapshot) -> None:
    """There is no journal, and none is missed."""
    work = lent(parent)
    work.recall()
    assert work.over
    assert work.end()() == Left(1, "")
    assert parent.adopt(SHARD) == []


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ({}, True),
        ({"number": PAGES[0] - 1}, True),
        ({"number": 1}, False),
        ({"charset": "gb18030"}, True),
        ({"charset": "utf-8"}, False),
        ({"repairs": ("NUL",)}, False),
    ],
)
def test_what_is_plain(parent: Snapshot, answer: dict[str, Any], fits: bool) -> None:  # noqa: FBT001 - expected
    """An answer that takes a decision is the parent's."""
    work = lent(parent, charset="gb18030")
    assert work.fits(PAGES[0], page(PAGES[0], **answer)) is fits
    assert not work.fits(PAGES[0], Page(b"", 0))
    work.end()()


def test_stated_numbers_count_only_where_they_are_believed(parent: Snapshot) -> None:
    """Some platforms state the same number on every page."""
    work = lent(parent, echoes=False)
    assert work.fits(PAGES[0], page(PAGES[0], number=1))
    work.end()()


def test_failures_in_a_row(parent: Snapshot) -> None:
    """So many end the block, and the parent learns why; a good page between them starts the count anew."""
    work = lent(parent)
    for turn in range(2 * FAILURES):
        number = work.next()
        assert number is not None
        if turn == FAILURES - 1:
            work.keep(number, page(number))
        else:
            work.give_back(number, "HTTP 502")
        assert work.ending == (turn == 2 * FAILURES - 1)
    assert work.next() is None
    report = work.report()
    assert report is not None
    assert len(report.returned) == len(PAGES) - 1
    assert report.pages == [Told(PAGES[7], 2, page(PAGES[7]).digest)]
    assert work.end()() == Left(1, "HTTP 502")


def test_refusals_are_repeated_and_counted(parent: Snapshot) -> None:
    """A refusal for the rate says nothing about the page."""
    work = lent(parent)
    number = work.next()
    assert number is not None
    work.called()
    work.again(number, ("1141", "too fast"))
    report = work.report()
    assert report is not None
    assert (report.calls, report.refused, report.returned) == (1, [("1141", "too fast", 1)], [])
    fetch(work)
    assert isinstance(work.end()(), Sealed)


def test_a_disk_that_fails(parent: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again; the parent is told in the words of the error."""
    work = lent(parent)
    number = work.next()
    assert number is not None
    work.keep(number, page(number))

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28), fd)

    with monkeypatch.context() as patched:
        patched.setattr("harvester.store.journal.sync", full)
        work.batch()()
    assert work.next() is None
    end = work.end()()
    assert isinstance(end, Failed)
    assert "No space left on device" in end.message
    assert "free some space" in end.hint


def test_only_for_the_holder_of_the_lock(parent: Snapshot) -> None:
    """Somebody else has taken the dataset meanwhile: nothing is written."""
    before = files(parent)
    with pytest.raises(LockedError):
        lent(parent, owner=b'{"pid":1}\n')
    assert files(parent) == before


def test_the_next_holder_waits_for_who_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed may have left a process that still writes: nobody else begins before it has ended."""
    folder = DatasetFolder(tmp_path / "D")
    with folder.lock(), Snapshot.create(folder.path / "20261121T020000Z", {}, "") as snapshot:
        work = lent(snapshot)
    monkeypatch.setattr(durable, "LINGER", 0.05)
    with pytest.raises(LockedError, match="a process of a run that has ended"), folder.lock():
        pass
    work.end()()
    with folder.lock():
        pass

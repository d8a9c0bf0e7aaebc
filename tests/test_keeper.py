"""What is durable when, what is sealed when, and what becomes of a snapshot at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harvester.certificate import EndFacts, Evidence, KeyFacts, ReadAgain, SizeFacts, recorded
from harvester.errors import DamagedError
from harvester.keeper import Batch, Keeper
from harvester.lifecycle import OVER, identity
from harvester.model import App, Dataset, Page, Secret
from harvester.platforms import wuhan
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
NAME = "20261121T020000Z"
APP = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
DATASET = Dataset(name="D", app=APP, service="s", title="出资人", page_param="pageNo")
END = {"last": 5, "how": "empty", "beyond": [6, 13, 27]}
ABOUT = {"scheme": "http"}

Begin = Callable[..., Keeper]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Return a keeper of the one snapshot, begun or continued, for a dataset with such settings; four rows a shard."""
    with ExitStack() as closing:

        def keeper(**settings: Any) -> Keeper:  # noqa: ANN401 - fields of a dataset
            folder, path = DatasetFolder(tmp_path / "D"), tmp_path / "D" / NAME
            if path.exists():
                snapshot = Snapshot.open(path)
            else:
                snapshot = Snapshot.create(path, identity(DATASET, wuhan), NOW.isoformat())
            closing.callback(snapshot.close)
            found = Keeper(replace(DATASET, **settings), folder, snapshot, (4, "none"))
            for page in snapshot.recover():
                found.recovered(page)
            return found

        yield keeper


def page(number: int, rows: int = 2, mark: str = "", **more: Any) -> Page:  # noqa: ANN401 - fields of a page
    """Return a page; every page differs from every other."""
    return Page(b"".join(b'{"ID":"%d-%d%b"}\n' % (number, row, mark.encode()) for row in range(rows)), rows, **more)


def pages(*numbers: int, **more: Any) -> list[tuple[int, Page]]:  # noqa: ANN401 - fields of a page
    """Return pages with their numbers."""
    return [(number, page(number, **more)) for number in numbers]


def batch(
    pages: Sequence[tuple[int, Page]] = (),
    *,
    certain: int = 0,
    last: int | None = None,
    unread: Sequence[tuple[int, bytes, str]] = (),
    again: bool = False,
    **notes: Any,  # noqa: ANN401 - the event loop's
) -> Batch:
    """Return what the event loop hands over; in a second reading shards wait for its end."""
    return Batch(
        pages=list(pages),
        unread=list(unread),
        notes=notes,
        page_size=2,
        certain=certain,
        last=last,
        again=again,
        seal=not again,
    )


def evidence(**more: Any) -> Evidence:  # noqa: ANN401 - fields of the evidence
    """Return what a clean walk over five pages, all read twice, knows of itself."""
    facts = Evidence(
        pages=5,
        rows=0,
        end=EndFacts(how="empty", beyond=(6, 13, 27)),
        page_size=SizeFacts(asked=0, effective=2),
        read_again=ReadAgain(pages=5, share_below=0.0),
    )
    return replace(facts, **more)


def judged(keeper: Keeper, answers: Sequence[tuple[int, Page]] = (), **more: Any) -> Keeper:  # noqa: ANN401 - as above
    """Keep five pages, or these, and judge them."""
    keeper.settle(batch(answers or pages(1, 2, 3, 4, 5), certain=5, last=5), END)
    keeper.judge(evidence(**more), ABOUT)
    return keeper


def reasons(keeper: Keeper) -> str:
    """Return why the verdict is not better."""
    assert keeper.certificate is not None
    return "; ".join(keeper.certificate.reasons)


def files(keeper: Keeper) -> list[str]:
    """Return the names of shards and journals."""
    return sorted(file.name for file in keeper.snapshot.path.glob("part-*"))


def checkpoint(keeper: Keeper) -> dict[str, Any]:
    """Return the notes as they are on disk."""
    with Snapshot.open(keeper.snapshot.path) as snapshot:
        return dict(snapshot.notes)


def lines_of(keeper: Keeper) -> bytes:
    """Return the rows of the finished shards."""
    return b"".join(lines for _, lines in keeper.snapshot.lines())


# -- commits ------------------------------------------------------------------------------------------------------


def test_a_commit_makes_pages_durable(begin: Begin) -> None:
    """What came is on disk after a commit, in any order, sealed only where nothing can change it."""
    keeper = begin()
    assert keeper.rows == 0
    keeper.commit(batch(pages(5, 2, 3, 1), certain=3))
    assert sorted(keeper.snapshot.pages()) == [1, 2, 3, 5]
    assert files(keeper) == ["part-00000.jsonl", "part-00001.pages", "part-00002.pages"]
    assert keeper.rows == 8
    later = begin()
    assert later.rows == 8


@pytest.mark.parametrize(("certain", "sealed"), [(0, []), (1, []), (2, [0]), (3, [0]), (4, [0, 1]), (5, [0, 1])])
def test_what_is_certain_is_sealed(begin: Begin, certain: int, sealed: list[int]) -> None:
    """Whole shards; the last one, which is shorter, when the end is settled."""
    keeper = begin()
    keeper.commit(batch(pages(1, 2, 3, 4, 5), certain=certain))
    assert sorted(keeper.snapshot.sealed) == sealed
    keeper.settle(batch(certain=5, last=5), END)
    assert sorted(keeper.snapshot.sealed) == [0, 1, 2]


def test_what_becomes_certain_later_is_sealed_later(begin: Begin) -> None:
    """Without another page of that shard."""
    keeper = begin()
    keeper.commit(batch(pages(1, 2), certain=1))
    assert files(keeper) == ["part-00000.pages"]
    keeper.commit(batch(pages(3), certain=3))
    assert files(keeper) == ["part-00000.jsonl", "part-00001.pages"]


def test_a_commit_without_pages(begin: Begin) -> None:
    """It freezes no layout, and keeps what nobody could read."""
    keeper = begin()
    keeper.commit(batch(unread=[(7, b"\xff", "not UTF-8")]))
    assert begin().snapshot.layout is None
    assert (keeper.snapshot.path / "quarantine" / "page-00000007.body").read_bytes() == b"\xff"
    keeper.commit(batch(pages(1)))
    assert keeper.snapshot.layout is not None
    assert keeper.snapshot.layout.page_size == 2


def test_a_charset_is_durable_before_what_it_was_read_by(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a later run could read the rest otherwise."""
    keeper = begin()
    keeper.commit(batch(pages(1), charset=""))
    noted: list[str] = []
    append = Snapshot.append

    def look(self: Snapshot, pages: Sequence[tuple[int, Page]]) -> None:
        noted.append(checkpoint(keeper)["charset"])
        append(self, pages)

    monkeypatch.setattr(Snapshot, "append", look)
    keeper.commit(batch(pages(2), charset="gb18030"))
    assert noted == ["gb18030"]


def test_repairs_survive_a_kill(begin: Begin) -> None:
    """Repairs of what is durable are noted with it, page by page until its shard is sealed; none counts twice."""
    keeper = begin()
    for number, certain in ((1, 1), (2, 2), (3, 2), (5, 3)):
        keeper.commit(batch(pages(number, repairs=("bom",) if number != 2 else ()), certain=certain))
    assert files(keeper) == ["part-00000.jsonl", "part-00001.pages", "part-00002.pages"]

    later = begin()
    assert later.snapshot.notes["repairs"] == {"bom": 1}
    assert later.snapshot.notes["open_repairs"] == {"3": ["bom"], "5": ["bom"]}
    later.settle(batch(pages(4, repairs=("bom", "control characters")), certain=5, last=5), END)
    later.judge(evidence(), ABOUT)
    assert later.certificate is not None
    assert later.certificate.evidence.repairs == {"bom": 4, "control characters": 1}


# -- the second reading -------------------------------------------------------------------------------------------


def test_pages_of_a_sealed_shard_are_replaced(begin: Begin) -> None:
    """Its shard is open until the reading settles, so that many changes cost one sealing; a kill loses none of them."""
    keeper = begin()
    keeper.settle(batch(pages(1, 2, 3, 4, 5), certain=5, last=5), END)
    keeper.commit(batch(pages(3, mark="*"), certain=5, last=5, again=True))
    assert files(keeper) == ["part-00000.jsonl", "part-00001.pages", "part-00002.jsonl"]
    keeper.commit(batch(pages(4, mark="*"), certain=5, last=5, again=True))
    assert "part-00001.pages" in files(keeper)

    later = begin()
    assert later.rows == 10
    later.settle(batch(certain=5, last=5), END)
    assert files(later) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    marked = [page(number, mark="*" if number in {3, 4} else "").lines for number in range(1, 6)]
    assert lines_of(later) == b"".join(marked)
    assert later.rows == 10


@pytest.mark.parametrize("commits", [False, True], ids=["at once", "while its end is looked for"])
def test_an_end_that_moves(begin: Begin, commits: bool) -> None:  # noqa: FBT001 - from the table
    """What lies beyond is dropped, from files and counts; where the list has grown, its new pages are kept."""
    keeper = begin()
    keeper.settle(batch(pages(1, 2, 3, 4, 5), certain=5, last=5), END)
    keeper.settle(batch(certain=3, last=3, again=True), END | {"last": 3})
    assert files(keeper) == ["part-00000.jsonl", "part-00001.jsonl"]
    assert (keeper.rows, lines_of(keeper)) == (6, b"".join(page(number).lines for number in (1, 2, 3)))
    more = pages(4, 5, 6, 7)
    if commits:
        keeper.commit(batch(more, certain=7, last=None, again=True))
        assert sorted(begin().snapshot.pages()) == [1, 2, 3, 4, 5, 6, 7]
        more = []
    keeper.settle(batch(more, certain=7, last=7, again=True), END | {"last": 7})
    assert (keeper.rows, lines_of(keeper)) == (14, b"".join(page(number).lines for number in range(1, 8)))


def test_an_end_that_is_settled_drops_what_lies_beyond(begin: Begin) -> None:
    """Pages that were repeated past the end are in journals until then."""
    keeper = begin()
    keeper.commit(batch([*pages(1, 2, 3, 4, 5), (6, page(5)), (13, page(5))], certain=4))
    assert keeper.rows == 14
    keeper.settle(batch(certain=5, last=5), END)
    assert keeper.rows == 10
    assert files(keeper) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]


# -- the verdict --------------------------------------------------------------------------------------------------


def test_what_is_proven_is_published(begin: Begin, tmp_path: Path) -> None:
    """The summary, the package with its certificate, and nothing that only an open snapshot needs."""
    keeper = judged(begin())
    keeper.close({}, [])
    assert keeper.published
    assert json.loads((tmp_path / "D" / "current.json").read_bytes()) == {
        "snapshot": NAME,
        "verdict": "proven",
        "rows": 10,
        "identity": identity(DATASET, wuhan),
    }
    package = (tmp_path / "D" / "current" / "datapackage.json").read_bytes()
    assert recorded(package) == keeper.certificate
    assert json.loads(package)["harvester"]["certificate"]["scheme"] == "http"
    assert not (keeper.snapshot.path / "checkpoint.json").exists()


@pytest.mark.parametrize(
    ("verdict", "strict", "published"),
    [
        ("proven", False, True),
        ("proven", True, True),
        ("likely", False, True),
        ("likely", True, False),
        ("not proven", False, False),
        ("not proven", True, False),
    ],
)
def test_what_may_be_published(begin: Begin, tmp_path: Path, verdict: str, strict: bool, published: bool) -> None:  # noqa: FBT001 - from the table
    """``strict`` asks for proven; what is not published stays, with its certificate."""
    facts: dict[str, dict[str, Any]] = {
        "proven": {},
        "likely": {"read_again": ReadAgain()},
        "not proven": {"holes": (3,)},
    }
    keeper = judged(begin(strict=strict), **facts[verdict])
    assert keeper.certificate is not None
    assert keeper.certificate.verdict == verdict
    assert keeper.published is published
    assert (tmp_path / "D" / "current.json").exists() is published
    keeper.close({"calls": 9}, [] if published else ["why"])
    assert (keeper.snapshot.path / "checkpoint.json").exists() is not published
    if not published:
        assert checkpoint(keeper) == {"calls": 9, "repairs": {}, "open_repairs": {}, OVER: ["why"]}
    assert recorded((keeper.snapshot.path / "datapackage.json").read_bytes()) == keeper.certificate


def test_the_files_complete_the_evidence(begin: Begin) -> None:
    """Rows, repairs, pages with identical rows and pages that repeat another one are counted from what is there."""
    twin = Page(b'{"ID":"1"}\n{"ID":"1"}\n', 2)
    keeper = judged(begin(), [(1, page(1)), (2, twin), (3, page(3, repairs=("bom",))), (4, page(1)), (5, page(1))])
    assert keeper.certificate is not None
    found = keeper.certificate.evidence
    assert (found.rows, found.twins, found.repeated_pages, found.repairs) == (10, 1, 2, {"bom": 1})
    assert found.key is None
    assert "2 pages with the same rows as another page" in reasons(keeper)
    assert "1 page with identical rows, and no `key`" in reasons(keeper)
    assert keeper.certificate.verdict == "not proven"


def test_pages_without_rows_repeat_nothing(begin: Begin) -> None:
    """Two holes are alike, and no page is there twice because of that."""
    keeper = judged(begin(), [*pages(1, 3, 5), (2, Page(b"", 0)), (4, Page(b"", 0))], holes=(2, 4))
    assert keeper.certificate is not None
    assert keeper.certificate.evidence.repeated_pages == 0


def test_a_key_tells_rows_apart(begin: Begin) -> None:
    """With one, equal pages are as many doubled keys; rows that lack a column of it are counted."""
    keeper = judged(begin(key=("ID",)))
    assert keeper.certificate is not None
    assert keeper.certificate.verdict == "proven"
    assert keeper.certificate.evidence.key == KeyFacts(columns=("ID",), distinct=10, doubled=0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (b'{"ID":"1-0"}\n{"ID":"9"}\n', "1 value of the key ID more than once"),
        (b'{"ID":"9"}\n{"id":"10"}\n', "1 row without ID"),
        (b'{"ID":"9"}\n{"ID":"9"}\n', "1 value of the key ID more than once"),
    ],
)
def test_a_key_that_is_none(begin: Begin, rows: bytes, words: str) -> None:
    """Doubled and missing keys are doubts, with numbers."""
    keeper = judged(begin(key=("ID",)), [*pages(1, 2, 3, 4), (5, Page(rows, 2))])
    assert keeper.certificate is not None
    assert keeper.certificate.verdict == "not proven"
    assert reasons(keeper) == words


def test_a_key_of_several_columns(begin: Begin) -> None:
    """It is unique if all of them together are."""
    answers = [(number, Page(b'{"A":%d,"B":1}\n{"A":%d,"B":2}\n' % (number, number), 2)) for number in range(1, 6)]
    keeper = judged(begin(key=("A", "B")), answers)
    assert keeper.certificate is not None
    assert keeper.certificate.evidence.key == KeyFacts(columns=("A", "B"), distinct=10, doubled=0)


def test_damage_found_at_the_end_publishes_nothing(begin: Begin, tmp_path: Path) -> None:
    """Shards are hashed once more before anybody sees them."""
    keeper = begin()
    keeper.settle(batch(pages(1, 2, 3, 4, 5), certain=5, last=5), END)
    shard = keeper.snapshot.path / "part-00001.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"3-1", b"3-2"))
    with pytest.raises(DamagedError, match="does not hold what was written"):
        keeper.judge(evidence(), ABOUT)
    assert not keeper.published
    assert not (tmp_path / "D" / "current.json").exists()

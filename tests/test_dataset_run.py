"""One dataset between frontier and snapshot: what is durable when, what a later run takes over, what is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harvester.dataset_run import DatasetRun, Stop
from harvester.errors import Exit
from harvester.health import Health
from harvester.lifecycle import Published, choose, held_snapshot, identity
from harvester.model import App, Dataset, Page, Secret
from harvester.platforms import wuhan
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
APP = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
DATASET = Dataset(name="D", app=APP, service="s", title="出资人", page_param="pageNo")

Begin = Callable[[], DatasetRun]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begin a run of the same dataset, again and again; four rows a shard."""

    def run() -> DatasetRun:
        folder = DatasetFolder(tmp_path / "D")
        snapshot = choose(folder, identity(DATASET, wuhan), fresh=False, now=NOW)
        assert isinstance(snapshot, Snapshot)
        return DatasetRun(DATASET, folder, snapshot, Health(0, 900), (4, "none"))

    return run


def page(number: int, rows: int = 2, **more: Any) -> Page:  # noqa: ANN401 - fields of a page
    """Return a page; every page differs from every other."""
    return Page(b"".join(b'{"ID":"%d-%d"}\n' % (number, row) for row in range(rows)), rows, **more)


def bring(run: DatasetRun, number: int, answer: Page) -> bool:
    """Let an answer arrive for a page that was asked for."""
    run.counts.calls += 1
    run.frontier.in_flight += 1
    return run.accept(number, answer, NOW)


def walk(run: DatasetRun, last: int, **more: Any) -> None:  # noqa: ANN401 - fields of a page
    """Answer whatever the frontier asks for, until it asks for nothing more."""
    while (number := run.frontier.next()) is not None:
        run.counts.calls += 1
        run.accept(number, page(number, 2 if number <= last else 0, **more), NOW)


def shards(path: Path) -> list[str]:
    """Return the names of finished shards."""
    return sorted(file.name for file in path.glob("part-*.jsonl"))


def test_from_nothing_to_published(begin: Begin) -> None:
    """Pages become shards, evidence a verdict, and the snapshot is what readers see."""
    run = begin()
    walk(run, last=5)
    run.last_batch()()
    assert run.published
    assert run.stop is None
    assert run.rows == run.counts.rows == 10
    path = run.snapshot.path
    assert shards(path) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert b"".join((path / name).read_bytes() for name in shards(path)) == b"".join(page(n).lines for n in range(1, 6))
    assert json.loads((path.parent / "current.json").read_bytes()) == {
        "snapshot": "20261121T020000Z",
        "verdict": "likely",
        "rows": 10,
        "identity": identity(DATASET, wuhan),
    }
    assert not (path / "checkpoint.json").exists()
    assert not list(path.glob("*.pages"))
    assert choose(run.folder, identity(DATASET, wuhan), fresh=False, now=NOW) == Published("20261121T020000Z")


def test_the_package_of_a_snapshot(begin: Begin) -> None:
    """Golden: what ``datapackage.json`` says of the dataset and its certificate."""
    run = begin()
    walk(run, last=3, repairs=("bom",))
    run.last_batch()()
    package = json.loads((run.snapshot.path / "datapackage.json").read_bytes())
    assert (package["name"], package["title"], package["created"]) == ("d", "出资人", "2026-11-21T02:00:00+00:00")
    assert [resource["path"] for resource in package["resources"]] == shards(run.snapshot.path)
    ours = package["harvester"]
    assert (ours["rows"], ours["pages"], ours["identity"]) == (6, 3, identity(DATASET, wuhan))
    certificate = ours["certificate"]
    assert certificate["verdict"] == "likely"
    assert certificate["scheme"] == "http"
    assert certificate["calls"] == run.counts.calls
    assert certificate["read"] == {"from": "2026-11-21T10:00:00+08:00", "until": "2026-11-21T10:00:00+08:00"}
    assert certificate["evidence"]["repairs"] == {"bom": 3}
    assert certificate["evidence"]["rows"] == 6


def test_a_commit_makes_pages_durable(begin: Begin, tmp_path: Path) -> None:
    """What came is on disk after a commit, sealed only where nothing can change it, and a later run has it."""
    run = begin()
    for number in (1, 2, 3, 5):
        assert bring(run, number, page(number))
    assert list(run.snapshot.pages()) == []
    run.batch()()
    assert sorted(run.snapshot.pages()) == [1, 2, 3, 5]
    assert shards(run.snapshot.path) == ["part-00000.jsonl"]
    assert run.rows == 8
    run.snapshot.close()  # and no last batch: the process was killed

    later = begin()
    assert (later.rows, later.counts.kept, later.frontier.done) == (8, 4, 4)
    asked = []
    while (wanted := later.frontier.next()) is not None:
        asked.append(wanted)
        later.accept(wanted, page(wanted, 2 if wanted <= 6 else 0), NOW)
    assert not {1, 2, 3, 5} & set(asked)
    later.last_batch()()
    assert later.published
    parts = sorted((tmp_path / "D" / "current").glob("part-*"))
    assert b"".join(part.read_bytes() for part in parts) == b"".join(page(number).lines for number in range(1, 7))


def test_a_stop_keeps_everything_and_publishes_nothing(begin: Begin) -> None:
    """A stopped run saves what is needed to go on; calls, repairs, times and totals add up over runs."""
    run = begin()
    bring(run, 1, page(1, repairs=("bom",), total=6))
    bring(run, 2, page(2, repairs=("bom",), total=6))
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert not run.published
    assert run.certificate is None
    assert (run.snapshot.path / "checkpoint.json").exists()

    later = begin()
    assert later.calls == 2
    assert later.frontier.totals == (6, 6, 6)
    walk(later, last=3, total=6, repairs=("bom",))
    later.last_batch()()
    assert later.published
    assert later.calls == 2 + later.counts.calls
    assert later.certificate is not None
    assert later.certificate.evidence["repairs"] == {"bom": 3}
    assert later.certificate.evidence["total"] == {"lowest": 6, "highest": 6, "last": 6}


def test_a_complete_walk_is_not_judged_when_stopped(begin: Begin) -> None:
    """All pages may be here when the word to stop comes; the next run publishes without a call."""
    run = begin()
    walk(run, last=3)
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert not run.published
    later = begin()
    assert later.frontier.complete
    assert later.frontier.next() is None
    later.last_batch()()
    assert later.published
    assert later.counts.calls == 0


def test_what_is_not_proven_is_kept_and_held_back(begin: Begin) -> None:
    """A total that the pages do not bear out: exit 5, everything kept, and the next run begins anew."""
    run = begin()
    walk(run, last=3, total=7)
    run.last_batch()()
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert "claims 7 rows in all, its pages hold 6" in run.stop.message
    assert "--fresh" in run.stop.hint
    assert held_snapshot(run.folder) == (run.snapshot.path.name, [run.stop.message])
    assert not run.published
    assert run.folder.current() is None
    assert shards(run.snapshot.path) == ["part-00000.jsonl", "part-00001.jsonl"]
    later = begin()
    assert later.snapshot.path != run.snapshot.path
    later.snapshot.close()


def test_holes_survive_a_stop(begin: Begin) -> None:
    """A page that stayed empty although rows follow counts against the verdict, also in the run after."""
    run = begin()
    for number in (1, 2, 4, 5):
        bring(run, number, page(number))
    assert not bring(run, 3, page(3, 0))
    assert bring(run, 3, page(3, 0))  # read once more, and believed
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert shards(run.snapshot.path) == ["part-00000.jsonl", "part-00001.jsonl"]  # the second one holds the gap
    later = begin()
    assert later.frontier.holes == [3]
    walk(later, last=5)
    later.last_batch()()
    assert later.stop is not None
    assert "page 3 stayed empty" in later.stop.message


def test_what_nobody_could_read_is_set_aside(begin: Begin) -> None:
    """The bytes and the reason lie beside the snapshot after the next commit."""
    run = begin()
    run.set_aside(5, b"\xff", "not UTF-8")
    assert run.unreadable
    run.batch()()
    run.batch()()
    kept = run.snapshot.path / "quarantine"
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == {
        "page-00000005.body": b"\xff",
        "page-00000005.why": b"not UTF-8\n",
    }
    run.snapshot.close()


def test_a_batch_is_what_was_there_when_it_was_handed_over(begin: Begin) -> None:
    """What comes while the writer's thread is busy belongs to the next batch; nothing is written twice or lost."""
    run = begin()
    bring(run, 1, page(1))
    first = run.batch()
    bring(run, 2, page(2))
    second = run.batch()
    assert run.rows == 0
    first()
    assert sorted(run.snapshot.pages()) == [1]
    second()
    assert sorted(run.snapshot.pages()) == [1, 2]
    assert run.rows == 4
    run.snapshot.close()


def test_batches_are_handed_over_while_another_is_written(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop looks at nothing that the writer's thread changes: repairs are noted by that thread alone."""
    run = begin()
    for mine in ("_open", "_repairs", "_touched"):  # the thread's own
        monkeypatch.delattr(run, mine)
    run.batch()
    run.last_batch()
    run.snapshot.close()


@pytest.mark.parametrize("past_end", [page(4).lines, page(1).lines], ids=["the last page", "page 1"])
@pytest.mark.parametrize("commits", [False, True], ids=["one commit", "a commit for every page"])
def test_rows_past_the_end_are_in_no_count(begin: Begin, past_end: bytes, commits: bool) -> None:  # noqa: FBT001 - from the table
    """Where a page is repeated past the end, the repeats are dropped: not in shards, counts, repairs or summaries."""
    run = begin()
    while (number := run.frontier.next()) is not None:
        lines = page(number).lines if number <= 4 else past_end
        run.accept(number, Page(lines, 2, repairs=("bom",)), NOW)
        if commits:
            run.batch()()
    run.last_batch()()
    assert run.frontier.end is not None
    assert (run.frontier.end.last, run.frontier.end.how) == (4, "repeat")
    assert run.counts.rows > 8, "what was read, for the progress"
    assert run.rows == 8
    assert run.certificate is not None
    assert run.certificate.evidence["rows"] == 8
    assert run.certificate.evidence["repairs"] == {"bom": 4}
    assert json.loads((run.folder.path / "current.json").read_bytes())["rows"] == 8


def test_repairs_survive_a_kill(begin: Begin) -> None:
    """Repairs of what is durable are noted with it, page by page until its shard is sealed; none counts twice."""
    run = begin()
    for number in (1, 3, 5, 2):
        bring(run, number, page(number, repairs=("bom",) if number != 2 else ()))
        run.batch()()
    assert shards(run.snapshot.path) == ["part-00000.jsonl"]
    run.snapshot.close()  # and no last batch: the process was killed

    later = begin()
    assert later.snapshot.notes["repairs"] == {"bom": 1}
    assert later.snapshot.notes["open_repairs"] == {"3": ["bom"], "5": ["bom"]}
    walk(later, last=6, repairs=("bom", "control"))
    later.last_batch()()
    assert later.certificate is not None
    assert later.certificate.evidence["repairs"] == {"bom": 5, "control": 2}


def test_the_page_size_is_that_of_the_first_page(begin: Begin) -> None:
    """Shards are laid out by what page 1 says or holds, whichever is more; that is frozen."""
    run = begin()
    bring(run, 1, page(1, 1, size=2))
    run.batch()()
    assert run.snapshot.layout is not None
    assert (run.snapshot.layout.page_size, run.snapshot.layout.pages_per_shard) == (2, 2)
    run.snapshot.close()


def test_an_empty_dataset(begin: Begin) -> None:
    """No rows at all is a mirror too."""
    run = begin()
    walk(run, last=0)
    run.last_batch()()
    assert run.published
    assert run.rows == 0
    assert shards(run.snapshot.path) == []

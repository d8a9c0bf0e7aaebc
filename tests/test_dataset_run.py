"""One dataset between frontier and snapshot: what is durable when, what a later run takes over, which phase is next."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harvester.certificate import ReadAgain
from harvester.dataset_run import DatasetRun, Stop
from harvester.errors import Exit, UsageError
from harvester.frontier import Frontier
from harvester.health import Health
from harvester.keeper import Keeper
from harvester.ledger import Ledger
from harvester.lifecycle import Published, choose, held_snapshot, identity
from harvester.model import App, Dataset, Kind, Page, Secret, Verdict
from harvester.platforms import wuhan
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
APP = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
DATASET = Dataset(name="D", app=APP, service="s", title="出资人", page_param="pageNo")

Begin = Callable[..., DatasetRun]
Answer = Callable[[int], Page]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begin a run of the same dataset, again and again, with such settings; four rows a shard."""

    def run(*, ledger: Ledger | None = None, planning: bool = False, **settings: Any) -> DatasetRun:  # noqa: ANN401 - fields of a dataset
        dataset = replace(DATASET, **settings)
        folder = DatasetFolder(tmp_path / "D")
        snapshot = choose(folder, identity(dataset, wuhan), fresh=False, now=NOW)
        assert isinstance(snapshot, Snapshot)
        try:
            return DatasetRun(dataset, folder, snapshot, Health(0, 900), (4, "none"), ledger=ledger, planning=planning)
        except UsageError:
            snapshot.close()
            raise

    return run


def page(number: int, rows: int = 2, mark: str = "", **more: Any) -> Page:  # noqa: ANN401 - fields of a page
    """Return a page; every page differs from every other."""
    return Page(b"".join(b'{"ID":"%d-%d%b"}\n' % (number, row, mark.encode()) for row in range(rows)), rows, **more)


def list_of(last: int, **more: Any) -> Answer:  # noqa: ANN401 - fields of a page
    """Return what a list of so many full pages answers."""
    return lambda number: page(number, 2 if number <= last else 0, **more)


def bring(run: DatasetRun, number: int, answer: Page) -> bool:
    """Let an answer arrive for a page that was asked for."""
    run.counts.calls += 1
    run.frontier.in_flight += 1
    return run.accept(number, answer, NOW)


def walk(run: DatasetRun, answer: Answer) -> list[int]:
    """Answer whatever the present phase asks for, until it asks for nothing more; return that."""
    asked = []
    while not run.stopped and (number := run.pages.next()) is not None:
        asked.append(number)
        run.counts.calls += 1
        run.accept(number, answer(number), NOW)
    return asked


def phase(run: DatasetRun, calls: int | None = None) -> bool:
    """Settle the present phase, whose pages are all here, and begin the next one if there is one."""
    assert run.frontier.complete
    run.settle()()
    return run.go_on(calls)


def mirror(run: DatasetRun, answer: Answer, calls: int | None = None) -> None:
    """Go through all phases, to the end of the run."""
    walk(run, answer)
    while run.frontier.complete and not run.stopped and phase(run, calls):
        walk(run, answer)
    run.concluded = True
    run.last_batch()()


def check_without(run: DatasetRun, lost: list[int]) -> None:
    """Let all pages of a second reading of nine pages come but these, and end the run."""
    while (number := run.pages.next()) is not None:
        if number in lost:
            run.failures[number] = "HTTP 200 - no JSON"
            run.pages.leave_open(number)
        else:
            run.accept(number, list_of(9)(number), NOW)
    assert not phase(run)
    run.last_batch()()


def read_again(run: DatasetRun) -> ReadAgain:
    """Return what the certificate says of the second reading."""
    assert run.keeper.certificate is not None
    return run.keeper.certificate.evidence.read_again


def reasons(run: DatasetRun) -> str:
    """Return why the verdict is not better."""
    assert run.keeper.certificate is not None
    return "; ".join(run.keeper.certificate.reasons)


def shards(path: Path) -> list[str]:
    """Return the names of finished shards."""
    return sorted(file.name for file in path.glob("part-*.jsonl"))


def content(run: DatasetRun) -> bytes:
    """Return the rows of the finished shards."""
    return b"".join((run.snapshot.path / name).read_bytes() for name in shards(run.snapshot.path))


def of(last: int, answer: Answer | None = None) -> bytes:
    """Return the rows of a whole list."""
    return b"".join((answer or page)(number).lines for number in range(1, last + 1))


# -- from nothing to published ------------------------------------------------------------------------------------


def test_from_nothing_to_published(begin: Begin, tmp_path: Path) -> None:
    """Pages become shards, evidence a verdict, and the snapshot is what readers see."""
    run = begin()
    mirror(run, list_of(5))
    assert run.published
    assert run.stop is None
    assert run.keeper.rows == run.counts.rows == 10
    path = run.snapshot.path
    assert shards(path) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert content(run) == of(5)
    assert json.loads((path.parent / "current.json").read_bytes()) == {
        "snapshot": "20261121T020000Z",
        "verdict": "proven",
        "rows": 10,
        "identity": identity(DATASET, wuhan),
    }
    assert not (path / "checkpoint.json").exists()
    assert not list(path.glob("*.pages"))
    folder = DatasetFolder(tmp_path / "D")
    assert choose(folder, identity(DATASET, wuhan), fresh=False, now=NOW) == Published("20261121T020000Z")


def test_the_package_of_a_snapshot(begin: Begin) -> None:
    """Golden: what ``datapackage.json`` says of the dataset and its certificate."""
    run = begin()
    mirror(run, list_of(3, repairs=("bom",)))
    package = json.loads((run.snapshot.path / "datapackage.json").read_bytes())
    assert (package["name"], package["title"], package["created"]) == ("d", "出资人", "2026-11-21T02:00:00+00:00")
    assert [resource["path"] for resource in package["resources"]] == shards(run.snapshot.path)
    ours = package["harvester"]
    assert (ours["rows"], ours["pages"], ours["identity"]) == (6, 3, identity(DATASET, wuhan))
    certificate = ours["certificate"]
    assert certificate["verdict"] == "proven"
    assert certificate["scheme"] == "http"
    assert certificate["calls"] == run.counts.calls
    assert certificate["read"] == {"from": "2026-11-21T10:00:00+08:00", "until": "2026-11-21T10:00:00+08:00"}
    evidence = certificate["evidence"]
    assert evidence["repairs"] == {"bom": 3}
    assert (evidence["pages"], evidence["rows"]) == (3, 6)
    assert evidence["page_size"] == {"asked": 0, "effective": 2, "stated": 0, "short": 0}
    assert evidence["end"]["how"] == "empty"
    assert {4, 11, 25} <= set(evidence["end"]["beyond"])
    again = evidence["read_again"]
    assert (again["pages"], again["changed"], again["mended"], again["rounds"]) == (3, 0, 0, 0)
    assert (again["share_below"], again["confidence"]) == (0.0, 0.99)


def test_an_empty_dataset(begin: Begin) -> None:
    """No rows at all is a mirror too."""
    run = begin()
    mirror(run, list_of(0))
    assert run.published
    assert run.keeper.rows == 0
    assert shards(run.snapshot.path) == []
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.verdict == "proven"


def test_the_page_size_is_that_of_the_first_page(begin: Begin) -> None:
    """Shards are laid out by what page 1 says or holds, whichever is more; that is frozen."""
    run = begin()
    bring(run, 1, page(1, 1, size=2))
    run.batch()()
    assert run.snapshot.layout is not None
    assert (run.snapshot.layout.page_size, run.snapshot.layout.pages_per_shard) == (2, 2)
    run.snapshot.close()


# -- stopped and continued ----------------------------------------------------------------------------------------


def test_a_later_run_takes_over_what_is_durable(begin: Begin) -> None:
    """What a commit has made durable is not asked for again, sealed or not, also if the process was killed."""
    run = begin()
    for number in (1, 2, 3, 5):
        assert bring(run, number, page(number))
    run.batch()()
    assert shards(run.snapshot.path) == ["part-00000.jsonl"]
    run.snapshot.close()  # and no last batch: the process was killed

    later = begin()
    assert (later.keeper.rows, later.counts.kept, later.frontier.done) == (8, 4, 4)
    asked = walk(later, list_of(6))
    assert not {1, 2, 3, 5} & set(asked)
    assert phase(later)
    mirror(later, list_of(6))
    assert later.published
    assert content(later) == of(6)


def test_a_stop_keeps_everything_and_publishes_nothing(begin: Begin) -> None:
    """A stopped run saves what is needed to go on; calls, repairs, times and totals add up over runs."""
    run = begin()
    bring(run, 1, page(1, repairs=("bom",), total=6))
    bring(run, 2, page(2, repairs=("bom",), total=6))
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert not run.published
    assert run.keeper.certificate is None
    assert (run.snapshot.path / "checkpoint.json").exists()

    later = begin()
    assert later.calls == 2
    assert later.frontier.totals == (6, 6, 6)
    mirror(later, list_of(3, total=6, repairs=("bom",)))
    assert later.published
    assert later.calls == 2 + later.counts.calls
    assert later.keeper.certificate is not None
    evidence = later.keeper.certificate.evidence
    assert evidence.repairs == {"bom": 3}
    assert evidence.total is not None
    assert (evidence.total.lowest, evidence.total.highest, evidence.total.last) == (6, 6, 6)


@pytest.mark.parametrize("phases", [0, 1], ids=["before the second reading", "in the midst of it"])
def test_a_complete_walk_is_not_judged_when_stopped(begin: Begin, phases: int) -> None:
    """All pages may be here when the word to stop comes; the next run only reads again what was not read again yet."""
    run = begin()
    walk(run, list_of(3))
    for _ in range(phases):
        assert phase(run)
        number = run.pages.next()
        assert number is not None
        run.accept(number, page(number), NOW)
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert not run.published
    assert run.keeper.certificate is None
    later = begin()
    assert later.frontier.complete
    assert later.pages.next() is None
    assert phase(later)
    assert sorted(walk(later, list_of(3))) == [1, 2, 3, 4][phases:]
    assert not phase(later)
    later.last_batch()()
    assert later.published
    assert read_again(later).pages == 3
    assert "check" not in json.loads((later.snapshot.path / "datapackage.json").read_bytes())["harvester"]["notes"]


def test_a_check_is_gone_on_with_run_after_run(begin: Begin) -> None:
    """Also by one that is stopped before it comes to it, and with the seed that the certificate names."""
    asked, seeds = [], set()
    for answers in (2, 0, 3, 1):
        run = begin()
        if not run.frontier.complete:
            walk(run, list_of(9))
        if answers:
            assert phase(run)
            for _ in range(answers):
                number = run.pages.next()
                assert number is not None
                asked.append(number)
                run.accept(number, page(number), NOW)
        run.stop = Stop(exit=Exit.REFUSED, message="refused")
        run.last_batch()()
        seeds.add(run.snapshot.notes["check"]["seed"])
    run = begin()
    mirror(run, list_of(9))
    assert run.published
    assert asked == [1, 9, 2, 3, 4, 5]
    assert run.counts.calls == 5 - 1  # pages 6, 7, 8 and 10
    assert {read_again(run).seed} == seeds
    assert (read_again(run).pages, read_again(run).changed) == (9, 0)


@pytest.mark.parametrize(("lost", "words"), [([9], "page 9"), ([10], "page 10"), ([1, 4, 10], "pages 1, 4, 10")])
def test_a_check_that_misses_pages_is_for_a_later_run(begin: Begin, lost: list[int], words: str) -> None:
    """They may only fail for the moment: nothing is judged without them, and nothing has to be fetched anew."""
    run = begin()
    walk(run, list_of(9))
    assert phase(run)
    check_without(run, lost)
    assert run.stop is not None
    assert run.stop.exit is Exit.OPEN_PAGES
    assert run.stop.message == f"all pages are here, but could not be read a second time: {words}; HTTP 200 - no JSON"
    assert run.keeper.certificate is None
    later = begin()
    mirror(later, list_of(9))
    assert later.published
    assert later.counts.calls == {1: 10, 9: 9, 10: 1}[lost[0]]  # from there on: 1, 9, 2 to 8, 10
    assert (read_again(later).pages, read_again(later).unread) == (9, 0)


@pytest.mark.parametrize(
    ("lost", "verdict", "words"), [(4, "likely", "only 8 of 9 pages"), (10, "not proven", "1 page that may")]
)
def test_a_page_that_fails_in_two_runs_is_left(begin: Begin, lost: int, verdict: str, words: str) -> None:
    """Else nothing would ever be published; the verdict says what is missing."""
    run = begin()
    walk(run, list_of(9))
    for again in (False, True):
        assert phase(run)
        check_without(run, [lost])
        assert (run.keeper.certificate is not None) is again
        if not again:
            run = begin()
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.verdict == verdict
    assert words in reasons(run)


@pytest.mark.parametrize("killed", [False, True])
def test_a_check_is_not_gone_on_with_once_pages_are_newer(
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
    killed: bool,  # noqa: FBT001 - both
) -> None:
    """Pages that were read again before others came cannot vouch for these, also if nobody noted that they came."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    for _ in range(4):
        number = run.pages.next()
        assert number is not None
        run.accept(number, page(number), NOW)
    run.stop = Stop(exit=Exit.REFUSED, message="refused")
    run.last_batch()()
    (run.snapshot.path / "part-00001.jsonl").unlink()
    with Snapshot.open(run.snapshot.path) as snapshot:
        snapshot.recover(repair=True)
        assert snapshot.notes["check"]["same"] == 4
    later = begin()
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "_seal", lambda *_: None)
            assert walk(later, list_of(5)) == [3, 4]
            later.batch()()
        later.snapshot.close()
        later = begin()
        assert later.frontier.complete
    else:
        assert walk(later, list_of(5)) == [3, 4]
    assert phase(later)
    assert sorted(walk(later, list_of(5))) == [1, 2, 3, 4, 5, 6]
    assert not phase(later)
    later.last_batch()()
    assert later.published


def test_what_is_not_proven_is_kept_and_held_back(begin: Begin, tmp_path: Path) -> None:
    """A total that the pages do not bear out: exit 5, everything kept, and the next run begins anew."""
    run = begin()
    mirror(run, list_of(3, total=7))
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert "claims 7 rows in all, its pages hold 6" in run.stop.message
    assert "--fresh" in run.stop.hint
    folder = DatasetFolder(tmp_path / "D")
    assert held_snapshot(folder) == (run.snapshot.path.name, [run.stop.message])
    assert not run.published
    assert folder.current() is None
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
    mirror(later, lambda number: page(number, 2 if number <= 5 and number != 3 else 0))
    assert later.stop is not None
    assert "page 3 stayed empty" in later.stop.message


def test_an_end_in_sight_survives_a_stop(begin: Begin) -> None:
    """Pages known to lie past the end, and whether pages state their numbers, are not found out a second time."""

    def answer(number: int) -> Page:
        return replace(page(number, 2 if number <= 9 else 0), number=number)

    run = begin()
    for number in (1, 2):
        assert run.frontier.next() == number
        run.counts.calls += 1
        run.accept(number, answer(number), NOW)
    for number in (4, 8, 16, 32):
        bring(run, number, answer(number))
    assert run.frontier.echoes is True
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    later = begin()
    assert later.frontier.echoes is True
    assert later.frontier.beyond == {16: "empty", 32: "empty"}
    asked = walk(later, answer)
    assert not {1, 2, 4, 8, 16, 32} & set(asked)
    mirror(later, answer)
    assert later.published


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


# -- two threads --------------------------------------------------------------------------------------------------


def test_a_batch_is_what_was_there_when_it_was_handed_over(begin: Begin) -> None:
    """What comes while the writer's thread is busy belongs to the next batch; nothing is written twice or lost."""
    run = begin()
    bring(run, 1, page(1))
    first = run.batch()
    bring(run, 2, page(2))
    second = run.batch()
    assert run.keeper.rows == 0
    first()
    assert sorted(run.snapshot.pages()) == [1]
    second()
    assert sorted(run.snapshot.pages()) == [1, 2]
    assert run.keeper.rows == 4
    run.snapshot.close()


def test_batches_are_handed_over_while_another_is_written(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop looks at nothing that the writer's thread changes, in no phase."""
    run = begin()
    walk(run, list_of(3))
    for own in ("_open", "_repairs", "_touched", "certificate"):  # the thread's own
        monkeypatch.delattr(run.keeper, own)
    run.batch()
    run.settle()
    run.last_batch()
    run.snapshot.close()


@pytest.mark.parametrize("past_end", [page(4).lines, page(1).lines], ids=["the last page", "page 1"])
@pytest.mark.parametrize("commits", [False, True], ids=["one commit", "a commit for every page"])
def test_rows_past_the_end_are_in_no_count(begin: Begin, past_end: bytes, commits: bool) -> None:  # noqa: FBT001 - from the table
    """Where a page is repeated past the end, the repeats are dropped: not in shards, counts, repairs or summaries."""

    def answer(number: int) -> Page:
        return Page(page(number).lines if number <= 4 else past_end, 2, repairs=("bom",))

    run = begin()
    while (number := run.frontier.next()) is not None:
        run.accept(number, answer(number), NOW)
        if commits:
            run.batch()()
    assert run.frontier.end is not None
    assert (run.frontier.end.last, run.frontier.end.how) == (4, "repeat")
    assert run.counts.rows > 8, "what was read, for the progress"
    mirror(run, answer)
    assert run.keeper.rows == 8
    assert content(run) == of(4)
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.verdict == "likely"
    assert run.keeper.certificate.evidence.rows == 8
    assert run.keeper.certificate.evidence.repairs == {"bom": 4}
    assert json.loads((run.snapshot.path.parent / "current.json").read_bytes())["rows"] == 8


# -- the second reading -------------------------------------------------------------------------------------------


def test_what_has_changed_is_replaced(begin: Begin) -> None:
    """A page that comes back otherwise replaces the kept one; a second check, of other pages, has to find no change."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    assert run.pages is run.reading

    def now(number: int) -> Page:
        return page(number, 2 if number <= 5 else 0, mark="*" if number == 3 else "")

    mirror(run, now)
    assert run.published
    assert content(run) == of(5, now)
    again = read_again(run)
    assert (again.pages, again.changed, again.mended, again.rounds) == (5, 0, 1, 1)


def test_what_goes_on_moving_is_not_proven(begin: Begin) -> None:
    """After two rounds of mending nobody waits any longer for the data to stand still."""
    run = begin()
    calls = 0

    def moving(number: int) -> Page:
        nonlocal calls
        calls += number == 3
        return page(number, 2 if number <= 5 else 0, mark=str(calls) if number == 3 else "")

    mirror(run, moving)
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert "1 of 5 pages had changed when they were read again, also after 2 rounds" in run.stop.message
    assert calls == 4
    assert not run.published


def test_mending_that_would_take_too_many_calls(begin: Begin) -> None:
    """It is not begun, and no call is made to see what came of it."""
    run = begin(recheck=10)
    walk(run, list_of(200))
    assert phase(run, 13)
    asked = walk(run, lambda number: page(number, 2 if number <= 200 else 0, mark="*"))
    assert len(asked) <= 13
    assert not phase(run, 13 - len(asked))
    run.last_batch()()
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert "10 of 10 pages had changed when they were read again" in run.stop.message
    assert (read_again(run).mended, read_again(run).rounds) == (10, 0)


def test_shards_of_changed_pages_are_sealed_once(begin: Begin) -> None:
    """Commits in the midst of a second reading leave them open, for more of their pages may change."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    for _ in range(6):
        number = run.pages.next()
        assert number is not None
        run.accept(number, page(number, 2 if number <= 5 else 0, mark="*"), NOW)
        run.batch()()
    assert shards(run.snapshot.path) == []
    assert phase(run)
    assert shards(run.snapshot.path) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    run.snapshot.close()


def test_a_page_that_is_empty_for_a_moment(begin: Begin) -> None:
    """Rows that were there at first and are there again are not lost in between."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    asked = walk(run, lambda number: page(number, 2 if number <= 5 and number != 3 else 0))
    assert set(asked) == {1, 2, 3, 4, 5, 6}
    assert phase(run)
    mirror(run, list_of(5))
    assert run.published
    assert content(run) == of(5)


def test_a_list_that_has_become_shorter(begin: Begin) -> None:
    """A last page that came back empty is gone, and so is what lies beyond; page 1 of an emptied list as well."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    mirror(run, list_of(4))
    assert run.published
    assert content(run) == of(4)


@pytest.mark.parametrize("recheck", [None, 1])
@pytest.mark.parametrize("commits", [False, True], ids=["one commit", "a commit for every page"])
def test_a_list_that_has_become_longer(begin: Begin, recheck: int | None, commits: bool) -> None:  # noqa: FBT001 - from the table
    """The page after the last is read again too: rows there mean that the end is looked for once more."""
    run = begin(recheck=recheck)
    walk(run, list_of(5))
    assert phase(run)
    walk(run, list_of(12))
    assert phase(run)
    while (number := run.pages.next()) is not None:
        run.accept(number, list_of(12)(number), NOW)
        if commits:
            run.batch()()
    mirror(run, list_of(12))
    assert run.published
    assert content(run) == of(12)
    again = read_again(run)
    assert (again.pages, again.changed, again.rounds) == (recheck or 12, 0, 1)


def test_a_list_that_grows_while_the_process_is_killed(begin: Begin) -> None:
    """What lay beyond the end that had been known is durable as anything else."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    walk(run, list_of(12))
    assert phase(run)
    asked = walk(run, list_of(12))
    run.batch()()
    run.snapshot.close()  # killed
    later = begin()
    assert later.frontier.done == 12
    assert not set(asked) & set(range(1, 13)) & set(walk(later, list_of(12)))
    mirror(later, list_of(12))
    assert later.published
    assert content(later) == of(12)


def test_a_list_that_was_emptied(begin: Begin) -> None:
    """Nothing is left of it, and that is proven."""
    run = begin()
    walk(run, list_of(3))
    assert phase(run)
    mirror(run, list_of(0))
    assert run.published
    assert content(run) == b""
    assert run.keeper.rows == 0


def test_a_list_that_has_begun(begin: Begin) -> None:
    """An empty list has one page to look at again, and rows that stand there now are mirrored."""
    run = begin()
    walk(run, list_of(0))
    assert phase(run)
    mirror(run, list_of(3))
    assert run.published
    assert content(run) == of(3)


def test_a_hole_that_is_filled_is_none(begin: Begin) -> None:
    """A page that had been empty and has rows at the second reading holds nothing against the mirror any more."""
    run = begin()
    walk(run, lambda number: page(number, 2 if number <= 5 and number != 3 else 0))
    assert run.frontier.holes == [3]
    assert phase(run)
    mirror(run, list_of(5))
    assert content(run) == of(5)
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.evidence.holes == ()
    assert run.published


@pytest.mark.parametrize(
    ("recheck", "calls", "pages", "weakness"),
    [
        (None, None, 30, ""),
        (0, None, 0, "the pages were read once"),
        (7, None, 7, "only 7 of 30 pages"),
        (None, 5, 4, "only 4 of 30 pages"),  # and the page after the last
        (None, 2, 2, "only 2 of 30 pages"),
        (None, 0, 0, "the pages were read once"),
        (9, 4, 3, "only 3 of 30 pages"),
    ],
)
def test_how_many_pages_are_read_again(
    begin: Begin, recheck: int | None, calls: int | None, pages: int, weakness: str
) -> None:
    """As many as a proof needs, as ``recheck`` says, or as calls are left; fewer than a proof needs is a weakness."""
    run = begin(recheck=recheck)
    mirror(run, list_of(30), calls)
    assert run.published
    assert read_again(run).pages == pages
    assert weakness in reasons(run)
    assert bool(reasons(run)) is bool(weakness)


def test_repairs_of_replaced_pages_count_once(begin: Begin) -> None:
    """Repairs are those of the rows that are in the mirror, however often a page was read."""
    run = begin()
    walk(run, list_of(4, repairs=("bom",)))
    assert phase(run)
    mirror(run, lambda number: page(number, 2 if number <= 4 else 0, mark="*" if number == 1 else "", repairs=("bom",)))
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.evidence.repairs == {"bom": 4}


# -- what cannot be gone on with ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda number: page(number, 2 if number != 6 else 3), "page 6 has 3 rows where page 1 had 2"),
        (lambda number: page(number, 2, size=2 if number != 6 else 5), "page 6 states a size of 5"),
        (lambda number: page(number, 2 if number < 20 or number > 40 else 1), "10 pages in a row"),
    ],
    ids=["more rows", "another size stated", "ten short pages"],
)
def test_a_page_size_that_changes(begin: Begin, tmp_path: Path, answer: Answer, words: str) -> None:
    """Every row boundary has moved then: the snapshot is over, with exit 5, and the next run begins another."""
    run = begin()
    walk(run, lambda number: answer(number) if number <= 60 else page(number, 0))
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert words in run.stop.message
    assert "--fresh" in run.stop.hint
    run.last_batch()()
    assert not run.published
    folder = DatasetFolder(tmp_path / "D")
    assert held_snapshot(folder) == (run.snapshot.path.name, [run.stop.message])
    later = begin()
    assert later.snapshot.path != run.snapshot.path
    later.snapshot.close()


def test_a_page_size_that_has_changed_at_the_second_reading(begin: Begin) -> None:
    """Page 1 with another number of rows says so."""
    run = begin()
    walk(run, list_of(5))
    assert phase(run)
    walk(run, lambda number: page(number, 4 if number <= 3 else 0))
    assert run.stop is not None
    assert run.stop.exit is Exit.NOT_PROVEN
    assert "page 1 has 4 rows now, it had 2 before" in run.stop.message
    run.last_batch()()
    assert not run.published


def test_the_charset_is_decided_once(begin: Begin) -> None:
    """The first answer that shows it decides; it is durable with the first page that was read by it."""
    run = begin()
    bring(run, 1, page(1))
    run.batch()()
    assert run.dataset.charset == ""
    bring(run, 2, page(2, charset="gb18030"))
    assert run.dataset.charset == "gb18030"
    bring(run, 3, page(3, charset="utf-8"))
    assert run.dataset.charset == "gb18030"
    run.batch()()
    run.snapshot.close()  # killed
    later = begin()
    assert later.dataset.charset == "gb18030"
    later.snapshot.close()
    with pytest.raises(UsageError, match="read as gb18030 so far, and now `charset` says utf-8"):
        begin(charset="utf-8")
    same = begin(charset="gb18030")
    assert same.dataset.charset == "gb18030"
    same.snapshot.close()


# -- what a failure may mean --------------------------------------------------------------------------------------

UNKNOWN = Verdict(kind=Kind.REFUSED, code="7001", text="?", meaning="?")


@pytest.mark.parametrize(
    ("verdict", "final", "taken"),
    [
        (UNKNOWN, True, True),
        (replace(UNKNOWN, concerns="app"), True, False),
        (replace(UNKNOWN, about="permission"), True, False),
        (replace(UNKNOWN, quarantine=True, kind=Kind.AGAIN), True, False),
        (replace(UNKNOWN, then="refused", kind=Kind.AGAIN), True, False),
        (replace(UNKNOWN, kind=Kind.OVER_LIMIT), True, False),
        (replace(UNKNOWN, kind=Kind.CLOCK), True, False),
        (replace(UNKNOWN, kind=Kind.AGAIN), False, False),
        (replace(UNKNOWN, kind=Kind.AGAIN), True, True),
    ],
)
def test_which_failures_may_be_the_end(begin: Begin, verdict: Verdict, final: bool, taken: bool) -> None:  # noqa: FBT001 - from the table
    """The platform's word on one page may; rates, credentials, permissions and unreadable bytes never are."""
    run = begin()
    bring(run, 1, page(1))
    bring(run, 2, page(2))
    run.frontier.in_flight += 1
    assert run.past_end(4, verdict, final=final) is taken
    assert (4 in run.frontier.beyond) is taken
    run.snapshot.close()


def test_a_failure_that_may_pass_must_come_elsewhere_too(begin: Begin) -> None:
    """A second page that fails with the code of another one past the end is believed at once; HTTP's word never is."""
    run = begin()
    bring(run, 1, page(1))
    bring(run, 2, page(2))
    passing = replace(UNKNOWN, kind=Kind.AGAIN)
    run.frontier.in_flight += 3
    assert not run.past_end(8, passing, final=False)
    assert run.past_end(4, passing, final=False)
    assert run.past_end(8, passing, final=False)
    assert not run.past_end(16, replace(passing, code="7002"), final=False)
    assert not run.past_end(1, UNKNOWN, final=True), "it is before a page with rows"
    run.snapshot.close()


def test_no_failure_ends_a_second_reading(begin: Begin) -> None:
    """The end is known then."""
    run = begin()
    walk(run, list_of(3))
    assert phase(run)
    assert not run.past_end(4, UNKNOWN, final=True)
    run.snapshot.close()


# -- planning and counting ----------------------------------------------------------------------------------------


def test_a_plan_reads_what_shows_the_end(begin: Begin) -> None:
    """It keeps that, judges nothing, and tells what a run will take."""
    run = begin(planning=True)
    asked = walk(run, list_of(200))
    assert len(asked) <= 2 * 8 + 8
    assert run.planned
    assert not run.frontier.complete
    run.last_batch()()
    assert (run.published, run.stop, run.keeper.certificate) == (False, None, None)
    found = run.outlook(10.0)
    assert found is not None
    kept = sum(number <= 200 for number in asked)
    assert (found.pages, found.rows, found.exact) == (200, 400, 200 in asked)
    assert (found.calls, found.again) == (200 - kept + 200 + 2, 200)
    assert found.seconds == pytest.approx(found.calls / 10)
    later = begin()
    assert not set(asked) & set(range(1, 201)) & set(walk(later, list_of(200)))
    mirror(later, list_of(200))
    assert later.published
    assert later.counts.calls == found.calls


def test_calls_without_an_allowance_are_noted(begin: Begin, tmp_path: Path) -> None:
    """Another job's allowance knows of them, each once, at every commit."""
    ledger = Ledger(tmp_path / "calls", None, "month", lambda: 0.0)
    run = begin(ledger=ledger)
    bring(run, 1, page(1))
    bring(run, 2, page(2))
    run.batch()()
    assert ledger.state().used == 2
    bring(run, 3, page(3))
    run.stop = Stop(exit=Exit.INTERRUPTED, message="interrupted")
    run.last_batch()()
    assert ledger.state().used == 3
    ledger.close()


def test_an_unpaged_interface(begin: Begin) -> None:
    """One answer holds everything; it is asked for once more, and has no page after it."""
    run = begin(paging="none")
    assert isinstance(run.pages, Frontier)
    assert walk(run, list_of(1)) == [1]
    assert phase(run)
    assert walk(run, list_of(1)) == [1]
    assert not phase(run)
    run.last_batch()()
    assert run.published
    assert run.keeper.certificate is not None
    assert run.keeper.certificate.verdict == "proven"
    assert run.keeper.certificate.evidence.end.how == "unpaged"


def test_an_unpaged_interface_that_has_changed(begin: Begin) -> None:
    """What came last is what is kept, and it has to come once more."""
    run = begin(paging="none")
    walk(run, list_of(1))
    assert phase(run)
    mirror(run, lambda number: page(number, 2, mark="*"))
    assert run.published
    assert content(run) == page(1, 2, mark="*").lines
    assert run.counts.calls == 3

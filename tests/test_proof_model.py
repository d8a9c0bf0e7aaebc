"""Walk, second reading and judgement together, against portals whose true list is known: what is proven is true.

The engine's own runs are driven here, with files but without network, clock and waiting; only the drift of long lists
is played with the pure parts alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count, cycle, product
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from model_portal import (
    FAILS,
    SIZE,
    Answer,
    Portal,
    Twist,
    Walk,
    chances,
    echoes,
    empty,
    fail,
    overshoot_bound,
    row,
    rows_of,
    serve,
    totals,
)
from msgspec import Struct
from msgspec.structs import replace

from harvester.certificate import EndFacts, Evidence, ReadAgain, SizeFacts, TotalFacts, judge, share_below
from harvester.dataset_run import DatasetRun, Stop
from harvester.errors import Exit
from harvester.frontier import Frontier
from harvester.health import Health
from harvester.lifecycle import choose, identity
from harvester.model import App, Dataset, Kind, Page, Secret, Verdict
from harvester.platforms import wuhan
from harvester.second_reading import FULL, SecondReading
from harvester.shard import Compression
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW: Final = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
APP: Final = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
DATASET: Final = Dataset(name="D", app=APP, service="s", page_param="pageNo")
LAYOUT: Final[tuple[int, Compression]] = (200 * SIZE, "none")
PAGES: Final = 40  # of a list in the tables
DOWN: Final = "HTTP 500"
"""A failure that may pass, and here never does."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: nothing is switched off here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


@pytest.fixture
def place(tmp_path: Path) -> Callable[[], Path]:
    """Return a new folder at every call."""
    numbers = count()
    return lambda: tmp_path / f"{next(numbers)}"


class Mirrored(Struct, frozen=True):
    """What became of a run: verdict and reasons, or the word for why there is none; the rows, and the run itself."""

    verdict: str
    reasons: str
    rows: bytes
    run: DatasetRun


def begin(folder: Path, **options: Any) -> DatasetRun:  # noqa: ANN401 - fields of a dataset
    """Begin or continue a run."""
    dataset = replace(DATASET, **options)
    place = DatasetFolder(folder / "D")
    snapshot = choose(place, identity(dataset, wuhan), fresh=False, now=NOW)
    assert isinstance(snapshot, Snapshot)
    return DatasetRun(dataset, place, snapshot, Health(0, 900), LAYOUT)


def follow(run: DatasetRun, page: int, answer: Answer) -> None:
    """Act on an answer as the workers do."""
    if isinstance(answer, Page):
        run.accept(page, answer, NOW)
        return
    kind = Kind.AGAIN if answer == DOWN else Kind.REFUSED
    if not run.past_end(page, Verdict(kind=kind, code=answer, text="", meaning=""), final=True):
        run.pages.leave_open(page)
        if kind is Kind.REFUSED and not run.stopped:
            run.stop = Stop(exit=Exit.REFUSED, message=answer)


def drive(
    run: DatasetRun, portal: Portal, random: Random | None, window: int, *, calls: int | None = None, kill: int = 0
) -> bool:
    """Let a run go through all its phases; return False if it was killed, after so many answers.

    Args:
        run: that is driven.
        portal: that it asks.
        random: brings answers in any order and commits at any time; None: in order, and once a phase.
        window: calls in flight.
        calls: the allowance; None: none.
        kill: after how many answers nothing is written any more; 0: never.
    """
    flying: list[tuple[int, Answer]] = []
    most = 60 * (portal.last + 200)
    for answers in range(most):
        while len(flying) < (1 if run.metered else window) and not run.stopped and (page := run.pages.next()):
            run.counts.calls += 1
            flying.append((page, portal.ask(page)))
        if not flying:
            if not run.stopped and run.frontier.complete:
                run.settle()()
                if run.go_on(None if calls is None else calls - run.counts.calls):
                    continue
            break
        if kill and answers == kill:
            run.snapshot.close()
            return False
        follow(run, *flying.pop(random.randrange(len(flying)) if random else 0))
        if random and random.random() < 0.03:
            run.batch()()
    else:
        raise AssertionError(f"no end after {most} answers")
    run.last_batch()()
    return True


def mirrored(
    folder: Path,
    portal: Portal,
    *,
    seed: int | None = 1,
    window: int = 64,
    calls: int | None = None,
    kills: int = 0,
    **options: Any,  # noqa: ANN401 - fields of a dataset
) -> Mirrored:
    """Mirror a portal, after so many kills, and tell what became of it."""
    random = None if seed is None else chances(seed)
    for _ in range(kills):
        assert random is not None
        run = begin(folder, **options)
        if drive(run, portal, random, window, kill=random.randrange(1, portal.last + 20)):
            break
    else:
        run = begin(folder, **options)
        drive(run, portal, random, window, calls=calls)
        if run.stop is not None and run.stop.exit is Exit.OPEN_PAGES:  # pages that could not be read a second time
            run = begin(folder, **options)
            drive(run, portal, random, window, calls=calls)
    certificate = run.keeper.certificate
    reasons = "" if certificate is None else "; ".join(certificate.reasons)
    if certificate is not None:
        verdict: str = certificate.verdict
    elif run.stop is None:
        verdict = "open"
    else:
        verdict = {Exit.REFUSED: "refused", Exit.NOT_PROVEN: "gave up"}[run.stop.exit]
        reasons = run.stop.message
    parts = sorted(run.snapshot.path.glob("part-*.jsonl"))
    return Mirrored(verdict, reasons, b"".join(part.read_bytes() for part in parts), run)


# -- the matrix -------------------------------------------------------------------------------------------------------

SIZES: Final = (0, 1, 19, 20, 21, 400, 16_839 * SIZE - 4)

# What comes past the end, and the verdict that each size deserves by the rule: proven, likely, not proven, open.
MATRIX: Final[dict[str, tuple[dict[str, Any], str]]] = {
    #                                                                      rows:  0 1 19 20 21 400 336,776
    "empty": ({}, "p p p p p p p"),
    "empty, right total": ({"total": "right"}, "p p p p p p p"),
    "empty, numbers stated": ({"echo": "right"}, "p p p p p p p"),
    "empty, wrong numbers": ({"echo": "wrong"}, "p p p p p p p"),
    "last page": ({"past_end": "last"}, "p l l l l l l"),
    "last page, its own number": ({"past_end": "last", "echo": "right"}, "p l l l l l l"),
    "last page, the number asked": ({"past_end": "last", "echo": "asked"}, "p l l l l l l"),
    "last page, right total": ({"past_end": "last", "total": "right"}, "p l l l l l l"),
    "page 1": ({"past_end": "first"}, "p l l l l l l"),
    "page 1, its own number": ({"past_end": "first", "echo": "right"}, "p l l l l l l"),
    "one error": ({"past_end": "error"}, "l l l l l l l"),
    "different errors": ({"past_end": "errors"}, "l o o o o o o"),
    "empty, then an error": ({"past_end": "empty then error"}, "l l l l l l l"),
    "empty, then the last page": ({"past_end": "empty then last", "echo": "right"}, "p l l l l l l"),
    "total too high": ({"total": 400_000}, "n n n n n n n"),
    "total too low": ({"total": 0}, "p n n n n n n"),
}
WORDS: Final = {"p": "proven", "l": "likely", "n": "not proven", "o": "open"}


@pytest.fixture(scope="module")
def flights() -> list[bytes]:
    """Return the rows of the longest list."""
    return [row(key) for key in range(SIZES[-1])]


def deserved(past_end: str, size: int) -> str:
    """Return the verdict of a cell."""
    return WORDS[MATRIX[past_end][1].split()[SIZES.index(size)]]


def check_cell(past_end: str, rows: list[bytes], seed: int | None, folder: Path) -> None:
    """Mirror a list: exact rows, few calls beyond, the verdict deserved."""
    portal = Portal(rows, **MATRIX[past_end][0])
    got = mirrored(folder, portal, seed=seed, window=1 if seed is None else 64)
    told = (past_end, len(rows), got.verdict, got.reasons)
    assert got.verdict == deserved(past_end, len(rows)), told
    confirmed = portal.asked[portal.last + 1] > 2  # the page after the last is part of the second reading
    unsure = 2 * (past_end == "empty, then the last page")  # one page, empty, then the same one: few calls to tell
    assert portal.beyond - confirmed <= overshoot_bound(portal.last) + unsure, told
    assert got.run.published == (got.verdict in {"proven", "likely"}), told
    if got.verdict != "open":
        assert got.rows == b"".join(rows), told


@pytest.mark.parametrize("delay", [0, 50])
@pytest.mark.parametrize("past_end", MATRIX)
def test_the_matrix(past_end: str, delay: int, place: Callable[[], Path], flights: list[bytes]) -> None:
    """Every end behaviour, size and delay.

    Without delay answers come one by one; with it, calls are in flight together and are answered in any order.
    """
    for size in SIZES[:-1]:
        check_cell(past_end, flights[:size], size if delay else None, place())


@pytest.mark.parametrize(
    "past_end",
    [name if name == "empty" else pytest.param(name, marks=pytest.mark.soak) for name in MATRIX],
)
def test_the_matrix_of_the_longest_list(past_end: str, place: Callable[[], Path], flights: list[bytes]) -> None:
    """16,839 pages by the engine; all but one among the long runs."""
    for seed in (None, 1):
        check_cell(past_end, flights, seed, place())


@pytest.mark.parametrize("delay", [0, 50])
@pytest.mark.parametrize("past_end", MATRIX)
def test_the_matrix_of_the_longest_list_in_the_frontier_alone(past_end: str, delay: int, flights: list[bytes]) -> None:
    """16,839 pages: each of them once, few beyond, and the verdict on what the walk has seen."""
    portal = Portal(flights, **MATRIX[past_end][0])
    walk = Walk(portal)
    walk.finish(chances(1) if delay else None, window=4 if delay else 1)
    assert portal.beyond <= overshoot_bound(portal.last)
    assert all(portal.asked[page] == 1 for page in range(1, portal.last + 1))
    if walk.frontier.end is None:
        assert deserved(past_end, len(flights)) == "open"
        assert sorted(walk.kept) == list(range(1, portal.last + 1))
    else:
        walk.check()
        assert verdict_on(walk) == deserved(past_end, len(flights))


def verdict_on(walk: Walk) -> str:
    """Return the verdict on a walk whose pages were found unchanged afterwards."""
    frontier = walk.frontier
    assert frontier.end is not None
    last, totals = frontier.end.last, frontier.totals
    pages = [lines for page, lines in walk.kept.items() if page <= last]
    evidence = Evidence(
        pages=last,
        rows=sum(lines.count(b"\n") for lines in pages),
        end=EndFacts(how=frontier.end.how, beyond=frontier.end.beyond),
        page_size=SizeFacts(asked=0, effective=frontier.page_size),
        read_again=ReadAgain(pages=min(FULL, max(last, 1)), share_below=share_below(FULL, last)),
        total=None if totals is None else TotalFacts(lowest=totals[0], highest=totals[1], last=totals[2]),
        holes=tuple(frontier.holes),
        repeated_pages=len(pages) - len(set(pages)),
    )
    return judge(evidence).verdict


# -- sabotages --------------------------------------------------------------------------------------------------------


class Sabotage(Struct, frozen=True):
    """A portal that lies, loses or moves something; the verdict that it deserves, and words of a reason.

    ``more`` are options of the dataset.
    """

    portal: Callable[[], Portal]
    verdict: str
    words: str
    more: dict[str, Any] = {}


def lying(*twists: Twist, pages: int = PAGES, last: int = 7, **options: Any) -> Callable[[], Portal]:  # noqa: ANN401 - of a portal
    """Return what makes a portal with twists."""
    return lambda: Portal(rows_of(pages, last), twists=twists, **options)


def changing(change: Callable[[Portal], None]) -> Callable[[], Portal]:
    """Return what makes a portal whose list is changed before every answer."""
    return lambda: Portal(rows_of(PAGES), before=change)


def nothing_from(first: int, last: int = 10**9) -> Twist:
    """Return a twist: pages from here on are empty."""
    return lambda portal, page, answer: portal.page(page, 0) if first <= page <= last else answer


def resized(size: int, after: int) -> Callable[[Portal], None]:
    """Return a change: another page size after so many calls."""

    def change(portal: Portal) -> None:
        if portal.calls == after:
            portal.size = size

    return change


def every(calls: int, change: Callable[[Portal], None], *, until: int = 10**9) -> Callable[[Portal], None]:
    """Return a change that happens again and again."""

    def at(portal: Portal) -> None:
        if portal.calls % calls == 0 and portal.calls <= until:
            change(portal)

    return at


def insert(portal: Portal) -> None:
    """Put a new row before all others."""
    portal.rows.insert(0, row(10**6 + portal.calls))


def touch(portal: Portal) -> None:
    """Change a row of page 7."""
    portal.rows[6 * SIZE + 3] = row(6 * SIZE + 3, portal.calls)


def stated(sizes: Callable[[int], int]) -> Twist:
    """Return a twist: pages state a size."""
    return lambda _, page, answer: answer if isinstance(answer, str) else replace(answer, size=sizes(page))


def rows_on(counts: dict[int, int]) -> Twist:
    """Return a twist: these pages have so many rows of their own."""

    def twist(_: Portal, page: int, answer: Answer) -> Answer:
        if page not in counts or isinstance(answer, str):
            return answer
        made = [row(10**6 * page + number) for number in range(counts[page])]
        return replace(answer, lines=b"".join(made), rows=len(made))

    return twist


def repaired(name: str) -> Twist:
    """Return a twist: page 5 was repaired."""
    return lambda _, page, answer: (
        replace(answer, repairs=(name,)) if page == 5 and isinstance(answer, Page) else answer
    )


def later(twist: Twist, times: int = 1) -> Twist:
    """Return a twist that works from the second asking on."""
    return lambda portal, page, answer: twist(portal, page, answer) if portal.asked[page] > times else answer


def doubled(_: Portal, page: int, answer: Answer) -> Answer:
    """Answer page 9 with one row twice, and one lost."""
    if page != 9 or isinstance(answer, str):
        return answer
    lines = answer.lines.splitlines(keepends=True)
    return replace(answer, lines=b"".join([lines[0], *lines[:-1]]))


def turns(portal: Portal, page: int, answer: Answer) -> Answer:
    """Answer every other page past the end with the last one."""
    return portal.page(page, portal.last if page % 2 else 0) if page > portal.last else answer


SABOTAGES: Final[dict[str, Sabotage]] = {
    # pages missing, doubled, in the wrong place
    "hole": Sabotage(lying(empty(17)), "not proven", "page 17 stayed empty"),
    "hole at page 1": Sabotage(lying(empty(1)), "not proven", "page 1 stayed empty"),
    "hole before the last page": Sabotage(lying(empty(39)), "not proven", "page 39 stayed empty"),
    "two holes before the last page": Sabotage(lying(empty(38, 39)), "not proven", "pages 38, 39 stayed empty"),
    "holes everywhere": Sabotage(lying(empty(*range(2, 38, 3))), "not proven", "and 7 more stayed empty"),
    "hole, last page repeated": Sabotage(lying(empty(17), past_end="last"), "not proven", "page 17 stayed empty"),
    "early end, right total": Sabotage(lying(nothing_from(31), total=787), "not proven", "claims 787 rows in all"),
    "ten holes, right total": Sabotage(lying(nothing_from(30, 39), total=787), "not proven", "787"),
    "early end by the last page": Sabotage(
        lying(lambda portal, page, _: portal.page(page, min(page, 30)), total=787), "not proven", "787"
    ),
    "early end by error": Sabotage(
        lying(lambda _, page, answer: FAILS if page > 30 else answer, total=787), "not proven", "787"
    ),
    "repeated page": Sabotage(lying(serve({12: 11})), "not proven", "with the same rows as another"),
    "repeated page, with a key": Sabotage(
        lying(serve({12: 11})), "not proven", "values of the key ID more than once", {"key": ("ID",)}
    ),
    "repeated page, numbers stated": Sabotage(lying(serve({12: 11}), echo="right"), "not proven", "page 12 stayed"),
    "repeated last page in mid-list": Sabotage(lying(serve({12: 40}), echo="asked"), "not proven", "the same rows"),
    "swapped pages, numbers stated": Sabotage(
        lying(serve({11: 12, 12: 11}), echo="right"), "not proven", "stayed empty"
    ),
    "swapped pages at the second reading": Sabotage(
        lying(later(serve({11: 12, 12: 11}), 1), later(serve({11: 11, 12: 12}), 2), later(serve({11: 12, 12: 11}), 3)),
        "not proven",
        "had changed when they were read again",
    ),
    "lost page, right total": Sabotage(
        lying(lambda portal, page, _: portal.page(page, page + (page >= 12)), total=787), "not proven", "787"
    ),
    "row doubled in a page": Sabotage(lying(doubled), "likely", "identical rows"),
    "row doubled in a page, with a key": Sabotage(lying(doubled), "not proven", "more than once", {"key": ("ID",)}),
    "rows without a key": Sabotage(lying(), "not proven", "787 rows without NAME", {"key": ("NAME",)}),
    # the page size
    "clamp in mid-run": Sabotage(changing(resized(10, after=30)), "gave up", "page size changed"),
    "larger pages in mid-run": Sabotage(changing(resized(25, after=30)), "gave up", "has 25 rows where page 1 had 20"),
    "one page too large": Sabotage(lying(rows_on({22: 21})), "gave up", "page 22 has 21 rows where page 1 had 20"),
    "another stated size": Sabotage(lying(stated(lambda page: 50 if page == 22 else 20)), "gave up", "states a size"),
    "page 1 shorter at the second reading": Sabotage(
        lying(later(rows_on({1: 10}))), "gave up", "page 1 has 10 rows now"
    ),
    # totals
    "shrinking total": Sabotage(lying(totals(lambda page: 787 - page)), "not proven", "total moved between"),
    "growing total": Sabotage(lying(totals(lambda page: 787 + page)), "not proven", "total moved between"),
    "total that comes back": Sabotage(lying(totals(lambda page: 786 if page == 20 else 787)), "not proven", "moved"),
    "total too high by one": Sabotage(lying(total=788), "not proven", "claims 788 rows in all, its pages hold 787"),
    "total too low by one": Sabotage(lying(total=786), "not proven", "claims 786 rows"),
    "total of nothing": Sabotage(lying(total=0), "not proven", "claims 0 rows"),
    "huge total": Sabotage(lying(total=10**12), "not proven", "claims 1,000,000,000,000 rows"),
    "total on one page only": Sabotage(lying(totals(lambda page: 900 if page == 3 else None)), "not proven", "900"),
    "other expectation": Sabotage(lying(), "not proven", "`expect_rows` says 788", {"expect_rows": 788}),
    # windows
    "window of 10,000": Sabotage(lying(nothing_from(501), pages=600), "likely", "10,000 rows is a number"),
    "window of 1,000": Sabotage(lying(nothing_from(51), pages=61), "likely", "1,000 rows is a number"),
    "window of 1,000, with a total": Sabotage(lying(nothing_from(51), pages=61, total=1207), "not proven", "1,207"),
    "window of 10,000 by error": Sabotage(
        lying(lambda _, page, answer: FAILS if page > 500 else answer, pages=600), "not proven", "10,000 rows is"
    ),
    # errors
    "unknown code at page 16": Sabotage(lying(fail("9999", 16)), "refused", "9999"),
    "unknown code at page 17": Sabotage(lying(fail("9999", 17)), "refused", "9999"),
    "unknown code at page 1": Sabotage(lying(fail("9999", 1)), "refused", "9999"),
    "error past the end": Sabotage(lying(past_end="error"), "likely", "error 7001"),
    "error at the edge only": Sabotage(lying(fail(FAILS, 41)), "open", ""),
    "different errors": Sabotage(lying(past_end="errors"), "open", ""),
    "error past the end, read once": Sabotage(lying(past_end="error"), "not proven", "read once", {"recheck": 0}),
    "a page that never comes": Sabotage(lying(fail(DOWN, 9)), "open", ""),
    "refused at the second reading": Sabotage(lying(later(fail("9999", 9))), "refused", "9999"),
    "a page that does not come again": Sabotage(lying(later(fail(DOWN, 9))), "likely", "only 39 of 40 pages"),
    # repetition
    "last page repeated": Sabotage(lying(past_end="last"), "likely", "repeats a page"),
    "page 1 overflow": Sabotage(lying(past_end="first"), "likely", "repeats a page"),
    "last page repeated, read once": Sabotage(lying(past_end="last"), "not proven", "repeats", {"recheck": 0}),
    "empty, then errors": Sabotage(lying(past_end="empty then error"), "likely", "some pages are empty and others"),
    "echo wrong on one page": Sabotage(
        lying(echoes(lambda page: 3 if page == 22 else page)), "not proven", "page 22 stayed empty"
    ),
    # what moves
    "a page that changes for ever": Sabotage(changing(every(1, touch)), "not proven", "also after 2 rounds of mending"),
    "rows inserted for ever": Sabotage(changing(every(15, insert)), "not proven", "had changed when they were read"),
    "empty at the second reading": Sabotage(lying(later(empty(20))), "not proven", "page 20 stayed empty"),
    # what is not done
    "read once": Sabotage(lying(), "likely", "the pages were read once", {"recheck": 0}),
    "read again in part": Sabotage(lying(), "likely", "only 10 of 40 pages", {"recheck": 10}),
    "guessed": Sabotage(lying(repaired("charset guessed")), "not proven", "read by guessing"),
    # no pages
    "unpaged, other total": Sabotage(lying(total=788), "not proven", "claims 788", {"paging": "none"}),
    "unpaged, read once": Sabotage(lying(), "likely", "read once", {"paging": "none", "recheck": 0}),
    "unpaged, changing": Sabotage(
        lambda: Portal(rows_of(1), before=lambda portal: portal.rows.__setitem__(0, row(0, portal.calls))),
        "not proven",
        "had changed",
        {"paging": "none"},
    ),
    # what has no end
    "endless list": Sabotage(lying(past_end="around"), "gave up", "does not end"),
}


def test_there_are_enough_sabotages() -> None:
    """More than thirty, and each has a name of its own."""
    assert len(SABOTAGES) >= 30
    assert all(sabotage.verdict != "proven" for sabotage in SABOTAGES.values())


@pytest.mark.parametrize("name", SABOTAGES)
def test_no_sabotage_is_proven(name: str, place: Callable[[], Path]) -> None:
    """Each gets the verdict that it deserves, in order and out of order, and only what is likely is published."""
    sabotage = SABOTAGES[name]
    for seed, window in ((None, 1), (3, 16), (4, 64)):
        got = mirrored(place(), sabotage.portal(), seed=seed, window=window, **sabotage.more)
        told = (seed, got.verdict, got.reasons)
        assert got.verdict == sabotage.verdict, told
        assert sabotage.words in got.reasons, told
        assert got.run.published == (sabotage.verdict == "likely")


def test_ten_short_pages_in_a_row_are_a_smaller_size(place: Callable[[], Path]) -> None:
    """In the order of answers, which is theirs only as long as they come one by one."""
    got = mirrored(place(), lying(rows_on(dict.fromkeys(range(20, 30), 11)))(), seed=None, window=1)
    assert got.verdict == "gave up"
    assert "10 pages in a row up to page 29 have 11 rows where page 1 had 20" in got.reasons


def test_pages_that_state_a_wrong_number_are_not_proven_without_their_rows(place: Callable[[], Path]) -> None:
    """From page 20 on every page says that it is page 1, with rows of its own."""
    for seed, window in ((None, 1), (3, 16), (4, 64)):
        portal = lying(echoes(lambda page: page if page < 20 else 1))()
        got = mirrored(place(), portal, seed=seed, window=window)
        assert got.verdict != "proven" or got.rows == b"".join(portal.rows), (seed, got.reasons)


def test_empty_and_repeated_pages_in_turns_are_never_proven(place: Callable[[], Path]) -> None:
    """Past the end every other page repeats the last one: whatever is concluded, it ends, and holes are named."""
    for seed in range(10):
        got = mirrored(place(), lying(turns)(), seed=seed, window=1 + 7 * seed)
        assert got.verdict != "proven", (seed, got.reasons)


# -- clean runs -------------------------------------------------------------------------------------------------------


class Clean(Struct, frozen=True):
    """A portal that hides nothing; options of the dataset."""

    portal: Callable[[], Portal]
    more: dict[str, Any] = {}


def grown(portal: Portal) -> None:
    """Add rows when the walk is over and the second reading has begun."""
    if portal.asked[1] == 2 and portal.rows[-1] != row(5000):
        portal.rows.extend(row(key) for key in range(4000, 4030))
        portal.rows.append(row(5000))


def shrunk(portal: Portal) -> None:
    """Take the last pages away when the second reading has begun."""
    if portal.asked[1] == 2 and len(portal.rows) > 30 * SIZE:
        del portal.rows[30 * SIZE - 3 :]


CLEAN: Final[dict[str, Clean]] = {
    "plain": Clean(lying()),
    "right total": Clean(lying(total="right")),
    "right total on some pages": Clean(lying(totals(lambda page: 787 if page % 3 else None))),
    "numbers stated": Clean(lying(echo="right")),
    "numbers stated wrongly": Clean(lying(echo="wrong")),
    "numbers stated here and there": Clean(lying(echoes(lambda page: None if page % 3 == 0 else page))),
    "key": Clean(lying(), {"key": ("ID",)}),
    "key of two columns": Clean(lying(), {"key": ("ID", "V")}),
    "expected": Clean(lying(), {"expect_rows": 787}),
    "last page full": Clean(lying(last=SIZE)),
    "more pages than a sample": Clean(lying(pages=FULL + 50)),
    "some pages empty once": Clean(lying(empty(1, 2, 17, 39, 40, times=1))),
    "every page from 30 on empty once": Clean(lying(empty(*range(30, 41), times=1))),
    "repairs": Clean(lying(repaired("bom"))),
    "short page in mid-list": Clean(lying(rows_on({14: 11}))),
    "stated sizes": Clean(lying(stated(lambda _: 50))),
    "changed once": Clean(changing(every(30, touch, until=30))),
    "one row inserted in mid-walk": Clean(changing(every(25, insert, until=25))),
    "grown between the readings": Clean(changing(grown)),
    "shrunk between the readings": Clean(changing(shrunk)),
    "unpaged": Clean(lying(pages=1), {"paging": "none"}),
    "unpaged, right total": Clean(lying(pages=1, total="right"), {"paging": "none"}),
    "one page": Clean(lying(pages=1)),
    "nothing": Clean(lambda: Portal([])),
    "unpaged, nothing": Clean(lambda: Portal([]), {"paging": "none"}),
}


def page_of(portal: Portal, page: int) -> Page:
    """Return what the portal holds for a page."""
    answer = portal.ask(page)
    assert isinstance(answer, Page)
    return answer


@pytest.mark.parametrize("name", CLEAN)
def test_what_hides_nothing_is_proven(name: str, place: Callable[[], Path]) -> None:
    """Published, and every row is the portal's, in order."""
    for seed, window in ((None, 1), (3, 16), (4, 64)):
        portal = CLEAN[name].portal()
        got = mirrored(place(), portal, seed=seed, window=window, strict=True, **CLEAN[name].more)
        assert (got.verdict, got.reasons) == ("proven", ""), seed
        assert got.run.published
        assert got.rows == b"".join(page_of(portal, page).lines for page in range(1, portal.last + 1))


def test_an_unpaged_answer_costs_one_call_and_one_confirmation(place: Callable[[], Path]) -> None:
    """Also an empty one."""
    for pages in (0, 1):
        portal = Portal(rows_of(pages))
        assert mirrored(place(), portal, paging="none").verdict == "proven"
        assert dict(portal.asked) == {1: 2}


@pytest.mark.parametrize("name", ["plain", "right total", "some pages empty once", "numbers stated", "nothing"])
def test_killed_runs_end_as_one_that_was_never_killed(name: str, place: Callable[[], Path]) -> None:
    """Killed three times at any answer, in the walk or in the second reading: proven, with the same rows."""
    for seed in range(6):
        portal = CLEAN[name].portal()
        got = mirrored(place(), portal, seed=seed, window=1 + 9 * seed, kills=3)
        assert (got.verdict, got.reasons) == ("proven", ""), seed
        assert got.rows == b"".join(portal.rows)


@pytest.mark.parametrize("name", ["hole", "error past the end", "last page repeated", "total too high by one"])
def test_kills_make_no_verdict_better(name: str, place: Callable[[], Path]) -> None:
    """What was seen before a kill is not forgotten."""
    sabotage = SABOTAGES[name]
    for seed in range(6):
        got = mirrored(place(), sabotage.portal(), seed=seed, window=1 + 9 * seed, kills=3, **sabotage.more)
        assert got.verdict == sabotage.verdict, (seed, got.reasons)
        assert sabotage.words in got.reasons


def test_fifteen_pages_fit_twenty_calls_with_an_honest_verdict(place: Callable[[], Path]) -> None:
    """Metered: frugal, one call at a time, and the second reading takes what is left of the allowance."""
    for total in (None, "right"):
        portal = Portal(rows_of(15), total=total)
        got = mirrored(place(), portal, seed=None, calls=24, max_calls=24)
        assert portal.calls <= 24
        assert got.rows == b"".join(portal.rows)
        assert got.verdict == "likely"
        assert "of 15 pages were read a second time" in got.reasons
        assert "were read a second time" in got.reasons


# -- drift ------------------------------------------------------------------------------------------------------------

LONG: Final = 10_000  # pages
SMALL: Final = 4  # rows on a page where there are very many
KINDS: Final = ("insert", "delete", "reorder", "update")
PLACES: Final = ("head", "middle", "tail")


def drift(kind: str, where: str, pages: int, size: int, random: Random) -> Callable[[list[bytes]], None]:
    """Return a change of a list that concerns more than 1 % of its pages, if it falls behind what was read."""
    share = size * (pages // 60)

    def change(rows: list[bytes]) -> None:
        start = {"head": 0, "middle": len(rows) // 2, "tail": len(rows) - share}[where]
        for number in range(start, start + share - 1, size // 2):
            if kind == "update":
                rows[number] = row(number, 1 + random.randrange(10**6))
            elif kind == "reorder":
                rows[number], rows[number + 1] = rows[number + 1], rows[number]
        if kind == "insert":
            rows[start:start] = [row(10**7 + random.randrange(10**8)) for _ in range(1 + random.randrange(30))]
        elif kind == "delete":
            del rows[start : start + 1 + random.randrange(30)]

    return change


class Moving(Portal):
    """A list of small pages that is changed before some calls; answers are bare bytes, for speed."""

    def __init__(self, rows: list[bytes], change: Callable[[list[bytes]], None], moments: set[int]) -> None:
        super().__init__(rows, size=SMALL)
        self._change = change
        self._moments = moments

    def walk(self) -> tuple[dict[int, bytes], Frontier]:
        """Return the pages as a walk has seen them, and its frontier."""
        frontier, kept = Frontier(), dict[int, bytes]()
        flying: deque[tuple[int, bytes]] = deque()
        while True:
            while len(flying) < 64 and (page := frontier.next()) is not None:
                self.calls += 1
                if self.calls in self._moments:
                    self._change(self.rows)
                flying.append((page, self.content(page)))
            if not flying:
                return kept, frontier
            page, content = flying.popleft()
            if frontier.arrived(page, content.count(b"\n"), content):
                kept[page] = content


def test_drift_of_one_percent_is_detected_in_99_of_100_runs() -> None:
    """Rows inserted, deleted, reordered or updated at head, middle or tail of 10,000 pages while they are read."""
    rows = [row(key) for key in range(LONG * SMALL - 1)]
    detected = runs = 0
    for seed, (kind, where) in enumerate(cycle(product(KINDS, PLACES))):
        random = chances(seed)
        first = LONG - 20 if where == "tail" else LONG * 9 // 10  # what is changed was read before
        moments = {random.randrange(first, LONG + 10) for _ in range(1 + seed % 2)}
        portal = Moving(list(rows), drift(kind, where, LONG, SMALL, random), moments)
        kept, frontier = portal.walk()
        assert frontier.end is not None
        last = frontier.end.last
        changed = sum(kept.get(page, b"") != portal.content(page) for page in range(1, max(last, portal.last) + 1))
        if changed < LONG // 100:
            continue
        runs += 1
        reading = SecondReading(last, FULL, seed, edge=True, most=0)
        while (page := reading.next()) is not None:
            content = portal.content(page)
            reading.arrived(page, same=content == kept.get(page, b""), rows=content.count(b"\n"))
        detected += reading.changed > 0
        if runs == 100:
            assert seed < 200, "most runs are counted"
            break
    assert detected >= 99


def keys(lines: bytes) -> list[bytes]:
    """Return the keys of rows, in order."""
    return [line.split(b'"')[3] for line in lines.splitlines()]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_moved_while_it_was_read_is_mended_when_it_stops(kind: str, where: str, place: Callable[[], Path]) -> None:
    """No key is missing, none is there twice, and the mirror is what the portal holds: then it is proven."""
    for seed in range(3):
        random = chances(seed)
        moments = {random.randrange(30, 290) for _ in range(1 + seed)}
        change = drift(kind, where, 280, SIZE, random)

        def before(portal: Portal, change: Any = change, moments: set[int] = moments) -> None:  # noqa: ANN401 - bound now
            if portal.calls in moments:
                change(portal.rows)

        portal = Portal(rows_of(280), before=before)
        got = mirrored(place(), portal, seed=seed, window=(1, 16, 64)[seed], key=("ID",))
        assert (got.verdict, got.reasons) == ("proven", ""), seed
        assert got.rows == b"".join(portal.rows)
        assert len(set(keys(got.rows))) == len(portal.rows)


@pytest.mark.parametrize("kind", ["insert", "update", "scattered"])
def test_drift_of_a_long_list_is_mended_everywhere(kind: str, place: Callable[[], Path]) -> None:
    """More pages than a sample holds: a change found has everything read again, also what changed here and there."""
    change = drift(kind, "middle", LONG, SIZE, chances(5))

    def before(portal: Portal) -> None:
        if portal.calls == LONG - 500:
            if kind == "scattered":
                for number in range(0, len(portal.rows), 100 * SIZE):
                    portal.rows[number] = row(number, 1)
            else:
                change(portal.rows)

    portal = Portal([row(key) for key in range(LONG * SIZE - 5)], before=before)
    got = mirrored(place(), portal, seed=None)
    assert (got.verdict, got.reasons) == ("proven", "")
    assert got.rows == b"".join(portal.rows)

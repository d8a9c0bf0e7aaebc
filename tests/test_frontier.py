"""The frontier against a model of a platform: whatever it answers and in whatever order, the list is kept whole.

The model knows the true list. It answers past the end in one of three ways, claims a total or none, and may be empty
for a while in mid-list. What it may not do is what nobody could tell from an end: a list whose last page equals the
one before it or page 1, on a platform that repeats a page past the end.
"""

from __future__ import annotations

from random import Random
from typing import Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from harvester.frontier import AHEAD, End, Frontier, spacing

PastEnd = Literal["empty", "last", "first"]
PAST_END: Final[tuple[PastEnd, ...]] = ("empty", "last", "first")
SIZE: Final = 20  # rows on a full page
SHARD: Final = 4  # pages per shard


class Answer(Struct, frozen=True):
    """What a page holds: how many rows, and their digest."""

    rows: int
    digest: bytes
    total: int | None = None


class Platform:
    """Answers for pages of a known list.

    Args:
        pages: the digest of each page of the list.
        past_end: what comes for pages beyond it.
        total: the claimed count of all rows.
        empty_at_first: how many times each of these pages is empty before it shows its rows.
    """

    def __init__(
        self,
        pages: list[bytes],
        past_end: PastEnd,
        total: int | None = None,
        empty_at_first: dict[int, int] | None = None,
    ) -> None:
        self.pages = pages
        self.past_end = past_end
        self.total = total
        self.empty_at_first = dict(empty_at_first or {})
        self.calls = 0

    @property
    def last(self) -> int:
        """The true last page."""
        return len(self.pages)

    def ask(self, page: int) -> Answer:
        """Answer one call."""
        self.calls += 1
        if self.empty_at_first.get(page, 0) > 0:
            self.empty_at_first[page] -= 1
            return Answer(0, b"", self.total)
        if page > self.last:
            if self.past_end == "empty" or not self.pages:
                return Answer(0, b"", self.total)
            page = self.last if self.past_end == "last" else 1
        return Answer(7 if page == self.last else SIZE, self.pages[page - 1], self.total)


def shuffled(seed: int) -> Random:
    """Return the chances of a run, the same for the same seed."""
    return Random(seed)  # noqa: S311 - shuffles answers


def distinct(count: int) -> list[bytes]:
    """Return a list of pages none of which equals another."""
    return [b"page %d" % number for number in range(1, count + 1)]


def full_total(pages: int) -> int:
    """Return the true count of rows of so many pages."""
    return (pages - 1) * SIZE + 7 if pages else 0


class Walk:
    """A run as the engine makes it: pages are asked for, answers come in some order, good ones are kept.

    ``kept`` survives a crash as far as ``crash`` is told; shards are sealed as soon as the frontier allows it.
    """

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.frontier = Frontier()
        self.kept: dict[int, bytes] = {}
        self.sealed: set[int] = set()
        self.flying: dict[int, Answer] = {}

    def ask(self) -> int | None:
        """Ask for one more page, if the frontier names one."""
        page = self.frontier.next()
        if page is not None:
            assert page not in self.kept, f"page {page} was asked for again"
            assert page not in self.flying, f"page {page} was asked for twice at once"
            assert page >= 1
            self.flying[page] = self.platform.ask(page)
        return page

    def answer(self, page: int) -> None:
        """Let the answer for a page come in."""
        answer = self.flying.pop(page)
        if self.frontier.arrived(page, answer.rows, answer.digest, answer.total):
            self.kept[page] = answer.digest
        self.seal()

    def put_back(self, page: int) -> None:
        """Let the call for a page fail."""
        del self.flying[page]
        self.frontier.put_back(page)

    def leave_open(self, page: int) -> None:
        """Give a page up."""
        del self.flying[page]
        self.frontier.leave_open(page)
        self.seal()

    def seal(self) -> None:
        """Seal every whole shard that the frontier is certain of."""
        for shard in range(max(self.kept, default=0) // SHARD + 1):
            first, last = shard * SHARD + 1, (shard + 1) * SHARD
            whole = shard not in self.sealed and all(page in self.kept for page in range(first, last + 1))
            if whole and self.frontier.sealable(first, last):
                assert last <= self.platform.last, f"pages {first} to {last} lie past the end"
                self.sealed.add(shard)

    def crash(self, durable: set[int]) -> None:
        """Start anew with what is durable: sealed shards, and these pages."""
        sealed = {page for shard in self.sealed for page in range(shard * SHARD + 1, (shard + 1) * SHARD + 1)}
        self.kept = {page: digest for page, digest in self.kept.items() if page in durable or page in sealed}
        self.flying.clear()
        end, self.frontier = self.frontier.end, Frontier()
        digests: dict[int, bytes] = {}
        for shard in sorted(self.sealed):
            first, last = shard * SHARD + 1, (shard + 1) * SHARD
            self.frontier.restore(first, last)
            digests |= {page: self.kept[page] for page in (first, last)}
        for page in sorted(self.kept.keys() - sealed):
            self.frontier.restore(page, page)
            digests[page] = self.kept[page]
        self.frontier.restore_digests(digests)
        if end is not None:
            self.frontier.restore_end(end)

    def finish(self, random: Random, window: int = 8, failing: float = 0.0, giving_up: float = 0.0) -> None:
        """Go on until nothing is left to ask for; answers come in random order."""
        most = 20 * (self.platform.last + 60)
        for _ in range(most):
            while len(self.flying) < window and self.ask() is not None:
                pass
            if not self.flying:
                assert self.frontier.exhausted
                return
            page = random.choice(list(self.flying))
            fate = random.random()
            if fate < giving_up:
                self.leave_open(page)
            elif fate < giving_up + failing:
                self.put_back(page)
            else:
                self.answer(page)
        pytest.fail(f"no end after {most} answers")

    def check(self) -> None:
        """The end is right and everything up to it is there."""
        frontier, truth = self.frontier, self.platform.pages
        assert frontier.end is not None, "the end is not known"
        assert frontier.end.last == len(truth)
        assert frontier.complete
        assert frontier.missing() == []
        assert frontier.in_flight == 0
        assert {page: digest for page, digest in self.kept.items() if page <= len(truth)} == {
            page: digest for page, digest in enumerate(truth, 1) if page not in frontier.holes
        }


# -- every size, every end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", ["none", "right", "low", "high", "zero"])
@pytest.mark.parametrize("past_end", PAST_END)
@pytest.mark.parametrize("pages", [0, 1, 2, 3, 19, 20, 21, 400])
@pytest.mark.parametrize("window", [1, 64])
def test_the_end_is_found(pages: int, past_end: PastEnd, total: str, window: int) -> None:
    """Every size with every behaviour past the end, whatever the platform claims to have, one by one and in bulk."""
    rows = full_total(pages)
    claimed = {"none": None, "right": rows, "low": rows // 2, "high": rows * 2 + 500, "zero": 0}[total]
    walk = Walk(Platform(distinct(pages), past_end, claimed))
    walk.finish(shuffled(pages), window)
    walk.check()
    assert walk.frontier.end is not None
    assert walk.frontier.end.how == ("empty" if past_end == "empty" or not pages else "repeat")
    assert all(page > pages for page in walk.frontier.end.beyond)


@pytest.mark.parametrize("pages", [1, 20, 400])
def test_a_walk_one_by_one_costs_few_calls_more_than_pages(pages: int) -> None:
    """With a right total and an honest platform: the pages, the page after them, and the confirmations."""
    walk = Walk(Platform(distinct(pages), "empty", full_total(pages)))
    walk.finish(shuffled(0), window=1)
    assert walk.platform.calls <= pages + 3


def test_a_total_is_used_to_fan_out() -> None:
    """Once page 1 is in, every page that the total promises may be in flight at once."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert frontier.next() is None
    assert frontier.arrived(1, SIZE, b"1", 100 * SIZE)
    assert [frontier.next() for _ in range(100)] == [*range(2, 101), None]


def test_without_a_total_the_run_goes_ahead_by_what_is_known() -> None:
    """First a few pages, then as many as are known already."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert frontier.arrived(1, SIZE, b"1")
    asked = [frontier.next() for _ in range(AHEAD + 1)]
    assert asked == [*range(2, 2 + AHEAD), None]
    for page in range(2, 2 + AHEAD):
        assert frontier.arrived(page, SIZE, b"%d" % page)
    highest = 1 + AHEAD
    assert [frontier.next() for _ in range(highest + 1)] == [*range(highest + 1, 2 * highest + 1), None]


# -- single facts -----------------------------------------------------------------------------------------------------


def begun(pages: int, *, flying: int) -> Frontier:
    """Return a frontier that has page 1, was told a total of so many full pages, and has asked for some."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert frontier.arrived(1, SIZE, b"1", pages * SIZE)
    assert [frontier.next() for _ in range(flying)] == [*range(2, flying + 2)]
    return frontier


def test_one_empty_answer_is_not_believed() -> None:
    """A first page that is empty once does not make an empty dataset."""
    walk = Walk(Platform(distinct(3), "empty", empty_at_first={1: 1}))
    walk.finish(shuffled(0), window=1)
    walk.check()


def test_a_page_that_stays_empty_in_mid_list_is_a_hole() -> None:
    """It is kept without rows and named; the pages beyond it are not lost."""
    walk = Walk(Platform(distinct(40), "empty", full_total(40), empty_at_first={5: 9}))
    walk.finish(shuffled(0))
    assert walk.frontier.holes == [5]
    assert walk.kept[5] == b""
    del walk.kept[5]
    walk.check()
    assert walk.platform.empty_at_first[5] == 7, "asked for twice, not more"


def test_a_hole_before_the_last_page_is_no_repetition() -> None:
    """The last page follows a hole, and the platform repeats it for ever: it is still part of the list."""
    walk = Walk(Platform(distinct(40), "last", full_total(40), empty_at_first={39: 9}))
    walk.finish(shuffled(0))
    assert walk.frontier.holes == [39]
    del walk.kept[39]
    walk.check()


@pytest.mark.parametrize("pages", [2, 3])
def test_while_page_1_is_unknown_nothing_repeats_it(pages: int) -> None:
    """Page 1 was empty at first, and what comes past the end is page 1: nothing is concluded or sealed before it."""
    for seed in range(100):
        walk = Walk(Platform(distinct(pages), "first", empty_at_first={1: 1, 2: 1}))
        walk.finish(shuffled(seed), window=26)
        walk.check()


def test_nothing_is_sealed_while_page_1_is_unknown() -> None:
    """The highest page may be the first repetition of it."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert not frontier.arrived(1, 0, b"")
    assert frontier.next() == 8
    assert frontier.arrived(8, SIZE, b"8")
    asked = [frontier.next() for _ in range(11)]
    assert asked[:4] == [1, 2, 3, 4]
    for page in (2, 3, 4, 5, 6, 7, 9, 10, 11):
        assert frontier.arrived(page, SIZE, b"%d" % page if page < 11 else b"1")
    frontier.arrived(12, 0, b"")
    assert not frontier.sealable(9, 11)
    assert frontier.arrived(1, SIZE, b"1")
    assert not frontier.sealable(9, 11)
    assert frontier.sealable(8, 9)


def test_equal_pages_that_come_late_are_no_end() -> None:
    """Three equal pages in a list, the first of them answered last: what lies between is not forgotten."""
    frontier = begun(100, flying=99)
    equal = {10, 11, 40}
    for page in [*range(2, 10), *range(11, 41), 10]:
        assert frontier.arrived(page, SIZE, b"equal" if page in equal else b"%d" % page)
    assert frontier.end is None


def test_forty_equal_rows_cost_two_calls_out_of_order_and_nothing_else() -> None:
    """Two equal pages raise a suspicion that the first far page dispels."""
    pages = distinct(60)
    pages[19] = pages[20] = b"equal"
    walk = Walk(Platform(pages, "empty", full_total(60)))
    walk.finish(shuffled(0), window=1)
    walk.check()
    assert walk.platform.calls <= 60 + 3


def test_a_gap_before_pages_that_repeat_makes_no_end() -> None:
    """Where the page before the first repetition was given up, the list may have ended before it."""
    frontier = begun(12, flying=11)
    for page in range(2, 11):
        assert frontier.arrived(page, SIZE, b"%d" % page)
    frontier.leave_open(11)
    frontier.arrived(12, SIZE, b"1")
    while (following := frontier.next()) is not None:
        frontier.arrived(following, SIZE, b"1")
    assert frontier.exhausted
    assert frontier.end is None
    assert frontier.missing()[0] == 11


@pytest.mark.parametrize("repeated", ["last", "first"])
def test_an_end_that_was_seen_before_a_crash_is_seen_after_it(repeated: PastEnd) -> None:
    """Pages that prove the end are durable, the end itself was not written: no further call is needed."""
    frontier = Frontier()
    durable = [*range(1, 13), 18, 32]  # 10 pages, what repeats them, and the far pages
    for page in durable:
        frontier.restore(page, page)
    beyond = b"10" if repeated == "last" else b"1"
    frontier.restore_digests({page: b"%d" % page if page <= 10 else beyond for page in durable})
    assert frontier.next() is None
    assert frontier.end == End(10, "repeat", (11, 12, 18, 32))
    assert frontier.complete


def test_pages_past_a_known_end_do_not_count() -> None:
    """A run that was stopped may have kept repetitions; with one page missing, the next run is not complete."""
    frontier = Frontier()
    frontier.restore(1, 4)
    frontier.restore(6, 8)
    frontier.restore_digests({page: b"%d" % min(page, 6) for page in (1, 2, 3, 4, 6, 7, 8)})
    frontier.restore_end(End(6, "repeat"))
    assert frontier.done == 5
    assert not frontier.complete
    assert frontier.missing() == [5]
    assert frontier.next() == 5
    assert frontier.arrived(5, SIZE, b"5")
    assert frontier.complete


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_an_interface_without_pages_gets_one_call(rows: int) -> None:
    """Its one answer is the whole list, also an empty one; nothing is asked for beyond it."""
    frontier = Frontier(paged=False)
    assert frontier.next() == 1
    assert frontier.next() is None
    assert frontier.arrived(1, rows, b"all", rows) is (rows > 0)
    assert frontier.end == End(min(rows, 1), "unpaged")
    assert frontier.complete
    assert frontier.exhausted


def test_an_answer_without_pages_is_whole_after_a_crash() -> None:
    """Its rows are durable, so nothing is left to ask for."""
    frontier = Frontier(paged=False)
    frontier.restore(1, 1)
    frontier.restore_digests({1: b"all"})
    assert frontier.complete
    assert frontier.next() is None


def test_answers_past_a_known_end_are_not_kept() -> None:
    """They were asked for before the end was known."""
    frontier = begun(12, flying=11)
    frontier.restore_end(End(5, "empty"))
    assert not frontier.wanted(6)
    assert not frontier.arrived(6, SIZE, b"6")
    frontier.put_back(7)
    assert frontier.arrived(5, SIZE, b"5")
    assert frontier.next() is None


def test_totals_are_remembered_lowest_highest_and_last() -> None:
    """They are evidence, whatever they are worth."""
    frontier = begun(30, flying=3)
    for page, total in ((2, 700), (3, 500), (4, 650)):
        frontier.arrived(page, SIZE, b"%d" % page, total)
    assert frontier.totals == (500, 700, 650)


def test_what_may_be_sealed() -> None:
    """Only pages with a done neighbour below and an answered one above, and none under suspicion."""
    frontier = begun(12, flying=11)
    for page in (2, 3, 4, 6, 7, 8):
        frontier.arrived(page, SIZE, b"%d" % page)
    assert not frontier.sealable(1, 4), "page 5 is not answered"
    assert not frontier.sealable(6, 7), "page 5 is not done"
    frontier.arrived(5, SIZE, b"5")
    assert frontier.sealable(1, 4)
    assert frontier.sealable(5, 7)
    assert not frontier.sealable(5, 8), "page 9 is not answered"
    frontier.arrived(9, SIZE, b"8")
    assert not frontier.sealable(5, 8), "page 8 may be the last, and page 9 its repetition"
    assert frontier.sealable(5, 7)


def test_the_distance_of_a_confirmation_grows_with_the_list() -> None:
    """Never less than seven pages, an eighth of a long list."""
    assert [spacing(page) for page in (1, 56, 64, 8000)] == [7, 7, 8, 1000]


# -- anything at all --------------------------------------------------------------------------------------------------


@st.composite
def platforms(draw: st.DrawFn) -> Platform:
    """Draw a list of pages with equal runs in it, and a platform that shows it in its own way."""
    count = draw(st.one_of(st.integers(0, 30), st.integers(30, 150)))
    pages = distinct(count)
    past_end = draw(st.sampled_from(PAST_END))
    contents = [b"run"] + ([pages[0]] if count and past_end != "first" else [])
    for _ in range(draw(st.integers(0, 2))):
        start, length = draw(st.integers(1, 150)), draw(st.integers(2, 5))
        content = draw(st.sampled_from(contents))
        # The last page stays itself: see the head of this module.
        for page in range(start, min(start + length, count)):
            if page > 1:
                pages[page - 1] = content
    rows = full_total(count)
    total = draw(st.sampled_from([None, rows, rows // 2, rows + 19, rows * 2 + 333, 0, 10**15]))
    empty = draw(st.sets(st.integers(1, count), max_size=6)) if count else set()
    return Platform(pages, past_end, total, dict.fromkeys(empty, 1))


@settings(max_examples=300, deadline=None)
@given(platforms(), st.integers(0, 2**32), st.integers(1, 70), st.sampled_from([0.0, 0.1, 0.4]))
def test_whatever_the_order_the_list_is_kept_whole(platform: Platform, seed: int, window: int, failing: float) -> None:
    """Answers in any order, calls that fail and are repeated, pages that are empty for a while."""
    walk = Walk(platform)
    walk.finish(shuffled(seed), window, failing)
    walk.check()


@settings(max_examples=200, deadline=None)
@given(platforms(), st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 4))
def test_a_run_goes_on_where_it_was_stopped(platform: Platform, seed: int, window: int, crashes: int) -> None:
    """Stopped at any moment with any part of the pages durable, the next run brings the rest."""
    random = shuffled(seed)
    walk = Walk(platform)
    for _ in range(crashes):
        for _ in range(random.randrange(1, 3 * platform.last + 30)):
            while len(walk.flying) < window and walk.ask() is not None:
                pass
            if not walk.flying:
                break
            walk.answer(random.choice(list(walk.flying)))
        part = random.choice([0.5, 1.0])
        walk.crash({page for page in walk.kept if page == 1 or random.random() < part})
    walk.finish(random, window)
    walk.check()


@settings(max_examples=200, deadline=None)
@given(platforms(), st.integers(0, 2**32), st.integers(1, 70))
def test_pages_left_open_make_no_end_and_come_in_the_next_run(platform: Platform, seed: int, window: int) -> None:
    """A run that gave pages up claims nothing wrong; another one completes it."""
    random = shuffled(seed)
    walk = Walk(platform)
    walk.finish(random, window, giving_up=0.1)
    end = walk.frontier.end
    if end is not None:
        assert end.last == platform.last
        assert walk.frontier.complete == (all(page in walk.kept for page in range(1, end.last + 1)))
        assert walk.frontier.missing() == [page for page in range(1, end.last + 1) if page not in walk.kept]
    walk.crash(set(walk.kept))
    walk.finish(random, window)
    walk.check()


class Machine(RuleBasedStateMachine):
    """One run, step by step, in an order that Hypothesis chooses and shortens."""

    @initialize(platform=platforms())
    def begin(self, platform: Platform) -> None:
        """Start."""
        self.walk = Walk(platform)

    @rule(times=st.integers(1, 40))
    def ask(self, times: int) -> None:
        """Send some calls."""
        for _ in range(times):
            if self.walk.ask() is None:
                break

    @precondition(lambda self: self.walk.flying)
    @rule(data=st.data(), times=st.integers(1, 20))
    def answer(self, data: st.DataObject, times: int) -> None:
        """Let some answers come in, the newest or the oldest or any first."""
        which = data.draw(st.sampled_from(["oldest", "newest", "any"]))
        for _ in range(min(times, len(self.walk.flying))):
            pages = list(self.walk.flying)
            page = {"oldest": pages[0], "newest": pages[-1]}.get(which) or data.draw(st.sampled_from(pages))
            self.walk.answer(page)

    @precondition(lambda self: self.walk.flying)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """Let a call fail."""
        self.walk.put_back(data.draw(st.sampled_from(list(self.walk.flying))))

    @precondition(lambda self: self.walk.flying)
    @rule(data=st.data())
    def leave_open(self, data: st.DataObject) -> None:
        """Give a page up in this run."""
        self.walk.leave_open(data.draw(st.sampled_from(list(self.walk.flying))))

    @precondition(lambda self: self.walk.kept)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Stop; what arrived last may not be durable."""
        pages = list(self.walk.kept)
        self.walk.crash(set(pages[: data.draw(st.integers(1, len(pages)))]))

    @invariant()
    def nothing_wrong_is_claimed(self) -> None:
        """An end that is claimed is the true one."""
        walk = self.walk
        assert walk.frontier.in_flight == len(walk.flying)
        if walk.frontier.end is not None:
            assert walk.frontier.end.last == walk.platform.last

    def teardown(self) -> None:
        """Let the run come to its end."""
        if hasattr(self, "walk"):
            self.walk.crash(set(self.walk.kept))
            self.walk.finish(shuffled(0))
            self.walk.check()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

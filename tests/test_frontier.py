"""The frontier against a model of a portal: whatever it answers and in whatever order, the list is kept whole.

What the portal may not do is what nobody could tell from an end: have a last page that equals the one before it or
page 1, on a platform that repeats a page past the end without stating numbers.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model_portal import (
    FAILS,
    SIZE,
    Answer,
    Echo,
    PastEnd,
    Portal,
    Twist,
    Walk,
    chances,
    echoes,
    empty,
    end_of,
    fail,
    overshoot_bound,
    rows_of,
    serve,
)

from harvester.frontier import FARTHEST, End, Frontier
from harvester.model import Page

ENDS: Final[tuple[PastEnd, ...]] = ("empty", "last", "first", "error", "empty then error")
SETTLED: Final[tuple[PastEnd, ...]] = ("empty", "error")
ECHOES: Final[tuple[Echo, ...]] = ("none", "right", "asked", "wrong")
HOW: Final = {"empty": "empty", "last": "repeat", "first": "repeat", "error": "error 7001", "empty then error": "mixed"}


class Long(Portal):
    """A list so long that its rows are not written out: every page is its number."""

    def __init__(self, pages: int, **options: Any) -> None:  # noqa: ANN401 - those of a portal
        super().__init__([], **options)
        self._pages = pages

    @property
    def last(self) -> int:
        """The last page."""
        return self._pages

    def content(self, page: int) -> bytes:
        """Return what stands for the rows of a page."""
        return b"%d" % page

    def page(self, asked: int, served: int) -> Page:
        """Return the answer that holds page ``served`` for page ``asked``."""
        rows = 0 if not served else 7 if served == self._pages else SIZE
        number = {"none": None, "right": served or asked, "asked": asked, "wrong": 1 + asked * 7 % 13}[self.echo]
        total = (self._pages - 1) * SIZE + 7 if self.total == "right" else self.total
        return Page(self.content(served) if rows else b"", rows, number=number, total=total)


def walked(portal: Portal, window: int = 64, seed: int | None = 1, **options: bool) -> Walk:
    """Return a walk that has come to its end."""
    walk = Walk(portal, **options)
    walk.finish(None if seed is None else chances(seed), window=window)
    return walk


# -- every size, every end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("past_end", ENDS)
@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4, 5, 8, 19, 20, 21, 64, 65, 400])
def test_the_end_is_found(pages: int, past_end: PastEnd, echo: Echo) -> None:
    """Every size with every behaviour past the end, whatever total is claimed, one by one and in bulk."""
    rows = rows_of(pages)
    for total in (None, "right", 0, len(rows) // 2, 10 * len(rows) + 7, 10**15):
        for window, seed in ((1, None), (64, 1)):
            portal = Portal(rows, past_end=past_end, echo=echo, total=total)
            walk = walked(portal, window, seed)
            walk.check()
            assert end_of(walk).how == HOW[past_end] or echo != "none" or not pages
            assert all(page > pages for page in end_of(walk).beyond)
            assert walk.frontier.holes == []


@pytest.mark.parametrize("window", [1, 4, 64, 600])
@pytest.mark.parametrize("past_end", ENDS)
@pytest.mark.parametrize("echo", ["none", "right"])
def test_a_clean_run_asks_for_few_pages_beyond_the_last(past_end: PastEnd, echo: Echo, window: int) -> None:
    """At most 2 log2(pages) + 8, for lists of many lengths, with a right total and without one."""
    random = chances(window)
    for pages in [*range(1, 18), *random.sample(range(18, 3001), 3)]:
        for total in (None, "right"):
            walk = walked(Long(pages, past_end=past_end, echo=echo, total=total), window, random.choice([None, pages]))
            assert end_of(walk).last == walk.frontier.done == pages
            assert walk.portal.beyond <= overshoot_bound(pages), (pages, total, end_of(walk))


@pytest.mark.parametrize(("window", "past_end"), [(1, "empty"), (4, "last"), (64, "empty"), (600, "error")])
def test_few_pages_beyond_the_last_of_a_long_list(window: int, past_end: PastEnd) -> None:
    """The flights of a year: 16,839 pages."""
    walk = walked(Long(16_839, past_end=past_end), window, seed=None)
    assert end_of(walk).last == walk.frontier.done == 16_839
    assert walk.portal.beyond <= overshoot_bound(16_839)


@pytest.mark.parametrize("total", [None, "right", 10**9])
@pytest.mark.parametrize("past_end", ENDS)
@pytest.mark.parametrize("pages", [1, 20, 16_839, 1_000_000, 5_000_000])
def test_the_end_alone_costs_few_calls(pages: int, past_end: PastEnd, total: Any) -> None:  # noqa: ANN401 - of a portal
    """Without streaming: nothing but probes, and what they find is kept like any page."""
    for window in (1, 4, 64, 600):
        walk = Walk(Long(pages, past_end=past_end, total=total), streaming=False)
        while True:
            while len(walk.flying) < window and walk.ask() is not None:
                pass
            if not walk.flying:
                break
            walk.answer(next(iter(walk.flying)))
        frontier = walk.frontier
        supposed = frontier.end or frontier.supposed()
        assert supposed is not None
        assert supposed.last == pages
        assert walk.portal.calls <= 5 * overshoot_bound(pages)
        assert walk.portal.beyond <= overshoot_bound(pages) or total == 10**9
        assert sorted(walk.kept) == [page for page in sorted(walk.portal.asked) if page <= pages or walk.kept.get(page)]


@pytest.mark.soak
def test_few_pages_beyond_the_last_of_a_million() -> None:
    """Streamed, page by page."""
    for window, past_end in ((1, "empty"), (64, "last"), (600, "error")):
        walk = walked(Long(1_000_000, past_end=past_end), window, seed=None)
        assert end_of(walk).last == walk.frontier.done == 1_000_000
        assert walk.portal.beyond <= overshoot_bound(1_000_000)


def test_with_a_right_total_the_last_page_is_found_at_once() -> None:
    """The page that it points at and the next one are the first probes; then the pages stream."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert frontier.next() is None
    assert frontier.arrived(1, SIZE, b"1", total=100 * SIZE)
    assert frontier.next() == 2, "alone: it tells whether stated numbers can be believed"
    assert frontier.next() is None
    assert frontier.arrived(2, SIZE, b"2")
    assert [frontier.next() for _ in range(2)] == [100, 101]
    assert frontier.arrived(100, SIZE, b"100")
    assert not frontier.arrived(101, 0, b"")
    asked = [frontier.next() for _ in range(120)]
    assert [page for page in asked if page and page < 100] == list(range(3, 100))
    assert [page for page in asked if page and page > 100] == [102, 103, 104, 105, 109, 113, 137]


def test_without_a_total_pages_stream_as_far_as_is_certain() -> None:
    """Three probes at once, each twice as far; what lies between pages with rows is asked for meanwhile."""
    frontier = Frontier()
    for page in (1, 2):
        assert frontier.next() == page
        assert frontier.arrived(page, SIZE, b"%d" % page)
    assert [frontier.next() for _ in range(4)] == [4, 8, 16, None]
    assert frontier.arrived(16, SIZE, b"16")
    assert [frontier.next() for _ in range(3)] == [32, 64, 128]
    assert frontier.next() is None, "16 may be a repetition of 2, or of 8"
    assert frontier.arrived(8, SIZE, b"8")
    assert [frontier.next() for _ in range(6)] == [3, 5, 6, 7, None, None]
    assert not frontier.arrived(64, 0, b"")
    assert [frontier.next() for _ in range(3)] == [9, 10, 11]


# -- single facts -----------------------------------------------------------------------------------------------------


def begun(pages: int) -> Frontier:
    """Return a frontier that has asked for so many pages and got page 1; no page has stated its number."""
    frontier = Frontier()
    frontier.restore(1, 1)
    frontier.restore_digests({1: b"1"})
    for page in range(2, pages + 1):
        frontier._states[page] = 1
        frontier.in_flight += 1
    return frontier


@pytest.mark.parametrize("page", [1, 2, 3, 20, 39, 40])
def test_one_empty_answer_is_not_believed(page: int) -> None:
    """Wherever it comes, the page is asked for once more, and its rows are there."""
    for window in (1, 64):
        walk = walked(Portal(rows_of(40), twists=[empty(page, times=1)]), window)
        walk.check()
        assert walk.portal.asked[page] == 2
        assert walk.frontier.holes == []


@pytest.mark.parametrize("page", [1, 2, 5, 20, 38, 39])
@pytest.mark.parametrize("past_end", ["empty", "error"])
def test_a_page_that_stays_empty_in_mid_list_is_a_hole(page: int, past_end: PastEnd) -> None:
    """It is asked for twice, kept without rows, and named; the pages beyond it are not lost."""
    if page == 1 and past_end == "error":
        return  # nothing shows that anything is served: a failure is a refusal
    for window in (1, 64):
        walk = walked(Portal(rows_of(40), past_end=past_end, twists=[empty(page)]), window)
        walk.check()
        assert walk.frontier.holes == [page]
        assert walk.kept[page] == b""
        assert walk.portal.asked[page] == 2


def test_a_hole_before_the_last_page_is_no_repetition() -> None:
    """The last page follows a hole, and the platform repeats it for ever: it is still part of the list."""
    walk = walked(Portal(rows_of(40), past_end="last", twists=[empty(39)]))
    walk.check()
    assert walk.frontier.holes == [39]


def test_few_empty_pages_do_not_hide_the_last_ones() -> None:
    """One or two, before a tail of any length: what is close to a supposed end is looked at."""
    for pages in (5, 17, 20, 100):
        for tail in (1, 2, 5):
            for holes in (1, 2):
                if tail + holes < pages:
                    hidden = range(pages - tail - holes + 1, pages - tail + 1)
                    walk = walked(Portal(rows_of(pages), twists=[empty(*hidden)]))
                    walk.check()
                    assert sorted(walk.frontier.holes) == list(hidden)


def test_while_page_1_is_unknown_nothing_repeats_it() -> None:
    """Page 1 was empty at first, and what comes past the end is page 1: nothing is concluded or sealed before it."""
    for pages in (2, 3):
        for seed in range(100):
            walk = walked(Portal(rows_of(pages), past_end="first", twists=[empty(1, 2, times=1)]), 26, seed)
            walk.check()


@pytest.mark.parametrize("past_end", ENDS)
def test_forty_equal_rows_in_mid_list_are_data(past_end: PastEnd) -> None:
    """Two equal pages, or three, or two that equal page 1, wherever they are, also at a probe."""
    for at in (2, 15, 16, 31, 50):
        for content in (3 * SIZE * [b'{"ID":"equal","V":0}\n'], 2 * rows_of(1, SIZE)):
            rows = rows_of(60)
            rows[(at - 1) * SIZE : (at - 1) * SIZE + len(content)] = content
            walked(Portal(rows, past_end=past_end), 1, None).check()
            walked(Portal(rows, past_end=past_end), 64, at).check()


def test_a_list_of_equal_rows_on_a_platform_that_sends_empty_pages() -> None:
    """Every page is the same, and the end is the first empty one."""
    for pages in (1, 2, 3, 40):
        rows = [rows_of(1)[0]] * (pages * SIZE)
        walk = walked(Portal(rows, echo="right"))
        walk.check()
        assert end_of(walk).how == "empty"


def test_equal_pages_at_the_end_where_numbers_are_stated() -> None:
    """The numbers tell the last page from its repetitions, the contents could not."""
    rows = [rows_of(1)[0]] * (30 * SIZE)
    walk = walked(Portal(rows, echo="right", past_end="last"))
    walk.check()
    assert end_of(walk).how == "repeat"


@pytest.mark.parametrize(("one", "two", "believed"), [(1, 2, True), (1, 1, False), (2, 2, False), (None, 2, None)])
def test_stated_numbers_are_believed_if_pages_1_and_2_stated_theirs(
    one: int | None,
    two: int,
    believed: bool | None,  # noqa: FBT001 - from the table
) -> None:
    """Both, with rows."""
    frontier = Frontier()
    for page, number in ((1, one), (2, two)):
        assert frontier.next() == page
        assert frontier.arrived(page, SIZE, b"%d" % page, echo=number)
    assert bool(frontier.echoes) is bool(believed)


def test_a_wrong_number_in_mid_list_is_asked_about_again() -> None:
    """Once wrong, then right: nothing is lost. Always wrong: a hole, which no certificate overlooks."""

    def once(portal: Portal, page: int, answer: Answer) -> Answer:
        return portal.page(page, 9) if page == 17 and portal.asked[page] == 1 else answer

    walked(Portal(rows_of(40), echo="right", twists=[once])).check()
    walk = walked(Portal(rows_of(40), echo="right", twists=[serve({17: 9})]))
    walk.check()
    assert walk.frontier.holes == [17]


def test_a_page_that_states_no_number_is_data() -> None:
    """A number that is absent is not a wrong one."""
    walk = walked(Portal(rows_of(40), echo="right", twists=[echoes(lambda page: None if page % 3 == 0 else page)]))
    walk.check()
    assert walk.frontier.holes == []


def test_pages_served_in_each_others_place_are_asked_about_where_numbers_are_stated() -> None:
    """Two swapped pages are two holes."""
    walk = walked(Portal(rows_of(40), echo="right", twists=[serve({11: 12, 12: 11})]))
    assert sorted(walk.frontier.holes) == [11, 12]


# -- failures ---------------------------------------------------------------------------------------------------------


def test_the_same_failure_on_three_spaced_pages_is_an_end() -> None:
    """And it is named."""
    end = end_of(walked(Portal(rows_of(40), past_end="error"), 1, None))
    assert end == End(40, "error 7001", end.beyond)
    assert end.beyond[0] == 41
    assert 48 in end.beyond
    assert end.beyond[-1] >= 62


def test_different_failures_are_no_end() -> None:
    """The end stays unknown, every page with rows is here."""
    for window in (1, 64):
        walk = walked(Portal(rows_of(40), past_end="errors"), window)
        assert walk.frontier.end is None
        assert not walk.frontier.complete
        assert walk.frontier.missing() == []
        assert sorted(walk.kept) == list(range(1, 41))


def test_a_failure_at_the_edge_alone_is_no_end() -> None:
    """Page 41 fails, and pages beyond it are empty: page 41 may have rows."""
    walk = walked(Portal(rows_of(40), twists=[fail(FAILS, 41)]))
    assert walk.frontier.end is None
    assert walk.frontier.exhausted


@pytest.mark.parametrize("page", [2, 3, 16, 25, 39])
def test_a_failure_in_mid_list_is_a_refusal_at_the_latest_when_rows_follow(page: int) -> None:
    """It is asked for again, and refused then: a page with rows follows."""
    walk = walked(Portal(rows_of(40), twists=[fail("9999", page)]), 1, None)
    assert walk.refused == "9999"
    assert not walk.frontier.complete
    assert walk.frontier.missing() == [page]


def test_before_page_1_is_here_a_failure_is_a_refusal() -> None:
    """Nothing shows that anything is served."""
    frontier = Frontier()
    assert frontier.next() == 1
    assert not frontier.failed(1, "1003")
    assert frontier.in_flight == 1, "the caller decides what becomes of the page"


def test_an_empty_list_whose_other_pages_fail_is_empty() -> None:
    """Page 1 was answered, without rows, twice."""
    walk = walked(Portal([], past_end="error"))
    walk.check()
    assert end_of(walk).how == "mixed"
    assert walk.portal.asked[1] == 2


def test_no_failure_counts_where_there_are_no_pages_or_the_end_is_known() -> None:
    """It is the caller's matter then."""
    unpaged = Frontier(paged=False)
    assert unpaged.next() == 1
    assert not unpaged.failed(1, "7001")
    ended = Frontier()
    ended.restore(1, 3)
    ended.restore_end(End(3, "empty"))
    assert not ended.failed(4, "7001")


# -- one answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_an_interface_without_pages_gets_one_call(rows: int) -> None:
    """Its one answer is the whole list, also an empty one; nothing is asked for beyond it."""
    frontier = Frontier(paged=False)
    assert frontier.next() == 1
    assert frontier.next() is None
    assert frontier.arrived(1, rows, b"all", total=rows) is (rows > 0)
    assert frontier.end == End(min(rows, 1), "unpaged")
    assert frontier.complete
    assert frontier.exhausted
    assert frontier.supposed() == frontier.end


def test_an_answer_without_pages_is_whole_after_a_crash() -> None:
    """Its rows are durable, so nothing is left to ask for."""
    frontier = Frontier(paged=False)
    frontier.restore(1, 1)
    frontier.restore_digests({1: b"all"})
    assert frontier.complete
    assert frontier.next() is None


def test_an_unanswered_interface_without_pages_is_asked_again() -> None:
    """Put back, it is the same page."""
    frontier = Frontier(paged=False)
    assert frontier.next() == 1
    frontier.put_back(1)
    assert not frontier.exhausted
    assert frontier.next() == 1


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_a_frugal_frontier_confirms_with_three_calls() -> None:
    """The page after the last and two spaced ones, none twice: 15 pages cost 18 calls if a total says so."""
    walk = walked(Portal(rows_of(15), total="right"), 1, None, frugal=True)
    walk.check()
    assert walk.portal.calls == 18
    assert end_of(walk).beyond == (16, 23, 37)
    without = walked(Portal(rows_of(15)), 1, None, frugal=True)
    without.check()
    assert without.portal.beyond <= overshoot_bound(15)


def test_an_edge_is_asked_for_twice_where_calls_are_free() -> None:
    """The last time when everything else is here."""
    walk = walked(Portal(rows_of(15)), 1, None)
    assert walk.portal.asked[16] == 2
    assert {times for page, times in walk.portal.asked.items() if page != 16} == {1}


def test_nothing_is_asked_for_further_than_the_farthest() -> None:
    """A list that does not end is called endless after some thirty probes, and memory stays small."""
    frontier = Frontier()
    calls = 0
    while not frontier.endless:
        page = frontier.next()
        assert page is not None
        assert page <= FARTHEST
        frontier.arrived(page, SIZE, b"%d" % (page % 20))
        calls += 1
        assert calls <= 40
    assert sys.getsizeof(frontier._states._near) < 100_000


def test_an_absurd_total_is_no_hint() -> None:
    """What points beyond the farthest page is left alone."""
    walk = walked(Portal(rows_of(40), total=10**15), 1, None)
    walk.check()
    assert max(walk.portal.asked) < 500


def test_a_total_of_many_more_rows_costs_few_calls() -> None:
    """The page it points at is empty, so the distance is halved from there."""
    walk = walked(Portal(rows_of(40), total=40_000_000), 1, None)
    walk.check()
    assert walk.portal.beyond <= 40


def test_pages_that_are_no_longer_wanted() -> None:
    """What was put back beyond an end that was found meanwhile is not asked for again."""
    frontier = begun(30)
    for page in range(2, 9):
        assert frontier.arrived(page, SIZE, b"%d" % page)
    frontier.put_back(25)
    assert frontier.wanted(25)
    frontier.restore_end(End(8, "empty"))
    assert not frontier.wanted(25)
    assert frontier.next() is None
    assert not frontier.arrived(9, SIZE, b"9")
    assert frontier.wanted(8)


def test_a_page_put_back_comes_before_any_other() -> None:
    """In page order."""
    frontier = begun(9)
    for page in (8, 9, 6, 7):
        assert frontier.arrived(page, SIZE, b"%d" % page)
    for page in (5, 3, 4, 2):
        frontier.put_back(page)
    assert [frontier.next() for _ in range(4)] == [2, 3, 4, 5]


def test_whether_it_is_exhausted_can_be_asked_at_any_time() -> None:
    """The page that would be next is not lost by the question."""
    frontier = Frontier()
    assert not frontier.exhausted
    assert frontier.next() == 1
    assert not frontier.exhausted, "something is in flight"
    frontier.arrived(1, SIZE, b"1")
    assert not frontier.exhausted
    assert frontier.next() == 2


def test_the_end_that_was_expected_is_the_first_probe() -> None:
    """After pages have changed the end is looked for where it was."""
    frontier = Frontier()
    frontier.restore(1, 50)
    frontier.restore_digests({page: b"%d" % page for page in (1, 50)})
    frontier.expect(50)
    assert frontier.next() == 51
    frontier = Frontier()
    frontier.restore(1, 49)
    frontier.restore_digests({page: b"%d" % page for page in (1, 49)})
    frontier.expect(50)
    assert [frontier.next(), frontier.next()] == [50, 51]


# -- continuing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", ["last", "first"])
def test_an_end_that_was_seen_before_a_crash_is_seen_after_it(repeated: PastEnd) -> None:
    """Pages that prove the end are durable, the end itself was not written: no further call is needed."""
    frontier = Frontier()
    durable = [*range(1, 13), 18, 32]  # 10 pages, what repeats them, and the far pages
    for page in durable:
        frontier.restore(page, page)
    beyond = b"10" if repeated == "last" else b"1"
    frontier.restore_digests({page: b"%d" % page if page <= 10 else beyond for page in durable})
    while (page := frontier.next()) is not None:
        frontier.arrived(page, SIZE, beyond)
    assert frontier.end is not None
    assert (frontier.end.last, frontier.end.how) == (10, "repeat")
    assert frontier.complete


def test_what_lies_past_the_end_is_known_after_a_crash() -> None:
    """Only the edge is looked at once more."""
    walk = walked(Portal(rows_of(20)), 1, None)
    beyond = walk.frontier.beyond
    later = Frontier()
    later.restore(1, 20)
    later.restore_digests({1: walk.kept[1], 20: walk.kept[20]})
    later.restore_beyond({**beyond, 7: "empty"})
    assert later.next() == 21
    assert later.next() is None
    assert not later.arrived(21, 0, b"")
    assert later.end == walk.frontier.end


def test_pages_past_a_known_end_do_not_count() -> None:
    """A run that was stopped may have kept repetitions; with one page missing, the next run is not complete."""
    frontier = Frontier()
    frontier.restore(1, 4)
    frontier.restore(6, 8)
    frontier.restore_digests({page: b"%d" % min(page, 6) for page in (1, 2, 3, 4, 6, 7, 8)})
    frontier.holes = [3, 8]
    frontier.restore_end(End(6, "repeat"))
    assert frontier.done == 5
    assert frontier.holes == [3]
    assert not frontier.complete
    assert frontier.missing() == [5]
    assert frontier.next() == 5
    assert frontier.arrived(5, SIZE, b"5")
    assert frontier.complete


def test_totals_are_remembered_lowest_highest_and_last() -> None:
    """They are evidence, whatever they are worth; also over runs."""
    frontier = begun(4)
    for page, total in ((2, 700), (3, 500), (4, 650)):
        frontier.arrived(page, SIZE, b"%d" % page, total=total)
    assert frontier.totals == (500, 700, 650)
    later = Frontier()
    later.restore_totals(frontier.totals, SIZE)
    later.saw_total(None)
    later.saw_total(710)
    assert later.totals == (500, 710, 710)


def test_what_may_be_sealed() -> None:
    """Only pages that surely lie within the list: something else is known to follow."""
    frontier = begun(12)
    for page in (2, 3, 4, 6, 7, 8):
        assert frontier.arrived(page, SIZE, b"%d" % page)
    assert frontier.certain == 7
    assert frontier.sealable >= 7
    assert frontier.sealable < 8, "it may be the first repetition"
    assert frontier.arrived(9, SIZE, b"8")
    assert frontier.sealable < 8
    assert not frontier.arrived(12, 0, b"")
    assert frontier.sealable >= 9, "past the end pages are empty, so page 9 is no repetition"
    frontier.restore_end(End(8, "empty"))
    assert frontier.sealable >= 8
    assert frontier.sealable < 9


def test_nothing_is_sealed_while_page_1_is_unknown() -> None:
    """The highest page may be the first repetition of it."""
    frontier = Frontier()
    frontier.restore(2, 9)
    frontier.restore_digests({2: b"2", 9: b"9"})
    assert frontier.certain > 1
    assert frontier.sealable < 4
    assert not frontier.first_done
    assert frontier.witness == 9


def test_pages_that_are_missing() -> None:
    """Those that were given up, and those below what is certain."""
    frontier = begun(9)
    for page in (2, 3, 6, 8, 9):
        frontier.arrived(page, SIZE, b"%d" % page)
    frontier.leave_open(7)
    assert frontier.missing() == [4, 5, 7]
    frontier.restore_end(End(6, "empty"))
    assert frontier.missing() == [4, 5]


def test_a_page_given_up_at_the_edge_leaves_the_end_unknown() -> None:
    """It may have rows; with the next run it is asked for again."""
    walk = Walk(Portal(rows_of(10)))
    while (page := walk.ask()) is not None:
        if page == 11:
            walk.leave_open(page)
        else:
            walk.answer(page)
    assert walk.frontier.end is None
    assert walk.frontier.missing() == [11]
    walk.commit()
    walk.crash(chances(0), gently=True)
    walk.finish()
    walk.check()


# -- lists that never settle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [1, 3])
def test_empty_and_repeated_pages_in_turns_do_not_go_on_for_ever(repeated: int) -> None:
    """Past the end every other page is empty, the others repeat page 1 or the last page."""

    def turns(portal: Portal, page: int, answer: Answer) -> Answer:
        return portal.page(page, repeated if page % 2 else 0) if page > portal.last else answer

    walk = Walk(Portal(rows_of(3), twists=[turns]), shard=1000)
    walk.finish(window=8)  # fails if it goes on and on
    assert walk.frontier.end is None or walk.frontier.end.last == 3 or walk.frontier.holes


def test_a_list_that_begins_anew_past_its_end_is_endless_unless_numbers_tell() -> None:
    """Pages 1 to 20 again and again: no two neighbours are equal."""
    walk = walked(Portal(rows_of(20), past_end="around", echo="right"))
    walk.check()
    lost = Walk(Portal(rows_of(20), past_end="around"))
    for _ in range(1000):
        if lost.frontier.endless:
            break
        assert lost.ask() is not None
        lost.answer(next(iter(lost.flying)))
    assert lost.frontier.endless
    assert lost.frontier.end is None


# -- anything at all --------------------------------------------------------------------------------------------------


@st.composite
def totals_of(draw: st.DrawFn, rows: int) -> tuple[int | None, list[Twist]]:
    """Draw a total: absent, right, wrong, huge, growing, moving."""
    kind = draw(st.sampled_from(["absent", "fixed", "growing", "moving", "sometimes"]))
    fixed = draw(st.sampled_from([rows, rows // 2, rows + 19, rows * 2 + 333, 0, 10**15]))

    def claimed(portal: Portal, page: int, answer: Answer) -> Answer:
        if not isinstance(answer, Page):
            return answer
        total = {"growing": rows + portal.calls, "moving": rows + page % 3 - 1}.get(kind, fixed if page % 2 else None)
        return Page(answer.lines, answer.rows, number=answer.number, total=total)

    claimed.__qualname__ = f"{kind}({fixed})"
    return (None, []) if kind == "absent" else (fixed, []) if kind == "fixed" else (None, [claimed])


@st.composite
def portals(draw: st.DrawFn) -> Portal:
    """Draw a list with equal runs in it, and a portal that shows it in its own way but never lies about a page."""
    count = draw(st.one_of(st.integers(0, 30), st.integers(30, 150)))
    rows = rows_of(count)
    past_end = draw(st.sampled_from(ENDS if count else ENDS[:1]))
    echo = draw(st.sampled_from(ECHOES))
    contents = [[b'{"ID":"run","V":0}\n'] * SIZE] + ([rows[:SIZE]] if count and past_end != "first" else [])
    for _ in range(draw(st.integers(0, 2))):
        start, length = draw(st.integers(2, 150)), draw(st.integers(2, 5))
        content = draw(st.sampled_from(contents))
        for page in range(start, min(start + length, count)):  # the last page stays itself: see the head of this module
            rows[(page - 1) * SIZE : page * SIZE] = content
    total, twists = draw(totals_of(len(rows)))
    once = draw(st.sets(st.integers(1, count), max_size=6)) if count else set()
    return Portal(rows, past_end=past_end, echo=echo, total=total, twists=[*twists, empty(*once, times=1)])


@settings(max_examples=250, deadline=None)
@given(portals(), st.integers(0, 2**32), st.integers(1, 70), st.sampled_from([0.0, 0.1, 0.4]))
def test_whatever_the_order_the_list_is_kept_whole(portal: Portal, seed: int, window: int, failing: float) -> None:
    """Answers in any order, calls that fail and are repeated, pages that are empty for a while."""
    walk = Walk(portal)
    walk.finish(chances(seed), window=window, failing=failing)
    walk.check()


@settings(max_examples=150, deadline=None)
@given(portals(), st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 4))
def test_a_run_goes_on_where_it_was_stopped(portal: Portal, seed: int, window: int, crashes: int) -> None:
    """Stopped at any moment with any part of the pages durable, the next run brings the rest."""
    random = chances(seed)
    walk = Walk(portal)
    for _ in range(crashes):
        for _ in range(random.randrange(1, 3 * portal.last + 30)):
            while len(walk.flying) < window and walk.ask() is not None:
                pass
            if not walk.flying:
                break
            walk.answer(random.choice(list(walk.flying)))
            if random.random() < 0.1:
                walk.commit()
        walk.crash(random)
    walk.finish(random, window=window)
    walk.check()


@settings(max_examples=150, deadline=None)
@given(portals(), st.integers(0, 2**32), st.integers(1, 70))
def test_pages_left_open_make_no_end_and_come_in_the_next_run(portal: Portal, seed: int, window: int) -> None:
    """A run that gave pages up claims nothing wrong; another one completes it."""
    # What repeats pages past its end, and is empty there for once, looks as if equal pages were data.
    assume(portal.past_end not in {"first", "last"} or not portal.twists)
    random = chances(seed)
    walk = Walk(portal)
    walk.finish(random, window=window, giving_up=0.1)
    end = walk.frontier.end
    if end is not None:
        assert end.last == portal.last
        missing = [page for page in range(1, end.last + 1) if page not in walk.kept]
        assert walk.frontier.complete == (not missing)
        assert walk.frontier.missing() == missing
    walk.crash(random, gently=True)
    walk.finish(random, window=window)
    walk.check()


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(3, 150), st.sampled_from(ENDS), st.integers(0, 2**32), st.integers(1, 70))
def test_pages_that_stay_empty_are_holes_and_nothing_else_is_lost(
    data: st.DataObject, pages: int, past_end: PastEnd, seed: int, window: int
) -> None:
    """Any pages but no more than two in a row, as long as three with rows follow; each costs two calls."""
    first = 2 if past_end == "first" else 1  # where page 1 is never seen, nothing can repeat it
    holes = data.draw(st.sets(st.integers(first, max(first, pages - 3)), max_size=5))
    holes -= {page for page in holes if {page - 1, page - 2} <= holes}
    walk = Walk(Portal(rows_of(pages), past_end=past_end, twists=[empty(*holes)], total="right"))
    walk.finish(chances(seed), window=window)
    walk.check()
    assert sorted(walk.frontier.holes) == sorted(holes)
    assert all(walk.portal.asked[page] == 2 for page in holes)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(["empty", "error"]),
    st.integers(-3, 3),
    st.integers(0, 2**32),
    st.integers(1, 70),
)
def test_a_list_that_moves_while_it_is_read_is_read_to_its_end(
    pages: int, past_end: PastEnd, pace: int, seed: int, window: int
) -> None:
    """It grows or shrinks at its tail all the time: the walk ends, asks for no page twice, and keeps what it saw."""

    def move(portal: Portal) -> None:
        if pace > 0 and len(portal.rows) < 4 * SIZE * (pages + 1):
            portal.rows.extend(rows_of(1, 5 * pace))
        elif pace < 0:
            del portal.rows[max(0, len(portal.rows) + 2 * pace) :]

    portal = Portal(rows_of(pages), past_end=past_end, before=move)
    walk = Walk(portal)
    for _ in range(20 * (4 * pages + 200)):
        while len(walk.flying) < window and walk.ask() is not None:
            pass
        if not walk.flying:
            break
        walk.answer(chances(seed + portal.calls).choice(list(walk.flying)))
    else:
        pytest.fail("no end")
    assert walk.frontier.in_flight == 0
    end = walk.frontier.end
    if end is not None:
        here = [page for page in walk.kept if page <= end.last]
        assert sorted([*here, *walk.frontier.missing()]) == list(range(1, end.last + 1))
        assert walk.frontier.complete == (walk.frontier.missing() == [])


class Machine(RuleBasedStateMachine):
    """One run, step by step, in an order that Hypothesis chooses and shortens."""

    @initialize(portal=portals())
    def begin(self, portal: Portal) -> None:
        """Start."""
        self.walk = Walk(portal)

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

    @rule()
    def commit(self) -> None:
        """Seal what is certain, and write the notes."""
        self.walk.commit()

    @rule(seed=st.integers(0, 2**32), gently=st.booleans())
    def crash(self, seed: int, gently: bool) -> None:  # noqa: FBT001 - drawn
        """Stop; what arrived last may not be durable."""
        self.walk.crash(chances(seed), gently=gently)

    @invariant()
    def nothing_wrong_is_claimed(self) -> None:
        """An end that is claimed is the true one."""
        walk = self.walk
        assert walk.frontier.in_flight == len(walk.flying)
        if walk.frontier.end is not None:
            assert walk.frontier.end.last == walk.portal.last

    def teardown(self) -> None:
        """Let the run come to its end."""
        if hasattr(self, "walk"):
            self.walk.commit()
            self.walk.crash(chances(0), gently=True)
            self.walk.finish(chances(0))
            self.walk.check()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_whole_shards_are_lent() -> None:
    """They lie behind the one being asked for, are asked for by nobody else, and hold the end back until returned."""
    frontier = Frontier()
    for first, last in ((1, 3), (25, 25), (38, 38), (40, 40)):
        frontier.restore(first, last)
    frontier.restore_digests({page: b"%d" % page for page in (1, 3, 25, 38, 40)})
    assert frontier.certain == 38
    assert frontier.lend(10) == (range(11, 21), [])
    assert frontier.lend(10) == (range(21, 31), [25])
    assert frontier.lend(10) is None, "page 40 may be a repetition of another"
    assert frontier.in_flight == 11 + 10
    asked = []
    while (page := frontier.next()) is not None:
        asked.append(page)
    assert {*range(4, 11), *range(31, 38)} <= set(asked)
    assert not set(asked) & {*range(11, 31)}
    assert not frontier.here(range(11, 21))
    before = frontier.in_flight
    for page in range(11, 21):
        assert frontier.arrived(page, 2, b"%d" % page)
    assert frontier.here(range(11, 21))
    assert frontier.in_flight == before - 10
    frontier.returned()
    assert frontier.in_flight == before - 11


def test_what_is_lent_and_comes_back_is_asked_for() -> None:
    """As any page that is put back; and an unpaged list has no shards."""
    frontier = Frontier()
    frontier.restore(1, 1)
    frontier.restore(30, 30)
    frontier.restore_end(End(30, "empty"))
    assert frontier.lend(10) == (range(11, 21), [])
    for page in range(11, 21):
        frontier.put_back(page)
    assert not frontier.exhausted
    frontier.returned()
    asked = set()
    while (found := frontier.next()) is not None:
        asked.add(found)
    assert asked == {*range(2, 30)}
    assert Frontier(paged=False).lend(1) is None

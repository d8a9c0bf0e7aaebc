"""What the pages show about the end: pages are told to an edge by hand, in whatever order.

Whole walks over all kinds of portals are in the tests of the frontier.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.edge import EMPTY, FAILURE, FARTHEST, MIXED, REPEAT, Edge, End, spacing
from harvester.page_states import ASKED, BEYOND, DONE, HOLE, OPEN, UNASKED, PageStates

FAILS: Final = FAILURE + "7001"


class Pages:
    """Pages and their edge; every state is set as the frontier sets it."""

    def __init__(self, *, frugal: bool = False) -> None:
        self.states = PageStates()
        self.edge = Edge(self.states, frugal=frugal)

    def rows(self, *pages: int, digest: bytes | None = None) -> list[int]:
        """Let pages come with rows, by themselves unlike any other; return what the last one took from the end."""
        taken: list[int] = []
        for page in pages:
            self.states[page] = DONE
            taken = self.edge.saw_rows(page, b"%d" % page if digest is None else digest)
        return taken

    def past(self, *pages: int, how: str = EMPTY) -> None:
        """Let pages come as pages past the end do."""
        for page in pages:
            self.states[page] = BEYOND
            self.edge.saw_beyond(page, how)

    def mark(self, page: int, state: int) -> None:
        """Set a state."""
        self.states[page] = state
        self.edge.changed()

    def probes(self) -> list[int]:
        """Take every probe that is worth a call now; they are under way afterwards."""
        taken = []
        while page := self.edge.probe():
            self.states[page] = ASKED
            taken.append(page)
        return taken


def listed(last: int, *, frugal: bool = False) -> Pages:
    """Return pages 1 to ``last``, all of them here and different."""
    pages = Pages(frugal=frugal)
    pages.rows(*range(1, last + 1))
    return pages


def confirmed(pages: Pages, how: str = EMPTY) -> list[int]:
    """Answer probes past the end in one way until there are none; return them."""
    asked = []
    while taken := pages.probes():
        asked += taken
        pages.past(*taken, how=how)
    return asked


def test_the_distance_of_a_confirmation_grows_with_the_list() -> None:
    """Never less than seven pages, an eighth of a long list."""
    assert [spacing(page) for page in (1, 56, 64, 8000)] == [7, 7, 8, 1000]


# -- what is certain --------------------------------------------------------------------------------------------------


def test_the_highest_page_is_certain_once_something_differs_from_it_or_a_page_is_empty() -> None:
    """Until then it may be the first repetition."""
    pages = listed(8)
    assert pages.edge.certain == 7
    pages.rows(9, 10, digest=b"8")
    assert pages.edge.certain == 7
    pages.past(40)
    assert pages.edge.certain == 10


@pytest.mark.parametrize(("how", "certain"), [(EMPTY, 5), (REPEAT, 5), (FAILS, 3)])
def test_what_rules_repetition_out(how: str, certain: int) -> None:
    """Pages 4 and 5 are equal; an empty page far beyond or one that states another number makes them data."""
    pages = listed(4)
    pages.rows(5, digest=b"4")
    pages.past(1_000, how=how)
    assert pages.edge.certain == certain


def test_what_rules_repetition_out_is_taken_back_with_the_page_that_did() -> None:
    """By rows further on, by doubt in stated numbers, and by another answer for the same page."""
    for way in ("rows", "doubt", "failure"):
        pages = listed(4)
        pages.rows(5, digest=b"4")
        pages.past(9, how=REPEAT)
        assert pages.edge.certain == 5
        if way == "rows":
            assert pages.rows(10, digest=b"4") == [9]
            pages.mark(9, UNASKED)
        elif way == "doubt":
            assert pages.edge.doubt(EMPTY) == []
            assert pages.edge.doubt(REPEAT) == [9]
            pages.mark(9, UNASKED)
        else:
            pages.mark(9, ASKED)
            pages.past(9, how=FAILS)
        assert pages.edge.certain == 3, way


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([EMPTY, REPEAT, FAILS, "rows", "doubt"])), max_size=30))
def test_what_is_remembered_is_what_a_look_at_all_pages_beyond_gives(answers: list[tuple[int, str]]) -> None:
    """After any answers, also several for one page."""
    pages = listed(2)
    for page, how in answers:
        if how == "rows":
            pages.rows(page)
        elif how == "doubt":
            pages.edge.doubt(REPEAT)
        elif page > pages.edge.highest:
            pages.past(page, how=how)
        assert pages.edge._equal_are_data == any(known in {EMPTY, REPEAT} for known in pages.edge.beyond.values())
        assert all(beyond > pages.edge.highest for beyond in pages.edge.beyond)


def test_digests_of_the_edges_are_enough_after_a_restart() -> None:
    """Pages that may equal the highest, or of which nothing is known, are not certain: the last that differs is."""
    pages = Pages()
    pages.states.fill(1, 9, DONE)
    pages.edge.reach(9)
    pages.edge.reach(4)
    pages.edge.restore_digests({1: b"1", 6: b"6", 7: b"9", 8: b"9", 9: b"9"})
    assert (pages.edge.highest, pages.edge.first, pages.edge.certain) == (9, b"1", 6)


# -- probes -----------------------------------------------------------------------------------------------------------


def test_nothing_is_probed_before_anything_is_known() -> None:
    """Page 1 comes first, and page 2 alone after it."""
    pages = Pages()
    assert pages.probes() == []
    pages.rows(1)
    assert pages.probes() == [2]


def test_probes_double_the_distance_and_then_halve_it() -> None:
    """Three at once while nothing is past the end, then one at a time if the distance is short."""
    pages = listed(2)
    assert pages.probes() == [4, 8, 16]
    pages.rows(4, 8)
    pages.past(16)
    assert pages.probes() == [12]
    pages.edge.changed()
    assert pages.probes() == [], "one is under way"
    pages.rows(12)
    assert pages.probes() == [14]


@pytest.mark.parametrize(("frugal", "probes"), [(False, [125, 150, 175]), (True, [150])])
def test_a_long_distance_is_divided_by_four_where_calls_are_free(
    frugal: bool,  # noqa: FBT001 - from the table
    probes: list[int],
) -> None:
    """By two where each is paid for."""
    pages = Pages(frugal=frugal)
    pages.rows(1, 99, 100)
    pages.past(200)
    assert pages.probes() == probes


def test_a_hint_is_probed_first_with_the_page_after_it() -> None:
    """Not if it was given up, or if a page before it is past the end."""
    pages = listed(2)
    pages.edge.hint = 100
    assert pages.probes() == [100, 101]
    pages = listed(2)
    pages.edge.hint = 100
    pages.mark(100, OPEN)
    assert pages.probes() == [4, 8, 16]
    pages = listed(2)
    pages.edge.hint = 100
    pages.past(50)
    assert pages.probes() == [4, 8, 16]


def test_where_the_hint_was_right_the_next_page_is_probed_first() -> None:
    """Then ever further from there, if it has rows after all."""
    pages = listed(20)
    pages.edge.hint = 20
    assert pages.probes() == [21, 22, 24, 28]


def test_no_probe_is_further_than_the_farthest() -> None:
    """Whatever the hint says."""
    pages = listed(2)
    pages.edge.hint = FARTHEST
    assert pages.probes() == [FARTHEST]


def test_what_is_worth_a_probe_is_remembered_until_something_changes() -> None:
    """Whoever sets a state says so."""
    pages = listed(2)
    assert pages.probes() == [4, 8, 16]
    pages.states[4] = OPEN
    pages.edge.hint = 6
    assert pages.edge.probe() == 0
    pages.edge.changed()
    assert pages.edge.probe() == 6


def test_a_page_past_the_end_is_wanted_if_it_confirms_or_may_still_have_rows() -> None:
    """Others may not, once the end is suspected."""
    pages = listed(20)
    assert pages.edge.wants(500), "nothing is past the end"
    pages.past(25)
    assert [page for page in range(18, 40) if pages.edge.wants(page)] == [21, 22, 23, 24, 25]
    pages.past(21)
    assert [page for page in range(18, 60) if pages.edge.wants(page)] == [21, 22, 23, 28, 42]


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [EMPTY, FAILS])
def test_spaced_pages_confirm_the_first_past_the_end(how: str) -> None:
    """Close ones too, where calls are free; without one of them nothing is supposed."""
    pages = listed(20)
    pages.past(21, how=how)
    assert pages.edge.supposed() is None
    asked = confirmed(pages, how)
    assert sorted(asked) == [22, 23, 25, 28, 42]
    assert pages.edge.supposed() == End(20, how, (21, 22, 23, 25, 28, 42))


def test_where_calls_are_paid_for_two_pages_confirm() -> None:
    """The spaced ones."""
    pages = listed(20, frugal=True)
    pages.past(21)
    assert confirmed(pages) == [28, 42]
    assert pages.edge.supposed() == End(20, EMPTY, (21, 28, 42))


def test_a_page_somewhat_further_on_takes_a_spaced_place_if_it_behaves_alike() -> None:
    """A probe that lies there already is not wasted."""
    pages = listed(20, frugal=True)
    pages.past(21, 30)
    assert confirmed(pages) == [42]
    assert pages.edge.supposed() == End(20, EMPTY, (21, 30, 42))
    other = listed(20, frugal=True)
    other.past(30, how=FAILS)
    other.past(21)
    assert confirmed(other) == [28, 42]


def test_pages_past_the_end_that_behave_differently() -> None:
    """An empty page and failures beyond it are an end; a failure before empty pages may hide rows."""
    pages = listed(20, frugal=True)
    pages.past(21)
    pages.past(28, 42, how=FAILS)
    assert pages.edge.supposed() == End(20, MIXED, (21, 28, 42))
    pages = listed(20, frugal=True)
    pages.past(21, how=FAILS)
    pages.past(28, 42)
    assert pages.edge.supposed() is None


@pytest.mark.parametrize(("digest", "last"), [(b"20", 20), (b"1", 20)])
def test_equal_pages_as_far_as_no_list_reaches_are_repetitions(digest: bytes, last: int) -> None:
    """Of the last page, which is part of the list, or of page 1."""
    pages = listed(20)
    pages.rows(21, digest=digest)
    suspect = 20 if digest == b"20" else 21
    places = (suspect + 1, suspect + 7, suspect + 21, suspect * 1024)
    for place in places:
        assert pages.edge.supposed() is None
        pages.rows(place, digest=digest)
    assert pages.edge.supposed() == End(last, REPEAT, places)


def test_one_differing_page_clears_a_suspicion() -> None:
    """However far beyond."""
    pages = listed(20)
    pages.rows(21, 27, 41, 20 * 1024, digest=b"20")
    assert pages.edge.supposed() == End(20, REPEAT, (21, 27, 41, 20 * 1024))
    pages.rows(5_000)
    assert pages.edge.supposed() is None
    assert pages.edge.certain == 5_000


def test_the_last_page_may_follow_a_hole() -> None:
    """What lies between it and the last that differs is known to be empty."""
    pages = listed(18)
    pages.mark(19, HOLE)
    pages.rows(20, 21, 27, 41, 20 * 1024, digest=b"20")
    assert pages.edge.supposed() == End(20, REPEAT, (21, 27, 41, 20 * 1024))
    pages.mark(19, UNASKED)
    assert pages.edge.supposed() is None


def test_a_failure_close_to_a_suspect_clears_it_and_one_far_out_does_not() -> None:
    """Where no list reaches, a platform that repeats pages may well refuse."""
    pages = listed(20)
    pages.rows(21, 27, 41, digest=b"20")
    pages.past(20 * 1024, how=FAILS)
    assert pages.edge.supposed() == End(20, REPEAT, (21, 27, 41, 20 * 1024))
    assert pages.edge.certain == 19
    pages = listed(20)
    pages.rows(21, digest=b"20")
    pages.past(27, how=FAILS)
    assert pages.edge.certain == 21


def test_a_long_list_that_repeats_its_last_page_is_not_asked_for_more_than_the_farthest() -> None:
    """The far page is the farthest there is."""
    last = 2**22
    pages = Pages()
    pages.rows(1, 2, last - 1)
    pages.rows(last, last + 1, last + last // 8, last + 3 * (last // 8), FARTHEST, digest=b"last")
    end = pages.edge.supposed()
    assert end is not None
    assert (end.last, end.beyond[-1]) == (last, FARTHEST)


def test_a_list_of_one_page_is_confirmed_by_few_calls() -> None:
    """Page 2 and four beyond it."""
    pages = listed(1)
    pages.past(2)
    assert confirmed(pages) == [3, 5, 9, 23]

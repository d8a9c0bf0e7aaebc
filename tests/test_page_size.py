"""A page size that changes while pages are read is noticed; what only looks like it is not."""

from __future__ import annotations

import pytest

from harvester.page_size import SAME_SHORT, PageSize


def begun(rows: int = 20, stated: int | None = None) -> PageSize:
    """Return the page size after page 1."""
    size = PageSize()
    size.first(rows, stated)
    return size


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ((20, None), (2, 21, None), "page 2 has 21 rows where page 1 had 20"),
        ((20, 50), (1_234, 51, 50), "page 1,234 has 51 rows where page 1 had 20"),
        ((20, 20), (3, 10, 50), "page 3 states a size of 50 where page 1 stated 20"),
        ((50, 50), (3, 10, 20), "page 3 states a size of 20 where page 1 stated 50"),
        # nothing of these is a change
        ((20, None), (2, 20, None), ""),
        ((20, None), (2, 7, None), ""),
        ((20, None), (2, 20, 50), ""),  # page 1 stated none
        ((20, 50), (2, 50, 50), ""),  # page 1 is short, and says how many there could be
        ((20, 20), (9, 7, 7), ""),  # states the rows of this page
        ((20, 20), (9, 20, None), ""),
        ((20, 20), (9, 20, 0), ""),
    ],
)
def test_one_page_may_show_it(first: tuple[int, int | None], then: tuple[int, int, int | None], words: str) -> None:
    """More rows than fit, or another stated size: golden words."""
    page, rows, stated = then
    assert begun(*first).changed(page, rows, stated, mid_list=False) == words


def test_a_page_as_large_as_was_asked_for_is_no_surprise() -> None:
    """Page 1 itself may be short; more than was asked for fits no page."""
    size = PageSize(50)
    size.first(20)
    assert size.changed(2, 50, None, mid_list=False) == ""
    assert size.changed(3, 51, None, mid_list=False) == "page 3 has 51 rows where page 1 had 20"
    assert PageSize().changed(2, 50, None, mid_list=False) == "", "page 1 is not known"


def test_before_page_1_is_here_nothing_can_be_said() -> None:
    """Answers come in any order."""
    size = PageSize()
    assert size.changed(7, 20, 20, mid_list=True) == ""
    assert size.short == 0


def test_ten_short_pages_in_a_row_with_the_same_number_of_rows_are_a_smaller_size() -> None:
    """Nine are not, and the tenth is named, if any page but the first was ever longer."""
    size = begun()
    assert [size.changed(page, 10, None, mid_list=True) for page in range(2, 30)] == [""] * 28
    size = begun()
    assert size.changed(40, 20, None, mid_list=True) == ""
    told = [size.changed(page, 10, None, mid_list=True) for page in range(2, 2 + SAME_SHORT)]
    assert told == [""] * 9 + ["10 pages in a row up to page 11 have 10 rows where page 1 had 20"]
    assert size.short == 10


@pytest.mark.parametrize("between", [20, 9, 11])
def test_a_page_in_between_begins_the_row_anew(between: int) -> None:
    """A full one, or a short one with another number of rows."""
    size = begun()
    assert size.changed(40, 20, None, mid_list=True) == ""
    for page in range(2, 11):
        assert size.changed(page, 10, None, mid_list=True) == ""
    assert size.changed(11, between, None, mid_list=True) == ""
    told = [size.changed(page, 10, None, mid_list=True) for page in range(12, 22)]
    assert [bool(words) for words in told] == [False] * 9 + [True]
    assert size.short == 19 + (between < 20)


def test_short_pages_at_the_edge_are_no_sign() -> None:
    """The last page is short in every list, and until the end is known any page may be the last."""
    size = begun()
    assert {size.changed(page, 10, None, mid_list=False) for page in range(2, 50)} == {""}
    assert size.short == 0


def test_what_page_1_said_is_kept() -> None:
    """For the notes and the certificate; before it came, nothing."""
    assert (PageSize().rows, PageSize().stated, PageSize().short) == (0, 0, 0)
    assert (begun(20).rows, begun(20).stated) == (20, 0)
    assert (begun(20, 50).rows, begun(20, 50).stated) == (20, 50)

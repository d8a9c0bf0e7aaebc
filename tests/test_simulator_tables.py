"""Tables read by position and by filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.tables import StoredTable

ROWS = (
    b'{"REGNO":"1","N":1.10,"BIG":18446744073709551616,"WHO":["a","b"],"OK":true}',
    b'{"REGNO":"2","N":1.1,"BIG":null,"WHO":"a","OK":false}',
    rb'{"regno":"\u0031","N":-0}',
    b"null",
)
TABLE = StoredTable(ROWS, ("REGNO", "N", "BIG", "WHO", "OK"))


def test_rows_are_the_bytes_that_were_put_in() -> None:
    """By position, in order, nothing changed."""
    assert len(TABLE) == 4
    assert tuple(map(TABLE.row_bytes, range(4))) == ROWS


@pytest.mark.parametrize("index", [-1, 4])
def test_there_is_no_row_outside(index: int) -> None:
    """Positions do not wrap around."""
    with pytest.raises(IndexError):
        TABLE.row_bytes(index)


def test_row_beyond_is_like_no_other() -> None:
    """It has the first column alone, or one of its own where there is none; a filtered table makes the same."""
    assert TABLE.row_beyond(9) == b'{"REGNO":"new-9"}'
    assert TABLE.where({"regno": "1"}).row_beyond(9) == b'{"REGNO":"new-9"}'
    assert StoredTable(ROWS, ()).row_beyond(0) == b'{"new":"new-0"}'
    assert TABLE.identifiers == TABLE.where({"regno": "1"}).identifiers == {"regno"}


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(0, 12), st.integers(1, 12))
def test_page_is_the_slice_of_the_rows(rows: list[bytes], first: int, count: int) -> None:
    """Any page of any table, past its end as well."""
    assert StoredTable(rows, ()).page_bytes(first, count) == b",".join(rows[first : first + count])


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"regno": "1"}, [0, 2]),
        ({"regno": "1", "n": "1.10"}, [0]),
        ({"n": "1.1"}, [1]),
        ({"n": "-0"}, [2]),
        ({"big": "18446744073709551616"}, [0]),
        ({"big": "None"}, []),
        ({"who": "a"}, [0, 1]),
        ({"who": "b"}, [0]),
        ({"ok": "true"}, [0]),
        ({"ok": "false"}, [1]),
        ({"regno": "3"}, []),
    ],
)
def test_filter_keeps_equal_rows_in_order(filters: dict[str, str], found: list[int]) -> None:
    """Letter case of names does not matter; numbers are compared as they are written."""
    table = TABLE.where(filters)
    assert [table.row_bytes(index) for index in range(len(table))] == [ROWS[index] for index in found]
    assert table.page_bytes(1, 5) == b",".join(ROWS[index] for index in found[1:])


def test_names_that_are_no_column_are_ignored() -> None:
    """As portals do: an unknown filter gives everything."""
    assert TABLE.where({"colour": "red"}) is TABLE
    assert len(TABLE.where({"colour": "red", "regno": "2"})) == 1

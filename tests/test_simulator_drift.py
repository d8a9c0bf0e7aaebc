"""Rows that change on schedule: exactly as said, the same for the same seed."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.drift import DriftingTable
from harvester.simulator.generated import DATASETS, GeneratedTable
from harvester.simulator.quirks import Change, ChangeKind, Where
from harvester.simulator.tables import SimulatedTable, StoredTable

KINDS = {name: kind for kinds in DATASETS.values() for name, kind in kinds.items()}


def letters(count: int) -> StoredTable:
    """Return a table of rows a, b, c ..., each with a value that may change."""
    return StoredTable((b'{"id":"%c","v":"x"}' % (97 + number) for number in range(count)), ("id", "v"))


def rows_of(table: SimulatedTable) -> list[bytes]:
    """Return all rows, read one by one and as pages."""
    rows = [table.row_bytes(index) for index in range(len(table))]
    for first in range(0, len(rows) + 3, 3):
        assert table.page_bytes(first, 3) == b",".join(rows[first : first + 3])
    return rows


def ids(table: SimulatedTable) -> str:
    """Return the letters of the rows, new ones as +."""
    return "".join(name if len(name) == 1 else "+" for name in (json.loads(row)["id"] for row in rows_of(table)))


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (Change(0, "insert", "head", 2), "++abcdefgh"),
        (Change(0, "insert", "middle", 2), "abcd++efgh"),
        (Change(0, "insert", "tail", 2), "abcdefgh++"),
        (Change(0, "insert", 3), "abc+defgh"),
        (Change(0, "insert", 30), "abcdefgh+"),
        (Change(0, "append", "head", 3), "abcdefgh+++"),
        (Change(0, "delete", "head", 2), "cdefgh"),
        (Change(0, "delete", "middle", 2), "abcfgh"),
        (Change(0, "delete", "tail", 2), "abcdef"),
        (Change(0, "delete", 7, 2), "abcdef"),
        (Change(0, "delete", "middle", 20), ""),
        (Change(0, "reorder", "middle", 4), "efghabcd"),
        (Change(0, "reorder", "head", 40), "efghabcd"),
    ],
)
def test_rows_come_go_and_move(change: Change, after: str) -> None:
    """Where they are said to; a count beyond what is there is all of it."""
    table = DriftingTable(letters(8), [change])
    table.advance(0)
    assert ids(table) == after


@pytest.mark.parametrize("name", KINDS)
def test_update_leaves_what_identifies_a_row(name: str) -> None:
    """One value of each row concerned differs, and no other row; new rows have identifiers of their own."""
    base = GeneratedTable(KINDS[name], 50, 0)
    table = DriftingTable(base, [Change(1, "update", "middle", 5), Change(1, "insert", "head", 3)])
    table.advance(1)
    after = [json.loads(row) for row in rows_of(table)]
    before = [json.loads(row) for row in rows_of(base)]
    keys = [tuple(value for column, value in row.items() if column.casefold() in base.identifiers) for row in after]
    assert len(set(keys)) == 53
    assert all(map(len, keys))
    changed = [index for index, (old, new) in enumerate(zip(before, after[3:], strict=True)) if old != new]
    assert changed == [22, 23, 24, 25, 26]
    for index in changed:
        assert sum(value != after[index + 3][column] for column, value in before[index].items()) == 1


def test_rows_without_a_text_can_be_updated_too() -> None:
    """A member is added to an object; anything else becomes a text."""
    table = DriftingTable(StoredTable([b'{"id":"a","n":1}', b" {} ", b"null"], ("id",)), [Change(0, "update", 0, 3)])
    table.advance(0)
    assert [row.decode().strip() for row in rows_of(table)] == [
        '{"id":"a","n":1,"changed":"·1"}',
        '{"changed":"·2"}',
        '"·3"',
    ]


def test_changes_come_when_they_are_due() -> None:
    """Whatever the order they are given in; filters see them as well, the table below does not."""
    base = letters(3)
    table = DriftingTable(base, [Change(5, "delete", "head"), Change(2, "append")])
    seen = []
    for calls in (0, 1, 2, 4, 5, 9):
        table.advance(calls)
        seen.append((ids(table), len(table.where({"id": "a"}))))
    assert seen == [("abc", 1), ("abc", 1), ("abc+", 1), ("abc+", 1), ("bc+", 0), ("bc+", 0)]
    assert table.where({"id": "new-3"}).row_bytes(0) == b'{"id":"new-3"}'
    assert ids(base) == "abc"
    with pytest.raises(IndexError):
        table.row_bytes(3)


def test_the_seed_alone_chooses() -> None:
    """Blocks change places with others of the same length, always the same ones for a seed."""
    orders = []
    for seed in (1, 1, 2, 3, 4):
        table = DriftingTable(letters(20), [Change(0, "reorder", 9, 2)], seed)
        table.advance(0)
        orders.append(ids(table))
    assert orders[0] == orders[1]
    assert len(set(orders)) > 2


@pytest.mark.parametrize(
    ("rows", "change", "orders"),
    [
        (6, Change(0, "reorder", 2, 2), {"cdabef", "abefcd"}),
        (7, Change(0, "reorder", "middle", 3), {"defabcg", "efgdabc"}),  # no second block fits beside the middle one
    ],
)
def test_any_other_block_may_be_chosen(rows: int, change: Change, orders: set[str]) -> None:
    """As long as the two do not overlap."""
    seen = set()
    for seed in range(30):
        table = DriftingTable(letters(rows), [change], seed)
        table.advance(0)
        seen.add(ids(table))
    assert seen == orders


CHANGES = st.builds(
    Change,
    st.integers(0, 3),
    st.sampled_from(get_args(ChangeKind)),
    st.sampled_from(get_args(Where)) | st.integers(0, 25),
    st.integers(1, 12),
)


@given(st.integers(0, 20), st.lists(CHANGES, max_size=8), st.integers())
def test_any_history_keeps_its_books(count: int, changes: list[Change], seed: int) -> None:
    """Each change alone: what it concerns is as many rows as said, in one place, and the others stay in order."""
    table = DriftingTable(letters(count), changes, seed)
    known = set[Any]()
    for change in sorted(changes, key=lambda change: change.after_calls):
        before = rows_of(table)
        known.update(before)
        table._make(table._due.pop())
        after = rows_of(table)
        few = min(change.count, len(before))
        if change.kind in {"insert", "append"}:
            new = [index for index, row in enumerate(after) if row not in known]
            assert new == list(range(new[0], new[0] + change.count))
            assert [row for row in after if row in known] == before
        elif change.kind == "delete":
            assert len(after) == len(before) - few
            assert any(before[:at] + before[at + few :] == after for at in range(len(before) - few + 1))
        elif change.kind == "update":
            assert sum(old != new for old, new in zip(before, after, strict=True)) == few
        else:
            assert sorted(after) == sorted(before)
            moved = sum(old != new for old, new in zip(before, after, strict=True))
            assert moved == 2 * min(few, len(before) // 2)

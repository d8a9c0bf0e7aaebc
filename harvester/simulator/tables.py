"""Tables as the platforms hold them: rows that are JSON texts, read by position or by filter."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

CACHED_FILTERS = 16


class SimulatedTable(ABC):
    """Rows in a fixed order, each a JSON text in UTF-8, always the same bytes.

    Args:
        columns: names that a filter may use; letter case does not matter to a filter.
        title: what the dataset is called, for people.
        identifiers: the columns that tell rows apart; an update leaves them alone.
    """

    def __init__(self, columns: Iterable[str], title: str = "", identifiers: Iterable[str] = ()) -> None:
        self.title = title
        self.columns = frozenset(column.casefold() for column in columns)
        self.identifiers = frozenset(column.casefold() for column in identifiers)
        self._filtered = lru_cache(CACHED_FILTERS)(self._filter)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def page_bytes(self, first: int, count: int) -> bytes:
        """Return up to ``count`` rows from position ``first`` (from 0), joined by commas; nothing past the end."""

    @abstractmethod
    def row_beyond(self, index: int) -> bytes:
        """Return what might stand at a position past the end: a made-up row that equals no other."""

    def row_bytes(self, index: int) -> bytes:
        """Return one row.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.page_bytes(index, 1)

    def where(self, filters: Mapping[str, str]) -> SimulatedTable:
        """Return the rows in which each named column equals the given text.

        Names that are no column are ignored, as portals do. The first use of a filter reads the whole table. A
        number equals the text it is written as (``1.10`` is not ``1.1``), a list what any of its elements equals,
        null nothing.
        """
        known = {name.casefold(): text for name, text in filters.items() if name.casefold() in self.columns}
        return self._filtered(tuple(sorted(known.items()))) if known else self

    def _filter(self, wanted: tuple[tuple[str, str], ...]) -> SimulatedTable:
        positions = array("Q", (index for index in range(len(self)) if _matches(self.row_bytes(index), wanted)))
        return _FilteredTable(self, positions)


class StoredTable(SimulatedTable):
    """A table whose rows lie in memory, one after the other, so that a page is one slice.

    Its first column is taken for the one that tells rows apart.

    Args:
        rows: the JSON texts; read once.
        columns: see ``SimulatedTable``.
        title: see ``SimulatedTable``.
    """

    def __init__(self, rows: Iterable[bytes], columns: Iterable[str], title: str = "") -> None:
        text = bytearray()
        starts = array("Q", [0])
        for row in rows:
            text += row
            text += b","
            starts.append(len(text))
        names = tuple(columns)  # after the loop: a reader of rows may learn the columns on the way
        self._first = names[0] if names else "new"
        super().__init__(names, title, (self._first,))
        self._text = memoryview(text)
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def page_bytes(self, first: int, count: int) -> bytes:
        """Return up to ``count`` rows from position ``first``, joined by commas."""
        last = min(first + count, len(self))
        return bytes(self._text[self._starts[first] : self._starts[last] - 1]) if first < last else b""

    def row_beyond(self, index: int) -> bytes:
        """Return a row of which only the first column is filled."""
        return orjson.dumps({self._first: f"new-{index}"})


class _FilteredTable(SimulatedTable):
    """Some rows of another table."""

    def __init__(self, table: SimulatedTable, positions: array[int]) -> None:
        super().__init__(table.columns, table.title, table.identifiers)
        self._table = table
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def page_bytes(self, first: int, count: int) -> bytes:
        """Return up to ``count`` rows from position ``first``, joined by commas."""
        return b",".join(map(self._table.row_bytes, self._positions[first : first + count]))

    def row_beyond(self, index: int) -> bytes:
        """Return a made-up row, which need not match the filter."""
        return self._table.row_beyond(index)


def _matches(row: bytes, wanted: tuple[tuple[str, str], ...]) -> bool:
    # Without escapes a value stands in the row as it is: most rows need not be parsed.
    if b"\\" not in row and not all(text.encode() in row for _, text in wanted):
        return False
    # Numbers stay the text they were sent as: 1.10, and integers of any length.
    value = json.loads(row, parse_int=str, parse_float=str, parse_constant=str)
    if not isinstance(value, dict):
        return False
    fields = {name.casefold(): field for name, field in value.items()}
    return all(_equals(fields.get(name), text) for name, text in wanted)


def _equals(value: Any, text: str) -> bool:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, list):
        return any(_equals(element, text) for element in value)
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    return isinstance(value, str) and value == text

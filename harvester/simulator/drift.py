"""A table that changes while it is read: rows come, go, move or get other values after a number of calls. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from random import Random
from typing import Final

from harvester.simulator.jsontext import texts
from harvester.simulator.quirks import Change
from harvester.simulator.tables import SimulatedTable

MARK: Final = "·".encode()


class DriftingTable(SimulatedTable):
    """Another table's rows and what became of them; eight bytes a row, and the new texts.

    Args:
        table: the rows before the first change; it is left as it is.
        changes: what is to happen, each in its turn; those for the same moment in the order given.
        seed: decides which blocks change places.
    """

    def __init__(self, table: SimulatedTable, changes: Iterable[Change], seed: int = 0) -> None:
        super().__init__(table.columns, table.title, table.identifiers)
        self._table = table
        self._due = sorted(changes, key=lambda change: change.after_calls)[::-1]  # the next one last
        self._order = array("q", range(len(table)))  # positions in the table; a new text is -1 - its place below
        self._new: list[bytes] = []
        self._inserted = self._updates = 0
        self._random = Random(f"{seed} drift")  # noqa: S311 - to be repeatable

    def __len__(self) -> int:
        return len(self._order)

    def page_bytes(self, first: int, count: int) -> bytes:
        """Return up to ``count`` rows from position ``first``, joined by commas."""
        order = self._order[first : first + count]
        if order and order[0] >= 0 and order == array("q", range(order[0], order[0] + len(order))):
            return self._table.page_bytes(order[0], len(order))
        return b",".join(map(self._text, order))

    def row_bytes(self, index: int) -> bytes:
        """Return one row; raises IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._text(self._order[index])

    def row_beyond(self, index: int) -> bytes:
        """Return a row with identifiers that no other row has."""
        return self._table.row_beyond(index)

    def advance(self, calls: int) -> None:
        """Make the changes that are due once so many calls have come."""
        while self._due and self._due[-1].after_calls <= calls:
            self._make(self._due.pop())
            self._filtered.cache_clear()

    def _text(self, place: int) -> bytes:
        return self._table.row_bytes(place) if place >= 0 else self._new[-1 - place]

    def _add(self, text: bytes) -> int:
        self._new.append(text)
        return -len(self._new)

    def _make(self, change: Change) -> None:
        order = self._order
        if change.kind in {"insert", "append"}:
            place = len(order) if change.kind == "append" else self._place(change, 0)
            first = len(self._table) + self._inserted
            self._inserted += change.count
            rows = (self._table.row_beyond(index) for index in range(first, first + change.count))
            order[place:place] = array("q", map(self._add, rows))
            return
        count = min(change.count, len(order))
        place = self._place(change, count)
        block = slice(place, place + count)
        if change.kind == "delete":
            del order[block]
        elif change.kind == "update":
            order[block] = array("q", [self._add(self._updated(self._text(row))) for row in order[block]])
        else:
            self._reorder(place, min(count, len(order) // 2))

    def _place(self, change: Change, count: int) -> int:
        """Return where a block of ``count`` rows begins that lies wholly in the table."""
        last = len(self._order) - count
        if isinstance(change.where, int):
            return min(change.where, last)
        return {"head": 0, "middle": last // 2, "tail": last}[change.where]

    def _reorder(self, place: int, count: int) -> None:
        """Let the block of ``count`` rows, at most half of all, change places with one that does not overlap it."""
        order = self._order
        before, behind = max(0, place - count + 1), max(0, len(order) - place - 2 * count + 1)
        if not before + behind:  # neither side has room for a second block: begin at the head
            place, behind = 0, len(order) - 2 * count + 1
        drawn = self._random.randrange(before + behind)
        other = drawn if drawn < before else place + count + drawn - before
        one, two = slice(place, place + count), slice(other, other + count)
        order[one], order[two] = order[two], order[one]

    def _updated(self, row: bytes) -> bytes:
        """Add a mark to the last text that identifies nothing, or a member where there is no such text."""
        self._updates += 1
        mark = MARK + b"%d" % self._updates
        found = [end for name, _, end in texts(row) if name.casefold() not in self.identifiers]
        if found:
            return row[: found[-1] - 1] + mark + row[found[-1] - 1 :]
        if row.lstrip().startswith(b"{"):
            comma = b"" if row.strip()[1:-1].strip() == b"" else b","
            return row.rstrip()[:-1] + comma + b'"changed":"%b"}' % mark
        return b'"%b"' % mark

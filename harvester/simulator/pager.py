"""One dataset with quirks: which rows a page gives, and what its answer says of itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final, NamedTuple

from harvester.simulator import bodies
from harvester.simulator.drift import DriftingTable
from harvester.simulator.gate import Answer
from harvester.simulator.quirks import Quirks
from harvester.simulator.stats import AppStats, Stats
from harvester.simulator.tables import SimulatedTable

UNDOCUMENTED: Final = "7001"
BLOCKED: Final = "html"
"""Under this word the stats count calls that were answered with a challenge page."""

WOBBLE: Final = 5  # by how much a moving total is off at most


class Served(NamedTuple):
    """What an answer is to say.

    ``number``, ``size`` and ``total`` (a JSON text) are None where it says nothing of them. ``data`` is the JSON text
    in place of the list, None where that is left out. ``nothing`` asks for the platform's code for nothing found.
    """

    number: int | None
    size: int | None
    total: bytes | None
    rows: int
    data: bytes | None
    nothing: bool = False


class Manner(NamedTuple):
    """What is a platform's own.

    ``default_size`` is its page's, ``total`` its way to state one, ``states`` whether its answers tell number and size
    of the page, ``has_nothing`` whether it has a code for nothing found. ``render`` writes an answer, ``failure`` one
    with a code.
    """

    default_size: int
    total: str
    states: bool
    has_nothing: bool
    render: Callable[[Served], bytes]
    failure: Callable[[str], bytes]


class Pager:
    """Gives the pages of one dataset.

    Args:
        name: ``platform/dataset``, under which calls are counted.
        table: the rows before they change.
        quirks: what is wrong.
        manner: what is the platform's own.
        stats: where pages are counted.
        seed: of all that chance decides.
    """

    def __init__(
        self, name: str, table: SimulatedTable, quirks: Quirks, manner: Manner, stats: Stats, seed: int = 0
    ) -> None:
        self.table = DriftingTable(table, quirks.changes, seed) if quirks.changes else table
        self.default_size = quirks.default_size or manner.default_size
        self._name = name
        self._quirks = quirks
        self._manner = manner
        self._stats = stats
        self._calls = 0
        self._asked: int | None = None
        # A platform that is silent about number and size must speak where they are what is wrong.
        self._states = (
            manner.states or quirks.echo != "served" or quirks.size != "honoured" or bool(quirks.size_changes)
        )
        self._short = dict(quirks.short_pages)
        self._errors = dict(quirks.errors)
        self._source = {one: other for pair in quirks.swap for one, other in (pair, pair[::-1])} | dict(quirks.repeat)
        self._empty_once = set(quirks.empty_once)
        self._random = Random(f"{seed} {name} total")  # noqa: S311 - to be repeatable

    def answer(
        self, filters: Mapping[str, str], number: int, size: int | None, counts: AppStats, tick: float
    ) -> Answer:
        """Answer a call for a page.

        Args:
            filters: see ``SimulatedTable.where``.
            number: the page, from 1.
            size: the page size asked for, from 1; None where the platform knows no such parameter.
            counts: the counts of the app that called.
            tick: when the call arrived.
        """
        self._calls += 1
        self._advance(self._calls - 1)
        found = self.table.where(filters)
        effective, stated = self._sizes(size, self._calls)
        self._asked = size
        last = -(-self._visible(found) // effective)
        self._stats.page(self._name, number, last)
        page, code = self._resolve(number, last)
        if self._quirks.body == "html":
            counts.refuse(BLOCKED, tick)
            text = b""  # whatever it were, the challenge page comes in its place
        elif code:
            counts.refuse(code, tick)
            text = self._manner.failure(code)
        else:
            counts.accept(tick)
            text = self._manner.render(self._served(found, number, page, effective, stated))
        body, content_type = bodies.sent_answer(self._quirks.body, text)
        return Answer(body, number, content_type=content_type)

    def rows(self, size: int | None = None) -> list[bytes]:
        """Return the rows that a walk over all pages would bring from now on, page after page, each as it is kept."""
        self._advance(self._calls)
        size, _ = self._sizes(size or self._asked, self._calls + 1)
        last = -(-self._visible(self.table) // size)
        kept = []
        for page in range(1, last + 1):
            if page not in self._errors and bodies.is_readable(self._quirks.body, page):
                kept += [
                    bodies.kept_row(self._quirks.body, self.table.row_bytes(index), index)
                    for index in self._positions(self.table, page, size, self._calls + 1)
                ]
        return kept

    def _advance(self, calls: int) -> None:
        if isinstance(self.table, DriftingTable):
            self.table.advance(calls)

    def _visible(self, found: SimulatedTable) -> int:
        return min(len(found), self._quirks.window) if self._quirks.window else len(found)

    def _sizes(self, asked: int | None, call: int) -> tuple[int, int | None]:
        """Return the rows of a page and what the answer says they are."""
        quirks = self._quirks
        effective = stated = asked or self.default_size
        changed = [(since, size) for since, size in quirks.size_changes if call >= since]
        if changed:
            effective = stated = max(changed)[1]
        elif asked and quirks.size == "ignored":
            effective = stated = self.default_size
        elif asked and quirks.size != "honoured":
            effective = min(asked, quirks.size_cap)
            stated = asked if quirks.size == "clamped-silent" else effective
        return effective, stated if quirks.size_echo and self._states else None

    def _resolve(self, number: int, last: int) -> tuple[int, str]:
        """Return the page that is served in place of the one asked for, and the code of a failure."""
        quirks = self._quirks
        if number > last and last and quirks.past_end in {"last", "first"}:
            number = last if quirks.past_end == "last" else 1
        if number in self._errors:
            return number, self._errors[number]
        if number > max(1, last) and quirks.past_end == "error":
            return number, quirks.past_end_code or UNDOCUMENTED
        return number, ""

    def _positions(self, found: SimulatedTable, page: int, size: int, call: int) -> range:
        """Return where the rows of a page stand in the table."""
        rows = range(self._visible(found))
        lost = any(call >= since and page == other for since, other in self._quirks.lose_after)
        if lost or (page - 1) * size >= len(rows):
            return range(0)
        first = (self._source.get(page, page) - 1) * size
        return rows[first : first + min(size, self._short.get(page, size))]

    def _served(self, found: SimulatedTable, asked: int, page: int, size: int, stated: int | None) -> Served:
        quirks = self._quirks
        positions = self._positions(found, page, size, self._calls)
        if page in self._empty_once:
            self._empty_once.remove(page)
            positions = range(0)
        data: bytes | None
        if positions or quirks.past_end in {"empty", "last", "first", "error", "code"}:
            rows = self._sent(found, positions)
            data = bodies.sent_list(quirks.body, rows, len(positions), page)
        else:
            data = b"null" if quirks.past_end == "null" else None
        nothing = self._manner.has_nothing and (not len(found) or (not positions and quirks.past_end == "code"))
        number = {"served": page, "asked": asked, "wrong": 1}.get(quirks.echo) if self._states else None
        return Served(number, stated, self._total(0 if nothing else len(found)), len(positions), data, nothing)

    def _sent(self, found: SimulatedTable, positions: range) -> bytes:
        if self._quirks.body not in bodies.BY_ROW:
            return found.page_bytes(positions.start, len(positions))
        return b",".join(bodies.sent_row(self._quirks.body, found.row_bytes(index), index) for index in positions)

    def _total(self, right: int) -> bytes | None:
        """Return the JSON text of the total, None for none; the present call counts for those that drift away."""
        kind, _, number = (self._quirks.total or self._manner.total).partition(":")
        if kind == "absent":
            return None
        if kind == "null":
            return b"null"
        if kind == "string":
            return b'"%d"' % right
        stated = {
            "right": right,
            "wrong": int(number or 0),
            "growing": right + self._calls - 1,
            "shrinking": right - self._calls + 1,
            "capped": min(right, int(number or 0)),
            "moving": right + self._random.randint(-WOBBLE, WOBBLE),
        }[kind]
        return b"%d" % max(0, stated)


def pagers(
    platform: str,
    tables: Mapping[str, SimulatedTable],
    quirks: Mapping[str, Quirks],
    manner: Manner,
    stats: Stats,
    seed: int,
) -> dict[str, Pager]:
    """Return a pager for each dataset that has quirks, of its own or, under the empty name, those of all."""
    plain = Quirks()
    chosen = {name: quirks.get(name, quirks.get("", plain)) for name in tables}
    return {
        name: Pager(f"{platform}/{name}", tables[name], quirk, manner, stats, seed)
        for name, quirk in chosen.items()
        if quirk != plain
    }


def current_rows(table: SimulatedTable, pager: Pager | None, size: int | None) -> list[bytes]:
    """Return ``Pager.rows``, or all rows of a table that has none."""
    if pager:
        return pager.rows(size)
    return [bodies.kept_row("plain", table.row_bytes(index), index) for index in range(len(table))]

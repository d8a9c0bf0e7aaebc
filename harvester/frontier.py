"""Which page to ask for next, and where the list ends. Pages count from 1, whatever the platform calls its first.

What is believed, and why:

* A total is a hint. It says how far to fan out; the list ends where its pages end.
* An empty page ends the list only if a spaced page beyond it is empty too. If rows turn up beyond an empty page, that
  page is asked for again; empty a second time it is kept as a *hole*, which no certificate overlooks.
* Pagers exist that answer with their last page, or with page 1, for ever. A page that repeats its predecessor or page
  1 is only a suspicion: the next page and two far ones must repeat it too. One differing page beyond clears it.
* Without a total the run goes ahead of the highest page with rows by as many pages as are already known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

UNASKED, ASKED, DONE, EMPTY, OPEN = range(5)
_SETTLED: Final = frozenset({DONE, OPEN})
AHEAD: Final = 4  # pages asked for beyond the first one before anything is known


class End(Struct, frozen=True):
    """Where the list ends: the last page with rows (0: there are none) and how that is known."""

    last: int
    how: str  # "empty", "repeat" or "unpaged"
    beyond: tuple[int, ...] = ()  # pages past the end that confirm it


def spacing(page: int) -> int:
    """Return the distance from a supposed end to the page that has to confirm it."""
    return max(7, page // 8)


class Frontier:
    """The pages of one dataset: asked for, done, empty, open; and the end, once it is known.

    One byte per page, and the digests of pages whose neighbours are still unknown.

    Args:
        paged: False for an interface that answers with everything at once.
    """

    def __init__(self, *, paged: bool = True) -> None:
        self.end: End | None = None
        self.holes: list[int] = []
        self.totals: tuple[int, int, int] | None = None  # lowest, highest, last one seen
        self.page_size = 0  # rows on page 1
        self.in_flight = 0
        self.done = 0
        self._paged = paged
        self._state = bytearray(1024)
        self._state[0] = DONE  # there is no page 0, and nothing waits for it
        self._low = 1  # every page below is done or open
        self._cursor = 1  # every page below was asked for at least once, or is done
        self._highest = 0  # the highest page with rows
        self._empty: set[int] = set()
        self._reread: set[int] = set()
        self._again: list[int] = []
        self._digests: dict[int, bytes] = {}
        self._first = b""
        self._suspect = 0  # the first page that repeats what came before; 0: none

    # -- what was known before this run -------------------------------------------------------------------------

    def restore(self, first: int, last: int) -> None:
        """Take over pages ``first`` to ``last`` from an earlier run."""
        self._grow(last)
        self._state[first : last + 1] = bytes([DONE]) * (last + 1 - first)
        self.done += last + 1 - first
        self._highest = max(self._highest, last)
        self._advance()

    def restore_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over digests, at least of the pages at the edges of what was restored."""
        self._remember(digests)

    def restore_end(self, end: End) -> None:
        """Take over an end that an earlier run has established."""
        self.end = end
        self._grow(end.last)

    # -- asking -------------------------------------------------------------------------------------------------

    def next(self) -> int | None:
        """Return a page to ask for now, or None if nothing can be asked before another answer is in."""
        page = self._choose()
        if page is not None:
            self._state[page] = ASKED
            self.in_flight += 1
        return page

    def _choose(self) -> int | None:
        while self._again:
            page = heappop(self._again)
            if self._at(page) == UNASKED:
                if self.wanted(page):
                    return page
                self._cursor = min(self._cursor, page)  # in sequence, should it be wanted once more
        for page in self._probes():
            if self._at(page) == UNASKED:
                return page
        limit = self._limit()
        while self._cursor <= limit:
            page = self._cursor
            if self._at(page) == UNASKED:
                return page
            self._cursor += 1
        return None

    def wanted(self, page: int) -> bool:
        """Tell whether a page is still worth a call: the end may have been found since it was chosen."""
        return page <= self._limit() or page in self._probes()

    def put_back(self, page: int) -> None:
        """Return a page unanswered; it is asked for again."""
        self.in_flight -= 1
        self._state[page] = UNASKED
        heappush(self._again, page)

    def leave_open(self, page: int) -> None:
        """Give a page up for this run."""
        self.in_flight -= 1
        self._state[page] = OPEN
        self._advance()
        self._conclude()

    @property
    def first_done(self) -> bool:
        """Whether page 1 has been answered with rows."""
        return self._at(1) == DONE

    @property
    def exhausted(self) -> bool:
        """Whether nothing is in flight and nothing is left to ask for."""
        if self.in_flight:
            return False
        page = self._choose()
        if page is not None:
            heappush(self._again, page)  # chosen, not taken
        return page is None

    @property
    def complete(self) -> bool:
        """Whether the end is known and every page up to it is done."""
        return self.end is not None and self.done == self.end.last

    def missing(self) -> list[int]:
        """Return the pages below the end (or below the highest known page) that are not done."""
        last = self.end.last if self.end else self._highest
        return [page for page in range(self._low_undone(), last + 1) if self._at(page) != DONE]

    def _low_undone(self) -> int:
        page = self._state.find(bytes([OPEN]), 1, self._low)
        return self._low if page < 0 else page

    # -- answers ------------------------------------------------------------------------------------------------

    def arrived(self, page: int, rows: int, digest: bytes, total: int | None = None) -> bool:
        """Take in an answer; return whether the page has to be kept.

        Args:
            page: the page asked for.
            rows: how many rows it has.
            digest: of its rows; equal digests are equal pages.
            total: the count of all rows that the answer claims, if any.
        """
        self.in_flight -= 1
        if total is not None:
            low, high, _ = self.totals or (total, total, total)
            self.totals = (min(low, total), max(high, total), total)
        if self.end is not None and page > self.end.last:
            self._state[page] = EMPTY
            return False
        if not self._paged:
            self._state[page] = DONE
            self.done = self._highest = min(rows, 1)
            self.end = End(self._highest, "unpaged")
            return rows > 0
        keep = self._with_rows(page, rows, digest) if rows else self._without_rows(page)
        self._advance()
        self._conclude()
        return keep and not (self.end is not None and page > self.end.last)

    def _with_rows(self, page: int, rows: int, digest: bytes) -> bool:
        if page == 1:
            self.page_size = rows
        self._mark_done(page)
        if page > self._highest:
            self._highest = page
            for hole in [empty for empty in self._empty if empty < page]:
                self._empty.discard(hole)
                self._reread.add(hole)
                self._state[hole] = UNASKED
                heappush(self._again, hole)
        self._remember({page: digest})
        return True

    def _without_rows(self, page: int) -> bool:
        if page in self._reread and page < self._highest:
            self.holes.append(page)
            self._mark_done(page)
            return True
        if page < self._highest:
            self._reread.add(page)
            self._state[page] = UNASKED
            heappush(self._again, page)
            return False
        self._state[page] = EMPTY
        self._empty.add(page)
        return False

    def _mark_done(self, page: int) -> None:
        self._state[page] = DONE
        self.done += 1

    # -- repetition ---------------------------------------------------------------------------------------------

    def _remember(self, digests: Mapping[int, bytes]) -> None:
        """Note digests of pages, look for repetition around them, forget what nobody will ask for again."""
        self._digests.update(digests)
        self._first = digests.get(1, self._first)
        for page, digest in digests.items():
            if self._suspect and page > self._suspect and digest != self._digests[self._suspect]:
                self._suspect = 0
            for repeated in (page, page + 1):
                if self._repeats(repeated) and not self._contradicted(repeated):
                    self._suspect = min(self._suspect or repeated, repeated)
        for page in digests:
            for known in (page - 1, page, page + 1):
                self._forget(known)

    def _forget(self, page: int) -> None:
        """Drop a digest once both neighbours have been compared with it, unless a suspicion rests on it."""
        suspected = self._suspect and page >= self._suspect - 1
        if not suspected and self._at(page - 1) in _SETTLED and self._at(page + 1) in _SETTLED:
            self._digests.pop(page, None)

    def _repeats(self, page: int) -> bool:
        digest = self._digests.get(page)
        return digest is not None and page > 1 and digest in {self._digests.get(page - 1), self._first}

    def _contradicted(self, page: int) -> bool:
        """Whether rows other than this page's are known further on."""
        digest = self._digests[page]
        beyond = self._digests.get(self._highest)
        return self._highest > page and beyond is not None and beyond != digest

    # -- the end ------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return the highest page that is asked for in sequence."""
        if self.end is not None:
            return self.end.last
        if not self._paged or self._highest == 0:
            return 1
        if self._empty:
            return min(self._empty)
        if self._suspect:
            return self._suspect + 1
        predicted = self._predicted()
        if predicted >= self._highest:
            return predicted + (1 if predicted == self._highest else 0)
        return self._highest + max(AHEAD, self._highest)

    def _predicted(self) -> int:
        """Return the last page if the total were right; 0 without a total."""
        return -(-self.totals[2] // self.page_size) if self.totals and self.page_size else 0

    def _probes(self) -> Iterator[int]:
        """Yield the spaced pages that have to confirm a supposed end."""
        if self.end is not None or not self._paged:
            return
        if self._empty:
            edge = min(self._empty)
            if max(self._empty) < edge + spacing(edge):
                yield edge + spacing(edge)
        elif self._suspect:
            yield from self._far()

    def _far(self) -> tuple[int, int]:
        return self._suspect + spacing(self._suspect), self._suspect + 3 * spacing(self._suspect)

    def _conclude(self) -> None:
        """Establish the end if everything that has to be known for it is."""
        if self.end is not None:
            return
        if self._empty:
            edge = min(self._empty)
            confirmed = max(self._empty) >= edge + spacing(edge)
            if confirmed and self._low >= edge and (edge == 1 or self._at(edge - 1) == DONE):
                self._settle(End(edge - 1, "empty", (edge, max(self._empty))))
        elif self._suspect:
            far = self._far()
            asked = (self._suspect + 1, *far)
            if self._low > self._suspect + 1 and all(self._at(page) == DONE for page in asked):
                repeated = self._digests[self._suspect]
                others = [page for page, digest in self._digests.items() if page > self._suspect and digest != repeated]
                if others:
                    self._suspect = 0
                else:
                    self._settle(End(self._suspect - 1, "repeat", (self._suspect, *asked)))

    def _settle(self, end: End) -> None:
        self.end = end
        self.done = self._state.count(DONE, 1, end.last + 1)
        self.holes = [page for page in self.holes if page <= end.last]
        self._digests.clear()

    def sealable(self, first: int, last: int) -> bool:
        """Whether pages ``first`` to ``last``, all done, are certain not to lie past the end."""
        if self.end is not None:
            return last <= self.end.last
        if self._suspect and last >= self._suspect - 1:
            return False
        return (first == 1 or self._at(first - 1) == DONE) and self._at(last + 1) in {DONE, EMPTY}

    # -- states -------------------------------------------------------------------------------------------------

    def _at(self, page: int) -> int:
        if page >= len(self._state):
            self._grow(page)
        return self._state[page]

    def _grow(self, page: int) -> None:
        if page >= len(self._state):
            self._state.extend(bytes(max(page + 1 - len(self._state), len(self._state))))

    def _advance(self) -> None:
        while self._at(self._low) in _SETTLED:
            self._low += 1

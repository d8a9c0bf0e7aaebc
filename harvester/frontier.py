"""Which page to ask for next, and where the list ends. Pages count from 1, whatever the platform calls its first.

What is believed, and why:

* A total is a hint. It says how far to fan out; the list ends where its pages end.
* No page is believed to be empty on one answer. An empty page ends the list only if a spaced page beyond it is empty
  too and it stays empty itself. If rows turn up beyond an empty page, that page is asked for again; empty a second
  time it is kept as a *hole*, which no certificate overlooks.
* Pagers exist that answer with their last page, or with page 1, for ever. A page that repeats its predecessor or page
  1 is only a suspicion: the next page and two far ones must repeat it too. One differing page beyond clears it. So
  all that has to be known of the pages' contents is which of the known pages is the last to differ from the highest.
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


def _far(page: int) -> tuple[int, int]:
    """Return the far pages that have to repeat a page under suspicion."""
    return page + spacing(page), page + 3 * spacing(page)


class Frontier:
    """The pages of one dataset: asked for, done, empty, open; and the end, once it is known.

    One byte per page, and the digests of two pages: the first and the highest.

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
        self._first = b""  # digest of page 1
        self._tail = b""  # digest of the highest page with rows
        self._unlike = 0  # the highest page known to differ from it: whatever is done beyond equals it

    # -- what was known before this run -------------------------------------------------------------------------

    def restore(self, first: int, last: int) -> None:
        """Take over pages ``first`` to ``last`` from an earlier run."""
        self._grow(last)
        self._state[first : last + 1] = bytes([DONE]) * (last + 1 - first)
        self.done += last + 1 - first
        self._highest = max(self._highest, last)
        self._advance()
        if not self._paged:
            self.end = End(last, "unpaged")

    def restore_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over digests, at least of the pages at the edges of what was restored, after all of that."""
        self._first, self._tail = digests.get(1, b""), digests.get(self._highest, b"")
        self._unlike = self._highest
        while self._unlike and (self._at(self._unlike) != DONE or digests.get(self._unlike) == self._tail):
            self._unlike -= 1
        self._conclude()

    def restore_end(self, end: End) -> None:
        """Take over an end that an earlier run has established, after the pages; some may lie past it."""
        self._grow(end.last)
        self._settle(end)

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
        """Return a page unanswered; it is asked for again if it is still wanted."""
        self.in_flight -= 1
        self._state[page] = UNASKED
        heappush(self._again, page)
        self._conclude()

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
    def witness(self) -> int:
        """A page that has been answered with rows, to see by whether anything is served; 0: there is none."""
        return self._highest

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
        """Return the pages that are not done below the end, or as far as anything was asked for."""
        last = self.end.last if self.end else max(self._highest, self._state.rfind(bytes([OPEN])))
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
            self.page_size, self._first = rows, digest
        self._mark_done(page)
        if page < self._highest:
            if digest != self._tail:
                self._unlike = max(self._unlike, page)
            return True
        if digest != self._tail:
            self._unlike, self._tail = self._highest, digest
        self._highest = page
        for empty in [empty for empty in self._empty if empty <= page]:
            self._empty.discard(empty)
            if self._at(empty) == EMPTY:
                self._ask_again(empty)
        return True

    def _without_rows(self, page: int) -> bool:
        if page > self._highest:
            self._state[page] = EMPTY
            self._empty.add(page)
            return False
        if page not in self._reread:
            self._ask_again(page)
            return False
        self.holes.append(page)
        self._unlike = max(self._unlike, page)
        self._mark_done(page)
        return True

    def _ask_again(self, page: int) -> None:
        """Have a page that was empty asked for once more."""
        self._reread.add(page)
        self._state[page] = UNASKED
        heappush(self._again, page)

    def _mark_done(self, page: int) -> None:
        self._state[page] = DONE
        self.done += 1

    # -- the end ------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return the highest page that is asked for in sequence."""
        if self.end is not None:
            return self.end.last
        if not self._paged or self._highest == 0:
            return 1
        if self._empty:
            return min(self._empty)
        if suspect := self._suspect():
            return suspect + 1
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
        elif suspect := self._suspect():
            yield from _far(suspect)

    def _suspect(self) -> int:
        """Return the first page that repeats its predecessor or page 1 as all known pages beyond it do; 0: none."""
        if self._tail == self._first:
            return max(0, self._state.find(bytes([DONE]), max(self._unlike, 1) + 1, self._highest + 1))
        return self._state.find(bytes([DONE, DONE]), self._unlike + 1, self._highest + 1) + 1

    def _conclude(self) -> None:
        """Establish the end if everything that has to be known for it is, and nothing beyond it is under way."""
        if self.end is not None:
            return
        if self._empty:
            edge = min(self._empty)
            confirmed = max(self._empty) >= edge + spacing(edge) and not self._under_way(edge)
            if confirmed and self._low >= edge and self._at(edge) == EMPTY and self._at(edge - 1) == DONE:
                if edge in self._reread:
                    self._settle(End(edge - 1, "empty", (edge, max(self._empty))))
                else:
                    self._ask_again(edge)
        elif suspect := self._suspect():
            asked = (suspect + 1, *_far(suspect))
            before = range(max(self._unlike, 1), suspect)  # a gap here might hold the first page past the end
            if (
                self.first_done
                and not self._under_way(suspect)
                and all(self._at(page) == DONE for page in (*before, *asked))
            ):
                self._settle(End(suspect - 1, "repeat", (suspect, *asked)))

    def _under_way(self, page: int) -> bool:
        """Whether an answer is still out that may bring rows from beyond a page."""
        return self._state.find(bytes([ASKED]), page + 1) >= 0

    def _settle(self, end: End) -> None:
        self.end = end
        self.done = self._state.count(DONE, 1, end.last + 1)
        self.holes = [page for page in self.holes if page <= end.last]

    def sealable(self, first: int, last: int) -> bool:
        """Whether pages ``first`` to ``last``, all done, are certain not to lie past the end."""
        if self.end is not None:
            return last <= self.end.last
        if not self.first_done or ((suspect := self._suspect()) and last >= suspect - 1):
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

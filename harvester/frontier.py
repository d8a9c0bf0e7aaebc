"""Which page to ask for next, until the list is whole. Pages count from 1, whatever the platform calls its first.

What the pages show about the end, and which of them would show more, is ``edge``'s. What is done about it, and why:

* Only pages that surely lie within the list are asked for in sequence. How far that is, probes find out while pages
  stream. A probe with rows is a page like any other and is not fetched twice.
* No page is believed to be past the end on one answer: the first one is asked for again when everything before it is
  here. If rows turn up beyond an empty page, that page is asked for again too; empty a second time it is kept as a
  *hole*, which no certificate overlooks.
* A failure is a refusal where rows follow, or where nothing was served yet. Else it may be how the list ends.
* Where pages 1 and 2 stated their own numbers, a page that states another one is a repetition, until one states 1 and
  is not page 1.
* The end is settled when every page before it is here, or given up, and none beyond it is under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Final

from harvester.edge import EMPTY, FAILURE, FARTHEST, MIXED, REPEAT, UNPAGED, Edge, End, spacing
from harvester.page_states import ASKED, BEYOND, DONE, HOLE, OPEN, UNASKED, PageStates

__all__ = ["EMPTY", "FAILURE", "FARTHEST", "MIXED", "REPEAT", "UNPAGED", "End", "Frontier", "spacing"]

MANY: Final = 100  # holes that a list may have, or one page in so many if that is more


class Frontier:
    """The pages of one dataset: asked for, done, past the end, open; and the end, once it is known.

    Memory is a byte per page, and the digests of two pages: the first and the highest.

    Args:
        paged: False for an interface that answers with everything at once.
        frugal: every call is paid for, so the first page past the end is not asked for a second time.
        streaming: False if only the end is looked for.
    """

    def __init__(self, *, paged: bool = True, frugal: bool = False, streaming: bool = True) -> None:
        self.end: End | None = None
        self.holes: list[int] = []
        self.totals: tuple[int, int, int] | None = None  # lowest, highest, last one seen
        self.page_size = 0  # rows on page 1
        self.in_flight = 0
        self.done = 0
        self.echoes: bool | None = None  # whether pages state their own number: decided by pages 1 and 2
        self.paged = paged
        self._frugal = frugal
        self._streaming = streaming
        self._states = PageStates()
        self._edge = Edge(self._states, frugal=frugal)
        self._low = 1  # every page below is done or open
        self._cursor = 1  # every page below was asked for at least once, or is done
        self._reread: set[int] = set()
        self._again: list[int] = []

    # -- what was known before this run -------------------------------------------------------------------------

    def restore(self, first: int, last: int) -> None:
        """Take over pages ``first`` to ``last`` from an earlier run."""
        self._states.fill(first, last, DONE)
        self.done += last + 1 - first
        self._edge.reach(last)
        self._advance()
        if not self.paged:
            self.end = End(last, UNPAGED)

    def restore_holes(self, holes: list[int]) -> None:
        """Say which of the restored pages have no rows although rows follow."""
        self.holes = [page for page in holes if self._states[page] == DONE]
        for page in self.holes:
            self._states[page] = HOLE

    def restore_totals(self, totals: tuple[int, int, int], page_size: int) -> None:
        """Take over the totals seen so far and the rows of page 1."""
        self.totals = totals
        self._take_hint(totals[2], page_size)

    def expect(self, last: int) -> None:
        """Say where the list is believed to end."""
        self._edge.hint = last
        self._edge.changed()

    def restore_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over digests, at least of the pages at the edges of what was restored, after all of that."""
        self._edge.restore_digests(digests)
        self._conclude()

    def restore_beyond(self, beyond: Mapping[int, str]) -> None:
        """Take over what is known of pages past the end, after the pages."""
        for page, how in beyond.items():
            if page > self._edge.highest:
                self._put_beyond(page, how)
        self._conclude()

    def restore_end(self, end: End) -> None:
        """Take over an end that an earlier run has established, after the pages; some may lie past it."""
        self._settle(end)

    # -- asking -------------------------------------------------------------------------------------------------

    def next(self) -> int | None:
        """Return a page to ask for now, or None if nothing can be asked before another answer is in."""
        page = self._choose()
        if page is not None:
            self._states[page] = ASKED
            self.in_flight += 1
            if page > self._limit():
                self._edge.changed()
        return page

    def _choose(self) -> int | None:
        if self.endless:
            return None
        while self._again:
            page = heappop(self._again)
            if self._states[page] == UNASKED:
                if self.wanted(page):
                    return page
                self._cursor = min(self._cursor, page)  # in sequence, should it be wanted once more
        if self.end is None and self.paged and (page := self._edge.probe()):
            return page
        limit = self._limit()
        while self._cursor <= limit:
            page = self._cursor
            if self._states[page] == UNASKED:
                return page
            self._cursor += 1
        return None

    def lend(self, length: int) -> tuple[range, list[int]] | None:
        """Take a whole shard of ``length`` pages that somebody else asks for; None if there is none to be had.

        It lies behind the one that is being asked for in sequence, each of its pages is certain to lie within the list,
        and all but a few were never asked for. They are under way then, and so is the shard itself until ``returned``.

        Returns:
            The pages of the shard, and those among them that are here.
        """
        if self.endless or not self.paged:
            return None
        limit = self._limit()
        first = ((self._cursor - 1) // length + 1) * length + 1
        while (last := first + length - 1) <= limit:
            here = self._states.take(first, last)
            if here is not None:
                self.in_flight += length - len(here) + 1
                return range(first, last + 1), here
            first += length
        return None

    def returned(self) -> None:
        """Note that a shard which was lent is here, or given back, as a whole."""
        self.in_flight -= 1
        self._conclude()

    def here(self, pages: range) -> bool:
        """Tell whether every one of these pages has come, with rows."""
        return self._states.count(DONE, pages[0], pages[-1]) == len(pages)

    def wanted(self, page: int) -> bool:
        """Tell whether a page is still worth a call: the end may have been found since it was chosen."""
        if page <= self._limit():
            return True
        if self.end is not None or not self.paged:
            return False
        return self._edge.wants(page)

    def put_back(self, page: int) -> None:
        """Return a page unanswered; it is asked for again if it is still wanted."""
        self.in_flight -= 1
        self._queue(page)
        self._conclude()

    def leave_open(self, page: int) -> None:
        """Give a page up for this run."""
        self.in_flight -= 1
        self._mark(page, OPEN)
        self._advance()
        self._conclude()

    @property
    def first_done(self) -> bool:
        """Whether page 1 has been answered with rows."""
        return self._states[1] == DONE

    @property
    def witness(self) -> int:
        """A page that the platform has answered well, to see by whether anything is served; 0: there is none."""
        return self._edge.highest or int(self.beyond.get(1) == EMPTY)

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

    def done_until(self, last: int) -> int:
        """Return how many of the pages up to ``last`` are here, those without rows included."""
        return self._states.count(DONE, 1, last) + self._states.count(HOLE, 1, last)

    @property
    def failing(self) -> int:
        """The page after the last one with rows, if it fails; else 0."""
        after = self._edge.highest + 1
        return after if self.beyond.get(after, "").startswith(FAILURE) else 0

    @property
    def endless(self) -> bool:
        """Whether there are rows as far as anything may be asked for, or so many holes that there is no telling."""
        return self._edge.highest * 2 > FARTHEST or (bool(self.holes) and self.too_many_holes)

    @property
    def too_many_holes(self) -> bool:
        """Whether more pages than can be believed stayed empty although rows follow."""
        return len(self.holes) > max(MANY, self.done // MANY)

    def missing(self) -> list[int]:
        """Return the pages that surely lie within the list and are not done, and those that were given up."""
        last = self.end.last if self.end else self.certain
        given_up = [page for page in self._states.all(OPEN) if self.end is None or page <= last]
        rest = (page for page in range(self._low, last + 1) if self._states[page] not in {DONE, HOLE, OPEN})
        return sorted([*given_up, *rest])

    # -- answers ------------------------------------------------------------------------------------------------

    def arrived(
        self, page: int, rows: int, digest: bytes, *, total: int | None = None, echo: int | None = None
    ) -> bool:
        """Take in an answer; return whether the page has to be kept.

        Args:
            page: the page asked for.
            rows: how many rows it has.
            digest: of its rows; equal digests are equal pages.
            total: the count of all rows that the answer claims, if any.
            echo: the page that the answer says it is, if any, counted from 1.
        """
        self.in_flight -= 1
        self.saw_total(total)
        if self.end is not None and page > self.end.last:
            self._states[page] = BEYOND
            return False
        if not self.paged:
            self._states[page] = DONE
            self.done = self._edge.highest = min(rows, 1)
            self.end = End(self.done, UNPAGED)
            return rows > 0
        if rows and self._states[page] == ASKED:
            self._judge_echoes(page, echo)
        if page == 1 and rows and total:
            self._take_hint(total, rows)
        if not rows:
            keep = self._without_rows(page, EMPTY)
        elif self._states_another(page, digest, echo):
            keep = self._without_rows(page, REPEAT)
        else:
            keep = self._with_rows(page, rows, digest)
        self._advance()
        self._conclude()
        return keep and not (self.end is not None and page > self.end.last)

    def saw_total(self, total: int | None) -> None:
        """Take note of a total that an answer claims."""
        if total is not None:
            low, high, _ = self.totals or (total, total, total)
            self.totals = (min(low, total), max(high, total), total)

    def failed(self, page: int, code: str) -> bool:
        """Take a failure for a sign of the end, if it can be one; return whether it is taken.

        It can if page 1 was answered and no page with rows is known to follow. Two more pages have to fail alike, else
        the end stays unknown.
        """
        if self.end is not None or not self.paged or page <= max(self._edge.highest, 1):
            return False
        if not self._edge.highest and self.beyond.get(1) != EMPTY:
            return False
        self.in_flight -= 1
        self._put_beyond(page, FAILURE + code)
        self._conclude()
        return True

    def _judge_echoes(self, page: int, echo: int | None) -> None:
        """Believe in stated numbers once pages 1 and 2, both with rows, have stated theirs rightly."""
        if page == 1 and self.echoes is None:
            self.echoes = None if echo == 1 else False
        elif page == 2 and self.echoes is None:  # noqa: PLR2004
            judged_without = self._edge.highest > 1  # a page beyond was, before numbers could be believed
            self.echoes = echo == page and self.first_done and not judged_without

    def _states_another(self, page: int, digest: bytes, echo: int | None) -> bool:
        """Tell whether a page says that it is another one. If it is not that one, no number is believed from now on."""
        if not self.echoes or echo in {None, page}:
            return False
        if echo == 1 and digest != self._edge.first:
            self.echoes = False
            for other in self._edge.doubt(REPEAT):
                self._ask_again(other)
        return bool(self.echoes)

    def _take_hint(self, total: int, rows: int) -> None:
        pages = -(-total // rows) if rows else 0
        self._edge.hint = pages if pages < FARTHEST else 0

    def _with_rows(self, page: int, rows: int, digest: bytes) -> bool:
        if page == 1:
            self.page_size = rows
        self._states[page] = DONE
        self.done += 1
        for other in self._edge.saw_rows(page, digest):
            if self._states[other] == BEYOND:
                self._ask_again(other)
        return True

    def _without_rows(self, page: int, how: str) -> bool:
        if page > self._edge.highest:
            self._put_beyond(page, how)
            return False
        if page not in self._reread:
            self._ask_again(page)
            return False
        self.holes.append(page)
        self._mark(page, HOLE)
        self.done += 1
        return True

    def _put_beyond(self, page: int, how: str) -> None:
        self._states[page] = BEYOND
        self._edge.saw_beyond(page, how)

    def _ask_again(self, page: int) -> None:
        """Have a page that was empty asked for once more."""
        self._reread.add(page)
        self._queue(page)

    def _queue(self, page: int) -> None:
        self._mark(page, UNASKED)
        heappush(self._again, page)

    def _mark(self, page: int, state: int) -> None:
        self._states[page] = state
        self._edge.changed()

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def beyond(self) -> dict[int, str]:
        """Pages past the highest with rows that were answered without, and how."""
        return self._edge.beyond

    @property
    def certain(self) -> int:
        """The highest page that surely lies within the list: no repetition of a page before it."""
        return self._edge.certain

    def _limit(self) -> int:
        """Return the highest page that is asked for in sequence."""
        if self.end is not None:
            return self.end.last
        return max(1, self._edge.certain) if self._streaming and self.paged else 1

    def supposed(self) -> End | None:
        """Return the end as it appears, pages before it may still be missing; None if the evidence is not enough."""
        return self._edge.supposed() if self.paged and self.end is None else self.end

    def _conclude(self) -> None:
        """Establish the end if everything before it is here and nothing beyond it is under way."""
        if self.end is not None or self._low <= self._edge.certain:
            return
        end = self.supposed()
        if end is None or self._low <= end.last or self._states.find(ASKED, end.last + 1, 2 * FARTHEST):
            return
        after = end.last + 1
        if end.last and self._states[end.last] != DONE:
            return
        asked_twice = after in self._reread and self._states[after] == BEYOND
        if asked_twice or self._frugal or after not in self.beyond:
            self._settle(end)
        elif after not in self._reread:
            self._ask_again(after)

    def _settle(self, end: End) -> None:
        self.end = end
        self.done = self.done_until(end.last)
        self.holes = [page for page in self.holes if page <= end.last]

    @property
    def sealable(self) -> int:
        """The highest page that is certain not to lie past the end, as long as page 1 is known to compare with."""
        if self.end is not None:
            return self.end.last
        return self.certain if self.first_done else 0

    def _advance(self) -> None:
        while self._states[self._low] in {DONE, HOLE, OPEN}:
            self._low += 1

"""Which pages are read a second time, and what that shows.

A round begins with a *check*: page 1, the last page, a random sample, and the page after the last. If every one of
them is what it was, nothing more is read. If one has changed, every other page is read again too: what has left one
page may have come to any other, and a sample that found a change vouches for nothing. What was mended so has to stand a
check of its own, with another sample.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from random import Random
from typing import Final

from harvester.page_states import ASKED, DONE, OPEN, UNASKED, PageStates

FULL: Final = 700
"""Pages that a proof reads again, or all if there are fewer: a change of 1 % of them escapes once in 1,100 times."""
ROUNDS: Final = 2
"""How often what has changed is mended; what moves after that is not proven."""


class SecondReading:
    """One round over a mirror whose pages are all here.

    Args:
        last: the number of its last page, at least 1.
        sample: how many pages to check, among them page 1 and the last.
        seed: other seeds give other samples.
        edge: whether the page after the last one is asked for too, which must still have no rows.
        most: how many pages may be mended; None: any number.

    Attributes:
        checked: pages of the check that were read again.
        changed: how many of these were not what they had been.
        mended: changed pages in all, those of the check included.
        unread: pages that could not be read, though others have changed, or though they would show more rows.
        emptied: pages that had rows and came back without.
        abandoned: whether mending would have taken more calls than there are.
        in_flight: pages under way.
    """

    def __init__(self, last: int, sample: int, seed: int, *, edge: bool = False, most: int | None = None) -> None:
        self.last = last
        self.checked = 0
        self.changed = 0
        self.mended = 0
        self.unread = 0
        self.emptied: set[int] = set()
        self.abandoned = False
        self.in_flight = 0
        outer = sorted({1, last})[:sample]
        inner = Random(seed).sample(range(2, last), max(0, min(sample, last) - len(outer)))  # noqa: S311 - no secret
        self._queue = deque([*outer, *sorted(inner), *([last + 1] if edge else [])])
        self._unchecked = len(self._queue)
        self._states = PageStates()
        self._again: list[int] = []
        self._most = most
        self._everything = False
        self._cut = False
        self._cursor = 1

    @property
    def witness(self) -> int:
        """A page that has been answered with rows."""
        return 1

    @property
    def exhausted(self) -> bool:
        """Whether nothing is in flight and nothing is left to ask for."""
        if self.in_flight:
            return False
        page = self._choose()
        if page is not None:
            heappush(self._again, page)  # chosen, not taken
        return page is None

    def cut_short(self) -> None:
        """Ask for nothing more: no calls are left."""
        self._cut = True

    def next(self) -> int | None:
        """Return a page to read again now, or None if nothing can be asked before another answer is in."""
        page = self._choose()
        if page is not None:
            self._states[page] = ASKED
            self.in_flight += 1
        return page

    def _choose(self) -> int | None:
        if self._cut:
            return None
        if self._again:
            return heappop(self._again)
        while self._queue:
            page = self._queue.popleft()
            if self._states[page] == UNASKED:
                return page
        while self._everything and self._cursor <= self.last:
            self._cursor += 1
            if self._states[self._cursor - 1] == UNASKED:
                return self._cursor - 1
        return None

    def wanted(self, _page: int) -> bool:
        """Tell whether a page is still worth a call: every page that was chosen is."""
        return True

    def put_back(self, page: int) -> None:
        """Return a page unanswered."""
        self.in_flight -= 1
        self._states[page] = UNASKED
        heappush(self._again, page)

    def leave_open(self, page: int) -> None:
        """Give a page up: it stays as it was read first, and unchecked."""
        self.unread += self._everything or page > self.last
        self._settle(page, OPEN)

    def arrived(self, page: int, *, same: bool, rows: int) -> None:
        """Take in what a page is now."""
        self.checked += page <= self.last and self._unchecked > 0
        if not same:
            self.changed += self._unchecked > 0
            self.mended += page <= self.last
            if not rows and page <= self.last:
                self.emptied.add(page)
        self._settle(page, DONE)

    def _settle(self, page: int, state: int) -> None:
        """Note that a page is read; when the whole check is, and has found a change, go on with everything."""
        self.in_flight -= 1
        self._states[page] = state
        if self._unchecked:
            self._unchecked -= 1
            if not self._unchecked and self.changed:
                rest = self.last - self._states.count(DONE, 1, self.last)
                self.abandoned = self._most is not None and rest > self._most
                self._everything = not self.abandoned

"""Which pages are read a second time, and what that shows.

A round begins with a *check*: page 1, the last page, a random sample, and the page after the last. If every one of
them is what it was, nothing more is read. If one has changed, every other page is read again too: what has left one
page may have come to any other, and a sample that found a change vouches for nothing. What was mended so has to stand a
check of its own, with another sample.

A check that a run did not come to the end of is gone on with by the next one, as long as nothing has changed: its
pages are then as they were when the last page of all was first read.
"""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random
from typing import Final
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from harvester.page_states import ASKED, DONE, OPEN, UNASKED, PageStates

FULL: Final = 700
"""Pages that a proof reads again, or all if there are fewer: a change of 1 % of them escapes once in 1,100 times."""
ROUNDS: Final = 2
"""How often what has changed is mended; what moves after that is not proven."""
SPARE: Final = 100
"""Of so many pages of a sample one may be replaced by another if it cannot be read; more would make it a choice."""


class Check(Struct, frozen=True, kw_only=True):
    """How far a check has come: its seed, the CRC-32 of its pages, and how many of them, from the first, are the same.

    The seed alone would not do: another version may draw other pages by it.
    """

    seed: int
    pages: int
    same: int = 0


class SecondReading:
    """One round over a mirror whose pages are all here.

    Args:
        last: the number of its last page, at least 1.
        sample: how many pages to check, among them page 1 and the last.
        seed: other seeds give other samples.
        edge: whether the page after the last one is asked for too, which must still have no rows.
        most: how many pages may be mended; None: any number.
        earlier: how far a run before this one has come with the same check.

    Attributes:
        checked: pages of the check that were read again.
        changed: how many of these were not what they had been.
        mended: changed pages in all, those of the check included.
        unread: pages that could not be read, though others have changed, or though they would show more rows.
        emptied: pages that had rows and came back without.
        abandoned: whether mending would have taken more calls than there are.
        in_flight: pages under way.
    """

    def __init__(
        self,
        last: int,
        sample: int,
        seed: int,
        *,
        edge: bool = False,
        most: int | None = None,
        earlier: Check | None = None,
    ) -> None:
        self.last = last
        self.changed = 0
        self.mended = 0
        self.unread = 0
        self.emptied: set[int] = set()
        self.abandoned = False
        self.in_flight = 0
        outer = sorted({1, last})[:sample]
        inner = max(0, min(sample, last) - len(outer))
        drawn = min(inner + sample // SPARE, max(0, last - 2))
        pages = Random(seed).sample(range(2, last), drawn)  # noqa: S311 - no secret
        self._spares = pages[inner:]
        self._queue = [*outer, *sorted(pages[:inner]), *([last + 1] if edge else [])]
        begun = Check(seed=seed, pages=crc32(repr(self._queue).encode()))
        self._before = -1  # how far the earlier run came, if there was one
        self._check = begun
        if earlier and replace(earlier, same=0) == begun:
            self._check, self._before = earlier, earlier.same
        self.checked = self._asked = self._check.same  # pages of the queue, from its beginning
        self._unchecked = len(self._queue) - self._asked
        self._states = PageStates()  # what an earlier run has read stands for nothing once something has changed
        self._again: list[int] = []
        self._given_up: list[int] = []
        self._missing: list[int] = []  # of them those that nothing stands for, and the page after the last
        self._most = most
        self._everything = False
        self._cut = False
        self._cursor = 1

    @property
    def witness(self) -> int:
        """A page that has been answered with rows."""
        return 1

    @property
    def check(self) -> Check | None:
        """What a later run needs to go on with the check; None if it has ended, or cannot be gone on with."""
        if self.changed or self._cut:
            return None
        same = self._check.same
        while same < len(self._queue) and self._states[self._queue[same]] == DONE:
            same += 1
        self._check = replace(self._check, same=same)
        return self._check if same < len(self._queue) else None

    @property
    def missing(self) -> list[int]:
        """Pages given up, for whose sake a later run should go on with the check.

        There are none if something has changed, and if the page that stopped an earlier run has stopped this one too:
        then the check has to do as it is.
        """
        stuck = self.check is None or self.check.same == self._before
        return [] if stuck else sorted(self._missing)

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
        if self._asked < len(self._queue):
            self._asked += 1
            return self._queue[self._asked - 1]
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
        """Give a page up: it stays as it was read first, and another one is checked in its place, if there is one.

        Nothing stands for page 1, for the last page and for the one after it.
        """
        self.unread += self._everything or page > self.last
        if self._unchecked and page <= self.last:
            self._given_up.append(page)
        if self._unchecked and 1 < page < self.last and self._spares:
            self._queue.append(self._spares.pop())
            self._unchecked += 1
        else:
            self._missing.append(page)
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
                for given_up in self._given_up:  # now it matters what they are
                    self._states[given_up] = UNASKED

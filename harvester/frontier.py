"""Which page to ask for next, and where the list ends. Pages count from 1, whatever the platform calls its first.

What is believed, and why:

* Only pages that surely lie within the list are asked for in sequence. How far that is, probes find out while pages
  stream: they double the distance until one lies past the end, then halve it. A probe with rows is a page like any
  other and is not fetched twice.
* A total is a hint: the page it points at and the next one are the first probes. The list ends where its pages end.
* Past the end a page is empty, repeats another one, or fails. No page is believed to be past the end on one answer: the
  first one is asked for again when everything before it is here, and two spaced ones beyond it must agree. If rows
  turn up beyond an empty page, that page is asked for again; empty a second time it is kept as a *hole*, which no
  certificate overlooks.
* A failure is the end only if three spaced pages give the same code.
* Pagers exist that answer with their last page, or with page 1, for ever. Where pages 1 and 2 stated their own numbers,
  a page that states another one is a repetition. Else equal pages are only a suspicion: the next page and two far
  ones must be equal too. One differing page beyond clears it. So all that has to be known of the pages' contents is
  which of the known pages is the last to differ from the highest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from harvester.page_states import ASKED, BEYOND, DONE, HOLE, OPEN, UNASKED, PageStates

GALLOP: Final = 3  # probes at once, each twice as far as the one before
NARROW: Final = 64  # from this distance between the last page with rows and the first without, one probe at a time
FAR_OUT: Final = 1024  # so many times as far as a supposed end, a platform that repeats pages still does
MANY: Final = 100  # holes that a list may have, or one page in so many if that is more
CLOSE: Final = 7  # pages between a supposed end and the first that has to confirm it, at the least
FARTHEST: Final = 2**31
"""No page further than this is asked for: no list is that long, and file formats end at twice as many."""

EMPTY: Final = "empty"
REPEAT: Final = "repeat"
MIXED: Final = "mixed"
UNPAGED: Final = "unpaged"
FAILURE: Final = "error "
"""What the word for a failing page begins with; the platform's code follows."""


class End(Struct, frozen=True):
    """Where the list ends: the last page with rows (0: there are none) and how that is known.

    ``how`` is ``empty``, ``repeat``, ``unpaged``, ``error CODE``, or ``mixed`` where pages past the end behave
    differently. ``beyond`` are the pages past the end that confirm it.
    """

    last: int
    how: str
    beyond: tuple[int, ...] = ()


def spacing(page: int) -> int:
    """Return the distance from a supposed end to the first page that has to confirm it."""
    return max(CLOSE, page // 8)


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
        self.beyond: dict[int, str] = {}  # pages past the highest with rows that were answered without, and how
        self.echoes: bool | None = None  # whether pages state their own number: decided by pages 1 and 2
        self.paged = paged
        self._frugal = frugal
        self._streaming = streaming
        self._states = PageStates()
        self._hint = 0  # the last page by the first total
        self._low = 1  # every page below is done or open
        self._cursor = 1  # every page below was asked for at least once, or is done
        self._highest = 0  # the highest page with rows
        self._reread: set[int] = set()
        self._again: list[int] = []
        self._first = b""  # digest of page 1
        self._tail = b""  # digest of the highest page with rows
        self._unlike = 0  # the highest page known to differ from it: whatever is done beyond equals it
        self._probes: tuple[int, ...] | None = None  # worked out again when something that matters to them changes
        self._equal_are_data = False  # when they were worked out: then they do not depend on which pages are equal

    # -- what was known before this run -------------------------------------------------------------------------

    def restore(self, first: int, last: int) -> None:
        """Take over pages ``first`` to ``last`` from an earlier run."""
        self._states.fill(first, last, DONE)
        self.done += last + 1 - first
        self._highest = max(self._highest, last)
        self._advance()
        if not self.paged:
            self.end = End(last, UNPAGED)

    def restore_holes(self, holes: list[int]) -> None:
        """Say which of the restored pages have no rows although rows follow."""
        self.holes = holes
        for page in holes:
            self._states[page] = HOLE

    def restore_totals(self, totals: tuple[int, int, int], page_size: int) -> None:
        """Take over the totals seen so far and the rows of page 1."""
        self.totals = totals
        self._take_hint(totals[2], page_size)

    def expect(self, last: int) -> None:
        """Say where the list is believed to end."""
        self._hint = last
        self._probes = None

    def restore_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over digests, at least of the pages at the edges of what was restored, after all of that."""
        self._first, self._tail = digests.get(1, b""), digests.get(self._highest, b"")
        self._unlike = self._highest
        while self._unlike and (self._states[self._unlike] != DONE or digests.get(self._unlike) == self._tail):
            self._unlike -= 1
        self._conclude()

    def restore_beyond(self, beyond: Mapping[int, str]) -> None:
        """Take over what is known of pages past the end, after the pages."""
        for page, how in beyond.items():
            if page > self._highest:
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
                self._probes = None
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
        if self._probes is None:
            self._probes = tuple(page for page in self._worth_probing() if page <= FARTHEST)
            self._equal_are_data = self._repetition_ruled_out()
        for page in self._probes:
            if self._states[page] == UNASKED:
                return page
        limit = self._limit()
        while self._cursor <= limit:
            page = self._cursor
            if self._states[page] == UNASKED:
                return page
            self._cursor += 1
        return None

    def wanted(self, page: int) -> bool:
        """Tell whether a page is still worth a call: the end may have been found since it was chosen."""
        if page <= self._limit():
            return True
        if self.end is not None or not self.paged:
            return False
        if not self.beyond:
            return True
        return self._highest < page <= min(self.beyond) or page in self._confirming()

    def put_back(self, page: int) -> None:
        """Return a page unanswered; it is asked for again if it is still wanted."""
        self.in_flight -= 1
        self._states[page] = UNASKED
        self._probes = None
        heappush(self._again, page)
        self._conclude()

    def leave_open(self, page: int) -> None:
        """Give a page up for this run."""
        self.in_flight -= 1
        self._states[page] = OPEN
        self._probes = None
        self._advance()
        self._conclude()

    @property
    def first_done(self) -> bool:
        """Whether page 1 has been answered with rows."""
        return self._states[1] == DONE

    @property
    def witness(self) -> int:
        """A page that the platform has answered well, to see by whether anything is served; 0: there is none."""
        return self._highest or int(self.beyond.get(1) == EMPTY)

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
        edge = self._highest + 1
        return edge if self.beyond.get(edge, "").startswith(FAILURE) else 0

    @property
    def endless(self) -> bool:
        """Whether there are rows as far as anything may be asked for, or so many holes that there is no telling."""
        return self._highest * 2 > FARTHEST or self.too_many_holes

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
            self.done = self._highest = min(rows, 1)
            self.end = End(self._highest, UNPAGED)
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
        if self.end is not None or not self.paged or page <= max(self._highest, 1):
            return False
        if not self._highest and self.beyond.get(1) != EMPTY:
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
            self.echoes = echo == page and self.first_done and self._highest <= 1  # nothing was judged without them

    def _states_another(self, page: int, digest: bytes, echo: int | None) -> bool:
        """Tell whether a page says that it is another one. If it is not that one, no number is believed from now on."""
        if not self.echoes or echo in {None, page}:
            return False
        if echo == 1 and digest != self._first:
            self.echoes = False
            for other in [other for other, how in self.beyond.items() if how == REPEAT]:
                del self.beyond[other]
                self._ask_again(other)
        return bool(self.echoes)

    def _take_hint(self, total: int, rows: int) -> None:
        pages = -(-total // rows) if rows else 0
        self._hint = pages if pages < FARTHEST else 0

    def _with_rows(self, page: int, rows: int, digest: bytes) -> bool:
        if page == 1:
            self.page_size, self._first = rows, digest
        self._states[page] = DONE
        self.done += 1
        if page < self._highest:
            if page > self._unlike:
                self._unlike = page if digest != self._tail else self._unlike
                if not self._equal_are_data or digest == self._tail:
                    self._probes = None
            return True
        self._probes = None
        if digest != self._tail:
            self._unlike, self._tail = self._highest, digest
        self._highest = page
        for other in [other for other in self.beyond if other <= page]:
            del self.beyond[other]
            if self._states[other] == BEYOND:
                self._ask_again(other)
        return True

    def _without_rows(self, page: int, how: str) -> bool:
        if page > self._highest:
            self._put_beyond(page, how)
            return False
        if page not in self._reread:
            self._ask_again(page)
            return False
        self.holes.append(page)
        self._states[page] = HOLE
        self._probes = None
        self.done += 1
        return True

    def _put_beyond(self, page: int, how: str) -> None:
        self._states[page] = BEYOND
        self.beyond[page] = how
        self._probes = None

    def _ask_again(self, page: int) -> None:
        """Have a page that was empty asked for once more."""
        self._reread.add(page)
        self._states[page] = UNASKED
        self._probes = None
        heappush(self._again, page)

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def certain(self) -> int:
        """The highest page that surely lies within the list: no repetition of a page before it."""
        return self._unlike if self._repeated() or not self.beyond else self._highest

    def _limit(self) -> int:
        """Return the highest page that is asked for in sequence."""
        if self.end is not None:
            return self.end.last
        return max(1, self.certain) if self._streaming and self.paged else 1

    def _worth_probing(self) -> Iterator[int]:
        """Yield the pages that would tell where the end is."""
        if self.end is not None or not self.paged or not (self._highest or self.beyond):
            return
        if self._highest == 1 and self._states[2] in {UNASKED, ASKED} and not self.beyond:
            yield 2  # alone: it tells whether stated numbers can be believed
            return
        first_beyond = min(self.beyond, default=FARTHEST + 1)
        if suspect := self._repeated():
            before = self._before(suspect)
            yield from self._between(before, suspect)
            if suspect == before + 1:
                yield from self._repeating(suspect)
        elif self._highest < self._hint < first_beyond and self._states[self._hint] != OPEN:
            yield from (self._hint, self._hint + 1)
        elif first_beyond <= max(2 * self._highest, 1):
            yield from self._between(self._highest, first_beyond)
            yield from self._confirming()
        else:
            yield from (page for page in self._gallop() if page < first_beyond)

    def _gallop(self) -> Iterator[int]:
        """Yield pages ever further from where the end was first believed to be."""
        if self._hint == self._highest:
            yield self._hint + 1
        base = self._hint if self._hint <= self._highest else 0
        step = max(1, self._highest - base)
        yield from (base + step * 2**times for times in range(1, GALLOP + 1))

    def _between(self, low: int, high: int) -> Iterator[int]:
        """Yield pages that divide the distance between two pages, unless such are under way."""
        width = high - low
        if width <= 1 or self._states.find(ASKED, low + 1, high - 1):
            return
        parts = 4 if width > NARROW and not self._frugal else 2
        for part in range(1, parts):
            middle = low + width * part // parts
            page = self._states.find(UNASKED, middle, high - 1) if middle < high else 0
            yield page or self._states.find(UNASKED, low + 1, middle)

    def _confirming(self) -> Iterator[int]:
        """Yield the pages that have to agree that the first one past the end is just that."""
        edge = self._highest + 1
        if edge in self.beyond:
            yield from (place for place in self._places(edge) if not self._answered(edge, place))

    def _places(self, edge: int) -> tuple[int, ...]:
        """Return the pages past an edge that confirm it.

        Two are spaced. Where calls are free, those before them see to it that no few empty pages hide the last ones.
        """
        gap = spacing(edge)
        close = [] if self._frugal else [2**times for times in range(gap.bit_length()) if 2**times < gap]
        if gap > CLOSE and close:
            close.insert(2, 3)
        elif edge <= 2 and close:  # noqa: PLR2004 - a list of one page is worth fewer calls
            close = [1, 3]
        return tuple(edge + place for place in (*close, gap, 3 * gap))

    def _answered(self, edge: int, place: int) -> int:
        """Return a page known to be past the end that serves as a place to confirm an edge; 0: there is none.

        A spaced place may be taken by a page somewhat further on that behaves as the edge does.
        """
        if place in self.beyond:
            return place
        gap = spacing(edge)
        reach = {edge + gap: 2 * gap, edge + 3 * gap: FARTHEST}.get(place, 0)
        alike = (page for page, how in self.beyond.items() if how == self.beyond[edge])
        return min((page for page in alike if place < page <= edge + reach), default=0)

    def _repeated(self) -> int:
        """Return the first page that repeats its predecessor or page 1 as all known pages beyond it do; 0: none.

        Where a page past the end is empty, or states the number of the last one, or one close to the suspect fails,
        equal pages are data.
        """
        if self._highest < 2 or self._repetition_ruled_out():  # noqa: PLR2004 - page 1 repeats nothing
            return 0
        suspect = self._states.find(DONE, max(self._unlike, 1) + 1, self._highest)
        if suspect == self._highest and self._tail != self._first:
            return 0
        return 0 if any(self._states[page] == BEYOND for page in self._repeating(suspect)[:-1]) else suspect

    def _repetition_ruled_out(self) -> bool:
        return not {EMPTY, REPEAT}.isdisjoint(self.beyond.values())

    def _before(self, suspect: int) -> int:
        """Return the last page below a suspect that is known not to repeat anything, or the last hole after it."""
        page = max(self._unlike, 1)
        while page < suspect and self._states[page + 1] == HOLE:
            page += 1
        return page

    def _repeating(self, suspect: int) -> tuple[int, ...]:
        """Return the pages that have to repeat a suspect: the next one, spaced ones, and one where no list reaches."""
        gap = spacing(suspect)
        return suspect + 1, suspect + gap, suspect + 3 * gap, min(suspect * FAR_OUT, FARTHEST)

    def supposed(self) -> End | None:
        """Return the end as it appears, pages before it may still be missing; None if the evidence is not enough."""
        if not self.paged or self.end is not None:
            return self.end
        suspect = self._repeated()
        if suspect and suspect == self._before(suspect) + 1:
            repeating = self._repeating(suspect)
            if all(self._states[page] in {DONE, BEYOND} for page in repeating):
                # The first of equal pages is the last one of the list, unless it equals page 1.
                last = max(self._unlike, 1) if self._tail == self._first else suspect
                return End(last, REPEAT, repeating)
        edge = self._highest + 1
        return self._supposed_at(edge) if not suspect and edge in self.beyond else None

    def _supposed_at(self, edge: int) -> End | None:
        confirming = tuple(self._answered(edge, place) for place in self._places(edge))
        if not all(confirming):
            return None
        pages = (edge, *confirming)
        ways = {self.beyond[page] for page in pages}
        if len(ways) == 1:
            return End(edge - 1, ways.pop(), pages)
        if self.beyond[edge].startswith(FAILURE):
            return None  # what fails alone may be in the middle of the list
        return End(edge - 1, MIXED, pages)

    def _conclude(self) -> None:
        """Establish the end if everything before it is here and nothing beyond it is under way."""
        if self.end is not None or self._low <= self.certain:
            return
        end = self.supposed()
        if end is None or self._low <= end.last or self._states.find(ASKED, end.last + 1, 2 * FARTHEST):
            return
        edge = end.last + 1
        if end.last and self._states[end.last] != DONE:
            return
        asked_twice = edge in self._reread and self._states[edge] == BEYOND
        if asked_twice or self._frugal or edge not in self.beyond:
            self._settle(end)
        elif edge not in self._reread:
            self._ask_again(edge)

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

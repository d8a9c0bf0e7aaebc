"""What the pages show about where a list ends, and which pages would show more. Pages count from 1.

What is believed, and why:

* A total is a hint: the page it points at and the next one are the first probes. The list ends where its pages end.
* Without a hint probes double the distance until one lies past the end; then they halve what is left between the last
  page with rows and the first without.
* Past the end a page is empty, repeats another one, or fails. That is not believed of one page alone: two spaced ones
  beyond it must agree, and where calls are free some close ones, so that no few empty pages hide the last ones.
* A failure is the end only if three spaced pages give the same code.
* Pagers exist that answer with their last page, or with page 1, for ever. Where pages state their own numbers that is
  seen at once (the frontier sees to it). Else equal pages are only a suspicion: the next page and two far ones must be
  equal too, and one where no list reaches. One differing page beyond clears it, and so does a page past the end that is
  empty. So all that has to be known of the pages' contents is which of the known pages is the last to differ from the
  highest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from harvester.page_states import ASKED, BEYOND, DONE, HOLE, OPEN, UNASKED, PageStates

GALLOP: Final = 3  # probes at once, each twice as far as the one before
NARROW: Final = 64  # from this distance between the last page with rows and the first without, one probe at a time
FAR_OUT: Final = 1024  # so many times as far as a supposed end, a platform that repeats pages still does
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


class Edge:
    """The surroundings of the end: the highest page with rows, and the pages beyond it that were answered without.

    It decides nothing: the frontier says what was answered, asks for the probes it likes, and settles the end.

    Args:
        states: of all pages; only read here. Whoever changes one says so afterwards, see ``changed``.
        frugal: every call is paid for, so fewer pages have to confirm an end.

    Attributes:
        highest: the highest page with rows; 0: there is none.
        beyond: pages past the highest that were answered without rows, and how.
        first: digest of page 1.
        hint: the page on which the list is believed to end; 0: unknown.
    """

    def __init__(self, states: PageStates, *, frugal: bool = False) -> None:
        self.highest = 0
        self.beyond: dict[int, str] = {}
        self.first = b""
        self.hint = 0
        self._states = states
        self._frugal = frugal
        self._tail = b""  # digest of the highest page with rows
        self._unlike = 0  # the highest page known to differ from it: whatever is done beyond equals it
        self._equal_are_data = False  # a page beyond is empty, or states another number: no page is a repetition
        self._probes: tuple[int, ...] | None = None  # worked out again when something that matters to them changes

    # -- what was answered --------------------------------------------------------------------------------------

    def reach(self, page: int) -> None:
        """Take over a page with rows, whose digest is not known yet."""
        self.highest = max(self.highest, page)

    def restore_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over digests, at least of the pages at the edges of what was taken over, after all of that."""
        self.first, self._tail = digests.get(1, b""), digests.get(self.highest, b"")
        self._unlike = self.highest
        while self._unlike and (self._states[self._unlike] != DONE or digests.get(self._unlike) == self._tail):
            self._unlike -= 1

    def saw_rows(self, page: int, digest: bytes) -> list[int]:
        """Take in a page with rows; return the pages that are not past the end any more, now that it is known."""
        if page == 1:
            self.first = digest
        if page < self.highest:
            if page > self._unlike:
                if digest != self._tail:
                    self._unlike = page
                if not self._equal_are_data or digest == self._tail:
                    self.changed()
            return []
        if digest != self._tail:
            self._unlike, self._tail = self.highest, digest
        self.highest = page
        return self._withdraw([other for other in self.beyond if other <= page])

    def saw_beyond(self, page: int, how: str) -> None:
        """Take in a page past the highest that has no rows, or fails, or states another number."""
        self.beyond[page] = how
        self._beyond_changed()

    def doubt(self, how: str) -> list[int]:
        """Forget every page past the end that was answered in one way; return them."""
        return self._withdraw([page for page, known in self.beyond.items() if known == how])

    def _withdraw(self, pages: list[int]) -> list[int]:
        for page in pages:
            del self.beyond[page]
        self._beyond_changed()
        return pages

    def _beyond_changed(self) -> None:
        self._equal_are_data = not {EMPTY, REPEAT}.isdisjoint(self.beyond.values())
        self.changed()

    def changed(self) -> None:
        """Say that the state of a page has changed, so that other pages may be worth a probe."""
        self._probes = None

    # -- what would tell more -----------------------------------------------------------------------------------

    def probe(self) -> int:
        """Return a page that was never asked for and would tell where the end is; 0: there is none now."""
        if self._probes is None:
            self._probes = tuple(page for page in self._worth_probing() if page <= FARTHEST)
        for page in self._probes:
            if self._states[page] == UNASKED:
                return page
        return 0

    def wants(self, page: int) -> bool:
        """Tell whether a page that may lie past the end is still worth a call."""
        if not self.beyond:
            return True
        return self.highest < page <= min(self.beyond) or page in self._confirming()

    def _worth_probing(self) -> Iterator[int]:
        """Yield the pages that would tell where the end is."""
        if not (self.highest or self.beyond):
            return
        if self.highest == 1 and self._states[2] in {UNASKED, ASKED} and not self.beyond:
            yield 2  # alone: it tells whether stated numbers can be believed
            return
        first_beyond = min(self.beyond, default=FARTHEST + 1)
        if suspect := self._repeated():
            before = self._before(suspect)
            yield from self._between(before, suspect)
            if suspect == before + 1:
                yield from self._repeating(suspect)
        elif self.highest < self.hint < first_beyond and self._states[self.hint] != OPEN:
            yield from (self.hint, self.hint + 1)
        elif first_beyond <= max(2 * self.highest, 1):
            yield from self._between(self.highest, first_beyond)
            yield from self._confirming()
        else:
            yield from (page for page in self._gallop() if page < first_beyond)

    def _gallop(self) -> Iterator[int]:
        """Yield pages ever further from where the end was first believed to be."""
        if self.hint == self.highest:
            yield self.hint + 1
        base = self.hint if self.hint <= self.highest else 0
        step = max(1, self.highest - base)
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
        after = self.highest + 1
        if after in self.beyond:
            yield from (place for place in self._places(after) if not self._answered(after, place))

    # -- pages that have no rows --------------------------------------------------------------------------------

    def _places(self, after: int) -> tuple[int, ...]:
        """Return the pages that confirm the first one past the end.

        Two are spaced. Where calls are free, those before them see to it that no few empty pages hide the last ones.
        """
        gap = spacing(after)
        close = [] if self._frugal else [2**times for times in range(gap.bit_length()) if 2**times < gap]
        if gap > CLOSE and close:
            close.insert(2, 3)
        elif after <= 2 and close:  # noqa: PLR2004 - a list of one page is worth fewer calls
            close = [1, 3]
        return tuple(after + place for place in (*close, gap, 3 * gap))

    def _answered(self, after: int, place: int) -> int:
        """Return a page known to be past the end that serves as a place to confirm the first one; 0: there is none.

        A spaced place may be taken by a page somewhat further on that behaves as the first one does.
        """
        if place in self.beyond:
            return place
        gap = spacing(after)
        reach = {after + gap: 2 * gap, after + 3 * gap: FARTHEST}.get(place, 0)
        alike = (page for page, how in self.beyond.items() if how == self.beyond[after])
        return min((page for page in alike if place < page <= after + reach), default=0)

    # -- pages that repeat others -------------------------------------------------------------------------------

    def _repeated(self) -> int:
        """Return the first page that repeats its predecessor or page 1 as all known pages beyond it do; 0: none.

        Where a page past the end is empty, or states the number of the last one, or one close to the suspect fails,
        equal pages are data.
        """
        if self._equal_are_data or self.highest < 2:  # noqa: PLR2004 - page 1 repeats nothing
            return 0
        suspect = self._states.find(DONE, max(self._unlike, 1) + 1, self.highest)
        if suspect == self.highest and self._tail != self.first:
            return 0
        return 0 if any(self._states[page] == BEYOND for page in self._repeating(suspect)[:-1]) else suspect

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

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def certain(self) -> int:
        """The highest page that surely lies within the list: no repetition of a page before it."""
        if not self.beyond:
            return self._unlike
        return self._unlike if self._repeated() else self.highest

    def supposed(self) -> End | None:
        """Return the end as it appears, pages before it may still be missing; None if the evidence is not enough."""
        suspect = self._repeated()
        if suspect and suspect == self._before(suspect) + 1:
            repeating = self._repeating(suspect)
            if all(self._states[page] in {DONE, BEYOND} for page in repeating):
                # The first of equal pages is the last one of the list, unless it equals page 1.
                last = max(self._unlike, 1) if self._tail == self.first else suspect
                return End(last, REPEAT, repeating)
        after = self.highest + 1
        return self._supposed_before(after) if not suspect and after in self.beyond else None

    def _supposed_before(self, after: int) -> End | None:
        confirming = tuple(self._answered(after, place) for place in self._places(after))
        if not all(confirming):
            return None
        pages = (after, *confirming)
        ways = {self.beyond[page] for page in pages}
        if len(ways) == 1:
            return End(after - 1, ways.pop(), pages)
        if self.beyond[after].startswith(FAILURE):
            return None  # what fails alone may be in the middle of the list
        return End(after - 1, MIXED, pages)

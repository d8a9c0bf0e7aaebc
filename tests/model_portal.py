"""A model of a portal whose true list is known, and of a run that reads it with a frontier alone; nothing waits.

The portal behaves past its end, states numbers and claims totals as it is told, and ``twists`` change single answers.
A digest is only ever compared, so here a page's bytes are their own digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import log2
from random import Random
from typing import Any, Final, Literal

from msgspec.structs import replace

from harvester.frontier import End, Frontier
from harvester.model import Page

PastEnd = Literal["empty", "last", "first", "error", "errors", "empty then last", "empty then error", "around"]
Echo = Literal["none", "right", "asked", "wrong"]
Answer = Page | str  # a string is the code of a failure
Twist = Callable[["Portal", int, Answer], Answer]

SIZE: Final = 20  # rows on a full page
FAILS: Final = "7001"


def chances(seed: int) -> Random:
    """Return the chances of a run, the same for the same seed."""
    return Random(seed)  # noqa: S311 - shuffles answers


def row(key: int, version: int = 0) -> bytes:
    """Return a row as it stands in a page."""
    return b'{"ID":"%d","V":%d}\n' % (key, version)


def rows_of(pages: int, last: int = 7, size: int = SIZE) -> list[bytes]:
    """Return the rows of a list of so many pages, the last of which has ``last`` rows."""
    return [row(key) for key in range((pages - 1) * size + last if pages else 0)]


def overshoot_bound(pages: int) -> float:
    """Return how many calls beyond the last page a clean run may cost."""
    return (2 * log2(pages) if pages else 0) + 8


class Portal:
    """Answers for pages of a list that may change between calls.

    Args:
        rows: the list.
        size: rows on a full page.
        past_end: what comes for pages beyond the last.
        echo: the page number that an answer states.
        total: the count of all rows that it claims: right, or this one; None: none.
        twists: change answers, one after the other.
        before: is called before each answer; may change the list.

    Attributes:
        calls: how many answers were given.
        asked: how many for each page.
    """

    def __init__(
        self,
        rows: list[bytes],
        *,
        size: int = SIZE,
        past_end: PastEnd = "empty",
        echo: Echo = "none",
        total: int | Literal["right"] | None = None,
        twists: Iterable[Twist] = (),
        before: Callable[[Portal], None] | None = None,
    ) -> None:
        self.rows = rows
        self.size = size
        self.past_end = past_end
        self.echo = echo
        self.total = total
        self.twists = tuple(twists)
        self.before = before
        self.calls = 0
        self.asked: Counter[int] = Counter()

    def __repr__(self) -> str:
        about = f"past_end={self.past_end!r}, echo={self.echo!r}, total={self.total!r}, twists={self.twists!r}"
        return f"Portal({self.last} pages, {len(self.rows)} rows, {about})"

    @property
    def last(self) -> int:
        """The last page."""
        return -(-len(self.rows) // self.size)

    @property
    def beyond(self) -> int:
        """How many calls went past the last page."""
        return sum(times for page, times in self.asked.items() if page > self.last)

    def content(self, page: int) -> bytes:
        """Return the rows of a page of the list; none past its end."""
        return b"".join(self.rows[(page - 1) * self.size : page * self.size])

    def page(self, asked: int, served: int) -> Page:
        """Return the answer that holds page ``served``, if it is within the list, for page ``asked``."""
        rows = max(0, min(self.size, len(self.rows) - (served - 1) * self.size)) if served else 0
        number = {"none": None, "right": served or asked, "asked": asked, "wrong": 1 + asked * 7 % 13}[self.echo]
        total = len(self.rows) if self.total == "right" else self.total
        return Page(self.content(served) if rows else b"", rows, number=number, total=total)

    def ask(self, page: int) -> Answer:
        """Answer one call."""
        self.calls += 1
        self.asked[page] += 1
        if self.before is not None:
            self.before(self)
        answer = self.page(page, page) if page <= self.last or page == 1 else self._past_end(page)
        for twist in self.twists:
            answer = twist(self, page, answer)
        return answer

    def _past_end(self, page: int) -> Answer:
        over = page - self.last
        way = self.past_end
        if way.startswith("empty then"):
            way = "empty" if over == 1 else "last" if way == "empty then last" else "error"
        if way == "error":
            return FAILS
        if way == "errors":
            return f"{FAILS[:-1]}{page % 7}"
        if way == "around" and self.last:
            return self.page(page, (page - 1) % self.last + 1)
        return self.page(page, {"last": self.last, "first": min(1, self.last)}.get(way, 0))


# -- twists -----------------------------------------------------------------------------------------------------------


def empty(*pages: int, times: int = 10**9) -> Twist:
    """Return a twist: these pages have no rows, so many times."""

    def twist(portal: Portal, page: int, answer: Answer) -> Answer:
        return portal.page(page, 0) if page in pages and portal.asked[page] <= times else answer

    twist.__qualname__ = f"empty({sorted(pages)}, times={times})"
    return twist


def fail(code: str, *pages: int) -> Twist:
    """Return a twist: these pages fail."""
    return lambda _, page, answer: code if page in pages else answer


def serve(moves: dict[int, int]) -> Twist:
    """Return a twist: pages get the content of others."""
    return lambda portal, page, answer: portal.page(page, moves[page]) if page in moves else answer


def totals(claim: Callable[[int], int | None]) -> Twist:
    """Return a twist: the total claimed depends on the page, or on the count of calls by way of a closure."""

    def twist(_: Portal, page: int, answer: Answer) -> Answer:
        return answer if isinstance(answer, str) else replace(answer, total=claim(page))

    return twist


def echoes(state: Callable[[int], int | None]) -> Twist:
    """Return a twist: the page number stated depends on the page asked for."""

    def twist(_: Portal, page: int, answer: Answer) -> Answer:
        return answer if isinstance(answer, str) else replace(answer, number=state(page))

    return twist


# -- a run ------------------------------------------------------------------------------------------------------------


class Walk:
    """A run as the engine makes it: pages are asked for, answers come in some order, good ones are kept.

    Args:
        portal: that is asked.
        shard: pages per shard; shards are sealed as soon as the frontier is certain of them.
        options: of the frontier.
    """

    def __init__(self, portal: Portal, *, shard: int = 4, **options: bool) -> None:
        self.portal = portal
        self.frontier = Frontier(**options)
        self.kept: dict[int, bytes] = {}  # in the order of arrival
        self.sealed: set[int] = set()  # shards, counted from 0
        self.flying: dict[int, Answer] = {}
        self.refused = ""
        self._options = options
        self._shard = shard
        self._moments: list[dict[str, Any]] = [self._notes()]

    def ask(self) -> int | None:
        """Ask for one more page, if the frontier names one."""
        page = self.frontier.next()
        if page is not None:
            assert page >= 1
            assert page not in self.kept, f"page {page} was asked for again"
            assert page not in self.flying, f"page {page} was asked for twice at once"
            self.flying[page] = self.portal.ask(page)
        return page

    def answer(self, page: int) -> None:
        """Let the answer for a page come in."""
        answer = self.flying.pop(page)
        if isinstance(answer, str):
            if not self.frontier.failed(page, answer):
                self.refused = self.refused or answer
                self.frontier.leave_open(page)
        elif self.frontier.arrived(page, answer.rows, answer.lines, total=answer.total, echo=answer.number):
            self.kept[page] = b"" if page in self.frontier.holes else answer.lines
            if len(self.kept) == 1:
                self.commit()  # the layout is frozen, and the notes are written with it

    def put_back(self, page: int) -> None:
        """Let the call for a page fail."""
        del self.flying[page]
        self.frontier.put_back(page)

    def leave_open(self, page: int) -> None:
        """Give a page up."""
        del self.flying[page]
        self.frontier.leave_open(page)

    def commit(self) -> None:
        """Seal what is certain, and note what a later run is told if this one is killed."""
        frontier = self.frontier
        last = frontier.end.last if frontier.end else None
        certain = frontier.sealable
        for shard in range(certain // self._shard + 1):
            pages = self._pages(shard, last)
            if pages and shard not in self.sealed and pages[-1] <= certain and all(page in self.kept for page in pages):
                assert pages[-1] <= self.portal.last, f"pages {pages[0]} to {pages[-1]} lie past the end"
                self.sealed.add(shard)
        self._moments.append(self._notes())

    def crash(self, random: Random, *, gently: bool = False) -> None:
        """Start anew with what is durable: everything, or what was sealed and a part of what came after.

        Notes are written less often than pages, so they may be older.
        """
        noted = [moment for moment in self._moments if moment["kept"]] or self._moments[-1:]
        moment = noted[-1] if gently else random.choice(noted)
        sealed = self.sealed if gently else moment["sealed"]
        within = {page for shard in sealed for page in self._pages(shard, None) if page in self.kept}
        durable = len(self.kept) if gently else random.randint(moment["kept"], len(self.kept))
        self.kept = {page: self.kept[page] for at, page in enumerate(self.kept) if at < durable or page in within}
        self.sealed = set(sealed)
        self.flying.clear()
        self.refused = ""
        self._moments = [moment]
        self._restore(moment, within)

    def _restore(self, notes: dict[str, Any], within: set[int]) -> None:
        """Tell a new frontier, in the order in which the engine does."""
        frontier = self.frontier = Frontier(**self._options)
        frontier.echoes = notes["echoes"]
        if 1 in self.kept:
            frontier.page_size = notes["page_size"]
        if notes["totals"]:
            frontier.restore_totals(notes["totals"], frontier.page_size)
        digests: dict[int, bytes] = {}
        for shard in sorted(self.sealed):
            pages = [page for page in self._pages(shard, None) if page in within]
            frontier.restore(pages[0], pages[-1])
            digests |= {page: self.kept[page] for page in (pages[0], pages[-1])}
        for page in sorted(self.kept.keys() - within):
            frontier.restore(page, page)
            digests[page] = self.kept[page]
        if frontier.witness in self.kept:
            digests[frontier.witness] = self.kept[frontier.witness]
        frontier.restore_holes(sorted(page for page, lines in self.kept.items() if not lines))
        frontier.restore_digests(digests)
        frontier.restore_beyond(notes["beyond"])
        if notes["end"] is not None:
            frontier.restore_end(notes["end"])

    def _notes(self) -> dict[str, Any]:
        frontier = self.frontier
        return {
            "echoes": frontier.echoes,
            "page_size": frontier.page_size,
            "totals": frontier.totals,
            "beyond": dict(frontier.beyond),
            "end": frontier.end,
            "sealed": set(self.sealed),
            "kept": len(self.kept),
        }

    def _pages(self, shard: int, last: int | None) -> range:
        first, stop = shard * self._shard + 1, (shard + 1) * self._shard + 1
        return range(first, stop if last is None else min(stop, last + 1))

    def finish(
        self, random: Random | None = None, *, window: int = 8, failing: float = 0.0, giving_up: float = 0.0
    ) -> None:
        """Go on until nothing is left to ask for.

        Args:
            random: brings answers in any order; None: in the order asked.
            window: calls in flight.
            failing: share of calls that fail and are repeated.
            giving_up: share of pages that are given up.
        """
        most = 20 * (self.portal.last + 100)
        for _ in range(most):
            while len(self.flying) < window and self.ask() is not None:
                pass
            if not self.flying:
                assert self.frontier.exhausted
                assert self.frontier.in_flight == 0
                self.commit()
                return
            pages = list(self.flying) if random else ()
            page = random.choice(pages) if random else next(iter(self.flying))
            fate = random.random() if random else 1.0
            if fate < giving_up:
                self.leave_open(page)
            elif fate < giving_up + failing:
                self.put_back(page)
            else:
                self.answer(page)
        raise AssertionError(f"no end after {most} answers")

    def check(self) -> None:
        """The end is right and everything up to it is there, once, but for holes that are named."""
        frontier, portal = self.frontier, self.portal
        assert frontier.end is not None, "the end is not known"
        assert frontier.end.last == portal.last, f"{frontier.end}, true is {portal.last}"
        assert frontier.complete
        assert frontier.missing() == []
        assert {page: lines for page, lines in self.kept.items() if page <= portal.last} == {
            page: b"" if page in frontier.holes else portal.content(page) for page in range(1, portal.last + 1)
        }


def end_of(walk: Walk) -> End:
    """Return the end that a walk has found."""
    assert walk.frontier.end is not None
    return walk.frontier.end

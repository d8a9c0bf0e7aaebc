"""What is known of each page, in one byte a page; the few far pages that probing asks for stand apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

UNASKED, ASKED, DONE, BEYOND, OPEN, HOLE = range(6)
"""Never asked for; under way; here; past the end, as it seems; given up for this run; empty, though rows follow."""

_START: Final = 1024


class PageStates:
    """States of the pages from 1 on; every page begins as ``UNASKED``.

    The table doubles when a page behind it is asked for and it is full itself. Memory is therefore a byte or two for
    each page that was asked for in sequence, however far a probe or a wrong total points.
    """

    def __init__(self) -> None:
        self._near = bytearray(_START)
        self._near[0] = DONE  # there is no page 0, and nothing waits for it
        self._far: dict[int, int] = {}

    def __getitem__(self, page: int) -> int:
        return self._near[page] if page < len(self._near) else self._far.get(page, UNASKED)

    def __setitem__(self, page: int, state: int) -> None:
        if page >= len(self._near):
            if page >= 2 * len(self._near) or 4 * self._near.count(UNASKED) > len(self._near):
                self._far[page] = state
                return
            self._grow(2 * len(self._near))
        self._near[page] = state

    def fill(self, first: int, last: int, state: int) -> None:
        """Give pages ``first`` to ``last`` a state."""
        if first == last:
            self[first] = state
            return
        while len(self._near) <= last:
            self._grow(2 * len(self._near))
        self._near[first : last + 1] = bytes([state]) * (last + 1 - first)

    def find(self, state: int, first: int, last: int) -> int:
        """Return the first page in a state from ``first`` to ``last``; 0 if there is none."""
        if (page := self._near.find(state, first, last + 1)) >= 0:
            return page
        if state == UNASKED:
            page = max(first, len(self._near))
            while page <= last and self._far.get(page, UNASKED) != UNASKED:
                page += 1
            return page if page <= last else 0
        return min((page for page, known in self._far.items() if known == state and first <= page <= last), default=0)

    def take(self, first: int, last: int) -> list[int] | None:
        """Have all pages from ``first`` to ``last`` under way but those that are here, which are returned.

        None, and nothing is changed, if one of them is anything else than here or never asked for, or most are here.
        """
        while len(self._near) <= last:
            self._grow(2 * len(self._near))
        states = self._near[first : last + 1]
        unasked = states.count(UNASKED)
        if unasked + states.count(DONE) < len(states) or 2 * unasked <= len(states):
            return None
        self._near[first : last + 1] = states.replace(bytes([UNASKED]), bytes([ASKED]))
        return [page for page, state in enumerate(states, first) if state == DONE]

    def all(self, state: int) -> Iterator[int]:
        """Yield the pages in a state that is not ``UNASKED``, in order."""
        page = self._near.find(state, 1)
        while page >= 0:
            yield page
            page = self._near.find(state, page + 1)
        yield from sorted(page for page, known in self._far.items() if known == state)

    def count(self, state: int, first: int, last: int) -> int:
        """Return how many pages from ``first`` to ``last`` are in a state."""
        far = sum(known == state and first <= page <= last for page, known in self._far.items())
        return self._near.count(state, first, last + 1) + far

    def _grow(self, size: int) -> None:
        self._near.extend(bytes(size - len(self._near)))
        for page in [page for page in self._far if page < size]:
            self._near[page] = self._far.pop(page)

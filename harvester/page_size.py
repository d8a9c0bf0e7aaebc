"""How many rows a page has, as the answers show it, and whether that has changed while pages were read.

A changed size moves the boundary of every page: what was read before and what is read after do not fit together.
"""

from __future__ import annotations

from typing import Final

SAME_SHORT: Final = 10
"""So many pages in a row with the same number of rows, all short in mid-list, are no accident."""


class PageSize:
    """The page size of one snapshot.

    Args:
        asked: the size that is asked for; 0 for none.

    Attributes:
        rows: those of page 1; 0 until it is known.
        stated: the size that page 1 states; 0 if it does not.
        short: pages in mid-list that had fewer.
    """

    def __init__(self, asked: int = 0) -> None:
        self._asked = asked
        self.rows = 0
        self.short = 0
        self.stated = 0  # what page 1 said
        self._count = 0  # rows of the last short pages
        self._run = 0  # how many they were
        self._full = 0  # pages as long as page 1

    def first(self, rows: int, stated: int | None = None) -> None:
        """Take page 1: how many rows it has, and which size it states."""
        self.rows, self.stated = rows, stated or 0

    def changed(self, page: int, rows: int, stated: int | None, *, mid_list: bool) -> str:
        """Take another page with rows; say in words what shows that the size has changed, empty if nothing does."""
        if not self.rows:
            return ""
        if rows > max(self.rows, self.stated, self._asked):  # page 1 itself may be short
            return f"page {page:,} has {rows:,} rows where page 1 had {self.rows:,}"
        # Some pagers state the rows of this page instead of the size: that is no sign.
        if stated and self.stated and stated not in {self.stated, rows}:
            return f"page {page:,} states a size of {stated:,} where page 1 stated {self.stated:,}"
        if not mid_list:
            return ""
        if rows >= self.rows:
            self._run, self._full = 0, self._full + 1
            return ""
        self.short += 1
        self._run = self._run + 1 if rows == self._count else 1
        self._count = rows
        if self._run >= SAME_SHORT and self._full:  # where page 1 alone is longer, nothing has changed
            return f"{self._run} pages in a row up to page {page:,} have {rows:,} rows where page 1 had {self.rows:,}"
        return ""

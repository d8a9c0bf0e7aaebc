"""What a dataset will take: pages, rows, calls and time, from what probing has shown. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from harvester.certificate import wanted_again
from harvester.model import Dataset

OUTER: Final = 2  # pages of a list that are always read again first: 1 and the last
KEY_COST: Final = 5e-6  # seconds of processor time for one row's key: read, cut, digested, counted


class Outlook(Struct, frozen=True, kw_only=True):
    """What is still to be done for a dataset whose end was found.

    ``rows`` follow from the pages, ``exact`` where the last one was read, else from the platform's total, if any.
    ``calls`` are those of a run from here on, of which ``again`` read pages a second time. ``seconds`` is their time at
    the app's pace, None without a limit. ``left`` are the calls that the allowance still grants, None without one.
    ``key_seconds`` is what counting the key will take.
    """

    pages: int
    rows: int
    exact: bool
    calls: int
    again: int
    seconds: float | None
    left: int | None
    key_seconds: float

    @property
    def share(self) -> float | None:
        """The part of the remaining allowance that the calls use; above 1 if they are too many."""
        return None if self.left is None else self.calls / self.left if self.left else float(self.calls > 0)


def outlook(  # noqa: PLR0913 - facts from many sides
    dataset: Dataset,
    *,
    pages: int,
    missing: int,
    page_size: int,
    last_rows: int,
    total: int | None,
    left: int | None,
    rate: float | None,
    confirming: int,
    empty_end: bool,
) -> Outlook:
    """Work out what a dataset will take.

    Args:
        dataset: with its settings.
        pages: how many it has.
        missing: how many of them are not here yet.
        page_size: rows on page 1.
        last_rows: rows on the last page; 0 if not known.
        total: rows that the platform claims, if it does.
        left: calls that the allowance still grants.
        rate: calls a second; None without a limit.
        confirming: calls that the end still takes to be established.
        empty_end: whether it was empty, so that the second reading asks for it too.
    """
    again = wanted_again(dataset.recheck, pages)
    if left is not None:
        rest = max(0, left - missing - confirming)
        again = min(again, rest if rest <= OUTER else rest - 1)
        empty_end = empty_end and rest > again
    once_more = empty_end and pages > 0 and again > 0  # the page after the last one
    calls = missing + again + confirming + once_more
    counted = (pages - 1) * page_size + last_rows if pages and last_rows else pages * page_size
    exact = bool(last_rows) or not pages
    rows = total if total is not None and not exact else counted
    return Outlook(
        pages=pages,
        rows=rows,
        exact=exact,
        calls=calls,
        again=again,
        seconds=calls / rate if rate else None,
        left=left,
        key_seconds=rows * KEY_COST if dataset.key else 0.0,
    )

"""What every contender is told, and the page numbers it takes. The standard library only, for any interpreter."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

CALLS = 64  # in flight, for contenders that leave this number to their user


@dataclass(frozen=True, kw_only=True)
class Job:
    """Have every row that ``url`` has in ``folder``; at the best documented settings, or as it comes.

    ``resumable`` asks for what a contender's documentation has against interruptions, where that costs something.
    """

    url: str
    folder: Path
    best: bool
    resumable: bool

    @property
    def rows(self) -> Path:
        """Where the simple ones put their rows, one a line."""
        return self.folder / "rows.jsonl"


class Pages(Iterator[int]):
    """Page numbers from 1 on, shared by workers, until one of them has seen an empty page."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._over = False

    def __next__(self) -> int:
        if self._over:
            raise StopIteration
        return next(self._numbers)

    def over(self) -> None:
        """An empty page was seen: hand out no further numbers."""
        self._over = True


def told(what: str | None) -> Job:
    """Read the command line of a contender."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--best", action="store_true", help="at the best documented settings")
    parser.add_argument("--resumable", action="store_true", help="ready to be interrupted and begun again")
    options = parser.parse_args()
    return Job(url=options.url, folder=options.folder, best=options.best, resumable=options.resumable)

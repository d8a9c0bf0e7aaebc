"""A snapshot that nobody will read, to see what a disk can take: pages are kept and sealed as a run does it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from harvester.disk import RESERVE, free, in_words
from harvester.errors import LocalError
from harvester.model import Page
from harvester.shard import Compression, Layout
from harvester.store.durable import explained
from harvester.store.snapshot import Snapshot

MOST: Final = 2**28  # bytes that are written at most


class Scratch:
    """A committer for the writer, whose pages have the numbers in which they come.

    Args:
        snapshot: with its layout.

    Attributes:
        received: bytes of rows that were handed over.
        seconds: that the writer's thread has worked.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.received = 0
        self.seconds = 0.0
        self._snapshot = snapshot
        self._pages = 0
        self._pending: list[tuple[int, Page]] = []

    @property
    def full(self) -> bool:
        """Whether no more may be written."""
        return self.received >= MOST

    def add(self, page: Page) -> None:
        """Take in a page; the writer has to be told."""
        self._pages += 1
        self.received += len(page.lines)
        self._pending.append((self._pages, page))

    def batch(self) -> Callable[[], None]:
        """Hand over everything pending; return the work that makes it durable."""
        pending, self._pending = self._pending, []
        return partial(self._commit, pending)

    def _commit(self, pages: list[tuple[int, Page]]) -> None:
        began = time.monotonic()
        snapshot = self._snapshot
        if pages and snapshot.layout is not None:
            snapshot.append(pages)
            for shard in sorted({snapshot.layout.shard_of(number) for number, _ in pages}):
                if snapshot.complete(shard):
                    snapshot.seal(shard)
        self.seconds += time.monotonic() - began


@contextmanager
def scratch(output: Path, page: Page, rows_per_shard: int, compression: Compression) -> Iterator[Scratch]:
    """Make a scratch folder on the file system of an output folder, for as long as the block lasts.

    Args:
        output: the folder for mirrors; it need not exist.
        page: one that has come, for its size.
        rows_per_shard: as in a run.
        compression: as in a run.

    Raises:
        LocalError: there is no room, or the folder cannot be made.
    """
    place = next(path for path in (output, *output.parents) if path.is_dir())
    if (left := free(place)) < RESERVE + 2 * MOST:
        raise LocalError(
            f"not enough room on the disk for {place}: {in_words(left)} are free, measuring it needs "
            f"{in_words(RESERVE + 2 * MOST)}",
            hint="free some space; it is given back when the measurement is done",
        )
    with explained("write in", place):
        folder = tempfile.TemporaryDirectory(prefix=".harvester-bench-", dir=place)
    with folder as name, Snapshot.create(Path(name) / "snapshot", {}, "") as snapshot:
        snapshot.freeze(Layout(rows_per_shard, max(1, page.rows), compression))
        yield Scratch(snapshot)

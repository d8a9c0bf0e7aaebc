"""Room on the disk: enough for what a run will write, before its first call, and some of it left while it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harvester.dataset_run import DatasetRun
from harvester.errors import LocalError
from harvester.store.durable import explained
from harvester.writer import PENDING

RESERVE: Final = 4 * PENDING
"""Bytes that stay free: all that can be waiting for the disk, once in journals and once more in shards."""
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


def free(path: Path) -> int:
    """Return how many bytes this user may still write where a folder is.

    Raises:
        LocalError: the folder is gone, or cannot be looked at.
    """
    with explained("look at", path):
        found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def demand_room(path: Path, runs: Iterable[DatasetRun]) -> None:
    """Refuse to begin what a disk has no room for.

    Args:
        path: the output folder.
        runs: that will write below it.

    Raises:
        LocalError: there is too little; or the folder cannot be looked at.
    """
    left, needed = free(path), RESERVE + sum(map(still_to_write, runs))
    if left < needed:
        raise LocalError(
            f"not enough room on the disk for {path}: {in_words(left)} are free, this run needs {in_words(needed)}",
            causes=("nothing was sent",),
            hint="free some space, or choose another place with --output DIR"
            + ("" if needed == RESERVE else "; if less should do, `harvester plan JOB` finds out where the lists end"),
        )


def shortage(path: Path) -> str:
    """Say in words that the reserve is being used up; empty while it is not."""
    left = free(path)
    return f"the disk is almost full: {in_words(left)} are free for {path}" if left < RESERVE else ""


def still_to_write(run: DatasetRun) -> int:
    """Return the bytes that the rest of a dataset will take, by its end or total and the rows that are here; else 0."""
    snapshot, frontier, rows = run.snapshot, run.frontier, run.keeper.rows
    end, layout = frontier.supposed(), snapshot.layout
    if layout is None or not rows or run.planning:
        return 0
    total = frontier.totals[2] if frontier.totals else 0
    in_all = total if end is None else end.last * frontier.page_size
    left = max(0, in_all - rows)
    sealed = sum(entry.rows for entry in snapshot.sealed.values())
    if sealed:
        per_row = sum(entry.file_bytes for entry in snapshot.sealed.values()) / sealed
    else:  # what compression will make of a journal is not known yet
        per_row = snapshot.journal_bytes() / rows if layout.compression == "none" else 0.0
    beside = min(left, layout.rows_per_shard)  # while a shard is written, its journal is still there
    return int((left + beside) * per_row)


def in_words(size: float) -> str:
    """Return a number of bytes as people write it."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - as disks are sold
        size, unit = size / 1000, unit + 1
    return f"{size:,.0f} {_UNITS[unit]}" if unit < 2 else f"{size:,.1f} {_UNITS[unit]}"  # noqa: PLR2004 - whole kB do

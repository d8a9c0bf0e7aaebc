"""What lies in a mirror: which snapshots, how old, what is open, and the next command. Reads, never changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from harvester.errors import DamagedError, HarvesterError, UsageError
from harvester.lifecycle import begun, held_snapshot, open_snapshot
from harvester.store.durable import LostError
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

RUNS: Final = "runs"


class State(Struct, frozen=True, kw_only=True):
    """One dataset of a mirror. Ages are in hours; ``open_pages_kept`` counts what an open snapshot already has.

    ``held`` is a snapshot that is whole but was not published, and why.
    """

    dataset: str
    published: str = ""
    verdict: str = ""
    rows: int | None = None
    age_hours: float | None = None
    open: str = ""
    open_pages_kept: int | None = None
    open_pages_in_all: int | None = None
    held: str = ""
    problem: str = ""
    next: str = ""


def dataset_folders(path: Path) -> list[Path]:
    """Return the dataset folders under a mirror, or the folder itself if it is one.

    Raises:
        UsageError: there is no mirror.
    """
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}", hint="name the folder that `output` in the job file names")
    if DatasetFolder(path).snapshots():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and DatasetFolder(entry).snapshots())


def states(folders: Iterable[Path], command: str, now: datetime) -> list[State]:
    """Describe datasets.

    Args:
        folders: of the datasets; one that does not exist has not been begun.
        command: the run that continues them, without ``--dataset``.
        now: to tell ages.
    """
    return [_state(DatasetFolder(path), command, now) for path in folders]


def _state(folder: DatasetFolder, command: str, now: datetime) -> State:
    name = folder.path.name
    again = f"{command} --dataset {name}"
    try:
        current, opened = folder.current(), open_snapshot(folder)
        summary = folder.summary()
        held = held_snapshot(folder)
        kept, in_all = _progress(folder.path / opened) if opened else (None, None)
    except HarvesterError as error:
        return State(dataset=name, problem=error.message, next=f"{again} {way_out(error)}".rstrip())
    settled = f"{again} --fresh" if held else shlex.join(["harvester", "verify", str(folder.path)])
    return State(
        dataset=name,
        published=current or "",
        verdict=summary.get("verdict", ""),
        rows=summary.get("rows"),
        age_hours=round((now - begun(current)).total_seconds() / 3600, 1) if current else None,
        open=opened or "",
        open_pages_kept=kept,
        open_pages_in_all=in_all,
        held=f"{held[0]}: {'; '.join(held[1])}" if held else "",
        next=again if opened or not (current or held) else settled,
    )


def way_out(error: HarvesterError) -> str:
    """Return the option of ``run`` that helps where something could not be read; empty if none does."""
    return "--fresh" if isinstance(error, LostError) else "--repair" if isinstance(error, DamagedError) else ""


def _progress(path: Path) -> tuple[int, int | None]:
    with Snapshot.open(path) as snapshot:
        return sum(1 for _ in snapshot.pages()), snapshot.end["last"] if snapshot.end else None

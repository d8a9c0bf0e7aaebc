"""Which snapshot of a dataset a run works on: an open one, a new one, or none because one is published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from harvester.errors import UsageError
from harvester.model import Dataset, Platform
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NAME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
OVER: Final = "over"  # note of a snapshot that is whole but was not published: the reasons

_WORDS: Final = {
    "platform": "the platform",
    "app_id": "the app's id",
    "address": "the address",
    "body": "the body form",
    "params": "the parameters",
    "paging": "the way of paging",
    "page_size": "the page size",
}


class Published(Struct, frozen=True):
    """Nothing is due: this snapshot is current."""

    name: str

    def age(self, now: datetime) -> timedelta:
        """Return how old it is."""
        return now - begun(self.name)


def begun(name: str) -> datetime:
    """Return when a snapshot was begun, from its name."""
    return datetime.strptime(name, NAME_FORMAT).replace(tzinfo=UTC)


def identity(dataset: Dataset, platform: Platform) -> dict[str, Any]:
    """Return what makes a dataset the same one; the app's id as a digest, for it may be confidential."""
    return {
        "platform": platform.NAME,
        "app_id": sha256(dataset.app.id.encode()).hexdigest()[:16],
        "address": platform.target(dataset),
        "body": {"form": dataset.body, "envelope": dict(dataset.envelope)},
        "params": dict(dataset.params),
        "paging": [dataset.paging, dataset.page_param, dataset.first_page],
        "page_size": dataset.page_size,
    }


def held_snapshot(folder: DatasetFolder) -> tuple[str, list[str]] | None:
    """Return the latest snapshot if it is whole but was not published, with the reasons."""
    latest = _latest(folder)
    return None if latest is None or not latest[1] else latest


def open_snapshot(folder: DatasetFolder) -> str | None:
    """Return the latest snapshot if it is still to be continued."""
    latest = _latest(folder)
    return None if latest is None or latest[1] else latest[0]


def _latest(folder: DatasetFolder) -> tuple[str, list[str]] | None:
    """Return the latest snapshot that is newer than the published one, and why it is held back; empty if it is not."""
    current = folder.current() or ""
    for name in reversed(folder.snapshots()):
        if name < current:
            return None
        if (folder.path / name / "checkpoint.json").exists():
            with Snapshot.open(folder.path / name) as snapshot:
                return name, list(snapshot.notes.get(OVER) or ())
    return None


def choose(folder: DatasetFolder, same: Mapping[str, Any], *, fresh: bool, now: datetime) -> Snapshot | Published:
    """Continue the open snapshot, else start the first one, else say what is published.

    Args:
        folder: of the dataset, locked.
        same: the identity that an open snapshot must have.
        fresh: start a new one whatever is there.
        now: names a new snapshot.

    Raises:
        UsageError: the open snapshot is of something else.
    """
    if not fresh:
        begun_before = open_snapshot(folder)
        if begun_before is not None:
            snapshot = Snapshot.open(folder.path / begun_before)
            try:
                if snapshot.layout is None and snapshot.identity != same:
                    # Not one page came under the old settings (a mistake in the job file, mostly): nothing to mix.
                    snapshot.identity.update(same)
                    snapshot.save()
                demand_same(folder, snapshot.identity, same, f"{snapshot.path} is being filled")
            except BaseException:
                snapshot.close()
                raise
            return snapshot
        current = folder.current()
        if current is not None:
            demand_same(folder, folder.summary().get("identity", same), same, f"{folder.path / current} is published")
            return Published(current)
    taken = set(folder.snapshots())
    while (name := now.strftime(NAME_FORMAT)) in taken:
        now += timedelta(seconds=1)
    return Snapshot.create(folder.path / name, dict(same), now.isoformat(timespec="seconds"))


def demand_same(folder: DatasetFolder, before: Mapping[str, Any], same: Mapping[str, Any], state: str) -> None:
    """Refuse to mix two datasets.

    Args:
        folder: of the dataset.
        before: the identity of what is there.
        same: the identity that the job file gives.
        state: what is there, in words.

    Raises:
        UsageError: they differ; the message says in what.
    """
    changed = [words for key, words in _WORDS.items() if before.get(key) != same[key]]
    if changed:
        raise UsageError(
            f"dataset {folder.path.name!r} is not the same one any more: {state}, and since then the job file has "
            f"changed {_listed(changed)}",
            causes=("pages of two different datasets would be mixed; nothing was sent or changed",),
            hint=f"put the old settings back, or begin a new snapshot: --dataset {folder.path.name} --fresh",
        )


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

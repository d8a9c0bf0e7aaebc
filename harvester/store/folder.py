"""The folder of a dataset: its snapshots, which of them readers see, and who works on it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from harvester.errors import DamagedError, LockedError
from harvester.shard import JOURNAL_FILE
from harvester.store.checkpoint import CHECKPOINT
from harvester.store.durable import (
    TEMPORARY,
    Folder,
    explained,
    locked,
    make_folder,
    nobody_holds,
    repair_hint,
    sharing,
)

CURRENT: Final = "current.json"
CURRENT_LINK: Final = "current"
LOCK: Final = ".lock"
CHILDREN: Final = ".lock-children"
SNAPSHOT: Final = re.compile(r"\d{8}T\d{6}Z")
"""Names of snapshot folders: when they were begun, in UTC."""
_DRAFT: Final = re.compile(re.escape(TEMPORARY) + SNAPSHOT.pattern)


class DatasetFolder:
    """The folder of one dataset, ``mirror/NAME``: its snapshots, which one is published, who works on it.

    The folder need not exist yet; ``lock`` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of this dataset for the block; never waits.

        Raises:
            LockedError: another process is in; the message names it, and nothing was changed.
            LocalError: the folder cannot be created or locked.
        """
        make_folder(self.path.parent)
        make_folder(self.path)
        with locked(self.path / LOCK):
            nobody_holds(self.path / CHILDREN)
            self._drop_drafts()
            self._end_publication()
            yield

    def owner(self) -> bytes:
        """Return what whoever holds the lock has written into its file: it tells one holder from every other."""
        with explained("read", self.path / LOCK):
            return (self.path / LOCK).read_bytes()

    @contextmanager
    def helping(self, owner: bytes) -> Iterator[None]:
        """Work here for the holder of the lock: whoever takes the lock next waits until the block has ended.

        Raises:
            LockedError: that holder does not hold it any more.
            LocalError: it cannot be found out.
        """
        with sharing(self.path / CHILDREN):
            if self.owner() != owner:  # looked at last: whoever comes after it finds this process in
                raise LockedError(f"{self.path} is not this run's any more")
            yield

    def snapshots(self) -> list[str]:
        """Return the names of all snapshots, finished or not, oldest first."""
        if not self._exists():
            return []
        with Folder(self.path) as folder:
            return [name for name in folder.names() if SNAPSHOT.fullmatch(name)]

    def current(self) -> str | None:
        """Return the name of the published snapshot, None before the first publication.

        Raises:
            DamagedError: ``current.json`` cannot be read, or what it names is not there.
        """
        if not self._exists():
            return None
        with Folder(self.path) as folder:
            data = folder.read(CURRENT)
            if data is None:
                return None
            name = _published(data)
            if name is None or folder.stat(name) is None:
                raise DamagedError(
                    f"cannot read {self.path / CURRENT}: it does not name a snapshot that is here",
                    hint=repair_hint(self.path / CURRENT),
                )
            return name

    def summary(self) -> dict[str, Any]:
        """Return what was said of the published snapshot when it was published; empty before the first."""
        if self.current() is None:
            return {}
        with Folder(self.path) as folder:
            content: dict[str, Any] = orjson.loads(folder.read(CURRENT) or b"{}")
        return content

    def publish(self, name: str, summary: dict[str, Any]) -> None:
        """Make a finished snapshot the one that readers see, in one step.

        Args:
            name: the snapshot's folder.
            summary: further members of ``current.json``.
        """
        if not SNAPSHOT.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a snapshot")
        content = orjson.dumps({"snapshot": name, **summary}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        with Folder(self.path) as folder:
            folder.replace(CURRENT, content)
            folder.replace_link(CURRENT_LINK, name)

    def _drop_drafts(self) -> None:
        """Delete snapshot folders that a stopped run had not finished creating."""
        with Folder(self.path) as folder:
            drafts = [name for name in folder.names() if _DRAFT.fullmatch(name)]
        for draft in drafts:
            with explained("delete", self.path / draft):
                shutil.rmtree(self.path / draft)

    def _end_publication(self) -> None:
        """Do the rest of a publication that was cut short: readers have that snapshot, so nobody works on it."""
        try:
            name = self.current()
        except DamagedError:
            return  # whoever wants to know what is published is told
        if name is not None and (self.path / name / CHECKPOINT).exists():
            with Folder(self.path) as folder, Folder(self.path / name) as snapshot:
                folder.replace_link(CURRENT_LINK, name)
                remove_open(snapshot)

    def _exists(self) -> bool:
        with explained("look at", self.path):
            return self.path.exists()


def remove_open(snapshot: Folder) -> None:
    """Remove, durably, what only an open snapshot needs; after publication."""
    for name in snapshot.names():
        if JOURNAL_FILE.fullmatch(name) or name.startswith(TEMPORARY):
            snapshot.unlink(name)
    snapshot.unlink(CHECKPOINT)
    snapshot.sync()


def _published(data: bytes) -> str | None:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    name = content.get("snapshot") if isinstance(content, dict) else None
    return name if isinstance(name, str) and SNAPSHOT.fullmatch(name) else None

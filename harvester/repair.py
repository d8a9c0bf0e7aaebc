"""Mending a mirror: what is damaged is read again, and nothing else; and whether its certificate still stands then.

A published snapshot stays as it is while it is mended, for readers have it: what is sound of it becomes a new snapshot,
whose missing pages are fetched. If they are what they were, the new one is the old one, and is published with the same
evidence. If not, the data has moved since: then it is judged like any other, with a second reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, convert, to_builtins
from msgspec.structs import replace

from harvester.certificate import Certificate, Evidence, ReadAgain, share_below
from harvester.dataset_run import DatasetRun
from harvester.errors import DamagedError, Exit, LocalError
from harvester.frontier import End
from harvester.health import Health
from harvester.ledger import Ledger
from harvester.lifecycle import NAME_FORMAT, OVER, begun, demand_same
from harvester.model import Dataset, Page
from harvester.recount import certified, snapshot_fault
from harvester.shard import SHARD_FILE, Compression, ShardEntry
from harvester.store.checkpoint import CHECKPOINT
from harvester.store.contents import Contents
from harvester.store.folder import CURRENT, DatasetFolder
from harvester.store.package import PACKAGE
from harvester.store.snapshot import Kept, Snapshot
from harvester.store.verify import DAMAGED, EXTRA, MISSING, verify_snapshot

REPAIR: Final = "repair"
"""Note of a snapshot that is being repaired: a ``Repair``."""
_NAMED: Final = 3  # damaged files that are named


class Repair(Struct, frozen=True, kw_only=True):
    """What a repair is about: the damaged files, and the published snapshot whose sound ones were taken, if any.

    ``certified`` says that there was nothing wrong with its certificate.
    """

    files: int
    first: tuple[str, ...]
    of: str = ""
    certified: bool = False

    @property
    def words(self) -> str:
        """Name the files, if they are few."""
        more = self.files - len(self.first)
        return ", ".join(self.first) + (f" and {more:,} more" if more else "")


class Intact(Struct, frozen=True, kw_only=True):
    """Nothing of a dataset has to be read again; ``path`` is the snapshot that was looked at, if there is any."""

    path: Path | None
    words: str


def begin(folder: DatasetFolder, same: Mapping[str, Any]) -> Snapshot | Intact:
    """Look at the published snapshot, and if that is sound at the one after it; make ready what has to be mended.

    A repair that was stopped goes on.

    Args:
        folder: of the dataset, locked.
        same: the identity that the snapshot must have.

    Raises:
        LostError: it cannot be mended, only read anew.
        LocalError: it cannot be read or written.
        UsageError: the published snapshot is of something else.
    """
    words = _restore_pointer(folder)
    current = folder.current()
    if current is not None:
        repair = _damage(folder.path / current)
        if repair is not None:
            return _beside(folder, replace(repair, of=current), same)
    after = [name for name in folder.snapshots() if name > (current or "") and _is_open(folder.path / name)]
    if after:
        repair = _damage(folder.path / after[-1])
        if repair is not None:
            return _in_place(folder, after[-1], repair, same)
    looked_at = current or next(iter(after), None)
    return Intact(
        path=None if looked_at is None else folder.path / looked_at,
        words=words or ("no damage found" if looked_at else "there is nothing to repair yet"),
    )


def _restore_pointer(folder: DatasetFolder) -> str:
    """Mend ``current.json`` if that is damaged: nothing but the latest finished snapshot can have stood in it."""
    try:
        folder.current()
    except DamagedError:
        for name in reversed(folder.snapshots()):
            path = folder.path / name
            if (path / PACKAGE).is_file() and not _is_open(path):
                with Contents.open(path) as contents:
                    found, same = certified(contents), contents.identity
                summary = {"verdict": found.verdict, "rows": found.evidence.rows, "identity": same}
                folder.publish(name, summary)
                return f"{CURRENT} was damaged; it names {name} again"
        raise
    return ""


def _is_open(path: Path) -> bool:
    return (path / CHECKPOINT).is_file()


def _damage(path: Path) -> Repair | None:
    """Look at everything in a snapshot; None if all is as it was recorded."""
    found = verify_snapshot(path)
    bad = [check.name for check in found.shards if check.symbol in {DAMAGED, MISSING, EXTRA}]
    if bad:
        strange = [check.name for check in found.shards if check.symbol == EXTRA and not _is_ours(check.name)]
        if strange and _is_open(path):
            raise LocalError(f"{path / strange[0]} is no file of harvester's", hint="move it to another folder")
        return Repair(files=len(bad), first=tuple(bad[:_NAMED]), certified=True)
    try:
        fault = snapshot_fault(path)
    except DamagedError as error:
        fault = error.message
    return Repair(files=1, first=(PACKAGE,)) if fault else None


def _is_ours(name: str) -> bool:
    return bool(SHARD_FILE.fullmatch(name) or name.endswith(".pages"))


def _beside(folder: DatasetFolder, repair: Repair, same: Mapping[str, Any]) -> Snapshot:
    """Begin, or continue, a new snapshot with what is sound of a published one."""
    damaged = folder.path / repair.of
    with Contents.open(damaged) as contents:
        if contents.identity:
            demand_same(folder, contents.identity, same, f"{damaged} is published")
    taken = set(folder.snapshots())
    for name in sorted(taken, reverse=True):
        if name > repair.of and (snapshot := _continued(folder.path / name, repair)) is not None:
            return snapshot
    at: datetime = begun(repair.of)  # it is as old as what it is made of
    while (name := at.strftime(NAME_FORMAT)) in taken:
        at += timedelta(seconds=1)
    snapshot = Snapshot.from_package(damaged, folder.path / name, {REPAIR: to_builtins(repair)})
    return _recovered(snapshot)


def _continued(path: Path, repair: Repair) -> Snapshot | None:
    """Open a snapshot if it is one that a stopped repair has left; one that is damaged itself is made anew."""
    if not _is_open(path):
        return None
    try:
        snapshot = Snapshot.open(path)
    except DamagedError:
        return None
    note = snapshot.notes.get(REPAIR, {})
    if note.get("of") == repair.of and not snapshot.notes.get(OVER):
        return _recovered(snapshot)
    snapshot.close()
    return None


def _in_place(folder: DatasetFolder, name: str, repair: Repair, same: Mapping[str, Any]) -> Snapshot:
    """Take what is damaged out of a snapshot that nobody reads yet; it goes on as any that is open."""
    snapshot = Snapshot.open(folder.path / name)
    try:
        demand_same(folder, snapshot.identity, same, f"{snapshot.path} is being filled")
        snapshot.notes[REPAIR] = to_builtins(replace(repair, certified=False))
        snapshot.notes.pop(OVER, None)
        snapshot.save()
    except BaseException:
        snapshot.close()
        raise
    return _recovered(snapshot)


def _recovered(snapshot: Snapshot) -> Snapshot:
    try:
        snapshot.recover(repair=True)
    except BaseException:
        snapshot.close()
        raise
    return snapshot


class _Before(Struct, frozen=True):
    """What a published snapshot said of itself before it was damaged; ``contents`` are digests of shards' lines."""

    certificate: Certificate
    notes: Mapping[str, Any]
    contents: Mapping[int, str]

    @classmethod
    def of(cls, path: Path) -> _Before | None:
        """Read it; None if it cannot be read any more: then nothing is left to stand on."""
        try:
            with Contents.open(path) as contents:
                digests = {number: _content(entry) for number, entry in contents.sealed.items()}
                return cls(certified(contents), dict(contents.notes), digests)
        except LocalError:
            return None


def _content(entry: ShardEntry) -> str:
    return entry.content_sha256 or entry.sha256


class RepairRun(DatasetRun):
    """One dataset in a run that mends it, or that goes on with a repair; the arguments are those of ``DatasetRun``."""

    def __init__(
        self,
        dataset: Dataset,
        folder: DatasetFolder,
        snapshot: Snapshot,
        health: Health,
        layout: tuple[int, Compression],
        *,
        ledger: Ledger | None = None,
        planning: bool = False,
    ) -> None:
        self._note = {REPAIR: snapshot.notes[REPAIR]}
        self._repair = convert(snapshot.notes[REPAIR], Repair)
        self._before = _Before.of(folder.path / self._repair.of) if self._repair.certified else None
        self._stands = self._before is not None
        self._filling = True  # what is missing is being fetched, and nothing was compared yet but page by page
        self._unlike: set[int] = set()  # pages that are not what the index says
        self._fetched = 0
        super().__init__(dataset, folder, snapshot, health, layout, ledger=ledger, planning=planning)

    @property
    def words(self) -> str:
        """What was damaged, and what has become of it."""
        done = f"damaged: {self._repair.words}; "
        if self._filling:
            return done + "not repaired yet"
        pages = f"{self._fetched:,} page{'s'[: self._fetched != 1]} read again"
        if self._before is None:
            return f"{done}repaired"
        if self._stands:
            return f"{done}repaired, {pages}, and every shard is what it was: the certificate stands"
        changed = f" and {len(self._unlike):,} of them changed" if self._unlike else ""
        return f"{done}{pages}{changed}: the data has moved since, so all was judged anew"

    def _take_over(self, kept: Iterable[Kept]) -> None:
        """Continue; a page without rows that is missing now is asked for like any other."""
        kept, layout, notes = list(kept), self.snapshot.layout, self.snapshot.notes
        if layout is not None:
            there, sealed = {found.page for found in kept}, self.snapshot.sealed
            holes = notes.get("holes", [])
            notes["holes"] = [page for page in holes if page in there or layout.shard_of(page) in sealed]
        super()._take_over(kept)

    def accept(self, number: int, page: Page, at: datetime) -> bool:
        """Take in an answer, and look whether the page is what it was."""
        if self._filling and (expected := self.snapshot.digest_of(number)):
            if page.digest == expected:
                self._unlike.discard(number)
            else:
                self._unlike.add(number)
        return super().accept(number, page, at)

    def go_on(self, calls: int | None) -> bool:
        """Begin the next phase; there is none if every shard is what it was."""
        if self._filling and self.frontier.complete and not self.planning:
            self._compare()
        return not self._stands and super().go_on(calls)

    def _compare(self) -> None:
        """Tell whether the certificate still stands, once all is sealed: nothing but the rows decides that."""
        contents = {number: _content(entry) for number, entry in self.snapshot.sealed.items()}
        self._filling, self._fetched = False, self.counts.pages
        self._stands = self._before is not None and self._before.contents == contents
        if self._before is None:
            return
        if self._stands:
            self.keeper.count_repairs(self._before.notes.get("repairs", {}))
        else:
            self._mended = max(1, len(self._unlike))
            read, last = max(1, self._fetched), max(1, self.frontier.done)
            self._again = ReadAgain(pages=read, changed=self._mended, share_below=share_below(read, last))

    def last_batch(self) -> Callable[[], None]:
        """Hand over everything pending; say so if pages that were there are past the end now."""
        end = self.frontier.end
        if end is not None and (gone := [page for page in self.frontier.beyond if page <= end.last]):
            if self.stop is not None and self.stop.exit is Exit.OPEN_PAGES:
                self.stop = None  # no later run would get them either
            self._give_up(f"page {min(gone):,} has no rows any more: the list has become shorter since", moved=False)
        return super().last_batch()

    def _evidence(self, end: End) -> Evidence:
        if self._filling:
            self._compare()
        return self._before.certificate.evidence if self._before and self._stands else super()._evidence(end)

    def _notes(self) -> dict[str, Any]:
        if self._before is None or not self._stands:
            return super()._notes() | self._note
        return {**self._before.notes, "calls": self.calls, "charset": self.dataset.charset, **self._note}

    def _read_between(self) -> dict[str, str]:
        return self._read if self._stands else super()._read_between()

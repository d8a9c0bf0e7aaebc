"""Checking a snapshot on disk against what was recorded of it; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from harvester.errors import DamagedError, Exit
from harvester.shard import INDEX_RECORD_BYTES, JOURNAL_FILE, Layout, PageRecord, ShardEntry
from harvester.store.checkpoint import CHECKPOINT
from harvester.store.contents import Contents
from harvester.store.cores import spread
from harvester.store.durable import Folder
from harvester.store.folder import DatasetFolder
from harvester.store.index import INDEX, index_records
from harvester.store.journal import Journal
from harvester.store.package import PACKAGE
from harvester.store.sealed import agrees, hash_fault, stored_pages

GOOD: Final = "."
DAMAGED: Final = "X"
MISSING: Final = "?"
UNFINISHED: Final = "o"
EXTRA: Final = "+"

_PAGES_SHOWN: Final = 3
_WORTH_A_PROCESS: Final = 2**25  # bytes of shards below which one core is quick enough


class ShardCheck(msgspec.Struct, frozen=True):
    """One shard, or a file that should not be there: its symbol, and in words why it is not good."""

    name: str
    symbol: str
    reasons: tuple[str, ...] = ()


class Verification(msgspec.Struct, frozen=True):
    """What was found: the shards in order, then files that belong to none of them.

    ``rows`` and ``pages`` count the good shards.
    """

    shards: tuple[ShardCheck, ...]
    pages: int
    rows: int

    @property
    def symbols(self) -> str:
        """One ASCII character a shard: ``.`` good, ``X`` damaged, ``?`` missing, ``o`` unfinished, ``+`` extra file."""
        return "".join(check.symbol for check in self.shards)

    @property
    def exit(self) -> Exit:
        """LOCAL if anything is damaged, missing or extra, OPEN_PAGES if shards are unfinished, else OK."""
        found = set(self.symbols)
        if found & {DAMAGED, MISSING, EXTRA}:
            return Exit.LOCAL
        return Exit.OPEN_PAGES if UNFINISHED in found else Exit.OK


def is_snapshot(path: Path) -> bool:
    """Tell whether a folder is a snapshot, finished or open."""
    return any((path / name).is_file() for name in (CHECKPOINT, PACKAGE))


def snapshots_in(path: Path) -> list[Path]:
    """Return the snapshot that a folder is, or those of a dataset's folder from the published one on."""
    if is_snapshot(path):
        return [path]
    folder = DatasetFolder(path)
    current = folder.current() or ""
    return [path / name for name in folder.snapshots() if name >= current]


def verify_snapshot(path: Path) -> Verification:
    """Check every shard of a snapshot, finished or open: digest of the file, of each page, row counts, page ranges.

    Raises:
        DamagedError: there is nothing to check against, or it is damaged itself.
        LocalError: something cannot be read.
        UsageError: a compression's library is not installed.
    """
    with Folder(path) as folder, Contents.open(path) as contents:
        pages = contents.last
        if pages is None and not folder.is_file(CHECKPOINT):  # finished by a version that did not say it
            pages = max((entry.last for entry in contents.sealed.values()), default=0)
        return _verify(folder, contents.layout, contents.sealed, pages)


def _verify(folder: Folder, layout: Layout | None, sealed: dict[int, ShardEntry], last: int | None) -> Verification:
    checks: list[ShardCheck] = []
    expected: set[str] = set()
    pages = rows = 0
    names = folder.names()
    journals = {int(match[1]) for name in names if (match := JOURNAL_FILE.fullmatch(name))}
    if layout is not None:
        numbers = sealed.keys() | journals
        numbers.update(range(max(numbers, default=-1) + 1) if last is None else layout.shards(last))
        for number in numbers:
            expected.add(layout.journal_name(number))
            if number in sealed or number in journals:  # beside a journal: a shard whose sealing was cut short
                expected.add(layout.shard_name(number))
        checks = _checked(folder, layout, sealed, sorted(numbers), last)
        good = [sealed[number] for number, check in zip(sorted(numbers), checks, strict=True) if check.symbol == GOOD]
        pages = sum(entry.last + 1 - entry.first for entry in good)
        rows = sum(entry.rows for entry in good)
    extra = [name for name in names if name.startswith("part-") and name not in expected]
    checks += [ShardCheck(name, EXTRA, ("nothing refers to it",)) for name in extra]
    return Verification(tuple(checks), pages, rows)


def _checked(
    folder: Folder, layout: Layout, sealed: dict[int, ShardEntry], numbers: list[int], last: int | None
) -> list[ShardCheck]:
    def check(number: int) -> ShardCheck:
        entry = sealed.get(number)
        return _check_open(folder, layout, number, last) if entry is None else _check(folder, layout, entry, last)

    worth = sum(entry.file_bytes for entry in sealed.values()) >= _WORTH_A_PROCESS
    return spread(check, numbers, ShardCheck, None if worth else 1)


def _check(folder: Folder, layout: Layout, entry: ShardEntry, last: int | None) -> ShardCheck:
    name = layout.shard_name(entry.number)
    if not folder.is_file(name):
        return ShardCheck(name, MISSING, ("there is no such file",))
    pages = range(entry.first, entry.last + 1)
    reasons: list[str] = []
    if pages != layout.pages_of(entry.number, last):
        reasons.append(f"holds pages {entry.first} to {entry.last}, which are not those of its number")
    fault = hash_fault(folder, layout, entry)
    if fault:
        reasons.append(f"{name} {fault}")
    records = index_records(folder, pages)
    if len(records) < len(pages):
        page = entry.first + len(records)
        reasons.append(f"{INDEX}: offset {page * INDEX_RECORD_BYTES}: no record of page {page}")
    else:
        rows, size = sum(record.rows for record in records), sum(record.length for record in records)
        if (rows, size) != (entry.rows, entry.bytes):
            sums = f"{rows} rows of {size} bytes, not {entry.rows} of {entry.bytes}"
            reasons.append(f"{INDEX}: its pages {entry.first} to {entry.last} add up to {sums}")
    page_faults = _page_faults(folder, layout, entry.number, records, file_is_good=not fault)
    for shown, page_fault in enumerate(page_faults):
        reasons.append(page_fault if shown < _PAGES_SHOWN else "and more")
        if shown == _PAGES_SHOWN:
            break
    return ShardCheck(name, DAMAGED if reasons else GOOD, tuple(reasons))


def _page_faults(
    folder: Folder, layout: Layout, number: int, records: list[PageRecord], *, file_is_good: bool
) -> Iterator[str]:
    """Yield what is wrong with pages; where the file's own digest is right, the index is to blame."""
    name = layout.shard_name(number)
    try:
        for record, lines in stored_pages(folder, layout, number, records):
            if agrees(record, lines):
                continue
            if file_is_good:
                yield f"{INDEX}: offset {record.page * INDEX_RECORD_BYTES}: wrong record of page {record.page}"
            elif len(lines) < record.length:
                yield f"{name}: offset {record.offset}: page {record.page} is cut after {len(lines)} bytes"
            else:
                yield f"{name}: offset {record.offset}, {record.length} bytes: page {record.page} has changed"
    except DamagedError as error:
        yield error.message


def _check_open(folder: Folder, layout: Layout, number: int, last: int | None) -> ShardCheck:
    journal = Journal(folder, layout, number)
    if not folder.is_file(journal.name):
        return ShardCheck(journal.name, UNFINISHED, ("none of its pages is here yet",))
    content = journal.scan()
    if content.damage is not None:
        place = f"{journal.name}: offset {content.damage.offset}, {content.damage.length} bytes"
        return ShardCheck(journal.name, DAMAGED, (f"{place}: {content.damage.reason}",))
    pages = layout.pages_of(number, last)
    held = {record.page for record in content.records if record.page in pages}
    return ShardCheck(journal.name, UNFINISHED, (f"{len(held)} of {len(pages)} pages are here",))

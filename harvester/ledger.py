"""The call ledger: how many calls an operation has had, counted for all jobs and commands of this machine.

A platform grants an app so many calls of an operation a day, a month, or until a date. A small file in the user's state
folder, one per platform, app id and operation, holds the counts; whoever wants to call locks it and takes one.

What the page cache holds survives a killed process, but not a power cut. So calls are reserved in blocks, a block is
durable before its first call, and what is taken from it needs no sync. A file of an earlier boot counts all it had
reserved as used. The line is shorter than a sector of any disk and is overwritten in place, so it is never torn.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester import call_counts
from harvester.call_counts import Counts, beijing_day, next_reset
from harvester.errors import DamagedError, LocalError
from harvester.model import Dataset
from harvester.platforms import PLATFORMS
from harvester.slots import boot_id, state_folder
from harvester.store.durable import Folder, explained, read_at, sync, write_all

BLOCK: Final = 300  # calls reserved by one sync at most

_UNKNOWN_BOOT: Final = "-"
_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = 512  # bytes; more than a line


class Standing(Struct, frozen=True, kw_only=True):
    """A count as its allowance sees it: calls used and left, and when it starts anew, in Beijing time.

    ``left`` is None without an allowance, ``resets`` after a date that has passed.
    """

    used: int
    left: int | None
    resets: datetime | None


class Ledger:
    """The calls of one operation, and one dataset's allowance of them. Threads and processes may share it.

    Args:
        path: the file, from `ledger_path`; made by whatever first counts a call.
        allowance: calls until the reset; None to count without a bound.
        reset: "day", "month" or a date, as text.
        now: the platform's clock, in Unix seconds.
        block: calls to reserve by one sync at most; fewer the nearer the end is, and single calls at last.

    Raises:
        LocalError: from every method, with the file: it cannot be read or written, is damaged, or is a newer version's.
    """

    def __init__(
        self, path: Path, allowance: int | None, reset: str, now: Callable[[], float], block: int = BLOCK
    ) -> None:
        self._path = path
        self._allowance = allowance
        self._reset = reset
        self._now = now
        self._block = block
        self._boot = boot_id()
        self._mutex = threading.RLock()  # the lock on the file is the descriptor's, so it keeps no thread out
        self._fd = -1
        self._closed = False
        self._first: date | None = None  # the day of the first call that was taken here

    def use_clock(self, now: Callable[[], float]) -> None:
        """Tell days by another clock from now on: the platform's, as soon as it is known."""
        self._now = now

    def take(self) -> bool:
        """Count one more call, durably before it is sent; False if the allowance is used up.

        Without an allowance it is as `note`.
        """
        with self._locked() as fd:
            counts = self._read(fd)
            left = self._left(counts)
            if left == 0:
                return False
            singly = self._boot == _UNKNOWN_BOOT  # nobody could tell that there was a power cut
            if left is not None and not counts.ahead and not singly:
                counts = replace(counts, ahead=max(1, min(self._block, left // 4)))
                _write(fd, replace(counts, ready=False))
                sync(fd)
            _write(fd, counts.taken(1))
            if left is not None and singly:
                sync(fd)
            self._first = self._first or counts.day
            return True

    def give_back(self) -> None:
        """Say that a call which was taken was not sent.

        Which of the calls taken here it is, is not known. Where the first of them was taken on an earlier day, or in
        an earlier month, or before the date, that count stays as it is: rather one call too few than one too many.
        """
        with self._locked() as fd:
            if self._first is not None:
                _write(fd, self._read(fd).minus(self._first))

    def note(self, calls: int) -> None:
        """Count calls that ask for no allowance, so that others' allowances know of them; durable when closed."""
        with self._locked() as fd:
            _write(fd, self._read(fd).taken(calls))

    def set_used(self, calls: int) -> None:
        """Put the count right, durably; also in a file that is damaged, or whose day is in the future."""
        with self._locked() as fd:
            try:
                counts = self._read(fd).corrected(self._reset, calls)
            except LocalError:  # nothing is known of the other counts either
                counts = self._fresh().plus(calls)
            counts = replace(counts, day=beijing_day(self._now()), ahead=0)
            _write(fd, counts)
            os.ftruncate(fd, len(call_counts.line(counts)))
            sync(fd)

    def state(self) -> Standing:
        """Look without changing anything; no file means no call."""
        with explained("read", self._path):
            try:
                fd = os.open(self._path, os.O_RDONLY | _SAFE)
            except FileNotFoundError:
                counts = self._fresh()
            else:
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH)
                    counts = self._read(fd)
                finally:
                    os.close(fd)
        return Standing(
            used=counts.toward(self._reset), left=self._left(counts), resets=next_reset(self._reset, counts.day)
        )

    def close(self) -> None:
        """Make the counts durable, without what was reserved; a second call does nothing."""
        with self._mutex:
            try:
                if self._fd >= 0:
                    with self._locked() as fd:
                        _write(fd, replace(self._read(fd), ahead=0))
                        sync(fd)
            finally:
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd, self._closed = -1, True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Keep other threads and processes out; yields the descriptor."""
        with self._mutex, explained("count calls in", self._path):
            if self._closed:
                raise ValueError("the ledger is closed")
            if self._fd < 0:
                self._fd = _opened(self._path)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield self._fd
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _left(self, counts: Counts) -> int | None:
        return None if self._allowance is None else max(0, self._allowance - counts.toward(self._reset))

    def _fresh(self) -> Counts:
        today = beijing_day(self._now())
        return Counts(day=today, boot=self._boot).rolled(today, self._reset)

    def _read(self, fd: int) -> Counts:
        """Return the counts as they stand now, whoever wrote them last and when."""
        data = read_at(fd, _READ, 0)
        if not data:
            return self._fresh()
        way_out = "say how many calls the platform has counted: harvester quota JOB --set-used N"
        name, _, rest = data.decode("ascii", errors="replace").partition(" ")
        version = rest.partition(" ")[0]
        if name == call_counts.NAME and version != call_counts.VERSION:
            raise LocalError(
                f"{self._path} has version {version!r}, which this version of harvester does not know",
                hint=f"use the newer version that wrote it, or {way_out}",
            )
        counts = call_counts.parse(data)
        if counts is None:
            raise DamagedError(
                f"{self._path} is damaged: its {len(data)} bytes from offset 0 are no counts with their checksum",
                hint=way_out,
            )
        return counts.settled(self._boot).rolled(beijing_day(self._now()), self._reset)


def ledger_path(state: Path, platform: str, app_id: str, operation: str) -> Path:
    """Return the file of an operation: named by a hash, for the app's id may be confidential."""
    return state / f"calls-{sha256(chr(0).join((platform, app_id, operation)).encode()).hexdigest()[:24]}"


def path_of(dataset: Dataset, state: Path) -> Path:
    """Return the file in which the calls of a dataset are counted."""
    platform = PLATFORMS[dataset.app.platform]
    return ledger_path(state, platform.NAME, dataset.app.id, platform.operation(dataset))


def ledger_of(dataset: Dataset, state: Path, now: Callable[[], float]) -> Ledger:
    """Return the ledger of a dataset in the user's state folder, with its allowance; ``now`` is in Unix seconds."""
    return Ledger(path_of(dataset, state), dataset.max_calls, dataset.calls_reset, now)


def counted_calls(dataset: Dataset, closing: ExitStack) -> Ledger | None:
    """Return where the calls of a dataset are counted: if it has an allowance, or another job's dataset had one."""
    state = state_folder(os.environ)
    if dataset.max_calls is None and not path_of(dataset, state).exists():
        return None
    ledger = ledger_of(dataset, state, time.time)
    closing.callback(ledger.close)
    return ledger


def _write(fd: int, counts: Counts) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    write_all(fd, call_counts.line(counts))


def _opened(path: Path) -> int:
    """Open the file, making it durably: one that is gone after a power cut would let everything start anew."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
    try:
        if not os.fstat(fd).st_size:
            _sync_names(path.parent.resolve())
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sync_names(folder: Path) -> None:
    """Sync a folder and those above it that may be as new, whoever made them."""
    own = folder.stat()
    for each in (folder, *folder.parents):
        found = each.stat()
        if (found.st_dev, found.st_uid) != (own.st_dev, own.st_uid):
            break
        with Folder(each) as opened:
            opened.sync()

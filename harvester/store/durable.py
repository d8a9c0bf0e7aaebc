"""Files that are there after a power cut: sync, atomic replacement, a folder held open, the lock.

The only place where an ``OSError`` of the file system becomes an error of ours. A failed write or sync is never tried
again: what a second sync says about the first one's data is nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import orjson

from harvester.errors import DamagedError, LocalError, LockedError

TEMPORARY: Final = ".tmp-"
"""What the name of every file begins with while nothing may refer to it."""

_MODE: Final = 0o666  # less the umask
_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_BLOCK: Final = 2**20
LINGER: Final = 10.0  # seconds that processes of a killed run may take to end
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_HINTS: Final = {
    errno.ENOSPC: "free some space, then run again; everything fetched so far is kept",
    errno.EDQUOT: "free some space or raise the quota, then run again; everything fetched so far is kept",
    errno.EACCES: "make the folder writable for this user, then run again",
    errno.EPERM: "make the folder writable for this user, then run again",
    errno.EROFS: "the file system is mounted read-only; choose another place with `--output DIR`",
    errno.ELOOP: "replace the symbolic link by a real file or folder",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`) or lower `concurrency`",
    errno.ENOLCK: "the file system has no locks; choose another place with `--output DIR`",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), then run again",
    errno.EIO: "look at the system's log: the disk reports errors",
}


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``LocalError`` that says what was tried on which file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0, "")
        raise LocalError(f"cannot {doing} {path}: {reason}", hint=hint) from error


class LostError(DamagedError):
    """Damage that reading pages again cannot mend: what says to which dataset they belong is gone."""


def repair_hint(snapshot: Path) -> str:
    """Say how to go on when files of a snapshot are not what was written, and asking for pages again mends that."""
    return f"`{_run(snapshot, '--repair')}` fetches what is damaged, and nothing else, again"


def fresh_hint(snapshot: Path) -> str:
    """Say how to go on when a snapshot cannot be mended."""
    return f"`{_run(snapshot, '--fresh')}` makes a new snapshot; this one stays as it is"


def _run(snapshot: Path, option: str) -> str:
    """Return a command for the dataset that a snapshot is of; its job file is not known here."""
    return f"harvester run JOB --dataset {shlex.quote(snapshot.resolve().parent.name)} {option}"


def uninterrupted(change: Callable[[], object], done: type[OSError]) -> None:
    """Change names, once more where a signal has interrupted that: Python does so for calls on open files only.

    Args:
        change: the call.
        done: what it raises when it was interrupted after it had happened.
    """
    settled: tuple[type[OSError], ...] = ()
    while True:
        try:
            change()
        except InterruptedError:
            settled = (done,)
        except settled:
            return
        else:
            return


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however often the system takes only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read ``size`` bytes from ``offset``; fewer only at the end of the file."""
    data = os.pread(fd, size, offset)
    while data and len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def sync(fd: int) -> None:
    """Return when the data of a file, and its length, would survive a power cut."""
    if sys.platform == "darwin":
        # fsync(2) of macOS: it does not make the drive empty its own buffer, F_FULLFSYNC does.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


class Folder:
    """A directory held open; files are reached by plain names inside it and never through a symbolic link.

    Raises:
        LocalError: from every method, with the file and the system's words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with explained("open folder", path):
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def names(self) -> list[str]:
        """Return the names in the folder, sorted."""
        with explained("list", self.path):
            return sorted(os.listdir(self._fd))  # noqa: PTH208 - pathlib cannot list a descriptor

    def stat(self, name: str) -> os.stat_result | None:
        """Look at a file itself, not at what a link points to; None if there is none."""
        with explained("look at", self.path / name):
            try:
                return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def is_file(self, name: str) -> bool:
        """Tell whether there is a regular file of this name."""
        found = self.stat(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    @contextmanager
    def opened(self, name: str, flags: int, doing: str) -> Iterator[int]:
        """Open a file for the block and close it after; ``doing`` is the verb for messages."""
        with explained(doing, self.path / name):
            fd = os.open(name, flags | _SAFE, _MODE, dir_fd=self._fd)
            try:
                yield fd
            finally:
                os.close(fd)

    def scratch(self) -> int:
        """Return the descriptor of an empty file without a name: closed, it is gone, however the process ends."""
        name = f"{TEMPORARY}scratch"
        self.unlink(name)
        with self.opened(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, "write") as fd:
            self.unlink(name)
            return os.dup(fd)

    def read(self, name: str) -> bytes | None:
        """Return the whole content of a small file; None if there is none."""
        if self.stat(name) is None:
            return None
        with self.opened(name, os.O_RDONLY, "read") as fd:
            return read_at(fd, os.fstat(fd).st_size, 0)

    @contextmanager
    def replacing(self, name: str) -> Iterator[int]:
        """Write a file under a temporary name in the block; after it the file is durable under its own name."""
        temporary = TEMPORARY + name
        with self.opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "write") as fd:
            yield fd
            sync(fd)
        self.rename(temporary, name)

    def replace(self, name: str, data: bytes) -> None:
        """Give a file new content: after a stop at any time it holds either the old or the new."""
        with self.replacing(name) as fd:
            write_all(fd, data)

    def take(self, name: str, source: Folder, *, shared: bool) -> None:
        """Have a file of another folder here too; its name is durable after the next ``sync``.

        Args:
            name: of the file, there and here.
            source: the other folder.
            shared: it may be one file with two names, into which nobody writes any more; it is copied all the same
                where the file system has no second names.
        """
        if shared and self._link(name, source):
            return
        with source.opened(name, os.O_RDONLY, "read") as old, self.replacing(name) as new:
            while block := os.read(old, _BLOCK):
                write_all(new, block)

    def _link(self, name: str, source: Folder) -> bool:
        with explained("write", self.path / name):
            try:
                uninterrupted(partial(os.link, source.path / name, name, dst_dir_fd=self._fd), FileExistsError)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
        return True

    def replace_link(self, name: str, target: str) -> bool:
        """Give a symbolic link a new target; False where the file system has no such links."""
        temporary = TEMPORARY + name
        self.unlink(temporary)
        with explained("write", self.path / name):
            try:
                uninterrupted(partial(os.symlink, target, temporary, dir_fd=self._fd), FileExistsError)
            except OSError as error:
                if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                    return False
                raise
        self.rename(temporary, name)
        return True

    def rename(self, old: str, new: str) -> None:
        """Rename over whatever has the new name, durably."""
        with explained("write", self.path / new):
            uninterrupted(partial(os.rename, old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd), FileNotFoundError)
        self.sync()

    def unlink(self, name: str) -> None:
        """Delete a file if it is there; durable after the next ``sync``."""
        with explained("delete", self.path / name):
            try:
                uninterrupted(partial(os.unlink, name, dir_fd=self._fd), FileNotFoundError)
            except FileNotFoundError:
                return

    def sync(self) -> None:
        """Make names that were added, changed or removed durable."""
        with explained("sync folder", self.path):
            os.fsync(self._fd)


def make_folder(path: Path) -> None:
    """Create a folder and those above it that are missing, durably.

    One that is there already may be the work of a process that was killed before it was durable: where this user may
    have created it, its name is synced all the same.
    """
    with explained("create folder", path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            uninterrupted(partial(folder.mkdir, exist_ok=True), FileExistsError)
    for folder in reversed(missing or [path]):
        above = folder.resolve().parent
        if missing or os.access(above, os.R_OK | os.W_OK):
            with Folder(above) as opened:
                opened.sync()


@contextmanager
def locked(path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[None]:
    """Hold a lock file for the block. The kernel lets go of it when the process ends, however that happens.

    The file is never deleted: a lock on a deleted file excludes nobody.

    Raises:
        LockedError: somebody else holds it; the message says who, and nothing was changed.
        LocalError: the file cannot be opened or locked.
    """
    with explained("lock", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, _MODE)
    try:
        _take(fd, path, now)
        yield
    finally:
        os.close(fd)


@contextmanager
def sharing(path: Path) -> Iterator[None]:
    """Hold a lock file for the block together with others.

    Raises:
        LockedError: somebody waits until nobody holds it.
        LocalError: the file cannot be opened or locked.
    """
    with explained("lock", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, _MODE)
    try:
        with explained("lock", path):
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LockedError(f"{path.parent} is being taken over") from error
        yield
    finally:
        os.close(fd)


def nobody_holds(path: Path) -> None:
    """Wait until nobody shares a lock file: processes of a run that was killed are about to end.

    Raises:
        LockedError: somebody holds it for ``LINGER`` seconds.
        LocalError: the file cannot be opened or locked.
    """
    if not path.exists():
        return
    with explained("lock", path):
        fd = os.open(path, os.O_RDWR | _SAFE)
        try:
            until = time.monotonic() + LINGER
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    if time.monotonic() > until:
                        raise LockedError(
                            f"{path.parent} is in use by a process of a run that has ended",
                            hint="stop that process, or wait until it has ended",
                        ) from error
                    time.sleep(0.01)
                else:
                    return
        finally:
            os.close(fd)


def _take(fd: int, path: Path, now: Callable[[], datetime]) -> None:
    with explained("lock", path):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{path.parent} is in use by {_owner(fd)}",
                hint="wait until that run has ended, or stop it",
            ) from error
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": now().isoformat(timespec="seconds")}
        os.ftruncate(fd, 0)
        write_all(fd, orjson.dumps(owner) + b"\n")


def _owner(fd: int) -> str:
    """Put the owner of a lock in words; whoever just took it may not have written its name yet."""
    try:
        owner: Any = orjson.loads(read_at(fd, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"

"""The moments at which an app may call, shared by all processes of this machine without being told of each other.

A small file in the user's state folder, one per platform, address and app id, holds the next free moment. Whoever
wants to call locks it, takes a block of at most a burst, writes the next free moment back and unlocks it. The kernel
releases the lock of a process that dies; what is lost with it is one block.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

FAR: Final = 3600.0  # seconds; a moment further ahead is no promise of this boot, but rubbish
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_FORM: Final = "harvester-slots 1 {boot:36} {free:020.6f} {resume:020.6f}\n"
_SIZE: Final = len(_FORM.format(boot="", free=0, resume=0))


class Slots(Protocol):
    """Where blocks come from. Times are readings in seconds of a clock that all processes share."""

    def take(self, now: float, count: int, interval: float, slack: float) -> float:
        """Reserve ``count`` permits and return their moment, at most ``slack`` seconds in the past."""

    def hold(self, until: float) -> None:
        """Give nothing out before a moment."""

    def close(self) -> None:
        """Let go of whatever is held."""


class SharedSlots:
    """The slots of an app on this machine.

    Args:
        path: the file; made if it is not there, and its folder.

    Raises:
        OSError: it cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._boot = boot_id()

    def take(self, now: float, count: int, interval: float, slack: float) -> float:
        """Reserve the next free block, whoever took the last one."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            free, resume = self._read(now)
            start = max(free, now - slack, resume)
            self._write(start + count * interval, resume)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        return start

    def hold(self, until: float) -> None:
        """Give nothing out before a moment, to any process."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            free, resume = self._read(until)
            self._write(free, max(resume, until))
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _read(self, now: float) -> tuple[float, float]:
        """Return the next free moment and the end of the pause; zeros if the file says nothing of this boot."""
        words = os.pread(self._fd, _SIZE, 0).decode("ascii", errors="replace").split()
        try:
            _, version, boot, free, resume = words
            known = (float(free), float(resume))
        except ValueError:
            return 0.0, 0.0
        if version != "1" or boot != self._boot or not all(0 <= moment <= now + FAR for moment in known):
            return 0.0, 0.0
        return known

    def _write(self, free: float, resume: float) -> None:
        os.pwrite(self._fd, _FORM.format(boot=self._boot, free=free, resume=resume).encode(), 0)


def path_for(state: Path, platform: str, address: str, app_id: str) -> Path:
    """Return the file of an app: named by a hash, for its id may be confidential."""
    return state / f"slots-{sha256(chr(0).join((platform, address, app_id)).encode()).hexdigest()[:24]}"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's state folder: ``$XDG_STATE_HOME/harvester``, else ``~/.local/state/harvester``."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "harvester"


def boot_id() -> str:
    """Return what tells this start of the machine from others; ``-`` where the system does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()[:36] or "-"
    except OSError:
        return "-"  # a system without one; its clock starts anew at boot, and FAR sorts most of the rest out

"""A disk that remembers the order in which it was written, so that a loss of power can be had at any moment.

A file system of its own (FUSE) holds one file, and every write and sync of it is kept. A real file system made in that
file, as a loop device, then leaves its writes here one by one, with its barriers between them; a disk may have put off
any of those since the last barrier. Needs root; no library is used: the protocol is that of ``linux/fuse.h``, 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

MAX_WRITE: Final = 2**17
_REQUEST: Final = struct.Struct("<IIQQIIIHH")  # fuse_in_header
_ANSWER: Final = struct.Struct("<IiQ")  # fuse_out_header
_INIT: Final = struct.Struct("<IIIIHHIIHH32x")  # fuse_init_out
_ATTRIBUTES: Final = struct.Struct("<QIIQQQQQQIIIIIIIIII")  # fuse_attr_out
_PLACE: Final = struct.Struct("<QQI")  # the beginning of fuse_read_in and fuse_write_in
_WRITE_HEAD: Final = 40  # bytes; fuse_write_in
_GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _RELEASE, _FSYNC, _FLUSH, _INITIALISE = 3, 4, 14, 15, 16, 18, 20, 25, 26
_UNANSWERED: Final = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET


class Put(NamedTuple):
    """Bytes that were written to the disk."""

    offset: int
    data: bytes


class BlockLog:
    """A file at ``path`` that keeps what is done to it, from ``content`` on.

    Attributes:
        steps: the writes in their order, and None for each sync.

    Raises:
        OSError: it cannot be mounted.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.steps: list[Put | None] = []
        self._first = content
        self._content = bytearray(content)
        self._libc = ctypes.CDLL(None, use_errno=True)
        path.touch()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode={stat.S_IFREG:o},user_id=0,group_id=0,allow_other"
        if self._libc.mount(b"block_log", bytes(path), b"fuse", 0, options.encode()):
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), f"cannot mount {path}")
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def close(self) -> None:
        """Unmount it."""
        self._libc.umount2(bytes(self.path), 0)
        self._server.join()
        os.close(self._fd)

    def image(self, number: int, chance: random.Random | None = None) -> bytes:
        """Return what is on the disk if power is lost after so many steps.

        Args:
            number: of steps.
            chance: which of the writes since the last sync are there; all of them without it.
        """
        done = self.steps[:number]
        certain = max((place for place, step in enumerate(done) if step is None), default=0)
        disk = bytearray(self._first)
        for place, step in enumerate(done):
            if step is not None and (place < certain or chance is None or chance.random() < 0.5):
                disk[step.offset : step.offset + len(step.data)] = step.data
        return bytes(disk)

    def _serve(self) -> None:
        while True:
            try:
                self._serve_one(os.read(self._fd, 2 * MAX_WRITE))
            except FileNotFoundError:
                continue  # whoever asked was interrupted meanwhile
            except OSError as error:
                if error.errno == errno.ENODEV:  # it was unmounted
                    return
                raise

    def _serve_one(self, request: bytes) -> None:
        _, call, unique, *_ = _REQUEST.unpack_from(request)
        if call not in _UNANSWERED:
            found = self._answer(call, request[_REQUEST.size :])
            code, data = (-errno.ENOSYS, b"") if found is None else (0, found)
            os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(data), code, unique) + data)

    def _answer(self, call: int, given: bytes) -> bytes | None:
        """Return the answer to a request; None if it is for nothing that this file can do."""
        if call == _INITIALISE:
            return _INIT.pack(7, 31, 0, 0, 16, 16, MAX_WRITE, 1, MAX_WRITE // 4096, 0)
        if call in {_GETATTR, _SETATTR}:
            size, mode = len(self._content), stat.S_IFREG | 0o600
            return _ATTRIBUTES.pack(3600, 0, 0, 1, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
        if call == _OPEN:
            return bytes(16)
        if call == _READ:
            _, offset, size = _PLACE.unpack_from(given)
            return bytes(self._content[offset : offset + size])
        if call == _WRITE:
            _, offset, size = _PLACE.unpack_from(given)
            data = given[_WRITE_HEAD : _WRITE_HEAD + size]
            self._content[offset : offset + size] = data
            self.steps.append(Put(offset, data))
            return struct.pack("<II", size, 0)
        if call == _FSYNC:
            self.steps.append(None)
            return b""
        return b"" if call in {_FLUSH, _RELEASE} else None


def formatted(path: Path, size: int) -> bytes:
    """Return the content of an empty ext4 file system of so many bytes; ``path`` is used to make it.

    Raises:
        CalledProcessError: it cannot be made.
    """
    path.write_bytes(b"")
    os.truncate(path, size)
    now = "lazy_itable_init=0,lazy_journal_init=0"  # else the system goes on with that afterwards
    system("mkfs.ext4", "-q", "-F", "-E", now, "-J", "size=4", str(path))
    return path.read_bytes()


@contextmanager
def mounted(image: Path, options: str = "") -> Iterator[Path]:
    """Mount a file system for the block, beside its image; its journal is replayed if it has to be.

    Raises:
        CalledProcessError: it cannot be mounted.
    """
    place = image.with_name(f"{image.name}.mounted")
    place.mkdir(exist_ok=True)
    system("mount", "-o", f"loop,noatime{options and ','}{options}", str(image), str(place))
    try:
        yield place
    finally:
        system("umount", str(place))


def system(*command: str) -> None:
    """Run a command of the system's."""
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - given by the tests

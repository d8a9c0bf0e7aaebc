"""Which rows are there twice: digests counted exactly, in bounded memory, whatever their number."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from struct import iter_unpack
from typing import Final, NamedTuple, Self

import msgspec
from msgspec import Raw

from harvester.store.durable import Folder, explained, read_at, write_all

DIGEST_BYTES: Final = 16
MEMORY: Final = 64 * 2**20

_PARTS: Final = 64
_SHIFT: Final = 2  # bits of the first byte that do not choose the part
_COUNTING_BYTES: Final = 160  # that a digest takes in the set or dictionary that counts it, at the worst moment
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_SCAN: Final = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)


class Counted(NamedTuple):
    """How often digests occur: ``doubled`` is the number of those that occur more than once.

    ``total`` counts all that were added, ``without`` how often there was none to add.
    """

    total: int
    distinct: int
    doubled: int
    without: int

    @property
    def surplus(self) -> int:
        """How many would have to go for each to occur once."""
        return self.total - self.distinct


class KeyCounter:
    """Counts digests of 16 bytes; those that memory has no room for lie in a file without a name in the folder.

    They are sorted into parts by their first bits, so that a part can be counted by itself. Nothing of it survives
    ``close``, an error or a kill.

    Args:
        folder: where there is room: 16 bytes a digest.
        memory: bytes that it may take, more or less.
    """

    def __init__(self, folder: Path, memory: int = MEMORY) -> None:
        self._path = folder
        self._fd = -1
        self._parts = [bytearray() for _ in range(_PARTS)]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]  # offset and bytes in the file
        self._length = 0
        self._total = 0
        self._without = 0
        self._room = max(1, memory // (2 * DIGEST_BYTES))  # half of it; the rest is for growing and writing
        self._free = self._room
        self._at_once = max(1, memory // _COUNTING_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, which is gone then; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, digest: bytes | None) -> None:
        """Count a digest; None stands for a row without one.

        Raises:
            LocalError: the disk is full or broken.
        """
        if digest is None:
            self._without += 1
            return
        self._parts[digest[0] >> _SHIFT] += digest
        self._total += 1
        self._free -= 1
        if not self._free:
            self._spill()

    def result(self) -> Counted:
        """Return the counts of all that was added until now.

        Raises:
            LocalError: the disk is full or broken.
        """
        if self._fd >= 0:
            self._spill()  # makes room for counting
        distinct = doubled = 0
        for part in range(_PARTS):
            passes = -(-self._size(part) // (DIGEST_BYTES * self._at_once))
            for turn in range(passes):
                once, more = _count(self._digests(part, turn, passes))
                distinct += once + more
                doubled += more
        return Counted(self._total, distinct, doubled, self._without)

    def _size(self, part: int) -> int:
        return len(self._parts[part]) + sum(size for _, size in self._extents[part])

    def _spill(self) -> None:
        """Move what memory holds to the file."""
        with explained("write", self._path):
            if self._fd < 0:
                with Folder(self._path) as folder:
                    self._fd = folder.scratch()
            for number, part in enumerate(self._parts):
                if part:
                    write_all(self._fd, bytes(part))
                    self._extents[number].append((self._length, len(part)))
                    self._length += len(part)
                    self._parts[number] = bytearray()
        self._free = self._room

    def _digests(self, part: int, turn: int, passes: int) -> Iterator[bytes]:
        """Yield those digests of a part whose turn it is: one in ``passes``, chosen by bytes that are evenly spread."""
        for block in self._blocks(part):
            digests = map(itemgetter(0), iter_unpack(f"{DIGEST_BYTES}s", block))
            if passes == 1:
                yield from digests
            else:
                yield from (digest for digest in digests if int.from_bytes(digest[1:5]) % passes == turn)

    def _blocks(self, part: int) -> Iterator[bytes]:
        for offset, size in self._extents[part]:
            with explained("read", self._path):
                yield read_at(self._fd, size, offset)
        yield bytes(self._parts[part])


def row_key(line: bytes, columns: tuple[str, ...]) -> bytes | None:
    """Return the digest of a row's values in the named columns, as they were sent: 1.10 and 1.1 are different.

    Args:
        line: the row, a JSON text.
        columns: their names, as JSON means them: escapes are undone.

    Returns:
        16 bytes; None if the row is no object, or lacks one of the columns. Of a doubled key the last counts.
    """
    try:
        values = _members(line)
        # No JSON text of one line holds a line feed, so none can be taken for two.
        return sha256(b"\n".join([values[column] for column in columns])).digest()[:DIGEST_BYTES]
    except (LookupError, ValueError, RecursionError):
        return None


def _members(line: bytes) -> Mapping[str, Raw | bytes]:
    """Split an object into its members, each with the text of its value.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        return _OBJECT.decode(line)
    except msgspec.ValidationError:
        raise ValueError("no object") from None
    except msgspec.DecodeError:  # a lone surrogate, which JSON allows and msgspec does not
        return _scanned(line.decode())


def _scanned(text: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    at = text.index("{") + 1
    while text[at] != "}":
        key, colon = _SCAN.raw_decode(text, at)
        _, end = _SCAN.raw_decode(text, colon + 1)
        members[key] = text[colon + 1 : end].encode()
        at = end + (text[end] == ",")
    return members


def _count(digests: Iterator[bytes]) -> tuple[int, int]:
    """Return how many digests occur once, and how many more often."""
    counts = Counter(digests)
    more = sum(count > 1 for count in counts.values())
    return len(counts) - more, more

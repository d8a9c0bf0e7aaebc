"""The file of a finished shard: lines in, compressed and hashed bytes on disk, and back.

Compression is deterministic for one version of its library only; what is promised are the uncompressed lines.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from harvester.errors import DamagedError, UsageError
from harvester.shard import Compression
from harvester.store.durable import write_all

_WRITE_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 20
_GZIP_WBITS: Final = 31  # zlib's number for a gzip frame; it writes neither a name nor a time into the header
_ZSTD_LEVEL: Final = 3


class Written(NamedTuple):
    """What was written: ``bytes`` and ``content_sha256`` of the lines, the other two of the file."""

    bytes: int
    content_sha256: str
    file_bytes: int
    sha256: str


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def require(compression: Compression) -> None:
    """Make sure that a compression can be used.

    Raises:
        UsageError: its library is not installed.
    """
    if compression == "zstd":
        try:
            import zstandard  # noqa: F401, PLC0415 - an extra; imported only by those who asked for it
        except ImportError as error:
            raise UsageError(
                'cannot use compression = "zstd": the library is not installed',
                hint="run pip install '.[zstd]' in the clone that harvester was installed from, or choose "
                '"gzip" or "none"',
            ) from error


def write_shard(fd: int, pieces: Iterable[bytes], compression: Compression) -> Written:
    """Write a shard, holding no more than about a megabyte and one piece at a time.

    Raises:
        OSError: the file cannot be written.
        UsageError: the compression's library is not installed.
    """
    encoder = _encoder(compression)
    stored, content = sha256(), sha256()
    file_bytes = length = 0
    for block in blocks(pieces):
        length += len(block)
        data = block
        if encoder is not None:
            content.update(block)
            data = encoder.compress(block)
        file_bytes += len(data)
        stored.update(data)
        write_all(fd, data)
    if encoder is None:
        return Written(length, "", file_bytes, stored.hexdigest())
    data = encoder.flush()
    stored.update(data)
    write_all(fd, data)
    return Written(length, content.hexdigest(), file_bytes + len(data), stored.hexdigest())


def read_shard(fd: int, compression: Compression, name: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a shard in blocks.

    Raises:
        OSError: the file cannot be read.
        DamagedError: it does not decompress; the message says where in the file.
        UsageError: the compression's library is not installed.
    """
    stored = file_blocks(fd)
    if compression == "none":
        yield from stored
        return
    decoder, errors = _decoder(compression)
    offset = 0
    for block in stored:
        try:
            data = decoder.decompress(block)
        except errors as error:
            raise DamagedError(f"{name} does not decompress: near offset {offset}: {error}") from error
        yield data
        offset += len(block)
    if not decoder.eof:
        raise DamagedError(f"{name} does not decompress: it ends too early, after {offset} bytes")


def file_digest(fd: int) -> str:
    """Return the SHA-256 of a file as stored, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = sha256()
    for block in file_blocks(fd):
        digest.update(block)
    return digest.hexdigest()


def cut(blocks: Iterable[bytes], sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut a stream of bytes into pieces of the given sizes; the first that is short is the last."""
    held, at = b"", 0
    source = iter(blocks)
    for size in sizes:
        if len(held) - at < size:
            parts, length = [held[at:]], len(held) - at
            while length < size:
                block = next(source, None)
                if block is None:
                    yield b"".join(parts)
                    return
                parts.append(block)
                length += len(block)
            held, at = b"".join(parts), 0
        yield held[at : at + size]
        at += size


def _encoder(compression: Compression) -> _Encoder | None:
    if compression == "none":
        return None
    if compression == "gzip":
        return zlib.compressobj(wbits=_GZIP_WBITS)
    require(compression)
    import zstandard  # noqa: PLC0415 - an extra; imported only by those who asked for it

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()


def _decoder(compression: Compression) -> tuple[_Decoder, tuple[type[Exception], ...]]:
    if compression == "gzip":
        return zlib.decompressobj(wbits=_GZIP_WBITS), (zlib.error,)
    require(compression)
    import zstandard  # noqa: PLC0415 - an extra; imported only by those who asked for it

    return zstandard.ZstdDecompressor().decompressobj(), (zstandard.ZstdError,)


def blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces so that every write is worth its call."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def file_blocks(fd: int) -> Iterator[bytes]:
    """Yield what follows in a file."""
    while block := os.read(fd, _READ_BYTES):
        yield block

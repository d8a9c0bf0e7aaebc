"""The body of an answer, put together while it arrives: decoded, measured, and proven to be whole.

A body is whole if HTTP says where it ends (a length, a last chunk; the client sees to it that they are kept) or if it
is compressed and its stream has come to the end mark and the checksum. A connection that merely closes proves nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

LIMIT: Final = 32 * 2**20  # bytes of one body, counted as sent and as decoded
STEP: Final = 2**18  # bytes that are decoded in one go
_ZLIB: Final = 15  # window bits, as zlib has them: with a zlib header
_RAW: Final = -15  # without any header
_GZIP: Final = 31  # with a gzip header and trailer


class BodyError(Exception):
    """The body is not one that may be used.

    Args:
        text: why, for people.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Body:
    """One body on its way.

    ``gzip`` and ``deflate`` are decoded, the latter with the zlib header of RFC 9110, 8.4.1.2, and without it, as some
    servers send it. Data after the end of the compressed stream are an error, also if they are a second stream: that
    form is legal for files, and nobody's for answers.

    Args:
        coding: the Content-Encoding; empty if there is none.
        transfer: the Transfer-Encoding; empty if there is none.
        framed: whether the end need not be proven by the body itself.

    Attributes:
        received: bytes as sent, without the framing of chunks.
        size: bytes as decoded, which is what the body holds in memory.

    Raises:
        BodyError: the encoding is none that can be decoded.
    """

    def __init__(self, coding: str = "", transfer: str = "", *, framed: bool) -> None:
        self._packed = False
        self._decoder: zlib._Decompress | None = None
        if coding and (coding := coding.strip().lower()) != "identity":
            if coding not in {"gzip", "x-gzip", "deflate"}:
                raise BodyError(f"the body's encoding was not asked for and cannot be read: {coding[:40]!a}")
            self._packed = True
            if coding != "deflate":
                self._decoder = zlib.decompressobj(_GZIP)
        if transfer and transfer.strip().lower() not in {"chunked", "identity"}:
            raise BodyError(f"the body's transfer encoding was not asked for and cannot be read: {transfer[:40]!a}")
        self._framed = framed
        self._parts: list[bytes] = []
        self.received = 0
        self.size = 0

    def feed(self, part: bytes) -> Iterator[None]:
        """Take what has come; returns to the caller after every ``STEP`` bytes decoded, so that growth can be curbed.

        Raises:
            BodyError: the body is too large, damaged, or does not end where it says.
        """
        self.received += len(part)
        if self.received > LIMIT:
            raise _too_large()
        if not self._packed:
            self._parts.append(part)
            self.size = self.received
            yield
            return
        if self._decoder is None:  # deflate: a zlib header names method 8 in its low four bits
            self._decoder = zlib.decompressobj(_ZLIB if part[0] & 15 == 8 else _RAW)  # noqa: PLR2004 - RFC 1950, CM
        more = True
        while more:
            try:
                piece = self._decoder.decompress(part, STEP)
            except zlib.error:
                raise BodyError("the compressed body is damaged") from None
            part = self._decoder.unconsumed_tail
            more = bool(part) or len(piece) == STEP  # a full piece may leave some of itself in the decoder
            self.size += len(piece)
            if self.size > LIMIT:
                raise _too_large()
            self._parts.append(piece)
            yield
        if self._decoder.unused_data:
            raise BodyError("more follows after the end of the compressed body")

    def finish(self) -> bytes:
        """Return the whole body, when nothing more will come.

        Raises:
            BodyError: it is not there to its end, or there is no telling.
        """
        proven = self._decoder is not None and self._decoder.eof
        if self._packed and self.received and not proven:
            raise BodyError("the compressed body was cut short")
        if not self._framed and not proven:
            raise BodyError("the answer does not say where it ends, so that nothing proves it whole")
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def _too_large() -> BodyError:
    return BodyError(f"the body is larger than {LIMIT // 2**20} MiB")

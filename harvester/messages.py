"""What the processes of one run tell each other: which block of pages to fetch, and what has come of it.

A block is a whole shard of one dataset. It is lent to a child process, which tells of its pages as they come and ends
it in one of three ways: the shard's file is written, its journal is left with pages missing, or the disk has failed.
Nothing here waits: values to bytes, each message after its length, and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Format
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from harvester.shard import Layout, ShardEntry

M = TypeVar("M")

_LENGTH: Final = Format(">I")


class Block(Struct, frozen=True, kw_only=True, tag=True):
    """To a child: fetch the pages of a shard.

    Attributes:
        number: of the block, never the same in one run.
        dataset: its name.
        charset: with which its pages are read; empty while every byte was ASCII.
        echoes: whether a page that states another number than its own is not believed.
        path: of the snapshot's folder.
        owner: what the lock file of the dataset says; as long as it does, the lender is alive.
        layout: how pages are laid out.
        shard: the number of the shard.
        here: the pages of the shard that are in its journal; all the others are wanted.
    """

    number: int
    dataset: str
    charset: str
    echoes: bool
    path: str
    owner: bytes
    layout: Layout
    shard: int
    here: list[int]


class Recall(Struct, frozen=True, tag=True):
    """To a child: send nothing more for a block, and end it."""

    number: int


class Told(Struct, frozen=True, array_like=True, gc=False):
    """What has to be known of a page that came: as ``Page``, without its lines."""

    page: int
    rows: int
    digest: bytes
    number: int | None = None
    size: int | None = None
    total: int | None = None


class Report(Struct, frozen=True, kw_only=True, tag=True):
    """From a child: what has happened to a block's pages since the last report.

    Attributes:
        number: of the block.
        pages: that came, and will be durable before the block ends.
        calls: that were made.
        refused: calls over the limit, by code and text.
        returned: pages that the child gives back unanswered.
    """

    number: int
    pages: list[Told]
    calls: int
    refused: list[tuple[str, str, int]]
    returned: list[int]


class Sealed(Struct, frozen=True, tag=True):
    """From a child: the file of a block's shard is durable; ``records`` are those of its pages for the index."""

    number: int
    entry: ShardEntry
    records: bytes


class Left(Struct, frozen=True, tag=True):
    """From a child: a block has ended with pages missing; what came is durable in its journal. ``why`` may be empty."""

    number: int
    why: str = ""


class Failed(Struct, frozen=True, tag=True):
    """From a child: this machine has failed it; what is durable of a block is unknown."""

    number: int
    message: str
    hint: str = ""


ToChild = Block | Recall
FromChild = Report | Sealed | Left | Failed

_ENCODER: Final = msgspec.msgpack.Encoder()


def encoded(message: ToChild | FromChild) -> bytes:
    """Return a message after its length."""
    data = _ENCODER.encode(message)
    return _LENGTH.pack(len(data)) + data


class Inbox(Generic[M]):
    """Puts messages together from what a stream brings.

    Args:
        kind: the union of the messages that may come.
    """

    def __init__(self, kind: Any) -> None:  # noqa: ANN401 - the type of a union is no `type`
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[M]:
        """Take in bytes; yield the messages that are whole now.

        Raises:
            msgspec.DecodeError: they are no messages.
        """
        data, at = self._rest + data, 0
        while len(data) >= at + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            if len(data) < end:
                break
            yield self._decoder.decode(data[at + _LENGTH.size : end])
            at = end
        self._rest = data[at:]

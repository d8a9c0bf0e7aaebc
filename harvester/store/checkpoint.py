"""The checkpoint of an open snapshot, to and from bytes; its checksum covers every byte that means something.

Nothing here opens a file. FORMAT.md, "checkpoint.json", is the rule.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from harvester.errors import LocalError
from harvester.shard import Layout, ShardEntry
from harvester.store.durable import LostError, fresh_hint

CHECKPOINT: Final = "checkpoint.json"
FORMAT: Final = "harvester-checkpoint"
VERSION: Final = 1


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is needed to continue a snapshot, apart from the journals themselves."""

    identity: dict[str, Any]
    created: str
    layout: Layout | None
    end: dict[str, Any] | None
    notes: dict[str, Any]
    sealed: list[ShardEntry]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    sha256: str
    body: msgspec.Raw


def encode(checkpoint: Checkpoint) -> bytes:
    """Return the content of ``checkpoint.json``.

    Raises:
        TypeError: the caller's ``identity``, ``end`` or ``notes`` hold what JSON cannot.
    """
    body = orjson.dumps(msgspec.to_builtins(checkpoint))
    head = {"format": FORMAT, "version": VERSION, "sha256": _checksum(VERSION, body)}
    return orjson.dumps(head)[:-1] + b',"body":' + body + b"}\n"


def decode(data: bytes, source: Path) -> Checkpoint:
    """Read the content of ``checkpoint.json``.

    Args:
        data: the file.
        source: its path, for messages.

    Raises:
        LostError: it is not what was written.
        LocalError: a newer version of the program wrote it.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(source, f"not a checkpoint: {error}") from error
    body = bytes(envelope.body)
    if envelope.format != FORMAT or envelope.sha256 != _checksum(envelope.version, body):
        raise _damaged(source, "its checksum does not match its content")
    if envelope.version > VERSION:
        raise LocalError(
            f"cannot continue from {source}: it has version {envelope.version}, this program knows {VERSION}",
            hint=f"upgrade harvester; or {fresh_hint(source.parent)}",
        )
    try:
        return msgspec.convert(orjson.loads(body), Checkpoint)
    except (orjson.JSONDecodeError, msgspec.ValidationError) as error:
        raise _damaged(source, str(error)) from error


def _checksum(version: int, body: bytes) -> str:
    return sha256(b"%b %d\n%b" % (FORMAT.encode(), version, body)).hexdigest()


def _damaged(source: Path, reason: str) -> LostError:
    return LostError(
        f"cannot read {source}: it is damaged",
        causes=[reason],
        hint=fresh_hint(source.parent),
    )

"""The checkpoint's bytes: exact, checked, versioned."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import DamagedError, LocalError
from harvester.shard import Layout, ShardEntry
from harvester.store.checkpoint import Checkpoint, decode, encode

HERE = Path("/mirror/da ta/here/checkpoint.json")
FULL = Checkpoint(
    identity={"platform": "wuhan", "params": {"名": "值"}},
    created="2026-11-21T02:00:00+00:00",
    layout=Layout(100_000, 50, "zstd"),
    end={"last": 17, "total": 18_446_744_073_709_551_615},
    notes={"calls": 3, "open": [4, 5]},
    sealed=[
        ShardEntry(
            number=0, first=1, last=17, rows=820, bytes=9, sha256="a", file_bytes=7, mtime_ns=1, content_sha256="b"
        )
    ],
)


def signed(body: bytes, version: int = 1) -> bytes:
    """Return a checkpoint with a right checksum, whatever its body."""
    checksum = sha256(b"harvester-checkpoint %d\n%b" % (version, body)).hexdigest().encode()
    return b'{"format":"harvester-checkpoint","version":%d,"sha256":"%b","body":%b}\n' % (version, checksum, body)


def test_round_trip() -> None:
    """Everything comes back as it was, and the bytes are those that FORMAT.md's rule gives."""
    data = encode(FULL)
    assert decode(data, HERE) == FULL
    assert data == signed(data[data.index(b'"body":') + 7 : -2])


@given(st.integers(0, len(encode(FULL)) - 1), st.integers(1, 255))
def test_any_flip_is_damage(place: int, mask: int) -> None:
    """A changed byte is refused, or was white space after the end and changed nothing."""
    data = bytearray(encode(FULL))
    data[place] ^= mask
    try:
        assert decode(bytes(data), HERE) == FULL
        assert place == len(data) - 1
    except DamagedError as error:
        assert "here" in error.message  # noqa: PT017 - either outcome may be right


@given(st.integers(0, len(encode(FULL)) - 2))
def test_any_cut_is_damage(size: int) -> None:
    """A torn checkpoint is refused."""
    with pytest.raises(DamagedError, match="damaged"):
        decode(encode(FULL)[:size], HERE)


def test_newer_version_asks_for_an_upgrade() -> None:
    """It is told from damage by its checksum, and its body is not looked at."""
    with pytest.raises(LocalError, match="version 2") as caught:
        decode(signed(b'{"anything":1}', version=2), HERE)
    assert not isinstance(caught.value, DamagedError)
    assert "upgrade" in caught.value.hint
    assert "`harvester run JOB --dataset 'da ta' --fresh`" in caught.value.hint


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"identity":{},"created":"","layout":7}', b"1"])
def test_wrong_shape_is_damage(body: bytes) -> None:
    """A right checksum over what is no checkpoint does not help."""
    with pytest.raises(DamagedError) as caught:
        decode(signed(body), HERE)
    assert "`harvester run JOB --dataset 'da ta' --fresh`" in caught.value.hint


def test_impossible_layout_is_damage() -> None:
    """A layout of no pages is refused here as it is elsewhere."""
    body = encode(FULL)[encode(FULL).index(b'"body":') + 7 : -2].replace(b'"page_size":50', b'"page_size":0')
    with pytest.raises(DamagedError):
        decode(signed(body), HERE)


def test_checkpoint_of_an_earlier_version_is_read() -> None:
    """One from before twins were counted has none."""
    body = encode(FULL)[encode(FULL).index(b'"body":') + 7 : -2]
    assert b',"twins":0' in body
    assert decode(signed(body.replace(b',"twins":0', b"")), HERE) == FULL

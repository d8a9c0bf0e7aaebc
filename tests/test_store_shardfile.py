"""Files of finished shards: what is counted, compressed, and read back."""

from __future__ import annotations

import gzip
import os
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import DamagedError, UsageError
from harvester.shard import Compression
from harvester.store.durable import Folder
from harvester.store.shardfile import Written, cut, file_digest, read_shard, require, write_shard

PIECES = [b'{"n":%d}\n' % number for number in range(1000)]
LINES = b"".join(PIECES)


def written(folder: Path, compression: Compression) -> tuple[Written, bytes]:
    """Write the pieces; return what is said of the file, and the file."""
    with Folder(folder) as opened, opened.opened("x", os.O_WRONLY | os.O_CREAT, "write") as fd:
        return write_shard(fd, PIECES, compression), (folder / "x").read_bytes()


def read(folder: Path, compression: Compression) -> bytes:
    """Read the shard back."""
    with Folder(folder) as opened, opened.opened("x", os.O_RDONLY, "read") as fd:
        return b"".join(read_shard(fd, compression, "x"))


def test_plain(tmp_path: Path) -> None:
    """The file is the lines."""
    found, data = written(tmp_path, "none")
    assert data == LINES
    assert found == Written(len(LINES), "", len(LINES), sha256(LINES).hexdigest())
    assert read(tmp_path, "none") == LINES


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed(tmp_path: Path, compression: Compression) -> None:
    """Other programs decompress it; sizes and digests are of the lines and of the file; twice gives the same."""
    found, data = written(tmp_path, compression)
    other = (
        gzip.decompress(data)
        if compression == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(data)
    )
    assert other == LINES == read(tmp_path, compression)
    assert found == Written(len(LINES), sha256(LINES).hexdigest(), len(data), sha256(data).hexdigest())
    assert len(data) < len(LINES) / 2
    assert written(tmp_path, compression)[1] == data


def test_a_library_that_is_missing_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is a command that works without a release on a package index; other compressions need nothing."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    require("none")
    require("gzip")
    with pytest.raises(UsageError, match="not installed") as caught:
        require("zstd")
    assert "pip install '.[zstd]'" in caught.value.hint


def test_gzip_header_tells_nothing(tmp_path: Path) -> None:
    """Neither a time nor a name is in it, so that the same lines give the same file."""
    _, data = written(tmp_path, "gzip")
    assert data[:9] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_defects_are_named(tmp_path: Path, compression: Compression) -> None:
    """A cut file and a changed one raise with the file's name; none of it comes out as rows that look right."""
    _, data = written(tmp_path, compression)
    (tmp_path / "x").write_bytes(data[:-1])
    with pytest.raises(DamagedError, match="x does not decompress: it ends too early"):
        read(tmp_path, compression)
    (tmp_path / "x").write_bytes(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])
    with pytest.raises(DamagedError, match="x does not decompress: near offset 0"):
        read(tmp_path, compression)


def test_file_digest(tmp_path: Path) -> None:
    """The digest is of the file, over any number of blocks."""
    data = bytes(1 << 19)
    (tmp_path / "x").write_bytes(data)
    with Folder(tmp_path) as opened, opened.opened("x", os.O_RDONLY, "read") as fd:
        assert file_digest(fd) == sha256(data).hexdigest()


@given(st.lists(st.binary(max_size=9)), st.lists(st.integers(0, 12)))
def test_cut(blocks: list[bytes], sizes: list[int]) -> None:
    """Pieces join to the start of the stream, each of its size but perhaps the last."""
    pieces = list(cut(blocks, sizes))
    stream = b"".join(blocks)
    assert b"".join(pieces) == stream[: sum(sizes)]
    assert [len(piece) for piece in pieces[:-1]] == sizes[: len(pieces) - 1 if pieces else 0]
    assert len(pieces) == len(sizes) or sum(map(len, pieces)) == len(stream)

"""Bodies put together from parts: whole, or an error that says why not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester import body
from harvester.body import STEP, Body, BodyError

TEXT = b'{"data":[' + b",".join(b'{"id":%d}' % number for number in range(200)) + b"]}"


def deflated(data: bytes, bits: int) -> bytes:
    """Compress with these window bits."""
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


PACKED = {"gzip": gzip.compress(TEXT, mtime=0), "deflate": deflated(TEXT, 15)}


def collected(parts: Iterable[bytes], coding: str = "", transfer: str = "", *, framed: bool = True) -> bytes:
    """Feed the parts and return the body."""
    whole = Body(coding, transfer, framed=framed)
    for part in parts:
        for _ in whole.feed(part):
            pass
    return whole.finish()


def refusal(parts: Iterable[bytes], coding: str = "", transfer: str = "", *, framed: bool = True) -> str:
    """Feed the parts and return the error's text."""
    with pytest.raises(BodyError) as caught:
        collected(parts, coding, transfer, framed=framed)
    return caught.value.text


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut into non-empty parts at these places."""
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", PACKED["gzip"]),
        ("X-GZIP ", PACKED["gzip"]),
        ("deflate", PACKED["deflate"]),
        ("Deflate", deflated(TEXT, -15)),
    ],
    ids=["plain", "identity", "gzip", "x-gzip", "deflate", "deflate without header"],
)
@given(places=st.lists(st.integers(0, 5000), max_size=8))
def test_any_parts_make_the_same_body(coding: str, data: bytes, places: list[int]) -> None:
    """Where the network cuts does not matter."""
    assert collected(cut(data, places), coding) == TEXT


@pytest.mark.parametrize("coding", PACKED)
@given(end=st.integers(1, 5000), framed=st.booleans())
def test_no_shorter_stream_passes(coding: str, end: int, framed: bool) -> None:  # noqa: FBT001 - drawn
    """Every cut of a compressed body is seen, in the trailer too, even if HTTP found its length right."""
    data = PACKED[coding]
    assert refusal([data[: 1 + end % (len(data) - 1)]], coding, framed=framed) == "the compressed body was cut short"


@given(place=st.integers(0, 8 * len(PACKED["gzip"]) - 1))
def test_no_flipped_bit_changes_the_body(place: int) -> None:
    """A flipped bit is an error, unless the same body comes out, as it does for the date in gzip's header."""
    data = bytearray(PACKED["gzip"])
    data[place // 8] ^= 1 << place % 8
    with suppress(BodyError):
        assert collected([bytes(data)], "gzip") == TEXT


def test_nothing_may_follow() -> None:
    """Data after the end are an error, in the same part or a later one, also a second stream."""
    data = PACKED["gzip"]
    for parts in ([data + b"x"], [data, b"x"], [data + data], [data, data], [data, b"\0"]):
        assert refusal(parts, "gzip") == "more follows after the end of the compressed body"


def test_what_is_not_compressed_at_all() -> None:
    """A body that only claims to be compressed is damaged."""
    for coding in PACKED:
        assert refusal([b"<html>502</html>"], coding) == "the compressed body is damaged"


def test_an_open_end_proves_nothing() -> None:
    """Without a length only the end mark of a compressed stream proves a body whole."""
    end_unknown = "the answer does not say where it ends, so that nothing proves it whole"
    assert refusal([TEXT], framed=False) == end_unknown
    assert refusal([], framed=False) == end_unknown
    assert refusal([], "gzip", framed=False) == end_unknown
    assert collected([PACKED["gzip"]], "gzip", framed=False) == TEXT


def test_an_empty_body() -> None:
    """A body of no bytes is empty under any encoding."""
    assert collected([]) == collected([], "gzip") == collected([], "deflate") == b""


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "\x1b[2J", "x" * 99])
def test_unknown_encodings(coding: str) -> None:
    """What nobody asked for is named, in characters that any terminal bears, and never passed on as it is."""
    text = refusal([TEXT], coding)
    assert text.startswith("the body's encoding was not asked for and cannot be read: '")
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 120


def test_transfer_encodings() -> None:
    """Chunks are the client's; anything more is an encoding too."""
    assert collected([TEXT], transfer="Chunked") == TEXT
    assert refusal([TEXT], transfer="gzip, chunked") == (
        "the body's transfer encoding was not asked for and cannot be read: 'gzip, chunked'"
    )


def test_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds to the byte, for what is sent and for what comes out."""
    monkeypatch.setattr(body, "LIMIT", 2**20)
    for data in (bytes(2**20), bytes(2**20 + 1)):
        for coding, parts in (("", cut(data, [500_000])), ("gzip", [gzip.compress(data)])):
            if len(data) > body.LIMIT:
                assert refusal(parts, coding) == "the body is larger than 1 MiB"
            else:
                assert collected(parts, coding) == data
    nothing = b"\0\0\0\xff\xff" * 2**18  # empty stored blocks: they never come to an end, and to no byte either
    assert refusal([b"\0" + nothing[1:]], "deflate") == "the body is larger than 1 MiB"


def test_a_bomb_goes_off_step_by_step() -> None:
    """The caller is asked after every step, and the steps are small however much a part holds."""
    whole = Body("gzip", framed=True)
    sizes = [whole.size for _ in whole.feed(gzip.compress(bytes(20 * STEP)))]
    assert len(sizes) >= 20
    assert all(after - before <= STEP for before, after in pairwise(sizes))
    assert (sizes[-1], len(whole.finish())) == (20 * STEP, 20 * STEP)


def test_what_a_step_leaves_in_the_decoder() -> None:
    """All input may be consumed while output is still to come; it is fetched, also at the very end."""
    for size in range(STEP - 2, STEP + 600):
        data = bytes(size)
        assert collected([deflated(data, -15)], "deflate") == data

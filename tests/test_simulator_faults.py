"""Faults on the wire as values: what may be set, how the dice fall, and the bytes of each."""

from __future__ import annotations

import gzip
import zlib
from math import inf
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.simulator.faults import BOMB, KINDS, MOMENT, PIECE, Fault, Faults, parse_fault, script

BODY: Final = '{"errcode":0,"data":{"data":[{"名称":"武汉"},{"名称":"东湖"}]}}'.encode()
DATE: Final = "Fri, 15 Jan 2027 08:00:00 GMT"


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "earthquake"},
        {"kind": "reset", "rate": -0.1},
        {"kind": "reset", "rate": 1.1},
        {"kind": "reset", "rate": float("nan")},
        {"kind": "reset", "at": -1},
        {"kind": "reset", "at": inf},
        {"kind": "reset", "lasts": 0},
        {"kind": "reset", "lasts": float("nan")},
        {"kind": "cut-length", "early": True},
    ],
)
def test_faults_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    """Each says what would be right."""
    with pytest.raises(UsageError, match="cannot simulate that"):
        Fault(**setting)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reset-in-body:0.01", Fault("reset-in-body", rate=0.01)),
        ("restart:5:20", Fault("restart", at=5, lasts=20)),
        ("502:0.5:5:20", Fault("502", 0.5, 5, 20)),
        (" close:0.1:early ", Fault("close", 0.1, early=True)),
        ("close:5:20:early", Fault("close", at=5, lasts=20, early=True)),
    ],
)
def test_faults_are_read_from_text(text: str, fault: Fault) -> None:
    """A share, a time, or both."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "reset", "reset:", "reset:early", "reset:often", "reset:1:2:3:4", "reset:0.1:late"]
)
def test_faults_that_nobody_can_read(text: str) -> None:
    """It is shown how one is written."""
    with pytest.raises(ValueError, match="like reset-in-body"):
        parse_fault(text)


def drawn(faults: tuple[Fault, ...], moments: list[float], seed: int = 0) -> list[str]:
    """Return what befalls calls at these moments, empty where nothing does."""
    dice = Faults(faults, seed)
    return [fault.kind if (fault := dice.draw(now)) else "" for now in moments]


def test_no_faults_are_none() -> None:
    """So that the plain way costs nothing."""
    assert not Faults((), 0)
    assert Faults((Fault("reset"),), 0)


def test_a_share_of_the_calls_is_hit() -> None:
    """The same ones with the same seed; rates add up, and the first fault comes first."""
    faults = (Fault("reset", 0.1), Fault("close", 0.2))
    calls = [0.0] * 10_000
    found = drawn(faults, calls)
    assert found == drawn(faults, calls)
    assert found != drawn(faults, calls, seed=1)
    assert (found.count("reset"), found.count("close")) == (958, 2004)  # golden, of seed 0
    alone = drawn(faults[:1], calls)
    assert [kind == "reset" for kind in found] == [kind == "reset" for kind in alone]
    assert drawn((Fault("reset", 1), Fault("close", 1)), [0.0] * 3) == ["reset"] * 3
    assert drawn((Fault("reset", 0),), calls) == [""] * len(calls)


def test_a_schedule_counts_from_the_first_call() -> None:
    """From its beginning on, its end excluded; calls before and after it use up dice as well."""
    assert drawn((Fault("restart", at=5, lasts=20),), [100.0, 104.9, 105.0, 124.9, 125.0]) == [
        "",
        "",
        "restart",
        "restart",
        "",
    ]
    moments = [float(second) for second in range(50)]
    half = drawn((Fault("502", 0.5),), moments)
    window = drawn((Fault("502", 0.5, at=10, lasts=20),), moments)
    assert window == [kind if 10 <= second < 30 else "" for second, kind in enumerate(half)]


def test_how_long_the_port_is_shut() -> None:
    """A moment, or to the end of a limited time in which every call is hit."""
    some, all_, always = Fault("restart", 0.5, 5, 20), Fault("restart", at=5, lasts=20), Fault("restart")
    dice = Faults((some,), 0)
    dice.draw(100.0)
    assert dice.shut_until(some, 110.0) == 110.0 + MOMENT
    assert dice.shut_until(all_, 110.0) == 125.0
    assert dice.shut_until(always, 110.0) == 110.0 + MOMENT


@settings(deadline=None)  # a bomb is made once
@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_every_body_can_be_hurt(body: bytes, kind: str) -> None:
    """Whatever the platform answers, also nothing."""
    assert script(kind, body, DATE).end


def parts(kind: str) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return status line, headers and the rest of a fault's bytes."""
    head, _, rest = script(kind, BODY, DATE).data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), rest


HALF: Final = len(BODY) // 2
CHUNK: Final = b"%x\r\n%b\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("kind", "end", "length", "rest"),
    [
        ("reset-in-body", "reset", len(BODY), BODY[:HALF]),
        ("cut-length", "close", len(BODY), BODY[:HALF]),
        ("stall", "silence", len(BODY), BODY[:HALF]),
        ("drip", "repeat", len(BODY), BODY[:HALF]),
        ("no-last-chunk", "close", None, CHUNK),
        ("bad-chunk", "keep", None, b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
        ("no-length", "close", None, BODY[:HALF]),
        ("cut-json", "keep", HALF, BODY[:HALF]),
        ("unknown-encoding", "keep", len(BODY), BODY),
        ("wrong-charset", "keep", len(BODY), BODY),
        ("other-charset", "keep", len(BODY.decode().encode("gb18030")), BODY.decode().encode("gb18030")),
        ("endless", "repeat", None, b""),
        ("empty", "keep", 0, b""),
        ("login", "keep", 0, b""),
    ],
)
def test_bodies_that_are_wrong(kind: str, end: str, length: int | None, rest: bytes) -> None:
    """What is announced and what comes."""
    status, headers, came = parts(kind)
    assert status == (b"HTTP/1.1 302 Found" if kind == "login" else b"HTTP/1.1 200 OK")
    assert (script(kind, BODY, DATE).end, came) == (end, rest)
    assert headers[b"Date"].decode() == DATE
    assert headers.get(b"Content-Length") == (None if length is None else b"%d" % length)
    assert (headers.get(b"Transfer-Encoding") == b"chunked") == (kind in {"no-last-chunk", "bad-chunk", "endless"})


def test_headers_that_lie() -> None:
    """About the encoding, the charset, and where to go."""
    assert parts("unknown-encoding")[1][b"Content-Encoding"] == b"x-snappy"
    assert parts("wrong-charset")[1][b"Content-Type"].endswith(b"charset=GB18030")
    assert parts("other-charset")[1][b"Content-Type"].endswith(b"charset=UTF-8")
    assert parts("login")[1][b"Location"].startswith(b"http://login.invalid/")


def test_compressed_bodies_that_are_cut() -> None:
    """The length is right, the stream is not; without its trailer all of the text is there."""
    for kind, whole in (("gzip-cut", False), ("gzip-no-trailer", True)):
        _, headers, rest = parts(kind)
        assert (headers[b"Content-Encoding"], headers[b"Content-Length"]) == (b"gzip", b"%d" % len(rest))
        decoder = zlib.decompressobj(31)
        assert (decoder.decompress(rest) == BODY) == whole
        assert not decoder.eof


def test_a_bomb() -> None:
    """Little on the wire, much in memory, and nothing but white space: no parser finds fault with it."""
    _, _, rest = parts("bomb")
    assert len(rest) < BOMB / 900
    assert gzip.decompress(rest) == b" " * BOMB


def test_answers_without_end() -> None:
    """The same chunk for ever, or one byte now and then."""
    endless, drip = script("endless", BODY, DATE), script("drip", BODY, DATE)
    assert endless.piece == b"10000\r\n" + b" " * PIECE + b"\r\n"
    assert (len(drip.piece), drip.pause) == (1, 0.3)


@pytest.mark.parametrize(
    ("kind", "status"), [("502", "Bad Gateway"), ("503", "Service Unavailable"), ("504", "Gateway Timeout")]
)
def test_gateways_in_trouble(kind: str, status: str) -> None:
    """A status and a web page; only a 503 says when to come back."""
    line, headers, rest = parts(kind)
    assert line == f"HTTP/1.1 {kind} {status}".encode()
    assert rest.startswith(b"<!DOCTYPE html>")
    assert headers.get(b"Retry-After") == (b"1" if kind == "503" else None)


def test_pages_for_people() -> None:
    """They report success; the one of a network asks for a password."""
    for kind in ("html", "login-page"):
        status, headers, rest = parts(kind)
        assert (status, headers[b"Content-Type"]) == (b"HTTP/1.1 200 OK", b"text/html;charset=UTF-8")
        assert (b'type="password"' in rest) == (kind == "login-page")


def test_an_answer_that_comes_twice() -> None:
    """The second would be the answer to the next call."""
    data = script("twice", BODY, DATE).data
    assert data == 2 * data[: len(data) // 2]
    assert script("twice", BODY, DATE).end == "keep"


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("refused", "reset"),
        ("restart", "reset"),
        ("reset", "reset"),
        ("close", "close"),
        ("silent", "silence"),
        ("half-open", "abandon"),
    ],
)
def test_nothing_is_said(kind: str, end: str) -> None:
    """The call was read, and that was that."""
    assert script(kind, BODY, DATE) == (b"", end, b"", 0.0)


@pytest.mark.parametrize(("kind", "end"), [("reset-in-headers", "reset"), ("cut-headers", "close")])
def test_headers_that_stop(kind: str, end: str) -> None:
    """In the middle of a line."""
    told = script(kind, BODY, DATE)
    assert told.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert told.data.endswith(b"charset=")
    assert told.end == end

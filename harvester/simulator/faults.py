"""What can happen to a call on the wire, how often and when: the bytes of every fault, and the dice. Pure."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from random import Random
from typing import Final, Literal, NamedTuple

from harvester.errors import UsageError

MOMENT: Final = 0.1  # seconds for which a single fault of the port shuts it
RETRY_AFTER: Final = 1  # seconds, as a 503 asks for
DRIP: Final = 0.3  # seconds between two bytes
PIECE: Final = 2**16  # bytes of one chunk of an answer without end
PIECES: Final = 0.001  # seconds between two of them
BOMB: Final = 40 * 2**20  # bytes that a bomb becomes
LOGIN_PAGE: Final = "http://login.invalid/?from=platform"
LOGIN_FORM: Final = '<form method="post"><input name="user"><input name="password" type="password"></form>'

JSON: Final = "Content-Type: application/json;charset=UTF-8"
HTML: Final = "Content-Type: text/html;charset=UTF-8"
GZIP: Final = "Content-Encoding: gzip"
CHUNKED: Final = "Transfer-Encoding: chunked"

End = Literal["keep", "close", "reset", "silence", "abandon", "repeat"]


class Script(NamedTuple):
    """What is done in place of an answer.

    ``data`` is sent, and then: the connection is kept, closed or reset; or nothing more is said until the client
    leaves (``silence``); or nobody serves the connection any more, so that not even that is noticed (``abandon``); or
    ``piece`` is sent again and again, ``pause`` seconds apart.
    """

    data: bytes
    end: End
    piece: bytes = b""
    pause: float = 0.0


class Said(NamedTuple):
    """What the platform answered, if it was asked, and its ``Date``."""

    body: bytes
    date: str


def _head(said: Said, *fields: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Date: {said.date}", *fields)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _whole(said: Said, body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    return _head(said, *fields, f"Content-Length: {len(body)}", status=status) + body


def _promised(said: Said) -> bytes:
    """Return a head that announces the whole body, and the first half of it."""
    return _head(said, JSON, f"Content-Length: {len(said.body)}") + _half(said.body)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _page(title: str, form: str = "") -> bytes:
    head, body = f"<head><title>{title}</title></head>", f"<body><h1>{title}</h1>{form}</body>"
    return f"<!DOCTYPE html>\n<html>{head}{body}</html>\n".encode()


def _trouble(status: str, *fields: str) -> Callable[[Said], Script]:
    """Return the error page of a gateway."""
    return lambda said: Script(_whole(said, _page(status), HTML, *fields, status=status), "keep")


@lru_cache(1)
def _bomb() -> bytes:
    return gzip.compress(b" " * BOMB, 6, mtime=0)


_ALONE: Final[Mapping[str, Callable[[Said], Script]]] = {
    "refused": lambda _: Script(b"", "reset"),
    "restart": lambda _: Script(b"", "reset"),
    "reset": lambda _: Script(b"", "reset"),
    "close": lambda _: Script(b"", "close"),
    "silent": lambda _: Script(b"", "silence"),
    "half-open": lambda _: Script(b"", "abandon"),
    "reset-in-headers": lambda said: Script(_head(said, JSON)[:-9], "reset"),
    "cut-headers": lambda said: Script(_head(said, JSON)[:-9], "close"),
    "endless": lambda said: Script(_head(said, JSON, CHUNKED), "repeat", _chunk(b" " * PIECE), PIECES),
    "bomb": lambda said: Script(_whole(said, _bomb(), JSON, GZIP), "keep"),
    "garbage": lambda _: Script(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "close"),
    "502": _trouble("502 Bad Gateway"),
    "503": _trouble("503 Service Unavailable", f"Retry-After: {RETRY_AFTER}"),
    "504": _trouble("504 Gateway Timeout"),
    "html": lambda said: Script(_whole(said, _page("系统维护中"), HTML), "keep"),
    "empty": lambda said: Script(_whole(said, b"", JSON), "keep"),
    "login": lambda said: Script(_whole(said, b"", f"Location: {LOGIN_PAGE}", status="302 Found"), "keep"),
    "login-page": lambda said: Script(_whole(said, _page("请登录后使用网络", LOGIN_FORM), HTML), "keep"),
}
"""Faults that need no answer of the platform's, so that they can also come before it has seen the call."""

_ANSWERED: Final[Mapping[str, Callable[[Said], Script]]] = {
    "reset-in-body": lambda said: Script(_promised(said), "reset"),
    "cut-length": lambda said: Script(_promised(said), "close"),
    "stall": lambda said: Script(_promised(said), "silence"),
    "drip": lambda said: Script(_promised(said), "repeat", b" ", DRIP),
    "no-last-chunk": lambda said: Script(_head(said, JSON, CHUNKED) + _chunk(said.body), "close"),
    "bad-chunk": lambda said: Script(_head(said, JSON, CHUNKED) + b"zz\r\n" + said.body + b"\r\n0\r\n\r\n", "keep"),
    "no-length": lambda said: Script(_head(said, JSON, "Connection: close") + _half(said.body), "close"),
    "cut-json": lambda said: Script(_whole(said, _half(said.body), JSON), "keep"),
    "gzip-cut": lambda said: Script(_whole(said, _half(gzip.compress(said.body)), JSON, GZIP), "keep"),
    "gzip-no-trailer": lambda said: Script(_whole(said, gzip.compress(said.body)[:-8], JSON, GZIP), "keep"),
    "unknown-encoding": lambda said: Script(_whole(said, said.body, JSON, "Content-Encoding: x-snappy"), "keep"),
    "wrong-charset": lambda said: Script(
        _whole(said, said.body, "Content-Type: application/json;charset=GB18030"), "keep"
    ),
    "other-charset": lambda said: Script(
        _whole(said, said.body.decode(errors="replace").encode("gb18030"), JSON), "keep"
    ),
    "twice": lambda said: Script(2 * _whole(said, said.body, JSON), "keep"),
}
"""Faults of the answer itself."""

KINDS: Final = (*_ALONE, *_ANSWERED)
"""Every fault by name, as in ``harvester simulate --fault``."""

OF_THE_PORT: Final = frozenset({"refused", "restart"})
"""Faults after which nobody listens for a while; the latter also drops all connections."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with calls.

    A fault of the port shuts it for a moment with every call that it hits; where it hits all calls of a limited time,
    until that time is over.

    Args:
        kind: one of ``KINDS``.
        rate: share of the calls that it hits, from 0 to 1.
        at: when it begins, in seconds since the first call of all.
        lasts: for how many seconds.
        early: it hits before the platform has counted the call, and its nonce; otherwise after that.

    Raises:
        UsageError: a value is out of its range.
    """

    kind: str
    rate: float = 1.0
    at: float = 0.0
    lasts: float = inf
    early: bool = False

    def __post_init__(self) -> None:
        for fine, message in (
            (self.kind in KINDS, f"a fault is one of {', '.join(KINDS)}"),
            (0 <= self.rate <= 1, "a fault's rate is a share from 0 to 1"),
            (self.at >= 0 and isfinite(self.at), "a fault begins after 0 seconds or more"),
            (self.lasts > 0, "a fault lasts longer than 0 seconds"),
            (not self.early or self.kind in _ALONE, f"{self.kind} needs an answer, so it cannot be early"),
        ):
            if not fine:
                raise UsageError(f"cannot simulate that: {message}")


class Faults:
    """Decides which calls something goes wrong with: one throw of the dice for each, in the order they arrive.

    Of several faults at one time the first comes first; their rates add up.

    Args:
        faults: what can go wrong.
        seed: other seeds hit other calls.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = faults
        self._random = Random(f"{seed} faults")  # noqa: S311 - to be repeatable
        self._began: float | None = None

    def __bool__(self) -> bool:
        return bool(self._faults)

    def draw(self, now: float) -> Fault | None:
        """Return what goes wrong with a call that arrives at ``now`` (seconds, never decreasing), if anything."""
        if self._began is None:
            self._began = now
        elapsed, dice = now - self._began, self._random.random()
        for fault in self._faults:
            if fault.at <= elapsed < fault.at + fault.lasts:
                if dice < fault.rate:
                    return fault
                dice -= fault.rate
        return None

    def shut_until(self, fault: Fault, now: float) -> float:
        """Return when the port that a fault shuts at ``now`` opens again."""
        if fault.rate < 1 or fault.lasts == inf or self._began is None:
            return now + MOMENT
        return self._began + fault.at + fault.lasts


def script(kind: str, body: bytes, date: str) -> Script:
    """Return what is done in place of an answer.

    Args:
        kind: of the fault.
        body: what the platform answers, JSON in UTF-8; empty if it was not asked.
        date: the platform's ``Date``.
    """
    return (_ALONE.get(kind) or _ANSWERED[kind])(Said(body, date))


def parse_fault(text: str) -> Fault:
    """Read a fault written as ``KIND:rate``, ``KIND:at:lasts`` or ``KIND:rate:at:lasts``; then perhaps ``:early``.

    Raises:
        ValueError: it is not written so.
        UsageError: a value is out of its range.
    """
    kind, *parts = text.strip().split(":")
    early = parts[-1:] == ["early"]
    try:
        numbers = [float(part) for part in (parts[:-1] if early else parts)]
        match numbers:
            case [rate]:
                return Fault(kind, rate, early=early)
            case [at, lasts]:
                return Fault(kind, at=at, lasts=lasts, early=early)
            case [rate, at, lasts]:
                return Fault(kind, rate, at, lasts, early)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no fault; one is written like reset-in-body:0.01, restart:5:20 or 502:0.5:5:20")

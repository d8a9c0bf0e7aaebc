"""What both gatekeepers share: a call as it arrived, a registered app, a refusal. Pure.

A gatekeeper takes the bytes of a call to the bytes of an answer. It opens nothing and reads no clock; what it
remembers (nonces, the rate, its counts) it keeps per app.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote

from harvester.simulator.limits import Limit
from harvester.simulator.stats import AppStats
from harvester.simulator.tables import SimulatedTable

PastEnd = Literal["empty", "null", "last", "first"]
"""What a page behind the last one holds: an empty list, null, the last page again, or the first page again."""


class Call(NamedTuple):
    """A call as it arrived.

    ``service`` is the part of the path below the platform's address, ``headers`` ignore letter case. ``now`` is the
    platform's time in Unix seconds, ``tick`` the same moment in seconds of a clock that never goes back.
    """

    service: str
    headers: Mapping[str, str]
    body: bytes
    now: float
    tick: float


class NonceMemory:
    """Nonces seen lately; what was seen ``span`` seconds ago is forgotten.

    Args:
        span: how long a nonce must not be repeated, in seconds.
        most: how many are kept at most, about 170 bytes each; beyond, the oldest are forgotten early.
    """

    def __init__(self, span: float = 600.0, most: int = 1_000_000) -> None:
        self._span = span
        self._most = most
        self._seen: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, nonce: bytes, now: float) -> bool:
        """Remember the nonce from ``now`` on (seconds, never decreasing); False if it is remembered already."""
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if now - seen[oldest] < self._span and len(seen) <= self._most:
                break
            del seen[oldest]
        if nonce in seen:
            return False
        seen[nonce] = now
        return True


@dataclass(slots=True, kw_only=True)
class RegisteredApp:
    """An app that the platform knows; ``limit`` is None where no rate is enforced."""

    id: str
    secret: str
    subscribed: bool
    limit: Limit | None
    stats: AppStats
    nonces: NonceMemory = field(default_factory=NonceMemory)


class Refused(Exception):  # noqa: N818 - the platform's answer, not a fault of the program
    """The call gets a failure code; ``detail`` follows the code's own words."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Gate(Protocol):
    """One platform's gatekeeper."""

    def answer(self, call: Call) -> bytes:
        """Return the body of the answer; its status is always 200. Never raises on any bytes."""


def form_fields(body: bytes) -> dict[str, str] | None:
    """Decode an ``application/x-www-form-urlencoded`` body; None if it is none, is no UTF-8 or repeats a field."""
    fields: dict[str, str] = {}
    try:
        for field_text in body.decode("ascii").replace("+", " ").split("&"):
            name, equals, value = field_text.partition("=")
            if "%" in name:
                name = unquote(name, errors="strict")
            if not equals or name in fields:
                return None
            fields[name] = unquote(value, errors="strict") if "%" in value else value
    except ValueError:
        return None
    return fields


@lru_cache(64)
def media_type(header: str) -> str:
    """Return a Content-Type's type in lower case; empty where it names a charset other than UTF-8."""
    kind, *parameters = (part.strip().lower() for part in header.split(";"))
    charsets = [
        value.strip('"') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    ]
    return kind if all(charset == "utf-8" for charset in charsets) else ""


def page_of(table: SimulatedTable, number: int, size: int, past_end: PastEnd) -> tuple[int, bytes | None]:
    """Return the page's number as the answer states it, and its rows joined by commas; None for null.

    Pagers that answer a page behind the end with another one state that one's number.
    """
    pages = -(-len(table) // size)
    if number > pages:
        if past_end == "null":
            return number, None
        if pages and past_end != "empty":
            number = pages if past_end == "last" else 1
    return number, table.page_bytes((number - 1) * size, size)

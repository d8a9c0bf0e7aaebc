"""What both gatekeepers share: a call as it arrived, a registered app, a refusal. Pure.

A gatekeeper takes the bytes of a call to the bytes of an answer. It opens nothing and reads no clock; what it
remembers (nonces, rate, quota, its counts) it keeps per app.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

from harvester.simulator.limits import Limit
from harvester.simulator.stats import AppStats

BEIJING: Final = timezone(timedelta(hours=8))


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


class Answer(NamedTuple):
    """The body of an answer.

    ``page`` is the page asked for, 0 if none is given, ``over_limit`` why it is not. ``content_type`` is empty for the
    platform's usual one.
    """

    body: bytes
    page: int = 0
    over_limit: bool = False
    content_type: str = ""


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


class Quota:
    """At most so many calls of each service in a day or a month by the calendar in Beijing; refused ones are free.

    Args:
        calls: how many, from 1.
        daily: whether they are for a day, not for a month.

    Attributes:
        used: calls by service in the period of the latest call; always the same dict.
    """

    def __init__(self, calls: int, *, daily: bool) -> None:
        self.used: dict[str, int] = {}
        self._calls = calls
        self._daily = daily
        self._period = (0, 0, 0)

    def admit(self, service: str, now: float) -> bool:
        """Count a call at ``now`` (Unix seconds) unless the service's quota is used up; a clock set back is no harm."""
        date = datetime.fromtimestamp(now, BEIJING)
        period = (date.year, date.month, date.day if self._daily else 0)
        if period > self._period:
            self._period = period
            self.used.clear()
        used = self.used.get(service, 0)
        if used >= self._calls:
            return False
        self.used[service] = used + 1
        return True


def make_quota(text: str) -> Quota:
    """Return a fresh quota written as ``N/day`` or ``N/month``.

    Raises:
        ValueError: it is not written so.
    """
    number, _, period = text.partition("/")
    if number.isascii() and number.isdecimal() and int(number) and period in {"day", "month"}:
        return Quota(int(number), daily=period == "day")
    raise ValueError(f"{text!r} is neither N/day nor N/month")


@dataclass(slots=True, kw_only=True)
class RegisteredApp:
    """An app that the platform knows; ``limit`` and ``quota`` are None where none is enforced."""

    id: str
    secret: str
    subscribed: bool
    limit: Limit | None
    stats: AppStats
    quota: Quota | None = None
    nonces: NonceMemory = field(default_factory=NonceMemory)


class Refused(Exception):  # noqa: N818 - the platform's answer, not a fault of the program
    """The call gets a failure code; ``detail`` follows the code's own words."""

    def __init__(self, code: str, detail: str = "", *, over_limit: bool = False) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.over_limit = over_limit


class Gate(Protocol):
    """One platform's gatekeeper."""

    def answer(self, call: Call) -> Answer:
        """Judge a call. Never raises on any bytes."""

    def current_rows(self, name: str, size: int | None) -> list[bytes]:
        """Return what a walk over all pages of a dataset would bring now, see ``Simulator.current_rows``."""


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

"""Counts of calls for every form of allowance, and the line that keeps them.

Every call counts three times: for the day, for the month, and since the last date that a job named. ``calls_reset``
only says which of the counts an allowance looks at, so a job that changes it, or two jobs that differ in it, lose no
call that was counted. A new date leaves the calls since the old one counted; jobs that share an operation must name the
same date. Days are Beijing's and never go back: under a clock that was set back, the recorded day goes on.
"""

from __future__ import annotations

import zlib
from datetime import date, datetime, time, timedelta, timezone
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict, replace

BEIJING: Final = timezone(timedelta(hours=8))
NAME: Final = "harvester-calls"
VERSION: Final = "1"

_FORM: Final = "{day} {today:012} {month:012} {since:012} {until:10} {ahead:012} {ready:d} {boot:36}"
_NO_DATE: Final = "-"
_COUNTED: Final = {"day": "today", "month": "month"}  # by `calls_reset`; a date has "since"


class Counts(Struct, frozen=True, kw_only=True):
    """What the line holds.

    Calls of ``day``, of its month, and since the date before ``until``. ``ahead`` more are reserved; nobody may take
    them unless they are ``ready``, that is known to be durable. ``boot`` names the system's start they belong to.
    """

    day: date
    today: int = 0
    month: int = 0
    since: int = 0
    until: str = _NO_DATE
    ahead: int = 0
    ready: bool = True
    boot: str

    def plus(self, calls: int) -> Counts:
        """Count calls."""
        return replace(self, today=self.today + calls, month=self.month + calls, since=self.since + calls)

    def taken(self, calls: int) -> Counts:
        """Count calls, from what is reserved as far as it goes."""
        return replace(self.plus(calls), ahead=max(0, self.ahead - calls))

    def minus(self, day: date) -> Counts:
        """Count one call of that day less, where it still counts."""
        return replace(
            self,
            today=max(0, self.today - (day == self.day)),
            month=max(0, self.month - _same_month(day, self.day)),
            since=max(0, self.since - (not _passed(self.until, day, self.day))),
        )

    def toward(self, reset: str) -> int:
        """Return the count that a form of ``calls_reset`` looks at."""
        count: int = getattr(self, _COUNTED.get(reset, "since"))
        return count

    def corrected(self, reset: str, calls: int) -> Counts:
        """Replace the count that a form of ``calls_reset`` looks at."""
        return replace(self, **{_COUNTED.get(reset, "since"): calls})

    def settled(self, boot: str) -> Counts:
        """Decide about what is reserved: used if there may have been a power cut, none if it was not yet durable."""
        if self.boot != boot:
            return replace(self.plus(self.ahead), ahead=0, ready=True, boot=boot)
        return self if self.ready else replace(self, ahead=0, ready=True)

    def rolled(self, today: date, reset: str) -> Counts:
        """Begin what has begun since the recorded day; nothing is reserved in it yet."""
        counts = self if reset in _COUNTED else replace(self, until=reset)
        if today <= self.day:
            return counts
        return replace(
            counts,
            day=today,
            today=0,
            month=self.month if _same_month(self.day, today) else 0,
            since=0 if _passed(counts.until, self.day, today) else self.since,
            ahead=0,
        )


def beijing_day(now: float) -> date:
    """Return the date in Beijing at a Unix time in seconds."""
    return datetime.fromtimestamp(now, BEIJING).date()


def next_reset(reset: str, day: date) -> datetime | None:
    """Return when the count of a day starts anew, in Beijing time; None if the date has come."""
    match reset:
        case "day":
            following = day + timedelta(days=1)
        case "month":
            following = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
        case _:
            following = date.fromisoformat(reset)
    return datetime.combine(following, time(), BEIJING) if following > day else None


def line(counts: Counts) -> bytes:
    """Write counts as one line, the same number of bytes whatever they are."""
    body = f"{NAME} {VERSION} {_FORM.format(**asdict(counts))}"
    return f"{body} {zlib.crc32(body.encode()):08x}\n".encode()


def parse(data: bytes) -> Counts | None:
    """Read a line back; None unless what it says gives the same line again, checksum and all."""
    try:
        _, _, day, *numbers, until, ahead, ready, boot, _ = data.decode("ascii").split()
        today, month, since = map(int, numbers)
        counts = Counts(
            day=date.fromisoformat(day),
            today=today,
            month=month,
            since=since,
            until=until,
            ahead=int(ahead),
            ready=bool(int(ready)),
            boot=boot,
        )
    except ValueError:
        return None
    return counts if line(counts) == data else None


def _same_month(one: date, other: date) -> bool:
    return (one.year, one.month) == (other.year, other.month)


def _passed(until: str, before: date, now: date) -> bool:
    """Tell whether the date, if there is one, came between two days."""
    return until != _NO_DATE and before < date.fromisoformat(until) <= now

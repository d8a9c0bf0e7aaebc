"""The command ``plan``: what each dataset will take, as a table for people and machines."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from harvester.certificate import wanted_again
from harvester.errors import Exit
from harvester.outlook import Outlook
from harvester.report import DatasetResult, Result

FIELDS: Final = ("dataset", "pages", "rows", "calls", "time", "left", "share", "key_time")


class Plan(Struct, frozen=True, kw_only=True):
    """What one dataset will take; empty where that could not be found out, for the reason in ``remark``.

    ``calls`` are those of a run from here on, ``seconds`` and ``time`` what they take at the app's pace. ``left`` are
    calls that the allowance still grants, ``share`` the part of it that the calls need. ``key_time`` is for counting
    the key at the end.
    """

    dataset: str
    exit: Exit
    pages: int | None = None
    rows: int | None = None
    exact: bool = False
    calls: int | None = None
    seconds: float | None = None
    time: str = ""
    left: int | None = None
    share: str = ""
    key_time: str = ""
    remark: str = ""
    hint: str = ""


def plans_of(result: Result) -> list[Plan]:
    """Return the plans that a planning run has brought."""
    return [_plan(entry) for entry in result.datasets]


def _plan(entry: DatasetResult) -> Plan:
    found = entry.outlook
    if found is None or entry.exit is not Exit.OK:
        return Plan(dataset=entry.name, exit=entry.exit, remark=entry.why, hint=entry.hint)
    return Plan(
        dataset=entry.name,
        exit=entry.exit,
        pages=found.pages,
        rows=found.rows,
        exact=found.exact,
        calls=found.calls,
        seconds=found.seconds,
        time=_duration(found.seconds) if found.seconds is not None else "",
        left=found.left,
        share="" if found.share is None else f"{found.share:.0%}",
        key_time=_duration(found.key_seconds) if found.key_seconds else "",
        remark=_remark(found),
    )


def _remark(found: Outlook) -> str:
    if found.left is not None and found.calls > found.left:
        return f"{found.calls - found.left:,} calls more than are left: it will take until the allowance resets"
    if found.again < wanted_again(None, found.pages):
        return (
            f"only {found.again:,} of {found.pages:,} pages will be read a second time, so the verdict will be likely "
            "at best"
        )
    return ""


def _duration(seconds: float) -> str:
    """Render a duration: ``0:00:12`` in hours, minutes and seconds."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"

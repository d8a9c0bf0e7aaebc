"""From evidence to a verdict on completeness. What is not said by evidence is said as an assumption.

In this version nothing is read a second time, so no mirror is ``proven``: a clean one is ``likely``.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

LIKELY_AT_MOST = "the pages were read once; that nothing moved while they were read is an assumption"


class Evidence(Struct, frozen=True, kw_only=True):
    """What a finished walk knows about itself.

    ``totals`` are the lowest, highest and last count of all rows that answers claimed. ``holes`` are pages that were
    empty twice although rows follow. ``repairs`` counts pages by what had to be changed to read them.
    """

    pages: int
    rows: int
    end: str
    beyond: tuple[int, ...]
    totals: tuple[int, int, int] | None = None
    holes: tuple[int, ...] = ()
    repairs: dict[str, int] = field(default_factory=dict)


class Certificate(Struct, frozen=True, kw_only=True):
    """The verdict with its reasons (what keeps it from being better) and its assumptions."""

    verdict: Literal["proven", "likely", "not proven"]
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]
    evidence: dict[str, Any]


def judge(evidence: Evidence) -> Certificate:
    """Weigh the evidence."""
    against = []
    if evidence.holes:
        against.append(
            f"{_pages(evidence.holes)} stayed empty although rows follow: the platform may be hiding or losing rows"
        )
    if evidence.totals is not None:
        low, high, last = evidence.totals
        if low != high:
            against.append(f"the platform's total moved between {low:,} and {high:,} while the pages were read")
        elif last != evidence.rows:
            against.append(f"the platform claims {last:,} rows in all, its pages hold {evidence.rows:,}")
    reasons = [LIKELY_AT_MOST]
    if evidence.end == "repeat":
        reasons.append("past the end the platform repeats a page instead of sending an empty one")
    assumptions = ["rows kept their order while the pages were read"]
    if evidence.end == "unpaged":
        assumptions.append("the one answer holds all rows")
    return Certificate(
        verdict="not proven" if against else "likely",
        reasons=tuple(against or reasons),
        assumptions=tuple(assumptions),
        evidence={
            "pages": evidence.pages,
            "rows": evidence.rows,
            "end": {"how": evidence.end, "beyond": list(evidence.beyond)},
            "total": None
            if evidence.totals is None
            else dict(zip(("lowest", "highest", "last"), evidence.totals, strict=True)),
            "holes": list(evidence.holes),
            "repairs": evidence.repairs,
        },
    )


def _pages(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:5])
    more = len(numbers) - 5
    return f"page{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"

"""From evidence to verdict: what speaks against a mirror is said, with numbers."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from harvester.certificate import LIKELY_AT_MOST, Evidence, judge

CLEAN = Evidence(pages=3, rows=47, end="empty", beyond=(4, 11))


def test_a_clean_walk_is_likely() -> None:
    """Nothing was read twice, and that is said."""
    got = judge(CLEAN)
    assert got.verdict == "likely"
    assert got.reasons == (LIKELY_AT_MOST,)
    assert got.assumptions == ("rows kept their order while the pages were read",)
    assert got.evidence == {
        "pages": 3,
        "rows": 47,
        "end": {"how": "empty", "beyond": [4, 11]},
        "total": None,
        "holes": [],
        "repairs": {},
    }


def test_a_total_that_agrees_changes_nothing() -> None:
    """It is shown as evidence."""
    got = judge(replace(CLEAN, totals=(47, 47, 47)))
    assert got.verdict == "likely"
    assert got.evidence["total"] == {"lowest": 47, "highest": 47, "last": 47}


@pytest.mark.parametrize(
    ("totals", "holes", "words"),
    [
        ((48, 48, 48), (), "claims 48 rows in all, its pages hold 47"),
        ((47, 1048, 47), (), "moved between 47 and 1,048"),
        (None, (2,), "page 2 stayed empty"),
        (None, (2, 3), "pages 2, 3 stayed empty"),
        (None, tuple(range(1, 10)), "pages 1, 2, 3, 4, 5 and 4 more stayed empty"),
    ],
)
def test_what_speaks_against_it(totals: tuple[int, int, int] | None, holes: tuple[int, ...], words: str) -> None:
    """One reason is enough."""
    got = judge(replace(CLEAN, totals=totals, holes=holes))
    assert got.verdict == "not proven"
    assert len(got.reasons) == 1
    assert words in got.reasons[0]


def test_all_reasons_are_given() -> None:
    """Not only the first."""
    assert len(judge(replace(CLEAN, totals=(1, 2, 2), holes=(1,))).reasons) == 2


def test_how_the_end_was_found_is_said() -> None:
    """A repeated page is a reason, an answer without pages an assumption."""
    assert any("repeats a page" in reason for reason in judge(replace(CLEAN, end="repeat")).reasons)
    assert "the one answer holds all rows" in judge(replace(CLEAN, end="unpaged")).assumptions

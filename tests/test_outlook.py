"""What a dataset will take: pages, rows, calls, time."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.certificate import wanted_again
from harvester.model import App, Dataset, Secret
from harvester.outlook import KEY_COST, Outlook, outlook
from harvester.second_reading import FULL

APP: Final = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("t"), rate_limit=None)
COUNTS: Final = st.integers(0, 10_000)


def seen(dataset: dict[str, Any] | None = None, **facts: Any) -> Outlook:  # noqa: ANN401 - settings and facts
    """Look at a list of 50 pages with 20 rows each, of which the last has 15 and 8 pages are here."""
    known: dict[str, Any] = {
        "pages": 50,
        "missing": 42,
        "page_size": 20,
        "last_rows": 15,
        "total": None,
        "left": None,
        "rate": None,
        "confirming": 0 if (dataset or {}).get("max_calls") or (dataset or {}).get("paging") == "none" else 1,
        "empty_end": (dataset or {}).get("paging") != "none",
    }
    return outlook(Dataset(name="d", app=APP, **(dataset or {})), **(known | facts))


def test_a_list_without_a_total() -> None:
    """What is missing, everything once more, and the page after the last twice."""
    assert seen() == Outlook(
        pages=50, rows=995, exact=True, calls=42 + 50 + 2, again=50, seconds=None, left=None, key_seconds=0.0
    )


@pytest.mark.parametrize(
    ("facts", "rows", "exact"),
    [
        ({"total": 990}, 995, True),
        ({"total": 990, "last_rows": 0}, 990, False),
        ({"last_rows": 0}, 1_000, False),
        ({"last_rows": 20}, 1_000, True),
        ({"pages": 1, "last_rows": 7}, 7, True),
        ({"pages": 0, "missing": 0, "last_rows": 0, "total": 0}, 0, True),
        ({"pages": 0, "missing": 0, "last_rows": 0}, 0, True),
    ],
)
def test_rows(facts: dict[str, Any], rows: int, exact: bool) -> None:  # noqa: FBT001 - from the table
    """A total is believed; else the last page is counted, or taken for a full one."""
    found = seen(**facts)
    assert (found.rows, found.exact) == (rows, exact)


@pytest.mark.parametrize(
    ("pages", "again"), [(0, 1), (1, 1), (2, 2), (699, 699), (FULL, FULL), (FULL + 1, FULL), (1_000_000, FULL)]
)
def test_pages_to_read_again(pages: int, again: int) -> None:
    """As many as a proof needs; of an empty list page 1 is looked at once more."""
    assert seen(pages=pages, missing=0).again == again


@pytest.mark.parametrize(("recheck", "again", "calls"), [(0, 0, 43), (3, 3, 47), (50, 50, 94), (60, 50, 94)])
def test_the_job_file_can_say_how_many(recheck: int, again: int, calls: int) -> None:
    """Never more than there are; without a second reading the page after the last is asked for once more only."""
    found = seen({"recheck": recheck})
    assert (found.again, found.calls) == (again, calls)


@pytest.mark.parametrize(
    ("facts", "beyond"),
    [
        ({}, 2),
        ({"confirming": 0}, 1),
        ({"empty_end": False}, 1),  # a failing page tells nothing new
        ({"confirming": 0, "empty_end": False}, 0),
        ({"pages": 0, "missing": 0, "confirming": 0}, 0),  # page 1 is the page after the last
    ],
)
def test_calls_past_the_end(facts: dict[str, Any], beyond: int) -> None:
    """One to settle where the list ends, one to see that it still ends there."""
    found = seen(**facts)
    assert found.calls - found.again - facts.get("missing", 42) == beyond


@pytest.mark.parametrize(
    ("left", "again", "calls", "share"),
    [
        (1_000, 50, 93, 0.093),
        (92, 49, 92, 1.0),
        (60, 17, 60, 1.0),
        (44, 2, 44, 1.0),
        (42, 0, 42, 1.0),
        (21, 0, 42, 2.0),
        (0, 0, 42, 1.0),
    ],
)
def test_an_allowance(left: int, again: int, calls: int, share: float) -> None:
    """The second reading is what is shortened; what is missing is needed, even if it is more than is left."""
    found = seen({"max_calls": 1_000}, left=left)
    assert (found.left, found.again, found.calls) == (left, again, calls)
    assert found.share == pytest.approx(share)


def test_the_share_of_nothing() -> None:
    """Without an allowance there is none; if no call is needed and none is left, nothing is used."""
    assert seen().share is None
    nothing = seen({"max_calls": 5, "recheck": 0}, left=0, missing=0)
    assert (nothing.calls, nothing.share) == (0, 0.0)


def test_an_unpaged_answer() -> None:
    """There is no page after the last to ask for: it is read once more, that is all."""
    found = seen({"paging": "none"}, pages=1, missing=0, last_rows=20)
    assert (found.calls, found.again) == (1, 1)


def test_time() -> None:
    """Calls at the pace; a key takes processor time for every row."""
    found = seen({"key": ("ID",)}, rate=9.75)
    assert found.seconds == pytest.approx(94 / 9.75)
    assert found.key_seconds == pytest.approx(995 * KEY_COST)
    assert seen(rate=None).seconds is None


@given(pages=COUNTS, here=COUNTS, left=st.none() | COUNTS, recheck=st.none() | COUNTS)
def test_what_is_promised_can_be_kept(pages: int, here: int, left: int | None, recheck: int | None) -> None:
    """Calls cover what is missing, and within an allowance that suffices for that nothing goes beyond it."""
    missing = max(0, pages - here)
    settings = {"recheck": recheck, "max_calls": None if left is None else 20_000}
    found = seen(settings, pages=pages, missing=missing, last_rows=min(pages, 1) * 20, left=left)
    assert missing + found.again <= found.calls <= missing + found.again + 2
    assert found.again <= wanted_again(recheck, pages)
    if left is not None:
        assert found.calls <= max(left, missing)
    else:
        assert found.again == wanted_again(recheck, pages)

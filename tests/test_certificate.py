"""From evidence to verdict: every row of the rule, every sentence, and nothing proven that one fact speaks against."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from harvester.certificate import (
    CAPPED_TOTALS,
    WINDOWS,
    EndFacts,
    Evidence,
    KeyFacts,
    ReadAgain,
    SizeFacts,
    TotalFacts,
    judge,
    recorded,
    share_below,
    wanted_again,
)
from harvester.second_reading import FULL

AGAIN = ReadAgain(pages=FULL, seed=7, share_below=share_below(FULL, 16_839))
CLEAN = Evidence(
    pages=16_839,
    rows=336_776,
    end=EndFacts(how="empty", beyond=(16_840, 18_945, 23_155)),
    page_size=SizeFacts(asked=0, effective=20),
    read_again=AGAIN,
)
KEY = KeyFacts(columns=("ID",), distinct=336_776, doubled=0)


class Fact(Struct, frozen=True):
    """A change of the clean evidence, and words of the reason that it gives."""

    change: dict[str, Any]
    words: str


def total(lowest: int, highest: int, last: int) -> dict[str, Any]:
    """Return a change: totals were claimed."""
    return {"total": TotalFacts(lowest=lowest, highest=highest, last=last)}


def again(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of ReadAgain
    """Return a change: of what was read a second time."""
    return {"read_again": replace(AGAIN, **changes)}


def key(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of KeyFacts
    """Return a change: rows were counted by their key."""
    return {"key": replace(KEY, **changes)}


DOUBTS = {
    "one hole": Fact({"holes": (2,)}, "page 2 stayed empty although rows follow"),
    "two holes": Fact({"holes": (2, 1_234)}, "pages 2, 1,234 stayed empty"),
    "nine holes": Fact({"holes": tuple(range(1, 10))}, "pages 1, 2, 3, 4, 5 and 4 more stayed empty"),
    "a higher total": Fact(total(336_777, 336_777, 336_777), "claims 336,777 rows in all, its pages hold 336,776"),
    "a lower total": Fact(total(5, 5, 5), "claims 5 rows in all, its pages hold 336,776"),
    "a total of nothing": Fact(total(0, 0, 0), "claims 0 rows in all, its pages hold 336,776"),
    "a total that came back": Fact(total(336_776, 336_780, 336_776), "moved between 336,776 and 336,780"),
    "expected more": Fact({"expect_rows": 336_777}, "`expect_rows` says 336,777 rows, the pages hold 336,776"),
    "one row": Fact(key(without=1), "1 row without ID"),
    "expected none": Fact({"expect_rows": 0}, "`expect_rows` says 0 rows"),
    "changed": Fact(again(changed=3), "3 of 700 pages had changed when they were read again"),
    "still changing": Fact(again(changed=3, rounds=2), "read again, also after 2 rounds of mending"),
    "not read again": Fact(again(unread=2), "2 pages that may have changed, or may hold more rows, could not be read"),
    "a key twice": Fact(key(doubled=2), "2 values of the key ID more than once"),
    "two columns": Fact(key(columns=("A", "B"), doubled=1), "1 value of the key A + B more"),
    "rows without key": Fact(key(without=3), "3 rows without ID"),
    "a key lost": Fact(key(lost=4), "4 rows of those that the platform claims lost, counted by ID"),
    "pages twice": Fact({"repeated_pages": 1_001}, "1,001 pages with the same rows as another page"),
    "a full answer": Fact(
        {
            "pages": 1,
            "rows": 20,
            "end": EndFacts(how="unpaged"),
            "read_again": ReadAgain(pages=1),
            "page_size": SizeFacts(asked=0, effective=20, stated=20),
        },
        "the one answer states a page size of 20 and is full",
    ),
    "a guess": Fact({"repairs": {"charset guessed": 9}}, "9 pages read by guessing (charset guessed)"),
}
WEAKNESSES = {
    "repeat": Fact({"end": EndFacts(how="repeat")}, "repeats a page instead of sending an empty one"),
    "mixed": Fact({"end": EndFacts(how="mixed")}, "some pages are empty and others are not"),
    "error": Fact({"end": EndFacts(how="error 7001")}, "answers with error 7001, not with an empty page"),
    "sample": Fact(again(pages=699), "only 699 of 16,839 pages were read a second time"),
    "once": Fact({"read_again": ReadAgain()}, "the pages were read once"),
    "window": Fact({"rows": 10_000}, "10,000 rows is a number at which servers cut lists off"),
    "twins": Fact({"twins": 5}, "5 pages with identical rows, and no `key`"),
}
NOTHING = {
    "total": total(336_776, 336_776, 336_776),
    "expected": {"expect_rows": 336_776},
    "key": key(),
    "keys deleted meanwhile": key(gone=3, lost=0),
    "key and pages twice": key() | {"repeated_pages": 4},
    "key and twins": key() | {"twins": 4},
    "repairs": {"repairs": {"bom": 16_839, "control": 2, "unwrapped": 1}},
    "mended": again(mended=12, rounds=1),
    "short pages": {"page_size": SizeFacts(asked=50, effective=20, short=3)},
    "all read again": {"pages": 5, "read_again": ReadAgain(pages=5, share_below=0.0)},
    "an empty list": {"pages": 0, "rows": 0, "read_again": ReadAgain(pages=1, share_below=0.0)},
    "unpaged": {"pages": 1, "end": EndFacts(how="unpaged"), "read_again": ReadAgain(pages=1, share_below=0.0)},
    "unpaged, not full": {
        "pages": 1,
        "rows": 19,
        "end": EndFacts(how="unpaged"),
        "read_again": ReadAgain(pages=1),
        "page_size": SizeFacts(asked=0, effective=19, stated=20),
    },
    "unpaged, no size stated": {
        "pages": 1,
        "rows": 20,
        "end": EndFacts(how="unpaged"),
        "read_again": ReadAgain(pages=1),
        "page_size": SizeFacts(asked=0, effective=20),
    },
    "a full page of many": {"page_size": SizeFacts(asked=20, effective=20, stated=20)},
    "a window with a total": {"rows": 5_000} | total(5_000, 5_000, 5_000),
    "near a window": {"rows": 9_999},
}


def test_a_clean_walk_is_proven() -> None:
    """Golden: no reasons, and what is assumed is said."""
    got = judge(CLEAN)
    assert got.verdict == "proven"
    assert got.reasons == ()
    assert got.assumptions == (
        "no page past the end that was not asked for has rows",
        (
            "pages that were not read again are like the 700 that were: with a confidence of 99%, "
            "fewer than 0.66% of them changed while the mirror was read"
        ),
    )
    assert got.evidence == CLEAN


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_not_speak_against_it(name: str) -> None:
    """It stays proven."""
    got = judge(replace(CLEAN, **NOTHING[name]))
    assert (got.verdict, got.reasons) == ("proven", ())


@pytest.mark.parametrize("name", DOUBTS)
def test_one_doubt_is_enough(name: str) -> None:
    """Not proven, with the one reason."""
    got = judge(replace(CLEAN, **DOUBTS[name].change))
    assert got.verdict == "not proven"
    assert len(got.reasons) == 1
    assert DOUBTS[name].words in got.reasons[0]


@pytest.mark.parametrize("name", WEAKNESSES)
def test_one_weakness_makes_it_likely(name: str) -> None:
    """With the one reason."""
    got = judge(replace(CLEAN, **WEAKNESSES[name].change))
    assert got.verdict == "likely"
    assert len(got.reasons) == 1
    assert WEAKNESSES[name].words in got.reasons[0]


@pytest.mark.parametrize(("one", "other"), list(combinations(WEAKNESSES, 2)))
def test_two_weaknesses_are_too_many(one: str, other: str) -> None:
    """Unless they are of the same kind, where only one can be true."""
    changes = WEAKNESSES[one].change | WEAKNESSES[other].change
    same = WEAKNESSES[one].change.keys() & WEAKNESSES[other].change.keys()
    got = judge(replace(CLEAN, **changes))
    assert got.verdict == ("likely" if same else "not proven")
    assert len(got.reasons) == (1 if same else 2)


@pytest.mark.parametrize("rows", sorted(WINDOWS))
def test_every_window_without_a_total_is_a_weakness(rows: int) -> None:
    """With one that agrees it is none, unless search engines stop counting just there."""
    assert judge(replace(CLEAN, rows=rows)).verdict == "likely"
    counted = judge(replace(CLEAN, rows=rows, **total(rows, rows, rows))).verdict
    assert counted == ("likely" if rows in CAPPED_TOTALS else "proven")
    assert judge(replace(CLEAN, rows=rows - 1 if rows != 65_536 else rows + 1)).verdict == "proven"  # 65,535 is one too


def test_the_windows() -> None:
    """Golden."""
    assert sorted(WINDOWS) == [1_000, 5_000, 10_000, 50_000, 65_535, 65_536, 100_000]
    assert sorted(CAPPED_TOTALS) == [10_000, 50_000, 65_535, 65_536, 100_000]


@pytest.mark.parametrize(
    ("rows", "size", "verdict"),
    [
        (9_990, 15, "likely"),  # 666 pages of 15 rows: another would be cut
        (9_975, 15, "proven"),
        (990, 15, "likely"),
        (65_520, 16, "likely"),
        (65_534, 2, "likely"),
        (9_999, 1, "proven"),  # a page of one row fits every window
        (0, 2_000, "proven"),  # no page fits 1,000 rows
    ],
)
def test_a_window_may_let_whole_pages_through_only(rows: int, size: int, verdict: str) -> None:
    """Its number of rows is then the last multiple of the page size."""
    sized = {"page_size": SizeFacts(asked=0, effective=size)}
    assert judge(replace(CLEAN, rows=rows, **sized)).verdict == verdict


def test_all_reasons_are_given_doubts_first() -> None:
    """Not only the first."""
    got = judge(replace(CLEAN, holes=(1,), **total(1, 2, 2), **WEAKNESSES["repeat"].change))
    assert [reason[:10] for reason in got.reasons] == ["page 1 sta", "the platfo", "past the e"]


@pytest.mark.parametrize(
    ("pages", "read", "verdict"),
    [(0, 0, "likely"), (0, 1, "proven"), (1, 0, "likely"), (1, 1, "proven"), (699, 698, "likely"), (699, 699, "proven"),
     (700, 700, "proven"), (701, 700, "proven"), (701, 699, "likely")],
)  # fmt: skip
def test_how_much_has_to_be_read_again(pages: int, read: int, verdict: str) -> None:
    """Everything, or a full sample; an empty list is one answer."""
    assert judge(replace(CLEAN, pages=pages, read_again=ReadAgain(pages=read))).verdict == verdict


@pytest.mark.parametrize(
    ("change", "assumptions"),
    [
        (NOTHING["unpaged"], ["the one answer holds all rows"]),
        (NOTHING["all read again"], ["no page past the end"]),
        (
            {"page_size": SizeFacts(asked=0, effective=20, short=1)},
            [
                "no page past the end",
                "1 page in mid-list with fewer rows than page 1 hold all that there is to them",
                "pages that were not read again",
            ],
        ),
        ({"page_size": SizeFacts(asked=0, effective=20, short=1)} | total(336_776, 336_776, 336_776), ["no", "pages"]),
        ({"read_again": ReadAgain()}, ["no page past the end", "rows kept their order while the pages were read"]),
    ],
)
def test_what_is_assumed_is_said(change: dict[str, Any], assumptions: list[str]) -> None:
    """No more than is needed: of an unpaged answer, of one that was read twice, of one read once."""
    got = judge(replace(CLEAN, **change))
    assert len(got.assumptions) == len(assumptions)
    assert all(said.startswith(expected) for said, expected in zip(got.assumptions, assumptions, strict=True))


@pytest.mark.parametrize(
    ("recheck", "pages", "wanted"),
    [
        (None, 0, 1),
        (None, 1, 1),
        (None, 699, 699),
        (None, 701, 700),
        (0, 5, 0),
        (3, 5, 3),
        (9, 5, 5),
        (900, 2_000, 900),
    ],
)
def test_how_many_pages_are_wanted_again(recheck: int | None, pages: int, wanted: int) -> None:
    """What the job file says, else as many as a proof needs; of an empty list the first page."""
    assert wanted_again(recheck, pages) == wanted


@pytest.mark.parametrize(
    ("checked", "pages", "share"),
    [(0, 0, 0.0), (0, 1, 1.0), (1, 1, 0.0), (5, 5, 0.0), (1, 2, 0.99), (700, 10_000, 0.0065572), (15, 20, 0.2643573)],
)
def test_what_share_may_have_changed_unseen(checked: int, pages: int, share: float) -> None:
    """Golden: 1 - 0.01 ** (1 / checked)."""
    assert share_below(checked, pages) == pytest.approx(share, abs=1e-6)


def test_a_certificate_can_be_read_back_from_its_package() -> None:
    """With everything beside it that others put there, and judged again it says the same."""
    evidence = replace(CLEAN, holes=(3,), repairs={"bom": 2}, **total(1, 2, 2), **key(doubled=1))
    given = judge(evidence)
    about = {"read": {"from": "2026-11-21T10:00:00+08:00"}, "scheme": "https", "calls": 9}
    package = {"name": "d", "harvester": {"rows": 1, "certificate": msgspec.to_builtins(given) | about}}
    assert recorded(msgspec.json.encode(package)) == given
    assert judge(recorded(msgspec.json.encode(package)).evidence) == given


@pytest.mark.parametrize(
    ("package", "error"),
    [
        (b"", msgspec.DecodeError),
        (b"{", msgspec.DecodeError),
        (b"[]", msgspec.ValidationError),
        (b'{"name":"other"}', msgspec.ValidationError),
        (b'{"harvester":{"certificate":{"verdict":"certain","reasons":[]}}}', msgspec.ValidationError),
    ],
)
def test_what_holds_no_certificate_says_so(package: bytes, error: type[Exception]) -> None:
    """Not JSON, another package, another form."""
    with pytest.raises(error):
        recorded(package)


@settings(max_examples=300, deadline=None)
@given(st.sets(st.sampled_from(sorted(DOUBTS))), st.sets(st.sampled_from(sorted(WEAKNESSES))))
def test_nothing_is_better_than_its_reasons(doubts: set[str], weaknesses: set[str]) -> None:
    """Proven without any, likely with one weakness, not proven with whatever else."""
    evidence = CLEAN
    for fact in [WEAKNESSES[name] for name in sorted(weaknesses)] + [DOUBTS[name] for name in sorted(doubts)]:
        evidence = replace(evidence, **fact.change)
    got = judge(evidence)
    assert bool(got.reasons) == bool(weaknesses or doubts)
    if doubts:
        assert got.verdict == "not proven"
    else:
        assert got.verdict == ("proven", "likely", "not proven")[min(2, len(got.reasons))]

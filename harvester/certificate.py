"""From evidence to a verdict on completeness. What is not said by evidence is said as an assumption.

``proven`` needs every point of the table in ``judge``; one *weakness* makes it ``likely``; a second one, or a *doubt*,
``not proven``. The evidence is kept beside the verdict, so that the verdict can be found again from the snapshot alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from msgspec import Struct

from harvester.second_reading import FULL

WINDOWS: Final = frozenset({1_000, 5_000, 10_000, 50_000, 65_535, 65_536, 100_000})
"""Numbers of rows at which servers are known to cut lists off."""
CAPPED_TOTALS: Final = frozenset({10_000, 50_000, 65_535, 65_536, 100_000})
"""Those at which search engines also stop counting: a total of that size says no more than the rows do."""
CONFIDENCE: Final = 0.99
GUESSES: Final = frozenset({"charset guessed"})
"""Repairs that rest on a guess."""

Verdict = Literal["proven", "likely", "not proven"]


class EndFacts(Struct, frozen=True, kw_only=True):
    """How the list ends: see ``frontier.End``."""

    how: str
    beyond: tuple[int, ...] = ()


class TotalFacts(Struct, frozen=True, kw_only=True):
    """The lowest, highest and last count of all rows that answers claimed."""

    lowest: int
    highest: int
    last: int


class ReadAgain(Struct, frozen=True, kw_only=True):
    """The last check of the second reading: pages read, of them changed, with which seed; pages mended before it.

    ``unread`` pages could not be read when that mattered: others had changed, or they would have shown more rows.
    ``share_below`` bounds the share of pages that may have changed unseen, with ``confidence``; 0 if all were read.
    """

    pages: int = 0
    changed: int = 0
    unread: int = 0
    mended: int = 0
    rounds: int = 0
    seed: int = 0
    share_below: float = 1.0
    confidence: float = CONFIDENCE


class KeyFacts(Struct, frozen=True, kw_only=True):
    """Rows by their key: distinct keys, keys that occur more than once, rows that lack a column of it.

    ``lost`` is how many keys fewer there are than rows by the platform's total, None without one. ``gone`` counts keys
    of replaced pages that are not in the mirror any more: rows that were deleted meanwhile.
    """

    columns: tuple[str, ...]
    distinct: int
    doubled: int
    without: int = 0
    lost: int | None = None
    gone: int = 0


class SizeFacts(Struct, frozen=True, kw_only=True):
    """The page size asked for, that of page 1, the one it states (0: none); ``short`` pages in mid-list have fewer."""

    asked: int
    effective: int
    stated: int = 0
    short: int = 0


class Evidence(Struct, frozen=True, kw_only=True):
    """What a finished walk knows about itself.

    ``holes`` are pages that were empty twice although rows follow. ``repairs`` counts pages by what had to be changed
    to read them. ``repeated_pages`` counts pages with the same rows as another one, ``twins`` pages within which rows
    are identical.
    """

    pages: int
    rows: int
    end: EndFacts
    page_size: SizeFacts
    read_again: ReadAgain = ReadAgain()
    total: TotalFacts | None = None
    key: KeyFacts | None = None
    expect_rows: int | None = None
    holes: tuple[int, ...] = ()
    repairs: dict[str, int] = {}
    repeated_pages: int = 0
    twins: int = 0


class Certificate(Struct, frozen=True, kw_only=True):
    """The verdict with its reasons (what keeps it from being better), its assumptions and its evidence."""

    verdict: Verdict
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]
    evidence: Evidence


def judge(evidence: Evidence) -> Certificate:
    """Weigh the evidence."""
    doubts, weaknesses = tuple(_doubts(evidence)), tuple(_weaknesses(evidence))
    verdict: Verdict = "proven"
    if doubts or len(weaknesses) > 1:
        verdict = "not proven"
    elif weaknesses:
        verdict = "likely"
    return Certificate(
        verdict=verdict,
        reasons=(*doubts, *weaknesses),
        assumptions=tuple(_assumptions(evidence)),
        evidence=evidence,
    )


def wanted_again(recheck: int | None, pages: int) -> int:
    """Return how many pages the second reading should read: the job file's ``recheck``, or as many as a proof needs.

    An empty list has one page to look at again: the first.
    """
    return min(FULL if recheck is None else recheck, max(pages, 1))


def share_below(checked: int, pages: int) -> float:
    """Return the share of pages that may have changed when none of a random sample has, with ``CONFIDENCE``."""
    if checked >= pages:
        return 0.0
    return 1.0 - (1.0 - CONFIDENCE) ** (1.0 / checked) if checked else 1.0


def recorded(package: bytes) -> Certificate:
    """Read the certificate of a snapshot from its ``datapackage.json``.

    Raises:
        msgspec.ValidationError: there is none in it, or not in this form.
        msgspec.DecodeError: it is not JSON.
    """
    return msgspec.json.decode(package, type=_Package).harvester.certificate


class _Ours(Struct):
    certificate: Certificate


class _Package(Struct):
    harvester: _Ours


def _doubts(evidence: Evidence) -> Iterator[str]:
    """Yield what alone keeps a mirror from being believed."""
    again = evidence.read_again
    if evidence.holes:
        yield f"{_pages(evidence.holes)} stayed empty although rows follow: the platform may be hiding or losing rows"
    size = evidence.page_size
    if evidence.end.how == "unpaged" and 0 < size.stated <= evidence.rows == size.effective:
        yield f"the one answer states a page size of {size.stated:,} and is full, so there may be more pages"
    yield from _miscounts(evidence)
    if again.changed:
        yield (
            f"{again.changed:,} of {_count(again.pages, 'page')} had changed when they were read again"
            + (f", also after {_count(again.rounds, 'round')} of mending" if again.rounds else "")
        )
    if again.unread:
        yield f"{_count(again.unread, 'page')} that may have changed, or may hold more rows, could not be read again"
    if evidence.key is not None:
        yield from _key_faults(evidence.key)
    elif evidence.repeated_pages:
        yield f"{_count(evidence.repeated_pages, 'page')} with the same rows as another page"
    for guess in sorted(GUESSES & evidence.repairs.keys()):
        pages = _count(evidence.repairs[guess], "page")
        yield f"{pages} read by guessing ({guess}): `charset` in the job file settles it"


def _miscounts(evidence: Evidence) -> Iterator[str]:
    total = evidence.total
    if total is not None:
        if total.lowest != total.highest:
            yield f"the platform's total moved between {total.lowest:,} and {total.highest:,} while the pages were read"
        elif total.last != evidence.rows:
            yield f"the platform claims {total.last:,} rows in all, its pages hold {evidence.rows:,}"
    if evidence.expect_rows not in {None, evidence.rows}:
        yield f"`expect_rows` says {evidence.expect_rows:,} rows, the pages hold {evidence.rows:,}"


def _key_faults(key: KeyFacts) -> Iterator[str]:
    columns = " + ".join(key.columns)
    if key.doubled:
        yield f"{_count(key.doubled, 'value')} of the key {columns} more than once"
    if key.without:
        yield f"{_count(key.without, 'row')} without {columns}"
    if key.lost:
        yield f"{_count(key.lost, 'row')} of those that the platform claims lost, counted by {columns}"


def _weaknesses(evidence: Evidence) -> Iterator[str]:
    """Yield what a mirror can have one of and still be likely."""
    how, again = evidence.end.how, evidence.read_again
    if how == "repeat":
        yield "past the end the platform repeats a page instead of sending an empty one"
    elif how == "mixed":
        yield "past the end some pages are empty and others are not"
    elif how not in {"empty", "unpaged"}:
        yield f"past the end the platform answers with {how}, not with an empty page"
    if again.pages < wanted_again(None, evidence.pages):
        yield (
            f"only {again.pages:,} of {_count(evidence.pages, 'page')} were read a second time"
            if again.pages
            else "the pages were read once; that nothing moved while they were read is an assumption"
        )
    size = evidence.page_size.effective
    if evidence.total is None and _is_among(WINDOWS, evidence.rows, size):
        yield f"{evidence.rows:,} rows is a number at which servers cut lists off, and there is no total to compare"
    elif evidence.total is not None and _is_among(CAPPED_TOTALS, evidence.rows, size):
        yield f"{evidence.rows:,} rows is a number at which servers cut lists off, and their totals too"
    if evidence.key is None and evidence.twins:
        yield f"{_count(evidence.twins, 'page')} with identical rows, and no `key` to tell whether they are doubled"


def _is_among(windows: frozenset[int], rows: int, size: int) -> bool:
    """Tell whether so many rows are what one of the windows lets through, or whole pages of it."""
    return rows in windows or (size > 1 and rows > 0 and rows in {window // size * size for window in windows})


def _assumptions(evidence: Evidence) -> Iterator[str]:
    if evidence.end.how == "unpaged":
        yield "the one answer holds all rows"
    else:
        yield "no page past the end that was not asked for has rows"
    again, short = evidence.read_again, evidence.page_size.short
    if short and evidence.total is None:
        yield f"{_count(short, 'page')} in mid-list with fewer rows than page 1 hold all that there is to them"
    if again.pages and again.share_below:
        yield (
            f"pages that were not read again are like the {again.pages:,} that were: with a confidence of "
            f"{again.confidence:.0%}, fewer than {again.share_below:.2%} of them changed while the mirror was read"
        )
    elif not again.pages:
        yield "rows kept their order while the pages were read"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"


def _pages(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:5])
    more = len(numbers) - 5
    return f"page{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"

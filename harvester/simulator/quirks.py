"""How a dataset misbehaves: one setting for every liberty that portals take with pages, totals, rows and bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from harvester.errors import UsageError

PastEnd = Literal["empty", "null", "last", "first", "error", "absent", "code"]
"""What a page behind the last one gives: an empty list, null, the last page again, the first page again, a failure,
no ``data`` at all, or SIPOP's code 1100 for nothing found (on Wuhan's side the same as an empty list)."""

Echo = Literal["served", "asked", "absent", "wrong"]
Size = Literal["honoured", "clamped", "clamped-silent", "ignored"]
Body = Literal[
    "plain",
    "gb18030",
    "gb18030-undeclared",
    "gbk",
    "bom",
    "html-type",
    "control",
    "surrogates",
    "string",
    "whole-string",
    "nulls",
    "object",
    "pretty",
    "html",
    "invalid",
]
ChangeKind = Literal["insert", "delete", "update", "reorder", "append"]
Where = Literal["head", "middle", "tail"]
Pairs = tuple[tuple[int, int], ...]

TOTALS: Final = ("right", "string", "wrong:N", "growing", "shrinking", "capped:N", "absent", "null", "moving")
TOTAL: Final = re.compile(r"|right|string|growing|shrinking|absent|null|moving|(wrong|capped):[0-9]{1,15}", re.ASCII)
CODE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class Change:
    """Rows that change while they are read.

    Args:
        after_calls: the change is made once so many calls for the dataset's pages have come; the next one sees it.
        kind: ``insert`` new rows, ``append`` them behind the last one wherever ``where`` points, ``delete`` rows,
            ``update`` a value of each that identifies nothing, or ``reorder``: a block of rows changes places with
            another block, which the seed chooses.
        where: the first rows, those in the middle, the last ones, or those from a position on (from 0).
        count: how many rows; as many as there are if there are fewer.

    Raises:
        UsageError: a value is out of its range.
    """

    after_calls: int
    kind: ChangeKind
    where: Where | int = "head"
    count: int = 1

    def __post_init__(self) -> None:
        at = self.where
        _insist(
            (self.after_calls >= 0, "a change comes after 0 calls or more"),
            (self.kind in get_args(ChangeKind), f"a change is one of {', '.join(get_args(ChangeKind))}"),
            (
                at >= 0 if isinstance(at, int) else at in get_args(Where),
                "a change is made at the head, middle or tail, or at a position from 0",
            ),
            (self.count >= 1, "a change concerns 1 row or more"),
        )


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """What is wrong with one dataset; by default nothing is. Calls and pages are counted from 1.

    The calls that a schedule counts are those that get as far as the dataset's pages, whatever they are given there.
    A page that holds no rows though it lies within the list looks as empty as one behind the end, where that is empty.

    Args:
        past_end: what a page behind the last one gives. The first page is never an ``error``.
        past_end_code: the failure code of ``error``; 7001, which no document lists, if it is empty.
        echo: the page number that answers state: of the page really ``served``, the one ``asked`` for, none, or
            always 1 (``wrong``). SIPOP states number and size only where this or a setting of the size is changed.
        window: rows behind so many are never served; 0 for no such cap.
        size: whether the ``pageSize`` that SIPOP is asked for is honoured, lowered to ``size_cap`` and the lowered
            one stated, lowered while the one asked for is stated, or ignored.
        size_cap: the largest size that is not lowered.
        default_size: rows of a page where no size is asked for or it is ignored; 0 for the platform's own.
        size_changes: pairs of a call and the size of all pages from that call on.
        size_echo: whether answers state the size at all.
        short_pages: pairs of a page and how many of its first rows it gives; the others are hidden, not moved.
        empty_once: pages that give no rows when they are asked for the first time.
        errors: pairs of a page and the failure code that it always gives.
        swap: pairs of pages that give each other's rows under their own number; what lies behind the last page stays
            empty, here and in ``repeat``.
        repeat: pairs of pages of which the first gives the rows of the second.
        lose_after: pairs of a call and a page that gives no rows from that call on.
        total: the total that answers state, one of ``TOTALS``; empty for the platform's own way, which is none on
            Wuhan's side and the right one on SIPOP's. ``growing`` and ``shrinking`` are off by one more with every
            call, ``moving`` by up to 5, which the seed chooses.
        changes: what happens to the rows.
        body: how rows and answers are written; all but ``plain`` need a reader who copes.

    Raises:
        UsageError: a value is out of its range.
    """

    past_end: PastEnd = "empty"
    past_end_code: str = ""
    echo: Echo = "served"
    window: int = 0
    size: Size = "honoured"
    size_cap: int = 100
    default_size: int = 0
    size_changes: Pairs = ()
    size_echo: bool = True
    short_pages: Mapping[int, int] | Pairs = ()
    empty_once: tuple[int, ...] = ()
    errors: tuple[tuple[int, str], ...] = ()
    swap: Pairs = ()
    repeat: Pairs = ()
    lose_after: Pairs = ()
    total: str = ""
    changes: tuple[Change, ...] = ()
    body: Body = "plain"

    def __post_init__(self) -> None:
        pages = {*dict(self.short_pages), *self.empty_once, *dict(self.errors)}
        pages |= {page for pair in (*self.swap, *self.repeat) for page in pair} | {page for _, page in self.lose_after}
        moved = [page for pair in self.swap for page in pair] + [page for page, _ in self.repeat]
        codes = [code for _, code in self.errors]
        _insist(
            *(
                (getattr(self, name) in get_args(words), f"{name} is one of {', '.join(get_args(words))}")
                for name, words in (("past_end", PastEnd), ("echo", Echo), ("size", Size), ("body", Body))
            ),
            (all(map(CODE.fullmatch, codes)), "a failure code is a number"),
            (not self.past_end_code or CODE.fullmatch(self.past_end_code), "past_end_code is a number"),
            (self.past_end == "error" or not self.past_end_code, 'past_end_code goes with past_end "error"'),
            (self.window >= 0, "window is 0 or more"),
            (self.size_cap >= 1, "size_cap is 1 or more"),
            (self.default_size >= 0, "default_size is 0 or more"),
            (
                all(call >= 1 and size >= 1 for call, size in self.size_changes),
                "size_changes are calls and sizes from 1",
            ),
            (all(rows >= 0 for rows in dict(self.short_pages).values()), "short_pages give 0 rows or more"),
            (all(call >= 1 for call, _ in self.lose_after), "lose_after counts calls from 1"),
            (all(page >= 1 for page in pages), "pages are counted from 1"),
            (len(moved) == len(set(moved)), "a page gives the rows of one other page"),
            (TOTAL.fullmatch(self.total), f"total is one of {', '.join(TOTALS)}"),
        )


def _insist(*rules: tuple[object, str]) -> None:
    for fine, message in rules:
        if not fine:
            raise UsageError(f"cannot simulate that: {message}")


def parse_quirks(texts: Iterable[str]) -> dict[str, Quirks]:
    """Read quirks written as ``NAME:key=value,key=value``, or without a name for all datasets.

    Several values of one key are joined by ``+``, the parts of one by ``:``, as in
    ``companies:errors=16:7001+17:500,changes=100:insert:head:5``. What is said of one name adds up.

    Raises:
        ValueError: a text is not written so.
        UsageError: a value is out of its range.
    """
    given: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, settings = _named(text)
        for setting in settings.split(","):
            key, equals, value = setting.strip().partition("=")
            if not equals or key not in READERS:
                raise ValueError(f"{setting!r} is no quirk; there are {', '.join(READERS)}")
            try:
                given.setdefault(name, {})[key] = READERS[key](value)
            except ValueError:
                raise ValueError(f"{value!r} is no value of the quirk {key}") from None
    return {name: Quirks(**settings) for name, settings in given.items()}


def _named(text: str) -> tuple[str, str]:
    """Split off the dataset's name; a colon behind the first equals sign belongs to a value."""
    head, equals, rest = text.partition("=")
    name, _, key = head.rpartition(":")
    return name.strip(), f"{key}{equals}{rest}"


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _pairs(text: str) -> Pairs:
    return tuple((int(first), int(second)) for first, second in _parts(text, 2))


def _parts(text: str, most: int) -> Iterable[list[str]]:
    return (part.split(":", most - 1) for part in text.split("+"))


def _codes(text: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(page), code) for page, code in _parts(text, 2))


def _changes(text: str) -> tuple[Change, ...]:
    made = []
    for calls, kind, *rest in _parts(text, 4):
        where, count = (*rest, *("head", "1")[len(rest) :])
        at = int(where) if where.isdecimal() else where
        made.append(Change(int(calls), kind, at, int(count)))  # type: ignore[arg-type]  # checked by Change itself
    return tuple(made)


READERS: Final[Mapping[str, Callable[[str], object]]] = {
    **{field.name: str for field in fields(Quirks)},
    "window": int,
    "size_cap": int,
    "default_size": int,
    "size_echo": _boolean,
    "size_changes": _pairs,
    "short_pages": _pairs,
    "empty_once": lambda text: tuple(map(int, text.split("+"))),
    "errors": _codes,
    "swap": _pairs,
    "repeat": _pairs,
    "lose_after": _pairs,
    "changes": _changes,
}
"""How the value of each quirk is read from text."""

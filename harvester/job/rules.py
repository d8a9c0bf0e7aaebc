"""What the value of a setting must be: in words for a message, as a test, and as an example for a hint."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import date
from typing import Any, Final

from msgspec import Struct

from harvester.errors import UsageError

_WORDS: Final = re.compile(
    r"(?:(?:^|[-_./ ${}]+)(?:[A-Z]?[a-z]{1,15}|[A-Z]{1,15}|[^\x00-\x7f]+)[0-9]{0,2}(?![A-Za-z0-9]))+"
)
SHOWN_LIMIT: Final = 60  # characters of a wrong text that a message shows
_NUMBER_LIMIT: Final = 1_000_000_000  # beyond every sensible setting, and exact as a float
_WORD: Final = range(-(2**63), 2**64)  # what orjson serialises


class Rule(Struct, frozen=True):
    """The rule of one setting; ``example`` is written as in a job file."""

    wants: str
    accepts: Callable[[Any], bool]
    example: str

    def demand(self, value: object, name: str, edit: str) -> None:
        """Raise a ``UsageError`` about ``name``, with ``edit`` as its hint, unless the value fits."""
        if not self.accepts(value):
            raise UsageError(f"{name} must be {self.wants}, found {shown(value)}", hint=f"for example {edit}")


def shown(value: object) -> str:
    """Describe what was found. What is inside a list or a table stays unsaid: it can be a misplaced secret."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value if len(value) <= SHOWN_LIMIT else value[:SHOWN_LIMIT] + '…'!r}"
        case int() if value not in _WORD:
            return "a number of more than 64 bits"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"the date or time {value}"


def is_words(text: str) -> bool:
    """Tell whether a text is made of words, as a misspelt key is, and is no secret that got into the wrong place."""
    return _WORDS.fullmatch(text) is not None


def text(example: str) -> Rule:
    """Text without control characters, so on one line."""
    return Rule("a text on one line", is_line, example)


def is_line(value: Any) -> bool:  # noqa: ANN401 - anything that TOML can hold, here and below
    """Tell whether the value is text without control characters."""
    return isinstance(value, str) and not any(unicodedata.category(character) == "Cc" for character in value)


def word(*choices: str) -> Rule:
    """One of some words."""
    return Rule(" or ".join(f'"{choice}"' for choice in choices), lambda value: value in choices, f'"{choices[-1]}"')


def flag(example: str) -> Rule:
    """True or false."""
    return Rule("true or false", lambda value: isinstance(value, bool), example)


def whole(low: int, high: int = _NUMBER_LIMIT, *, example: str) -> Rule:
    """A whole number, both bounds included."""
    return Rule(
        f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high, example
    )


def number(example: str, *, zero: bool = False) -> Rule:
    """A number above 0, or also 0; whole or not."""

    def accepts(value: Any) -> bool:  # noqa: ANN401
        return type(value) in {int, float} and (0 < value <= _NUMBER_LIMIT or (zero and value == 0))

    return Rule("a number, 0 or more" if zero else "a number above 0", accepts, example)


def share(example: str) -> Rule:
    """A part of a whole: above 0, at most 1."""
    return Rule("a number above 0, at most 1", lambda value: type(value) in {int, float} and 0 < value <= 1, example)


def either(rule: Rule, choice: str) -> Rule:
    """What a rule accepts, or one word."""
    return Rule(f'{rule.wants} or "{choice}"', lambda value: value == choice or rule.accepts(value), rule.example)


def names(example: str) -> Rule:
    """A name, or a list of different names."""

    def accepts(value: Any) -> bool:  # noqa: ANN401
        listed = value if isinstance(value, list) else [value]
        return bool(listed) and all(is_line(name) and name for name in listed) and len(set(listed)) == len(listed)

    return Rule("a name or a list of different names", accepts, example)


def day(example: str) -> Rule:
    """A date, as TOML has it or as text."""

    def accepts(value: Any) -> bool:  # noqa: ANN401
        if not isinstance(value, str):
            return type(value) is date  # a time of day is a date to Python
        try:
            return str(date.fromisoformat(value)) == value  # not its other forms, such as 20261231
        except ValueError:
            return False

    return Rule("a date (YYYY-MM-DD)", accepts, example)


def table(example: str) -> Rule:
    """A table that JSON can carry: no dates, no infinities, no number of more than 64 bits."""
    return Rule(
        "a table of texts, numbers, true or false, lists and tables",
        lambda value: isinstance(value, dict) and _is_json(value),
        example,
    )


def _is_json(value: Any) -> bool:  # noqa: ANN401
    match value:
        case dict():
            return all(map(_is_json, value.values()))
        case list():
            return all(map(_is_json, value))
        case float():
            return math.isfinite(value)
        case int():
            return value in _WORD
        case _:
            return isinstance(value, str)

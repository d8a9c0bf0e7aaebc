"""What a rule accepts, and how it says what it wants."""

from __future__ import annotations

from datetime import date, datetime
from math import inf, nan

import pytest

from harvester.errors import UsageError
from harvester.job import rules


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (rules.text(""), ["", "a b", "数据\u3000集"], ["a\nb", "\x00", "\x7f", 1, None, ["a"]]),
        (rules.word("a", "b"), ["a", "b"], ["c", "", "A", True, ["a"]]),
        (rules.flag(""), [True, False], [1, 0, "true"]),
        (rules.whole(1, 9, example=""), [1, 9], [0, 10, 1.0, True, "1", nan]),
        (rules.number(""), [1, 0.001, 10**9], [0, -1, inf, nan, True, "1", 10**400]),
        (rules.number("", zero=True), [0, 0.0, 1], [-0.1, -inf, nan, False]),
        (
            rules.names(""),
            ["a", "注册号", ["a"], ["a", "b"]],
            ["", [], [""], ["a", "a"], ["a", 1], "a\nb", 1, {"a": 1}],
        ),
        (
            rules.day(""),
            [date(2026, 12, 31), "2026-12-31", "2028-02-29"],
            ["20261231", "2026-W53-4", "2026-12-32", "2026-02-29", "2026-1-1", "", 2026, datetime(2026, 12, 31)],  # noqa: DTZ001 - as TOML gives it
        ),
        (rules.either(rules.number(""), "none"), ["none", 2], ["None", 0, ["none"]]),
        (
            rules.table(""),
            [{}, {"a": ["b", 1, 1.5, True, {"c": {}}], "d": 2**64 - 1, "e": -(2**63)}],
            [[], "a", {"a": date(2026, 1, 1)}, {"a": [nan]}, {"a": {"b": 2**64}}, {"a": -(2**63) - 1}],
        ),
    ],
)
def test_a_rule_accepts_what_it_says_and_nothing_beside(
    rule: rules.Rule, good: list[object], bad: list[object]
) -> None:
    """Both sides of every bound; true is no number, and text that spells one is none."""
    assert [value for value in good if not rule.accepts(value)] == []
    assert [value for value in bad if rule.accepts(value)] == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        ("it's\x1b", '"it\'s\\x1b"'),
        ("x" * 61, f"'{'x' * 60}…'"),
        (1.5, "the number 1.5"),
        (2**64, "a number of more than 64 bits"),
        (["secret"], "a list"),
        ({"env": "secret"}, "a table"),
        (date(2026, 1, 2), "the date or time 2026-01-02"),
    ],
)
def test_what_was_found_is_said_without_harm(value: object, words: str) -> None:
    """Long texts are cut, control characters escaped, insides of tables and lists left out."""
    assert rules.shown(value).removeprefix("the text ") == words


def test_a_demand_names_the_setting_and_an_example() -> None:
    """The message is whole without its place in a file."""
    with pytest.raises(UsageError) as caught:
        rules.whole(1, 9, example="5").demand("x", "--size", "--size 5")
    assert str(caught.value) == (
        "--size must be a whole number from 1 to 9, found the text 'x'\n\nhint: for example --size 5"
    )
    rules.whole(1, 9, example="5").demand(9, "--size", "--size 5")

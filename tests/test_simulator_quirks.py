"""Settings of a misbehaviour are checked when they are made, and read from text."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from harvester.errors import UsageError
from harvester.simulator.quirks import READERS, Body, Change, Echo, PastEnd, Quirks, Size, parse_quirks


@pytest.mark.parametrize(
    "setting",
    [
        {"past_end": "wrap"},
        {"past_end": "error", "past_end_code": "E1"},
        {"past_end": "empty", "past_end_code": "500"},
        {"echo": "loud"},
        {"window": -1},
        {"size": "silent"},
        {"size_cap": 0},
        {"default_size": -1},
        {"size_changes": ((0, 10),)},
        {"size_changes": ((1, 0),)},
        {"short_pages": {0: 3}},
        {"short_pages": ((3, -1),)},
        {"empty_once": (0,)},
        {"errors": ((0, "500"),)},
        {"errors": ((1, "none"),)},
        {"swap": ((1, 2), (2, 3))},
        {"swap": ((1, 2),), "repeat": ((2, 3),)},
        {"repeat": ((1, 0),)},
        {"lose_after": ((0, 1),)},
        {"lose_after": ((1, 0),)},
        {"total": "many"},
        {"total": "wrong"},
        {"total": "capped:-1"},
        {"body": "utf-16"},
    ],
)
def test_quirks_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    """Each says what would be right."""
    with pytest.raises(UsageError, match="cannot simulate that"):
        Quirks(**setting)


@pytest.mark.parametrize(
    "change",
    [(-1, "insert"), (0, "truncate"), (0, "insert", "top"), (0, "insert", -1), (0, "delete", "head", 0)],
)
def test_changes_out_of_range_are_refused(change: tuple[Any, ...]) -> None:
    """As quirks are."""
    with pytest.raises(UsageError, match="cannot simulate that: a change"):
        Change(*change)


def test_quirks_are_read_from_text() -> None:
    """With and without a name; what is said of one name adds up; colons and plus signs divide a value."""
    assert parse_quirks(
        [
            "past_end=last",
            "companies:past_end=error,past_end_code=9999,echo=wrong,window=1000",
            "companies:errors=16:7001+17:500,swap=3:4, repeat=5:6,lose_after=100:7,empty_once=3+9,short_pages=8:0+9:5",
            "patent.search:size=clamped-silent,size_cap=50,default_size=5,size_changes=10:20+20:30,size_echo=false",
            "patent.search:total=wrong:7,body=gb18030-undeclared",
            "patent.legal:changes=100:insert:head:5+200:reorder:17+300:append,size_echo=true",
        ]
    ) == {
        "": Quirks(past_end="last"),
        "companies": Quirks(
            past_end="error",
            past_end_code="9999",
            echo="wrong",
            window=1000,
            errors=((16, "7001"), (17, "500")),
            swap=((3, 4),),
            repeat=((5, 6),),
            lose_after=((100, 7),),
            empty_once=(3, 9),
            short_pages=((8, 0), (9, 5)),
        ),
        "patent.search": Quirks(
            size="clamped-silent",
            size_cap=50,
            default_size=5,
            size_changes=((10, 20), (20, 30)),
            size_echo=False,
            total="wrong:7",
            body="gb18030-undeclared",
        ),
        "patent.legal": Quirks(
            changes=(Change(100, "insert", "head", 5), Change(200, "reorder", 17, 1), Change(300, "append", "head", 1))
        ),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no quirk; there are past_end"),
        ("companies", "no quirk"),
        ("colour=red", "'colour=red' is no quirk"),
        ("past_end=last,", "'' is no quirk"),
        ("window=many", "'many' is no value of the quirk window"),
        ("size_echo=yes", "'yes' is no value"),
        ("errors=16", "'16' is no value"),
        ("swap=1:2:3", "no value of the quirk swap"),
        ("changes=100", "'100' is no value"),
        ("changes=1:insert:head:5:6", "no value of the quirk changes"),
    ],
)
def test_quirks_that_nobody_can_read(text: str, said: str) -> None:
    """The word at fault is named."""
    with pytest.raises(ValueError, match=said):
        parse_quirks([text])


def test_quirks_out_of_range_are_refused_in_text_as_well() -> None:
    """They can be read, but not played."""
    for text in ("past_end=wrap", "changes=0:insert:top", "body=", "total=wrong:x"):
        with pytest.raises(UsageError, match="cannot simulate that"):
            parse_quirks([text])


@pytest.mark.parametrize(("name", "words"), [("past_end", PastEnd), ("echo", Echo), ("size", Size), ("body", Body)])
def test_every_word_is_taken(name: str, words: Any) -> None:  # noqa: ANN401 - a Literal
    """By the settings and from text."""
    assert name in READERS
    for word in get_args(words):
        assert parse_quirks([f"x:{name}={word}"]) == {"x": Quirks(**{name: word})}

"""Lines for people: nothing in them moves a cursor, and tables are as wide as a terminal shows them."""

from __future__ import annotations

import pytest

from harvester.lines import columns, say


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to standard error, one by one; control characters of others are shown, not obeyed."""
    say("one\ntwo\x1b[31m 武汉")
    assert capsys.readouterr() == ("", "one\ntwo\\x1b[31m 武汉\n")


def test_columns_count_chinese_characters_as_two() -> None:
    """As wide as they are on a terminal, without trailing blanks."""
    assert columns([("专利", "1"), ("abcde", "22")]) == ["专利   1", "abcde  22"]
    assert columns([]) == []
    assert columns([("a\x1b", "b")]) == ["a\\x1b  b"]

"""Forms of rows and answers, byte for byte."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from harvester.simulator.bodies import CHALLENGE, is_readable, kept_row, sent_answer, sent_list, sent_row
from harvester.simulator.quirks import Body

ROW = '{"n":1.10, "s":"武 汉"}'.encode()
KEPT = '{"n":1.10,"s":"武 汉"}'.encode()


@pytest.mark.parametrize(
    ("body", "index", "sent", "kept"),
    [
        ("plain", 0, ROW, KEPT),
        ("control", 0, '{"n":1.10, "s":"\t\x01武 汉"}'.encode(), r'{"n":1.10,"s":"\t\u0001武 汉"}'.encode()),
        ("surrogates", 0, r'{"n":1.10, "s":"\ud83d武 汉"}'.encode(), r'{"n":1.10,"s":"\ud83d武 汉"}'.encode()),
        ("nulls", 5, ROW, KEPT),
        ("nulls", 6, b"null", b"null"),
        ("nulls", 13, b"null", b"null"),
    ],
)
def test_rows_are_sent_in_one_way_and_kept_in_another(body: Body, index: int, sent: bytes, kept: bytes) -> None:
    """Control characters are escaped, white space between tokens goes, all else stays."""
    assert sent_row(body, ROW, index) == sent
    assert kept_row(body, ROW, index) == kept


@pytest.mark.parametrize(
    ("body", "rows", "count", "sent"),
    [
        ("plain", b'{"a":"b"}', 1, b'[{"a":"b"}]'),
        ("plain", b"", 0, b"[]"),
        ("object", b'{"a":"b"}', 1, b'{"a":"b"}'),
        ("object", b'{"a":"b"},{"a":"b"}', 2, b'[{"a":"b"},{"a":"b"}]'),
        ("object", b"", 0, b"[]"),
        ("string", b'{"a":"b"}', 1, rb'"[{\"a\":\"b\"}]"'),
        ("string", b"", 0, b'"[]"'),
        ("invalid", b'{"a":"b"}', 1, b'[{"a":"\xffb"}]'),
    ],
)
def test_list_has_a_form(body: Body, rows: bytes, count: int, sent: bytes) -> None:
    """An object in place of a list of one, JSON in a string, a byte that no encoding knows."""
    assert sent_list(body, rows, count, 5) == sent


def test_every_fifth_page_is_invalid() -> None:
    """Nobody can read its rows, in UTF-8 or GB18030; a challenge page holds none at all."""
    assert [page for page in range(1, 11) if not is_readable("invalid", page)] == [5, 10]
    assert sent_list("invalid", b'{"a":"b"}', 1, 4) == b'[{"a":"b"}]'
    for encoding in ("utf-8", "gb18030"):
        with pytest.raises(UnicodeDecodeError):
            sent_list("invalid", b'{"a":"b"}', 1, 5).decode(encoding)
    assert not is_readable("html", 1)
    assert is_readable("plain", 5)


TEXT = '{"a":"武汉·𠮷"}'.encode()


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ("gb18030", TEXT.decode().encode("gb18030"), "application/json;charset=GB18030"),
        ("gb18030-undeclared", TEXT.decode().encode("gb18030"), "application/json"),
        ("gbk", TEXT.decode().encode("gb18030"), "application/json;charset=GBK"),
        ("bom", b"\xef\xbb\xbf" + TEXT, ""),
        ("html-type", TEXT, "text/html;charset=UTF-8"),
        ("whole-string", '"{\\"a\\":\\"武汉·𠮷\\"}"'.encode(), ""),
        ("pretty", '{\n  "a": "武汉·𠮷"\n}'.encode(), ""),
        ("html", CHALLENGE, "text/html;charset=UTF-8"),
    ],
)
def test_answer_has_a_form(body: Body, sent: bytes, content_type: str) -> None:
    """And a Content-Type that goes with it, or does not."""
    assert sent_answer(body, TEXT) == (sent, content_type)


@pytest.mark.parametrize("body", ["plain", "control", "surrogates", "nulls", "object", "string", "invalid"])
def test_other_forms_leave_the_answer_alone(body: Body) -> None:
    """They concern rows or their list."""
    assert body in get_args(Body)
    assert sent_answer(body, TEXT) == (TEXT, "")


def test_gbk_is_gbk_where_it_can_be() -> None:
    """GB18030 has the same bytes for all that GBK has."""
    text = json.dumps("武汉市公共数据", ensure_ascii=False).encode()
    assert sent_answer("gbk", text)[0] == text.decode().encode("gbk")

"""Rows come out as they went in, whatever a JSON parser would have made of them."""

from __future__ import annotations

import json
import string
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from harvester import envelope
from harvester.envelope import ABSENT, Nested, Opened, ShapeError, UnreadableError
from harvester.model import Reply


@pytest.mark.parametrize(
    "row",
    [
        '{"a":18446744073709551616}',
        '{"a":-123456789012345678901234567890}',
        '{"a":1.10,"b":1E5,"c":1e400,"d":-0,"e":0.1000000000000000055511151231257827}',
        '{"b":1,"a":2,"B":3}',
        '{"a":1,"a":2}',
        r'{"a":"\u00e9\/\ud83d\ude00\u0000\n"}',
        '{"a":"é 😀 武汉"}',
        '{"a":" kept  spaces , : [ ] "}',
        "null",
        "1",
        '"text"',
        "[]",
        "{}",
        "[null,[1,{}]]",
    ],
)
def test_a_row_is_kept_byte_for_byte(row: str) -> None:
    """Big numbers, trailing zeros, order and doubling of keys, escapes; also what is no object at all."""
    found = envelope.rows(Raw(f"[{row},{row}]".encode()))
    assert found.lines.decode() == f"{row}\n{row}\n"
    assert (found.count, found.repairs, found.single) == (2, (), False)


def test_printed_answers_become_one_line_per_row() -> None:
    """White space between tokens goes, inside strings it stays, and the change is named."""
    found = envelope.rows(Raw(b'[\n  {\r\n\t"a": [1,\n 2],  "b c": "d  e"\n  },\n  null\n]'))
    assert found.lines == b'{"a":[1,2],"b c":"d  e"}\nnull\n'
    assert (found.count, found.repairs) == (2, ("white space",))


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
_ROWS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.printable), inner),
    max_leaves=8,
)


def spread(text: str, random: Random) -> str:
    """Put white space between the tokens of a compact JSON text."""
    spaced, quoted, escaped = [], False, False
    for char in text:
        if not quoted and char in '{}[],:"':
            spaced.append(random.choice(["", "", " ", "\n", "\t\r\n "]))
        spaced.append(char)
        if quoted:
            quoted, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            quoted = True
        if not quoted and char in '{}[],:"':
            spaced.append(random.choice(["", " ", "\n"]))
    return "".join(spaced)


@given(st.lists(_ROWS, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_lines_equal_the_compact_rows(rows: list[Any], ascii_only: bool, random: Random) -> None:  # noqa: FBT001 - drawn
    """However an answer was printed, its lines are the compact texts of its rows."""
    texts = [json.dumps(row, ensure_ascii=ascii_only, separators=(",", ":")) for row in rows]
    printed = spread("[" + ",".join(texts) + "]", random).strip()
    found = envelope.rows(Raw(printed.encode()))
    assert found.lines == "".join(text + "\n" for text in texts).encode()
    assert found.count == len(rows)
    assert (found.repairs == ()) or printed != "[" + ",".join(texts) + "]"


@pytest.mark.parametrize("data", [ABSENT, Raw(b"null"), Raw(b"[]"), Raw(b"[ \n ]"), Raw(b"{}"), Raw(b'{"data":null}')])
def test_nothing_is_no_rows(data: Raw) -> None:
    """Missing, null, an empty list, an object without anything."""
    found = envelope.rows(data)
    assert (found.lines, found.count) == (b"", 0)


@pytest.mark.parametrize(
    ("data", "lines", "number", "size", "single"),
    [
        (b'{"pageNo":1,"pageSize":"20","data":[{"a":1}]}', b'{"a":1}\n', 1, 20, False),
        (b'{"data":[{"a":1}],"metadata":{}}', b'{"a":1}\n', None, None, False),
        (b'{"pageNo":"2","pageSize":20,"metadata":{}}', b"", 2, 20, False),
        (b'{"pageNo":3,"data":{"a":1}}', b'{"a":1}\n', 3, None, True),
        (b'{"a": 1, "pageNo": 4}', b'{"a":1,"pageNo":4}\n', None, None, True),
        (b'{"pageNo":5,"data":[]}', b"", 5, None, False),
        (b'{"pageNo":5,"data":null}', b"", 5, None, False),
        (b'{"pageNum":6,"pageSize":20,"total":0,"count":0,"hint":null}', b"", 6, 20, False),
        (b'{"data":{"pageNo":7,"pageSize":20,"data":null,"metadata":{}}}', b"", None, None, False),
        (b'{"data":{"pageNo":7,"data":[]}}', b'{"pageNo":7,"data":[]}\n', None, None, True),
        (b'{"total":1,"name":"x"}', b'{"total":1,"name":"x"}\n', None, None, True),
    ],
)
def test_the_object_around_the_rows(
    data: bytes, lines: bytes, number: int | None, size: int | None, *, single: bool
) -> None:
    """A list, an object that holds one and says which page it is, or one object that is the row itself."""
    found = envelope.rows(Raw(data))
    assert (found.lines, found.number, found.size, found.single) == (lines, number, size, single)


@pytest.mark.parametrize(
    "data",
    [
        b"1",
        b"true",
        b'"a"',
        b'""',
        b'"null"',
        b'"1"',
        b'{"data":1}',
        b'{"data":"a"}',
        rb'"\"[]\""',
        rb'{"data":"\"[]\""}',
        rb'"{\"data\":\"\\\"[]\\\"\"}"',
    ],
)
def test_another_shape_is_refused(data: bytes) -> None:
    """Neither rows nor nothing; a string is looked into once."""
    with pytest.raises(ShapeError, match="neither a list nor an object"):
        envelope.rows(Raw(data))


@pytest.mark.parametrize(
    ("data", "lines", "number", "repairs"),
    [
        ('"[]"', "", None, ()),
        (r'"[{\"a\":1.10},null]"', '{"a":1.10}\nnull\n', None, ()),
        (r'"\r\n [ {\"a\": 1} ]\n"', '{"a":1}\n', None, ("white space",)),
        (r'"{\"pageNo\":2,\"data\":[{\"a\":1}]}"', '{"a":1}\n', 2, ()),
        (r'"{\"a\":1}"', '{"a":1}\n', None, ()),
        (r'"{}"', "", None, ()),
        (r'{"pageNo":3,"data":"[{\"a\":1}]"}', '{"a":1}\n', 3, ()),
        (r'{"pageNo":3,"data":"{\"a\":1}"}', '{"a":1}\n', 3, ()),
        (r'"{\"data\":\"[{\\\"a\\\":1}]\"}"', '{"a":1}\n', None, ()),
        (r'"[{\"a\":\"x\\ty\\\\ \\u00e9\u00e9\"}]"', '{"a":"x\\ty\\\\ \\u00e9é"}\n', None, ()),
        (r'"[{\"a\":\"x\ty\"}]"', '{"a":"x\\ty"}\n', None, ("control characters",)),
        (r'"[\"\\ud83d\"]"', '"\\ud83d"\n', None, ()),
        (r'"[\"[1]\"]"', '"[1]"\n', None, ()),
        (r'"{\"\\ud83d\":\"\\udc00\"}"', '{"\\ud83d":"\\udc00"}\n', None, ()),
    ],
)
def test_json_inside_a_string_is_unwrapped(data: str, lines: str, number: int | None, repairs: tuple[str, ...]) -> None:
    """A list or an object, as ``data`` or as the ``data`` in it, with all that can be wrong inside."""
    found = envelope.rows(Raw(data.encode()))
    assert (found.lines.decode(), found.number) == (lines, number)
    assert tuple(dict.fromkeys(found.repairs)) == ("unwrapped", *repairs)


@pytest.mark.parametrize(
    "data", ['"[1"', '"[NaN]"', '"{a}"', '{"data":"[1,]"}', '"[暂无数据]"', '"' + "[" * 100_000 + '"']
)
def test_a_string_that_only_begins_like_json_is_unreadable(data: str) -> None:
    """It was cut, is something else, or is too deep."""
    with pytest.raises(UnreadableError, match="not JSON"):
        envelope.rows(Raw(data.encode()))


class _Body(Struct):
    data: Raw = ABSENT
    x: Raw = ABSENT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"data":[1}',
        b"nul",
        b'{"data":1}x',
        b"{'a':1}",
        b'{"a":\x01}',
        b'{"a":NaN}',
        b'{"data":[Infinity]}',
        b'{"data":-Infinity}',
        b'{"data":"\t',
        b'"{',
        b'"{}"x',
        b'"[1"',
        b"[1,",
    ],
)
def test_what_is_no_json_is_unreadable(body: bytes) -> None:
    """Cut, followed by something, or another language."""
    with pytest.raises(UnreadableError, match="not JSON"):
        envelope.fields(body, _Body)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"a"', b'"[]"', b'"null"', rb'"\"{}\""'])
def test_what_is_no_object_has_the_wrong_shape(body: bytes) -> None:
    """It is JSON, only not an answer."""
    with pytest.raises(ShapeError):
        envelope.fields(body, _Body)


def test_fields_stay_as_they_were_sent() -> None:
    """Raw texts; keys that are not asked for are passed over."""
    body, repairs = envelope.fields(b' {"more": [1], "data": 1.10 , "x":"\\u0041"} ', _Body)
    assert (bytes(body.data), bytes(body.x), repairs) == (b"1.10", b'"\\u0041"', ())


@pytest.mark.parametrize(
    ("body", "repairs"),
    [
        (b'{"data":[1],"x":"a"}', ()),
        (rb'"{\"data\":[1],\"x\":\"a\"}"', ("unwrapped",)),
        (rb' "\n{\"data\":[1],\"x\":\"a\"}" ', ("unwrapped",)),
        (b'{"data":[1],"x":"a","y":"\t"}', ("control characters",)),
        (b'{"data":[1],"x":"a","\\ud83d":1}', ()),
        (rb'"{\"data\":[1],\"x\":\"a\",\"y\":\"\t\"}"', ("unwrapped", "control characters")),
        (b'"{\t\\"data\\":[1],\\"x\\":\\"a\\"}"', ("control characters", "unwrapped")),
    ],
)
def test_an_answer_is_mended_before_it_is_split(body: bytes, repairs: tuple[str, ...]) -> None:
    """The whole of it may come in a string, and bare control characters may stand in its strings."""
    found, named = envelope.fields(body, _Body)
    assert (bytes(found.data), bytes(found.x), named) == (b"[1]", b'"a"', repairs)


def opened(body: bytes, known: str = "", kind: str = "application/json") -> Opened[_Body]:
    """Open an answer of a content type."""
    return envelope.opened(Reply(200, {"Content-Type": kind}, body), known, _Body)


def test_a_page_names_every_change_once() -> None:
    """From the charset to the white space, whatever level it happened on."""
    inner = '{"data": "[\\t\\"武\t\\" ]"}'
    body = b"\xef\xbb\xbf" + inner.encode("gb18030")
    page = opened(body).page(opened(body).fields.data, 7)
    assert (page.lines.decode(), page.rows, page.total, page.charset) == ('"武\\t"\n', 1, 7, "gb18030")
    assert page.repairs == ("bom", "charset", "charset guessed", "control characters", "unwrapped", "white space")


@pytest.mark.parametrize(
    ("known", "kind", "charset"),
    [
        ("utf-8", "application/json", "utf-8"),
        ("", "application/json", "utf-8"),
        ("", "application/json;charset=gbk", "utf-8"),
        ("gb18030", "application/json", ""),
    ],
)
def test_what_is_json_in_one_charset_only_is_in_that(known: str, kind: str, charset: str) -> None:
    """Valid bytes are not enough: read as GB18030 this loses the backslash before a quote."""
    answer = opened('{"data":["武\\""],"x":"汉字"}'.encode(), known, kind)
    if charset:
        page = answer.page(answer.fields.data)
        assert (page.lines.decode(), page.charset, page.repairs) == ('"武\\""\n', charset, ())
    else:
        with pytest.raises(UnreadableError, match="no JSON in GB18030") as caught:
            answer.page(answer.fields.data)
        assert 'charset = "utf-8"' in caught.value.hint


@pytest.mark.parametrize(
    ("known", "body"),
    [("utf-8", '{"x":"没有","data":[]}'.encode("gbk")), ("gb18030", '{"x":"没有啊","data":[]}'.encode())],
)
def test_the_other_charset_is_good_for_words_and_not_for_rows(known: str, body: bytes) -> None:
    """A failure can be told; a page is refused with the place and what to do."""
    answer = opened(body, known)
    assert envelope.scalar(answer.fields.x).startswith("没有")
    with pytest.raises(UnreadableError, match=r"byte 0x.. at offset") as caught:
        answer.page(answer.fields.data)
    assert "--fresh" in caught.value.hint


@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
def test_what_is_in_no_charset_or_no_json_is_unreadable(known: str) -> None:
    """The wrong byte is named before the wrong token, and nothing is hinted."""
    for body, why in (
        (b"\xff{}", "0xff at offset 0"),
        (b"{,}", "not JSON"),
        ("没有".encode("gbk"), "not UTF-8" if known == "utf-8" else "not JSON"),
    ):
        with pytest.raises(UnreadableError, match=why) as caught:
            opened(body, known)
        assert caught.value.hint == ""


@pytest.mark.parametrize("opening", [b"[", b'{"data":', b'[{"a":'])
def test_deep_nesting_is_unreadable_and_no_crash(opening: bytes) -> None:
    """A hundred thousand brackets, closed or not."""
    closing = b"1" + opening.translate(bytes.maketrans(b"[{", b"]}"), b'"a:dt')[::-1] * 100_000
    for text in (opening * 100_000, opening * 100_000 + closing):
        with pytest.raises((UnreadableError, ShapeError)):
            envelope.rows(Raw(text))
        with pytest.raises((UnreadableError, ShapeError)):
            envelope.fields(text, Nested)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"0", "0"),
        (b'"0"', "0"),
        (b'"0001"', "0001"),
        (b"1", "1"),
        (b"null", ""),
        (b"", ""),
        (b'""', ""),
        (b"true", "true"),
        (b'"\\u0031"', "1"),
        (b'"\xe6\xad\xa6"', "武"),
        (b'"a\xffud800\\n"', "a\ufffd\n"),
        (b'["\xffud800"]', '["\\ufffd"]'),
        (b"1.0", "1.0"),
        (b"[1]", "[1]"),
    ],
)
def test_a_code_as_text(raw: bytes, text: str) -> None:
    """Quoted or not is the same, leading zeros are not, and half a surrogate pair (with its stand-in) does no harm."""
    assert envelope.scalar(Raw(raw)) == text


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"20", 20),
        (b'"20"', 20),
        (b"0", 0),
        (b"-1", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"null", None),
        (b"", None),
        (b'""', None),
        ('"２０"'.encode(), None),
        ('"²"'.encode(), None),
        (b"9" * 5000, None),
    ],
)
def test_a_count(raw: bytes, value: int | None) -> None:
    """A whole number in ASCII digits that could be one, or nothing."""
    assert envelope.integer(Raw(raw)) == value

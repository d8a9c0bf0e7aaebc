"""Bytes in one charset or the other: a fact of the dataset, decided once and then held to."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.charset import CharsetError, legible, readings, shown
from harvester.model import Reply

TEXT: Final = '{"name":"武汉市洪山区，丂㐀𠀀"}'
UTF8: Final = TEXT.encode()
GB: Final = TEXT.encode("gb18030")
BOTH: Final = '{"a":"一聙"}'.encode("gb18030")  # valid UTF-8 as well, as some short texts are
BOM: Final = b"\xef\xbb\xbf"
JSON_TYPE: Final = "application/json"


def reply(body: bytes, kind: str = JSON_TYPE) -> Reply:
    """Return an answer of a content type."""
    return Reply(200, {"Content-Type": kind}, body)


@pytest.mark.parametrize(
    ("body", "kind", "charset", "repairs"),
    [
        (b"{}", JSON_TYPE, "", ()),
        (b"{}", "application/json; charset=GBK", "", ()),
        (b'{"a":"\\u6b66\x7f"}', JSON_TYPE, "", ()),
        (UTF8, JSON_TYPE, "utf-8", ()),
        (UTF8, "text/html;charset=UTF-8", "utf-8", ()),
        (UTF8, "application/json;charset=GBK", "utf-8", ()),  # the header is wrong
        (GB, "application/json;charset=GBK", "gb18030", ("charset",)),
        (GB, "text/html; Charset = 'gb2312'", "gb18030", ("charset",)),
        (GB, 'text/html; charset="GB18030"; x=1', "gb18030", ("charset",)),
        (GB, "text/html;charset=cp936", "gb18030", ("charset",)),
        (GB, JSON_TYPE, "gb18030", ("charset", "charset guessed")),
        (GB, "application/json;charset=utf-8", "gb18030", ("charset", "charset guessed")),
        (GB, "application/json;charset=gbk2", "gb18030", ("charset", "charset guessed")),
        (BOM + b"{}", JSON_TYPE, "", ("bom",)),
        (BOM + UTF8, "application/json;charset=GBK", "utf-8", ("bom",)),
        (BOM + '{"name":"一聙"}'.encode("gb18030"), "text/html;charset=GBK", "utf-8", ("bom",)),
        (BOM + GB, "application/json;charset=GBK", "gb18030", ("bom", "charset")),
        ("\ufeff".encode("gb18030") + GB, "text/html;charset=GBK", "gb18030", ("bom", "charset")),
    ],
)
def test_an_unknown_charset_is_decided_from_evidence(
    body: bytes, kind: str, charset: str, repairs: tuple[str, ...]
) -> None:
    """By what the answer declares, then UTF-8, then GB18030; plain ASCII is no evidence."""
    first = readings(reply(body, kind), "")[0]
    assert (first.charset, first.repairs, first.doubt) == (charset, repairs, "")
    assert first.text == (UTF8 if "gb18030" in charset else body.removeprefix(BOM))


@pytest.mark.parametrize(
    ("kind", "charset", "text"),
    [(JSON_TYPE, "utf-8", BOTH), ("application/json;charset=gbk", "gb18030", '{"a":"一聙"}'.encode())],
)
def test_what_is_valid_in_both_follows_the_declaration(kind: str, charset: str, text: bytes) -> None:
    """Without one it is UTF-8."""
    first = readings(reply(BOTH, kind), "")[0]
    assert (first.charset, first.text) == (charset, text)


@pytest.mark.parametrize(
    ("known", "body", "text", "repairs"),
    [
        ("utf-8", UTF8, UTF8, ()),
        ("utf-8", BOTH, BOTH, ()),
        ("gb18030", GB, UTF8, ("charset",)),
        ("gb18030", BOTH, '{"a":"一聙"}'.encode(), ("charset",)),
        ("gb18030", BOM + GB, UTF8, ("bom", "charset")),
    ],
)
def test_a_known_charset_is_never_guessed(known: str, body: bytes, text: bytes, repairs: tuple[str, ...]) -> None:
    """Whatever the answer declares, and also where the other one would fit."""
    for kind in (JSON_TYPE, "text/html;charset=gbk", "text/html;charset=utf-8"):
        first = readings(reply(body, kind), known)[0]
        assert (first.text, first.charset, first.repairs, first.doubt) == (text, known, repairs, "")


@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
def test_ascii_fits_every_charset(known: str) -> None:
    """Nothing is converted, and nothing is learnt."""
    (only,) = readings(reply(b'{"a":1}', "text/html;charset=gbk"), known)
    assert (only.text, only.charset, only.repairs, only.doubt) == (b'{"a":1}', "", (), "")


@pytest.mark.parametrize(
    ("known", "body", "place", "other"),
    [
        ("utf-8", GB, f"not UTF-8: byte 0x{GB[9]:02x} at offset 9", "gb18030"),
        ("utf-8", BOM + GB, f"not UTF-8: byte 0x{GB[9]:02x} at offset 12", "gb18030"),
        ("gb18030", '{"a":"武"}'.encode(), "not GB18030: byte 0xa6 at offset 8", "utf-8"),
    ],
)
def test_the_other_charset_is_named_and_doubted(known: str, body: bytes, place: str, other: str) -> None:
    """It may be read for the words of a failure; for rows the reason and what to do about it are told."""
    (only,) = readings(reply(body), known)
    assert (only.charset, only.doubt) == (other, place)
    assert f'charset = "{other}"' in only.hint
    assert "--fresh" in only.hint


def test_utf8_is_the_second_reading_of_what_may_be_gb18030() -> None:
    """For the case that only this one is JSON: doubted if the charset is known, evidence if it is not."""
    known = readings(reply(BOTH), "gb18030")
    assert [(one.charset, one.doubt) for one in known] == [("gb18030", ""), ("utf-8", "no JSON in GB18030")]
    declared = readings(reply(BOTH, "text/html;charset=gbk"), "")
    assert [(one.charset, one.doubt, one.repairs) for one in declared] == [
        ("gb18030", "", ("charset", "charset guessed")),  # the header may be wrong
        ("utf-8", "", ()),
    ]


@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b"abc\xffdef", ("0xff at offset 3", "0xff at offset 3")),
        (BOM + b"abc\xffdef", ("0xff at offset 6", "0xff at offset 6")),
        (b"ab\xe6", ("0xe6 at offset 2", "0xe6 at offset 2")),
        (b"\xc0\x80\x80", ("0xc0 at offset 0", "0x80 at offset 2")),
    ],
)
def test_what_is_neither_is_named_by_its_first_wrong_bytes(known: str, body: bytes, places: tuple[str, str]) -> None:
    """In both charsets, counted from the first byte of the body."""
    with pytest.raises(CharsetError) as caught:
        readings(reply(body), known)
    utf8, gb = str(caught.value).split("; ")
    assert utf8.startswith("not UTF-8: byte ")
    assert gb.startswith("not GB18030: byte ")
    assert (places[0] in utf8, places[1] in gb) == (True, True)


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith("\ufeff")))
def test_every_text_survives_the_conversion(text: str) -> None:
    """GB18030 has all of Unicode, in one form each."""
    first = readings(reply(text.encode("gb18030")), "gb18030")[0]
    assert first.text == text.encode()


@given(st.binary(max_size=40), st.sampled_from(["", "utf-8", "gb18030"]), st.sampled_from([JSON_TYPE, "x;charset=gbk"]))
def test_any_bytes_are_utf8_afterwards_or_refused(body: bytes, known: str, kind: str) -> None:
    """And the first reading is the dataset's own unless nothing else fits."""
    try:
        found = readings(reply(body, kind), known)
    except CharsetError:
        return
    for one in found:
        one.text.decode()
        assert bool(one.doubt) == bool(one.hint) == (known not in {"", one.charset} and one.charset != "")
        assert "charset guessed" not in one.repairs or not known


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("武汉".encode(), "武汉"),
        (BOM + "武汉".encode(), "武汉"),
        ("武汉".encode()[:-1], "武"),
        ("网站防火墙".encode("gb18030"), "网站防火墙"),
        ("\ufeff网站".encode("gb18030"), "网站"),
        ("网站防火墙".encode("gb18030")[:-1], "网站防火"),
        (b"a\xffb", "a�b"),
        (b"", ""),
    ],
)
def test_a_foreign_page_is_shown_in_its_charset(body: bytes, words: str) -> None:
    """Also one that is cut in mid-character; what is neither gets replacement characters."""
    assert shown(body) == words


@pytest.mark.parametrize("words", ["没有权限", "权限abc", "", "ok", "签名错误 武汉"])
def test_words_are_legible_whichever_charset_they_were_read_in(words: str) -> None:
    """UTF-8 that was read as GB18030 is put right, and what really was GB18030 stays."""
    assert legible("丂㐀𠀀") == "丂㐀𠀀"
    assert legible(words) == words
    assert legible((words + words).encode().decode("gb18030")) == words + words

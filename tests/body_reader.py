"""A second reader of platforms' answers, on Python's own ``json``, that shares nothing with the first.

It is slow and simple, and says which rows an answer holds and as which bytes they are to be kept. Where the tool's own
reader takes an answer for a page, both have to agree to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from harvester.model import Dataset, Page, Reply, Verdict
from harvester.platforms import PLATFORMS

BOM: Final = b"\xef\xbb\xbf"
SPACE: Final = " \t\r\n"
NOTHING: Final[list[bytes]] = []
"""The platform's word that there are no rows, for which no row and so no charset matters."""
WORDS_OF_A_PAGE: Final = {"pageNo", "pageNum", "pageSize", "total", "count", "metadata", "hint"}
_STRING_OR_SPACE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+', re.DOTALL)
_TO_ESCAPE: Final = re.compile("[\x00-\x1f\ud800-\udfff]")
_SHORT: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class NoPageError(Exception):
    """The answer holds no page."""


class Found(NamedTuple):
    """A page: its rows as they are to be kept, and what it says of itself."""

    rows: list[bytes]
    number: int | None = None
    size: int | None = None
    total: int | None = None


def _refuse(word: str) -> None:
    raise NoPageError(word)


_DECODER: Final = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=tuple
)


def page_in(platform: str, body: bytes, known: str, declared: str) -> Found:
    """Return the page that an answer of HTTP 200 holds.

    Args:
        platform: whose answer it is.
        body: its bytes.
        known: the dataset's charset, empty if it is not known.
        declared: what its Content-Type says.

    Raises:
        NoPageError: it holds none.
    """
    for charset, text in _texts(body, known, declared):
        try:
            members = _members(_json(text))
        except NoPageError:
            continue
        found = _page(platform, members)
        if found.rows is not NOTHING and known not in {"", charset} and not body.isascii():
            raise NoPageError("in another charset than the dataset's")
        return found
    raise NoPageError("no JSON")


def _texts(body: bytes, known: str, declared: str) -> Iterator[tuple[str, str]]:
    """Yield the body in every charset that it may be in, the likeliest first."""
    rest = body.removeprefix(BOM)
    first = known or ("gb18030" if rest is body and "gb" in declared.lower() else "utf-8")
    for charset in (first, "gb18030" if first == "utf-8" else "utf-8"):
        try:
            text = rest.decode(charset)
        except UnicodeDecodeError:
            continue
        yield charset, text.removeprefix("\ufeff") if charset == "gb18030" and not rest.isascii() else text
        if charset == first == "utf-8":
            return  # what is UTF-8 is not taken for anything else


def _json(text: str, *, again: bool = True) -> str:
    """Return a text without white space around it, if it is JSON; one that stands inside a string is unpacked once."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise NoPageError("no JSON") from error
    text = text.strip(SPACE)
    if again and isinstance(value, str) and text.startswith('"'):
        return _unpacked(text)
    return text


def _unpacked(literal: str) -> str:
    inside: str = json.loads(literal, strict=False)
    inside = inside.strip(SPACE)
    if not inside.startswith(("[", "{")):
        raise NoPageError("a string that holds neither list nor object")
    return _json(inside, again=False)


def _members(text: str) -> dict[str, str]:
    """Return the members of an object as they were written; of those with one name the last."""
    if not text.startswith("{"):
        raise NoPageError("no object")
    return {json.loads(key, strict=False): value for key, value in _parts(text)}


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a valid object or list as they were written, with the literal of their key."""
    at = _skip(text, 1)
    while text[at] not in "]}":
        key = ""
        if text[0] == "{":
            _, end = _DECODER.raw_decode(text, at)
            key, at = text[at:end], _skip(text, _skip(text, end) + 1)
        _, end = _DECODER.raw_decode(text, at)
        yield key, text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in SPACE:
        at += 1
    return at


def _page(platform: str, members: dict[str, str]) -> Found:
    if platform == "wuhan":
        if _scalar(members.get("errcode", "")) != "0":
            raise NoPageError("no success")
        return _outer(members.get("data", ""))
    code = _scalar(members.get("code", ""))
    if code == "1100":
        return Found(NOTHING)
    if code != "1000" or _scalar(members.get("result", "")) != "true":
        raise NoPageError("no success")
    found, total = _outer(members.get("data", "")), _integer(members.get("total", ""))
    return found if total is None else found._replace(total=total)


def _outer(data: str) -> Found:
    if data.startswith('"'):
        return _outer(_unpacked(data))
    if data.startswith("{"):
        members = _members(data)
        if "data" not in members:
            return _only(data, members)
        number = members.get("pageNo", "")
        number = members.get("pageNum", "") if number in {"", "null"} else number
        said = (_integer(number), _integer(members.get("pageSize", "")), _integer(members.get("total", "")))
        return Found(_inner(members["data"]).rows, *said)
    return _list(data)


def _inner(data: str) -> Found:
    if data.startswith('"'):
        return _inner(_unpacked(data))
    return _only(data, _members(data)) if data.startswith("{") else _list(data)


def _list(data: str) -> Found:
    if data in {"", "null"}:
        return Found([])
    if not data.startswith("["):
        raise NoPageError("neither list nor object")
    return Found([kept(row) for _, row in _parts(data)])


def _only(text: str, members: dict[str, str]) -> Found:
    """Take an object for the only row, unless it holds nothing but words about the page."""
    without = {"data"} if members.get("data", "") in {"", "null"} else set()
    if members.keys() - without <= WORDS_OF_A_PAGE:
        number = members.get("pageNo", "")
        number = members.get("pageNum", "") if number in {"", "null"} else number
        return Found([], _integer(number), _integer(members.get("pageSize", "")), _integer(members.get("total", "")))
    return Found([kept(text)])


def kept(text: str) -> bytes:
    """Return a row as it is to be kept: no white space between tokens, no bare control character in strings."""

    def part(found: re.Match[str]) -> str:
        return _TO_ESCAPE.sub(_escape, found[0]) if found[0].startswith('"') else ""

    return _STRING_OR_SPACE.sub(part, text).encode()


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def _scalar(text: str) -> str:
    if text.startswith('"'):
        value: str = json.loads(text, strict=False)
        return value
    return "" if text == "null" else text


def _integer(text: str) -> int | None:
    word = _scalar(text)
    return int(word) if re.fullmatch("[0-9]{1,15}", word) else None


def disagreement(dataset: Dataset, reply: Reply) -> str:
    """Have both readers read an answer of HTTP 200; return what is wrong with what the tool's makes of it, or nothing.

    What the tool refuses and the other reader would take is no fault, but said with a ``?`` in front.
    """
    platform = dataset.app.platform
    got: Page | Verdict = PLATFORMS[platform].read(dataset, reply)
    try:
        found = page_in(platform, reply.body, dataset.charset, reply.headers.get("Content-Type", ""))
    except NoPageError as error:
        return "" if isinstance(got, Verdict) else f"a page of {got.rows} rows, where there is none: {error}"
    if isinstance(got, Verdict):
        return f"? {got.code}: {got.meaning}"
    wanted: tuple[Any, ...] = (b"".join(row + b"\n" for row in found.rows), len(found.rows), *found[1:])
    given = (got.lines, got.rows, got.number, got.size, got.total)
    return "" if given == wanted else f"{given!r} instead of {wanted!r}"

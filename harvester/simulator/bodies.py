"""How rows and answers are written on the wire, and what a faithful reader makes of the rows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson

from harvester.simulator.jsontext import compact, into_first_text, pretty
from harvester.simulator.quirks import Body

CHALLENGE: Final = (
    "<!DOCTYPE html>\n<html><head><title>安全验证</title></head>"
    "<body><h1>请完成安全验证后继续访问</h1></body></html>\n".encode()
)
NULL_EVERY: Final = 7
INVALID_EVERY: Final = 5
INVALID: Final = b"\xff"  # begins no character in either encoding

_IN_ROWS: Final[Mapping[Body, tuple[bytes, bytes]]] = {
    "control": (b"\t\x01", b"\\t\\u0001"),
    "surrogates": (b"\\ud83d", b"\\ud83d"),
}
"""What stands at the beginning of a row's first text, as it is sent and as it is to be kept."""

_JSON: Final = "application/json"
_WHOLE: Final[Mapping[Body, tuple[Callable[[bytes], bytes], str]]] = {
    "gb18030": (lambda text: text.decode().encode("gb18030"), f"{_JSON};charset=GB18030"),
    "gb18030-undeclared": (lambda text: text.decode().encode("gb18030"), _JSON),
    # What GBK lacks is sent in GB18030, whose other characters are the same bytes.
    "gbk": (lambda text: text.decode().encode("gb18030"), f"{_JSON};charset=GBK"),
    "bom": (lambda text: b"\xef\xbb\xbf" + text, ""),
    "html-type": (lambda text: text, "text/html;charset=UTF-8"),
    "whole-string": (lambda text: orjson.dumps(text.decode()), ""),
    "pretty": (pretty, ""),
    "html": (lambda _: CHALLENGE, "text/html;charset=UTF-8"),
}
"""What becomes of an answer, and its Content-Type where that is not the usual one."""

BY_ROW: Final = frozenset({"nulls", *_IN_ROWS})
"""Forms that concern single rows."""


def sent_row(body: Body, row: bytes, index: int) -> bytes:
    """Return how the row at a position (from 0) of the list is sent."""
    if body == "nulls" and (index + 1) % NULL_EVERY == 0:
        return b"null"
    return into_first_text(row, _IN_ROWS[body][0]) if body in _IN_ROWS else row


def kept_row(body: Body, row: bytes, index: int) -> bytes:
    """Return the same row as a faithful mirror holds it: JSON in UTF-8 without white space between its tokens."""
    if body == "nulls" and (index + 1) % NULL_EVERY == 0:
        return b"null"
    row = compact(row)
    return into_first_text(row, _IN_ROWS[body][1]) if body in _IN_ROWS else row


def is_readable(body: Body, page: int) -> bool:
    """Say whether anybody can read the rows of a page."""
    return body != "html" and (body != "invalid" or page % INVALID_EVERY != 0)


def sent_list(body: Body, rows: bytes, count: int, page: int) -> bytes:
    """Return what stands in place of the list of a page's rows, which come joined by commas."""
    if body == "object" and count == 1:
        return rows
    if not is_readable(body, page):
        rows = into_first_text(rows, INVALID)
    text = b"[%b]" % rows
    return orjson.dumps(text.decode()) if body == "string" else text


def sent_answer(body: Body, text: bytes) -> tuple[bytes, str]:
    """Return the bytes of an answer, and its Content-Type if that is not the usual one."""
    if body not in _WHOLE:
        return text, ""
    write, content_type = _WHOLE[body]
    return write(text), content_type

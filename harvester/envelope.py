r"""Bytes to rows without changing them.

Splitting is msgspec's: a ``Raw`` is the text of a value as it was sent, so integers over 64 bits, ``1.10``, ``1E5``,
key order, doubled keys and escapes survive. msgspec does not look inside strings, therefore UTF-8 is checked first
and strictly. White space between tokens is removed, so that a row is one line however the answer was printed.

What had to be changed is named: ``bom`` (a byte order mark dropped), ``white space`` (removed between tokens).
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from harvester.model import Page

T = TypeVar("T", bound=Struct)

BOM: Final = b"\xef\xbb\xbf"
ABSENT: Final = Raw()
_LIST: Final = msgspec.json.Decoder(list[Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_PAGE_WORDS: Final = {"pageNo", "pageNum", "pageSize", "total", "count", "metadata", "hint"}


class UnreadableError(Exception):
    """The body is no JSON text in UTF-8; the argument says where and why."""


class ShapeError(Exception):
    """The body is JSON, but not of a shape that the platform is known to send."""


class Nested(Struct, frozen=True, gc=False):
    """The inner object that may stand around the rows; keys that are not listed are ignored."""

    data: Raw = ABSENT
    pageNo: Raw = ABSENT  # noqa: N815 - the platform's spelling
    pageSize: Raw = ABSENT  # noqa: N815


class Rows(Struct, frozen=True, gc=False):
    """Raw rows as lines, and what the object around them says of the page."""

    lines: bytes
    count: int
    number: int | None = None
    size: int | None = None
    repairs: tuple[str, ...] = ()
    single: bool = False

    def page(self, total: int | None, repairs: tuple[str, ...]) -> Page:
        """Return the rows as a page of an answer that claims a total and was itself repaired."""
        return Page(
            self.lines,
            self.count,
            number=self.number,
            size=self.size,
            total=total,
            repairs=repairs + self.repairs,
            single=self.single,
        )


def clean(body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Drop a byte order mark and insist on UTF-8.

    Raises:
        UnreadableError: names the first byte that is not UTF-8.
    """
    repairs: tuple[str, ...] = ()
    if body.startswith(BOM):
        body, repairs = body[len(BOM) :], ("bom",)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}") from None
    return body, repairs


def fields(body: bytes, kind: type[T]) -> T:
    """Split an answer into the raw fields that ``kind`` lists.

    Raises:
        UnreadableError: it is no JSON text.
        ShapeError: it is JSON, but no object.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise ShapeError("a JSON object was expected") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None


def rows(data: Raw) -> Rows:
    """Turn the ``data`` of an answer into lines.

    It may be missing, null, a list, an object that holds ``data`` beside the page's number and size, or one object
    that is itself the only row.

    Raises:
        ShapeError: it is none of these.
        UnreadableError: its text cannot be split.
    """
    head = bytes(data)[:1]
    if head == b"[":
        return _lines(data)
    if head == b"{":
        nested = fields(bytes(data), Nested)
        inner = bytes(nested.data)[:1]
        if inner == b"":
            return _only(data)
        found = _lines(nested.data) if inner == b"[" else _inner(nested.data)
        return msgspec.structs.replace(found, number=integer(nested.pageNo), size=integer(nested.pageSize))
    if is_empty(data):
        return Rows(b"", 0)
    raise ShapeError("`data` is neither a list nor an object")


def _inner(data: Raw) -> Rows:
    if is_empty(data):
        return Rows(b"", 0)
    if bytes(data)[:1] == b"{":
        return _only(data)
    raise ShapeError("`data.data` is neither a list nor an object")


def _only(data: Raw) -> Rows:
    """Treat an object as the only row, unless it holds nothing but words about the page."""
    nested = fields(bytes(data), Nested)
    if fields_of(data) - ({"data"} if is_empty(nested.data) else set()) <= _PAGE_WORDS:
        return Rows(b"", 0, number=integer(nested.pageNo), size=integer(nested.pageSize))
    text, repairs = _compact(bytes(data))
    return Rows(text + b"\n", 1, repairs=repairs, single=True)


def _lines(data: Raw) -> Rows:
    text, repairs = _compact(bytes(data))
    try:
        found = _LIST.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:  # pragma: no cover - _compact has read the same text
        raise UnreadableError(f"not JSON: {error}") from None
    if not found:
        return Rows(b"", 0)
    found.append(ABSENT)  # so that join ends the last line too
    return Rows(b"\n".join(found), len(found) - 1, repairs=repairs)


def _compact(text: bytes) -> tuple[bytes, tuple[str, ...]]:
    try:
        compact = msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None
    return compact, () if len(compact) == len(text) else ("white space",)


def fields_of(data: Raw) -> set[str]:
    """Return the keys of a raw object."""
    try:
        return set(msgspec.json.decode(data, type=dict[str, Raw]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None


def is_empty(raw: Raw) -> bool:
    """Tell whether a value is missing or null."""
    return bytes(raw) in {b"", b"null"}


def scalar(raw: Raw) -> str:
    """Return a code or a message as text, quoted or not; empty if it is missing or null.

    ``0`` and ``"0"`` are the same, ``"0001"`` and ``1`` are not.
    """
    if is_empty(raw):
        return ""
    text = bytes(raw)
    if text[:1] == b'"':
        try:
            return _TEXT.decode(text)
        except msgspec.DecodeError:
            return text.decode(errors="replace")
    return text.decode(errors="replace")


def integer(raw: Raw) -> int | None:
    """Return a whole number >= 0 that was sent as a number or as a string, else None."""
    text = scalar(raw)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None  # noqa: PLR2004 - no count has so many digits

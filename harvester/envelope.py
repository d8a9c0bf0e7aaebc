r"""Bytes to rows without changing them.

Splitting is msgspec's: a ``Raw`` is the text of a value as it was sent, so integers over 64 bits, ``1.10``, ``1e400``,
key order, doubled keys and escapes survive. msgspec does not look inside strings, therefore the charset is settled
first. White space between tokens is removed, so that a row is one line however the answer was printed.

What had to be changed to get at the rows is named in ``Page.repairs``, each once a page. This is the whole list:

========================  ===========================================================================================
``bom``                   a byte order mark dropped
``charset``               GB18030 converted to UTF-8
``charset guessed``       as before, but neither the job file nor the answer says that it is GB18030
``control characters``    bare ones inside strings escaped
``unwrapped``             JSON that came inside a JSON string: the whole answer, its ``data``, or the ``data`` in that
``white space``           removed between tokens
========================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from harvester import charset, literals
from harvester.charset import Reading
from harvester.model import Page, Reply

T = TypeVar("T", bound=Struct)

ABSENT: Final = Raw()
WORDS: Final = 500  # characters of a failure's message that are kept
_ANY: Final = msgspec.json.Decoder(Raw)
_LIST: Final = msgspec.json.Decoder(list[Raw])
_KEYS: Final = msgspec.json.Decoder(dict[str, Raw])
_TEXT: Final = msgspec.json.Decoder(str)
VALUES: Final = 500_000
"""Values on one page; 10,000 rows, which is the largest page that can be asked for, may have 50 columns each."""
WORKED: Final = 8 * 2**20  # bytes of a text that is unpacked from a string, or whose strings are mended
SMALL: Final = 2**16  # bytes of an object that may be nothing but words about the page
_WHITE_SPACE: Final = b" \t\r\n"
_PAGE_WORDS: Final = {"pageNo", "pageNum", "pageSize", "total", "count", "metadata", "hint"}


class UnreadableError(Exception):
    """The body is no JSON text in the dataset's charset; says where and why, and what to do if that is known."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


class ShapeError(Exception):
    """The body is JSON, but not of a shape that the platform is known to send."""


class Nested(Struct, frozen=True, gc=False):
    """The inner object that may stand around the rows; keys that are not listed are ignored."""

    data: Raw = ABSENT
    pageNo: Raw = ABSENT  # noqa: N815 - the platforms' spelling, and so on
    pageNum: Raw = ABSENT  # noqa: N815
    pageSize: Raw = ABSENT  # noqa: N815
    total: Raw = ABSENT


_NESTED: Final = msgspec.json.Decoder(Nested)


class Rows(Struct, frozen=True, gc=False):
    """Raw rows as lines, and what the object around them says of the page."""

    lines: bytes
    count: int
    number: int | None = None
    size: int | None = None
    repairs: tuple[str, ...] = ()
    single: bool = False
    total: int | None = None


class Opened(Struct, Generic[T], frozen=True, gc=False):
    """An answer split into raw fields, the reading of its body that they are from, and what was changed so far."""

    fields: T
    reading: Reading
    repairs: tuple[str, ...] = ()

    def words(self, raw: Raw) -> str:
        """Return a failure's message: the beginning, and readable also where it is not in the dataset's charset."""
        text = scalar(raw)
        if self.reading.charset == charset.GB18030:
            text = charset.legible(text)
        return text if len(text) <= WORDS else f"{text[: WORDS - 1]}…"

    def page(self, data: Raw, total: int | None = None) -> Page:
        """Return the rows in ``data`` as a page of an answer that claims a total.

        Raises:
            ShapeError: as ``rows``.
            UnreadableError: as ``rows``; or the body is in another charset than the dataset's.
        """
        if self.reading.doubt:
            raise UnreadableError(self.reading.doubt, self.reading.hint)
        found = rows(data)
        repairs = self.repairs + found.repairs
        return Page(
            found.lines,
            found.count,
            number=found.number,
            size=found.size,
            total=found.total if total is None else total,
            repairs=tuple(dict.fromkeys(repairs)) if repairs else (),
            single=found.single,
            charset=self.reading.charset,
        )


def opened(reply: Reply, known: str, kind: type[T]) -> Opened[T]:
    """Decode an answer and split it into the raw fields that ``kind`` lists.

    Args:
        reply: the answer.
        known: the dataset's charset, empty while it is unknown.
        kind: what to look for; every field is ``Raw``.

    Raises:
        UnreadableError: it is no JSON text.
        ShapeError: it is JSON, but no object.
    """
    try:
        readings = charset.readings(reply, known)
    except charset.CharsetError as error:
        raise UnreadableError(str(error)) from None
    why = readings[0].doubt
    for reading in readings:
        try:
            found, repairs = fields(reading.text, kind)
        except UnreadableError as error:
            why = why or str(error)
        else:
            return Opened(found, reading, reading.repairs + repairs)
    raise UnreadableError(why)


def fields(text: bytes, kind: type[T]) -> tuple[T, tuple[str, ...]]:
    """Split an object into the raw fields that ``kind`` lists, and name what had to be changed for it.

    Raises:
        UnreadableError: it is no JSON text.
        ShapeError: it is JSON, but no object.
    """
    try:
        return msgspec.json.decode(text, type=kind), ()
    except (msgspec.DecodeError, RecursionError):  # also another shape, which the first token tells: the rest is unseen
        whole, repairs = _valid(text)
    if bytes(whole)[:1] == b'"':
        whole, more = _unwrapped(whole)
        repairs += more
    try:
        return msgspec.json.decode(whole, type=kind), repairs
    except msgspec.ValidationError:
        raise ShapeError("a JSON object was expected") from None


def rows(data: Raw) -> Rows:
    """Turn the ``data`` of an answer into lines.

    It may be missing, null, a list, an object that holds ``data`` beside the page's number and size, or one object
    that is itself the only row. It and the inner ``data`` may be strings that hold the JSON text of a list or object.

    Raises:
        ShapeError: it is none of these.
        UnreadableError: it is no JSON, or too deep; mostly the text that a string holds.
    """
    try:
        return _outer(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None


def _outer(data: Raw) -> Rows:
    head = bytes(data)[:1]
    if head == b"[":
        return _lines(data)
    if head == b"{":
        nested = _NESTED.decode(data)
        if bytes(nested.data) == b"":
            return _only(data)
        found = _inner(nested.data)
        number, size, total = _words(nested)
        return Rows(found.lines, found.count, number, size, found.repairs, found.single, total)
    if head == b'"':
        return _in_string(data, _outer)
    if is_empty(data):
        return Rows(b"", 0)
    raise ShapeError("`data` is neither a list nor an object")


def _inner(data: Raw) -> Rows:
    head = bytes(data)[:1]
    if head == b"[":
        return _lines(data)
    if head == b"{":
        return _only(data)
    if head == b'"':
        return _in_string(data, _inner)
    if is_empty(data):
        return Rows(b"", 0)
    raise ShapeError("`data.data` is neither a list nor an object")


def _in_string(data: Raw, read: Callable[[Raw], Rows]) -> Rows:
    inside, repairs = _unwrapped(data)  # no string again
    found = read(inside)
    return msgspec.structs.replace(found, repairs=repairs + found.repairs)


def _unwrapped(data: Raw) -> tuple[Raw, tuple[str, ...]]:
    """Take the JSON text of a list or an object out of a string, once."""
    literal = bytes(data)
    if len(literal) > WORKED:
        raise UnreadableError(f"a string holds more than {WORKED // 2**20} MiB")
    text = literals.content(literal).strip(_WHITE_SPACE)
    if text[:1] not in {b"[", b"{"}:
        raise ShapeError("a string holds neither a list nor an object")
    inside, repairs = _valid(text)
    return inside, ("unwrapped", *repairs)


def _valid(text: bytes) -> tuple[Raw, tuple[str, ...]]:
    """Insist on JSON; its string literals are mended only if they have to be."""
    try:
        return _ANY.decode(text), ()
    except (msgspec.DecodeError, RecursionError) as error:
        if len(text) > WORKED:
            raise UnreadableError(f"not JSON: {error}") from None
        try:
            text, repairs = literals.mended(text)
        except literals.FloodError as flood:
            raise UnreadableError(str(flood)) from None
    try:
        return _ANY.decode(text), repairs
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None


def _words(nested: Nested) -> tuple[int | None, int | None, int | None]:
    """Return what an object says of its page: number, size, and the total of all."""
    number = nested.pageNum if is_empty(nested.pageNo) else nested.pageNo
    return integer(number), integer(nested.pageSize), integer(nested.total)


def _only(data: Raw) -> Rows:
    """Treat an object as the only row, unless it holds nothing but words about the page."""
    nested = _NESTED.decode(data)
    if memoryview(data).nbytes <= SMALL and _keys(data) - ({"data"} if is_empty(nested.data) else set()) <= _PAGE_WORDS:
        number, size, total = _words(nested)
        return Rows(b"", 0, number, size, total=total)
    text, repairs = _compact(data)
    return Rows(literals.restored(text) + b"\n", 1, repairs=repairs, single=True)


def _lines(data: Raw) -> Rows:
    text, repairs = _compact(data)
    if text.count(b",") >= VALUES:
        raise UnreadableError(
            f"more than {VALUES:,} values on one page", "ask for fewer rows a page: a smaller `page_size`"
        )
    found = _LIST.decode(text)
    if not found:
        return Rows(b"", 0)
    found.append(ABSENT)  # so that join ends the last line too
    return Rows(literals.restored(b"\n".join(found)), len(found) - 1, repairs=repairs)


def _compact(data: Raw) -> tuple[bytes, tuple[str, ...]]:
    text = memoryview(data)  # not a copy: it may be large
    compact = msgspec.json.format(text, indent=-1)
    return compact, () if len(compact) == text.nbytes else ("white space",)


def _keys(data: Raw) -> set[str]:
    """Return the keys of a raw object; half of a surrogate pair is readable in none that matters."""
    return set(_KEYS.decode(literals.masked(bytes(data))))


def is_empty(raw: Raw) -> bool:
    """Tell whether a value is missing or null."""
    return bytes(raw) in {b"", b"null"}


def scalar(raw: Raw) -> str:
    """Return a code or a message as text, quoted or not; empty if it is missing or null.

    ``0`` and ``"0"`` are the same, ``"0001"`` and ``1`` are not. Half of a surrogate pair becomes U+FFFD.
    """
    text = literals.masked(bytes(raw))
    if text[:1] == b'"':
        return _TEXT.decode(text)
    return "" if text == b"null" else text.decode()


def integer(raw: Raw) -> int | None:
    """Return a whole number >= 0 that was sent as a number or as a string, else None."""
    sent = bytes(raw)
    digits = sent[1:-1] if sent[:1] == b'"' else sent
    text = digits.decode() if digits.isdigit() or not digits else scalar(raw)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None  # noqa: PLR2004 - no count has so many digits

"""Which charset a body is in, and the body in UTF-8.

The charset is a fact of the dataset, not of an answer: some text in GB18030 is valid UTF-8 as well, so that a guess per
answer would mix the two. Once it is known, from the job file or from the first answer that was not plain ASCII, every
answer is decoded with it and strictly. Only what decides nothing, the words of a failure, may be in the other one.

GBK and GB2312 are subsets of GB18030, which stands for all three.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.model import Reply

UTF8: Final = "utf-8"
GB18030: Final = "gb18030"
BOM: Final = b"\xef\xbb\xbf"
PIECE: Final = 2**20  # bytes that are converted in one go
LARGEST: Final = 32 * 2**20  # bytes of a text after it
_DECLARED_GB: Final = re.compile(r"charset\s*=\s*[\"']?(?:gb18030|gbk|gb2312|cp936)\b", re.IGNORECASE)


class CharsetError(Exception):
    """The body is in neither charset; the argument names the first wrong byte of each."""


class Reading(Struct, frozen=True, gc=False):
    """A body in UTF-8.

    ``charset`` is the one that it came in, empty where every byte is ASCII. ``doubt`` says why this cannot be the
    dataset's text, and ``hint`` what to do if it is: words of a failure may be taken from it, rows may not.
    """

    text: bytes
    charset: str = ""
    repairs: tuple[str, ...] = ()
    doubt: str = ""
    hint: str = ""


def readings(reply: Reply, known: str) -> tuple[Reading, ...]:
    """Decode a body in every way that it may be meant; the likeliest comes first and is mostly the only one.

    Args:
        reply: the answer; its Content-Type counts only where the charset is unknown.
        known: "utf-8" or "gb18030"; empty while the dataset's charset is unknown.

    Raises:
        CharsetError: it cannot be decoded at all.
    """
    body = reply.body.removeprefix(BOM)
    marked = len(reply.body) - len(body)
    repairs = ("bom",) if marked else ()
    if body.isascii():
        return (Reading(body, "", repairs),)
    # A mark says more than a header: whoever wrote it has written UTF-8.
    gb_first = known == GB18030 or (not known and not marked and _declares_gb(reply))
    found: tuple[Reading, ...] = ()
    faults: list[str] = []
    try:
        _in_utf8(body, UTF8)
    except UnicodeDecodeError as error:
        faults.append(_fault(UTF8, error, marked))
    else:
        found = (Reading(body, UTF8, repairs),)
        if not gb_first:
            return found
    try:
        found = (_converted(body, repairs), *found)
    except UnicodeDecodeError as error:
        faults.append(_fault(GB18030, error, marked))
    if not found:
        raise CharsetError("; ".join(faults))
    if known:
        return tuple(one if one.charset == known else _doubtful(one, known, faults) for one in found)
    if found[0].charset == GB18030 and (not _declares_gb(reply) or len(found) > 1):  # or the header may be wrong
        return (replace(found[0], repairs=(*found[0].repairs, "charset guessed")), *found[1:])
    return found


def shown(body: bytes) -> str:
    """Return the beginning of a foreign body as text for people; the last character may be cut."""
    body = body.removeprefix(BOM)
    for charset in (UTF8, GB18030):
        with suppress(UnicodeDecodeError):
            return getincrementaldecoder(charset)().decode(body).removeprefix("\ufeff")
    return body.decode(errors="replace")


def legible(text: str) -> str:
    """Return words that were read as GB18030 as what they are in UTF-8, if they are.

    A failure may come from a gateway with a charset of its own. By chance alone few words are valid UTF-8.
    """
    with suppress(UnicodeDecodeError):
        return text.encode(GB18030).decode()
    return text


def _declares_gb(reply: Reply) -> bool:
    return _DECLARED_GB.search(reply.headers.get("Content-Type", "")) is not None


def _converted(body: bytes, repairs: tuple[str, ...]) -> Reading:
    text = _in_utf8(body, GB18030)
    if text.startswith(BOM):
        text, repairs = text.removeprefix(BOM), ("bom",)
    return Reading(text, GB18030, (*repairs, "charset"))


def _in_utf8(body: bytes, charset: str) -> bytes:
    """Convert a text piece by piece: as characters all of it could take four times its size."""
    if len(body) <= PIECE:
        text = body.decode(charset)
        return body if charset == UTF8 else text.encode()
    decoder = getincrementaldecoder(charset)()
    parts: list[bytes] = []
    size = 0
    for at in range(0, len(body), PIECE):
        begun = len(decoder.getstate()[0])  # bytes of a character that the last piece cut
        try:
            parts.append(decoder.decode(body[at : at + PIECE], at + PIECE >= len(body)).encode())
        except UnicodeDecodeError as error:
            start = at - begun + error.start
            raise UnicodeDecodeError(charset, body, start, start + 1, error.reason) from None
        size += len(parts[-1])
        if size > LARGEST:
            raise CharsetError(f"in UTF-8 it is larger than {LARGEST // 2**20} MiB")
    return body if charset == UTF8 else b"".join(parts)


def _fault(charset: str, error: UnicodeDecodeError, marked: int) -> str:
    return f"not {charset.upper()}: byte 0x{error.object[error.start]:02x} at offset {error.start + marked}"


def _doubtful(other: Reading, known: str, faults: list[str]) -> Reading:
    return replace(
        other,
        doubt=faults[0] if faults else f"no JSON in {known.upper()}",
        hint=f'the body fits {other.charset.upper()}: put charset = "{other.charset}" into the dataset\'s table, '
        "then `harvester run JOB --fresh`",
    )

r"""String literals that a strict JSON parser refuses, made acceptable to it without changing what they say.

Two things occur in real answers. Control characters stand bare in a string: they become escapes. And an escape names
half a surrogate pair (``"\ud83d"``, left over when a text was cut by length): legal JSON text that many parsers refuse
since it is no character. Such an escape has to survive as it is. Its backslash is lent out while the parser works: a
byte that UTF-8 never contains stands in, which msgspec passes over inside strings, and ``restored`` puts it back.
"""

from __future__ import annotations

import json
import re
from typing import Final

MOST: Final = 100_000
"""Places in one text that are mended; more are no slip but a flood, and would take seconds."""

_STAND_IN: Final = b"\xff"
# The matches adjoin and never go back, so that time is linear in any text, also if a quote is never closed.
_RUN: Final = re.compile(
    rb'(?:[^"]*+"[^"\\\x00-\x1f]*+")++'  # as many plain literals as there are, with what stands between them
    rb'|(?P<before>[^"]*+)(?P<literal>"[^"\\]*+(?:\\.[^"\\]*+)*+["\\]?)'  # one that has to be looked into
    rb'|[^"]++',
    re.DOTALL,
)
_DETAIL: Final = re.compile(
    rb"(?:[^\\\x00-\x1f]++"  # all that is well, in one match however long it is:
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|\\(?!u[dD][89a-fA-F][0-9a-fA-F]{2})."  # another; or a backslash before a control character, no escape
    rb")++"
    rb"|\\(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|(?P<control>[\x00-\x1f])",
    re.DOTALL,
)
_HALF: Final = re.compile("[\ud800-\udfff]")
_LENT: Final = re.compile(rb"\xffu[0-9a-fA-F]{4}")
_SHORT: Final = {b"\b": b"\\b", b"\t": b"\\t", b"\n": b"\\n", b"\f": b"\\f", b"\r": b"\\r"}


class FloodError(Exception):
    """There is more to mend than a text by mistake has."""


def mended(text: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Make the string literals of a UTF-8 text acceptable; what is wrong elsewhere stays so.

    Returns:
        The text, with stand-ins for ``restored``, and the repairs: only control characters count as one.

    Raises:
        FloodError: there are more than ``MOST`` places.
    """
    escaped, places = False, 0

    def detail(found: re.Match[bytes]) -> bytes:
        nonlocal escaped, places
        if found.lastgroup is None:
            return found[0]
        places += 1
        if places > MOST:
            raise FloodError(f"more than {MOST:,} control characters or halves of surrogate pairs")
        if found["half"]:
            return _STAND_IN + found["half"]
        escaped = True
        return _SHORT.get(found["control"]) or b"\\u%04x" % found["control"][0]

    def run(found: re.Match[bytes]) -> bytes:
        literal = found["literal"]
        return found["before"] + _DETAIL.sub(detail, literal) if literal else found[0]

    text = _RUN.sub(run, text)
    return text, ("control characters",) if escaped else ()


def restored(text: bytes) -> bytes:
    """Put back every backslash that ``mended`` or ``content`` lent out."""
    return text.replace(_STAND_IN, b"\\")


def masked(text: bytes) -> bytes:
    """Put U+FFFD in the place of half pairs, for keys and words that are compared or shown and not kept."""
    return _LENT.sub(rb"\\ufffd", text) if _STAND_IN in text else text


def content(literal: bytes) -> bytes:
    """Return the text that a valid literal holds, in UTF-8; half a pair in it becomes an escape with a stand-in."""
    text = _HALF.sub(lambda half: f"\udcffu{ord(half[0]):04x}", json.loads(restored(literal)))
    return text.encode(errors="surrogateescape")  # which turns U+DCFF into the byte 0xFF

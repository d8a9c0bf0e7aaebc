"""Small surgery on JSON texts that leaves every byte of their values as it is: no parser keeps 1.10 or doubled keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

# A string (with the colon that makes it a name), a bracket, a comma, or anything else up to the next of them.
TOKEN: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}\[\],]|[^\s{}\[\],"]+', re.DOTALL)
STRING: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?', re.DOTALL)
UNSPACED: Final = re.compile(rb'[^\s"]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^\s"]*)*', re.DOTALL)
INDENT: Final = b"  "


def into_first_text(text: bytes, inserted: bytes) -> bytes:
    """Put bytes in front of the characters of the first string that is a value; no change where there is none."""
    for found in STRING.finditer(text):
        if found[2] is None:
            place = found.start() + 1
            return text[:place] + inserted + text[place:]
    return text


def texts(row: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the name of every member of an object whose value is a string, and where that stands with its quotes."""
    depth, name = 0, ""
    for found in TOKEN.finditer(row):
        if found[2] is not None:
            name = json.loads(found[1]) if depth == 1 else name
        elif found[1] is not None:
            if depth == 1 and row.lstrip().startswith(b"{"):
                yield name, found.start(), found.end()
        elif found[0] in b"{[":
            depth += 1
        elif found[0] in b"]}":
            depth -= 1


def compact(text: bytes) -> bytes:
    """Remove the white space between tokens."""
    return b"".join(UNSPACED.findall(text))


def pretty(text: bytes) -> bytes:
    """Put every member and element on a line of its own, indented."""
    out: list[bytes] = []
    depth = 0
    opened = False  # whether the token before was an opening bracket
    for found in TOKEN.finditer(text):
        token = found[0]
        closes = token in (b"}", b"]")
        depth -= closes
        if opened != closes:  # an empty pair of brackets stays together
            out.append(b"\n" + INDENT * depth)
        opened = token in (b"{", b"[")
        depth += opened
        out.append(token)
        if found[2] is not None:
            out.append(b" ")
        elif token == b",":
            out.append(b"\n" + INDENT * depth)
    return b"".join(out)

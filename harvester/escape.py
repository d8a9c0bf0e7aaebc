r"""Text from outside, made harmless for the place where it is shown; what is harmless already stays as it is.

A control character can steer a terminal, a formatting one (bidirectional overrides, zero width) can make text read as
what it is not. All of them, and lone surrogates, which no encoder takes, become escapes such as ``\x1b``.
"""

from __future__ import annotations

import html
import re
from typing import Final

LINE: Final = 2_000
"""Characters of one text that are shown to people; more would be in the way of the rest."""

# What spreadsheets take for the beginning of a formula (OWASP, CSV Injection), with the full-width forms.
_FORMULA: Final = tuple("=+-@＝＋－＠")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def safe(text: str) -> str:
    """Return text for a terminal or a log, cut where it is very long."""
    rest = len(text) - LINE
    return _escaped(text) if rest <= 0 else f"{_escaped(text[:LINE])}… ({rest:,} more characters)"


def in_html(text: str) -> str:
    """Return text for the content or a quoted attribute of an HTML page."""
    return html.escape(safe(text))


def in_csv(text: str) -> str:
    """Return text for a cell that a spreadsheet may open: with an apostrophe before what it might calculate.

    A plain number is one with a sign, too.
    """
    text = _escaped(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def in_json(text: str) -> str:
    """Return JSON that says the same and prints anywhere: what is not printable in its strings becomes an escape."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

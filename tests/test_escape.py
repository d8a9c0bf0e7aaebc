"""What is shown of a foreign text is harmless where it is shown, and otherwise the text itself."""

from __future__ import annotations

import html
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.escape import LINE, in_csv, in_html, in_json, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("武汉 plain", "武汉 plain"),
        ("\x1b]0;owned\x07\x7f", "\\x1b]0;owned\\x07\\x7f"),
        ("\u202eabc\u2066\ufeff\u00ad\U000e0041", "\\u202eabc\\u2066\\ufeff\\xad\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("x" * LINE, "x" * LINE),
        ("x" * (LINE + 1234), "x" * LINE + "… (1,234 more characters)"),
        ("\x1b" * (LINE + 1), "\\x1b" * LINE + "… (1 more characters)"),
    ],
)
def test_text_for_a_terminal(text: str, shown: str) -> None:
    """Control, formatting and lone surrogate characters become escapes; Chinese stays; a flood is cut."""
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("-0.3", "-0.3"),
        ("+12", "+12"),
        ("-1e5", "'-1e5"),
        ("a=b", "a=b"),
        ("武汉", "武汉"),
        ("x" * 9999, "x" * 9999),
        ("", ""),
    ],
)
def test_text_for_a_spreadsheet(text: str, cell: str) -> None:
    """Nothing that would be calculated, also behind blanks and in full width; numbers stay numbers."""
    assert in_csv(text) == cell


def test_text_for_a_page() -> None:
    """No tag, no end of an attribute, nothing that reorders what is read."""
    assert in_html("<b a=\"1\" c='2'>&\u202e\x00") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;\\u202e\\x00"


@given(st.text(st.characters(exclude_categories=())) | st.recursive(st.text(), st.lists, max_leaves=5))
def test_json_says_the_same_and_prints(value: object) -> None:
    """Nothing but printable characters and line ends, whatever is in the strings; half a pair came as an escape."""
    for ascii_only in (True, False):
        text = in_json(json.dumps(value, ensure_ascii=ascii_only, indent=1))
        assert all(char.isprintable() or char == "\n" for char in text)
        assert json.loads(text) == json.loads(json.dumps(value, ensure_ascii=ascii_only))


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_it_is(text: str) -> None:
    """Printable in every form, and never lost: what was printable is what is shown."""
    for shown in (safe(text), in_csv(text), in_html(text)):
        assert shown.isprintable()
        shown.encode()
    assert not in_csv(text).strip().startswith(("=", "@", "＝", "＋", "－", "＠"))
    assert not {"<", ">", '"', "'"} & set(in_html(text))
    if text.isprintable():
        assert safe(text) == text
        assert html.unescape(in_html(text)) == text

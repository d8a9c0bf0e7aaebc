"""Surgery on JSON texts: only what is meant changes."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.jsontext import compact, into_first_text, pretty, texts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (b'{"a":"b"}', b'{"a":"+b"}'),
        (b'{"a" : 1, "b:\\"":[{"c":""}]}', b'{"a" : 1, "b:\\"":[{"c":"+"}]}'),
        (b'{"a\\\\":"\\\\"}', b'{"a\\\\":"+\\\\"}'),
        (b'"a"', b'"+a"'),
        (b'{"a":1}', b'{"a":1}'),
        (b"null", b"null"),
    ],
)
def test_first_text_is_found(text: bytes, changed: bytes) -> None:
    """Names are no values, whatever quotes and colons stand in them; without a text nothing changes."""
    assert into_first_text(text, b"+") == changed


def test_texts_are_the_members_of_the_outer_object() -> None:
    """With their quotes; what lies deeper or is no string is left out, and so is a list."""
    row = b' {"a":"1", "b\\u0062": ["2",{"c":"3"}], "d":{"e":"4"},"f":5,"\\"":"6"}'
    assert [(name, row[start:end]) for name, start, end in texts(row)] == [("a", b'"1"'), ('"', b'"6"')]
    assert list(texts(b'["a",{"b":"c"}]')) == []


@given(VALUES, st.sampled_from([None, 1, 3]))
def test_white_space_goes_and_nothing_else(value: object, indent: int | None) -> None:
    """However a text was printed, the compact one is the same."""
    assert compact(json.dumps(value, indent=indent).encode()) == json.dumps(value, separators=(",", ":")).encode()


@given(VALUES)
def test_pretty_text_is_that_of_a_printer(value: object) -> None:
    """Two spaces a level, the same as a JSON library's own."""
    assert pretty(json.dumps(value).encode()) == json.dumps(value, indent=2).encode()


def test_values_are_not_read() -> None:
    """Numbers of any length, doubled names and escapes stay, there and back."""
    text = b'{"n":1.10,"n":18446744073709551616,"s":"\\ud83d \\/ : , {}","e":[],"o":{}}'
    assert compact(pretty(text)) == text
    assert orjson.loads(pretty(b"[1,[2]]")) == [1, [2]]

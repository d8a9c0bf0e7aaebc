r"""String literals as they come: bare control characters become escapes, half pairs stay what they are."""

from __future__ import annotations

import json
import time
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.literals import content, masked, mended, restored

CONTROL: Final = ("control characters",)


@pytest.mark.parametrize(
    ("sent", "kept", "repairs"),
    [
        (b'["a\tb\nc\rd\be\ff"]', rb'["a\tb\nc\rd\be\ff"]', CONTROL),
        (b'["\x00\x01\x0b\x1b\x1f"]', rb'["\u0000\u0001\u000b\u001b\u001f"]', CONTROL),
        (b'{"k\ney":"v"}', rb'{"k\ney":"v"}', CONTROL),
        (b'[\n\t"a" ,\r\n"b"]', b'[\n\t"a" ,\r\n"b"]', ()),
        (b'["\x7f\xc2\x80\xc2\x9f"]', b'["\x7f\xc2\x80\xc2\x9f"]', ()),
        (rb'["\ud83d"]', rb'["\ud83d"]', ()),
        (rb'["\uDE00x\uD83D","\ud83d\ud83d\ude00"]', rb'["\uDE00x\uD83D","\ud83d\ud83d\ude00"]', ()),
        (rb'["\ud83d\u0041\ude00\\ud83d"]', rb'["\ud83d\u0041\ude00\\ud83d"]', ()),
        (b'{"\\ud83d":"\\ud83d\t\\"\t"}', rb'{"\ud83d":"\ud83d\t\"\t"}', CONTROL),
        (b'["\\\\",\n"\\"\n\\\\"]', b'["\\\\",\n"\\"\\n\\\\"]', CONTROL),
    ],
)
def test_literals_become_acceptable(sent: bytes, kept: bytes, repairs: tuple[str, ...]) -> None:
    """The parser takes them, and what is put back is what was sent but for the control characters."""
    text, named = mended(sent)
    assert msgspec.json.format(text, indent=0)
    assert (restored(text), named) == (kept, repairs)


@pytest.mark.parametrize(
    "text",
    [b'["\\\n"]', b'["\\\x01"]', b"[\x01]", b'["a"\x0c]', b'["\\ud83"]', b'["a', b'["a\\', b"[NaN]", b"[\\ud83d]"],
)
def test_what_is_no_json_stays_none(text: bytes) -> None:
    """A backslash before a control character is no escape, and outside strings only four of them are white space."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(mended(text)[0])


_PIECES = st.sampled_from(
    [("a", "a"), ("武😀", "武😀"), ("\x7f\x80", "\x7f\x80"), (" : , ] }", " : , ] }")]
    + [(escape, escape) for escape in (r"\"", r"\\", r"\/", r"\n", r"\u0000", r"\u00e9", r"\ud83d\ude00")]
    + [(half, half) for half in (r"\ud83d", r"\uDBFF", r"\udc00", r"\uDFFF")]
    + [(char, json.dumps(char)[1:-1]) for char in map(chr, range(0x20))]
)


@st.composite
def literals(draw: st.DrawFn) -> tuple[str, str]:
    """Draw the content of a literal, as it is sent and as it is to be kept."""
    pieces = draw(st.lists(_PIECES, max_size=8))
    return "".join(sent for sent, _ in pieces), "".join(kept for _, kept in pieces)


@given(st.lists(literals(), min_size=1, max_size=4))
def test_any_mixture_is_kept(found: list[tuple[str, str]]) -> None:
    """Valid for the parser, the same for the reader, and done once for all."""
    sent = "[" + ",".join(f'"{text}"' for text, _ in found) + "]"
    kept = "[" + ",".join(f'"{text}"' for _, text in found) + "]"
    text, repairs = mended(sent.encode())
    assert msgspec.json.format(text, indent=-1) == text
    assert restored(text).decode() == kept
    assert bool(repairs) == (sent != kept)
    assert json.loads(kept) == json.loads(sent, strict=False)
    assert mended(kept.encode()) == (text, ())


@given(literals(), st.booleans())
def test_the_content_of_a_literal_is_a_text_again(found: tuple[str, str], ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """What is packed into a string comes out; half a pair in the packing becomes an escape in the text."""
    inner = found[0] + "\ud83d"
    literal = json.dumps(inner, ensure_ascii=ascii_only)
    packed = literal.replace("\ud83d", r"\ud83d").encode()
    assert restored(content(mended(packed)[0])).decode() == found[0] + r"\ud83d"


def test_an_escape_that_was_cut_does_not_eat_the_backslash_before_it() -> None:
    """In the packed text a backslash before half a pair is an error, and remains one."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(content(mended(rb'"[\"\\\ud83d\"]"')[0]))


def test_half_pairs_are_masked_where_words_are_compared_or_shown() -> None:
    """Replacement characters; other texts are untouched."""
    text = mended(rb'{"a\ud83d":"\udc00 \u6b66"}')[0]
    assert msgspec.json.decode(masked(text)) == {"a�": "� 武"}
    assert masked(b'"\\\\ud83d"') == b'"\\\\ud83d"'


@pytest.mark.parametrize(
    "body",
    [
        b'"' * 200_001,
        b'["' + b'\\"' * 200_000,
        b'"\x01' * 100_000,
        b"\\" * 200_001,
        b'""' + b" " * 200_000 + b'"\t"' + b" " * 200_000,
    ],
)
def test_a_hostile_text_takes_no_longer(body: bytes) -> None:
    """Quotes that never close: every byte is looked at once, a quadratic search would take minutes."""
    started = time.process_time()
    mended(body)
    assert time.process_time() - started < 5

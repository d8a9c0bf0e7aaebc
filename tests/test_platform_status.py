"""Answers without a code of the platform: judged by HTTP status and shape."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.model import Kind, Reply
from harvester.platforms.status import EXCERPT, UNREADABLE_TRIES, excerpt, is_markup, judge, tells_more, unknown


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "concerns"),
    [
        (429, {}, b"", Kind.OVER_LIMIT, "app"),
        (429, {"Retry-After": "3"}, b"<html>", Kind.OVER_LIMIT, "app"),
        (503, {"Retry-After": "3"}, b"", Kind.OVER_LIMIT, "app"),
        (503, {}, b"", Kind.AGAIN, "dataset"),
        (500, {}, b"<html>", Kind.AGAIN, "dataset"),
        (502, {}, b"", Kind.AGAIN, "dataset"),
        (408, {}, b"", Kind.AGAIN, "dataset"),
        (301, {"Location": "https://x.example/"}, b"", Kind.REFUSED, "app"),
        (304, {}, b"", Kind.REFUSED, "app"),
        (404, {}, b"", Kind.REFUSED, "dataset"),
        (410, {}, b"", Kind.REFUSED, "dataset"),
        (401, {}, b"", Kind.AGAIN, "app"),
        (403, {}, b"", Kind.AGAIN, "app"),
        (200, {}, b"<html><title>login</title>", Kind.AGAIN, "app"),
        (200, {}, b"half a bo", Kind.AGAIN, "dataset"),
        (200, {}, b"", Kind.AGAIN, "dataset"),
        (400, {}, b"", Kind.REFUSED, "dataset"),
        (418, {}, b"", Kind.REFUSED, "dataset"),
        (204, {}, b"", Kind.REFUSED, "dataset"),
    ],
)
def test_every_status_has_its_class(
    status: int, headers: dict[str, str], body: bytes, kind: Kind, concerns: str
) -> None:
    """The code shown is the status."""
    got = judge(Reply(status, headers, body), "why")
    assert (got.kind, got.concerns, got.code) == (kind, concerns, f"HTTP {status}")
    assert got.retry_after == headers.get("Retry-After", "")


def test_a_page_instead_of_data_is_a_block_after_a_few_tries() -> None:
    """From a login, a protection device or a proxy; its title is shown."""
    got = judge(Reply(200, {}, b"\n <!DOCTYPE html><html><title> Please\n log in </title>"), "why")
    assert (got.tries, got.then, got.quarantine, got.text) == (UNREADABLE_TRIES, "refused", False, "Please log in")
    assert "blocked" in got.meaning


def test_an_unreadable_body_is_kept_aside_after_a_few_tries() -> None:
    """The page stays open, and the reason is told."""
    got = judge(Reply(200, {}, b'{"a":'), "not JSON: cut")
    assert (got.tries, got.then, got.quarantine) == (UNREADABLE_TRIES, "open", True)
    assert "not JSON: cut" in got.meaning
    assert got.hint == ""
    assert judge(Reply(200, {}, b'{"a":'), "why", "do this").hint == "do this"
    assert "do this" not in judge(Reply(200, {}, b"<html>"), "why", "do this").hint


def test_a_redirect_names_where_it_leads() -> None:
    """So that the job file can be mended."""
    got = judge(Reply(302, {"Location": "https://x.example/y"}, b""), "why")
    assert got.text == "https://x.example/y"
    assert "https://x.example/y" in got.hint


@pytest.mark.parametrize(
    ("status", "name"), [(302, "Location"), (429, "Retry-After"), (503, "Retry-After")], ids=["302", "429", "503"]
)
def test_what_a_verdict_says_can_be_written(status: int, name: str) -> None:
    """Bytes of a header that are no UTF-8 come as lone surrogates, which no file and no JSON text can hold."""
    got = judge(Reply(status, {name: b"/\xff\xe6\xad\xa6".decode(errors="surrogateescape")}, b""), "why")
    assert (got.text if status == 302 else got.retry_after) == "/?武"
    assert got.hint.isprintable()
    assert orjson.dumps([got.code, got.text, got.meaning, got.hint, got.retry_after])


def test_an_unknown_answer_is_refused_in_the_platforms_words() -> None:
    """Code and text are shown."""
    got = unknown("4711", "words")
    assert (got.kind, got.code, got.text) == (Kind.REFUSED, "4711", "words")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html><head><style>b{}</style></head><p>Not <b>now</b>", "Not now"),
        (b"<script>alert(1)</script>x", "x"),
        (b"a\r\n\tb", "a b"),
        (b"\xff\xfe", "��"),
        ("武" * 500, "武" * (EXCERPT - 1) + "…"),
        ("武" + "汉" * 4096, "武" + "汉" * (EXCERPT - 2) + "…"),
        ("<html><title>访问被拦截</title>".encode("gb18030") + b"x" * 5000, "访问被拦截"),
        (b"\xef\xbb\xbf" + "<p>请登录".encode(), "请登录"),
    ],
)
def test_an_excerpt_is_one_short_line(body: bytes | str, words: str) -> None:
    """Without markup, cut at its length."""
    assert excerpt(body if isinstance(body, bytes) else body.encode()) == words


@given(st.binary(max_size=300))
def test_anything_can_be_shown(body: bytes) -> None:
    """In one line of limited length."""
    shown = excerpt(body)
    assert len(shown) <= EXCERPT
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("body", "markup"),
    [
        (b"<HTML>", True),
        (b" \n<!doctype HTML", True),
        (b"<?xml?>", True),
        (b"<!-- -->", True),
        (b'<meta http-equiv="refresh">', True),
        (b"<noscript>", True),
        (b"</div>", True),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE html>", True),
        ("\ufeff<html>".encode("gb18030"), True),
        (b"< 3", False),
        (b"<", False),
        (b'"<html>"', False),
        (b'{"a":"<html>"}', False),
        (b"", False),
        (b"x<html>", False),
    ],
)
def test_markup_is_known_by_its_beginning(body: bytes, *, markup: bool) -> None:
    """Not by what stands in a row."""
    assert is_markup(body) is markup


def test_a_code_that_repeats_the_status_is_a_gateways() -> None:
    """``{"code": 502}`` with HTTP 502 is a failing gateway, not an unknown answer of the platform."""
    reply = Reply(502, {}, b'{"code": 502, "msg": "Bad Gateway"}')
    assert tells_more(reply, "502", {"1000"})
    assert not tells_more(reply, "77", {"1000"})

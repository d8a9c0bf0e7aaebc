"""The short way from bytes to rows: it comes to the same page as the long one, or to none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester import envelope, plain
from harvester.model import Page, Reply
from harvester.platforms.wuhan import _Answer

ROW = '{"a":1.10,"b":"武汉","a":1e400}'


def reply(body: str | bytes) -> Reply:
    """Return an answer with this body."""
    return Reply(200, {}, body.encode() if isinstance(body, str) else body)


def the_long_way(answer: Reply, known: str) -> Page:
    """Return what ``envelope`` makes of an answer."""
    opened = envelope.opened(answer, known, _Answer)
    return opened.page(opened.fields.data)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"errcode":0,"data":{{"pageNo":3,"pageSize":"20","data":[{ROW},{ROW}]}}}}',
        f'{{"errcode":"0","errmsg":"","data":{{"data":[{ROW}],"pageNum":"7","total":41}}}}',
        '{"errcode":0,"data":{"data":[1,"two words",[3],null]}}',
        '{"data":{"data":[{}],"data":[{"x":1}]},"errcode":500,"errcode":0}',
    ],
)
def test_usual_answers(body: str) -> None:
    """Codes as numbers or texts, keys in any order and doubled, rows of any kind: the page is the long way's."""
    answer = reply(body)
    assert plain.page(answer, "utf-8") == the_long_way(answer, "utf-8")


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ('{"errcode":1141,"data":{"data":[{}]}}', "utf-8"),
        ('{"errcode":0,"data":{"data":[]}}', "utf-8"),
        ('{"errcode":0,"data":[{}]}', "utf-8"),
        ('{"errcode":0,"data":{"data":{}}}', "utf-8"),
        ('{"errcode":0,"data":"{\\"data\\":[1]}"}', "utf-8"),
        ('{"data":{"data":[{}]}}', "utf-8"),
        ('{"errcode":0,"data":{"data":[{"a": 1}]}}', "utf-8"),
        ('{"errcode":0,"data":{"data":[1,\n2]}}', "utf-8"),
        ('\ufeff{"errcode":0,"data":{"data":[1]}}', "utf-8"),
        ('{"errcode":0,"data":{"data":["武"]}}', ""),
        ('{"errcode":0,"data":{"data":["武"]}}', "gb18030"),
        ('{"errcode":0,"data":{"data":["武"]}}'.encode("gb18030"), "utf-8"),
        ('{"errcode":0,"data":{"data":["a\tb"]}}', "utf-8"),
        ('{"errcode":0,"data":{"data":[1]}} x', "utf-8"),
        ("<html>", "utf-8"),
        (b'{"errcode":0,"data":{"data":[' + b"[" * 100_000, "utf-8"),
        (b'{"errcode":0,"data":{"data":[' + b"1," * envelope.VALUES + b"1]}}", "utf-8"),
    ],
)
def test_all_else_takes_the_long_way(body: str | bytes, known: str) -> None:
    """Failures, other shapes, anything to repair, anything that may be in another charset."""
    assert plain.page(reply(body), known) is None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
ROWS = st.lists(SCALARS | st.dictionaries(st.text(max_size=3), SCALARS, max_size=3), max_size=4)
NUMBERS = st.none() | st.integers(-1, 10**17) | st.text("0123456789x", max_size=17)


@given(
    data=st.fixed_dictionaries({"data": ROWS}, optional={"pageNo": NUMBERS, "pageSize": NUMBERS, "total": NUMBERS}),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (",", ": ")]),
    ascii_only=st.booleans(),
    damage=st.none() | st.tuples(st.integers(0, 400), st.binary(max_size=2)),
    known=st.sampled_from(["", "utf-8", "gb18030"]),
)
def test_the_same_page_or_none(
    data: dict[str, Any],
    separators: tuple[str, str],
    ascii_only: bool,  # noqa: FBT001 - Hypothesis's
    damage: tuple[int, bytes] | None,
    known: str,
) -> None:
    """Whatever comes: where there is a page, the long way finds the same one, with nothing repaired."""
    body = json.dumps({"errcode": 0, "data": data}, separators=separators, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    )
    if damage:
        at = damage[0] % len(body)
        body = body[:at] + damage[1] + body[at + 1 :]
    page = plain.page(reply(body), known)
    assert page is None or page == the_long_way(reply(body), known)

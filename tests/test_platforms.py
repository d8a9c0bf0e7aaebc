"""What every platform owes the engine, and the published facts of each.

The first part runs over ``harvester.platforms.PLATFORMS``: a platform inherits it by registering and by adding a
specimen to ``SPECIMENS``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from harvester.model import App, Dataset, Kind, Page, Platform, Reply, Secret, Signed, Verdict
from harvester.platforms import PLATFORMS

NOW: Final = 1619072634.75
NONCE: Final = "2fc62edd-03ee-4c32-8db8-e7e9c77ed05a"
TOKEN: Final = "TEST-TOKEN-0001"


class Specimen(Struct, frozen=True, kw_only=True):
    """One app and one dataset of a platform, and bodies as it sends them."""

    app: App
    dataset: Dataset
    success: bytes  # two rows
    lines: bytes  # the same rows, as they are kept
    empty: tuple[bytes, ...]  # every form of an answer without rows
    code: str  # a body with the code at %s
    codes: Mapping[str, tuple[Kind, str, int | None]]  # class, whom it concerns, tries
    has_nonce: bool


def app_of(platform: str, url: str = "", secret: str = TOKEN, **more: Any) -> App:  # noqa: ANN401 - any field of App
    """Return a made-up app."""
    return App(
        name="main",
        platform=platform,
        url=url or PLATFORMS[platform].DEFAULT_URL,
        id="made-up-id",
        secret=Secret(secret),
        rate_limit=300,
        **more,
    )


WUHAN: Final = Dataset(
    name="investors",
    app=app_of("wuhan"),
    service="qygsczrxxqkapijk",
    params={"regno": "420104000223773"},
    page_param="pageNo",
)
SIPOP: Final = Dataset(
    name="patents",
    app=app_of("sipop", secret="TEST-SECRET-0001"),
    method="patentIndex.queryKeywordPage",
    params={"p_category": "01"},
    page_size=10,
    page_param="pageNum",
)
REPAIRS: Final = {"bom", "charset", "charset guessed", "control characters", "unwrapped", "white space"}
REFUSED_DATASET: Final = (Kind.REFUSED, "dataset", None)
REFUSED_APP: Final = (Kind.REFUSED, "app", None)

SPECIMENS: Final[Mapping[str, Specimen]] = {
    "wuhan": Specimen(
        app=WUHAN.app,
        dataset=WUHAN,
        success=b'{"errcode":0,"errmsg":"","data":{"pageNo":1,"pageSize":20,"data":[{"INV":"a****"},{"INV":1.10}]},'
        b'"metadata":{},"hint":null}',
        lines=b'{"INV":"a****"}\n{"INV":1.10}\n',
        empty=(
            b'{"errcode":"0","data":{"pageNo":1,"pageSize":"20","data":[],"metadata":{}},"hint":null}',
            b'{"errcode":0,"data":[]}',
            b'{"errcode":0,"data":null}',
            b'{"errcode":0,"data":{"pageNo":9,"data":null}}',
            b'{"errcode":0,"data":{"pageNo":9,"pageSize":20}}',
            b'{"errcode":0}',
        ),
        code='{"errcode":%s,"errmsg":"words"}',
        codes={
            "1141": (Kind.OVER_LIMIT, "app", None),
            "1433": (Kind.CLOCK, "app", None),
            "1403": REFUSED_DATASET,
            "100101": REFUSED_DATASET,
            "100106": (Kind.AGAIN, "dataset", 3),
            "500": (Kind.AGAIN, "dataset", None),
            "400001": (Kind.CLOCK, "app", None),
        },
        has_nonce=True,
    ),
    "sipop": Specimen(
        app=SIPOP.app,
        dataset=SIPOP,
        success=b'{"result":true,"code":"1000","msg":"","total":"41","count":2,"data":[{"a":"01"},{"a":[1]}]}',
        lines=b'{"a":"01"}\n{"a":[1]}\n',
        empty=(
            b'{"result":true,"code":"1100","msg":"nothing"}',
            b'{"result":false,"code":1100}',
            b'{"result":true,"code":"1000","total":0,"data":[]}',
            b'{"result":true,"code":"1000","data":null}',
            b'{"result":true,"code":1000}',
            b'{"result":"true","code":"1000","data":{"data":[]}}',
        ),
        code='{"result":false,"code":%s,"msg":"words"}',
        codes={
            "1001": REFUSED_APP,
            "1002": REFUSED_DATASET,
            "1003": (Kind.CLOCK, "app", None),
            "1004": REFUSED_APP,
            "1005": REFUSED_APP,
            "1006": REFUSED_DATASET,
            "1007": REFUSED_DATASET,
            "1008": (Kind.OVER_LIMIT, "app", None),
            "1009": REFUSED_DATASET,
            "9998": (Kind.AGAIN, "dataset", None),
            "9999": (Kind.AGAIN, "dataset", 3),
        },
        has_nonce=False,
    ),
}
CASES: Final = [pytest.param(PLATFORMS[name], SPECIMENS[name], id=name) for name in PLATFORMS if name in SPECIMENS]
CODES: Final = [
    pytest.param(PLATFORMS[name], specimen, code, id=f"{name}-{code}")
    for name, specimen in SPECIMENS.items()
    for code in specimen.codes
]
every_platform = pytest.mark.parametrize(("platform", "specimen"), CASES)


def answer(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Return an answer."""
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def signed(platform: Platform, dataset: Dataset, page: int = 1, now: float = NOW, nonce: str = NONCE) -> Signed:
    """Build and sign a call."""
    return platform.sign(platform.build(dataset, page), dataset.app, now, nonce)


def refusal(got: Page | Verdict) -> Verdict:
    """Return what must be no page."""
    assert isinstance(got, Verdict)
    return got


def page(got: Page | Verdict) -> Page:
    """Return what must be a page, its counts in order."""
    assert isinstance(got, Page), got
    assert got.lines.count(b"\n") == len(got.lines.splitlines()) == got.rows
    assert not got.lines or got.lines.endswith(b"\n")
    return got


# -- what every platform owes -----------------------------------------------------------------------------------------


def test_every_registered_platform_has_a_specimen() -> None:
    """Nobody registers past this suite, and every documented code is checked."""
    assert SPECIMENS.keys() == PLATFORMS.keys()
    for name, platform in PLATFORMS.items():
        assert name == platform.NAME
        assert SPECIMENS[name].codes.keys() == platform.CODES.keys()
        assert platform.complaint(SPECIMENS[name].dataset) is None
        assert SPECIMENS[name].dataset.page_param == platform.PAGE_PARAM


@every_platform
def test_building_and_signing_depend_on_their_arguments_alone(platform: Platform, specimen: Specimen) -> None:
    """The same call for the same time and nonce, another for another time, page or nonce."""
    dataset = specimen.dataset
    first = signed(platform, dataset)
    assert signed(platform, dataset) == first
    assert signed(platform, dataset, now=NOW + 1) != first
    assert signed(platform, dataset, page=2) != first
    assert (signed(platform, dataset, nonce="another") != first) is specimen.has_nonce
    other = replace(dataset, app=replace(dataset.app, secret=Secret("another")))
    assert signed(platform, other) != first


@every_platform
def test_the_secret_stays_at_home(platform: Platform, specimen: Specimen) -> None:
    """It is nowhere in what is sent, and in no rendering of what is handed around."""
    secret = specimen.app.secret.reveal()
    request = platform.build(specimen.dataset, 1)
    call = signed(platform, specimen.dataset)
    sent = [call.url, *call.headers, *call.headers.values(), call.body.decode()]
    shown = [repr(thing) for thing in (specimen.app, specimen.dataset, request, call)]
    assert [text for text in sent + shown if secret in text] == []


@every_platform
def test_a_call_says_what_it_accepts(platform: Platform, specimen: Specimen) -> None:
    """Never the wildcard of HTTP clients; a body always has its type."""
    headers = {name.lower(): value for name, value in signed(platform, specimen.dataset).headers.items()}
    assert headers["accept"] == "application/json"
    assert "charset=utf-8" in headers["content-type"].lower()


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Apia"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put this machine into another time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_time_stamps_do_not_depend_on_the_zone() -> None:
    """Wuhan takes Unix seconds, SIPOP the wall clock of Beijing."""
    assert signed(PLATFORMS["wuhan"], WUHAN).headers["x-tif-timestamp"] == "1619072634"
    form = parse_qs(signed(PLATFORMS["sipop"], SIPOP).body.decode())
    assert form["timestamp"] == ["2021-04-22 14:23:54"]


@every_platform
def test_rows_are_kept_as_sent(platform: Platform, specimen: Specimen) -> None:
    """A good answer gives its rows, also with another success status and a byte order mark."""
    got = page(platform.read(specimen.dataset, answer(specimen.success)))
    assert (got.lines, got.rows, got.repairs) == (specimen.lines, 2, ())
    assert page(platform.read(specimen.dataset, answer(specimen.success, status=206))).lines == specimen.lines
    marked = page(platform.read(specimen.dataset, answer(b"\xef\xbb\xbf" + specimen.success)))
    assert (marked.lines, marked.repairs) == (specimen.lines, ("bom",))


@every_platform
def test_every_form_of_an_empty_answer_is_an_empty_page(platform: Platform, specimen: Specimen) -> None:
    """A list without rows, null, or nothing at all."""
    for body in specimen.empty:
        got = page(platform.read(specimen.dataset, answer(body)))
        assert (got.lines, got.rows) == (b"", 0), body


@pytest.mark.parametrize("status", [200, 400, 403, 500, 503])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(("platform", "specimen", "code"), CODES)
def test_every_documented_code_has_its_class(
    platform: Platform, specimen: Specimen, code: str, *, quoted: bool, status: int
) -> None:
    """Sent as a number or as a string, with any HTTP status: the code counts, with the platform's words."""
    body = (specimen.code % (f'"{code}"' if quoted else code)).encode()
    got = refusal(platform.read(specimen.dataset, answer(body, status)))
    assert (got.kind, got.concerns, got.tries) == specimen.codes[code]
    assert (got.code, got.text) == (code, "words")
    assert got.meaning


@every_platform
@pytest.mark.parametrize(
    "code",
    [
        "2",
        "-1",
        "0.0",
        "1e3",
        '"0001"',
        '"00"',
        '" 0"',
        '"0 "',
        '"１０００"',
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"SUCCESS"',
        "999999999999999999999999",
        '"01000"',
    ],
)
def test_an_unknown_code_is_refused(platform: Platform, specimen: Specimen, code: str) -> None:
    """It is never an empty page: what the documentation does not list ends nothing."""
    for body in (
        specimen.code % code,
        specimen.success.decode()
        .replace('"code":"1000"', f'"code":{code}')
        .replace('"errcode":0', f'"errcode":{code}'),
    ):
        got = refusal(platform.read(specimen.dataset, answer(body.encode())))
        assert got.kind is Kind.REFUSED
        assert got.hint


@every_platform
@pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 403, 404, 500, 502, 503])
def test_an_unknown_code_counts_with_any_status(platform: Platform, specimen: Specimen, status: int) -> None:
    """The platform has spoken: its code and words are told, and nobody asks again for what it refuses."""
    got = refusal(platform.read(specimen.dataset, answer((specimen.code % "77").encode(), status, Retry_After="1")))
    assert (got.kind, got.code, got.text) == (Kind.REFUSED, "77", "words")


@every_platform
@pytest.mark.parametrize("code", ["", "77", "null", "success"])
def test_a_gateway_that_asks_for_fewer_calls_is_heeded(platform: Platform, specimen: Specimen, code: str) -> None:
    """HTTP 429 without a documented failure is over the limit, whatever else the body says."""
    body = {"": b'{"msg":"slow down"}', "success": specimen.success}.get(code, (specimen.code % code).encode())
    got = refusal(platform.read(specimen.dataset, answer(body, 429, Retry_After="7")))
    assert (got.kind, got.code, got.retry_after) == (Kind.OVER_LIMIT, "HTTP 429", "7")


@every_platform
@pytest.mark.parametrize("body", [b'{"error":"Bad Gateway","status":502}', b'{"msg":"down"}', b"{}"])
def test_a_server_error_without_the_platforms_code_passes(platform: Platform, specimen: Specimen, body: bytes) -> None:
    """JSON that a gateway or a framework wrote says no more than its status."""
    for status in (500, 502, 503):
        got = refusal(platform.read(specimen.dataset, answer(body, status)))
        assert (got.kind, got.code) == (Kind.AGAIN, f"HTTP {status}")


@every_platform
@pytest.mark.parametrize("words", ["\\ud800", "\\udfff!", "武\\u0000"])
def test_the_platforms_words_can_be_written(platform: Platform, specimen: Specimen, words: str) -> None:
    """Also those that are no text: no file and no JSON text can hold a lone surrogate."""
    for body in (specimen.code % f'"{words}"', (specimen.code % "77").replace("words", words)):
        got = refusal(platform.read(specimen.dataset, answer(body.encode())))
        assert orjson.dumps([got.code, got.text, got.meaning, got.hint])


@every_platform
def test_a_good_body_with_a_bad_status_is_no_page(platform: Platform, specimen: Specimen) -> None:
    """The status has its say too."""
    for status in (301, 404, 418, 429, 500, 503):
        refusal(platform.read(specimen.dataset, answer(specimen.success, status)))


@every_platform
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(b""), Kind.AGAIN),
        (answer(b"   \n"), Kind.AGAIN),
        (answer(b"<!DOCTYPE html><title>login</title>"), Kind.AGAIN),
        (answer(b"<html>no</html>", 500), Kind.AGAIN),
        (answer(b"", 429, Retry_After="7"), Kind.OVER_LIMIT),
        (answer(b"", 302, Location="https://elsewhere.example/"), Kind.REFUSED),
        (answer(b'"text"'), Kind.REFUSED),
        (answer(b"[]"), Kind.REFUSED),
        (answer(b"{}"), Kind.REFUSED),
        (answer(b"null"), Kind.REFUSED),
    ],
)
def test_foreign_answers_are_no_pages(platform: Platform, specimen: Specimen, reply: Reply, kind: Kind) -> None:
    """Gateways, proxies and login pages, and JSON that says nothing."""
    got = refusal(platform.read(specimen.dataset, reply))
    assert got.kind is kind
    assert got.retry_after == reply.headers.get("Retry-After", "")


@every_platform
def test_a_cut_body_is_read_again_and_kept_aside(platform: Platform, specimen: Specimen) -> None:
    """Wherever it is cut, it is no page."""
    for length in range(1, len(specimen.success)):
        got = refusal(platform.read(specimen.dataset, answer(specimen.success[:length])))
        assert (got.kind, got.quarantine) == (Kind.AGAIN, True)


def in_rows(specimen: Specimen, text: str) -> str:
    """Return the good answer with another value in its first row."""
    return specimen.success.decode().replace('"a****"', f'"{text}"').replace('"a":"01"', f'"a":"{text}"')


@every_platform
@pytest.mark.parametrize(
    ("known", "declared", "charset", "repairs"),
    [
        ("", "", "gb18030", ("charset", "charset guessed")),
        ("", ";charset=GBK", "gb18030", ("charset",)),
        ("", ";charset=utf-8", "gb18030", ("charset", "charset guessed")),
        ("gb18030", "", "gb18030", ("charset",)),
        ("utf-8", "", None, ()),
        ("utf-8", ";charset=GBK", None, ()),
    ],
)
def test_rows_in_gb18030_are_kept_in_utf8(
    platform: Platform, specimen: Specimen, known: str, declared: str, charset: str | None, repairs: tuple[str, ...]
) -> None:
    """The charset is the dataset's; where it is unknown the answer tells it; a wrong one is refused with advice."""
    body = in_rows(specimen, "武汉㐀").encode("gb18030")
    reply = answer(body, Content_Type=f"text/html{declared}")
    got = platform.read(replace(specimen.dataset, charset=known), reply)
    if charset is None:
        verdict = refusal(got)
        at = body.index("武".encode("gb18030"))
        assert (verdict.kind, verdict.quarantine) == (Kind.AGAIN, True)
        assert f"not UTF-8: byte 0x{body[at]:02x} at offset {at}" in verdict.meaning
        assert 'charset = "gb18030"' in verdict.hint
        assert "--fresh" in verdict.hint
    else:
        assert page(got).lines.splitlines()[0].decode().endswith('"武汉㐀"}')
        assert (page(got).charset, page(got).repairs) == (charset, repairs)


@every_platform
def test_the_charset_is_told_only_where_there_is_evidence(platform: Platform, specimen: Specimen) -> None:
    """Plain ASCII fits both; a known charset is held to, and anything else refused."""
    for known in ("", "utf-8", "gb18030"):
        dataset = replace(specimen.dataset, charset=known)
        plain = page(platform.read(dataset, answer(specimen.success, Content_Type="text/html;charset=gbk")))
        assert (plain.charset, plain.repairs, plain.lines) == ("", (), specimen.lines)
        got = platform.read(dataset, answer(in_rows(specimen, "武汉市").encode()))
        if known == "gb18030":
            assert "not GB18030: byte 0x" in refusal(got).meaning
            assert 'charset = "utf-8"' in refusal(got).hint
            assert refusal(got).quarantine
        else:
            assert (page(got).charset, page(got).repairs) == ("utf-8", ())


@every_platform
@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
@pytest.mark.parametrize("words", ["权限不足啊", '没有"权限"', "没有 \n"])
def test_failures_are_readable_in_either_charset(
    platform: Platform, specimen: Specimen, known: str, charset: str, words: str
) -> None:
    """A gateway may write another charset than the dataset's; code and words are read, and decide nothing."""
    code, (kind, _, _) = next(iter(specimen.codes.items()))
    body = (specimen.code % f'"{code}"').replace("words", json.dumps(words, ensure_ascii=False)[1:-1]).encode(charset)
    got = refusal(platform.read(replace(specimen.dataset, charset=known), answer(body, 500)))
    assert (got.kind, got.code, got.quarantine) == (kind, code, False)
    assert got.text == words


@every_platform
@pytest.mark.parametrize(
    ("sent", "kept", "repairs"),
    [
        ("a\tb\r\n\x00\x1f", r"a\tb\r\n\u0000\u001f", ("control characters",)),
        ("\x7f\x80", "\x7f\x80", ()),
        (r"\ud83d x \uDE00", r"\ud83d x \uDE00", ()),
        (r"\ud83d\ude00 \u6b66\/", r"\ud83d\ude00 \u6b66\/", ()),
        ("\\ud83d\t", r"\ud83d\t", ("control characters",)),
    ],
)
@pytest.mark.parametrize("known", ["", "gb18030"])
def test_strings_are_mended_only_where_they_must_be(
    platform: Platform, specimen: Specimen, sent: str, kept: str, repairs: tuple[str, ...], known: str
) -> None:
    """Bare control characters are escaped; escapes stay, halves of surrogate pairs among them."""
    encoded = in_rows(specimen, sent).encode(known or "utf-8")
    got = page(platform.read(replace(specimen.dataset, charset=known), answer(encoded)))
    assert got.lines.decode() == specimen.lines.decode().replace("a****", kept).replace('"a":"01"', f'"a":"{kept}"')
    assert got.repairs == (("charset", *repairs) if known and "\x80" in sent else repairs)
    assert got.rows == 2


@every_platform
def test_json_inside_a_string_is_read(platform: Platform, specimen: Specimen) -> None:
    """The whole answer, its data, the data in that; each looked into once, and named once."""
    whole = json.dumps(specimen.success.decode()).encode()
    outer = orjson.loads(specimen.success)
    packed = orjson.dumps({**outer, "data": orjson.dumps(outer["data"]).decode()})
    inner = outer["data"] if isinstance(outer["data"], dict) else {"data": outer["data"]}
    nested = orjson.dumps({**outer, "data": {**inner, "data": orjson.dumps(inner["data"]).decode()}})
    lines = specimen.lines.replace(b"1.10", b"1.1")  # as orjson writes it
    for body in (packed, nested, json.dumps(packed.decode()).encode(), b"\xef\xbb\xbf" + nested):
        got = page(platform.read(specimen.dataset, answer(body)))
        assert (got.lines, got.repairs.count("unwrapped"), got.number) == (lines, 1, inner.get("pageNo"))
    assert page(platform.read(specimen.dataset, answer(whole))).lines == specimen.lines
    refusal(platform.read(specimen.dataset, answer(json.dumps(whole.decode()).encode())))
    failed = refusal(platform.read(specimen.dataset, answer(json.dumps(specimen.code % 77).encode())))
    assert (failed.kind, failed.code, failed.text) == (Kind.REFUSED, "77", "words")


@every_platform
def test_null_in_the_list_is_a_row(platform: Platform, specimen: Specimen) -> None:
    """It has a place in the page, and keeps it."""
    body = b'{"errcode":0,"result":true,"code":"1000","data":[null, {"a":1}, null]}'
    got = page(platform.read(specimen.dataset, answer(body)))
    assert (got.lines, got.rows, got.single) == (b'null\n{"a":1}\nnull\n', 3, False)


@every_platform
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "01", "1.", "'a'", "undefined", "tru"])
def test_what_is_no_json_is_kept_aside(platform: Platform, specimen: Specimen, value: str) -> None:
    """Other languages write it; JSON does not know it."""
    body = in_rows(specimen, "VALUE").replace('"VALUE"', value).encode()
    got = refusal(platform.read(specimen.dataset, answer(body)))
    assert (got.kind, got.quarantine) == (Kind.AGAIN, True)
    assert "not JSON" in got.meaning


@every_platform
@pytest.mark.parametrize(
    "body",
    [
        "<!DOCTYPE html><title>安全验证</title><script>go()</script>".encode("gb18030"),
        b"\xef\xbb\xbf" + "<html><title>安全验证</title>".encode(),
        "\ufeff<html><title>安全验证</title>".encode("gb18030"),
        b"\xef\xbb\xbf" + " <meta charset=gbk><title>安全验证</title>".encode("gb18030"),
    ],
)
@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
def test_a_web_page_is_a_block_however_it_is_labelled(
    platform: Platform, specimen: Specimen, body: bytes, known: str
) -> None:
    """With status 200, as JSON, in any charset: it is recognised and shown, and nobody tries to get past it."""
    dataset = replace(specimen.dataset, charset=known)
    got = refusal(platform.read(dataset, answer(body, Content_Type="application/json;charset=utf-8")))
    assert (got.then, got.concerns, got.quarantine, got.text) == ("refused", "app", False, "安全验证")
    assert "blocked" in got.meaning


@every_platform
def test_a_body_that_is_not_utf8_is_no_page(platform: Platform, specimen: Specimen) -> None:
    """Where it is not is said; in a row nothing is replaced."""
    at = specimen.success.index(b'"a' if b'"a****"' not in specimen.success else b'"a****"') + 1
    got = refusal(platform.read(specimen.dataset, answer(specimen.success[:at] + b"\xff" + specimen.success[at:])))
    assert (got.kind, got.quarantine) == (Kind.AGAIN, True)
    assert f"0xff at offset {at}" in got.meaning


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["errcode", "code", "result", "data", "errmsg", "msg", "total", "x"]), inner)
    ),
    max_leaves=12,
)


_INSERTS: Final = (
    b"\x01",
    b"\t",
    b"\\",
    b'"',
    b"\\ud83d",
    b"\\udc00",
    b"\xff",
    b"\xa6\\",
    "武".encode(),
    "武".encode("gbk"),
    b"[",
    b"}",
)


@st.composite
def bodies(draw: st.DrawFn, good: bytes) -> bytes:
    """Draw anything: bytes, JSON, or a good answer that was changed somewhere, packed into a string, or both."""
    kind = draw(st.sampled_from(["bytes", "json", "changed", "changed", "packed"]))
    if kind == "bytes":
        return draw(st.binary(max_size=60))
    if kind == "json":
        value = draw(_JSON)
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:
            return repr(value).encode(errors="replace")
    if kind == "packed":
        good = json.dumps(good.decode()).encode()
    start = draw(st.integers(0, len(good)))
    stop = start + draw(st.sampled_from([0, 0, 1, len(good)]))
    return good[:start] + draw(st.binary(max_size=4) | st.sampled_from(_INSERTS)) + good[stop:]


def constant(word: str) -> None:
    """Refuse what the json module takes for a number."""
    raise ValueError(word)


def sent(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return what an answer says, by a parser that takes all that is mended, in whichever charset it is JSON."""
    for charset in ("utf-8-sig", "gb18030"):
        with suppress(ValueError):
            value = json.loads(body.decode(charset), strict=False)
            return json.loads(value, strict=False) if isinstance(value, str) else value
    raise AssertionError(body)


@every_platform
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    status=st.sampled_from([200, 200, 200, 204, 302, 404, 429, 500, 503]),
    known=st.sampled_from(["", "utf-8", "gb18030"]),
    kind=st.sampled_from(["application/json", "text/html;charset=gbk"]),
)
def test_reading_never_raises(
    platform: Platform, specimen: Specimen, data: st.DataObject, status: int, known: str, kind: str
) -> None:
    """A page or a verdict, for any bytes; a page only with a known code, and its lines are what they promise."""
    body = data.draw(bodies(specimen.success))
    got = platform.read(replace(specimen.dataset, charset=known), answer(body, status, Content_Type=kind))
    if isinstance(got, Verdict):
        assert orjson.dumps([got.code, got.text, got.meaning, got.hint, got.retry_after])
        return
    page(got)
    assert status < 300
    assert str(sent(body).get("errcode", sent(body).get("code"))) in {"0", "1000", "1100"}
    assert got.charset in ({known, ""} if known else {"", "utf-8", "gb18030"})
    assert len(set(got.repairs)) == len(got.repairs)
    assert set(got.repairs) <= REPAIRS
    for line in got.lines.splitlines(keepends=True):
        assert line.endswith(b"\n")
        assert min(line[:-1]) >= 0x20
        json.loads(line.decode(), parse_constant=constant)


@every_platform
@pytest.mark.parametrize("opening", [b"[", b'{"data":', b'{"errcode":0,"result":true,"code":"1000","data":'])
def test_deep_nesting_does_no_harm(platform: Platform, specimen: Specimen, opening: bytes) -> None:
    """A body that is nothing but brackets is refused in words, also inside a string."""
    success = '{"errcode":0,"result":true,"code":"1000","data":%s}'
    text = (opening * 100_000).decode()
    packed = json.dumps(text + "1" + text[::-1].translate({ord("["): "]", ord("{"): "}"}))
    for body in (text, packed, success % text, success % packed, success % f'{{"data":{packed}}}'):
        refusal(platform.read(specimen.dataset, answer(body.encode())))


@every_platform
def test_no_depth_of_nesting_raises(platform: Platform, specimen: Specimen) -> None:
    """Around the depth that this interpreter just bears, which depends on who calls, it is a page or a verdict."""
    for depth in range(400, 1100):
        rows = b"[" * depth + b"]" * depth
        body = '{"errcode":0,"result":true,"code":"1000","x":"%s","data":' + rows.decode() + "}"
        for words in ("", "\t"):
            for text in (body % words, json.dumps(body % words)):
                got = platform.read(specimen.dataset, answer(text.encode()))
                assert isinstance(got, Verdict) or got.lines == rows[1:-1] + b"\n"


@every_platform
def test_one_object_is_one_row(platform: Platform, specimen: Specimen) -> None:
    """Where a list is usual one object may come, beside the page's words or instead of the list."""
    for data in (b'{"name":"x"}', b'{"data":{"name":"x"}}'):
        body = b'{"errcode":0,"result":true,"code":"1000","data":' + data + b"}"
        got = page(platform.read(specimen.dataset, answer(body)))
        assert (got.lines, got.rows, got.single) == (b'{"name":"x"}\n', 1, True)


@every_platform
@pytest.mark.parametrize("data", [b'"text"', b"1", b"true", b'{"data":"text"}', b'{"data":1}', b'""'])
def test_data_of_an_unknown_shape_is_refused(platform: Platform, specimen: Specimen, data: bytes) -> None:
    """It is neither rows nor nothing."""
    body = b'{"errcode":0,"result":true,"code":"1000","data":' + data + b"}"
    assert refusal(platform.read(specimen.dataset, answer(body))).kind is Kind.REFUSED


# -- Wuhan ------------------------------------------------------------------------------------------------------------


def test_wuhan_signature() -> None:
    """Known answer for a made-up token: upper-case SHA-256 of timestamp, token, nonce and timestamp."""
    headers = signed(PLATFORMS["wuhan"], WUHAN).headers
    assert headers["x-tif-signature"] == "F34C0CE47E9B0CB3743924E67A50938867D98797C5802BFAABC9F501BA2955A1"
    assert headers["x-tif-nonce"] == NONCE


def test_wuhan_json_body() -> None:
    """The worked example of the interface specification, section 5.4: all values are strings."""
    call = signed(PLATFORMS["wuhan"], WUHAN)
    assert call.url == "https://rio.wuhan.gov.cn/ebus/kftp/v1/service/qygsczrxxqkapijk"
    assert call.body == b'{"query":{"pageNo":"1","regno":"420104000223773"}}'
    assert call.headers["Content-Type"] == "application/json; charset=UTF-8"
    more = replace(WUHAN, envelope={"version": 1}, params={"name": "孙"})
    assert signed(PLATFORMS["wuhan"], more, 7).body == '{"version":1,"query":{"pageNo":"7","name":"孙"}}'.encode()


def test_wuhan_form_body() -> None:
    """The prose of the interface specification, section 5.4."""
    call = signed(PLATFORMS["wuhan"], replace(WUHAN, body="form", params={"entname": "武汉 a&b"}), 3)
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded;charset=UTF-8"
    assert parse_qsl(call.body.decode()) == [("pageNo", "3"), ("entname", "武汉 a&b")]


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ((), {"x-tif-passid", "x-tif-paasid"}),
        (("x-tif-passid",), {"x-tif-passid"}),
        (("x-tif-paasid",), {"x-tif-paasid"}),
    ],
)
def test_wuhan_id_headers(chosen: tuple[str, ...], sent: set[str]) -> None:
    """Both spellings by default, else the chosen one, each with the same id."""
    dataset = replace(WUHAN, app=replace(WUHAN.app, id_headers=chosen))
    headers = signed(PLATFORMS["wuhan"], dataset).headers
    assert {name: value for name, value in headers.items() if value == "made-up-id"} == dict.fromkeys(
        sent, "made-up-id"
    )


def test_wuhan_without_pages_or_parameters() -> None:
    """An interface that does not page is not asked for a page."""
    assert signed(PLATFORMS["wuhan"], replace(WUHAN, paging="none", params={})).body == b'{"query":{}}'
    assert signed(PLATFORMS["wuhan"], replace(WUHAN, paging="none", params={}, body="form")).body == b""


def test_wuhan_addresses() -> None:
    """A service below the app's base with or without its slash, or a whole address."""
    wuhan = PLATFORMS["wuhan"]
    for base in ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x/"):
        assert wuhan.target(replace(WUHAN, app=app_of("wuhan", base))) == "http://127.0.0.1:1/x/qygsczrxxqkapijk"
    assert wuhan.target(replace(WUHAN, service="", url="https://a.example/b")) == "https://a.example/b"


@pytest.mark.parametrize(
    "changes",
    [
        {"service": ""},
        {"url": "https://a.example/"},
        {"service": "a/b"},
        {"service": "a?b"},
        {"body": "xml"},
        {"body": "form", "envelope": {"a": 1}},
        {"envelope": {"query": {}}},
        {"page_size": 20},
        {"params": {"regno": 1}},
        {"params": {"pageNo": "1"}},
    ],
)
def test_wuhan_complains_of_settings_that_cannot_be_sent(changes: dict[str, Any]) -> None:
    """In words and with what to do."""
    complaint = PLATFORMS["wuhan"].complaint(replace(WUHAN, **changes))
    assert complaint is not None
    assert all(complaint)


@pytest.mark.parametrize("size", ["20", '"20"'])
@pytest.mark.parametrize("meta", [',"metadata":{}', ""])
@pytest.mark.parametrize("outer", [',"metadata":{},"hint":null', ""])
def test_wuhan_says_the_page_in_its_own_ways(size: str, meta: str, outer: str) -> None:
    """Numbers as numbers or strings, metadata beside or inside data, or missing."""
    body = f'{{"errcode":"0","data":{{"pageNo":"3","pageSize":{size},"data":[{{"A":1}}]{meta}}}{outer}}}'
    got = page(PLATFORMS["wuhan"].read(WUHAN, answer(body.encode())))
    assert (got.number, got.size, got.total, got.lines) == (3, 20, None, b'{"A":1}\n')


def test_wuhan_error_bodies() -> None:
    """The failure example of the specification, words in another key, and a provider's own filter with HTTP 500."""
    read = PLATFORMS["wuhan"].read
    failed = refusal(read(WUHAN, answer(b'{"errcode":500,"errmsg":".....","data":{"data":[],"metadata":{}}}')))
    assert (failed.kind, failed.code, failed.text) == (Kind.AGAIN, "500", ".....")
    detail = refusal(read(WUHAN, answer(b'{"errcode":500,"errmsg":"","detailErrMsg":"down"}')))
    assert detail.text == "down"
    filtered = refusal(read(WUHAN, answer(b'{"code":400001,"msg":"bad signature"}', 500)))
    assert (filtered.kind, filtered.code, filtered.text) == (Kind.CLOCK, "400001", "bad signature")


# -- SIPOP ------------------------------------------------------------------------------------------------------------

_NEW_YEAR: Final = 1514779200.0  # 2018-01-01 12:00:00 in Beijing


@pytest.mark.parametrize(
    ("params", "digest", "sign"),
    [
        ({"p_category": "01"}, "", "1e9f6f58487fde9ba20c04dd97084d93"),
        ({"p_category": "01"}, "md5", "1e9f6f58487fde9ba20c04dd97084d93"),
        ({"p_category": "01"}, "md5-16", "487fde9ba20c04dd"),
        ({"title": "牙刷"}, "", "33f54b563dffdac8126369c5225756c7"),
    ],
)
def test_sipop_signature(params: dict[str, str], digest: str, sign: str) -> None:
    """Known answers for a made-up secret, both lengths, with Chinese in the business input."""
    dataset = replace(SIPOP, params=params, app=replace(SIPOP.app, digest=digest))
    form = dict(parse_qsl(signed(PLATFORMS["sipop"], dataset, now=_NEW_YEAR).body.decode()))
    assert form["timestamp"] == "2018-01-01 12:00:00"
    assert form["sign"] == sign


def test_sipop_form() -> None:
    """Six fields; the business input is compact, in UTF-8, and the very string that was signed."""
    dataset = replace(SIPOP, params={"title": "牙刷 +&="})
    call = signed(PLATFORMS["sipop"], dataset, 4)
    form = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
    assert form.keys() == {"appKey", "method", "param", "timestamp", "sign", "v"}
    assert form["param"] == '{"title":"牙刷 +&=","pageSize":10,"pageNum":4}'
    assert (form["appKey"], form["method"], form["v"]) == ("made-up-id", "patentIndex.queryKeywordPage", "1.0")
    assert call.url == "http://open.sipop.cn/dataplatpro/api/route"
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded; charset=UTF-8"


def test_sipop_without_pages() -> None:
    """Neither number nor size is filled in where an operation does not page."""
    build = PLATFORMS["sipop"].build
    assert build(replace(SIPOP, paging="none"), 1).body == b'{"p_category":"01"}'
    assert build(replace(SIPOP, page_size=None), 2).body == b'{"p_category":"01","pageNum":2}'


@pytest.mark.parametrize(
    "changes",
    [
        {"method": ""},
        {"app": app_of("sipop", digest="sha1")},
        {"params": {"pageNum": 1}},
        {"params": {"pageSize": 1}},
    ],
)
def test_sipop_complains_of_settings_that_cannot_be_sent(changes: dict[str, Any]) -> None:
    """In words and with what to do."""
    complaint = PLATFORMS["sipop"].complaint(replace(SIPOP, **changes))
    assert complaint is not None
    assert all(complaint)


@pytest.mark.parametrize(
    "body",
    [
        b'{"result":false,"code":"1000","data":[{"a":1}]}',
        b'{"code":"1000","data":[{"a":1}]}',
        b'{"result":null,"code":"1000","data":[{"a":1}]}',
        b'{"result":1,"code":"1000","data":[{"a":1}]}',
        b'{"result":true,"data":[{"a":1}]}',
        b'{"result":true,"code":0,"data":[{"a":1}]}',
    ],
)
def test_sipop_result_and_code_must_both_say_success(body: bytes) -> None:
    """One of them is not enough."""
    assert refusal(PLATFORMS["sipop"].read(SIPOP, answer(body))).kind is Kind.REFUSED


@pytest.mark.parametrize(
    ("total", "read"),
    [("41", 41), ('"41"', 41), ("0", 0), ("null", None), ("-1", None), ("1.0", None), ('"many"', None), ("[]", None)],
)
def test_sipop_total(total: str, read: int | None) -> None:
    """A hint: read where it is a whole number, ignored where it is anything else."""
    body = f'{{"result":true,"code":"1000","total":{total},"data":[{{"a":1}}]}}'
    assert page(PLATFORMS["sipop"].read(SIPOP, answer(body.encode()))).total == read


@pytest.mark.parametrize("known", ["", "utf-8", "gb18030"])
def test_sipop_nothing_found_is_no_evidence(known: str) -> None:
    """Its words may be in any charset: no row is kept of it, so nothing was changed and nothing is decided."""
    for charset in ("utf-8", "gb18030"):
        body = '{"result":false,"code":"1100","msg":"没有查询到数据"}'.encode(charset)
        got = page(PLATFORMS["sipop"].read(replace(SIPOP, charset=known), answer(body)))
        assert (got.rows, got.charset, got.repairs) == (0, "", ())


def test_sipop_hint_names_the_other_digest() -> None:
    """Code 1004 may mean that the platform wants the other length."""
    got = refusal(PLATFORMS["sipop"].read(SIPOP, answer(b'{"result":false,"code":"1004","msg":"sign"}')))
    assert "md5-16" in got.hint

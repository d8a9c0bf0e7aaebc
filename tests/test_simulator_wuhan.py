"""Wuhan's gatekeeper: one golden answer for everything that it refuses. Signatures are computed here, independently."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.simulator.gate import Answer, Call, Quota, RegisteredApp
from harvester.simulator.limits import SlidingLog
from harvester.simulator.quirks import Quirks
from harvester.simulator.stats import Stats
from harvester.simulator.tables import StoredTable
from harvester.simulator.wuhan import WuhanGate

NOW = 1_619_072_634.0
NONCE = "2fc62edd-03ee-4c32-8db8-e7e9c77ed05a"
TOKEN = "TEST-TOKEN-0001"
ROWS = [b'{"REGNO":"%d","INV":"%b****"}' % (number % 3, "孙".encode()) for number in range(45)]


def gate(limit: float | None = None, quota: int | None = None, **quirks: Any) -> tuple[WuhanGate, Stats]:  # noqa: ANN401 - as Quirks has them
    """Return a gatekeeper with one subscribed app, one that is not, and 45 rows."""
    stats = Stats()
    apps = {
        name: RegisteredApp(
            id=name,
            secret=TOKEN,
            subscribed=name == "app",
            limit=SlidingLog(limit) if limit else None,
            quota=Quota(quota, daily=True) if quota else None,
            stats=stats.app(f"wuhan/{name}"),
        )
        for name in ("app", "unsubscribed")
    }
    tables = {"companies": StoredTable(ROWS, ("REGNO", "INV")), "investors": StoredTable([], ("REGNO",))}
    return WuhanGate(apps, tables, stats, {"": Quirks(**quirks)}), stats


def call(
    body: bytes | dict[str, Any] | None = None,
    *,
    service: str = "companies",
    stamp: str = "1619072634",
    nonce: str = NONCE,
    token: str = TOKEN,
    tick: float = 0.0,
    **headers: str | None,
) -> Call:
    """Return a rightly signed call for page 1, except for what is given; ``_`` in header names stands for ``-``."""
    sent: dict[str, str | None] = {
        "accept": "application/json",
        "content-type": "application/json; charset=UTF-8",
        "x-tif-passid": "app",
        "x-tif-timestamp": stamp,
        "x-tif-nonce": nonce,
        "x-tif-signature": hashlib.sha256(f"{stamp}{token}{nonce}{stamp}".encode()).hexdigest().upper(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    if not isinstance(body, bytes):
        body = orjson.dumps(body or {"query": {"pageNo": "1"}})
    given = CIMultiDict((name, value) for name, value in sent.items() if value is not None)
    return Call(service, given, body, NOW, tick)


def test_signature_formula() -> None:
    """The published vector: what the gate accepts is SHA-256 over timestamp, token, nonce, timestamp."""
    known = "F34C0CE47E9B0CB3743924E67A50938867D98797C5802BFAABC9F501BA2955A1"
    for signature in (known, known.lower()):
        assert orjson.loads(gate()[0].answer(call(x_tif_signature=signature)).body)["errcode"] == 0


def test_page_with_rows_has_the_documented_shape() -> None:
    """Errcode and pageSize are numbers, metadata stands beside data, rows are verbatim."""
    wuhan, stats = gate()
    assert wuhan.answer(call({"query": {"pageNo": "3"}})).body == (
        b'{"errcode":0,"errmsg":"","data":{"pageNo":3,"pageSize":20,"data":['
        + b",".join(ROWS[40:])
        + b']},"metadata":{},"hint":null}'
    )
    assert stats.pages == {"wuhan/companies": {3: 1}}
    assert (stats.accepted, stats.calls) == (1, 1)


def test_empty_page_has_the_documented_shape() -> None:
    """Errcode and pageSize are texts, metadata stands inside data."""
    empty = (
        b'{"errcode":"0","errmsg":"","detailErrMsg":null,'
        b'"data":{"pageNo":%d,"pageSize":"20","data":%b,"metadata":{}},"hint":null}'
    )
    four = call({"query": {"pageNo": "4"}})
    assert gate()[0].answer(four).body == empty % (4, b"[]")
    assert gate(past_end="null")[0].answer(four).body == empty % (4, b"null")
    assert gate()[0].answer(call(service="investors")).body == empty % (1, b"[]")


def test_page_behind_the_end_can_be_another_page() -> None:
    """The answer then carries the number of the page that it holds."""
    for past_end, number in (("last", 3), ("first", 1)):
        answers = [
            gate(past_end=past_end)[0].answer(call({"query": {"pageNo": page}})).body for page in ("9", str(number))
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize("query", [{}, {"regno": "2"}, {"regno": "9"}])
def test_a_quirk_that_changes_nothing_leaves_every_byte(query: dict[str, str]) -> None:
    """The two ways to answer agree, within the list and past its end."""
    for page in ("1", "3", "9"):
        made = call({"query": {"pageNo": page, **query}})
        assert gate(window=1000)[0].answer(made) == gate()[0].answer(made)


@pytest.mark.parametrize(
    ("quirks", "page", "body"),
    [
        ({"past_end": "absent"}, "4", b'{"errcode":"0","errmsg":"","detailErrMsg":null,"hint":null}'),
        (
            {"past_end": "error"},
            "4",
            '{"errcode":7001,"errmsg":"未知错误","data":{"data":[],"metadata":{}}}'.encode(),
        ),
        (
            {"past_end": "error", "past_end_code": "500"},
            "4",
            '{"errcode":500,"errmsg":"内部服务错误","data":{"data":[],"metadata":{}}}'.encode(),
        ),
        (
            {"past_end": "code", "total": "right", "echo": "wrong"},
            "4",
            (
                b'{"errcode":"0","errmsg":"","detailErrMsg":null,'
                b'"data":{"pageNo":1,"pageSize":"20","total":45,"data":[],"metadata":{}},"hint":null}'
            ),
        ),
        (
            {"total": "string", "default_size": 2, "echo": "absent"},
            "2",
            b'{"errcode":0,"errmsg":"","data":{"pageSize":2,"total":"45","data":['
            + b",".join(ROWS[2:4])
            + b']},"metadata":{},"hint":null}',
        ),
        (
            {"default_size": 1, "size_echo": False, "body": "object", "size": "clamped"},
            "2",
            b'{"errcode":0,"errmsg":"","data":{"pageNo":2,"data":' + ROWS[1] + b'},"metadata":{},"hint":null}',
        ),
    ],
)
def test_answers_with_quirks(quirks: dict[str, Any], page: str, body: bytes) -> None:
    """More or less is said than by default, in the same two shapes."""
    assert gate(**quirks)[0].answer(call({"query": {"pageNo": page}})).body == body


def test_failures_of_a_quirk_are_refusals_of_a_counted_page() -> None:
    """The app's counts and those of the page tell of the call; the content type is that of the answer's form."""
    wuhan, stats = gate(errors=((2, "7001"),), body="gb18030")
    answer = wuhan.answer(call({"query": {"pageNo": "2"}}))
    assert answer.content_type == "application/json;charset=GB18030"
    assert "未知错误" in answer.body.decode("gb18030")
    assert (stats.accepted, stats.refused, stats.pages) == (0, {"7001": 1}, {"wuhan/companies": {2: 1}})
    assert wuhan.current_rows("companies", None) == ROWS[:20] + ROWS[40:]


def test_filter_goes_by_lower_case_names() -> None:
    """Equality on the upper-case column; unknown names are ignored; both body forms."""
    json_form = call({"query": {"pageNo": "1", "regno": "2", "colour": "red"}, "extra": {"k": 1}})
    form = call(b"pageNo=1&regno=2&colour=red", content_type="application/x-www-form-urlencoded;charset=UTF-8")
    for made in (json_form, form):
        answer = orjson.loads(gate()[0].answer(made).body)
        assert answer["data"]["data"] == [orjson.loads(row) for row in ROWS if b'"2"' in row]


@pytest.mark.parametrize("names", [("x_tif_passid",), ("x_tif_paasid",), ("x_tif_passid", "x_tif_paasid")])
def test_id_is_taken_under_either_name(names: tuple[str, ...]) -> None:
    """The document writes passid, clients of the gateway write paasid."""
    headers = {"x_tif_passid": None, **dict.fromkeys(names, "app")}
    assert orjson.loads(gate()[0].answer(call(None, **headers)).body)["errcode"] == 0  # type: ignore[arg-type]  # only headers


FORM = "application/x-www-form-urlencoded;charset=UTF-8"


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (call(x_tif_passid=None), 1433, "x-tif-passid"),
        (call(x_tif_paasid="other"), 1433, "x-tif-paasid"),
        (call(x_tif_passid="nobody"), 1433, "PASSID"),
        (call(x_tif_timestamp=None), 1433, "missing"),
        (call(x_tif_nonce=None), 1433, "missing"),
        (call(x_tif_signature=None), 1433, "missing"),
        (call(token="OTHER"), 1433, "wrong signature"),
        (call(x_tif_signature="xyci0iJIUzI1NiIsInR5cC"), 1433, "wrong signature"),
        (call(stamp="1619072453"), 1433, "off by 181 seconds"),
        (call(stamp="1619072815"), 1433, "off by -181 seconds"),
        (call(stamp="1619072634000"), 1433, "clock is off"),
        (call(stamp="1619072634.0"), 1433, "Unix seconds"),
        (call(nonce="12345"), 1433, "UUID"),
        (call(nonce=f'"{NONCE}"'), 1433, "UUID"),
        (call(x_tif_passid="unsubscribed"), 1403, "没有权限"),
        (call(service="nothing"), 100101, "服务地址不存在"),
        (call(accept="*/*"), 500, "Accept"),
        (call(accept=None), 500, "Accept"),
        (call(content_type=None), 500, "content type"),
        (call(content_type="text/plain"), 500, "content type"),
        (call(content_type="application/json;charset=GBK"), 500, "content type"),
        (call(b"pageNo=1"), 500, "content type says JSON"),
        (call(content_type=FORM), 500, "does not fit"),
        (call(b"pageNo", content_type=FORM), 500, "does not fit"),
        (call(b'{"query":["pageNo"]}'), 500, "query"),
        (call(b'"query"'), 500, "query"),
        (call({"query": {"pageNo": 1}}), 500, "pageNo must be a string"),
        (call({"query": {"pageNo": "1", "regno": 2}}), 500, "regno must be a string"),
        (call({"query": {"regno": "1"}}), 500, "pageNo"),
        (call({"query": {"pageNo": "0"}}), 500, "pageNo"),
        (call({"query": {"pageNo": "１"}}), 500, "pageNo"),
        (call({"query": {"pageNo": "1.0"}}), 500, "pageNo"),
    ],
)
def test_refusal(made: Call, code: int, said: str) -> None:
    """Every check has its code, and the message says which check it was."""
    wuhan, stats = gate()
    answer = orjson.loads(wuhan.answer(made).body)
    assert (answer["errcode"], answer["data"]) == (code, {"data": [], "metadata": {}})
    assert said in answer["errmsg"]
    assert (dict(stats.refused), stats.accepted, stats.pages) == ({str(code): 1}, 0, {})


def test_clock_may_be_off_by_three_minutes() -> None:
    """180 seconds either way are fine; the age of the signature is noted."""
    wuhan, stats = gate()
    for number, stamp in enumerate(("1619072814", "1619072454")):
        assert orjson.loads(wuhan.answer(call(stamp=stamp, nonce=NONCE[:-1] + str(number))).body)["errcode"] == 0
    assert stats.oldest_signature == 180.0


def test_age_of_a_stale_signature_is_noted_but_not_of_a_wrong_one() -> None:
    """A refused call tells as much about the client's queue as an accepted one."""
    wuhan, stats = gate()
    wuhan.answer(call(stamp="1619072034"))
    wuhan.answer(call(stamp="1", token="OTHER"))
    assert stats.oldest_signature == 600.0


def test_nonce_must_not_come_again_within_ten_minutes() -> None:
    """Refused and counted, upper-case letters or not; free again afterwards."""
    wuhan, stats = gate()
    codes = [
        orjson.loads(wuhan.answer(call(tick=tick, nonce=nonce)).body)["errcode"]
        for tick, nonce in ((0.0, NONCE), (599.0, NONCE.upper()), (600.0, NONCE))
    ]
    assert codes == [0, 1433, 0]
    assert stats.repeated_nonces == 1


def test_unsigned_calls_use_up_no_nonce_and_no_rate() -> None:
    """A stranger cannot lock an app out."""
    wuhan, _ = gate(limit=1)
    assert orjson.loads(wuhan.answer(call(token="OTHER")).body)["errcode"] == 1433
    assert orjson.loads(wuhan.answer(call()).body)["errcode"] == 0


def test_rate_is_shared_by_all_interfaces_of_an_app() -> None:
    """1141 beyond the limit, whatever the interface; each app has its own; arrivals are counted apart."""
    wuhan, stats = gate(limit=2)
    wanted = [("companies", 0.0), ("investors", 0.25), ("companies", 0.5), ("nothing", 0.75), ("companies", 1.0)]
    codes = [
        orjson.loads(wuhan.answer(call(service=service, tick=tick, nonce=f"{NONCE[:-1]}{number}")).body)["errcode"]
        for number, (service, tick) in enumerate(wanted)
    ]
    assert codes == [0, "0", 1141, 1141, 0]
    assert orjson.loads(wuhan.answer(call(x_tif_passid="unsubscribed", tick=0.75)).body)["errcode"] == 1403
    app = stats.apps["wuhan/app"]
    assert (app.most_calls, app.most_accepted, app.refused["1141"]) == (4, 2, 2)


def test_quota_is_of_an_interface() -> None:
    """1141 once it is used up, for that interface alone; calls that get no further than the rate are free."""
    wuhan, _ = gate(limit=3, quota=1)
    wanted = [("companies", 0.0), ("companies", 0.1), ("investors", 0.2), ("investors", 0.3), ("investors", 1.5)]
    answers = [
        orjson.loads(wuhan.answer(call(service=service, tick=tick, nonce=f"{NONCE[:-1]}{number}")).body)
        for number, (service, tick) in enumerate(wanted)
    ]
    assert [answer["errcode"] for answer in answers] == [0, 1141, "0", 1141, 1141]
    assert ["quota" in answer["errmsg"] for answer in answers] == [False, True, False, False, True]


def test_an_answer_tells_its_page_and_whether_a_limit_was_reached() -> None:
    """For what happens to it outside: pages can be slow, and refusals sent as another status."""
    wuhan, _ = gate(limit=1, quota=1)
    given, refused, late, other = (
        wuhan.answer(made)
        for made in (
            call({"query": {"pageNo": "3"}}),
            call(tick=0.5, nonce=NONCE[:-1] + "1"),
            call(tick=1.0, nonce=NONCE[:-1] + "2"),
            call(service="nothing", tick=2.0, nonce=NONCE[:-1] + "3"),
        )
    )
    assert (given.page, given.over_limit) == (3, False)
    for limited in (refused, late):
        assert limited == Answer(limited.body, 0, over_limit=True)
    assert (other.page, other.over_limit) == (0, False)


def test_any_header_bytes_are_answered() -> None:
    """Bytes that are no UTF-8 reach the gate as lone surrogates; they are refused, not raised."""
    odd = "\udcff"
    for made in (call(x_tif_passid=odd), call(x_tif_nonce=odd), call(service=odd), call(accept=odd)):
        assert orjson.loads(gate()[0].answer(made).body)["errcode"] in {1433, 100101, 500}


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["application/json", FORM]))
def test_any_body_is_answered(body: bytes, content_type: str) -> None:
    """Whatever a signed call carries, the answer is JSON of the platform's kind."""
    assert "errcode" in orjson.loads(gate()[0].answer(call(body, content_type=content_type)).body)

"""SIPOP's gatekeeper: one golden answer for everything that it refuses. Signatures are computed here, independently."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harvester.simulator.gate import Answer, Call, Quota, RegisteredApp
from harvester.simulator.limits import SlidingLog
from harvester.simulator.quirks import PastEnd, Quirks
from harvester.simulator.sipop import SipopGate
from harvester.simulator.stats import Stats
from harvester.simulator.tables import StoredTable

NOW = datetime(2018, 1, 1, 4, 0, 0, tzinfo=UTC).timestamp()
STAMP = "2018-01-01 12:00:00"
SECRET = "TEST-SECRET-0001"
ROWS = [b'{"title":"%b","n":%d}' % ("牙刷".encode() if number % 2 else b"pump", number) for number in range(25)]
FORM = "application/x-www-form-urlencoded"


def gate(
    limit: float | None = None,
    digest: str = "any",
    quota: int | None = None,
    **quirks: Any,  # noqa: ANN401 - as Quirks has them
) -> tuple[SipopGate, Stats]:
    """Return a gatekeeper with one authorised app, one that is not, and 25 rows."""
    stats = Stats()
    apps = {
        name: RegisteredApp(
            id=name,
            secret=SECRET,
            subscribed=name == "app",
            limit=SlidingLog(limit) if limit else None,
            quota=Quota(quota, daily=False) if quota else None,
            stats=stats.app(f"sipop/{name}"),
        )
        for name in ("app", "unsubscribed")
    }
    tables = {"patent.search": StoredTable(ROWS, ("title", "n"))}
    return SipopGate(apps, tables, stats, quirks={"": Quirks(**quirks)}, digest=digest), stats


def call(
    param: str = '{"pageSize":10,"pageNum":1}',
    *,
    secret: str = SECRET,
    tick: float = 0.0,
    content_type: str = FORM,
    **fields: str | None,
) -> Call:
    """Return a rightly signed call for page 1, except for what is given; None leaves a field out."""
    stamp = fields.get("timestamp", STAMP) or ""
    sent: dict[str, str | None] = {
        "appKey": "app",
        "method": "patent.search",
        "param": param,
        "timestamp": STAMP,
        "v": "1.0",
        "sign": hashlib.md5(f"{stamp}{param}{secret}".encode()).hexdigest(),  # noqa: S324 - the platform's choice
        **fields,
    }
    body = urlencode({name: value for name, value in sent.items() if value is not None}).encode()
    return Call("", CIMultiDict({"content-type": content_type}), body, NOW, tick)


def asked(sipop: SipopGate, made: Call) -> dict[str, Any]:
    """Return the parsed answer."""
    answer = orjson.loads(sipop.answer(made).body)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(
    ("param", "md5"),
    [
        ('{"p_category":"01","pageSize":10,"pageNum":1}', "1e9f6f58487fde9ba20c04dd97084d93"),
        ('{"title":"牙刷","pageSize":10,"pageNum":1}', "33f54b563dffdac8126369c5225756c7"),
    ],
)
def test_both_lengths_of_the_signature(param: str, md5: str) -> None:
    """Made-up vectors: MD5 over timestamp, param, secret; 32 digits or their middle 16, as set."""
    for digest, right, wrong in (("md5", md5, md5[8:24]), ("md5-16", md5[8:24], md5)):
        assert asked(gate(digest=digest)[0], call(param, sign=right))["code"] == "1000"
        assert asked(gate(digest=digest)[0], call(param, sign=wrong))["code"] == "1004"
        assert asked(gate()[0], call(param, sign=right))["code"] == "1000"
    assert asked(gate()[0], call(param, sign=md5.upper()))["code"] == "1004"


def test_page_has_the_documented_shape() -> None:
    """Total of all matches, count of this page, rows verbatim."""
    sipop, stats = gate()
    assert sipop.answer(call('{"pageNum":3}')).body == (
        '{"result":true,"code":"1000","msg":"操作成功","total":25,"count":5,"data":['.encode()
        + b",".join(ROWS[20:])
        + b"]}"
    )
    assert stats.pages == {"sipop/patent.search": {3: 1}}


def test_filter_goes_by_column_names() -> None:
    """Texts and numbers; unknown names are ignored whatever they hold; 1100 where nothing matches."""
    odd = asked(gate()[0], call('{"title":"牙刷","pageSize":100,"p_category":["01"]}'))
    assert (odd["total"], odd["count"]) == (12, 12)
    assert asked(gate()[0], call('{"n":7}'))["data"] == [orjson.loads(ROWS[7])]
    sipop, stats = gate()
    assert asked(sipop, call('{"title":"nothing"}')) == {
        "result": False,
        "code": "1100",
        "msg": "未查询到数据",
        "total": 0,
        "count": 0,
        "data": None,
    }
    assert (stats.accepted, stats.refused.total()) == (1, 0)


def test_page_size_is_lowered_without_a_word() -> None:
    """The cap shows in the count alone."""
    answer = asked(
        gate(size="clamped", size_cap=4, size_echo=False, echo="absent")[0], call('{"pageNum":2,"pageSize":50}')
    )
    assert (answer["code"], answer["count"]) == ("1000", 4)
    assert answer["data"] == [orjson.loads(row) for row in ROWS[4:8]]


@pytest.mark.parametrize(
    ("past_end", "count", "data"),
    [("empty", 0, []), ("null", 0, None), ("last", 5, ROWS[20:]), ("first", 10, ROWS[:10])],
)
def test_page_behind_the_end(past_end: PastEnd, count: int, data: list[bytes] | None) -> None:
    """The code says success and the total stays, whatever the list holds."""
    answer = asked(gate(past_end=past_end)[0], call('{"pageNum":4}'))
    assert (answer["code"], answer["total"], answer["count"]) == ("1000", 25, count)
    assert answer["data"] == (None if data is None else [orjson.loads(row) for row in data])


@pytest.mark.parametrize(
    "param", ['{"pageNum":%d}', '{"pageNum":%d,"pageSize":7,"title":"牙刷"}', '{"pageNum":%d,"n":99}']
)
def test_a_quirk_that_changes_nothing_leaves_every_byte(param: str) -> None:
    """The two ways to answer agree, within the list and past its end."""
    for page in (1, 2, 3, 9):
        assert gate(window=1000)[0].answer(call(param % page)) == gate()[0].answer(call(param % page))


HEAD = '{"result":true,"code":"1000","msg":"操作成功",'.encode()


@pytest.mark.parametrize(
    ("quirks", "param", "body"),
    [
        ({"past_end": "absent"}, '{"pageNum":9}', HEAD + b'"total":25,"count":0}'),
        (
            {"past_end": "code"},
            '{"pageNum":9}',
            '{"result":false,"code":"1100","msg":"未查询到数据","total":0,"count":0,"data":null}'.encode(),
        ),
        (
            {"past_end": "error"},
            '{"pageNum":9}',
            '{"result":false,"code":"7001","msg":"未知错误","total":0,"count":0,"data":null}'.encode(),
        ),
        ({"total": "absent", "short_pages": {1: 1}}, "{}", HEAD + b'"count":1,"data":[' + ROWS[0] + b"]}"),
        (
            {"total": "string", "size": "clamped", "size_cap": 1},
            '{"pageNum":2,"pageSize":50}',
            HEAD + b'"total":"25","count":1,"data":{"pageNum":2,"pageSize":1,"data":[' + ROWS[1] + b"]}}",
        ),
        (
            {"size": "ignored", "default_size": 1, "echo": "absent", "total": "null"},
            '{"pageNum":3,"pageSize":50}',
            HEAD + b'"total":null,"count":1,"data":{"pageSize":1,"data":[' + ROWS[2] + b"]}}",
        ),
        ({"default_size": 1}, '{"pageNum":3}', HEAD + b'"total":25,"count":1,"data":[' + ROWS[2] + b"]}"),
    ],
)
def test_answers_with_quirks(quirks: dict[str, Any], param: str, body: bytes) -> None:
    """Number and size of the page stand beside the list, and only where they are what is wrong."""
    assert gate(**quirks)[0].answer(call(param)).body == body


def test_pages_are_as_long_as_asked() -> None:
    """No size is lowered unless a quirk says so."""
    assert asked(gate()[0], call('{"pageSize":1000000000000}'))["count"] == 25
    assert gate()[0].current_rows("patent.search", 7) == ROWS


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (call(appKey=None), "1001"),
        (call(appKey="nobody"), "1001"),
        (call(method=None), "1002"),
        (call(method="patent.nothing"), "1002"),
        (call(timestamp=None), "1003"),
        (call(timestamp="1514779200"), "1003"),
        (call(timestamp="2018-01-01T12:00:00"), "1003"),
        (call(timestamp="2018-02-30 12:00:00"), "1003"),
        (call(timestamp="2018-01-01 04:00:00"), "1003"),  # UTC instead of Beijing's clock
        (call(timestamp="2018-01-01 11:49:59"), "1003"),
        (call(timestamp="2018-01-01 12:10:01"), "1003"),
        (call(sign=None), "1004"),
        (call(sign=""), "1004"),
        (call(secret="OTHER"), "1004"),
        (call(v=None), "1005"),
        (call(v="1"), "1005"),
        (call(appKey="unsubscribed"), "1006"),
        (call(""), "1009"),
        (call("[1]"), "1009"),
        (call('{"pageNum":"1"}'), "1009"),
        (call('{"pageNum":0}'), "1009"),
        (call('{"pageNum":1.0}'), "1009"),
        (call('{"pageNum":true}'), "1009"),
        (call('{"pageSize":"10"}'), "1009"),
        (call('{"pageSize":-1}'), "1009"),
        (call('{"title":["a"]}'), "1009"),
        (call(content_type="application/json"), "1009"),
        (call(content_type=FORM + ";charset=GBK"), "1009"),
        (Call("", CIMultiDict({"content-type": FORM}), b"appKey=\xe7", NOW, 0.0), "1009"),
    ],
)
def test_refusal(made: Call, code: str) -> None:
    """Every check has its code; result is false and there is no data."""
    sipop, stats = gate()
    answer = asked(sipop, made)
    assert (answer["result"], answer["code"], answer["data"]) == (False, code, None)
    assert answer["msg"]
    assert (dict(stats.refused), stats.accepted, stats.pages) == ({code: 1}, 0, {})


def test_clock_may_be_off_by_ten_minutes() -> None:
    """600 seconds either way are fine; the age of the signature is noted."""
    sipop, stats = gate()
    assert [asked(sipop, call(timestamp=f"2018-01-01 {at}"))["code"] for at in ("12:10:00", "11:50:00")] == ["1000"] * 2
    assert stats.oldest_signature == 600.0


def test_age_of_a_stale_signature_is_noted_but_not_of_a_wrong_one() -> None:
    """A refused call tells as much about the client's queue as an accepted one."""
    sipop, stats = gate()
    assert asked(sipop, call(timestamp="2018-01-01 11:40:00"))["code"] == "1003"
    assert asked(sipop, call(timestamp="2018-01-01 11:30:00", secret="OTHER"))["code"] == "1003"
    assert stats.oldest_signature == 1200.0


def test_rate_belongs_to_the_app() -> None:
    """1008 beyond the limit, and a call one second after the first goes through."""
    sipop, stats = gate(limit=1)
    assert [asked(sipop, call(tick=tick))["code"] for tick in (0.0, 0.999, 1.0)] == ["1000", "1008", "1000"]
    assert asked(sipop, call(appKey="unsubscribed"))["code"] == "1006"
    assert stats.apps["sipop/app"].as_dict() == {
        "calls": 3,
        "accepted": 2,
        "refused": {"1008": 1},
        "most_calls": 2,
        "most_accepted": 1,
        "repeated_nonces": 0,
        "oldest_signature": 0.0,
        "quota_used": {},
        "per_second": [[0, 2, 1, 1], [1, 1, 1, 0]],
    }


def test_quota_is_of_a_method() -> None:
    """1008 once it is used up; a call that the method refuses is used as well; other codes come before it."""
    sipop, _ = gate(limit=5, quota=2)
    codes = [
        asked(sipop, made)["code"]
        for made in (call(), call("[]"), call(method="patent.nothing"), call(), call(appKey="unsubscribed"))
    ]
    assert codes == ["1000", "1009", "1002", "1008", "1006"]
    given, refused = gate(quota=1)[0], gate(limit=1)[0]
    assert given.answer(call('{"pageNum":2}')).page == 2
    for sipop in (given, refused):
        sipop.answer(call())
        limited = sipop.answer(call())
        assert limited == Answer(limited.body, 0, over_limit=True)
    assert not given.answer(call(method="patent.nothing")).over_limit


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@given(st.dictionaries(st.sampled_from(["pageNum", "pageSize", "title", "n", "x"]), JSON))
def test_any_param_is_answered(param: dict[str, Any]) -> None:
    """Whatever JSON a signed call carries, the answer has a code of the platform."""
    assert asked(gate()[0], call(json.dumps(param)))["code"] in {"1000", "1100", "1009"}


@given(st.binary())
def test_any_body_is_answered(body: bytes) -> None:
    """Bytes that are no form are refused, not raised."""
    assert asked(gate()[0], Call("", CIMultiDict({"content-type": FORM}), body, NOW, 0.0))["code"] in {"1001", "1009"}

"""Wuhan's gatekeeper (武汉市公共数据开放平台接口使用规范): bytes of a call to bytes of an answer. Pure.

Checked in this order: who calls, signature, clock, nonce (1433); the app's rate (1141); the interface (100101); the
subscription (1403); the interface's quota (1141); Accept, content type, body and parameters (500). The specification
gives no order and no formula of the signature; the formula is the one that clients of this gateway family use.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson

from harvester.simulator.gate import Answer, Call, Refused, RegisteredApp, form_fields, media_type
from harvester.simulator.pager import Manner, Served, current_rows, pagers
from harvester.simulator.quirks import Quirks
from harvester.simulator.stats import Stats
from harvester.simulator.tables import SimulatedTable

PAGE_SIZE: Final = 20
CLOCK_TOLERANCE: Final = 180.0
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
DECIMAL: Final = re.compile(r"[0-9]{1,15}")

# Table A.1 of the specification.
TEXTS: Final = {
    "100101": "服务地址不存在",
    "1141": "请求频率过高，超出规则限制",
    "1433": "请求签名错误或请求服务器时间戳误差大于 180 秒",
    "1403": "您没有权限调用此接口",
    "500": "内部服务错误",
}
UNDOCUMENTED: Final = "未知错误"


class WuhanGate:
    """Answers ``POST /ebus/kftp/v1/service/<interface>``.

    Args:
        apps: the registered apps by PASSID.
        tables: the interfaces by name.
        stats: where pages and calls of unknown apps are counted.
        quirks: what is wrong with an interface, by its name; under the empty name with all others.
        seed: of what chance decides about quirks.
    """

    def __init__(
        self,
        apps: Mapping[str, RegisteredApp],
        tables: Mapping[str, SimulatedTable],
        stats: Stats,
        quirks: Mapping[str, Quirks] = MappingProxyType({}),
        seed: int = 0,
    ) -> None:
        self._apps = apps
        self._tables = tables
        self._stats = stats
        self._unknown = stats.app("wuhan/unknown")
        manner = Manner(
            default_size=PAGE_SIZE,
            total="absent",
            states=True,
            has_nothing=False,
            render=_render,
            failure=lambda code: _failure(Refused(code)),
        )
        self._pagers = pagers("wuhan", tables, quirks, manner, stats, seed)

    def answer(self, call: Call) -> Answer:
        """Return the page asked for, or a failure in the shape of the specification's example."""
        counts = self._unknown
        try:
            app = self._identify(call.headers)
            counts = app.stats
            counts.arrive(call.tick)
            _check_signature(app, call)
            table = self._admit(app, call)
            query = _query(call)
            number = _page_number(query.pop("pageNo", ""))
        except Refused as refused:
            counts.refuse(refused.code, call.tick)
            return Answer(_failure(refused), over_limit=refused.over_limit)
        pager = self._pagers.get(call.service)
        if pager is not None:
            return pager.answer(query, number, None, counts, call.tick)
        table = table.where(query)
        counts.accept(call.tick)
        self._stats.page(f"wuhan/{call.service}", number, -(-len(table) // PAGE_SIZE))
        return Answer(_page(table, number), number)

    def current_rows(self, name: str, size: int | None) -> list[bytes]:
        """Return what a walk over all pages would bring now; the platform knows no page size."""
        del size
        return current_rows(self._tables[name], self._pagers.get(name), None)

    def _identify(self, headers: Mapping[str, str]) -> RegisteredApp:
        ids = {value for name in ("x-tif-passid", "x-tif-paasid") if (value := headers.get(name)) is not None}
        if len(ids) != 1:
            raise Refused("1433", "x-tif-passid is missing, or differs from x-tif-paasid")
        app = self._apps.get(ids.pop())
        if app is None:
            raise Refused("1433", "no app has this PASSID")
        return app

    def _admit(self, app: RegisteredApp, call: Call) -> SimulatedTable:
        if app.limit and not app.limit.admit(call.tick):
            raise Refused("1141", over_limit=True)
        table = self._tables.get(call.service)
        if table is None:
            raise Refused("100101")
        if not app.subscribed:
            raise Refused("1403")
        if app.quota and not app.quota.admit(call.service, call.now):
            raise Refused("1141", "the interface's quota is used up", over_limit=True)
        return table


def _page(table: SimulatedTable, number: int) -> bytes:
    rows = table.page_bytes((number - 1) * PAGE_SIZE, PAGE_SIZE)
    if rows:
        return b'{"errcode":0,"errmsg":"","data":{"pageNo":%d,"pageSize":20,"data":[%b]},"metadata":{},"hint":null}' % (
            number,
            rows,
        )
    # The specification's empty answer differs from its full one in just these types and places.
    return (
        b'{"errcode":"0","errmsg":"","detailErrMsg":null,'
        b'"data":{"pageNo":%d,"pageSize":"20","data":[],"metadata":{}},"hint":null}' % number
    )


def _render(served: Served) -> bytes:
    """Return the same two answers where more or less is said."""
    words = [] if served.number is None else [b'"pageNo":%d' % served.number]
    if served.size is not None:
        words.append((b'"pageSize":%d' if served.rows else b'"pageSize":"%d"') % served.size)
    if served.total is not None:
        words.append(b'"total":' + served.total)
    if served.data is None:
        return b'{"errcode":"0","errmsg":"","detailErrMsg":null,"hint":null}'
    words.append(b'"data":' + served.data)
    if served.rows:
        return b'{"errcode":0,"errmsg":"","data":{%b},"metadata":{},"hint":null}' % b",".join(words)
    words.append(b'"metadata":{}')
    return b'{"errcode":"0","errmsg":"","detailErrMsg":null,"data":{%b},"hint":null}' % b",".join(words)


def _check_signature(app: RegisteredApp, call: Call) -> None:
    headers = call.headers
    stamp, nonce, signature = (headers.get(f"x-tif-{name}", "") for name in ("timestamp", "nonce", "signature"))
    if not (stamp and nonce and signature):
        raise Refused("1433", "x-tif-timestamp, x-tif-nonce or x-tif-signature is missing")
    # Header bytes outside ASCII arrive as lone surrogates.
    signed = f"{stamp}{app.secret}{nonce}{stamp}".encode(errors="surrogateescape")
    if hashlib.sha256(signed).hexdigest() != signature.lower():
        raise Refused("1433", "wrong signature")
    if not DECIMAL.fullmatch(stamp):
        raise Refused("1433", "x-tif-timestamp must be Unix seconds")
    age = call.now - int(stamp)
    app.stats.sign(age)
    if abs(age) > CLOCK_TOLERANCE:
        raise Refused("1433", f"the clock is off by {age:.0f} seconds")
    if not UUID.fullmatch(nonce):
        raise Refused("1433", "x-tif-nonce must be a UUID")
    if not app.nonces.add(bytes.fromhex(nonce.replace("-", "")), call.tick):
        app.stats.repeated_nonces += 1
        raise Refused("1433", "x-tif-nonce was used within the last 10 minutes")


@lru_cache(64)
def _accepts_json(header: str) -> bool:
    return any(part.partition(";")[0].strip().lower() == "application/json" for part in header.split(","))


def _query(call: Call) -> dict[str, str]:
    """Return the parameters; both forms of the body give strings only."""
    if not _accepts_json(call.headers.get("accept", "")):
        raise Refused("500", "Accept must name application/json")
    kind = media_type(call.headers.get("content-type", ""))
    query: object
    if kind == "application/json":
        try:
            body = orjson.loads(call.body)
        except orjson.JSONDecodeError:
            raise Refused("500", "the content type says JSON, the body is none") from None
        query = body.get("query") if isinstance(body, dict) else None
    elif kind == "application/x-www-form-urlencoded":
        query = None if call.body.startswith(b"{") else form_fields(call.body)
    else:
        raise Refused("500", "the content type must be JSON or a form, in UTF-8")
    if not isinstance(query, dict):
        raise Refused("500", "the body does not fit its content type, or holds no query")
    for name, value in query.items():
        if not isinstance(value, str):
            raise Refused("500", f"{name} must be a string")
    return query


def _page_number(text: str) -> int:
    if not DECIMAL.fullmatch(text) or int(text) < 1:
        raise Refused("500", "pageNo must be a decimal number from 1, as a string")
    return int(text)


def _failure(refused: Refused) -> bytes:
    text = TEXTS.get(refused.code, UNDOCUMENTED)
    if refused.detail:
        text = f"{text}: {refused.detail}"
    return orjson.dumps({"errcode": int(refused.code), "errmsg": text, "data": {"data": [], "metadata": {}}})

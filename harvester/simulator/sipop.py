"""SIPOP's gatekeeper (国家知识产权运营公共服务平台, help page): bytes of a call to bytes of an answer. Pure.

Checked in this order: the form (1009), appKey (1001), v (1005), timestamp (1003), sign (1004), the app's rate (1008),
method (1002), authorisation (1006), the method's quota (1008), param (1009). The help page gives no order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson

from harvester.simulator.gate import Answer, Call, Refused, RegisteredApp, form_fields, media_type
from harvester.simulator.pager import Manner, Served, current_rows, pagers
from harvester.simulator.quirks import Quirks
from harvester.simulator.stats import Stats
from harvester.simulator.tables import SimulatedTable

PAGE_SIZE: Final = 10
CLOCK_TOLERANCE: Final = 600.0
STAMP: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)

# The help page, 响应状态码说明. 1100 is not listed there; public clients know it.
TEXTS: Final = {
    "1001": "appKey参数不能为空或者该应用ID不存在",
    "1002": "method参数不能为空或者服务不存在",
    "1003": "timestamp参数不能为空或者时间格式不正确",
    "1004": "sign参数不能为空或者签名串不正确",
    "1005": "v参数不能为空或无法识别的版本号",
    "1006": "服务未授权",
    "1008": "达到流量限制",
    "1009": "接口调用参数不正确",
}
UNDOCUMENTED: Final = "未知错误"
SUCCESS: Final = "操作成功".encode()
NOTHING: Final = "未查询到数据".encode()
NOTHING_FOUND: Final = b'{"result":false,"code":"1100","msg":"%b","total":0,"count":0,"data":null}' % NOTHING


class SipopGate:
    """Answers ``POST /dataplatpro/api/route``.

    Args:
        apps: the registered apps by appKey.
        tables: the methods by name.
        stats: where pages and calls of unknown apps are counted.
        quirks: what is wrong with a method, by its name; under the empty name with all others.
        seed: of what chance decides about quirks.
        digest: which signature is taken: 32 hex digits (``md5``), their middle 16 (``md5-16``), or ``any`` of them.
    """

    def __init__(
        self,
        apps: Mapping[str, RegisteredApp],
        tables: Mapping[str, SimulatedTable],
        stats: Stats,
        *,
        quirks: Mapping[str, Quirks] = MappingProxyType({}),
        seed: int = 0,
        digest: str = "any",
    ) -> None:
        self._apps = apps
        self._tables = tables
        self._stats = stats
        self._unknown = stats.app("sipop/unknown")
        manner = Manner(
            default_size=PAGE_SIZE,
            total="right",
            states=False,
            has_nothing=True,
            render=_render,
            failure=lambda code: _failure(Refused(code)),
        )
        self._pagers = pagers("sipop", tables, quirks, manner, stats, seed)
        self._digest = digest

    def answer(self, call: Call) -> Answer:
        """Return the page asked for, or a failure with the code of the first check that fails."""
        counts = self._unknown
        try:
            fields = _fields(call)
            app = self._identify(fields)
            counts = app.stats
            counts.arrive(call.tick)
            self._check_signature(app, fields, call.now)
            method = fields.get("method", "")
            table = self._admit(app, method, call)
            pager = self._pagers.get(method)
            number, size, filters = _param(fields.get("param", ""), table, pager.default_size if pager else PAGE_SIZE)
        except Refused as refused:
            counts.refuse(refused.code, call.tick)
            return Answer(_failure(refused), over_limit=refused.over_limit)
        if pager:
            return pager.answer(filters, number, size, counts, call.tick)
        table = table.where(filters)
        counts.accept(call.tick)
        self._stats.page(f"sipop/{method}", number, -(-len(table) // size))
        return Answer(_page(table, number, size), number)

    def current_rows(self, name: str, size: int | None) -> list[bytes]:
        """Return what a walk over all pages of a size would bring now."""
        return current_rows(self._tables[name], self._pagers.get(name), size)

    def _identify(self, fields: Mapping[str, str]) -> RegisteredApp:
        app = self._apps.get(fields.get("appKey", ""))
        if app is None:
            raise Refused("1001")
        return app

    def _admit(self, app: RegisteredApp, method: str, call: Call) -> SimulatedTable:
        if app.limit and not app.limit.admit(call.tick):
            raise Refused("1008", over_limit=True)
        table = self._tables.get(method)
        if table is None:
            raise Refused("1002")
        if not app.subscribed:
            raise Refused("1006")
        if app.quota and not app.quota.admit(method, call.now):
            raise Refused("1008", "the method's quota is used up", over_limit=True)
        return table

    def _check_signature(self, app: RegisteredApp, fields: Mapping[str, str], now: float) -> None:
        if fields.get("v") != "1.0":
            raise Refused("1005")
        stamp = fields.get("timestamp", "")
        age = now - _beijing(stamp)
        digest = hashlib.md5(
            f"{stamp}{fields.get('param', '')}{app.secret}".encode(), usedforsecurity=False
        ).hexdigest()
        known = {"md5": (digest,), "md5-16": (digest[8:24],), "any": (digest, digest[8:24])}[self._digest]
        right = fields.get("sign") in known
        if right:
            app.stats.sign(age)
        if abs(age) > CLOCK_TOLERANCE:
            raise Refused("1003", f"the clock is off by {age:.0f} seconds")
        if not right:
            raise Refused("1004")


def _page(table: SimulatedTable, number: int, size: int) -> bytes:
    total = len(table)
    if not total:
        return NOTHING_FOUND
    first = (number - 1) * size
    return b'{"result":true,"code":"1000","msg":"%b","total":%d,"count":%d,"data":[%b]}' % (
        SUCCESS,
        total,
        max(0, min(size, total - first)),
        table.page_bytes(first, size),
    )


def _render(served: Served) -> bytes:
    """Return the same two answers where more or less is said; number and size stand beside the list, if anywhere."""
    total = b"" if served.total is None else b'"total":%b,' % served.total
    if served.nothing:
        return b'{"result":false,"code":"1100","msg":"%b",%b"count":0,"data":null}' % (NOTHING, total)
    words = [] if served.number is None else [b'"pageNum":%d' % served.number]
    if served.size is not None:
        words.append(b'"pageSize":%d' % served.size)
    data = b""
    if served.data is not None:
        data = b',"data":{%b,"data":%b}' % (b",".join(words), served.data) if words else b',"data":' + served.data
    return b'{"result":true,"code":"1000","msg":"%b",%b"count":%d%b}' % (SUCCESS, total, served.rows, data)


def _fields(call: Call) -> dict[str, str]:
    fields = form_fields(call.body)
    if fields is None or media_type(call.headers.get("content-type", "")) != "application/x-www-form-urlencoded":
        raise Refused("1009", "the body must be a form in UTF-8")
    return fields


@lru_cache(64)  # many calls share a second
def _beijing(stamp: str) -> float:
    """Return the Unix seconds of a wall clock in Beijing, which has kept UTC+8 without summer time since 1991."""
    if STAMP.fullmatch(stamp):
        try:
            return datetime.fromisoformat(f"{stamp}+08:00").timestamp()
        except ValueError:
            pass  # a day or an hour that does not exist
    raise Refused("1003")


def _param(text: str, table: SimulatedTable, default_size: int) -> tuple[int, int, dict[str, str]]:
    """Return page number, page size and filters of the business parameters."""
    try:
        param = orjson.loads(text)
    except orjson.JSONDecodeError:
        param = None
    if not isinstance(param, dict):
        raise Refused("1009", "param must be a JSON object")
    number, size = param.pop("pageNum", 1), param.pop("pageSize", default_size)
    if type(number) is not int or type(size) is not int or number < 1 or size < 1:
        raise Refused("1009", "pageNum and pageSize must be integers from 1")
    filters: dict[str, str] = {}
    for name, value in param.items():
        if name.casefold() not in table.columns:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Refused("1009", f"{name} must be a text or a number")
        filters[name] = str(value)
    return number, size, filters


def _failure(refused: Refused) -> bytes:
    text = TEXTS.get(refused.code, UNDOCUMENTED)
    if refused.detail:
        text = f"{text}: {refused.detail}"
    return orjson.dumps({"result": False, "code": refused.code, "msg": text, "total": 0, "count": 0, "data": None})

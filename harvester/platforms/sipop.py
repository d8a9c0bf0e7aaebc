"""SIPOP's data open platform (国家知识产权运营公共服务平台 数据开放平台).

Source: its help page (帮助中心: 调用方式说明, 签名sign算法, 返回公共参数说明, 响应状态码说明). Where it is unclear:

* ``timestamp`` names no zone: Beijing wall clock, whatever the host's zone.
* ``sign`` is "16位小写" in the prose and has 32 digits in the sample: 32 lower-case digits by default,
  ``digest = "md5-16"`` sends the middle 16. The sample itself cannot be reproduced from the text it shows.
* ``param`` is signed and sent as one and the same string: compact JSON, not ASCII-escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from hashlib import md5
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

import orjson
from msgspec import Raw, Struct

from harvester import envelope
from harvester.model import App, CodeRule, Dataset, Kind, Page, Reply, Request, Signed, Verdict
from harvester.platforms import status

NAME: Final = "sipop"
DEFAULT_URL: Final = "http://open.sipop.cn/dataplatpro/api/route"
CREDENTIAL_KEYS: Final = ("app_key", "app_secret")
APP_KEYS: Final = frozenset({"digest"})
DATASET_KEYS: Final = frozenset({"method"})
PAGE_PARAM: Final = "pageNum"
SIZE_PARAM: Final = "pageSize"
BEIJING: Final = timezone(timedelta(hours=8))

_SUCCESS: Final = "1000"
_NOTHING_FOUND: Final = "1100"
_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "application/json",
    "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
}

CODES: Final[Mapping[str, CodeRule]] = MappingProxyType(
    {
        "1001": CodeRule(
            kind=Kind.REFUSED,
            meaning="the appKey is missing or unknown",
            hint="compare `app_key` with 我的应用 on the platform",
            concerns="app",
        ),
        "1002": CodeRule(
            kind=Kind.REFUSED,
            meaning="the method is missing or does not exist",
            hint="compare `method` with the interface's page (应用API接口说明)",
            about="address",
        ),
        "1003": CodeRule(
            kind=Kind.CLOCK,
            meaning="the timestamp is missing, malformed, or too far from the platform's clock",
            hint="set this machine's clock",
            concerns="app",
        ),
        "1004": CodeRule(
            kind=Kind.REFUSED,
            meaning="the signature is wrong",
            hint="check `app_secret`; if it is right, try the other digest length: "
            'digest = "md5-16" (or "md5") in the app\'s table',
            concerns="app",
        ),
        "1005": CodeRule(
            kind=Kind.REFUSED,
            meaning="the platform does not know interface version 1.0 any more",
            hint="look for a newer release of this tool",
            concerns="app",
        ),
        "1006": CodeRule(
            kind=Kind.REFUSED,
            meaning="this service is not authorised for the application",
            hint="order or subscribe to the service on the platform, then run again",
            about="permission",
        ),
        "1007": CodeRule(
            kind=Kind.REFUSED,
            meaning="the authorisation for this service has expired",
            hint="renew it on the platform, then run again",
            about="permission",
        ),
        "1008": CodeRule(
            kind=Kind.OVER_LIMIT,
            meaning="the traffic limit is reached: calls per second, or the calls that were bought",
            hint="lower `rate_limit`; if it persists, the allowance is used up: run again when it resets",
            concerns="app",
        ),
        "1009": CodeRule(
            kind=Kind.REFUSED,
            meaning="the interface rejects the parameters",
            hint="compare `params` and `page_size` with the interface's page",
            about="parameters",
        ),
        "9998": CodeRule(kind=Kind.AGAIN, meaning="the server is busy"),
        "9999": CodeRule(kind=Kind.AGAIN, meaning="unknown error of the platform", tries=3),
    }
)


class _Answer(Struct, frozen=True, gc=False):
    result: Raw = envelope.ABSENT
    code: Raw = envelope.ABSENT
    msg: Raw = envelope.ABSENT
    total: Raw = envelope.ABSENT
    data: Raw = envelope.ABSENT


def complaint(dataset: Dataset) -> tuple[str, str] | None:
    """Say what is wrong with a dataset's settings and how to mend it, or None."""
    if not dataset.method:
        return "needs `method`", 'for example method = "patentIndex.queryKeywordPage"'
    if dataset.app.digest not in {"", "md5", "md5-16"}:
        return f"its app's `digest` is {dataset.app.digest!r}", 'digest = "md5" or digest = "md5-16"'
    taken = {dataset.page_param: "page number", SIZE_PARAM: "page size"} if dataset.paging == "page" else {}
    for key, what in taken.items():
        if key in dataset.params:
            instead = "remove it" if key == dataset.page_param else "use `page_size` instead"
            return f"parameter {key!r} is the {what}, which is filled in for each call", instead
    return None


def target(dataset: Dataset) -> str:
    """Return the one address of the platform with the method that tells datasets apart."""
    return f"{dataset.app.url}?method={dataset.method}"


def operation(dataset: Dataset) -> str:
    """Return the method."""
    return dataset.method


def build(dataset: Dataset, page: int) -> Request:
    """Make the unsigned call; ``body`` is the business input ``param``, serialised once."""
    param = dict(dataset.params)
    if dataset.paging == "page":
        if dataset.page_size is not None:
            param[SIZE_PARAM] = dataset.page_size
        param[dataset.page_param] = page
    return Request(dataset.app.url, _HEADERS, orjson.dumps(param), {"method": dataset.method})


@lru_cache(maxsize=4)
def _timestamp(second: int) -> str:
    return datetime.fromtimestamp(second, BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def sign(request: Request, app: App, now: float, _nonce: str) -> Signed:
    """Sign ``timestamp + param + appSecret`` with MD5, as documented; the platform knows no nonce."""
    timestamp, param = _timestamp(int(now)), request.body.decode()
    digest = md5(f"{timestamp}{param}{app.secret.reveal()}".encode(), usedforsecurity=False).hexdigest()
    form = {
        "appKey": app.id,
        "method": request.fields["method"],
        "param": param,
        "timestamp": timestamp,
        "v": "1.0",
        "sign": digest[8:24] if app.digest == "md5-16" else digest,
    }
    return Signed(request.url, request.headers, urlencode(form).encode())


def read(dataset: Dataset, reply: Reply) -> Page | Verdict:
    """Tell a page from everything else: both ``result`` and ``code`` must say success; 1100 means zero rows."""
    try:
        opened = envelope.opened(reply, dataset.charset, _Answer)
        answer = opened.fields
        code = envelope.scalar(answer.code)
        total = envelope.integer(answer.total)
        if code == _NOTHING_FOUND and reply.status < 300:  # noqa: PLR2004 - any success
            # It speaks of this page alone: its total is none of the list's, its bytes are no evidence of the charset.
            return Page(b"", 0)
        if code == _SUCCESS and envelope.scalar(answer.result) == "true" and reply.status < 300:  # noqa: PLR2004
            return opened.page(answer.data, total)
    except envelope.UnreadableError as error:
        return status.judge(reply, str(error), error.hint)
    except envelope.ShapeError as error:
        if reply.status != 200:  # noqa: PLR2004
            return status.judge(reply, str(error))
        return status.unknown(f"HTTP {reply.status}", f"{error}: {status.excerpt(reply.body)}")
    text = opened.words(answer.msg)
    if code in CODES:
        return CODES[code].verdict(code, text)
    if status.tells_more(reply, code, {_SUCCESS, _NOTHING_FOUND}):
        return status.judge(reply, f"code {code or 'missing'}")
    if code == _SUCCESS:
        text = f"code {code}, but `result` is {envelope.scalar(answer.result) or 'missing'}: {text}"
    return status.unknown(code or "no code", text or status.excerpt(reply.body))

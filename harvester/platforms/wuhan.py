"""Wuhan's public data open platform (武汉市公共数据开放平台).

Source: its interface specification (武汉市公共数据开放平台接口使用规范), sections 5.4 and A.1. Three things in it
contradict themselves or are missing; what is done about them:

* The id header is ``x-tif-passid`` in the document and ``x-tif-paasid`` in public clients of this gateway family:
  both are sent unless ``id_headers`` says otherwise.
* No formula for the signature is given. Public clients and a public server-side filter of the family agree on
  ``HEX(SHA256(timestamp + TOKEN + nonce + timestamp))``, and 64 hexadecimal digits is what the document's prose shows.
* The body is a form in the prose and JSON in the worked example: ``body`` chooses, JSON is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

import orjson
from msgspec import Raw, Struct

from harvester import envelope, plain
from harvester.model import App, CodeRule, Dataset, Kind, Page, Reply, Request, Signed, Verdict
from harvester.platforms import status

NAME: Final = "wuhan"
DEFAULT_URL: Final = "https://rio.wuhan.gov.cn/ebus/kftp/v1/service/"
CREDENTIAL_KEYS: Final = ("passid", "token")
APP_KEYS: Final = frozenset({"id_headers"})
DATASET_KEYS: Final = frozenset({"service", "url", "body", "envelope"})
PAGE_PARAM: Final = "pageNo"
ID_HEADERS: Final = ("x-tif-passid", "x-tif-paasid")

_SUCCESS: Final = "0"
# ``Accept``: the specification warns that the `*/*` which HTTP clients send by default makes calls fail.
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "json": {"Accept": "application/json", "Content-Type": "application/json; charset=UTF-8"},
    "form": {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"},
}

_CREDENTIALS: Final = CodeRule(
    kind=Kind.CLOCK,
    meaning="the signature is wrong, or this machine's clock and the platform's are more than 180 s apart",
    hint="check PASSID and TOKEN on the application's page; a regenerated TOKEN replaces the old one at once",
    concerns="app",
)
_PROVIDER_FILTER: Final = "400001"
CODES: Final[Mapping[str, CodeRule]] = MappingProxyType(
    {
        "1141": CodeRule(
            kind=Kind.OVER_LIMIT,
            meaning="more calls per second than the platform allows this application (300 unless raised)",
            hint="lower `rate_limit`, or ask the platform's operator to raise the limit",
            concerns="app",
        ),
        "1433": _CREDENTIALS,
        "1403": CodeRule(
            kind=Kind.REFUSED,
            meaning="no permission for this interface: not subscribed, the subscription not carried out yet, "
            "or PASSID and TOKEN do not belong together",
            hint="subscribe to the interface on the platform, wait until it is carried out, then run again",
            about="permission",
        ),
        "100101": CodeRule(
            kind=Kind.REFUSED,
            meaning="the service address does not exist",
            hint="compare `service` with the address on the interface's page",
            about="address",
        ),
        "100106": CodeRule(kind=Kind.AGAIN, meaning="the platform's database query failed", tries=3),
        "500": CodeRule(kind=Kind.AGAIN, meaning="internal error of the platform"),
        _PROVIDER_FILTER: _CREDENTIALS,
    }
)


class _Answer(Struct, frozen=True, gc=False):
    errcode: Raw = envelope.ABSENT
    errmsg: Raw = envelope.ABSENT
    detailErrMsg: Raw = envelope.ABSENT  # noqa: N815 - the platform's spelling
    data: Raw = envelope.ABSENT
    code: Raw = envelope.ABSENT  # a provider's own filter behind the gateway
    msg: Raw = envelope.ABSENT


def complaint(dataset: Dataset) -> tuple[str, str] | None:
    """Say what is wrong with a dataset's settings and how to mend it, or None."""
    if bool(dataset.service) == bool(dataset.url):
        return (
            "needs one of `service` and `url`",
            'service = "…" is the last part of the address on the interface\'s page',
        )
    if dataset.service and ("/" in dataset.service or "?" in dataset.service):
        return f"`service` {dataset.service!r} is no single name", "for a whole address use `url`"
    if dataset.body not in {"", *_HEADERS}:
        return f"`body` is {dataset.body!r}", 'body = "json" or body = "form"'
    if dataset.envelope and dataset.body == "form":
        return '`envelope` adds keys to a JSON body, but `body` is "form"', "remove one of the two"
    if "query" in dataset.envelope:
        return "`envelope` must not hold `query`", "what goes into `query` stands in `params`"
    if dataset.page_size is not None:
        return (
            "this platform has no page-size parameter, so `page_size` cannot be sent",
            "remove it; if this one interface documents such a parameter, put it into `params`",
        )
    for key, value in dataset.params.items():
        if not isinstance(value, str):
            return f"parameter {key!r} is no text", f'this platform takes texts only: {key} = "{value}"'
    if dataset.paging == "page" and dataset.page_param in dataset.params:
        return f"parameter {dataset.page_param!r} is the page number, which is filled in for each call", "remove it"
    return None


def target(dataset: Dataset) -> str:
    """Return the address of the interface: a whole ``url``, or ``service`` below the app's base."""
    return dataset.url or _joined(dataset.app.url, dataset.service)


def operation(dataset: Dataset) -> str:
    """Return the interface's name, however it is addressed."""
    return dataset.service or urlsplit(dataset.url).path.rstrip("/").rpartition("/")[2]


@lru_cache(maxsize=1024)
def _joined(base: str, service: str) -> str:
    return urljoin(base if base.endswith("/") else base + "/", service)


def build(dataset: Dataset, page: int) -> Request:
    """Make the unsigned call; all values travel as strings, as in the document's example."""
    url, headers = _fixed(target(dataset), dataset.body or "json", dataset.app.id_headers or ID_HEADERS, dataset.app.id)
    query = dict(dataset.params)
    if dataset.paging == "page":
        query = {dataset.page_param: str(page), **query}
    body = urlencode(query).encode() if dataset.body == "form" else orjson.dumps({**dataset.envelope, "query": query})
    return Request(url, headers, body)


@lru_cache(maxsize=1024)
def _fixed(url: str, body: str, id_headers: tuple[str, ...], passid: str) -> tuple[str, Mapping[str, str]]:
    """Return what all calls of a dataset share, made once."""
    return url, {**_HEADERS[body], **dict.fromkeys(id_headers, passid)}


def sign(request: Request, app: App, now: float, nonce: str) -> Signed:
    """Sign with the TOKEN for ``now``, in whole Unix seconds; body, path and method are not part of it."""
    timestamp = str(int(now))
    digest = sha256(f"{timestamp}{app.secret.reveal()}{nonce}{timestamp}".encode()).hexdigest().upper()
    return Signed(
        request.url,
        {
            **request.headers,
            "x-tif-timestamp": timestamp,
            "x-tif-nonce": nonce,
            "x-tif-signature": digest,
        },
        request.body,
    )


def read(dataset: Dataset, reply: Reply) -> Page | Verdict:
    """Tell a page from everything else; ``errcode`` may be a number or a string, every other key may be missing."""
    if reply.status == 200 and (page := plain.page(reply, dataset.charset)):  # noqa: PLR2004
        return page
    try:
        opened = envelope.opened(reply, dataset.charset, _Answer)
        answer = opened.fields
        code = envelope.scalar(answer.errcode)
        if code == _SUCCESS and reply.status < 300:  # noqa: PLR2004 - any success
            return opened.page(answer.data)
    except envelope.UnreadableError as error:
        return status.judge(reply, str(error), error.hint)
    except envelope.ShapeError as error:
        if reply.status != 200:  # noqa: PLR2004
            return status.judge(reply, str(error))
        return status.unknown(f"HTTP {reply.status}", f"{error}: {status.excerpt(reply.body)}")
    text = opened.words(answer.errmsg) or opened.words(answer.detailErrMsg) or opened.words(answer.msg)
    if not code and envelope.scalar(answer.code) == _PROVIDER_FILTER:
        code = _PROVIDER_FILTER
    if code in CODES:
        return CODES[code].verdict(code, text)
    if status.tells_more(reply, code, {_SUCCESS}):
        return status.judge(reply, f"errcode {code or 'missing'}")
    return status.unknown(code or "no errcode", text or status.excerpt(reply.body))

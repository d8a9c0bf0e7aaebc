"""What an answer means that carries no code of its platform: judged by HTTP status and shape.

Platforms call this after they have looked for their own code in the body, because error bodies come with HTTP 500 as
well as with 200, and a code tells more than a status: also an unknown one. Only HTTP 429 needs no words beside it.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from harvester import charset
from harvester.model import Kind, Reply, Verdict

TOO_MANY_REQUESTS: Final = 429
EXCERPT: Final = 160  # characters of a foreign page that are worth showing
UNREADABLE_TRIES: Final = 4
# No JSON text begins with "<". Byte order marks may stand before it: of UTF-8 and of GB18030.
_MARKUP: Final = re.compile(rb"(?:\xef\xbb\xbf|\x84\x31\x95\x33)?\s*<[a-z!?/]", re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def excerpt(body: bytes) -> str:
    """Return a page's title, or the beginning of its text, in one line of at most ``EXCERPT`` characters."""
    text = charset.shown(body[:4096])
    title = _TITLE.search(text)
    words = " ".join((title.group(1) if title else _TAG.sub(" ", text)).split())
    return words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"


def header(reply: Reply, name: str) -> str:
    """Return a header as text that can be written anywhere; what was not UTF-8 in it becomes question marks.

    HTTP clients hand such bytes over as lone surrogates, which no encoder takes.
    """
    return reply.headers.get(name, "").encode(errors="replace").decode()


def is_markup(body: bytes) -> bool:
    """Tell an HTML or XML page from anything else by its first characters."""
    return _MARKUP.match(body) is not None


def unknown(code: str, text: str) -> Verdict:
    """An answer nobody documented: never empty, never the end."""
    return Verdict(
        kind=Kind.REFUSED,
        code=code,
        text=text,
        meaning="the platform's documentation does not list this answer, so it cannot be taken for an empty page",
        hint="look at the platform's announcements; if the answer is a normal one, please report it as a bug",
    )


def tells_more(reply: Reply, code: str, successes: Container[str]) -> bool:
    """Tell whether the status says more than a code that is no documented failure: missing, a success, or unknown.

    A code that only repeats the status is a gateway's, not the platform's.
    """
    if reply.status == TOO_MANY_REQUESTS:
        return True
    return reply.status != 200 and (code in {"", str(reply.status)} or code in successes)  # noqa: PLR2004


def judge(reply: Reply, why: str, hint: str = "") -> Verdict:
    """Judge an answer in which the platform's own code was not found.

    ``why`` says what was wrong with the body and ``hint`` what to do if it was nothing but that.
    """
    status, text = reply.status, excerpt(reply.body)
    code = f"HTTP {status}"
    retry_after = header(reply, "Retry-After")
    if status == TOO_MANY_REQUESTS or (status == 503 and retry_after):  # noqa: PLR2004
        return Verdict(
            kind=Kind.OVER_LIMIT,
            code=code,
            text=text,
            meaning="the gateway asks for fewer calls",
            concerns="app",
            retry_after=retry_after,
        )
    if status >= 500 or status == 408:  # noqa: PLR2004
        return Verdict(kind=Kind.AGAIN, code=code, text=text, meaning="the server or a gateway before it failed")
    if 300 <= status < 400:  # noqa: PLR2004
        target = header(reply, "Location")
        return Verdict(
            kind=Kind.REFUSED,
            code=code,
            text=target or text,
            meaning="the address redirects; a signed call is not sent anywhere but where the job file says",
            hint=f"if {target or 'the target'} is the platform's new address, put it into the job file as `url`",
            concerns="app",
        )
    if status in {404, 410}:
        return Verdict(
            kind=Kind.REFUSED,
            code=code,
            text=text,
            meaning="there is nothing at this address",
            hint="compare `service`, `method` or `url` with the interface's page on the platform",
            about="address",
        )
    if status in {401, 403} or (status == 200 and is_markup(reply.body)):  # noqa: PLR2004
        return Verdict(
            kind=Kind.AGAIN,
            code=code,
            text=text,
            meaning="blocked: a web page came instead of data, from a login, a protection device or a proxy",
            hint="open the address in a browser from this machine; ask the platform's operator to admit this client",
            concerns="app",
            tries=UNREADABLE_TRIES,
            then="refused",
        )
    if status == 200:  # noqa: PLR2004
        return Verdict(
            kind=Kind.AGAIN,
            code=code,
            text=text,
            meaning=f"the body cannot be read ({why})",
            hint=hint,
            tries=UNREADABLE_TRIES,
            quarantine=True,
        )
    return unknown(code, text)

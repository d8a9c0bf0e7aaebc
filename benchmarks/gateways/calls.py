"""Signed calls in Wuhan's manner for the contenders; the standard library only, so that any interpreter can use it."""

from __future__ import annotations

import hashlib
import time
import uuid

PASSID = "sim-passid"
TOKEN = "sim-wuhan-token"
PATH = "/ebus/kftp/v1/service/"
OVER_LIMIT = "1141"


def headers() -> dict[str, str]:
    """Return the headers of one call, with a signature made now and a nonce of its own."""
    now, nonce = str(int(time.time())), str(uuid.uuid4())
    return {
        "Accept": "application/json",
        "Content-Type": "application/json; charset=UTF-8",
        "x-tif-passid": PASSID,
        "x-tif-timestamp": now,
        "x-tif-nonce": nonce,
        "x-tif-signature": hashlib.sha256(f"{now}{TOKEN}{nonce}{now}".encode()).hexdigest().upper(),
    }


def body(page: int) -> bytes:
    """Return the body that asks for a page."""
    return b'{"query":{"pageNo":"%d"}}' % page

"""One signed call over the wire: the only importer of aiohttp's client.

It passes the signed bytes on unchanged, never retries and never follows a redirect. aiohttp does not re-send a POST
by itself. What can go wrong becomes a ``SendError`` here, in one table, without URLs or headers in its text.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from harvester.model import Reply, Signed

CONNECT_TIMEOUT: Final = 4.0  # seconds
BODY_LIMIT: Final = 32 * 2**20  # bytes of one decoded body
KEEPALIVE: Final = 20.0  # seconds an idle connection is kept; shorter than the 60 s and more of common gateways


class SendError(Exception):
    """A call that brought no whole answer.

    Args:
        text: what happened, for people; holds no secret.
        final: whether trying again is pointless (an invalid certificate).
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.final = final


_TEXTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ServerFingerprintMismatch, "the server's certificate is not the expected one"),
    (aiohttp.ClientConnectorDNSError, "the host name cannot be resolved"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ServerDisconnectedError, "the server closed the connection before it answered"),
    (aiohttp.ClientPayloadError, "the body was cut short"),
    (aiohttp.ClientResponseError, "the answer is not valid HTTP"),
    (aiohttp.ClientOSError, "the connection broke"),
    (TimeoutError, "no whole answer in time"),
)


class Sender:
    """The connections of one app: as many as there are calls under way, so that nothing signed waits for one.

    Args:
        timeout: seconds for one call, from connecting to the last byte.
    """

    def __init__(self, timeout: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_TIMEOUT, timeout)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "harvester"},
            trust_env=False,
        )
        self._urls: dict[str, URL] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, signed: Signed) -> Reply:
        """Send once and return the whole answer, whatever its status.

        Raises:
            SendError: no whole answer came.
        """
        url = self._urls.get(signed.url)
        if url is None:
            url = self._urls[signed.url] = URL(signed.url, encoded=True)
        try:
            async with self._session.post(
                url, data=signed.body, headers=signed.headers, allow_redirects=False
            ) as response:
                body = await _whole(response)
                return Reply(response.status, response.headers, body)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise SendError(
                f"the server's TLS certificate is not valid: {error.strerror or type(error).__name__}",
                final=isinstance(error, aiohttp.ClientConnectorCertificateError),
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SendError(_explain(error)) from None


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    while part := await response.content.readany():
        parts.append(part)
        size += len(part)
        if size > BODY_LIMIT:
            raise SendError(f"the body is larger than {BODY_LIMIT // 2**20} MiB")
    return b"".join(parts)


def _explain(error: Exception) -> str:
    text = next((text for kind, text in _TEXTS if isinstance(error, kind)), "the call failed")
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # The number, not the text: asyncio's text repeats the address.
    number = cause.errno if isinstance(cause, OSError) else None
    detail = os.strerror(number) if number is not None and number > 0 else ""  # name look-ups have negative ones
    return f"{text} ({detail})" if detail else text

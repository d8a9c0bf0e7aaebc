"""One POST and its answer on a connection of aiohttp's.

aiohttp's connector opens connections (names, proxies, TLS), and its parser reads what comes. What its session does
around the two for every call is left out, for it costs more than both together: cookies, redirects, middlewares, an
object for the request and one for the answer, a task to write the body, a pool for any mixture of hosts.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

import aiohttp
from aiohttp.http import RawResponseMessage
from multidict import MultiDict
from yarl import URL

READ_AHEAD: Final = 2**16  # bytes that may wait to be read; twice as many stop the connection
HEADER_FIELDS: Final = 128  # in one answer
HEADER_FIELD_SIZE: Final = 8190  # bytes of one; together they bound a header block to 1 MiB
INTERIM: Final = 16  # answers that announce another one (RFC 9110, section 15.2)
KEEPALIVE: Final = 20.0  # seconds for which an idle connection can be used again; common gateways keep it for 60

_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200


class UnaskedError(Exception):
    """The server sent something that belongs to no call.

    Args:
        text: what, for people.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Target:
    """One address, and what all calls to it have in common, put together once.

    Args:
        url: the address.
        headers: that every call takes along.
        options: proxy, proxy_headers and server_hostname of aiohttp's requests, as far as they are needed.

    Raises:
        ValueError: a header would end its line before its end.
    """

    def __init__(self, url: URL, headers: Mapping[str, str], options: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.request = aiohttp.ClientRequest(
            "POST", url, headers=headers, skip_auto_headers=("Accept", "Content-Type"), loop=loop, **options
        )
        """Tells the connector where to connect and how; it is never sent."""
        if isinstance(self.request.proxy_headers, MultiDict):  # the connector adds this, and tells connections by them
            self.request.proxy_headers["Host"] = self.request.headers["Host"]
        absolute = self.request.proxy is not None and not self.request.is_ssl()  # as a proxy without a tunnel wants it
        place = str(self.request.url) if absolute else self.request.url.raw_path_qs
        common = {name: value for name, value in self.request.headers.items() if name != "Content-Length"}
        self._start = f"POST {place} HTTP/1.1\r\n{_fields(common)}"

    def message(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the bytes of a request with these headers beside the common ones.

        Raises:
            ValueError: a header would end its line before its end.
        """
        return f"{self._start}{_fields(headers)}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _fields(headers: Mapping[str, str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not text.count("\n") == text.count("\r") == len(headers) or "\0" in text:
        raise ValueError("a header holds the end of a line")
    return text


class Connections(aiohttp.TCPConnector):
    """As many connections as there are calls under way, so that nothing signed waits for one.

    Args:
        trust: whom TLS believes; True stands for the system's authorities.
        timeout: seconds for a new connection, the look-up of the name and TLS included.
    """

    def __init__(self, trust: ssl.SSLContext | Literal[True], timeout: float) -> None:
        super().__init__(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE, ssl=trust)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout)
        self._idle: dict[Target, deque[tuple[aiohttp.connector.Connection, float]]] = {}

    async def end(self) -> None:
        """Close everything."""
        for idle in self._idle.values():
            while idle:
                idle.popleft()[0].close()
        await self.close()

    async def exchange(self, target: Target, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Send a request and return its answer when the head of that is here.

        Raises:
            aiohttp.ClientError: no head came.
            UnaskedError: something came that was not asked for.
            ValueError: a header would end its line before its end.
        """
        message = target.message(headers, body)
        idle = self._idle.get(target)
        if idle is None:
            idle = self._idle[target] = deque()
        connection = self._kept(idle) or await self._opened(target)
        try:
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError  # noqa: TRY301 - one way out for all that closes it
            if protocol.should_close:
                raise UnaskedError("the server sent something before it was asked")  # noqa: TRY301 - as above
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,  # it takes a compressed body that was cut short for a whole one
                read_bufsize=READ_AHEAD,
                max_line_size=HEADER_FIELD_SIZE,
                max_field_size=HEADER_FIELD_SIZE,
                max_headers=HEADER_FIELDS,
            )
            # With the others of this turn: waking the server once for all costs a fraction of waking it for each.
            self._loop.call_soon(_write, transport, message)
            for _ in range(INTERIM):
                answer, content = await protocol.read()
                if answer.code >= _OK or answer.code == _SWITCHING_PROTOCOLS:
                    return Exchange(connection, answer, content, idle, self._loop.time)
            raise UnaskedError(f"the server sent {INTERIM} interim answers and no other")  # noqa: TRY301 - as above
        except BaseException:
            connection.close()
            raise

    def _kept(self, idle: deque[tuple[aiohttp.connector.Connection, float]]) -> aiohttp.connector.Connection | None:
        """Return a connection that is still open; those that have been idle for too long go."""
        while idle:
            connection, since = idle.popleft()
            if not connection.closed and self._loop.time() - since <= KEEPALIVE:
                return connection
            connection.close()
        return None

    async def _opened(self, target: Target) -> aiohttp.connector.Connection:
        try:
            return await self.connect(target.request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error


def _write(transport: asyncio.WriteTransport, message: bytes) -> None:
    if not transport.is_closing():  # or whoever waits for the answer has been told
        transport.write(message)


class Exchange:
    """An answer whose body may still be under way. The connection is free for the next call once it was read.

    Attributes:
        status: of the answer.
        headers: of the answer.
        content: the body, as sent but for the framing of chunks.
    """

    __slots__ = ("_connection", "_idle", "_time", "content", "headers", "status")

    def __init__(
        self,
        connection: aiohttp.connector.Connection,
        answer: RawResponseMessage,
        content: aiohttp.StreamReader,
        idle: deque[tuple[aiohttp.connector.Connection, float]],
        time: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._idle = idle
        self._time = time
        self.status: int = answer.code
        self.headers = answer.headers
        self.content = content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        if kind is None and connection.protocol is not None and not connection.protocol.should_close:
            self._idle.append((connection, self._time()))
        else:
            connection.close()

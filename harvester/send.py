"""One signed call over the wire.

It passes the signed bytes on unchanged, never retries and never follows a redirect. aiohttp does not re-send a POST
by itself. What can go wrong becomes a ``SendError`` here, in one table, without URLs or headers in its text. Whatever
the server does, a call ends in time, and an answer that is not proven whole is none.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from harvester.body import Body, BodyError
from harvester.deadline import Deadline, Deadlines
from harvester.exchange import Connections, Exchange, Target, UnaskedError
from harvester.model import App, Reply, Secret, Signed
from harvester.room import Room
from harvester.route import Route, RouteError, Way, trust

CONNECT_TIMEOUT: Final = 4.0  # seconds, TLS included
WINDOW: Final = 5.0  # seconds of body in which ``LEAST`` bytes have to come
LEAST: Final = 5 * 1024
PATIENCE: Final = 5.0  # seconds without a first byte that are always granted
MULTIPLE: Final = 10  # of what the slowest recent answer took, where that is more

HEADERS: Final = {"User-Agent": "harvester", "Accept-Encoding": "gzip"}

_OUT_OF_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL}
_PROXY_AUTH_REQUIRED: Final = 407
_NO_CONTENT: Final = 204
_PART: Final = 206
_NO_SUCCESS: Final = 300


class SendError(Exception):
    """A call that brought no whole answer.

    Args:
        text: what happened, for people; holds no secret.
        final: whether trying again is pointless (an invalid certificate).
        ours: whether it is our own side that fails, not the platform's: the proxy.
        local: whether this machine has run out of descriptors or ports, so that fewer calls at once would help.
    """

    def __init__(self, text: str, *, final: bool = False, ours: bool = False, local: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.final = final
        self.ours = ours
        self.local = local


_TEXTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "the host name cannot be resolved"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (aiohttp.ServerDisconnectedError, "the server closed the connection before it answered"),
    (aiohttp.ClientPayloadError, "the body was cut short"),
    (HttpProcessingError, "the answer is not valid HTTP"),
    (aiohttp.ClientOSError, "the connection broke"),
)


class Patience:
    """How long to wait for an answer to begin, connecting included: a multiple of what the slowest recent one took.

    The slowest fades by a hundredth with every answer, so it stands for the last few hundred. Before there was any,
    only ``most`` bounds the wait. When it has run out it doubles: the server may have become slower for good.

    Args:
        most: seconds, whatever was seen.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._slowest = 0.0
        self.seconds = most

    def answered(self, took: float) -> None:
        """Learn from an answer that began after ``took`` seconds."""
        self._slowest = max(took, self._slowest * 0.99)
        self.seconds = min(self._most, max(PATIENCE, MULTIPLE * self._slowest))

    def ran_out(self, waited: float) -> None:
        """Learn that ``waited`` seconds were not enough; calls that ran out together count as one."""
        self.answered(2 * waited / MULTIPLE)


class Sender:
    """The connections of one app: as many as there are calls under way, so that nothing signed waits for one.

    Args:
        timeout: seconds for one call, from connecting to the last byte.
        proxy: address of the proxy to take, without user and password.
        proxy_auth: user and password for it.
        proxy_from_env: take the proxy that the environment names, unless ``proxy`` does.
        ca_file: certificates (PEM) of authorities to trust beside the system's.
        legacy_tls: talk to servers that know no better than TLS 1.0; certificates are verified as ever.
        host: what to send in the Host header and ask for in TLS, where that is not what the address says.

    Raises:
        LocalError: ``ca_file`` cannot be used.
    """

    def __init__(
        self,
        timeout: float,
        *,
        proxy: str | None = None,
        proxy_auth: tuple[str, Secret] | None = None,
        proxy_from_env: bool = False,
        ca_file: Path | None = None,
        legacy_tls: bool = False,
        host: str = "",
    ) -> None:
        self._timeout = timeout
        self._patience = Patience(timeout)
        self._route = Route(proxy, proxy_auth, from_env=proxy_from_env, host=host)
        self._ways: dict[str, tuple[Way, Target]] = {}
        self._room = Room()
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._connections = Connections(trust(ca_file, legacy=legacy_tls), min(CONNECT_TIMEOUT, timeout))

    @classmethod
    def of(cls, app: App, timeout: float) -> Self:
        """Return the connections of an app, by the way that its table names.

        Raises:
            LocalError: its ``ca_file`` cannot be used.
        """
        return cls(
            timeout,
            proxy=app.proxy if app.proxy != "env" else None,
            proxy_auth=app.proxy_auth,
            proxy_from_env=app.proxy == "env",
            ca_file=Path(app.ca_file) if app.ca_file else None,
            legacy_tls=app.legacy_tls,
            host=app.host,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.end()

    async def send(self, signed: Signed) -> Reply:
        """Send once and return the whole answer, whatever its status.

        Raises:
            SendError: no whole answer came.
        """
        way, target = self._ways.get(signed.url) or self._found(signed.url)
        clock = self._loop.time
        started, patience, answered = clock(), self._patience.seconds, False
        deadline = self._deadlines.at(started + patience)
        try:
            with deadline, await self._connections.exchange(target, signed.headers, signed.body) as exchange:
                answered = True
                self._patience.answered(clock() - started)
                if way.proxy and exchange.status == _PROXY_AUTH_REQUIRED:
                    raise _refused_by(way.proxy, exchange.status)
                body = await self._whole(exchange, deadline, started + self._timeout)
                return Reply(exchange.status, exchange.headers, body)
        except (BodyError, UnaskedError) as error:
            raise SendError(error.text) from None
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:  # TimeoutError is an OSError
            if not deadline.expired:
                raise _explain(error, way) from None
        if not answered and patience < self._timeout:
            self._patience.ran_out(patience)
            raise SendError(f"no answer for {patience:.3g} s, which is much longer than answers have taken lately")
        if answered and deadline.when < started + self._timeout:
            raise SendError(f"the body came too slowly (less than {LEAST // 1024} KiB in {WINDOW:g} s)")
        raise SendError("no whole answer in time")

    def _found(self, address: str) -> tuple[Way, Target]:
        """Find the way to an address, once."""
        try:
            way = self._route.way(address)
        except RouteError as error:
            raise SendError(error.text, final=True, ours=True) from None
        target = Target(way.url, {**HEADERS, **way.headers}, way.options)
        return self._ways.setdefault(address, (way, target))

    async def _whole(self, exchange: Exchange, deadline: Deadline, end: float) -> bytes:
        """Read the body to its proven end; one that is not there yet may neither fill the memory nor drip."""
        body, content = _body(exchange), exchange.content
        if content.is_eof():
            if part := content.read_nowait():
                for _ in body.feed(part):
                    pass
            return body.finish()
        clock = self._loop.time
        enough = 0
        self._room.enter(body)
        try:
            while True:
                if body.received >= enough:
                    enough = body.received + LEAST
                    deadline.when = min(end, clock() + WINDOW)
                if not (part := await content.readany()):
                    return body.finish()
                for _ in body.feed(part):
                    if not self._room.fits(body):
                        deadline.when = end  # that we make it wait is not the server's fault
                        await self._room.wait(body)
                        enough = 0
        finally:
            self._room.leave(body)


def _body(exchange: Exchange) -> Body:
    """Return the body that the headers announce, empty as yet.

    One that belongs to no success may end anyhow: it holds no rows, and its status has to be known.
    """
    headers = exchange.headers
    lengths = headers.getall("Content-Length", ())
    coding = transfer = ""
    if "Content-Encoding" in headers:
        coding = ", ".join(headers.getall("Content-Encoding"))
    if "Transfer-Encoding" in headers:
        transfer = ", ".join(headers.getall("Transfer-Encoding"))
    if exchange.status == _PART:
        raise BodyError("the answer says that it is only a part of itself (HTTP 206)")
    if len(lengths) > 1:
        raise BodyError("the answer names its length more than once")
    chunked = bool(transfer) and transfer.strip().lower() != "identity"
    open_end = exchange.status == _NO_CONTENT or exchange.status >= _NO_SUCCESS
    return Body(coding, transfer, framed=bool(lengths) or chunked or open_end)


def _explain(error: Exception, way: Way) -> SendError:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # The number, not the text: asyncio's text repeats the address.
    number = cause.errno if isinstance(cause, OSError) else None
    detail = os.strerror(number) if number is not None and number > 0 else ""  # name look-ups have negative ones
    detail = f" ({detail})" if detail else ""
    if number in _OUT_OF_DESCRIPTORS:
        return SendError(f"this machine cannot open another connection{detail}", local=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by(way.proxy, error.status)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return _untrusted(error, way)
    if way.proxy and (
        isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientConnectorDNSError)
        or (isinstance(error, aiohttp.ConnectionTimeoutError) and way.url.scheme == "http")
    ):
        return SendError(f"the proxy {way.proxy} cannot be reached{detail}", ours=True)
    text = next((text for kind, text in _TEXTS if isinstance(error, kind)), "the call failed")
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(cause, ConnectionResetError) and number is None:
        text = "no TLS connection to the server: it hung up"  # a reset of the system's would have a number
    return SendError(f"{text}{detail}" + (f", through the proxy {way.proxy}" if way.proxy else ""))


def _untrusted(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError, way: Way) -> SendError:
    proxy = URL(way.proxy)
    ours = bool(way.proxy) and (error.host, error.port) == (proxy.host, proxy.port)
    whose = f"the proxy {way.proxy}" if ours else "the server"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
        return SendError(f"the TLS certificate of {whose} is not valid: {reason}", final=True, ours=ours)
    reason = getattr(error.os_error, "reason", "") or "no reason given"
    return SendError(f"no TLS connection to {whose}: {reason}", ours=ours)


def _refused_by(proxy: str, status: int) -> SendError:
    if status == _PROXY_AUTH_REQUIRED:
        return SendError(
            f"the proxy {proxy} does not accept the user and password, or their absence (407)",
            final=True,
            ours=True,
        )
    return SendError(f"the proxy {proxy} made no connection to the platform (HTTP {status})", ours=True)

"""The wire below HTTP: bytes that no server should send, connections that end anyhow, a port that is shut."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from harvester.simulator.faults import Script

ARRIVAL: Final = 0.01  # seconds in which what was sent arrives; a reset would overtake it
ABANDONED: Final = 10.0  # seconds after which a connection that nobody serves is forgotten
BUFFERED: Final = 2**18  # bytes that may wait for a slow reader
BACKLOG: Final = 128  # connections that may wait to be accepted
TURN: Final = 0.01  # seconds that a piece takes on a slow line
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # a close is a reset


class Scripted(web.StreamResponse):
    """Follows a script in place of an answer, byte by byte and past everything that makes HTTP of it.

    Args:
        script: what to do.
    """

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    @property
    def keep_alive(self) -> bool:
        """Whether the connection can carry another call; otherwise the server closes it."""
        return self._script.end == "keep"

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do it all; it is cancelled when the client leaves."""
        transport = request.transport
        if transport is None:  # the client has left already
            return
        transport.write(self._script.data)
        match self._script.end:
            case "reset":
                await asyncio.sleep(ARRIVAL if self._script.data else 0)
                reset(transport)
            case "silence":
                await asyncio.Event().wait()
            case "abandon":
                transport.pause_reading()
                await asyncio.sleep(ABANDONED)
                transport.abort()
            case "repeat":
                await _repeat(transport, self._script)

    async def write_eof(self, data: bytes = b"") -> None:
        """Add nothing."""


async def _repeat(transport: asyncio.Transport, script: Script) -> None:
    while True:
        await asyncio.sleep(script.pause)
        if transport.get_write_buffer_size() < BUFFERED:
            transport.write(script.piece)


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a reset, whatever is under way on it."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        with suppress(OSError):  # it is closed already
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()


class Line:
    """What all answers share that are sent over one line of so many bytes per second.

    Args:
        bandwidth: bytes per second, above 0.
    """

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._piece = max(64, min(2**14, int(bandwidth * TURN)))
        self._free = 0.0  # when the line has carried what is on it

    async def send(self, request: web.BaseRequest, answer: web.StreamResponse, body: bytes) -> web.StreamResponse:
        """Send an answer with its body in pieces, each when the line has room; pieces of several answers take turns."""
        loop = asyncio.get_running_loop()
        answer.content_length = len(body)
        await answer.prepare(request)
        if body:
            await answer.write(body[:1])  # the headers travel with the first of it, and at once
        for start in range(1, len(body), self._piece):
            piece = body[start : start + self._piece]
            self._free = max(self._free, loop.time()) + len(piece) / self._bandwidth
            await asyncio.sleep(self._free - loop.time())
            await answer.write(piece)
        await answer.write_eof()
        return answer


class Port:
    """What a server listens on, until it is closed.

    Connections are accepted here and not by a server of the loop's: when that is closed, it forgets those that it has
    just accepted, and neither serves nor closes them.

    Args:
        server: makes the protocol of a connection.
        host: name or address.
        number: of the port, 0 for any free one.
    """

    def __init__(self, server: web.Server, host: str, number: int) -> None:
        self._server = server
        self._host = host
        self._number = number
        self._sockets: list[socket.socket] = []
        self._arriving: set[asyncio.Task[Any]] = set()
        self._until = 0.0
        self._shut: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are bound; the first where a name stands for several."""
        host, number = self._sockets[0].getsockname()[:2]
        return host, number

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._number, type=socket.SOCK_STREAM)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(family, address))
            for each in self._sockets:
                self._listen(each)
        except OSError:
            self._let_go()
            raise

    def shut(self, until: float, *, drop: bool) -> None:
        """Let connections be refused until that time of the loop; ``drop`` also those that there are.

        Raises:
            OSError: the port could not be opened again after the last time.
        """
        loop = asyncio.get_running_loop()
        self._until = max(self._until, until)
        if self._shut is None or self._shut.done():
            self._result()
            # The port stays ours, or it could be anybody's when it is to be opened again.
            for number, each in enumerate(self._sockets):
                family, address = each.family, each.getsockname()
                loop.remove_reader(each)
                each.close()
                self._sockets[number] = _bound(family, address)
            self._shut = loop.create_task(self._open_again())
        if drop:
            for connection in self._server.connections:
                if connection.transport is not None:
                    reset(connection.transport)

    async def close(self) -> None:
        """Let go of the port, also of one that is shut.

        Raises:
            OSError: the port could not be opened again after it was shut.
        """
        if self._shut is not None:
            self._shut.cancel()
            await asyncio.wait((self._shut,))
        self._let_go()
        if self._arriving:
            await asyncio.wait(self._arriving)
        self._result()

    def _let_go(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    def _result(self) -> None:
        if self._shut is not None and self._shut.done() and not self._shut.cancelled():
            self._shut.result()

    def _listen(self, bound: socket.socket) -> None:
        bound.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(bound, self._accept, bound)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                connected, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            connected.setblocking(False)  # noqa: FBT003 - the only argument it has
            task = loop.create_task(loop.connect_accepted_socket(self._server, connected))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _open_again(self) -> None:
        loop = asyncio.get_running_loop()
        while (wait := self._until - loop.time()) > 0:  # noqa: ASYNC110 - meanwhile it may be put off
            await asyncio.sleep(wait)
        for each in self._sockets:
            self._listen(each)


def _bound(family: int, address: Any) -> socket.socket:  # noqa: ANN401 - two parts or four
    """Return a socket that nobody else can have, and that does not listen yet."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)  # noqa: FBT003 - as above
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else it is in use as long as old connections
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound

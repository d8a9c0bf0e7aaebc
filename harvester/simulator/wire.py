"""The wire below HTTP: bytes that no server should send, connections that end anyhow, a port that is shut."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from harvester.simulator.faults import Script

ARRIVAL: Final = 0.01  # seconds in which what was sent arrives; a reset would overtake it
ABANDONED: Final = 10.0  # seconds after which a connection that nobody serves is forgotten
BUFFERED: Final = 2**18  # bytes that may wait for a slow reader
LOOK: Final = 0.001  # seconds between two looks at what cannot be waited for
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


class Port:
    """What a server listens on, until it is closed.

    Args:
        runner: of the server, set up.
        host: name or address.
        port: 0 for any free one.
    """

    def __init__(self, runner: web.ServerRunner, host: str, port: int) -> None:
        self._runner = runner
        self._host = host
        self._port = port
        self._sites: list[web.BaseSite] = []
        self._until = 0.0
        self._shut: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the port cannot be had.
        """
        await self._listen([web.TCPSite(self._runner, self._host, self._port)])

    def shut(self, until: float, *, drop: bool) -> None:
        """Let connections be refused until that time of the loop; ``drop`` also those that there are.

        Raises:
            OSError: the port could not be opened again after the last time.
        """
        self._until = max(self._until, until)
        if self._shut is None or self._shut.done():
            self._result()
            self._shut = asyncio.get_running_loop().create_task(self._shut_and_open())
        if drop and self._runner.server is not None:
            for connection in self._runner.server.connections:
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
            self._result()

    def _result(self) -> None:
        if self._shut is not None and not self._shut.cancelled():
            self._shut.result()

    async def _listen(self, sites: Iterable[web.BaseSite]) -> None:
        for site in sites:
            self._sites.append(site)
            await site.start()

    async def _shut_and_open(self) -> None:
        """Shut the port but keep it: else it could be anybody's when it is to be opened again."""
        loop = asyncio.get_running_loop()
        addresses = self._runner.addresses
        for site in self._sites:
            await site.stop()
        self._sites.clear()
        held: list[socket.socket] = []
        try:
            for address in addresses:
                held.append(await _hold(address))  # noqa: PERF401 - of several the first may be all that is had
            while (wait := self._until - loop.time()) > 0:  # noqa: ASYNC110 - meanwhile it may be put off
                await asyncio.sleep(wait)
            while held:
                await self._listen([web.SockSite(self._runner, held.pop())])
        finally:
            for each in held:
                each.close()


async def _hold(address: Any) -> socket.socket:  # noqa: ANN401 - two parts or four
    """Bind an address without listening; a loop may take a turn to let go of it."""
    tries = 100
    while True:
        bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            tries -= 1
            if not tries:
                raise
            await asyncio.sleep(LOOK)
        else:
            return bound

"""Faults as a client meets them: bytes, ends of connections, and a port that is shut for a while."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from typing import Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from harvester.simulator import WUHAN_PASSID, WUHAN_TOKEN, Config, Fault, Simulator, wire
from harvester.simulator.faults import KINDS, MOMENT, script
from harvester.simulator.wire import Port

CLOSED: Final = ("close", "cut-headers", "cut-length", "no-last-chunk", "no-length", "garbage")
RESET: Final = ("reset", "reset-in-headers", "reset-in-body", "refused", "restart")
SILENT: Final = ("silent", "stall", "half-open")
ENDLESS: Final = ("drip", "endless")
KEPT: Final = sorted(set(KINDS) - {*CLOSED, *RESET, *SILENT, *ENDLESS})


def call(simulator: Simulator, page: int = 1, nonce: str = "") -> bytes:
    """Return the bytes of a signed call."""
    stamp, nonce = str(int(simulator.config.clock())), nonce or str(uuid4())
    body = b'{"query":{"pageNo":"%d"}}' % page
    headers = {
        "Host": "platform",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "x-tif-passid": WUHAN_PASSID,
        "x-tif-timestamp": stamp,
        "x-tif-nonce": nonce,
        "x-tif-signature": hashlib.sha256(f"{stamp}{WUHAN_TOKEN}{nonce}{stamp}".encode()).hexdigest(),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /ebus/kftp/v1/service/companies HTTP/1.1\r\n{lines}\r\n".encode() + body


class Client:
    """One connection to the simulator."""

    def __init__(self, simulator: Simulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.simulator = simulator
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connected(cls, simulator: Simulator) -> Client:
        """Connect."""
        return cls(simulator, *await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2])))

    async def ask(self, seconds: float = 0.1, page: int = 1, nonce: str = "") -> tuple[bytes, str]:
        """Send a call; return what comes within a time, and how it ends: open, closed or reset."""
        self.writer.write(call(self.simulator, page, nonce))
        came = b""
        try:
            async with asyncio.timeout(seconds):
                while data := await self.reader.read(2**20):
                    came += data
        except TimeoutError:
            return came, "open"
        except ConnectionError:
            return came, "reset"
        return came, "closed"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave."""
        self.writer.transport.abort()
        await asyncio.sleep(0.01)


async def answered(simulator: Simulator, page: int = 1, nonce: str = "", seconds: float = 0.1) -> tuple[bytes, str]:
    """Ask over a connection of its own."""
    async with await Client.connected(simulator) as client:
        return await client.ask(seconds, page, nonce)


@pytest.mark.parametrize("kind", KEPT)
async def test_a_connection_that_is_kept(kind: str) -> None:
    """After the fault the next call is answered over the same connection."""
    script("bomb", b"", "")  # made once, which takes a while
    async with (
        Simulator(Config(rows=40, faults=(Fault(kind, lasts=0.05),))) as simulator,
        await Client.connected(simulator) as client,
    ):
        first, end = await client.ask(0.3)
        assert (first.startswith(b"HTTP/1.1 "), end) == (True, "open")
        second, end = await client.ask(page=2)
        assert (second.startswith(b"HTTP/1.1 200 OK"), end) == (True, "open")
        assert b'"errcode":0' in second
        assert simulator.stats.faults == {kind: 1}
        assert simulator.stats.accepted == 2


@pytest.mark.parametrize("kind", CLOSED)
async def test_a_connection_that_is_closed(kind: str) -> None:
    """In order, in whatever place; all that was said before it comes."""
    async with Simulator(Config(rows=40, faults=(Fault(kind),))) as simulator:
        came, end = await answered(simulator, seconds=2)
        assert (end, bool(came)) == ("closed", kind != "close")
        assert simulator.stats.accepted == 1


@pytest.mark.parametrize("kind", RESET)
async def test_a_connection_that_is_reset(kind: str) -> None:
    """Not in order."""
    async with Simulator(Config(rows=40, faults=(Fault(kind),))) as simulator:
        came, end = await answered(simulator, seconds=2)
        assert (end, bool(came)) == ("reset", "-in-" in kind)
        assert simulator.stats.accepted == 1


@pytest.mark.parametrize("kind", SILENT)
async def test_a_connection_that_says_no_more(kind: str) -> None:
    """It stays open; when the simulator ends, nobody has to wait for it."""
    async with Simulator(Config(rows=40, faults=(Fault(kind),))) as simulator:
        came, end = await answered(simulator)
        assert (end, bool(came)) == ("open", kind == "stall")
        async with await Client.connected(simulator) as client:
            await client.ask()
            began = time.monotonic()
            await simulator.__aexit__(None, None, None)
            assert time.monotonic() - began < 2


async def test_half_open_connections_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody notices that the client has left; so they do not fill the table of descriptors for ever."""
    monkeypatch.setattr(wire, "ABANDONED", 0.3)
    async with Simulator(Config(rows=40, faults=(Fault("half-open"),))) as simulator:
        assert simulator._server is not None
        await answered(simulator)
        await asyncio.sleep(0.05)
        assert len(simulator._server.connections) == 1
        await asyncio.sleep(0.5)
        assert simulator._server.connections == []


@pytest.mark.parametrize(("kind", "least", "most"), [("drip", 1, 5), ("endless", 2**20, 2**30)])
async def test_answers_without_end(kind: str, least: int, most: int) -> None:
    """One comes slowly, the other as fast as it can be read; both stop when the client leaves."""
    async with Simulator(Config(rows=1, faults=(Fault(kind),))) as simulator:
        came, end = await answered(simulator, seconds=1)
        text = came.partition(b"\r\n\r\n")[2].partition(b" ")
        assert end == "open"
        assert least <= len(text[1] + text[2]) <= most
        assert simulator._server is not None
        await asyncio.sleep(0.05)
        assert simulator._server.connections == []


async def test_an_early_fault_is_not_counted() -> None:
    """The platform has not seen the call, so that its nonce is still good."""
    nonces = [str(uuid4()) for _ in range(2)]
    for early, repeated in ((False, 2), (True, 0)):
        async with Simulator(Config(rows=40, faults=(Fault("close", lasts=0.5, early=early),))) as simulator:
            for nonce in nonces:
                assert await answered(simulator, nonce=nonce, seconds=2) == (b"", "closed")
            assert (simulator.stats.calls, simulator.stats.faults) == (0 if early else 2, {"close": 2})
            await asyncio.sleep(0.5)
            for nonce in nonces:
                assert (await answered(simulator, nonce=nonce))[0].startswith(b"HTTP/1.1 200 OK")
            assert simulator.stats.repeated_nonces == repeated


async def listens(simulator: Simulator) -> bool:
    """Tell whether somebody does."""
    try:
        client = await Client.connected(simulator)
    except ConnectionRefusedError:
        return False
    async with client:
        return True


@pytest.mark.parametrize("kind", ["refused", "restart"])
async def test_a_port_that_is_shut(kind: str) -> None:
    """For a while nobody listens, and a restart takes every connection along; then all is as it was, more than once."""
    faults = (Fault(kind, lasts=0.3), Fault(kind, at=1, lasts=0.5))
    async with Simulator(Config(rows=40, faults=faults)) as simulator:
        began = time.monotonic()
        for number in range(2):
            async with await Client.connected(simulator) as idle:
                await asyncio.sleep(max(0.0, began + 1.1 * number - time.monotonic()))
                assert (await answered(simulator, seconds=2))[1] == "reset"
                assert not await listens(simulator)
                port = int(simulator.url.rpartition(":")[2])
                with socket.socket() as other, pytest.raises(OSError, match="in use"):
                    other.bind(("127.0.0.1", port))
                async with asyncio.timeout(5):
                    while not await listens(simulator):  # noqa: ASYNC110 - nobody is told when a port opens
                        await asyncio.sleep(0.01)
                assert time.monotonic() - began >= (0.3, 1.5)[number]
                assert (await idle.ask())[1] == ("reset" if kind == "restart" else "open")
            assert (await answered(simulator))[0].startswith(b"HTTP/1.1 200 OK")


async def test_a_single_restart_takes_a_moment() -> None:
    """Where only a share of the calls is hit; the simulator can end meanwhile."""
    async with Simulator(Config(rows=40, faults=(Fault("restart", 0.999),))) as simulator:
        assert (await answered(simulator, seconds=2))[1] == "reset"
        assert not await listens(simulator)
        await asyncio.sleep(MOMENT + 0.1)
        assert await listens(simulator)
        assert (await answered(simulator, seconds=2))[1] == "reset"
    assert not await listens(simulator)


async def test_a_port_that_cannot_be_opened_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not swallowed with the task that tried."""
    listen = Port._listen
    ports: list[Port] = []

    def once(port: Port, bound: socket.socket) -> None:
        if port in ports:
            raise OSError(98, "it is taken")
        ports.append(port)
        listen(port, bound)

    monkeypatch.setattr(Port, "_listen", once)
    simulator = await Simulator(Config(rows=40, faults=(Fault("restart", 0.999),))).__aenter__()
    assert (await answered(simulator, seconds=2))[1] == "reset"
    await asyncio.sleep(MOMENT + 0.1)
    with pytest.raises(OSError, match="taken"):
        await simulator.__aexit__(None, None, None)


async def test_connections_that_come_while_the_port_is_shut() -> None:
    """Those accepted a moment before are served, the others refused; none is left hanging."""
    async with Simulator(Config(rows=40, faults=(Fault("refused", 0.3),))) as simulator:
        clients = await asyncio.gather(*(answered(simulator, seconds=1) for _ in range(100)), return_exceptions=True)
        ends = {end[1] if isinstance(end, tuple) else type(end).__name__ for end in clients}
        assert ends <= {"open", "reset", "ConnectionRefusedError", "ConnectionResetError"}
        assert all(end[0] for end in clients if isinstance(end, tuple) and end[1] == "open")


async def test_bodies_share_a_line_and_heads_do_not_wait() -> None:
    """Two pages at 40 kB per second take the time of both together; they are what an unbounded line brings."""
    async with Simulator(Config(rows=20, bandwidth=40_000)) as slow, Simulator(Config(rows=20)) as fast:
        (_, whole), began = await timed(fast), time.monotonic()
        (first, one), (second, other) = await asyncio.gather(timed(slow), timed(slow))
        took = time.monotonic() - began
    assert one == other == whole
    assert 0.9 <= took / (2 * len(whole) / 40_000) <= 5
    assert max(first, second) < 0.5 * took


async def timed(simulator: Simulator) -> tuple[float, bytes]:
    """Ask for a page; return the seconds until its head was in, and its body."""
    address, began = urlsplit(simulator.url), time.monotonic()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(call(simulator))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        took = time.monotonic() - began
        return took, await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
    finally:
        writer.close()
        await writer.wait_closed()

"""One POST on a connection: the bytes that go out, the head that comes back, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from test_send import sends, serving, whole
from yarl import URL

from harvester.exchange import INTERIM, Connections, Target, UnaskedError

BODY = b'{"query":{"pageNo":"1"}}'


@asynccontextmanager
async def connections() -> AsyncIterator[Connections]:
    """Return connections that are closed in the end."""
    found = Connections(trust=True, timeout=5)
    try:
        yield found
    finally:
        await found.end()


async def test_the_bytes_of_a_request() -> None:
    """One line each: what was asked for, the common headers, the call's own, the length; then the body, as it is."""
    target = Target(
        URL("http://127.0.0.1:8/a%20b?x=1", encoded=True), {"User-Agent": "me", "Accept-Encoding": "gzip"}, {}
    )
    assert target.message({"x-tif-nonce": "1", "Accept": "application/json"}, BODY) == (
        b"POST /a%20b?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8\r\nUser-Agent: me\r\nAccept-Encoding: gzip\r\n"
        b"x-tif-nonce: 1\r\nAccept: application/json\r\nContent-Length: 24\r\n\r\n" + BODY
    )


async def test_past_a_proxy_without_a_tunnel() -> None:
    """The whole address stands in the first line; with a tunnel it does not."""
    options = {"proxy": URL("http://127.0.0.1:9")}
    assert Target(URL("http://far/a"), {}, options).message({}, b"").startswith(b"POST http://far/a HTTP/1.1\r\n")
    assert Target(URL("https://far/a"), {}, options).message({}, b"").startswith(b"POST /a HTTP/1.1\r\n")


@pytest.mark.parametrize("bad", ["a\r\nX: 1", "a\nX: 1", "a\r", "a\0b"])
async def test_no_header_ends_its_line(bad: str) -> None:
    """Neither a common one nor a call's own, in name or value: no call can be smuggled into another."""
    target = Target(URL("http://127.0.0.1:8/"), {}, {})
    for headers in ({"x": bad}, {bad: "x"}):
        with pytest.raises(ValueError, match="a header holds the end of a line"):
            target.message(headers, b"")
    with pytest.raises(ValueError, match=r"end of a line|header"):
        Target(URL("http://127.0.0.1:8/"), {"x": bad}, {})


async def test_a_connection_is_kept_when_its_answer_was_read() -> None:
    """The next call takes it; one whose answer was not read to its end, or failed, is closed."""
    async with serving(sends(whole(b"abc"))) as server, connections() as pool:
        target = Target(URL(server.url), {}, {})
        for _ in range(3):
            with await pool.exchange(target, {}, BODY) as exchange:
                assert exchange.status == 200
                assert exchange.headers["content-length"] == "3"
                assert await exchange.content.read() == b"abc"
        assert server.connections == 1
        with suppress(LookupError), await pool.exchange(target, {}, BODY) as exchange:
            await exchange.content.read()
            raise LookupError
        with await pool.exchange(target, {}, BODY) as exchange:
            await exchange.content.read()
        assert server.connections == 2
    assert [body for _, body in server.calls] == [BODY] * 5


async def test_half_an_answer() -> None:
    """The head is enough to return; the connection of a body that was not awaited is of no more use."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")) as server, connections() as pool:
        target = Target(URL(server.url), {}, {})
        for _ in range(2):
            with await pool.exchange(target, {}, BODY) as exchange:
                assert not exchange.content.is_eof()
        assert server.connections == 2


async def test_interim_answers() -> None:
    """A few are passed over, as HTTP wants it; too many end the call."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with serving(sends(interim * (INTERIM - 1) + whole(b""))) as server, connections() as pool:
        with await pool.exchange(Target(URL(server.url), {}, {}), {}, BODY) as exchange:
            assert exchange.status == 200
    async with serving(sends(interim * INTERIM + whole(b""))) as server, connections() as pool:
        with pytest.raises(UnaskedError, match=f"{INTERIM} interim answers"):
            await pool.exchange(Target(URL(server.url), {}, {}), {}, BODY)


async def test_what_nobody_asked_for_is_no_answer() -> None:
    """A second answer to one call does not pass for the answer to the next one."""
    async with serving(sends(whole(b"1") + whole(b"2"))) as server, connections() as pool:
        target = Target(URL(server.url), {}, {})
        with await pool.exchange(target, {}, BODY) as exchange:
            assert await exchange.content.read() == b"1"
        with await pool.exchange(target, {}, BODY) as exchange:
            assert await exchange.content.read() == b"1"
        assert server.connections == 2


async def test_nobody_there() -> None:
    """A connection that cannot be opened, or is closed at once, is told as aiohttp tells it."""
    async with connections() as pool:
        with pytest.raises(aiohttp.ClientConnectorError):
            await pool.exchange(Target(URL("http://127.0.0.1:1/"), {}, {}), {}, BODY)
    async with serving(sends(b"", close=True)) as server, connections() as pool:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await pool.exchange(Target(URL(server.url), {}, {}), {}, BODY)


async def test_a_cancelled_call_closes_its_connection() -> None:
    """What comes later belongs to nobody."""
    async with serving(sends(b"")) as server, connections() as pool:
        target = Target(URL(server.url), {}, {})
        call = asyncio.create_task(pool.exchange(target, {}, BODY))
        while not server.calls:  # noqa: ASYNC110 - the server is a script that tells nobody
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.answer = sends(whole(b"x"))
        with await pool.exchange(target, {}, BODY) as exchange:
            assert await exchange.content.read() == b"x"
        assert server.connections == 2

"""Calls over real sockets against servers that misbehave byte by byte."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohappyeyeballs
import pytest

from harvester import body, send
from harvester.model import Signed
from harvester.send import Sender, SendError

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What a server does once it has read a whole call; it is called for every call."""


class Server:
    """A server that keeps every call as it came, head and body, and answers by script."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                )
                self.calls.append((head, await reader.readexactly(length)))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Listen on loopback."""
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/service/d"
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0)  # lets connections that the client has closed end


def sends(data: bytes, *, close: bool = False, reset: bool = False) -> Answer:
    """Answer every call with these bytes; then perhaps close the connection, in order or not."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if reset:
            linger_none = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        if close or reset:
            writer.close()

    return answer


def whole(body: bytes, head: str = "") -> bytes:
    """Return a good answer."""
    return f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def signed(url: str, body: bytes = b'{"query":{}}') -> Signed:
    """Return a call."""
    return Signed(url, {"x-tif-signature": "AB", "Content-Type": "application/json; charset=UTF-8"}, body)


async def failed(sender: Sender, url: str, body: bytes = b"{}") -> SendError:
    """Send once and return the error that it has to end with."""
    with pytest.raises(SendError) as caught:
        await sender.send(signed(url, body))
    assert "/service" not in caught.value.text
    assert caught.value.__cause__ is None
    return caught.value


async def failure(url: str, seconds: float = 5.0) -> SendError:
    """Send once over a connection of its own and return the error; it has to come in time."""
    started = time.monotonic()
    async with Sender(seconds) as sender:
        error = await failed(sender, url)
    assert time.monotonic() < started + seconds + 1
    return error


async def test_bytes_arrive_as_they_were_signed() -> None:
    """Path, query, headers and body are not changed on the way, whatever characters they hold."""
    body = '{"query":{"姓名":"a+b %20\\u00e9"}}'.encode()
    async with serving(sends(whole(b"{}"))) as server, Sender(5) as sender:
        await sender.send(signed(server.url + "/%2F%e4?b=%20+&a=1", body))
    ((head, received),) = server.calls
    assert head.startswith(b"POST /service/d/%2F%e4?b=%20+&a=1 HTTP/1.1\r\n")
    assert b"x-tif-signature: AB\r\n" in head
    assert b"Content-Type: application/json; charset=UTF-8\r\n" in head
    assert head.lower().count(b"content-type:") == 1
    assert received == body


async def test_any_status_is_an_answer() -> None:
    """Status, headers in any case and the decoded body come back; judging them is not this module's."""
    answer = b"HTTP/1.1 500 Oops\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n2\r\ncd\r\n0\r\n\r\n"
    async with serving(sends(answer)) as server, Sender(5) as sender:
        reply = await sender.send(signed(server.url))
    assert (reply.status, reply.headers["dAtE"], reply.body) == (500, "then", b"ab\ncd")


async def test_a_large_body_comes_whole() -> None:
    """A body of many reads is put together in order."""
    body = b"".join(b"%07d\n" % number for number in range(200_000))
    async with serving(sends(whole(body))) as server, Sender(10) as sender:
        assert (await sender.send(signed(server.url))).body == body


async def test_nobody_listens() -> None:
    """A refused connection says so, in the system's words."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        error = await failure(f"http://127.0.0.1:{bound.getsockname()[1]}/service")
    assert error.text == "no connection (Connection refused)"
    assert not error.final


async def test_an_unknown_host() -> None:
    """A name that does not exist is told from a connection that fails."""
    assert (await failure("http://no-such-host.invalid/service")).text == "the host name cannot be resolved"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the server closed the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", "the body was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", "the body was cut short"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
            "the compressed body is damaged",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not valid HTTP"),
    ],
    ids=["no status", "short of its length", "no last chunk", "not gzip", "another protocol"],
)
async def test_what_is_no_whole_answer(data: bytes, text: str) -> None:
    """An answer that is not there to its last byte is an error with a text of its own, never a shorter body."""
    async with serving(sends(data, close=True)) as server:
        assert (await failure(server.url)).text == text
        assert len(server.calls) == 1


async def test_a_reset_before_the_status() -> None:
    """A connection that is reset is named so."""
    async with serving(sends(b"", reset=True)) as server:
        assert (await failure(server.url)).text == "the connection broke (Connection reset by peer)"


@pytest.mark.parametrize("pieces", [1, 40])
async def test_a_body_over_the_cap(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """A body larger than the cap is refused, in one piece or in many; one of just that size is taken."""
    monkeypatch.setattr(body, "LIMIT", 2**20)
    for size in (2**20, 2**20 + 1):
        piece, rest = divmod(size, pieces)
        chunks = [b"x" * piece] * pieces + [b"x" * rest] * (rest > 0)
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        async with serving(sends(answer)) as server:
            if size > body.LIMIT:
                assert (await failure(server.url)).text == "the body is larger than 1 MiB"
            else:
                async with Sender(5) as sender:
                    assert len((await sender.send(signed(server.url))).body) == size


async def test_the_cap_holds_for_the_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is all there at the first read is measured too."""
    monkeypatch.setattr(body, "LIMIT", 10)
    async with serving(sends(whole(b"x" * 11))) as server:
        assert "the body is larger than" in (await failure(server.url)).text


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly"])
async def test_a_slow_answer(start: bytes) -> None:
    """The timeout covers the call to its last byte."""
    async with serving(sends(start)) as server:
        assert (await failure(server.url, seconds=0.1)).text == "no whole answer in time"


async def test_a_redirect_is_not_followed() -> None:
    """A signed call goes nowhere but where the job file says."""
    async with serving(sends(whole(b"{}"))) as elsewhere:
        redirect = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(sends(redirect)) as server, Sender(5) as sender:
            reply = await sender.send(signed(server.url))
    assert (reply.status, reply.headers["location"]) == (307, elsewhere.url)
    assert not elsewhere.calls


async def test_cookies_are_not_sent_back() -> None:
    """A session of the gateway's makes no call differ from the one before."""
    answer = sends(whole(b"{}", "Set-Cookie: session=1; Path=/\r\n"))
    async with serving(answer) as server, Sender(5) as sender:
        named = server.url.replace("127.0.0.1", "localhost")  # cookie jars do not take cookies from bare addresses
        await sender.send(signed(named))
        await sender.send(signed(named))
    first, second = server.calls
    assert first == second
    assert b"cookie" not in second[0].lower()
    assert server.connections == 1


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of proxies does not concern signed calls."""
    async with serving(sends(whole(b"proxied"))) as proxy, serving(sends(whole(b"direct"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with Sender(5) as sender:
            assert (await sender.send(signed(server.url))).body == b"direct"
        assert not proxy.calls


async def test_a_call_is_never_sent_twice() -> None:
    """When a kept connection turns out to be dropped, the signed bytes are not sent again behind our back."""
    answers = iter([sends(whole(b"{}")), sends(b"", close=True), sends(whole(b"{}"))])

    async def answer(writer: asyncio.StreamWriter) -> None:
        await next(answers)(writer)

    async with serving(answer) as server, Sender(5) as sender:
        await sender.send(signed(server.url, b"1"))
        with pytest.raises(SendError):
            await sender.send(signed(server.url, b"2"))
        await sender.send(signed(server.url, b"3"))
        assert [body for _, body in server.calls] == [b"1", b"2", b"3"]
        assert server.connections == 2


async def test_as_many_calls_at_once_as_connections() -> None:
    """No call waits for a connection: the pool holds as many as are said to be under way."""
    everybody = asyncio.Barrier(3)

    async def answer(writer: asyncio.StreamWriter) -> None:
        await everybody.wait()  # passes only if all three are here
        writer.write(whole(b"{}"))

    async with serving(answer) as server, Sender(5) as sender:
        await asyncio.gather(*(sender.send(signed(server.url)) for _ in range(3)))
    assert server.connections == 3


async def test_only_encodings_that_can_be_proven_are_asked_for() -> None:
    """Every call offers gzip and nothing else, and gets the body decoded."""
    packed = gzip.compress(b'{"data":[]}')
    async with serving(sends(whole(packed, "Content-Encoding: gzip\r\n"))) as server, Sender(5) as sender:
        assert (await sender.send(signed(server.url))).body == b'{"data":[]}'
    ((head, _),) = server.calls
    assert head.lower().count(b"accept-encoding:") == 1
    assert b"accept-encoding: gzip\r\n" in head.lower()


async def test_an_answer_that_nobody_asked_for() -> None:
    """What comes over a kept connection between two calls is not taken for the answer to the second."""
    pushed = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"%d" % len(server.calls)))
        if len(server.calls) == 1:
            await pushed.wait()
            writer.write(whole(b"stale"))

    async with serving(answer) as server, Sender(5) as sender:
        assert (await sender.send(signed(server.url))).body == b"1"
        pushed.set()
        await asyncio.sleep(0.05)
        assert (await failed(sender, server.url)).text == "the server sent something before it was asked"
        assert (await sender.send(signed(server.url))).body == b"2"


def test_patience_follows_the_slowest_recent_answer() -> None:
    """It starts without bound, never falls below its floor, and forgets a slow answer over some hundred."""
    patience = send.Patience(30.0)
    assert patience.seconds == 30.0
    patience.answered(0.2)
    assert patience.seconds == send.PATIENCE == 5.0
    patience.answered(1.2)
    patience.answered(0.1)
    assert patience.seconds == pytest.approx(11.88)
    for _ in range(100):
        patience.answered(0.1)
    assert patience.seconds == 5.0
    patience.answered(9.0)
    assert patience.seconds == 30.0


def test_patience_grows_when_it_runs_out() -> None:
    """A server that has become slower for good is waited for in the end; calls that fail together count once."""
    patience = send.Patience(30.0)
    patience.answered(0.2)
    seen = []
    for _ in range(4):
        waited = patience.seconds
        for _ in range(5):
            patience.ran_out(waited)
        seen.append(patience.seconds)
    assert seen == [10.0, 20.0, 30.0, 30.0]


async def test_no_answer_for_much_longer_than_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once answers are known to come at once, a call that gets none gives up long before its time."""
    monkeypatch.setattr(send, "PATIENCE", 0.1)
    answers = iter([sends(whole(b"{}")), sends(b""), sends(b"HTTP/1.1 200 OK\r\n"), sends(whole(b"{}"))])

    async def answer(writer: asyncio.StreamWriter) -> None:
        await next(answers)(writer)

    async with serving(answer) as server, Sender(30) as sender:
        await sender.send(signed(server.url))
        waited = [float((await failed(sender, server.url)).text.split()[3]) for _ in range(2)]
        assert 0.1 <= waited[0] < waited[1] < 5
        await sender.send(signed(server.url))


async def test_no_descriptors_left() -> None:
    """A machine that can open no more says that it is its own fault, and goes on when it can again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(sends(whole(b"{}"))) as server, Sender(5) as sender:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            error = await failed(sender, server.url)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert error.text == "this machine cannot open another connection (Too many open files)"
        assert (error.local, error.ours, error.final) == (True, False, False)
        await sender.send(signed(server.url))


@pytest.mark.parametrize("number", [errno.ENFILE, errno.EADDRNOTAVAIL])
async def test_no_room_for_another_connection(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """So do a system out of descriptors and one out of ports."""

    async def start_connection(*_: object, **__: object) -> socket.socket:
        raise OSError(number, "")

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)
    error = await failure("http://127.0.0.1:9/service")
    assert error.text == f"this machine cannot open another connection ({os.strerror(number)})"
    assert error.local

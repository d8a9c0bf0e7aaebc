"""Everything a server, a network or a proxy can do to a call: it ends in time, with whole data or with an error."""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import time
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from test_send import Answer, failed, failure, sends, serving, signed, whole

from harvester import room, send
from harvester.model import Reply, Secret
from harvester.send import Sender, SendError

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n"
ROWS: Final = b'{"data":[' + b",".join(b'{"id":%d}' % number for number in range(500)) + b"]}"
PACKED: Final = gzip.compress(ROWS, mtime=0)
OPEN_END: Final = "the answer does not say where it ends, so that nothing proves it whole"


def packed(data: bytes, coding: str = "gzip", head: str = "") -> bytes:
    """Return a good answer around a compressed body."""
    return whole(data, f"Content-Encoding: {coding}\r\n{head}")


def streams(start: bytes, step: Callable[[int], bytes], pause: float = 0.0) -> Answer:
    """Answer with a beginning and then one piece after another, without end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for number in count():
            writer.write(step(number))
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


async def received(answer: Answer, seconds: float = 5.0) -> Reply:
    """Send once and return the answer."""
    async with serving(answer) as server, Sender(seconds) as sender:
        return await sender.send(signed(server.url))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the server closed the connection before it answered"),
        (b"HTTP/1.", "the server closed the connection before it answered"),
        (OK + b"Content-Le", "the server closed the connection before it answered"),
        (OK + b"Content-Length: 100\r\n\r\nonly this", "the body was cut short"),
        (OK + b"Content-Length: 100\r\n\r\n", "the body was cut short"),
        (CHUNKED + b"\r\n5\r\nabcde\r\n", "the body was cut short"),
        (CHUNKED + b"\r\n5\r\nabc", "the body was cut short"),
        (CHUNKED + b"\r\n5\r\nabcde\r\n0\r\n", "the body was cut short"),
        (OK + b"\r\n" + ROWS, OPEN_END),
        (b"HTTP/1.0 200 OK\r\n\r\n" + ROWS, OPEN_END),
        (OK + b"Connection: close\r\n\r\n", OPEN_END),
        (OK + b"Transfer-Encoding: identity\r\n\r\n" + ROWS, OPEN_END),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + PACKED[:-1], "the compressed body was cut short"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nabcd", "the answer says that it is only a part"),
    ],
    ids=[
        "nothing",
        "in the status",
        "in the headers",
        "in the body",
        "before the body",
        "no last chunk",
        "in a chunk",
        "in the last chunk",
        "no length",
        "HTTP 1.0",
        "no body and no length",
        "transfer encoding of nothing",
        "no length and cut gzip",
        "a part",
    ],
)
async def test_an_end_too_early(data: bytes, text: str) -> None:
    """A connection that is closed, in whatever place, never makes a shorter body."""
    async with serving(sends(data, close=True)) as server:
        error = await failure(server.url)
    assert error.text.startswith(text)
    assert not error.final
    assert not error.ours
    assert not error.local


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the connection broke (Connection reset by peer)"),
        (OK + b"Content-Le", "the connection broke (Connection reset by peer)"),
        (OK + b"Content-Length: 100\r\n\r\nonly this", "the body was cut short"),
        (CHUNKED + b"\r\n5\r\nabcde\r\n", "the body was cut short"),
        (OK + b"\r\n" + ROWS, OPEN_END),
    ],
    ids=["before the status", "in the headers", "in the body", "between chunks", "in a body without length"],
)
async def test_a_reset(data: bytes, text: str) -> None:
    """So does one that is reset."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await sends(data)(writer)
        await asyncio.sleep(0.02)  # the data would be lost with the connection
        await sends(b"", reset=True)(writer)

    async with serving(answer) as server:
        assert (await failure(server.url)).text == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (packed(PACKED[:-9]), "the compressed body was cut short"),
        (packed(PACKED[:-8]), "the compressed body was cut short"),
        (packed(PACKED[:-1]), "the compressed body was cut short"),
        (packed(PACKED[:-8] + bytes(8)), "the compressed body is damaged"),
        (packed(PACKED + b"garbage"), "more follows after the end of the compressed body"),
        (packed(zlib.compress(ROWS)[:-4], "deflate"), "the compressed body was cut short"),
        (packed(ROWS), "the compressed body is damaged"),
        (packed(b"\x0b\x02\x80ok\x03", "br"), "the body's encoding was not asked for and cannot be read: 'br'"),
        (packed(ROWS, "\x1b]0;owned\x07"), "the body's encoding was not asked for"),
        (packed(PACKED, "gzip", "Content-Encoding: gzip\r\n"), "the body's encoding was not asked for"),
        (packed(PACKED, "gzip", "Transfer-Encoding: gzip\r\n"), "the answer is not valid HTTP"),
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n0\r\n\r\n", "the body's transfer encoding"),
    ],
    ids=[
        "cut stream",
        "no trailer",
        "cut trailer",
        "wrong trailer",
        "trailing garbage",
        "no checksum",
        "not gzip",
        "br",
        "unknown",
        "twice",
        "length and transfer encoding",
        "gzip under chunks",
    ],
)
async def test_a_compressed_body_that_is_not_one(data: bytes, text: str) -> None:
    """A body whose length is right has to be right under its encoding too."""
    async with serving(sends(data)) as server:
        assert (await failure(server.url)).text.startswith(text)


@pytest.mark.parametrize(
    "data",
    [
        whole(ROWS),
        packed(PACKED),
        packed(zlib.compress(ROWS), "deflate"),
        OK + b"Content-Encoding: gzip\r\n\r\n" + PACKED,
        CHUNKED + b"Content-Encoding: gzip\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
        CHUNKED + b"\r\n%x;note=1\r\n%b\r\n0\r\nTrailer: yes\r\n\r\n" % (len(ROWS), ROWS),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + whole(ROWS),
        whole(ROWS, "X-Junk: \xff\xfe\udcb9".encode("utf-8", "surrogateescape").decode("latin-1") + "\r\n"),
        whole(
            ROWS, "Set-Cookie: \x01=;;=\xff; expires=never\r\nContent-Type: \xb9\xfa; charset=\xff\r\nDate: \xe6\r\n"
        ),
    ],
    ids=[
        "plain",
        "gzip",
        "deflate",
        "gzip without length",
        "gzip in chunks",
        "extensions and trailers",
        "1xx first",
        "junk header",
        "junk everywhere",
    ],
)
async def test_what_is_whole_comes_through(data: bytes) -> None:
    """Unusual is not wrong."""
    assert (await received(sends(data, close=True))).body == ROWS


@pytest.mark.parametrize("status", [429, 502, 302])
async def test_a_failure_may_end_anyhow(status: int) -> None:
    """A status other than success counts without its body, which holds no rows."""
    reply = await received(sends(b"HTTP/1.1 %d No\r\nRetry-After: 3\r\n\r\nbusy" % status, close=True))
    assert (reply.status, reply.headers["Retry-After"], reply.body) == (status, "3", b"busy")


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"\r\n-5\r\nabcde\r\n0\r\n\r\n",
        CHUNKED + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n",
        CHUNKED + b"\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"\r\n3\r\nabcde\r\n0\r\n\r\n",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        OK + b"Content-Length: -5\r\n\r\nabcde",
        OK + b"Content-Length: 5, 5\r\n\r\nabcde",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nabcde",
        CHUNKED + b"Content-Length: 5\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X: a\r\n" * 200 + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"<html>hello</html>\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_broken_framing(data: bytes) -> None:
    """Where sizes contradict themselves or each other, nothing is guessed; header blocks have a bound."""
    async with serving(sends(data)) as server:
        assert (await failure(server.url)).text in {
            "the answer is not valid HTTP",
            "the body was cut short",
            "the answer names its length more than once",  # aiohttp's parser in Python does not mind
        }


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200", OK + b"Content-Length: 9\r\n", OK + b"Content-Length: 9\r\n\r\n", OK + b"\r\nabc", CHUNKED],
    ids=["nothing", "status", "headers", "no body", "no end", "no chunk"],
)
async def test_silence(start: bytes) -> None:
    """A server that says no more is left at the time-out."""
    async with serving(sends(start)) as server:
        assert (await failure(server.url, seconds=0.1)).text == "no whole answer in time"


@pytest.mark.parametrize("size", [2, 2**20], ids=["small", "large"])
async def test_half_open(size: int) -> None:
    """A connection that nobody serves takes the call, or not even that."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        started = time.monotonic()
        async with Sender(0.2) as sender:
            error = await failed(sender, f"http://127.0.0.1:{listening.getsockname()[1]}/service", bytes(size))
    assert error.text == "no whole answer in time"
    assert time.monotonic() < started + 1.2


async def test_a_host_that_does_not_answer_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting has a time-out of its own."""
    monkeypatch.setattr(send, "CONNECT_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address):  # fills the queue; further ones are dropped
            assert (await failure(f"http://127.0.0.1:{address[1]}/service")).text == "no connection in time"


async def test_a_proxy_that_does_not_answer_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS it can only be the proxy; with it, it may be whom the proxy calls."""
    monkeypatch.setattr(send, "CONNECT_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        address = listening.getsockname()
        proxy = f"http://127.0.0.1:{address[1]}"
        with socket.create_connection(address):
            async with Sender(5, proxy=proxy) as sender:
                plain = await failed(sender, "http://platform.example/service")
                tunnel = await failed(sender, "https://platform.example/service")
    assert (plain.text, plain.ours) == (f"the proxy {proxy} cannot be reached", True)
    assert (tunnel.text, tunnel.ours) == (f"no connection in time, through the proxy {proxy}", False)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK + b"Content-Length: 99999\r\n\r\n", b"x"),
        (CHUNKED + b"\r\n", b"1\r\nx\r\n"),
        (CHUNKED + b"\r\n1;", b"x"),
        (OK + b"\r\n", b"x"),
    ],
    ids=["by length", "in chunks", "a chunk's extension", "without length"],
)
async def test_a_slow_drip(monkeypatch: pytest.MonkeyPatch, start: bytes, piece: bytes) -> None:
    """A body that trickles is given up long before the time-out, though every byte comes in time."""
    monkeypatch.setattr(send, "WINDOW", 0.2)
    started = time.monotonic()
    async with serving(streams(start, lambda _: piece, pause=0.02)) as server:
        assert (await failure(server.url, seconds=20)).text == "the body came too slowly (less than 5 KiB in 0.2 s)"
    assert time.monotonic() < started + 2


@pytest.mark.parametrize(
    ("start", "piece"),
    [(b"", b"H"), (OK, b"x"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (OK + b"X: 1\r\n", b"")],
    ids=["status", "headers", "1xx", "nothing"],
)
async def test_a_slow_head(start: bytes, piece: bytes) -> None:
    """Before the body there is the time-out alone, or what is usual."""
    async with serving(streams(start, lambda _: piece, pause=0.02)) as server:
        assert (await failure(server.url, seconds=0.3)).text in {
            "no whole answer in time",
            "the answer is not valid HTTP",
        }


async def test_slow_enough_is_fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes several windows passes if each brings enough."""
    monkeypatch.setattr(send, "WINDOW", 0.25)
    monkeypatch.setattr(send, "LEAST", 100)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 1000\r\n\r\n")
        for _ in range(20):
            writer.write(b"x" * 50)
            await asyncio.sleep(0.03)

    assert (await received(answer)).body == b"x" * 1000


async def test_who_waits_for_room_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that has to wait until a larger one is done comes through, however long that takes."""
    monkeypatch.setattr(send, "WINDOW", 0.2)
    monkeypatch.setattr(send, "LEAST", 100)
    monkeypatch.setattr(room, "SMALL", 10)
    monkeypatch.setattr(room, "SHARED", 1000)
    ended: list[int] = []
    begun = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        begun.set()
        first, steps = (5000, 20) if len(server.calls) == 1 else (3000, 1)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % (first + 50 * steps) + b"x" * first)
        for _ in range(steps):
            await asyncio.sleep(0.025)
            writer.write(b"x" * 50)

    async def one(sender: Sender) -> None:
        ended.append(len((await sender.send(signed(server.url))).body))

    async with serving(answer) as server, Sender(5) as sender, asyncio.TaskGroup() as group:
        group.create_task(one(sender))
        await begun.wait()
        group.create_task(one(sender))
    assert ended == [6000, 3050]


@pytest.mark.parametrize(
    ("start", "step"),
    [
        (OK, lambda number: b"X-%d: %b\r\n" % (number, b"x" * 1000)),
        (CHUNKED + b"\r\n0\r\n", lambda number: b"X-%d: %b\r\n" % (number, b"x" * 1000)),
        (OK, lambda _: b"x" * 1000),
    ],
    ids=["headers", "trailers", "one header"],
)
async def test_endless_headers(start: bytes, step: Callable[[int], bytes]) -> None:
    """A header block has a bound, before the body and after it."""
    async with serving(streams(start, step)) as server:
        assert (await failure(server.url)).text in {"the answer is not valid HTTP", "the body was cut short"}


async def test_endless_interim_answers() -> None:
    """A few are let pass, then the call is over."""
    async with serving(streams(b"", lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" * 10)) as server:
        assert (await failure(server.url)).text == "the server sent 16 interim answers and no other"


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
GROWTH: Final = textwrap.dedent(
    """
    import asyncio, re, sys
    from pathlib import Path
    from harvester.model import Signed
    from harvester.send import Sender, SendError

    def peak():  # not getrusage: that begins with the parent's
        return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

    async def one(sender, url):
        try:
            return str(len((await sender.send(Signed(url, {}, b"{}"))).body))
        except SendError as error:
            return error.text

    async def main():
        url, calls = sys.argv[1], int(sys.argv[2])
        async with Sender(20) as sender:
            before = peak()
            texts = set(await asyncio.gather(*(one(sender, url) for _ in range(calls))))
        print(peak() - before, *texts, sep="\\n")

    asyncio.run(main())
    """
)


async def growth(answer: Answer, calls: int = 1) -> tuple[int, str]:
    """Send so many calls at once from a process of its own; return its growth in MiB and what became of them."""
    async with serving(answer) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GROWTH, server.url, str(calls), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    figure, text = output.decode().splitlines()
    print(f"{calls} calls, {figure} MiB: {text}")
    return int(figure), text


def bomb(size: int) -> bytes:
    """Return that many zeros, compressed."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


@on_linux
async def test_a_bomb_stays_small() -> None:
    """200 kB that would become 200 MB are refused at the cap, and so is a body without end."""
    data = bomb(200 * 2**20)
    assert len(data) < 210_000
    grown, text = await growth(sends(packed(data)))
    assert text == "the body is larger than 32 MiB"
    assert grown < 32 + 64
    chunk = b"%x\r\n%b\r\n" % (2**18, bytes(2**18))
    grown, text = await growth(streams(CHUNKED + b"\r\n", lambda _: chunk))
    assert text == "the body is larger than 32 MiB"
    assert grown < 32 + 64


@on_linux
async def test_many_large_bodies_at_once() -> None:
    """Bodies wait for each other, and all come through."""
    chunk = b"%x\r\n%b\r\n" % (2**18, bytes(2**18))

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"\r\n")
        for _ in range(4 * 30):
            writer.write(chunk)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    grown, text = await growth(answer, calls=8)
    assert text == str(30 * 2**20)
    assert grown < 64 + 64


async def test_random_answers() -> None:
    """Whatever bytes come: an answer that is whole, or the one kind of error."""
    dice = random.Random(20)  # noqa: S311 - the same every time
    names = [b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Set-Cookie", b"Upgrade", b"Date", b"\xff"]
    values = [b"5", b"chunked", b"gzip", b"identity", b"websocket", b"", b"a=\xff; b", b"\xe6\xad\xa6", b"=;=", b"0"]
    bodies = [b"hello", b"5\r\nhello\r\n0\r\n\r\n", gzip.compress(b"hello"), b"", b"\xff" * 9]
    statuses = [b"200 OK", b"200 \xff", b"204 No", b"101 Up", b"304 Not", b"100 Go\r\n\r\nHTTP/1.1 200 OK", b"999 x"]

    def made() -> bytes:
        head = b"".join(b"%b: %b\r\n" % (dice.choice(names), dice.choice(values)) for _ in range(dice.randrange(3)))
        data = bytearray(b"HTTP/1.1 " + dice.choice(statuses) + b"\r\n" + head + b"\r\n" + dice.choice(bodies))
        if dice.random() < 0.2:
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data)

    async def answer(writer: asyncio.StreamWriter) -> None:
        await sends(made(), close=True)(writer)

    outcomes: dict[str, int] = {}
    async with serving(answer) as server, Sender(0.5) as sender:
        for _ in range(400):
            try:
                reply = await sender.send(signed(server.url))
            except SendError as error:
                outcomes[error.text] = outcomes.get(error.text, 0) + 1
            else:
                assert len(reply.body) <= max(map(len, bodies))
                outcomes["whole"] = outcomes.get("whole", 0) + 1
    assert len(outcomes) > 6
    assert outcomes["whole"] > 20


class Certificates:
    """Certificates for 127.0.0.1 and other ends, made for one run of the tests.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._openssl("req", "-x509", "-subj", "/CN=A test authority", "-days", "2", *self._key("ca"), "-out", "ca.pem")
        self._signed("good", "IP:127.0.0.1,DNS:localhost")
        self._signed("expired", "IP:127.0.0.1", days=-1)
        self._signed("other", "DNS:platform.example")
        names = ("-addext", "subjectAltName=IP:127.0.0.1")
        self._openssl("req", "-x509", "-subj", "/CN=me", "-days", "2", *names, *self._key("own"), "-out", "own.pem")

    def server(self, name: str) -> ssl.SSLContext:
        """Return a server's context with one of the certificates."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def _key(self, name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")

    def _signed(self, name: str, ends: str, days: int = 2) -> None:
        self._openssl("req", "-subj", f"/CN={name}", *self._key(name), "-out", "request.pem")
        (self.folder / "names").write_text(f"subjectAltName={ends}\n")
        by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days), "-extfile", "names")
        self._openssl("x509", "-req", "-in", "request.pem", *by, "-out", f"{name}.pem")

    def _openssl(self, *arguments: str) -> None:
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("no openssl to make certificates with")
        subprocess.run([program, *arguments], cwd=self.folder, check=True, capture_output=True)  # noqa: S603 - as above


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make certificates once."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("expired", True, "certificate has expired"),
        ("other", True, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ("own", True, "self-signed certificate"),
        ("good", False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_not_valid(
    certificates: Certificates,
    name: str,
    trusted: bool,  # noqa: FBT001 - a parameter
    reason: str,
    legacy: bool,  # noqa: FBT001 - a parameter
) -> None:
    """It ends the matter, whatever the settings, and no byte of the call is sent."""
    ca_file = certificates.ca if trusted else None
    async with (
        serving(sends(whole(ROWS)), certificates.server(name)) as server,
        Sender(5, ca_file=ca_file, legacy_tls=legacy) as sender,
    ):
        error = await failed(sender, server.url)
        assert (error.text, error.final) == (f"the TLS certificate of the server is not valid: {reason}", True)
        assert not error.ours
        assert server.connections == 0  # none got past the handshake


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
async def test_a_ca_file(certificates: Certificates, legacy: bool) -> None:  # noqa: FBT001 - a parameter
    """An authority of one's own is enough for a name that fits."""
    async with (
        serving(sends(whole(ROWS)), certificates.server("good")) as server,
        Sender(5, ca_file=certificates.ca, legacy_tls=legacy) as sender,
    ):
        assert (await sender.send(signed(server.url))).body == ROWS


async def test_an_old_server(certificates: Certificates) -> None:
    """TLS 1.0 is spoken only if asked for."""
    old = certificates.server("good")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with serving(sends(whole(ROWS)), old) as server:
        async with Sender(5, ca_file=certificates.ca) as sender:
            error = await failed(sender, server.url)
        assert error.text == "no TLS connection to the server: it hung up"
        assert not error.final
        async with Sender(5, ca_file=certificates.ca, legacy_tls=True) as sender:
            assert (await sender.send(signed(server.url))).body == ROWS


async def test_a_server_without_tls() -> None:
    """A plain answer to a TLS greeting is no answer."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        error = await failure(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/service")
    assert error.text.startswith("no TLS connection to the server: ")
    assert not error.final


async def test_a_gateway_in_front(certificates: Certificates) -> None:
    """The connection goes to the address, the name is for TLS and the Host header, and is verified."""
    names: list[str | None] = []
    context = certificates.server("other")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(sends(whole(ROWS)), context) as server:
        async with Sender(5, ca_file=certificates.ca, host="platform.example:8443") as sender:
            assert (await sender.send(signed(server.url))).body == ROWS
        ((head, _),) = server.calls
        assert b"\r\nHost: platform.example:8443\r\n" in head
        assert head.count(b"Host:") == 1
        async with Sender(5, ca_file=certificates.ca, host="elsewhere.example") as sender:
            assert (await failed(sender, server.url)).final
    assert names == ["platform.example", "elsewhere.example"]


class Proxy:
    """A proxy that tunnels to wherever it is asked to, once it has answered with a status.

    Args:
        status: what it answers to CONNECT, and to anything else.
    """

    def __init__(self, status: bytes) -> None:
        self.status = status
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            method, target, _ = head.split(b" ", 2)
            writer.write(b"HTTP/1.1 " + self.status + b"\r\nContent-Length: 0\r\n\r\n")
            if method == b"CONNECT" and self.status.startswith(b"200"):
                host, _, port = target.decode().rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def proxying(status: bytes) -> AsyncIterator[Proxy]:
    """Listen on loopback."""
    proxy = Proxy(status)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        await asyncio.sleep(0.01)  # lets both ends of a tunnel close


AUTH: Final = ("me", Secret("canary"))
HEADER: Final = b"\r\nProxy-Authorization: Basic bWU6Y2FuYXJ5\r\n"


async def test_a_tunnel(certificates: Certificates) -> None:
    """The proxy gets its password and sees no more of the call than where it goes."""
    async with (
        serving(sends(whole(ROWS)), certificates.server("good")) as server,
        proxying(b"200 Established") as proxy,
        Sender(5, proxy=proxy.url, proxy_auth=AUTH, ca_file=certificates.ca) as sender,
    ):
        for _ in range(2):
            assert (await sender.send(signed(server.url))).body == ROWS
        assert server.connections == 1
    (head,) = proxy.heads
    assert head.startswith(b"CONNECT 127.0.0.1:")
    assert HEADER in head
    assert b"x-tif-signature" not in head
    assert all(b"proxy" not in head.lower() for head, _ in server.calls)


async def test_a_tunnel_is_no_reason_to_trust(certificates: Certificates) -> None:
    """Certificates are verified through a tunnel as well."""
    async with (
        serving(sends(whole(ROWS)), certificates.server("expired")) as server,
        proxying(b"200 Established") as proxy,
        Sender(5, proxy=proxy.url, ca_file=certificates.ca) as sender,
    ):
        error = await failed(sender, server.url)
    assert error.text == "the TLS certificate of the server is not valid: certificate has expired"
    assert error.final
    assert not error.ours
    assert not server.calls


async def test_a_plain_call_through_a_proxy() -> None:
    """Without TLS the proxy passes the call on itself."""
    async with serving(sends(whole(ROWS))) as proxy:
        async with Sender(5, proxy=proxy.url.removesuffix("/service/d"), proxy_auth=AUTH) as sender:
            assert (await sender.send(signed("http://platform.example/service/d?a=%2F"))).body == ROWS
        ((head, body),) = proxy.calls
    assert head.startswith(b"POST http://platform.example/service/d?a=%2F HTTP/1.1\r\n")
    assert b"\r\nHost: platform.example\r\n" in head
    assert HEADER in head
    assert body == signed("").body


async def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken, with its password, if that is asked for."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(sends(whole(ROWS))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:canary@"))
        async with Sender(5, proxy_from_env=True) as sender:
            assert (await sender.send(signed("http://platform.example/service/d"))).body == ROWS
        ((head, _),) = proxy.calls
    assert HEADER in head


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("auth", [None, AUTH], ids=["no password", "password"])
async def test_a_proxy_that_wants_another_password(scheme: str, auth: tuple[str, Secret] | None) -> None:
    """It is our own side, the proxy is named, and nothing of it is secret."""
    async with (
        proxying(b"407 Proxy Authentication Required") as proxy,
        Sender(5, proxy=proxy.url, proxy_auth=auth) as sender,
    ):
        error = await failed(sender, f"{scheme}://platform.example/service")
    assert error.text == f"the proxy {proxy.url} does not accept the user and password, or their absence (407)"
    assert error.ours


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"403 Forbidden", b"503 Service Unavailable"])
async def test_a_proxy_that_makes_no_tunnel(status: bytes) -> None:
    """So is one that does not reach the platform, or may not."""
    async with proxying(status) as proxy, Sender(5, proxy=proxy.url, proxy_auth=AUTH) as sender:
        error = await failed(sender, "https://platform.example/service")
    assert error.text == f"the proxy {proxy.url} made no connection to the platform (HTTP {status[:3].decode()})"
    assert error.ours
    assert not error.final


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(scheme: str) -> None:
    """And one that cannot be reached, or has no address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        proxy = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with Sender(5, proxy=proxy, proxy_auth=AUTH) as sender:
            error = await failed(sender, f"{scheme}://platform.example/service")
    assert error.text == f"the proxy {proxy} cannot be reached (Connection refused)"
    assert error.ours
    async with Sender(5, proxy="http://no-such-host.invalid:1") as sender:
        error = await failed(sender, f"{scheme}://platform.example/service")
    assert error.text == "the proxy http://no-such-host.invalid:1 cannot be reached"
    assert error.ours


async def test_a_proxy_that_hangs_up() -> None:
    """A failure that may be either side's names the way it came."""
    async with serving(sends(b"", close=True)) as server:
        proxy = server.url.removesuffix("/service/d")
        async with Sender(5, proxy=proxy) as sender:
            error = await failed(sender, "http://platform.example/service")
    assert error.text == f"the server closed the connection before it answered, through the proxy {proxy}"
    assert not error.ours


async def test_a_proxy_of_another_kind() -> None:
    """What cannot be used as a proxy is said before anything is sent."""
    async with Sender(5, proxy="socks5://127.0.0.1:1080") as sender:
        error = await failed(sender, "http://127.0.0.1:9/service")
    assert error.text == "the proxy's address has to begin with http:// or https://, not 'socks5'"
    assert (error.ours, error.final) == (True, True)


async def test_a_proxy_behind_tls_is_verified(certificates: Certificates) -> None:
    """A certificate of the proxy's that is not valid is our own side's."""
    async with serving(sends(whole(ROWS)), certificates.server("expired")) as server:
        proxy = server.url.removesuffix("/service/d")
        async with Sender(5, proxy=proxy, ca_file=certificates.ca) as sender:
            error = await failed(sender, "http://platform.example/service")
    assert error.text == f"the TLS certificate of the proxy {proxy} is not valid: certificate has expired"
    assert (error.ours, error.final) == (True, True)


async def test_a_redirect_goes_nowhere() -> None:
    """Whatever the status of the redirect, its target hears nothing."""
    async with serving(sends(whole(b"{}"))) as elsewhere, Sender(5) as sender:
        for status in (301, 302, 303, 307, 308):
            head = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
            async with serving(sends(head.encode())) as server:
                reply = await sender.send(signed(server.url))
            assert (reply.status, reply.headers["Location"]) == (status, elsewhere.url)
    assert elsewhere.connections == 0

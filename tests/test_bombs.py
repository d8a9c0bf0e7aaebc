"""Answers that are made to exhaust: a run stays small and goes on, whatever comes for one of its pages.

Each comes instead of a page, over a real connection, to a real run in a process of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
import textwrap
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

import pytest
from test_cli import write_job

from harvester.body import LIMIT
from harvester.errors import Exit

TIMEOUT: Final = 1.0  # seconds for one call
SLACK: Final = 1.0  # seconds after it, when the worker has to be free
BACKOFF: Final = 0.2  # seconds before the page is asked for again, at most
CAP: Final = 2 * LIMIT  # bytes of all bodies that are being read at once
OWN: Final = 8 * 2**20  # bytes by which a run of good answers grows; 3 MiB were measured
ALLOWED: Final = CAP + 64 * 2**20 + OWN
SIZE: Final = LIMIT - 2**16  # bytes of a body that is just not too large
MEBIBYTE: Final = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

RUN: Final = textwrap.dedent(
    """
    import re, sys
    from pathlib import Path
    from harvester import cli, harvest, check
    from harvester.__main__ import main

    def peak():  # not getrusage: that begins with the parent's
        return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

    report, before = Path(sys.argv.pop(1)), peak()
    code = main()
    report.write_text(f"{peak() - before}")
    sys.exit(code)
    """
)


def page(number: int, last: int) -> bytes:
    """Return a good answer of a list of so many pages."""
    rows = [{"ID": f"{number}-{row}"} for row in range(20 if number <= last else 0)]
    return json.dumps({"errcode": 0, "data": {"pageNo": number, "pageSize": 20, "data": rows}}).encode()


class Portal:
    """A Wuhan interface whose first answers after page 1 are bad ones; asked again, it gives its pages."""

    def __init__(self, bad: Answer, times: int, last: int) -> None:
        self.bad = bad
        self.times = times
        self.last = last
        self.spoilt: set[int] = set()  # pages that got their bad answer
        self.calls: list[tuple[float, bool]] = []  # when each came, and whether it got the bad answer
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                found = re.search(rb"content-length: (\d+)", head)
                assert found
                query = json.loads(await reader.readexactly(int(found[1])))["query"]
                number = int(query["pageNo"])
                bad = number > 1 and number not in self.spoilt and len(self.spoilt) < self.times
                if bad:
                    self.spoilt.add(number)
                self.calls.append((monotonic(), bad))
                if bad:
                    await self.bad(writer)
                else:
                    body = page(number, self.last)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(portal: Portal) -> AsyncIterator[str]:
    """Serve a portal on loopback; yields its address."""
    server = await asyncio.start_server(portal.handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in portal.tasks:
            task.cancel()
        await asyncio.gather(*portal.tasks, return_exceptions=True)
        await server.wait_closed()


class Ran(NamedTuple):
    """What a run showed: exit code, words, growth in MiB, and the longest time that a bad answer held the worker."""

    code: int
    err: str
    growth: int
    held: float


async def run(folder: Path, bad: Answer, *, workers: int = 1, last: int = 3) -> Ran:
    """Mirror a list in a process of its own; every worker gets one bad answer."""
    portal = Portal(bad, workers, last)
    async with serving(portal) as url:
        settings = f"[run]\ntimeout = {TIMEOUT}\nconcurrency = {workers}\n"
        job = write_job(folder, url, more=settings)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN, str(folder / "growth"), "run", str(job)), stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(60):
                _, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            pytest.fail("the run did not come to an end within a minute")
        ended = monotonic()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    moments = [*portal.calls, (ended, False)]
    held = max((after - at for (at, wrong), (after, _) in pairwise(moments) if wrong), default=0.0)
    return Ran(process.returncode, err.decode(), int((folder / "growth").read_text()), held)


def whole(body: bytes, coding: str = "") -> Answer:
    """Answer with a body whose end is known."""
    head = f"HTTP/1.1 200 OK\r\n{coding}Content-Length: {len(body)}\r\n\r\n".encode()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head + body)
        await writer.drain()

    return answer


def packed(body: bytes) -> Answer:
    """Answer with a body that is small on the wire."""
    return whole(gzip.compress(body, 1), "Content-Encoding: gzip\r\n")


def streams(start: bytes, step: Callable[[int], bytes], pause: float = 0.0) -> Answer:
    """Answer with a beginning and then one piece after another, without end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for number in count():
            writer.write(step(number))
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def filled(head: str, unit: str, tail: str, charset: str = "utf-8") -> bytes:
    """Return a body that is nearly as large as one may be: a beginning, the same over and over, an end."""
    start, middle, end = (part.encode(charset) for part in (head, unit, tail))
    return start + middle * ((SIZE - len(start) - len(end)) // len(middle)) + end


DATA: Final = '{"errcode":0,"data":['
LARGE: Final[dict[str, Callable[[], bytes]]] = {
    "tiny rows": lambda: filled(DATA, "1,", "1]}"),
    "empty rows": lambda: filled(DATA, "{},", "{}]}"),
    "rows with spaces": lambda: filled(DATA, '{"a":"x", "bc": 5}, ', "{}]}"),
    "tiny rows in a string": lambda: filled('{"errcode":0,"data":"[', "1,", '1]"}'),
    "rows": lambda: filled(DATA, json.dumps({"a": "x" * 400}) + ",", "{}]}"),
    "a row of many keys": lambda: b'{"errcode":0,"data":{%b}}' % b",".join(b'"%x":1' % key for key in range(2_400_000)),
    "one text": lambda: filled(DATA + '"', "x", '"]}'),
    "one text beyond the plane": lambda: filled(DATA + '"😀', "x", '"]}'),
    "one text in gb18030": lambda: filled(DATA + '"', "武", '"]}', "gb18030"),
    "a text in a string": lambda: filled('{"errcode":0,"data":"[\\"😀', "x", '\\"]"}'),
    "a string of the whole": lambda: b'"%b"' % filled('{\\"errcode\\":0,\\"data\\":[\\"', "武", '\\"]}')[: SIZE - 2],
    "control characters": lambda: filled(DATA + '"', "\t", '"]}'),
    "half pairs": lambda: filled(DATA + '"', "\\ud83d", '"]}'),
    "escapes and one control character": lambda: filled(DATA + '"\t', "\\n", '"]}'),
    "open brackets": lambda: filled('{"errcode":0,"data":', "[", ""),
    "brackets": lambda: b'{"errcode":0,"data":%b}' % (b"[" * (SIZE // 2 - 20) + b"]" * (SIZE // 2 - 20)),
    "spaces": lambda: filled(DATA, " ", "]}"),
    "a message": lambda: filled('{"errcode":100106,"errmsg":"', "武", '"}'),
    "a code": lambda: filled('{"errcode":', "9", ',"data":[]}'),
    "the same key": lambda: filled("{", '"data":1,', '"errcode":0}'),
    "zeros": lambda: bytes(SIZE),
    "no charset": lambda: b"\xff" * SIZE,
    "a web page": lambda: filled("<html><title>", "<b", ""),
}


QUICK: Final = {"a text in a string", "a bomb", "chunks", "silence", "headers"}
"""The cases of the default suite."""


def sampled(names: Iterable[str], sample: set[str]) -> list[Any]:
    """Return the cases, all but a sample as soak tests."""
    assert sample <= set(names)
    return [pytest.param(name, marks=() if name in sample & QUICK else pytest.mark.soak) for name in names]


LARGE_SAMPLE: Final = {
    "tiny rows",
    "a row of many keys",
    "one text in gb18030",
    "a text in a string",
    "control characters",
}


@on_linux
@pytest.mark.parametrize("name", sampled(LARGE, LARGE_SAMPLE))
async def test_a_body_just_below_the_cap(tmp_path: Path, name: str) -> None:
    """Whatever fills it: memory stays within the cap and a bit, and the worker is free in time."""
    ran = await run(tmp_path, packed(LARGE[name]()))
    print(f"{name}: {ran.growth} MiB, {ran.held:.1f} s, exit {ran.code}")
    assert ran.code in {Exit.OK, Exit.REFUSED, Exit.OPEN_PAGES, Exit.NOT_PROVEN}
    assert ran.growth < ALLOWED // MEBIBYTE
    assert ran.held < TIMEOUT + SLACK + BACKOFF


def bomb(size: int) -> bytes:
    """Return that many zeros, compressed."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MEBIBYTE)) for _ in range(size // MEBIBYTE)) + packer.flush()


CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
PIECE: Final = b"%x\r\n%b\r\n" % (2**18, bytes(2**18))
ENDLESS: Final[dict[str, Callable[[], Answer]]] = {
    "a bomb": lambda: whole(bomb(200 * MEBIBYTE), "Content-Encoding: gzip\r\n"),
    "a bomb of many members": lambda: whole(gzip.compress(b"x") * 500_000, "Content-Encoding: gzip\r\n"),
    "chunks": lambda: streams(CHUNKED + b"\r\n", lambda _: PIECE),
    "tiny chunks": lambda: streams(CHUNKED + b"\r\n", lambda _: b"1\r\nx\r\n" * 2**14),
    "chunks of nothing but their extensions": lambda: streams(CHUNKED + b"\r\n1;", lambda _: b"x" * 2**16),
    "a drip": lambda: streams(CHUNKED + b"\r\n", lambda _: b"1\r\nx\r\n", 0.05),
    "headers": lambda: streams(b"HTTP/1.1 200 OK\r\n", lambda number: b"X-%d: %b\r\n" % (number, b"y" * 4000)),
    "one header": lambda: streams(b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"y" * 2**16),
    "a drip of headers": lambda: streams(b"HTTP/1.1 200 OK\r\n", lambda number: b"X-%d: y\r\n" % number, 0.05),
    "a status": lambda: streams(b"HTTP/1.1 200 ", lambda _: b"y" * 2**16),
    "trailers": lambda: streams(
        CHUNKED + b"\r\n1\r\nx\r\n0\r\n", lambda number: b"X-%d: %b\r\n" % (number, b"y" * 4000)
    ),
    "silence": lambda: streams(b"", lambda _: b"", 0.1),
}


@on_linux
@pytest.mark.parametrize("name", sampled(ENDLESS, {"a bomb", "chunks", "a drip", "headers", "silence"}))
async def test_an_answer_without_end(tmp_path: Path, name: str) -> None:
    """It is cut off at a cap or at the time-out, the page is asked for again, and the mirror is whole."""
    ran = await run(tmp_path, ENDLESS[name]())
    print(f"{name}: {ran.growth} MiB, {ran.held:.1f} s")
    assert ran.code == Exit.OK, ran.err
    assert ran.growth < ALLOWED // MEBIBYTE
    assert ran.held < TIMEOUT + SLACK + BACKOFF
    rows = b"".join(path.read_bytes() for path in sorted((tmp_path / "mirror/d/current").glob("part-*")))
    assert rows == b"".join(b'{"ID":"%d-%d"}\n' % (number, row) for number in (1, 2, 3) for row in range(20))


@on_linux
async def test_large_bodies_for_every_worker(tmp_path: Path) -> None:
    """Many at once share the room of two."""
    ran = await run(tmp_path, packed(filled(DATA + '"', "x", '"')), workers=8, last=60)
    print(f"eight at once: {ran.growth} MiB")
    assert ran.code == Exit.OK, ran.err
    assert ran.growth < ALLOWED // MEBIBYTE

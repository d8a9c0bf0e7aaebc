"""Contender: aiohttp behind one ``AsyncLimiter``, as its documentation shows it. A process of its own.

    python limiter_contender.py --url URL --max-rate 300 --period 1 --pages 6000 --out rows.jsonl

Sixty-four tasks take pages in order, wait for the limiter, sign and send. A refused page waits for the limiter again,
as often as it takes: nothing is given up. Rows go to a file, one a line.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import aiohttp
import calls
import orjson
import uvloop
from aiolimiter import AsyncLimiter

TASKS = 64


async def mirror(url: str, limiter: AsyncLimiter, pages: int, out: BinaryIO) -> None:
    """Fetch every page; write its rows."""
    numbers = iter(range(1, pages + 1))
    connector = aiohttp.TCPConnector(limit=TASKS)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        await asyncio.gather(*(_work(session, url, limiter, numbers, out) for _ in range(TASKS)))


async def _work(
    session: aiohttp.ClientSession, url: str, limiter: AsyncLimiter, numbers: Iterator[int], out: BinaryIO
) -> None:
    for number in numbers:
        rows: list[object] | None = None
        while rows is None:
            async with limiter:
                request = session.post(url, data=calls.body(number), headers=calls.headers())
            async with request as response:
                answer = orjson.loads(await response.read())
            code = str(answer["errcode"])
            if code == "0":
                rows = answer["data"]["data"]
            elif code != calls.OVER_LIMIT:
                raise SystemExit(f"refused: {answer}")
        out.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def main() -> None:
    """Read the arguments and mirror on uvloop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--max-rate", type=float, required=True, help="AsyncLimiter's first argument")
    parser.add_argument("--period", type=float, required=True, help="its second, in seconds")
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    async def run() -> None:
        await mirror(options.url, AsyncLimiter(options.max_rate, options.period), options.pages, out)

    with options.out.open("wb") as out, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()

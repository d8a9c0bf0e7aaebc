"""Contender: aiohttp with a plain JSONL write. A process of its own.

    python aiohttp_peer.py --url URL --folder FOLDER [--best]

Sixty-four workers take page numbers until one sees an empty page. By default a session as it comes, on asyncio's own
loop, with the standard library's JSON; at best uvloop, orjson, no cookie jar and no limit in the connector.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import calls
from job import CALLS, Job, Pages, told

# In an environment of its own: looked up by name, so that nobody else needs it.
aiohttp: Any = importlib.import_module("aiohttp")
orjson: Any = importlib.import_module("orjson")
uvloop: Any = importlib.import_module("uvloop")


async def plain(response: Any) -> tuple[int, bytes]:  # noqa: ANN401 - aiohttp is looked up by name
    """Return the number of rows and their lines, by the standard library."""
    rows = (await response.json())["data"]["data"]
    return len(rows), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


async def fast(response: Any) -> tuple[int, bytes]:  # noqa: ANN401 - as above
    """Return the number of rows and their lines, by orjson."""
    rows = orjson.loads(await response.read())["data"]["data"]
    return len(rows), b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


async def mirror(job: Job, out: BinaryIO) -> None:
    """Fetch until a page is empty; write every row."""
    lines: Callable[[Any], Awaitable[tuple[int, bytes]]] = fast if job.best else plain
    options = {}
    if job.best:
        options = {"connector": aiohttp.TCPConnector(limit=0), "cookie_jar": aiohttp.DummyCookieJar()}
    pages = Pages()

    async def work(session: Any) -> None:  # noqa: ANN401 - as above
        for number in pages:
            async with session.post(job.url, data=calls.body(number), headers=calls.headers()) as response:
                rows, written = await lines(response)
            if not rows:
                pages.over()
            out.write(written)

    async with aiohttp.ClientSession(**options) as session:
        await asyncio.gather(*(work(session) for _ in range(CALLS)))


def main() -> None:
    """Read the arguments and mirror."""
    job = told(__doc__)
    factory = uvloop.new_event_loop if job.best else None
    with job.rows.open("wb") as out, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(mirror(job, out))


if __name__ == "__main__":
    main()

"""Contender: httpx, asynchronous, with a plain JSONL write. A process of its own.

    python httpx_peer.py --url URL --folder FOLDER [--best]

Workers take page numbers until one sees an empty page. By default 64 of them and a client as it comes, which keeps 20
connections alive. A pool costs more for every connection that it has: at best there are four, on uvloop, with orjson.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any, BinaryIO

import calls
from job import CALLS, Job, Pages, told

# In an environment of its own: looked up by name, so that nobody else needs it.
httpx: Any = importlib.import_module("httpx")
orjson: Any = importlib.import_module("orjson")
uvloop: Any = importlib.import_module("uvloop")

FEW = 4  # connections, and as many workers; on loopback 8, 16, 32 and 64 are slower, each more than the one before


async def mirror(job: Job, out: BinaryIO) -> None:
    """Fetch until a page is empty; write every row."""
    options = {}
    if job.best:
        options = {"limits": httpx.Limits(max_connections=FEW, max_keepalive_connections=FEW)}
    pages = Pages()

    async def work(client: Any) -> None:  # noqa: ANN401 - httpx is looked up by name
        for number in pages:
            response = await client.post(job.url, content=calls.body(number), headers=calls.headers())
            rows = (orjson.loads(response.content) if job.best else response.json())["data"]["data"]
            if not rows:
                pages.over()
            if job.best:
                out.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            else:
                out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    async with httpx.AsyncClient(**options) as client:
        await asyncio.gather(*(work(client) for _ in range(FEW if job.best else CALLS)))


def main() -> None:
    """Read the arguments and mirror."""
    job = told(__doc__)
    factory = uvloop.new_event_loop if job.best else None
    with job.rows.open("wb") as out, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(mirror(job, out))


if __name__ == "__main__":
    main()

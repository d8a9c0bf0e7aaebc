"""Contender: rnet, a Rust client with Python bindings, with a plain JSONL write. A process of its own.

    python rnet_peer.py --url URL --folder FOLDER [--best]

Sixty-four workers take page numbers until one sees an empty page. By default a client as it comes, on asyncio's own
loop, whose answers are parsed by rnet; at best HTTP/1.1 only, no proxy, a pool as large as there are workers, on
uvloop, with orjson.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any, BinaryIO

import calls
from job import CALLS, Job, Pages, told

# In an environment of its own: looked up by name, so that nobody else needs it.
rnet: Any = importlib.import_module("rnet")
orjson: Any = importlib.import_module("orjson")
uvloop: Any = importlib.import_module("uvloop")


async def mirror(job: Job, out: BinaryIO) -> None:
    """Fetch until a page is empty; write every row."""
    options = {}
    if job.best:
        options = {"http1_only": True, "no_proxy": True, "pool_max_idle_per_host": CALLS, "tcp_nodelay": True}
    pages = Pages()

    async def work(client: Any) -> None:  # noqa: ANN401 - rnet is looked up by name
        for number in pages:
            response = await client.post(job.url, body=calls.body(number), headers=calls.headers())
            answer = orjson.loads(await response.bytes()) if job.best else await response.json()
            rows = answer["data"]["data"]
            if not rows:
                pages.over()
            if job.best:
                out.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            else:
                out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    client = rnet.Client(**options)
    await asyncio.gather(*(work(client) for _ in range(CALLS)))


def main() -> None:
    """Read the arguments and mirror."""
    job = told(__doc__)
    factory = uvloop.new_event_loop if job.best else None
    with job.rows.open("wb") as out, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(mirror(job, out))


if __name__ == "__main__":
    main()

"""A way of uneven length: a TCP proxy on loopback that holds every request back for a random moment.

    python jitter.py --to 127.0.0.1:8080 --most 0.010

The delay is uniform from 0 to ``--most`` seconds and drawn once per request: on the first bytes that follow an answer.
Order within a connection is kept; connections do not wait for each other. Prints the port it listens on.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from random import Random


class Way:
    """One proxy.

    Args:
        host: of the server behind it.
        port: as well.
        most: the longest delay in seconds.
        seed: of the delays.
    """

    def __init__(self, host: str, port: int, most: float, seed: int) -> None:
        self._to = (host, port)
        self._most = most
        self._random = Random(seed)  # noqa: S311 - delays, not secrets

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        with suppress(ConnectionError):  # here and below: either side may end a connection at any moment
            there_reader, there_writer = await asyncio.open_connection(*self._to)
            answered = asyncio.Event()
            answered.set()
            try:
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(self._back(there_reader, writer, answered))
                    await self._forth(reader, there_writer, answered)
                    back.cancel()
            except* ConnectionError:
                pass
            finally:
                for side in (writer, there_writer):
                    side.close()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if answered.is_set():
                answered.clear()
                await asyncio.sleep(self._random.uniform(0, self._most))
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: asyncio.Event) -> None:
        while data := await reader.read(65536):
            answered.set()
            writer.write(data)
            await writer.drain()
        writer.close()


async def main() -> None:
    """Listen until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--most", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    way = Way(host, int(port), options.most, options.seed)
    server = await asyncio.start_server(way.connect, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

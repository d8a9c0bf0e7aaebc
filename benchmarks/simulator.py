"""How many signed pages the simulator answers per second of its own processor time.

    python benchmarks/simulator.py --seconds 3 --runs 5

The server runs in a process of its own; this one sends signed calls over keep-alive connections. Calls are signed
just before they are sent, as a client does. What counts is the server's processor time (user and system) per call:
calls per second of wall clock depend on the client, which may well be the slower of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import platform
import statistics
import time
import uuid
from contextlib import suppress
from importlib.metadata import version
from itertools import count
from multiprocessing.connection import Connection
from typing import NamedTuple
from urllib.parse import quote_plus, urlsplit

import uvloop

from harvester.simulator import SIPOP_APP_KEY, SIPOP_APP_SECRET, WUHAN_PASSID, WUHAN_TOKEN, Config, Simulator, serve


class Run(NamedTuple):
    """One measured run: calls answered, wall clock and the server's processor time in seconds."""

    calls: int
    wall: float
    cpu: float


def serve_in_process(pipe: Connection, rows: int) -> None:
    """Serve until told to stop; answers every message with the processor seconds used so far."""

    def ready(simulator: Simulator) -> None:
        pipe.send(simulator.url)
        asyncio.get_running_loop().add_reader(pipe.fileno(), report)

    def report() -> None:
        if pipe.recv():
            pipe.send(time.process_time())
        else:
            raise SystemExit

    with suppress(SystemExit):
        uvloop.run(serve(Config(rows=rows, rate_limit=None), None, ready))


def wuhan_call(page: int) -> bytes:
    """Return the bytes of a signed call for a page of ``companies``."""
    stamp, nonce = str(int(time.time())), str(uuid.UUID(bytes=os.urandom(16), version=4))
    signature = hashlib.sha256(f"{stamp}{WUHAN_TOKEN}{nonce}{stamp}".encode()).hexdigest().upper()
    body = f'{{"query":{{"pageNo":"{page}"}}}}'
    return (
        "POST /ebus/kftp/v1/service/companies HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        f"Content-Type: application/json; charset=UTF-8\r\nx-tif-passid: {WUHAN_PASSID}\r\n"
        f"x-tif-paasid: {WUHAN_PASSID}\r\nx-tif-timestamp: {stamp}\r\nx-tif-nonce: {nonce}\r\n"
        f"x-tif-signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def sipop_call(page: int) -> bytes:
    """Return the bytes of a signed call for a page of 20 of ``patent.search``."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 8 * 3600))
    param = f'{{"pageNum":{page},"pageSize":20}}'
    sign = hashlib.md5(f"{stamp}{param}{SIPOP_APP_SECRET}".encode(), usedforsecurity=False).hexdigest()
    body = (
        f"appKey={SIPOP_APP_KEY}&method=patent.search&param={quote_plus(param)}"
        f"&timestamp={quote_plus(stamp)}&v=1.0&sign={sign}"
    )
    return (
        "POST /dataplatpro/api/route HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


CALLS = {"wuhan": (wuhan_call, b'{"errcode":0,'), "sipop": (sipop_call, b'{"result":true,')}


async def load(url: str, target: str, pages: int, seconds: float, connections: int) -> int:
    """Ask for one page after the other for a while; returns the number of pages that came."""
    address = urlsplit(url)
    make, success = CALLS[target]
    numbers = count()
    end = time.perf_counter() + seconds

    async def connection() -> int:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        answered = 0
        while time.perf_counter() < end:
            writer.write(make(1 + next(numbers) % pages))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not body.startswith(success):
                raise SystemExit(f"the simulator refused: {body[:200].decode()}")
            answered += 1
        writer.close()
        await writer.wait_closed()
        return answered

    return sum(await asyncio.gather(*(connection() for _ in range(connections))))


def measure(target: str, rows: int, seconds: float, connections: int) -> Run:
    """Start a server, warm it up briefly, load it and stop it."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_in_process, args=(there, rows))
    server.start()
    url = here.recv()
    pages = rows // 20

    def used() -> float:
        here.send(True)  # noqa: FBT003 - a message: go on
        return float(here.recv())

    uvloop.run(load(url, target, pages, 0.3, connections))
    before, start = used(), time.perf_counter()
    calls = uvloop.run(load(url, target, pages, seconds, connections))
    run = Run(calls, time.perf_counter() - start, used() - before)
    here.send(False)  # noqa: FBT003 - a message: stop
    server.join()
    return run


def main() -> None:
    """Measure both platforms and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a run (2)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind; the median counts (3)")
    parser.add_argument("--connections", type=int, default=16, help="keep-alive connections (16)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 2_000_000], help="sizes of the dataset")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("aiohttp", "orjson", "uvloop"))
    )
    print(f"{os.cpu_count()} cores, {options.connections} connections, {options.runs} runs of {options.seconds:g} s")
    for target in CALLS:
        for rows in options.rows:
            runs = [measure(target, rows, options.seconds, options.connections) for _ in range(options.runs)]
            per_cpu = [run.calls / run.cpu for run in runs]
            wall = statistics.median(run.calls / run.wall for run in runs)
            print(
                f"{target:6} {rows:>9} rows  {statistics.median(per_cpu):7.0f} calls per CPU second of the server"
                f"  ({min(per_cpu):.0f} to {max(per_cpu):.0f}), {wall:.0f}/s by the wall clock"
            )


if __name__ == "__main__":
    main()

"""The bare loop: aiohttp on uvloop signs, sends and parses every page and writes nothing. How fast can that be?

    python benchmarks/bare.py                       # every variant against a page server, and wrk beside them
    python benchmarks/bare.py --url URL --pages 20000 --variant workers

Each variant is a loop as people publish them, with 64 calls in flight, told how many pages there are:

========== ===========================================================================================================
gather     a task per page behind a semaphore, all gathered at the end
queue      64 workers that take page numbers from an ``asyncio.Queue``
workers    64 workers that share one iterator; no cookie jar, no limit in the connector
prepared   as ``workers``, with the address parsed once and headers that never change set in the session
========== ===========================================================================================================

The fastest of them is what other benchmarks here compare with. wrk (in C, one fixed request, nothing signed or parsed)
shows what the server can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "gateways"))
sys.path.insert(0, str(Path(__file__).parent / "pages"))

import calls

HERE = Path(__file__).parent
CALLS = 64
VERSIONS = ("aiohttp", "uvloop", "orjson")


async def gather(url: str, pages: int) -> int:
    """Have a task per page behind a semaphore; return the rows."""
    import aiohttp  # noqa: PLC0415 - this and the next are for the measured process alone
    import orjson  # noqa: PLC0415

    room = asyncio.Semaphore(CALLS)

    async def one(number: int) -> int:
        async with room, session.post(url, data=calls.body(number), headers=calls.headers()) as response:
            return len(orjson.loads(await response.read())["data"]["data"])

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*(one(number) for number in range(1, pages + 1))))


async def queue(url: str, pages: int) -> int:
    """Have workers take page numbers from a queue; return the rows."""
    import aiohttp  # noqa: PLC0415
    import orjson  # noqa: PLC0415

    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(1, pages + 1):
        numbers.put_nowait(number)

    async def work() -> int:
        rows = 0
        while not numbers.empty():
            number = await numbers.get()
            async with session.post(url, data=calls.body(number), headers=calls.headers()) as response:
                rows += len(orjson.loads(await response.read())["data"]["data"])
        return rows

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CALLS)) as session:
        return sum(await asyncio.gather(*(work() for _ in range(CALLS))))


async def workers(url: str, pages: int) -> int:
    """Have workers share an iterator, with everything off that is not needed; return the rows."""
    import aiohttp  # noqa: PLC0415
    import orjson  # noqa: PLC0415

    async def work(numbers: Iterator[int]) -> int:
        rows = 0
        for number in numbers:
            async with session.post(url, data=calls.body(number), headers=calls.headers()) as response:
                rows += len(orjson.loads(await response.read())["data"]["data"])
        return rows

    connector, jar = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
        numbers = iter(range(1, pages + 1))
        return sum(await asyncio.gather(*(work(numbers) for _ in range(CALLS))))


async def prepared(url: str, pages: int) -> int:
    """As ``workers``, but what all calls have in common is prepared once; return the rows."""
    import aiohttp  # noqa: PLC0415
    import orjson  # noqa: PLC0415
    from yarl import URL  # noqa: PLC0415

    fixed = {"Accept": "application/json", "Content-Type": "application/json; charset=UTF-8", "User-Agent": "bare"}
    own = ("x-tif-passid", "x-tif-timestamp", "x-tif-nonce", "x-tif-signature")

    async def work(numbers: Iterator[int], target: URL) -> int:
        rows = 0
        for number in numbers:
            signed = calls.headers()
            async with session.post(
                target, data=calls.body(number), headers={name: signed[name] for name in own}, allow_redirects=False
            ) as response:
                rows += len(orjson.loads(await response.read())["data"]["data"])
        return rows

    connector, jar = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, headers=fixed, timeout=timeout) as session:
        numbers = iter(range(1, pages + 1))
        return sum(await asyncio.gather(*(work(numbers, URL(url)) for _ in range(CALLS))))


VARIANTS: dict[str, Callable[[str, int], Awaitable[int]]] = {
    "gather": gather,
    "queue": queue,
    "workers": workers,
    "prepared": prepared,
}
FASTEST = "prepared"  # by the last measurement in README.md


def measured(variant: str, url: str, pages: int) -> dict[str, float]:
    """Run one variant in this process; return seconds, CPU seconds and rows, without the interpreter's start."""
    import uvloop  # noqa: PLC0415

    async def run() -> dict[str, float]:
        began, before = time.perf_counter(), time.process_time()
        rows = await VARIANTS[variant](url, pages)
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - before, "rows": rows}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def timed(variant: str, url: str, pages: int) -> dict[str, float]:
    """Run one variant in a process of its own, and see that it got every row."""
    from server import PAGE  # noqa: PLC0415

    command = [sys.executable, __file__, "--url", url, "--pages", str(pages), "--variant", variant]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert figures["rows"] == pages * PAGE, f"{figures['rows']} rows instead of {pages * PAGE}"
    return figures


def wrk(url: str, seconds: int = 4) -> float | None:
    """Return the requests per second that wrk gets with as many connections; None if it is not installed."""
    program = shutil.which("wrk")
    if program is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in calls.headers().items())
        script.write(f"wrk.method = \"POST\"\nwrk.body = '{calls.body(7).decode()}'\n{headers}")
        script.flush()
        command = [program, "-t", "1", "-c", str(CALLS), "-d", f"{seconds}s", "-s", script.name, url]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(shown.split("Requests/sec:")[1].split()[0])


def main() -> None:
    """Measure one variant for another script, or all of them for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="measure one variant against this address, in this process")
    parser.add_argument("--variant", choices=VARIANTS, default=FASTEST)
    parser.add_argument("--pages", type=int, default=20_000, help="pages of 20 rows (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    options = parser.parse_args()
    if options.url:
        print(json.dumps(measured(options.variant, options.url, options.pages)))
        return
    from server import PATH, page_server  # noqa: PLC0415 - needs what only the parent has

    figures: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as name, page_server(Path(name), options.pages) as address:
        for _ in range(options.rounds):
            for variant, found in figures.items():
                found.append(timed(variant, address + PATH, options.pages))
        physical = wrk(address + PATH)
    rates = {name: [options.pages / one["seconds"] for one in found] for name, found in figures.items()}
    costs = {name: statistics.median(one["cpu"] / options.pages * 1e6 for one in figures[name]) for name in figures}
    versions = {name: version(name) for name in VERSIONS} | {"python": platform.python_version()}
    if options.json:
        print(json.dumps({"versions": versions, "pages_per_s": rates, "cpu_us_per_page": costs, "wrk": physical}))
        return
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; {os.cpu_count()} cores")
    print(f"{options.pages:,} pages of 20 rows, medians of {options.rounds} interleaved rounds (lowest to highest):")
    for variant, values in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
        print(
            f"  {variant:9} {statistics.median(values):8,.0f} pages/s  ({min(values):,.0f} to {max(values):,.0f})"
            f"  {costs[variant]:6.1f} us of processor time a page"
        )
    print("  wrk       " + (f"{physical:8,.0f} requests/s" if physical else "is not installed"))


if __name__ == "__main__":
    main()

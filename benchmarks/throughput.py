"""Pages per second of ``harvester run`` without a rate limit, against a bare loop over the same pages.

The bare loop is aiohttp on uvloop with 64 tasks: it signs, sends and parses every page and writes nothing; it is told
how many pages there are. ``run`` is told nothing: it finds the end, keeps every row, syncs, seals shards, hashes them
and publishes. Both work against the same simulator, which runs in a process of its own, one after the other, in
pairs, so that a noisy machine treats both alike. The simulator shares the machine with them: on two cores it has one.

Caveats: loopback, no TLS, no compression; the ratio says what the tool adds to a call, not what a network allows.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("harvester", "aiohttp", "uvloop", "orjson", "msgspec", "aiolimiter")
PAGE = 20
CONCURRENCY = 64


async def bare(url: str, pages: int) -> None:
    """Sign, send and parse every page; write nothing."""
    import aiohttp  # noqa: PLC0415 - the parent process does not need it
    import orjson  # noqa: PLC0415

    numbers = iter(range(1, pages + 1))
    rows = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal rows
        for number in numbers:
            now, nonce = str(int(time.time())), str(uuid.uuid4())
            signature = hashlib.sha256(f"{now}sim-wuhan-token{nonce}{now}".encode()).hexdigest().upper()
            headers = {
                "Accept": "application/json",
                "Content-Type": "application/json; charset=UTF-8",
                "x-tif-passid": "sim-passid",
                "x-tif-timestamp": now,
                "x-tif-nonce": nonce,
                "x-tif-signature": signature,
            }
            body = orjson.dumps({"query": {"pageNo": str(number)}})
            async with session.post(url, data=body, headers=headers) as response:
                rows += len(orjson.loads(await response.read())["data"]["data"])

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        began = time.perf_counter()
        await asyncio.gather(*(work(session) for _ in range(CONCURRENCY)))
        seconds = time.perf_counter() - began
    assert rows == pages * PAGE, f"{rows} rows instead of {pages * PAGE}"
    print(json.dumps({"seconds": seconds}))


@contextmanager
def simulator(folder: Path, rows: int) -> Iterator[str]:
    """Serve generated companies in another process; yields its address."""
    command = [sys.executable, "-m", "harvester", "simulate", "--platform", "wuhan", "--rows", str(rows)]
    command += ["--rate-limit", "none", "--write-job", str(folder / "job.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def timed(command: list[str]) -> tuple[float, str]:
    """Run a command; return its CPU seconds and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def run_once(folder: Path, number: int, rows: int) -> tuple[float, float]:
    """Mirror everything once; return seconds from the first event to publication, and CPU seconds."""
    output = folder / f"mirror-{number}"
    command = [sys.executable, "-m", "harvester", "run", str(folder / "job.toml"), "--quiet", "--json"]
    command += ["--dataset", "wuhan-companies", "--output", str(output)]
    cpu, printed = timed(command)
    result = json.loads(printed)
    assert result["datasets"][0]["rows"] == rows, result
    events = [json.loads(line) for line in (Path(result["path"]) / "events.jsonl").read_text().splitlines()]
    at = {event["event"]: datetime.fromisoformat(event["at"]) for event in events}
    return (at["concluded"] - at["began"]).total_seconds(), cpu


def main() -> None:
    """Measure pairs and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000, help="pages of 20 rows (default 10,000)")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs (default 5)")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    parser.add_argument("--bare", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        import uvloop  # noqa: PLC0415

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bare(arguments.bare, arguments.pages))
        return
    pages, rows = arguments.pages, arguments.pages * PAGE
    measured: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name, simulator(Path(name), rows) as address:
        url = f"{address}/ebus/kftp/v1/service/companies"
        for number in range(arguments.pairs):
            cpu_bare, printed = timed([sys.executable, __file__, "--bare", url, "--pages", str(pages)])
            seconds_bare = json.loads(printed)["seconds"]
            seconds_run, cpu_run = run_once(Path(name), number, rows)
            measured.append(
                {
                    "bare_pages_per_s": pages / seconds_bare,
                    "run_pages_per_s": pages / seconds_run,
                    "ratio": seconds_bare / seconds_run,
                    "bare_cpu_us_per_page": cpu_bare / pages * 1e6,
                    "run_cpu_us_per_page": cpu_run / pages * 1e6,
                }
            )
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    medians = {key: statistics.median(entry[key] for entry in measured) for key in measured[0]}
    if arguments.json:
        print(json.dumps({"versions": versions, "pages": pages, "pairs": measured, "medians": medians}, indent=2))
        return
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; {os.cpu_count()} cores")
    print(f"{pages:,} pages of {PAGE} rows, {arguments.pairs} interleaved pairs, medians (lowest to highest):")
    for key, median in medians.items():
        values = [entry[key] for entry in measured]
        print(f"  {key:22} {median:10,.2f}  ({min(values):,.2f} to {max(values):,.2f})")


if __name__ == "__main__":
    main()

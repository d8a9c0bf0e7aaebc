"""What the frontier costs: memory, the index on disk, and the time to decide the next page, at two sizes.

    python benchmarks/frontier.py --pages 10000 5000000 --runs 3

Pages are answered in memory, 64 under way, without a total and with one; nothing is sent or written. Memory is what the
frontier holds at the end, all its parts together; it only grows. The time is processor time of one ``next`` and one
``arrived`` together, less that of the loop around them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections import deque
from importlib.metadata import version
from typing import NamedTuple

from harvester import __version__
from harvester.frontier import Frontier
from harvester.second_reading import FULL, SecondReading
from harvester.shard import INDEX_HEAD, INDEX_RECORD_BYTES

ROWS = 20  # on a page
IN_FLIGHT = 64


class Run(NamedTuple):
    """One walk: calls past the end, microseconds a call, and bytes held at its end."""

    beyond: int
    cost: float
    memory: int


def walk(pages: int, total: int | None) -> Run:
    """Walk a list of so many pages from nothing to its end."""
    frontier = Frontier()
    flying: deque[int] = deque()
    calls = beyond = 0
    start = time.process_time()
    while True:
        while len(flying) < IN_FLIGHT and (page := frontier.next()) is not None:
            flying.append(page)
        if not flying:
            break
        page = flying.popleft()
        calls += 1
        beyond += page > pages
        frontier.arrived(page, ROWS if page <= pages else 0, page.to_bytes(16), total=total)
    used = time.process_time() - start
    if frontier.end is None or frontier.end.last != pages or not frontier.complete:
        raise SystemExit(f"the end of {pages} pages was not found: {frontier.end}")
    return Run(beyond, 1e6 * (used - loop_alone(calls)) / calls, held(frontier))


def loop_alone(calls: int) -> float:
    """Return the processor seconds of the same loop without a frontier."""
    flying: deque[int] = deque()
    start = time.process_time()
    for page in range(calls):
        flying.append(page)
        number = flying.popleft()
        number.to_bytes(16)
    return time.process_time() - start


def held(part: object, seen: set[int] | None = None) -> int:
    """Return the bytes of an object and of what it is made of, each counted once."""
    seen = set() if seen is None else seen
    if id(part) in seen:
        return 0
    seen.add(id(part))
    inner: list[object] = []
    if isinstance(part, dict):
        inner = [*part.keys(), *part.values()]
    elif isinstance(part, list | tuple | set):
        inner = list(part)
    elif hasattr(part, "__dict__"):
        inner = [vars(part)]
    return sys.getsizeof(part) + sum(held(each, seen) for each in inner)


def check(pages: int) -> float:
    """Return the processor seconds of a second reading in which nothing has changed."""
    start = time.process_time()
    reading = SecondReading(pages, min(FULL, pages), 1, edge=True)
    while (page := reading.next()) is not None:
        reading.arrived(page, same=True, rows=ROWS)
    return time.process_time() - start


def main() -> None:
    """Measure every size and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="+", default=[10_000, 5_000_000], help="sizes of the list")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind; the median counts (3)")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, harvester {__version__}, msgspec {version('msgspec')}")
    print(f"{os.cpu_count()} cores, {IN_FLIGHT} calls in flight, {options.runs} runs")
    for pages in options.pages:
        index = len(INDEX_HEAD) + INDEX_RECORD_BYTES * pages
        print(f"{pages:>9,} pages  pages.idx {index:,} bytes  a second reading {1e3 * check(pages):.1f} ms")
        for what, total in (("no total", None), ("right total", ROWS * pages)):
            short = max(1, 200_000 // pages)  # walks of one run, so that short ones are timed as well as long ones
            runs = [[walk(pages, total) for _ in range(short)] for _ in range(options.runs)]
            costs = [statistics.fmean(run.cost for run in several) for several in runs]
            peak = runs[0][0].memory
            print(
                f"{'':>9}  {what:11}  {statistics.median(costs):.2f} us a page ({min(costs):.2f} to {max(costs):.2f}), "
                f"{runs[0][0].beyond} calls past the end, {peak:,} bytes of memory ({peak / pages:.2f} a page)"
            )


if __name__ == "__main__":
    main()

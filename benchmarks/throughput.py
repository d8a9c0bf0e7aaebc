"""What ``harvester run`` adds to a call: pages per second without a limit, against a bare loop over the same pages.

    python benchmarks/throughput.py --pairs 7
    python benchmarks/throughput.py --flat 10000 1000000     # the same cost and memory, whatever the number of pages?

The bare loop is ``bare.py``'s fastest: aiohttp on uvloop, 64 calls in flight; it signs, sends and parses every page,
writes nothing and is told how many pages there are. ``run`` is told nothing: it finds the end, reads a sample a second
time, keeps every row, syncs, seals shards, hashes them and publishes; the time is from the first event of the run to
the last, publication included. Both work against the same page server (nginx with Lua, every page distinct), one after
the other, in pairs, so that a noisy machine treats both alike. wrk shows what the server can do.

Caveats: loopback, no TLS, no compression, 2.9 kB a page; on two cores the server shares them with what is measured.
The ratio says what the tool adds to a call, not what a network allows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import bare

sys.path.insert(0, str(bare.HERE / "gateways"))
sys.path.insert(0, str(bare.HERE / "pages"))

import calls
from server import PAGE, PATH, page_server

PACKAGES = ("harvester", "aiohttp", "uvloop", "orjson", "msgspec", "aiolimiter")


class Run(NamedTuple):
    """One mirror: seconds from the first event to the last, CPU seconds of the process, peak memory in bytes."""

    seconds: float
    cpu: float
    memory: int


def job(folder: Path, address: str) -> Path:
    """Write a job file for the page server, without a limit."""
    token, path = folder / "token", folder / "job.toml"
    token.touch(0o600)
    token.write_text(calls.TOKEN)
    path.write_text(
        f'[apps.pages]\nplatform = "wuhan"\npassid = "{calls.PASSID}"\ntoken = {{ file = "token" }}\n'
        f'url = "{address}{calls.PATH}"\nrate_limit = "none"\n'
        '[datasets.companies]\napp = "pages"\nservice = "companies"\n'
    )
    return path


def run(job_file: Path, pages: int, options: Sequence[str] = ()) -> Run:
    """Mirror everything once into an empty folder, in a process of its own; see that nothing is missing."""
    output = job_file.with_name("mirror")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "harvester", "run", str(job_file), "--quiet", "--json", "--output", str(output)]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    result = json.loads(printed)
    found = result["datasets"][0]
    assert (process.returncode, found["rows"], found["verdict"]) == (0, pages * PAGE, "proven"), found
    events = [json.loads(line) for line in (Path(result["path"]) / "events.jsonl").read_text().splitlines()]
    at = {event["event"]: datetime.fromisoformat(event["at"]) for event in events}
    return Run((at["concluded"] - at["began"]).total_seconds(), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def pairs(job_file: Path, url: str, pages: int, count: int) -> dict[str, list[float]]:
    """Measure bare loop and run in turns."""
    figures: dict[str, list[float]] = {
        name: [] for name in ("bare pages/s", "run pages/s", "ratio", "bare us", "run us")
    }
    for _ in range(count):
        plain = bare.timed(bare.FASTEST, url, pages)
        ours = run(job_file, pages)
        row = (
            pages / plain["seconds"],
            pages / ours.seconds,
            plain["seconds"] / ours.seconds,
            plain["cpu"] / pages * 1e6,
            ours.cpu / pages * 1e6,
        )
        for values, value in zip(figures.values(), row, strict=True):
            values.append(value)
    return figures


def start_cost(job_file: Path) -> float:
    """Return the CPU seconds of a run that has nothing to do: what a process costs before and after its pages."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "harvester", "run", str(job_file), "--quiet"]
    subprocess.run([*command, "--output", str(job_file.with_name("mirror"))], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def resumed(job_file: Path, pages: int) -> float:
    """Kill a run when most pages are there; return the seconds from the next run's start to its first call."""
    output = job_file.with_name("mirror")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "harvester", "run", str(job_file), "--quiet", "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wanted = pages * 9 // 10 // 5000  # shards of 5,000 pages
        while process.poll() is None and len(list(output.glob("companies/2*/part-*.jsonl"))) < wanted:
            time.sleep(0.02)
        assert process.poll() is None, "the run was over too soon"
        process.kill()
    began = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        found = None
        while process.poll() is None and found is None:
            found = _first_call(process.pid)
        process.kill()
    assert found is not None, "the resumed run made no call"
    return found - began


def _first_call(pid: int) -> float | None:
    """Return the moment if a process has a TCP connection now."""
    try:
        sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    except OSError:
        return None
    open_now = {match for name in sockets for match in re.findall(r"socket:\[(\d+)\]", name)}
    established = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    return time.time() if open_now & established else None


def flat(sizes: Sequence[int], rounds: int) -> dict[int, list[tuple[float, float]]]:
    """Return megabytes at the peak and CPU microseconds a page, less the start's, for each number of pages."""
    found: dict[int, list[tuple[float, float]]] = {}
    for pages in sizes:
        with tempfile.TemporaryDirectory() as name, page_server(Path(name), pages) as address:
            job_file = job(Path(name), address)
            found[pages] = []
            for _ in range(rounds if pages < max(sizes) else 1):
                ours = run(job_file, pages)
                found[pages].append((ours.memory / 2**20, (ours.cpu - start_cost(job_file)) / pages * 1e6))
    return found


def main() -> None:
    """Measure and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20_000, help="pages of 20 rows (default 20,000)")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs (default 7)")
    parser.add_argument("--flat", type=int, nargs="+", metavar="PAGES", help="compare these numbers of pages instead")
    parser.add_argument("--resume", type=int, metavar="PAGES", help="kill a run of so many pages and time the next one")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    options = parser.parse_args()
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    if not options.json:
        print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; {os.cpu_count()} cores")
    if options.flat:
        sizes = flat(options.flat, options.pairs)
        medians = {
            pages: [statistics.median(values) for values in zip(*of, strict=True)] for pages, of in sizes.items()
        }
        if options.json:
            print(json.dumps({"versions": versions, "flat": sizes}))
            return
        for pages, (memory, cost) in medians.items():
            print(f"  {pages:9,} pages: {memory:6.1f} MB at the peak, {cost:6.1f} us of processor time a page")
        first, last = medians[options.flat[0]], medians[options.flat[-1]]
        print(
            f"  last against first: {last[0] / first[0]:.2f} times the memory, {last[1] / first[1]:.2f} times the cost"
        )
        return
    pages = options.resume or options.pages
    with tempfile.TemporaryDirectory() as name, page_server(Path(name), pages) as address:
        job_file = job(Path(name), address)
        if options.resume:
            seconds = resumed(job_file, pages)
            print(json.dumps({"seconds": seconds}) if options.json else f"  first call after {seconds:.2f} s")
            return
        figures = pairs(job_file, address + PATH, pages, options.pairs)
        physical = bare.wrk(address + PATH)
    if options.json:
        print(json.dumps({"versions": versions, "pages": pages, "figures": figures, "wrk": physical}, indent=2))
        return
    print(f"{pages:,} pages of {PAGE} rows, {options.pairs} interleaved pairs, medians (lowest to highest):")
    for key, values in figures.items():
        print(f"  {key:13} {statistics.median(values):10,.2f}  ({min(values):,.2f} to {max(values):,.2f})")
    print(f"  wrk           {physical:10,.0f} requests/s" if physical else "  wrk is not installed")


if __name__ == "__main__":
    main()

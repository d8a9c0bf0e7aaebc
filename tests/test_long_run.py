"""Mirrors one after another, from a server that does everything wrong by a script that chance has written.

No row is lost and none comes twice, and the process is as large at the end as at the beginning. How long it takes is
set in minutes by ``LONG_RUN_MINUTES``, the script by ``LONG_RUN_SEED``.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from statistics import linear_regression, mean
from typing import Any, Final, NamedTuple

import pytest

from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.simulator import Config, Simulator
from harvester.simulator.faults import KINDS

MINUTES: Final = float(os.environ.get("LONG_RUN_MINUTES", "60"))
SEED: Final = int(os.environ.get("LONG_RUN_SEED", "20261122"))
ROWS: Final = 9_980  # of each dataset; no number at which servers cut lists off
RATE: Final = 500.0
DATASETS: Final = {"wuhan-companies": ("wuhan", "companies"), "sipop-patent.search": ("sipop", "patent.search")}
SHARES: Final = (0.01, 0.1, 0.5, 1.0)
PAUSE: Final = 1.0  # seconds between a run that was stopped and the next
WARM: Final = 0.2  # of the time, until everything that is made once has been made
GROWTH: Final = 8 * 2**20  # bytes; caches take a while to fill
TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Gives back what the C library has freed and kept. That is as much as the largest bodies at once, and no leak."""


def script(seconds: float, seed: int) -> Iterator[str]:
    """Yield faults as the simulator's command takes them: one after another, with pauses, for so long."""
    chance = Random(seed)  # noqa: S311 - to be repeatable
    at = 2.0
    while at < seconds:
        lasts = chance.uniform(0.5, 8)
        yield f"{chance.choice(KINDS)}:{chance.choice(SHARES)}:{at:.2f}:{lasts:.2f}"
        at += lasts + chance.uniform(0, 4)


@asynccontextmanager
async def simulated(job: Path, faults: Iterator[str]) -> AsyncIterator[str]:
    """Run the simulator in a process of its own, so that this one's size is the client's; return its address."""
    arguments = ["--rows", str(ROWS), "--rate-limit", f"{RATE:g}", "--write-job", str(job)]
    arguments += [word for fault in faults for word in ("--fault", fault)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harvester", "simulate", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        assert await process.wait() == 0


def counted(url: str) -> dict[str, Any]:
    """Return what the simulator has counted."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_simulator/stats", timeout=5) as response:  # noqa: S310 - loopback
                found: dict[str, Any] = json.load(response)
                return found
        except OSError:  # the port is shut at the moment
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Process(NamedTuple):
    """The size of this process: seconds since the beginning, bytes in use and at most, descriptors."""

    seconds: float
    memory: int
    peak: int
    descriptors: int


def process(began: float) -> Process:
    """Measure."""
    gc.collect()
    if TRIM is not None:
        TRIM(0)
    status = dict(re.findall(r"(\w+):\s*(\d+) kB", Path("/proc/self/status").read_text()))
    memory, peak = (int(status[name]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Process(time.monotonic() - began, memory, peak, len(list(Path("/proc/self/fd").iterdir())))


def rows_digest(rows: Iterator[bytes]) -> str:
    """Return the SHA-256 of rows, each in its line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row + b"\n")
    return digest.hexdigest()


async def truth() -> dict[str, str]:
    """Return the digest of the rows that each dataset has."""
    async with Simulator(Config(rows=ROWS)) as simulator:
        return {
            name: rows_digest(simulator.tables[platform][table].row_bytes(index) for index in range(ROWS))
            for name, (platform, table) in DATASETS.items()
        }


def kept(output: Path) -> dict[str, str]:
    """Return the digest of the rows that a mirror holds."""
    return {
        name: rows_digest(
            line
            for part in sorted((output / name / "current").glob("part-*.jsonl"))
            for line in part.read_bytes().splitlines()
        )
        for name in DATASETS
    }


async def one_round(job: Job) -> tuple[int, int]:
    """Mirror both datasets, running again whenever a run is stopped; return the runs and the calls."""
    runs = calls = 0
    while True:
        result = await mirror(job, Options(datasets=tuple(DATASETS)))
        runs, calls = runs + 1, calls + sum(entry.calls for entry in result.datasets)
        if result.exit is Exit.OK:
            return runs, calls
        assert result.exit in {Exit.REFUSED, Exit.OPEN_PAGES, Exit.LOCAL}, [entry.why for entry in result.datasets]
        await asyncio.sleep(PAUSE)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from /proc")
async def test_a_long_run(tmp_path: Path) -> None:
    """Every round is whole, nonces are used once, signatures are fresh, memory and descriptors stay where they are."""
    seconds = MINUTES * 60
    path = tmp_path / "job.toml"
    expected = await truth()
    print(f"\nseed {SEED}, {MINUTES:g} minutes")
    extra = '\n[defaults]\ncharset = "utf-8"\n\n[run]\ntimeout = 2\nrows_per_shard = 2_500\n'
    async with simulated(path, script(seconds + 600, SEED)) as url:
        text = path.read_text().replace("page_size = 50", "page_size = 20").replace('output = "mirror"\n', "")
        sizes: list[Process] = []
        began, calls = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            folder = tmp_path / f"round-{len(sizes)}"
            path.write_text(f'output = "{folder}"\n{text}{extra}')
            runs, asked = await one_round(Job.load(path, environ={}))
            calls += asked
            assert kept(folder) == expected, f"round {len(sizes)}: rows are lost, doubled or changed"
            shutil.rmtree(folder)
            sizes.append(process(began))
            print(
                f"round {len(sizes)}: {sizes[-1].seconds - passed:.1f} s, {runs} runs, {asked:,} calls, "
                f"{sizes[-1].memory / 2**20:.1f} MiB, {sizes[-1].descriptors} descriptors"
            )
        found = await asyncio.to_thread(counted, url)
    faults = found["faults"]
    warm = [size for size in sizes if size.seconds >= WARM * seconds]
    slope, _ = linear_regression([size.seconds for size in warm], [size.memory for size in warm])
    print(
        f"{len(sizes)} rounds, {len(sizes) * ROWS * len(DATASETS):,} rows whole, {calls:,} calls, "
        f"{sum(faults.values()):,} faults of {len(faults)} kinds; oldest signature {found['oldest_signature']} s; "
        f"memory {mean(size.memory for size in warm) / 2**20:.1f} MiB, {slope * 3600 / 2**20:+.1f} MiB/h, "
        f"at most {sizes[-1].peak / 2**20:.0f} MiB; "
        f"descriptors {min(size.descriptors for size in warm)} to {max(size.descriptors for size in warm)}"
    )
    assert found["repeated_nonces"] == 0
    assert found["oldest_signature"] <= 5
    assert slope * seconds <= GROWTH
    assert len({size.descriptors for size in sizes}) == 1

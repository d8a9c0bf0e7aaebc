"""A run that is killed at any moment, again and again, ends with the same bytes and reads no page twice to keep it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
from pathlib import Path

import pytest

from harvester.simulator import Config, Simulator, jobfile
from harvester.store.snapshot import Snapshot

PAGES = 2_000
RATE = 400.0
NAME = "wuhan-companies"
KILLS = 5


def digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every finished shard and of the index of the published snapshot."""
    current = output / NAME / "current"
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for pattern in ("part-*.jsonl", "pages.idx")
        for file in sorted(current.glob(pattern))
    }


def committed(output: Path) -> set[int]:
    """Return the pages that the open snapshot holds on disk, without changing anything."""
    for path in (output / NAME).glob("2*Z"):
        if (path / "checkpoint.json").exists():
            with Snapshot.open(path) as snapshot:
                return set(snapshot.pages())
    return set()


async def start(job: Path, output: Path) -> asyncio.subprocess.Process:
    """Start ``harvester run`` as a user does."""
    arguments = ["-m", "harvester", "run", str(job), "--dataset", NAME, "--output", str(output), "--quiet"]
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)


async def killed_run(simulator: Simulator, job: Path, output: Path, chance: random.Random) -> tuple[int, int]:
    """Mirror with up to five kills; return how many there were and how many fell after the first commit."""
    kills = inside = 0
    while True:
        before = committed(output)
        simulator.stats.clear()
        process = await start(job, output)
        exited = asyncio.ensure_future(process.wait())
        if kills < KILLS:
            while not exited.done() and len(committed(output)) == len(before) < PAGES:
                await asyncio.wait({exited}, timeout=0.02)  # kills before the first commit teach little
            await asyncio.wait({exited}, timeout=chance.uniform(0, 0.9))
            if not exited.done():
                process.send_signal(signal.SIGKILL)
        code = await exited
        asked = simulator.stats.as_dict()["pages"].get("wuhan/companies", {})
        now = committed(output)
        if code == 0 or len(now) == PAGES:
            assert all(asked.get(page, 0) <= 1 for page in before), "nothing but the second reading asks for it"
        else:
            assert not before & set(asked), "a page that was on disk was fetched again"
        if code == 0:
            return kills, inside
        assert code == -signal.SIGKILL
        kills += 1
        inside += len(now) > 0
        print(f"killed with {len(now):,} of {PAGES:,} pages on disk")


async def disturbed(tmp_path: Path, runs: int, seed: int) -> None:
    """Compare many killed runs with one that was left alone."""
    chance = random.Random(seed)  # noqa: S311 - a seed makes a failure repeatable
    print(f"seed {seed}")
    async with Simulator(Config(rows=PAGES * 20, rate_limit=RATE, platforms=("wuhan",))) as simulator:
        jobs = []
        for number, recheck in enumerate(("", "\n[defaults]\nrecheck = 0\n")):
            jobs.append(tmp_path / f"job-{number}.toml")
            jobfile.write(jobs[-1], simulator.url, RATE, simulator.tables)
            jobs[-1].write_text(f"{jobs[-1].read_text()}\n[run]\nrows_per_shard = 10_000\n{recheck}")
        assert await (await start(jobs[0], tmp_path / "calm")).wait() == 0
        expected = digests(tmp_path / "calm")
        assert len(expected) == PAGES * 20 // 10_000 + 1
        total = total_inside = 0
        for number in range(runs):
            output = tmp_path / f"run-{number}"
            kills, inside = await killed_run(simulator, jobs[number % 2], output, chance)
            assert digests(output) == expected
            total, total_inside = total + kills, total_inside + inside
        print(f"{runs} runs, {total} kills, {total_inside} of them after the first commit")
        assert total >= runs
        assert total_inside >= 0.8 * total


@pytest.mark.soak
async def test_kills_change_nothing(tmp_path: Path) -> None:
    """Two runs, one without a second reading, each killed up to five times, end with the undisturbed run's bytes."""
    await disturbed(tmp_path, runs=2, seed=20261121)


@pytest.mark.soak
async def test_many_kills_change_nothing(tmp_path: Path) -> None:
    """Twenty runs of 2,000 pages, each killed up to five times, end with the undisturbed run's bytes."""
    await disturbed(tmp_path, runs=20, seed=1)

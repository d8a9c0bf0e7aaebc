"""Runs as processes of their own: beside each other, and when the terminal or the disk behind a stream goes away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from harvester.errors import Exit
from harvester.simulator import Config, Simulator, jobfile

ONE, OTHER = "wuhan-companies", "wuhan-investors"
PAGES: Final = 200
RATE: Final = 150.0
PATIENCE: Final = 30.0  # seconds; a run takes a few

FULL: Final = Path("/dev/full")


class Bench:
    """A simulated platform and a job that mirrors it."""

    def __init__(self, simulator: Simulator, job: Path) -> None:
        self.simulator = simulator
        self.job = job
        self.output = job.with_name("mirror")

    async def start(self, *arguments: str, before: tuple[str, ...] = (), **options: Any) -> asyncio.subprocess.Process:  # noqa: ANN401 - those of subprocess
        """Start ``harvester run`` as a user does."""
        command = (*before, sys.executable, "-m", "harvester", "run", str(self.job), *arguments)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return await asyncio.create_subprocess_exec(*command, **{**quiet, **options})

    async def asked(self, pages: int) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(PATIENCE):
            while self.simulator.stats.calls < pages:  # noqa: ASYNC110 - the simulator counts, and tells nobody
                await asyncio.sleep(0.01)

    def rows(self, name: str) -> bytes:
        """Return the published rows of a dataset."""
        shards = sorted((self.output / name / "current").glob("part-*.jsonl"))
        return b"".join(shard.read_bytes() for shard in shards)

    def complete(self, name: str) -> bool:
        """Tell whether a dataset is mirrored, row for row."""
        table = self.simulator.tables["wuhan"][name.removeprefix("wuhan-")]
        return self.rows(name) == b"".join(table.row_bytes(row) + b"\n" for row in range(len(table)))


@asynccontextmanager
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Play the platform under a limit."""
    async with Simulator(Config(rows=20 * PAGES, rate_limit=RATE, platforms=("wuhan",))) as simulator:
        job = tmp_path / "job.toml"
        jobfile.write(job, simulator.url, RATE, simulator.tables)
        job.write_text(f"{job.read_text()}\n[defaults]\nrecheck = 0\n[run]\nrows_per_shard = 1_000\n")
        yield Bench(simulator, job)


async def ended(process: asyncio.subprocess.Process) -> str:
    """Return what a process said until its end."""
    async with asyncio.timeout(PATIENCE):
        _, said = await process.communicate()
    text = (said or b"").decode()
    assert "Traceback" not in text, text
    return text


async def test_side_by_side_under_one_limit(tmp_path: Path) -> None:
    """Two runs on two datasets of one output and one app: both mirror theirs, and together keep to the limit."""
    async with bench(tmp_path) as place:
        runs = [await place.start("--dataset", name) for name in (ONE, OTHER)]
        await place.asked(60)
        third = await place.start("--dataset", ONE)
        said = await ended(third)
        assert third.returncode == Exit.LOCKED
        assert f"in use by process {runs[0].pid} on " in said
        for run in runs:
            said = await ended(run)
            assert run.returncode == Exit.OK, said
        assert place.complete(ONE)
        assert place.complete(OTHER)
        stats = place.simulator.stats
        refused = sum(stats.refused.values())
        print(f"{stats.calls} calls, {refused} refused")
        assert refused <= 0.01 * stats.calls
        assert stats.repeated_nonces == 0
        owner = json.loads((place.output / OTHER / ".lock").read_bytes())
        assert owner["pid"] == runs[1].pid


async def test_a_hang_up_stops_in_order(tmp_path: Path) -> None:
    """As a signal to end does: everything is kept, exit 143; a second one, as a shell sends, does not hurry it."""
    async with bench(tmp_path) as place:
        run = await place.start("--dataset", ONE)
        await place.asked(50)
        run.send_signal(signal.SIGHUP)
        run.send_signal(signal.SIGHUP)
        said = await ended(run)
        assert run.returncode == Exit.TERMINATED
        assert "interrupted; everything fetched is kept" in said
        kept = set(place.simulator.stats.pages["wuhan/companies"])
        place.simulator.stats.clear()
        run = await place.start("--dataset", ONE)
        said = await ended(run)
        assert run.returncode == Exit.OK, said
        assert place.complete(ONE)
        assert {page for page in place.simulator.stats.pages["wuhan/companies"] if page <= PAGES}.isdisjoint(kept)


async def test_nohup_is_respected(tmp_path: Path) -> None:
    """Whoever starts it so wants it to go on without a terminal."""
    async with bench(tmp_path) as place:
        run = await place.start("--dataset", ONE, before=("nohup",), stdin=subprocess.DEVNULL)
        await place.asked(50)
        run.send_signal(signal.SIGHUP)
        said = await ended(run)
        assert run.returncode == Exit.OK, said
        assert place.complete(ONE)


async def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """The kernel sends a signal and refuses every further word: what was fetched is kept all the same."""
    async with bench(tmp_path) as place:
        terminal, side = os.openpty()
        try:
            run = await place.start(
                *("--dataset", ONE, "--json"), stdin=side, stdout=side, stderr=side, preexec_fn=lambda: os.login_tty(0)
            )
        finally:
            os.close(side)
        await place.asked(50)
        os.close(terminal)
        async with asyncio.timeout(PATIENCE):
            assert await run.wait() == Exit.TERMINATED
        kept = set(place.simulator.stats.pages["wuhan/companies"])
        result = json.loads(next((place.output / "runs").glob("*/result.json")).read_bytes())
        assert result["exit"] == Exit.TERMINATED
        assert result["datasets"][0]["pages"] == len([page for page in kept if page <= PAGES])
        run = await place.start("--dataset", ONE)
        await ended(run)
        assert run.returncode == Exit.OK
        assert place.complete(ONE)


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
async def test_words_may_be_lost_to_a_full_disk(tmp_path: Path) -> None:
    """What is said goes nowhere, and the mirror is complete."""
    async with bench(tmp_path) as place:
        with FULL.open("wb") as full:  # noqa: ASYNC230 - a device
            run = await place.start("--dataset", ONE, "-v", stderr=full)
            await ended(run)
        assert run.returncode == Exit.OK
        assert place.complete(ONE)


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
async def test_data_may_not_be_lost_to_a_full_disk(tmp_path: Path) -> None:
    """A result that cannot be written is told in words, exit 7; the mirror is complete."""
    async with bench(tmp_path) as place:
        with FULL.open("wb") as full:  # noqa: ASYNC230 - a device
            run = await place.start("--dataset", ONE, "--json", stdout=full)
            said = await ended(run)
        assert run.returncode == Exit.LOCAL
        assert "cannot write standard output: No space left on device" in said
        assert place.complete(ONE)


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of the shards and the index of a snapshot."""
    files = [*sorted(path.glob("part-*")), path / "pages.idx"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def certificate(path: Path) -> dict[str, Any]:
    """Return a snapshot's certificate without the number of calls."""
    found: dict[str, Any] = json.loads((path / "datapackage.json").read_bytes())["harvester"]["certificate"]
    del found["calls"]
    return found


async def test_a_killed_repair_goes_on(tmp_path: Path) -> None:
    """Killed again and again, continued by turns with and without ``--repair``: the published bytes come back."""
    async with bench(tmp_path) as place:
        run = await place.start("--dataset", ONE)
        await ended(run)
        damaged = (place.output / ONE / "current").resolve()
        before = digests(damaged)
        for shard in (0, 2):
            (damaged / f"part-0000{shard}.jsonl").unlink()
        left = digests(damaged)
        place.simulator.stats.clear()
        kill = 0
        for kill in range(20):
            calls = place.simulator.stats.calls
            run = await place.start("--dataset", ONE, *(["--repair"] if kill % 2 == 0 else []))
            exited = asyncio.ensure_future(run.wait())
            while not exited.done() and place.simulator.stats.calls < calls + 45:
                await asyncio.wait({exited}, timeout=0.01)
            if not exited.done():
                await asyncio.wait({exited}, timeout=0.3 * (kill % 4))
            if not exited.done():
                run.kill()
            await ended(run)
            if run.returncode == Exit.OK:
                break
            seen = (place.output / ONE / "current").resolve()
            assert digests(seen) == (left if seen == damaged else before), "all or nothing"
        print(f"{kill} kills")
        assert kill > 0
        mended = (place.output / ONE / "current").resolve()
        assert mended != damaged
        assert digests(mended) == before
        assert certificate(mended) == certificate(damaged)
        asked = place.simulator.stats.pages["wuhan/companies"]
        assert set(asked) == {*range(1, 51), *range(101, 151)}
        assert place.complete(ONE)

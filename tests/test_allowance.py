"""An allowance over many commands, jobs and kills, in processes of their own: never one call too many."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from harvester.errors import Exit
from harvester.simulator import Config, Simulator, jobfile

ALLOWANCE: Final = 20
PAGES: Final = 60
SERVED: Final = {"wuhan": ("companies", 20), "sipop": ("patent.search", 50)}


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str


async def begin(folder: Path, *arguments: object) -> asyncio.subprocess.Process:
    """Start a command as a user does."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harvester", *map(str, arguments)),
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def command(folder: Path, *arguments: object) -> Ended:
    """Let a command come to its end."""
    process = await begin(folder, *arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out, err.decode())


async def kill(folder: Path, *arguments: object, when: Callable[[], bool]) -> None:
    """Kill a command as soon as something is so."""
    process = await begin(folder, *arguments)
    async with asyncio.timeout(20):
        while not when():
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


def write_jobs(folder: Path, simulator: Simulator, platform: str) -> tuple[Path, Path]:
    """Write two job files that mirror the same interface to different places, under different names."""
    name, _ = SERVED[platform]
    one, two = folder / "one.toml", folder / "two.toml"
    for path in (one, two):
        jobfile.write(path, simulator.url, None, {platform: {name: simulator.tables[platform][name]}})
        text = path.read_text().replace('output = "mirror"', f'output = "{path.stem}"')
        path.write_text(f"{text}max_calls = {ALLOWANCE}\n")
    two.write_text(two.read_text().replace(f"{platform}-{name}", "the-same"))
    return one, two


async def ledger(folder: Path, job: Path) -> dict[str, Any]:
    """Return what ``quota`` says of a job's only dataset."""
    said = await command(folder, "quota", job, "--json")
    assert said.code == Exit.OK
    (found,) = json.loads(said.out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("platform", ["wuhan", pytest.param("sipop", marks=pytest.mark.soak)])
async def test_no_call_too_many_whatever_happens(tmp_path: Path, platform: str) -> None:
    """Check, plan, runs of two jobs, a deleted mirror and kills: the server has nothing to refuse.

    The ledger says what the server saw; at most one call a kill, the one that was under way, was counted and not sent.
    """
    rows = PAGES * SERVED[platform][1] - 7
    config = Config(rows=rows, rate_limit=None, latency=0.03, platforms=(platform,), quota=f"{ALLOWANCE}/month")
    async with Simulator(config) as simulator:
        one, two = write_jobs(tmp_path, simulator, platform)
        app = next(app for key, app in simulator.stats.apps.items() if not key.endswith("unsubscribed"))

        def saw(calls: int) -> Callable[[], bool]:
            return lambda: app.accepted >= calls

        assert (await command(tmp_path, "check", one)).code == Exit.OK
        await kill(tmp_path, "plan", one, when=saw(3))
        await kill(tmp_path, "run", one, when=saw(6))
        shutil.rmtree(tmp_path / "one")
        await kill(tmp_path, "run", two, "--fresh", when=saw(10))
        between = await ledger(tmp_path, one)
        assert app.accepted <= between["used"] <= app.accepted + 3
        assert between["left"] == ALLOWANCE - between["used"]

        ended = await command(tmp_path, "run", one)
        assert ended.code == Exit.BUDGET
        assert f"the allowance of {ALLOWANCE} calls is used up, which resets on " in ended.err
        at_the_end = app.calls
        for arguments in (("run", two), ("run", one, "--fresh"), ("plan", two), ("check", one)):
            assert (await command(tmp_path, *arguments)).code == Exit.BUDGET
        assert app.calls == at_the_end

        assert not app.refused
        assert ALLOWANCE - 3 <= app.accepted <= ALLOWANCE
        (used,) = app.quota_used.values()
        assert used == app.accepted
        for job in (one, two):
            told = await ledger(tmp_path, job)
            assert (told["used"], told["left"], told["allowance"]) == (ALLOWANCE, 0, ALLOWANCE)

        if app.accepted < ALLOWANCE:  # what was counted and not sent can be had back
            said = await command(tmp_path, "quota", one, "--set-used", app.accepted)
            assert said.code == Exit.OK
            assert (await command(tmp_path, "run", one)).code == Exit.BUDGET
        assert app.accepted == ALLOWANCE
        assert not app.refused

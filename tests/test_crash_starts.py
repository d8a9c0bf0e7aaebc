"""Many starts at once on one dataset: one runs, the others leave at once; a killed one's place is free at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from harvester.errors import Exit
from harvester.simulator import Config, Simulator, jobfile

STARTS: Final = 20
NAME: Final = "wuhan-companies"
SECONDS: Final = 1.0  # that a refused start may take of a processor of its own
PATIENCE: Final = 60.0  # seconds that everybody together may take of a busy machine
STARTER: Final = """
import os, sys, time
from harvester.__main__ import main
import harvester.cli, harvester.check, harvester.harvest, harvester.job, harvester.status, harvester.terminal, uvloop

gates, pids = [], []
for number in range(int(sys.argv.pop(1))):
    inner, outer = os.pipe()
    pid = os.fork()
    if not pid:
        for gate in gates:
            os.close(gate)
        os.close(outer)
        os.read(inner, 1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        report = os.dup(1)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        began = time.monotonic()
        code = main()
        line = f"{os.getpid()} {int(code)} {time.monotonic() - began} {time.process_time()}\\n"
        os.write(report, line.encode())
        os._exit(0)
    os.close(inner)
    gates.append(outer)
    pids.append(pid)
print(*pids, flush=True)
for line in sys.stdin:
    for number in map(int, line.split()):
        os.close(gates[number])
for pid in pids:
    os.waitpid(pid, 0)
"""
"""Forks processes that have everything imported, and lets them begin ``main`` when their numbers are given to it."""


def owner(output: Path) -> int:
    """Return the process that the lock names; 0 for none."""
    try:
        return int(json.loads((output / NAME / ".lock").read_bytes())["pid"])
    except (OSError, ValueError, KeyError):
        return 0


async def test_one_of_twenty_runs(tmp_path: Path) -> None:
    """The others exit with 8 while it goes on; when it is killed, the next start has the lock."""
    output = tmp_path / "mirror"
    async with Simulator(Config(rows=20 * 2_000, rate_limit=20.0, platforms=("wuhan",))) as simulator:
        job = tmp_path / "job.toml"
        jobfile.write(job, simulator.url, 20.0, simulator.tables)
        arguments = ["run", str(job), "--dataset", NAME, "--output", str(output), "--quiet"]
        starter = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STARTER, str(STARTS + 1), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert starter.stdin
        assert starter.stdout
        pids = [int(pid) for pid in (await starter.stdout.readline()).split()]
        assert len(pids) == STARTS + 1
        alive = set(pids)
        try:
            starter.stdin.write(b"%b\n" % " ".join(map(str, range(STARTS))).encode())
            async with asyncio.timeout(PATIENCE):
                refused = [(await starter.stdout.readline()).split() for _ in range(STARTS - 1)]
            alive -= {int(pid) for pid, *_ in refused}
            assert [int(code) for _, code, *_ in refused] == [Exit.LOCKED] * (STARTS - 1)
            (holder,) = alive - {pids[-1]}
            assert owner(output) == holder
            print(f"refused in {max(float(seconds) for _, _, seconds, _ in refused):.2f} s at most")
            assert max(float(processor) for *_, processor in refused) < SECONDS
            os.kill(holder, signal.SIGKILL)
            alive.discard(holder)
            killed = time.monotonic()
            starter.stdin.write(b"%d\n" % STARTS)
            async with asyncio.timeout(PATIENCE):
                while owner(output) != pids[-1]:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.005)
            print(f"the next had the lock after {time.monotonic() - killed:.2f} s")
        finally:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
            starter.stdin.close()
            await starter.stdout.read()
            assert await starter.wait() == 0

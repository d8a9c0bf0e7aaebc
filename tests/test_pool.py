"""Runs of several processes, as a user starts them: the same bytes, the same limits, and nobody is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from harvester.errors import Exit
from harvester.events import Counts, Events
from harvester.messages import Left, Report
from harvester.pool import Child, Lender, Lent, Pool
from harvester.simulator import Config, Simulator, jobfile
from harvester.simulator.faults import Fault
from harvester.writer import Writer

NAME: Final = "wuhan-companies"
PAGES: Final = 300
SHARD: Final = 25  # pages
PATIENCE: Final = 30.0  # seconds; a run takes a few


class Bench:
    """A simulated platform, a job that mirrors one dataset of it, and what its shards have to be."""

    def __init__(self, simulator: Simulator, job: Path) -> None:
        self.simulator = simulator
        self.job = job

    async def start(self, output: str, processes: int, *options: str, names: Sequence[str] = (NAME,)) -> Run:
        """Start ``harvester run``."""
        command = [sys.executable, "-m", "harvester", "run", str(self.job), "--output", str(self.place(output))]
        command += ["--processes", str(processes), "--quiet", *options]
        command += [word for name in names for word in ("--dataset", name)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        return Run(process, self.place(output))

    def place(self, output: str) -> Path:
        """Return an output folder."""
        return self.job.with_name(output)

    async def asked(self, calls: int) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(PATIENCE):
            while self.simulator.stats.calls < calls:  # noqa: ASYNC110 - the simulator counts, and tells nobody
                await asyncio.sleep(0.005)

    def complete(self, output: str, name: str = NAME) -> bool:
        """Tell whether the dataset is mirrored and published, row for row, and the index right."""
        current = self.place(output) / name / "current"
        platform, _, own = name.partition("-")
        table = self.simulator.tables[platform][own]
        rows = b"".join(shard.read_bytes() for shard in sorted(current.glob("part-*.jsonl")))
        return rows == b"".join(table.row_bytes(row) + b"\n" for row in range(len(table)))

    def digests(self, output: str, name: str = NAME) -> dict[str, str]:
        """Return the SHA-256 of everything published but the data package, which says when it was made."""
        files = (file for file in (self.place(output) / name / "current").iterdir() if file.name != "datapackage.json")
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Run:
    """A run under way."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.output = output

    async def ended(self) -> tuple[int | None, str]:
        """Return the exit status and what was said; nobody of the run's session may be left after it."""
        async with asyncio.timeout(PATIENCE):
            _, said = await self.process.communicate()
            while self.others():  # noqa: ASYNC110 - killed processes take a moment to go, and tell nobody
                await asyncio.sleep(0.01)
        return self.process.returncode, said.decode()

    def others(self) -> list[int]:
        """Return the processes of its session beside itself."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(session) == self.process.pid and int(entry.name) != self.process.pid and state != "Z":
                found.append(int(entry.name))
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind of all runs into this output."""
        logs = sorted((self.output / "runs").glob("*/events.jsonl"))
        told = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return [event for event in told if event["event"] == kind]


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


@asynccontextmanager
async def bench(
    tmp_path: Path,
    limit: float | None = None,
    **settings: Any,  # noqa: ANN401 - those of Config
) -> AsyncIterator[Bench]:
    """Play a platform."""
    config = Config(**{"rows": 20 * PAGES, "rate_limit": limit, "platforms": ("wuhan",), "latency": 0.05, **settings})
    async with Simulator(config) as simulator:
        job = tmp_path / "job.toml"
        jobfile.write(job, simulator.url, limit, simulator.tables)
        job.write_text(f"{job.read_text()}\n[defaults]\nrecheck = 0\n[run]\nrows_per_shard = {20 * SHARD}\n")
        yield Bench(simulator, job)


async def test_as_many_processes_as_you_like_give_the_same_bytes(tmp_path: Path) -> None:
    """One, two and three: the same files, no page asked for twice but at the end, no nonce used twice."""
    async with bench(tmp_path) as place:
        for processes in (1, 2, 3):
            place.simulator.stats.clear()
            run = await place.start(f"m{processes}", processes)
            code, said = await run.ended()
            assert code == Exit.OK, said
            lent = {event["process"] for event in run.events("lent")}
            assert bool(lent) == (processes > 1)
            assert len(lent) < processes
            assert place.complete(f"m{processes}")
            assert place.digests(f"m{processes}") == place.digests("m1")
            assert place.simulator.stats.repeated_nonces == 0
            asked = place.simulator.stats.pages["wuhan/companies"]
            assert {times for page, times in asked.items() if page <= PAGES} == {1}


async def test_failures_are_the_parents(tmp_path: Path) -> None:
    """Calls fail in every process; what children could not get the parent gets, and nothing is lost or doubled."""
    faults = tuple(Fault(kind, 0.01) for kind in ("reset", "cut-length", "502"))
    async with bench(tmp_path, faults=faults, seed=3) as place:
        run = await place.start("m", 3)
        code, said = await run.ended()
        assert code == Exit.OK, said
        assert run.events("lent")
        assert place.complete("m")
        assert place.simulator.stats.repeated_nonces == 0


async def test_returned_pages_wait_for_the_journal() -> None:
    """As long as a child has a block nobody else asks for its pages: the shard's journal has one writer."""
    told: list[str] = []
    frontier = SimpleNamespace(
        put_back=lambda page: told.append(f"back {page}"), returned=lambda: told.append("returned")
    )
    keeper = SimpleNamespace(adopt=lambda shard: told.append(f"adopted {shard}"))
    member: Any = SimpleNamespace(
        counts=Counts(), dataset=SimpleNamespace(name=NAME), frontier=frontier, keeper=keeper, finished=False
    )
    writer = Writer()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = Child(0, ours)
        lender = Lender(Pool([child]), [member], writer, Events(), may=bool, wake=lambda: None, go_on=gone_on)
        lent = Lent(1, member, 4, range(9, 11), 2)
        child._takes[1] = partial(lender._take, lent)
        child._takes[1](Report(number=1, pages=[], calls=3, refused=[("1141", "", 2)], returned=[9, 10]))
        assert (lent.left, member.counts.calls, member.counts.refused, told) == (0, 3, 2, [])
        child._takes[1](Left(1, "HTTP 502"))
        await lender._settle(child, lent)
    writer.stop()
    assert told == ["adopted 4", "back 9", "back 10", "returned"]
    assert not child.busy


async def gone_on(_: object) -> None:
    """Do nothing."""


async def test_limits_are_shared(tmp_path: Path) -> None:
    """Three processes and two apps under one limit each: no second has more calls than one process may make."""
    limit = 250.0
    async with bench(tmp_path, limit=limit, platforms=("wuhan", "sipop"), rows=20 * 200, latency=0.005) as place:
        names = (NAME, "wuhan-investors", next(f"sipop-{name}" for name in place.simulator.tables["sipop"]))
        run = await place.start("m", 3, names=names)
        code, said = await run.ended()
        assert code == Exit.OK, said
        assert {event["dataset"] for event in run.events("lent")} >= {NAME}
        for name in names:
            assert place.complete("m", name)
        stats = place.simulator.stats
        assert stats.repeated_nonces == 0
        print(stats.calls, dict(stats.refused))
        assert sum(stats.refused.values()) <= 0.005 * stats.calls
        for app in stats.apps.values():
            print(app.most_calls, app.most_accepted)
            assert app.most_accepted <= limit
            assert app.most_calls <= 1.01 * limit


@pytest.mark.parametrize("victim", ["parent", "child"])
async def test_killed_and_gone_on_with(tmp_path: Path, victim: str) -> None:
    """A killed process takes the others with it; runs of other numbers of processes go on, page by page."""
    async with bench(tmp_path) as place:
        kept: set[int] = set()
        for number, processes in enumerate((3, 2, 3)):
            place.simulator.stats.clear()
            run = await place.start("m", processes)
            await place.asked(70 + 20 * number)
            child = run.others()[0]
            os.kill(run.process.pid if victim == "parent" else child, signal.SIGKILL)
            if victim == "parent":  # the next run does not wait for anybody
                await run.process.wait()
            else:
                code, said = await run.ended()
                assert code == Exit.LOCAL, said
                assert "a process of this run has ended unexpectedly: signal 9" in said
                assert "Traceback" not in said
            asked = set(place.simulator.stats.pages.get("wuhan/companies", ()))
            assert not kept & asked - {PAGES}
            kept |= durable(run.output)
        run = await place.start("m", 1)
        code, said = await run.ended()
        assert code == Exit.OK, said
        assert place.complete("m")


def durable(output: Path) -> set[int]:
    """Return the pages that the checkpoint of an open snapshot has in sealed shards."""
    found: set[int] = set()
    for path in output.glob(f"{NAME}/2*/checkpoint.json"):
        for entry in json.loads(path.read_bytes())["body"]["sealed"]:
            found |= set(range(entry["first"], entry["last"] + 1))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """The whole group gets the signal, as from a terminal: everything that was asked for is kept, soon."""
    async with bench(tmp_path, limit=150.0) as place:
        run = await place.start("m", 3)
        await place.asked(100)
        began, calls = asyncio.get_running_loop().time(), place.simulator.stats.calls
        os.killpg(run.process.pid, number)
        code, said = await run.ended()
        assert code == (Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED), said
        assert asyncio.get_running_loop().time() - began < 5
        assert "Traceback" not in said
        assert place.simulator.stats.calls - calls <= 40, "blocks are not fetched to their ends"
        kept = {page for page in place.simulator.stats.pages["wuhan/companies"] if page <= PAGES}
        place.simulator.stats.clear()
        run = await place.start("m", 2)
        code, said = await run.ended()
        assert code == Exit.OK, said
        assert place.complete("m")
        assert kept.isdisjoint(place.simulator.stats.pages["wuhan/companies"].keys() - {PAGES})


async def test_an_explicit_number_of_calls_is_shared(tmp_path: Path) -> None:
    """``concurrency`` bounds all processes together; where it leaves a child nothing, that child has no part."""
    async with bench(tmp_path, latency=0.02, rows=20 * 100) as place:
        place.job.write_text(f"{place.job.read_text()}concurrency = 2\n")
        for processes, children in ((2, 1), (3, 0)):
            began = asyncio.get_running_loop().time()
            run = await place.start(f"m{processes}", processes)
            code, said = await run.ended()
            assert asyncio.get_running_loop().time() - began >= 100 * 0.02 / 2
            assert code == Exit.OK, said
            assert place.complete(f"m{processes}")
            assert len({event["process"] for event in run.events("lent")}) == children

"""A real run that is killed, or told by the system that something failed, at each call that changes its output folder.

``strace`` counts the calls of one undisturbed run; then each of them is a point where another run is disturbed, and a
third one has to end with the undisturbed bytes.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import pytest
from model_fs import memory

from harvester.errors import Exit
from harvester.simulator import Config, Simulator, jobfile

NAME: Final = "wuhan-companies"
SNAPSHOT: Final = "20261121T020000Z"
SEED: Final = 20261122
SAMPLE: Final = 12
KILL: Final = "SIGKILL"
ERRORS: Final = ("EIO", "ENOSPC", "EINTR")
PATIENCE: Final = 120.0  # seconds for one run; it takes less than one on an idle machine
CALLS: Final = (
    *("openat", "write", "pwrite64", "writev", "fdatasync", "fsync", "ftruncate", "flock"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "symlink", "symlinkat"),
)
NEVER_INTERRUPTED: Final = ("rename", "unlink", "mkdir", "symlink")
"""The system does not interrupt these, and Python does not begin them anew."""
LINE: Final = re.compile(r'\d+ +(\w+)\((?:(?:AT_FDCWD|\d+)<([^>]*)>)?(?:(?:, )?"([^"]*)")?(?:, "([^"]*)")?')
PROGRAM: Final = f"""
import sys
from datetime import datetime
import harvester.harvest, harvester.writer
from harvester.__main__ import main

class Fixed(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.strptime("{SNAPSHOT}", "%Y%m%dT%H%M%SZ").replace(tzinfo=tz)

harvester.harvest.datetime = Fixed
harvester.writer.INTERVAL, harvester.writer.BATCH = 60.0, 4_000
sys.exit(main())
"""
"""``harvester`` whose snapshot always has the same name, and whose commits follow bytes and not time."""

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Point(NamedTuple):
    """The so-many-th call on a path, which is given as ``strace`` is to look for it."""

    call: str
    path: str
    number: int


class Bench:
    """A simulated platform, a job, and one undisturbed run to compare with."""

    def __init__(self, root: Path, job: Path) -> None:
        self.root = root
        self.job = job
        self.count = 0
        self.expected: dict[str, Any] = {}
        self.points: list[Point] = []

    async def run(self, output: Path, *before: str, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
        """Run ``harvester run``; return its exit code and all that it printed."""
        arguments = ["run", str(self.job), "--dataset", NAME, "--output", str(output), "--quiet"]
        process = await asyncio.create_subprocess_exec(
            *(*before, sys.executable, "-c", PROGRAM, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=prepare,
        )
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    async def measure(self) -> None:
        """Make the undisturbed run and find the points."""
        output, log = self.output(), self.root / "trace"
        code, printed = await self.run(
            output, "strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}"
        )
        assert code == Exit.OK, printed
        self.expected = found(output)
        assert len(self.expected) >= 6  # three shards and more, the index, the data package, the link
        self.points = points(log.read_text(errors="replace"), output)

    def output(self) -> Path:
        """Return a new place for a mirror; all have names of one length, and ``strace`` is told the present one."""
        self.count += 1
        return self.root / f"out-{self.count:05d}"

    async def disturb(self, point: Point, what: str) -> str:
        """Disturb a run at one point and end it with another; return what became of the first."""
        output = self.output()
        path = point.path.replace("OUTPUT", str(output))
        action = f"signal={what}" if what == KILL else f"error={what}"
        quick = () if what == KILL else ("--seccomp-bpf",)  # it lets a killed process live until after the call
        log = self.root / f"{output.name}.trace"
        trace = ("strace", "-f", *quick, "-qq", "-o", str(log), "-P", path, "-e", f"trace={point.call}")
        code, printed = await self.run(output, *trace, "-e", f"inject={point.call}:{action}:when={point.number}")
        reached = code == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")
        log.unlink()
        where = f"{what} at {point}: {code}\n{printed}"
        assert "Traceback" not in printed, where
        if what == KILL and reached:
            assert code == -signal.SIGKILL, where
        elif not reached or (what == "EINTR" and not point.call.startswith(NEVER_INTERRUPTED)):
            assert code == Exit.OK, where
        else:
            assert code == Exit.LOCAL, where
            assert "cannot" in printed, where
        again, printed = await self.run(output)
        assert again == Exit.OK, f"{where}\nthen {again}: {printed}"
        assert found(output) == self.expected, where
        shutil.rmtree(output)
        return "killed" if code < 0 else f"exit {code}" if reached else "not reached"


def points(log: str, output: Path) -> list[Point]:
    """Read what a run has called on its output folder; a call that failed by itself changes nothing and is no point."""
    counted: Counter[tuple[str, str]] = Counter()
    found: list[Point] = []
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None or str(output) not in match[0] or f"{output}/runs/" in match[0]:
            continue
        call, held, name, _ = match.groups()
        path = name if name is not None and call not in {"write", "pwrite64", "writev"} else held
        path = path.replace(str(output), "OUTPUT")
        counted[call, path] += 1
        if not re.search(r"= -1 ", line):
            found.append(Point(call, path, counted[call, path]))
    return found


def found(output: Path) -> dict[str, Any]:
    """Return what must be the same however a run went: SHA-256 of shards and index, the data package but for times."""
    folder = output / NAME
    current = folder / "current"
    assert str(current.readlink()) == SNAPSHOT
    package = orjson.loads((current / "datapackage.json").read_bytes())
    ours = package["harvester"]
    notes, evidence = ours["notes"], ours["certificate"]["evidence"]
    for part in (notes, ours["certificate"]):
        assert part.pop("calls") > 0
        assert part.pop("read")
    # A run that was stopped asks for other pages past the end than one that was not, and draws another seed.
    for part in (notes, ours["end"], evidence["end"]):
        assert part.pop("beyond")
    evidence["read_again"].pop("seed")
    notes.pop("echoes")
    files = sorted(file for file in current.iterdir() if file.name != "datapackage.json")
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    names = sorted(file.name for file in folder.iterdir())
    return {**digests, "datapackage.json": package, "folder": names}


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Play the platform; mirrors lie in memory where the system has such a place."""
    with memory() as root:
        async with Simulator(Config(rows=400, rate_limit=None, platforms=("wuhan",))) as simulator:
            job = root / "job.toml"
            jobfile.write(job, simulator.url, None, simulator.tables)
            job.write_text(job.read_text() + "\n[run]\nrows_per_shard = 120\nconcurrency = 1\n")
            yield Bench(root, job)


async def disturbed(place: Bench, chosen: list[tuple[Point, str]]) -> Counter[tuple[str, str]]:
    """Disturb runs at many points, two at a time; return how they ended."""
    results: Counter[tuple[str, str]] = Counter()
    waiting = iter(chosen)

    async def work() -> None:
        for point, what in waiting:
            results[what, await place.disturb(point, what)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(work())
    return results


@needs_strace
async def test_disturbed_at_some_calls() -> None:
    """Every kind of call once or twice, killed or failing by turns."""
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    async with bench() as place:
        await place.measure()
        chosen = chance.sample(place.points, SAMPLE)
        kinds = [KILL, KILL, KILL, *ERRORS]
        results = await disturbed(place, [(point, kinds[n % len(kinds)]) for n, point in enumerate(chosen)])
        print(f"seed {SEED}, {len(place.points)} points, of them {SAMPLE}: {dict(results)}")
        assert results[KILL, "killed"] >= SAMPLE // 4


@needs_strace
@pytest.mark.soak
@pytest.mark.parametrize("what", [KILL, *ERRORS])
async def test_disturbed_at_every_call(what: str) -> None:
    """All points: killed there, or told that the disk is broken, full, or that a signal came."""
    async with bench() as place:
        await place.measure()
        results = await disturbed(place, [(point, what) for point in place.points])
        print(f"{len(place.points)} points: {dict(results)}")
        assert results[what, "not reached"] < 0.25 * len(place.points)  # commits follow the order of answers


async def test_files_that_may_not_grow() -> None:
    """The system writes a part, then refuses: exit code 7 in words, and the next run goes on from there."""
    async with bench() as place:
        output = place.output()
        assert (await place.run(output))[0] == Exit.OK
        place.expected = found(output)
        for size in (10, 600, 20_000):

            def limit(size: int = size) -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

            output = place.output()
            code, printed = await place.run(output, prepare=limit)
            assert code == Exit.LOCAL, printed
            assert "Traceback" not in printed
            assert os.strerror(errno.EFBIG) in printed
            assert (await place.run(output))[0] == Exit.OK
            assert found(output) == place.expected

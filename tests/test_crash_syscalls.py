"""A real run that is killed, or told by the system that something failed, at each call that changes its output folder.

``strace`` counts the calls of one undisturbed run; then each of them is a point where another run is disturbed, and a
third one has to end with the undisturbed bytes. A write can also be cut short: the program then asks for a part of it.
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
SHORT: Final = "short write"
TORN: Final = "short write, then SIGKILL"
WRITES: Final = ("write", "pwrite64", "writev")
PATIENCE: Final = 120.0  # seconds for one run; it takes less than one on an idle machine
CALLS: Final = (
    *("openat", *WRITES, "fdatasync", "fsync", "ftruncate", "flock", "link", "linkat", "symlink", "symlinkat"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"),
)
RUN: Final = f"runs/{SNAPSHOT}-first"
"""The folder of the disturbed run's log and report, below the output folder."""
REPORT: Final = re.compile(r"\.?(tmp-)?(result\.json|report\.html)")
LINE: Final = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
ARGUMENT: Final = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>|"([^"]*)"')
PROGRAM: Final = f"""
import asyncio, os, secrets, signal, sys
from concurrent.futures import Executor, Future
from datetime import datetime
import harvester.harvest, harvester.writer
from harvester.__main__ import main

class Fixed(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.strptime("{SNAPSHOT}", "%Y%m%dT%H%M%SZ").replace(tzinfo=tz)

class Here(Executor):
    def submit(self, work, *given):
        done = Future()
        try:
            done.set_result(work(*given))
        except BaseException as error:
            done.set_exception(error)
        return done

async def here(work, *given):
    return work(*given)

asyncio.to_thread = here
harvester.writer.ThreadPoolExecutor = lambda *_, **named: Here()
harvester.harvest.datetime = Fixed
harvester.writer.INTERVAL, harvester.writer.BATCH, harvester.writer.PENDING = 60.0, 4_000, 4_000
name, what, point, number = sys.argv[1:5]
del sys.argv[1:5]
write, writes = os.write, 0
secrets.token_hex = lambda _: name

def cut(fd, data):
    global writes
    if os.readlink(f"/proc/self/fd/{{fd}}") != point:
        return write(fd, data)
    writes += 1
    if writes != int(number):
        return write(fd, data)
    taken = write(fd, data[: max(1, len(data) // 2)])
    if what == "{TORN}":
        os.kill(os.getpid(), signal.SIGKILL)
    return taken

if point:
    os.write = cut
sys.exit(main())
"""
"""``harvester`` whose folders have names that are known, and one of whose writes is short if it is told which.

It commits after so many bytes, waits for that, and does so in one thread: ``strace`` counts the calls of each thread.
"""

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Point(NamedTuple):
    """The so-many-th call that names a path, by text or by descriptor, as ``strace`` looks for it."""

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

    async def run(
        self,
        output: Path,
        *before: str,
        name: str = "again",
        short: tuple[str, str, int] = ("", "", 0),
        prepare: Callable[[], None] | None = None,
    ) -> tuple[int, str]:
        """Run ``harvester run``; return its exit code and all that it printed.

        Args:
            output: where to.
            before: the command that runs it, if there is one.
            name: how its folder below ``runs`` is to end.
            short: what kind of short write, on which file, which of the writes on it.
            prepare: called in the new process.
        """
        arguments = ["run", str(self.job), "--dataset", NAME, "--output", str(output), "--quiet"]
        process = await asyncio.create_subprocess_exec(
            *(*before, sys.executable, "-c", PROGRAM, name, *map(str, short), *arguments),
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
        trace = ("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
        code, printed = await self.run(output, *trace, name="first")
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
        if what in {SHORT, TORN}:
            code, printed = await self.run(output, name="first", short=(what, path, point.number))
            reached = what == SHORT or code == -signal.SIGKILL
        else:
            code, printed, reached = await self._injected(output, Point(point.call, path, point.number), what)
        where = f"{what} at {point}: {code}\n{printed}"
        assert "Traceback" not in printed, where
        if reached and what in {KILL, TORN}:
            assert code == -signal.SIGKILL, where
        elif reached and fatal(point, what):
            assert code == Exit.LOCAL, where
            assert "cannot" in printed, where
        else:
            assert code == Exit.OK, where
        again, printed = await self.run(output)
        assert again == Exit.OK, f"{where}\nthen {again}: {printed}"
        assert found(output) == self.expected, where
        shutil.rmtree(output)
        return "killed" if code < 0 else f"exit {code}" if reached else "not reached"

    async def _injected(self, output: Path, point: Point, what: str) -> tuple[int, str, bool]:
        """Have ``strace`` disturb a run; return its exit code, what it printed, and whether the point was reached."""
        action = f"signal={what}" if what == KILL else f"error={what}"
        quick = () if what == KILL else ("--seccomp-bpf",)  # it lets a killed process live until after the call
        log = self.root / f"{output.name}.trace"
        trace = ("strace", "-f", *quick, "-qq", "-o", str(log), "-P", point.path, "-e", f"trace={point.call}")
        inject = f"inject={point.call}:{action}:when={point.number}"
        code, printed = await self.run(output, *trace, "-e", inject, name="first")
        reached = code == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")
        log.unlink()
        return code, printed, reached


def fatal(point: Point, what: str) -> bool:
    """Tell whether an error ends the run: not where the log or the report is written, nor if a signal came.

    A run that cannot make its log does not begin, whatever the reason.
    """
    log = f"OUTPUT/{RUN}/events.jsonl"
    if what == "EINTR":
        return point.call == "mkdir" and (f"{log}/").startswith(f"{point.path}/")
    if point.path.startswith(f"OUTPUT/{RUN}"):
        return point.call == "mkdir" or point == Point("openat", log, 1)
    return what in ERRORS and REPORT.fullmatch(Path(point.path).name) is None


def points(log: str, output: Path) -> list[Point]:
    """Read what a run has called on its output folder; a call that failed by itself changes nothing and is no point."""
    counted: Counter[tuple[str, str]] = Counter()
    found: list[Point] = []
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        call, arguments, answer = match.groups()
        named = ARGUMENT.findall(arguments)[: 1 if call in WRITES else None]
        paths = [(held or name).replace(str(output), "OUTPUT") for held, name in named]
        counted.update((call, path) for path in set(paths))
        if answer != "-1" and any(path.startswith("OUTPUT") for path in paths):
            path = next((name for _, name in reversed(named) if name), "").replace(str(output), "OUTPUT") or paths[0]
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
@pytest.mark.parametrize("what", [KILL, *ERRORS, SHORT, TORN])
async def test_disturbed_at_every_call(what: str) -> None:
    """All points: killed there, told that the disk is broken, full, or that a signal came; or a part is written."""
    async with bench() as place:
        await place.measure()
        cuts = [point for point in place.points if point.call in WRITES and not point.path.endswith("events.jsonl")]
        chosen = cuts if what in {SHORT, TORN} else place.points  # the log is written by other means
        results = await disturbed(place, [(point, what) for point in chosen])
        print(f"{len(chosen)} of {len(place.points)} points: {dict(results)}")
        assert results[what, "not reached"] == 0


async def test_files_that_may_not_grow() -> None:
    """The system writes a part, then refuses: exit code 7 in words, and the next run goes on from there."""
    async with bench() as place:
        output = place.output()
        again = await place.run(output)
        assert again[0] == Exit.OK, again
        place.expected = found(output)
        for size in (10, 600, 20_000):

            def limit(size: int = size) -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

            output = place.output()
            code, printed = await place.run(output, name="first", prepare=limit)
            assert code == Exit.LOCAL, printed
            assert "Traceback" not in printed
            assert os.strerror(errno.EFBIG) in printed
            again = await place.run(output)
            assert again[0] == Exit.OK, again
            assert found(output) == place.expected

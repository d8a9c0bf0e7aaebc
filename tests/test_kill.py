"""A run that is killed at any moment, again and again, ends with the same bytes, and few calls are made twice.

Kills come by chance and are aimed: at a commit, a shard that is being sealed, the publication; at first runs and at
those that continue a killed one, while calls fail now and then. After each kill readers see what was published last.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from harvester.simulator import Config, Simulator, jobfile
from harvester.simulator.faults import Fault
from harvester.store.checkpoint import CHECKPOINT
from harvester.store.folder import CURRENT_LINK, DatasetFolder
from harvester.store.package import PACKAGE
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot
from harvester.writer import INTERVAL

KILLS: Final = int(os.environ.get("KILLS", "200"))
"""Of the long test."""
SEED: Final = 20261122
NAME: Final = "wuhan-companies"
ROWS: Final = 20  # of a page
RATE: Final = 200.0
CONCURRENCY: Final = 16
LATE: Final = 0.5  # seconds that a commit may take, or begin too late on a busy machine
REPEATED: Final = RATE * (INTERVAL + LATE) + CONCURRENCY
"""Pages, at most, that a killed run had asked for and that were not on disk."""
FAULTS: Final = tuple(Fault(kind, 0.003) for kind in ("reset", "reset-in-body", "cut-length", "502"))
LOOK: Final = 0.0005  # seconds between two looks at a folder
AIMS: Final = ("any time", "any time", "commit", "sealing")
PUBLICATION: Final = "publication"


class Bench(NamedTuple):
    """A simulated platform of so many pages, two jobs, of which one reads nothing twice, and an undisturbed mirror."""

    simulator: Simulator
    pages: int
    jobs: tuple[Path, Path]
    calm: Path


class Mirror:
    """A dataset that is mirrored in spite of kills.

    Args:
        bench: where.
        job: which.
        output: where to; a published snapshot may be there.
        aims: what to wait for before each kill.
        chance: how long to wait, and after that how much longer.

    Attributes:
        kills: by what the killed process was doing, as its files say.
        repeated: of each killed run, how many pages it had asked for that were not on disk then.
    """

    def __init__(self, bench: Bench, job: Path, output: Path, aims: Sequence[str], chance: random.Random) -> None:
        self.bench = bench
        self.job = job
        self.output = output
        self.aims = aims
        self.chance = chance
        self.kills: Counter[str] = Counter()
        self.repeated: list[int] = []
        self._folder = DatasetFolder(output / NAME)
        self._older = self._folder.current()
        self._everything = set(range(1, bench.pages + 1))

    async def run(self) -> None:
        """Start it, kill it and continue it until it is published and closed."""
        for number in count():
            before = self._on_disk()
            self.bench.simulator.stats.clear()
            fresh = ["--fresh"] if self._older and self._path() is None else []
            process = await start(self.job, self.output, *fresh)
            exited = asyncio.ensure_future(process.wait())
            if number < len(self.aims):
                await self._wait(exited, self.aims[number])
                if not exited.done():
                    process.send_signal(signal.SIGKILL)
            code = await exited
            self._see_what_readers_see()
            self._count_calls(before)
            if code == 0:
                assert self._folder.current() != self._older
                return
            assert code == -signal.SIGKILL
            self.kills[f"{self._doing()}, {'resumed' if number else 'first'} run"] += 1

    async def _wait(self, exited: asyncio.Future[int], aim: str) -> None:
        """Return when the process is to be killed, or has ended."""
        if aim == "any time":
            await asyncio.wait({exited}, timeout=self.chance.uniform(0, 2.5))
            return
        seen = self._marks(aim)
        while not exited.done() and self._marks(aim) <= seen:  # noqa: ASYNC110 - another process makes them
            await asyncio.sleep(LOOK)
        await asyncio.wait({exited}, timeout=self.chance.choice((0, self.chance.uniform(0, 0.02))))

    def _marks(self, aim: str) -> set[str]:
        """Return what shows in the files that a process is about to do something: more marks appear."""
        names = self._names()
        if aim == "commit":
            return {f"{name} {size}" for name, size in names.items() if name.endswith(".pages")}
        if aim == "sealing":
            return {name for name in names if name.startswith(".tmp-part-") or name.endswith(".jsonl")}
        return {name for name in names if name == f".tmp-{PACKAGE}"} | {f"current {self._folder.current()}"}

    def _path(self) -> Path | None:
        """Return the snapshot that is being made, if there is one."""
        names = [name for name in self._folder.snapshots() if name != self._older]
        return self._folder.path / names[-1] if names else None

    def _names(self) -> dict[str, int]:
        """Return the files of the snapshot that is being made, with their sizes."""
        path, found = self._path(), {}
        for file in path.iterdir() if path else ():
            try:
                found[file.name] = file.stat().st_size
            except FileNotFoundError:  # it has another name by now
                found[file.name] = 0
        return found

    def _on_disk(self) -> set[int]:
        """Return the pages that the snapshot holds, without changing anything."""
        path = self._path()
        if path is None:
            return set()
        if not (path / CHECKPOINT).exists():
            return self._everything
        with Snapshot.open(path) as snapshot:
            return set(snapshot.pages())

    def _doing(self) -> str:
        names = self._names().keys()
        if PACKAGE in names or f".tmp-{PACKAGE}" in names:
            return PUBLICATION
        if any(name.startswith(".tmp-part-") or name.replace(".pages", ".jsonl") in names - {name} for name in names):
            return "sealing"
        return "between commits" if self._on_disk() else "before the first commit"

    def _see_what_readers_see(self) -> None:
        """Whatever is published is whole: the snapshot that ``current.json`` names, and the one that the link shows."""
        current = self._folder.current()
        link = self._folder.path / CURRENT_LINK
        shown = {current} - {None} | ({str(link.readlink())} if link.is_symlink() else set())
        assert current or not shown, "the link shows what current.json does not"
        for name in shown:
            assert set(verify_snapshot(self._folder.path / str(name)).symbols) == {"."}
            assert (self._folder.path / str(name) / PACKAGE).is_file()

    def _count_calls(self, before: set[int]) -> None:
        """Compare what a run has asked for with what was on disk before it and is after it."""
        stats = self.bench.simulator.stats
        asked = stats.pages.get("wuhan/companies", {})
        now = self._on_disk()
        if now == self._everything:  # that is read a second time
            assert sum(max(0, asked.get(page, 0) - 1) for page in before) <= stats.faults.total()
        else:
            again = before & asked.keys() - {self.bench.pages}  # the last page tells where the end is
            assert not again, "a page that was on disk was fetched again"
        self.repeated.append(len(self._everything & asked.keys() - now))
        assert self.repeated[-1] <= REPEATED
        assert stats.repeated_nonces == 0


def digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the published snapshot but the data package, which says when it was made."""
    files = (file for file in (output / NAME / CURRENT_LINK).iterdir() if file.name != PACKAGE)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


async def start(job: Path, output: Path, *options: str) -> asyncio.subprocess.Process:
    """Start ``harvester run`` as a user does."""
    arguments = ["-m", "harvester", "run", str(job), "--dataset", NAME, "--output", str(output), "--quiet", *options]
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)


@asynccontextmanager
async def bench(root: Path, pages: int) -> AsyncIterator[Bench]:
    """Play the platform, and mirror it once without a disturbance."""
    config = Config(
        rows=pages * ROWS, rate_limit=RATE, platforms=("wuhan",), latency=0.005, jitter=0.02, faults=FAULTS, seed=SEED
    )
    async with Simulator(config) as simulator:
        jobs = root / "job-0.toml", root / "job-1.toml"
        for job, recheck in zip(jobs, ("", "[defaults]\nrecheck = 0\n"), strict=True):
            jobfile.write(job, simulator.url, RATE, simulator.tables)
            run = f"[run]\nrows_per_shard = 3_000\nconcurrency = {CONCURRENCY}\n"
            job.write_text(f"{job.read_text()}\n{run}\n{recheck}")
        assert await (await start(jobs[1], root / "calm")).wait() == 0
        yield Bench(simulator, pages, jobs, root / "calm")


async def killed(place: Bench, root: Path, kills: int, aims_before: int) -> Counter[str]:
    """Mirror until there were so many kills; return what they hit.

    Each mirror is killed so often before its publication, and as often during it.
    """
    expected = digests(place.calm)
    assert len(expected) > place.pages * ROWS // 3_000
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    hit: Counter[str] = Counter()
    repeated: list[int] = []
    began = time.monotonic()
    for number in count():
        output = root / f"mirror-{number}"
        if number // 2 % 2:  # a snapshot is published already
            shutil.copytree(place.calm, output, symlinks=True)
        aims = [*chance.choices(AIMS, k=aims_before), *[PUBLICATION] * aims_before]
        mirror = Mirror(place, place.jobs[(number + 1) % 2], output, aims[: kills - hit.total()], chance)
        try:
            await mirror.run()
        except BaseException:
            print(f"seed {SEED}, mirror {number}, aims {aims}, so far {dict(mirror.kills)}")
            raise
        assert digests(output) == expected
        hit += mirror.kills
        repeated += mirror.repeated
        shutil.rmtree(output)
        if hit.total() >= kills:
            print(f"{hit.total()} kills in {time.monotonic() - began:.0f} s, {number + 1} mirrors: {dict(hit)}")
            print(f"pages asked for and not on disk: {max(repeated)} at most, {sum(repeated) / hit.total():.0f} a kill")
            return hit
    raise AssertionError


async def test_kills_change_nothing(tmp_path: Path) -> None:
    """A few kills, two of them during the publication."""
    async with bench(tmp_path, 200) as place:
        await killed(place, tmp_path, kills=4, aims_before=2)


@pytest.mark.soak
async def test_many_kills_change_nothing(tmp_path: Path) -> None:
    """As many kills as the variable ``KILLS`` says."""
    async with bench(tmp_path, 600) as place:
        hit = await killed(place, tmp_path, KILLS, aims_before=4)
        for what in (PUBLICATION, "sealing", "between commits"):
            assert hit[f"{what}, resumed run"] >= KILLS // 40

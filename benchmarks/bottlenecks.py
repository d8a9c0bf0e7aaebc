"""Does ``harvester bench`` name what holds a harvest back? Plants one bottleneck after the other and looks.

Every run has a simulator in a process of its own and a few seconds of its harvest. What is planted is drawn anew for
every run: how low the limit, how far the server, how slow the line, how large the pages, how slow the disk.

Caveats: loopback, and the simulator shares the machine; disk and processor are slowed down in this process, by sleeping
as long after every sync as what was written would take, and by parsing every page so many times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, cast

import uvloop

from harvester.bench.diagnosis import Diagnosis, Stage, Work, diagnose
from harvester.bench.load import Bound, Calls, TimedSender
from harvester.bench.scratch import scratch
from harvester.bench.short_harvest import ShortHarvest
from harvester.bench.simulator_process import simulated
from harvester.errors import LocalError
from harvester.job import Job
from harvester.model import Dataset, Page, Platform, Reply, Verdict
from harvester.pace import Pacer
from harvester.platforms import PLATFORMS
from harvester.simulator import Config

NEEDED = 0.95  # of the runs have to name it


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A bottleneck: what is simulated, and how many calls are in flight.

    ``disk`` is in bytes per second, 0 as it is; ``slower`` says how often each page is parsed.
    """

    stage: Stage
    config: Mapping[str, Any]
    words: str
    workers: int = 16
    page_size: int | None = None
    disk: float = 0.0
    slower: int = 1
    method: str = field(default="wuhan-companies")


def permit(draw: Random) -> Plant:
    """Return a limit that is low for a server on the same machine."""
    limit = round(draw.uniform(20, 200))
    return Plant(stage="permit", config={"rate_limit": limit}, words=f"{limit} calls/s")


def first_byte(draw: Random) -> Plant:
    """Return a server so far away that a few calls at once do not use the limit."""
    latency, workers = draw.uniform(0.1, 0.6), draw.randint(4, 16)
    config = {"rate_limit": 300, "latency": latency}
    return Plant(stage="first byte", config=config, workers=workers, words=f"{latency:.2f} s, {workers} at once")


def body(draw: Random) -> Plant:
    """Return a line that carries a fraction of what the limit would allow."""
    bandwidth = draw.uniform(100e3, 400e3)
    return Plant(stage="body", config={"rate_limit": 300, "bandwidth": bandwidth}, words=f"{bandwidth / 1e3:.0f} kB/s")


def parsing(draw: Random) -> Plant:
    """Return a processor that is slow to parse large pages."""
    rows, slower = draw.randint(500, 1500), draw.randint(15, 30)
    config = {"rate_limit": None, "rows": rows}
    words = f"{rows:,} rows a page, {slower} times as slow"
    return Plant(
        stage="parsing",
        config=config,
        workers=8,
        page_size=rows,
        slower=slower,
        words=words,
        method="sipop-patent.search",
    )


def writing(draw: Random) -> Plant:
    """Return a disk that takes less than what comes in."""
    disk, rate = draw.uniform(150e3, 500e3), round(draw.uniform(200, 300))
    return Plant(
        stage="writing", config={"rate_limit": rate}, disk=disk, words=f"{disk / 1e3:.0f} kB/s at {rate} calls/s"
    )


PLANTS: Mapping[str, Callable[[Random], Plant]] = {
    "permit": permit,
    "first byte": first_byte,
    "body": body,
    "parsing": parsing,
    "writing": writing,
}


@contextmanager
def slow_disk(bandwidth: float) -> Iterator[None]:
    """Let a sync take as long as what was written since the last one takes at so many bytes per second."""
    write, syncs, written = os.write, {name: getattr(os, name) for name in ("fsync", "fdatasync")}, 0

    def counted(descriptor: int, data: bytes) -> int:
        nonlocal written
        count = write(descriptor, data)
        written += count
        return count

    def slow(sync: Callable[[int], None]) -> Callable[[int], None]:
        def synced(descriptor: int) -> None:
            nonlocal written
            sync(descriptor)
            pending, written = written, 0
            time.sleep(pending / bandwidth)

        return synced

    os.write = counted  # type: ignore[assignment]  # for the length of the block
    for name, sync in syncs.items():
        setattr(os, name, slow(sync))
    try:
        yield
    finally:
        os.write = write
        for name, sync in syncs.items():
            setattr(os, name, sync)


class Slow:
    """A platform whose answers are parsed several times.

    Args:
        platform: that is passed on.
        times: how often.
    """

    def __init__(self, platform: Platform, times: int) -> None:
        self._platform = platform
        self._times = times

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a platform has
        return getattr(self._platform, name)

    def read(self, dataset: Dataset, reply: Reply) -> Page | Verdict:
        """Parse an answer again and again."""
        for _ in range(self._times - 1):
            self._platform.read(dataset, reply)
        return self._platform.read(dataset, reply)


async def harvest(job: Job, plant: Plant, seconds: float) -> Work:
    """Harvest as ``harvester bench`` does, with as many calls in flight as the plant says."""
    dataset = next(each for each in job.datasets if each.name == plant.method)
    app = dataset.app
    with closing(Pacer(app.rate_limit, 60, time.monotonic)) as pacer:
        async with TimedSender.of(app, job.run.timeout) as sender:
            calls = Calls(
                dataset=dataset,
                platform=cast(Platform, Slow(PLATFORMS[app.platform], plant.slower)),
                sender=sender,
                clock=time.time,
                bound=Bound(),
                ledger=None,
            )
            page = (await calls.make()).page
            if page is None:
                raise LocalError(f"no page: {calls.failures}")
            with scratch(job.output, page, job.run.rows_per_shard, "none") as keep:
                return await ShortHarvest(calls, pacer, keep).run(seconds, plant.workers)


def look(plant: Plant, seconds: float) -> tuple[Work, Diagnosis]:
    """Plant a bottleneck, harvest, and say what it looks like."""
    config = Config(platforms=(plant.method.partition("-")[0],), **plant.config)
    with tempfile.TemporaryDirectory(prefix="bottlenecks-") as name:
        path = Path(name) / "job.toml"
        with simulated(config, path):
            if plant.page_size:
                path.write_text(path.read_text().replace("page_size = 50", f"page_size = {plant.page_size}"))
            with slow_disk(plant.disk) if plant.disk else nullcontext():
                work = uvloop.run(harvest(Job.load(path), plant, seconds))
    return work, diagnose(work)


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(PLANTS)} (all of them)")
    parser.add_argument("--runs", type=int, default=20, help="of each (20)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    options = parser.parse_args()
    packages = ("harvester", "aiohttp", "uvloop", "msgspec", "aiolimiter")
    print(f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages), end="; ")
    print(f"{os.cpu_count()} cores, {options.runs} runs of {options.seconds:g} s")
    results: dict[str, Any] = {}
    for name in options.names or PLANTS:
        found: Counter[str] = Counter()
        runs = []
        for seed in range(options.runs):
            plant = PLANTS[name](Random(f"{name} {seed}"))  # noqa: S311 - to be repeatable
            work, diagnosis = look(plant, options.seconds)
            found[diagnosis.bottleneck] += 1
            shares = ", ".join(f"{stage} {share:.0%}" for stage, share in diagnosis.shares.items() if share > 0.005)  # noqa: PLR2004
            wrong = "" if diagnosis.bottleneck == name else "  WRONG"
            used = f"loop {work.busy / work.seconds:4.0%}, writer {work.committing / (work.seconds + work.drain):4.0%}"
            print(f"  {plant.words:36} {diagnosis.bottleneck:10} {work.rate:6.1f}/s  {used}  {shares}{wrong}")
            runs.append(
                {
                    "planted": plant.words,
                    "named": diagnosis.bottleneck,
                    "shares": {str(stage): share for stage, share in diagnosis.shares.items()},
                }
            )
        passed = found[name] >= NEEDED * options.runs
        print(f"{name}: named in {found[name]} of {options.runs}{'' if passed else '  FAIL'}", flush=True)
        results[name] = {"named": found[name], "of": options.runs, "passed": passed, "runs": runs}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The whole tool in one minute: both platforms simulated on loopback, one dataset of each mirrored and verified."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from msgspec import Struct

from harvester.errors import Exit
from harvester.events import Events
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.report import Result
from harvester.simulator import Config, Simulator, jobfile
from harvester.store.durable import make_folder
from harvester.store.folder import DatasetFolder
from harvester.store.verify import Verification, verify_snapshot

ROWS: Final = 4_860  # no number at which servers cut lists off
DATASETS: Final = ("wuhan-companies", "sipop-patent.search")


class Demo(Struct, frozen=True):
    """What a demonstration brought."""

    result: Result
    verified: dict[str, Verification]


async def demo(output: Path, events: Events, interrupt: asyncio.Future[Exit] | None = None) -> Demo:
    """Simulate, mirror, verify.

    Args:
        output: folder for the job file and the mirror; an earlier demonstration in it gets one more snapshot.
        events: told of everything.
        interrupt: see ``harvest.mirror``.
    """
    config = Config(rows=ROWS)
    make_folder(output)
    async with Simulator(config) as simulator:
        path = output / "job.toml"
        jobfile.write(path, simulator.url, config.rate_limit, simulator.tables)
        job = Job.load(path)
        result = await mirror(job, Options(fresh=True, datasets=DATASETS), events=events, interrupt=interrupt)
    verified = {}
    for name in DATASETS:
        folder = DatasetFolder(job.output / name)
        current = folder.current()
        if current is not None:
            verified[name] = verify_snapshot(folder.path / current)
    return Demo(result, verified)

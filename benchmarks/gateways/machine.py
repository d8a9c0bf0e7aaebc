"""What a wrong clock does to ``harvester run``, and what a call costs of the processor."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from contenders import SERVICES, Task, bare, failure, rows_held, run_command, started
from finding import Case, Result, at_least, at_most
from processes import GatewayError
from servers import HERE, Setting, Simulated, logged, simulator
from static import Settings

HOUR = 3600  # seconds
PACE = 0.975  # of the limit; what harvester keeps to unless told otherwise


def clock(settings: Settings, folder: Path) -> Iterator[Result]:
    """Let this machine's clock be an hour off, from the start or from the middle of a run on."""
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        raise GatewayError("libfaketime is not where Debian's package faketime puts it")
    length = 6 if settings.quick else 12
    for name, first, then in (
        ("+1 h", "+3600", None),
        ("-1 h", "-3600", None),
        ("a step of +1 h", "+0", "+3600"),
        ("a step of -1 h", "+0", "-3600"),
    ):
        case = Case("clock", name)
        home = Path(tempfile.mkdtemp(dir=folder))
        (home / "clock").write_text(f"{first}\n")
        environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(home / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        pages = round(settings.limit * length)
        with simulator(home, pages, ["--rate-limit", f"{settings.limit:g}"]) as address:
            server = Simulated(f"{address}/ebus/kftp/v1/service/", address)
            task = Task(url=server.url, limit=settings.limit, pages=pages, folder=home, scrapy="")
            began = time.monotonic()
            with started(run_command(task, SERVICES[0]), home, home / "state", environment) as process:
                if then is not None:
                    time.sleep(length / 2)
                    (home / "clock.new").write_text(f"{then}\n")
                    (home / "clock.new").replace(home / "clock")
                finished = process.wait(length * 5 + 30) == 0
            took = time.monotonic() - began
            stats = server.stats()
        codes: dict[str, int] = stats["refused"]
        yield case.finding("its clock was off in the end by", clock_error(home), "s", at_least(HOUR - length * 5))
        yield case.finding("ended well", float(finished), "1 is yes", at_least(1))
        yield case.finding("rows lost", rows_held(task).lost, "rows", at_most(0))
        yield case.finding("signatures refused", codes.get("1433", 0), "calls", at_most(1))
        yield case.finding("refused for the rate", codes.get("1141", 0), "calls", at_most(0))
        even = pages / (settings.limit * PACE)
        yield case.finding("longer than evenly paced, with start", took - even, "s", at_most(10))


def cpu(settings: Settings, folder: Path) -> Iterator[Result]:
    """Compare the processor time of a paced call with that of a bare loop; the start is taken out by two lengths."""
    lengths = (2, 6) if settings.quick else (3, 23)
    case = Case("cpu", f"{settings.limit:g} calls per second, no refusals")
    used: dict[str, list[float]] = {"run": [], "bare": []}
    for length in lengths:
        pages = round(settings.limit * length)
        for who, seconds in used.items():
            home = Path(tempfile.mkdtemp(dir=folder))
            setting = Setting(limit=settings.limit, pages=pages)
            with logged("nginx-open", home, setting) as server:
                task = Task(url=server.url, limit=settings.limit, pages=pages, folder=home, scrapy="")
                command = run_command(task, SERVICES[0]) if who == "run" else bare(task, settings.limit * PACE, 3)
                before = children_cpu()
                with started(command, home, home / "state") as process:
                    if why := failure(process.wait(5 * length + 30), home):
                        raise GatewayError(f"{who} failed: {why}")
                seconds.append(children_cpu() - before)
    calls = settings.limit * (lengths[1] - lengths[0])
    per_call = {who: (long - short) / calls * 1e6 for who, (short, long) in used.items()}
    yield case.finding("harvester run", per_call["run"], "us per call")
    yield case.finding("bare aiohttp loop", per_call["bare"], "us per call")
    yield case.finding("ratio", per_call["run"] / per_call["bare"], "", at_most(1.15))
    command = [
        sys.executable,
        str(HERE / "pacing_alone.py"),
        "--limit",
        f"{settings.limit:g}",
        "--seconds",
        "4" if settings.quick else "20",
    ]
    alone = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    yield case.finding("pacing alone, uvloop", alone["core_percent"], "% of a core", at_most(3))
    yield case.finding("permits given", alone["permits_per_s"], "per s")


def clock_error(folder: Path) -> float:
    """Return by how many seconds the clock of a run that has just ended differed from this process's."""
    (log,) = folder.glob("mirror/runs/*/events.jsonl")
    told = json.loads(log.read_text().splitlines()[-1])["at"]
    return abs(datetime.fromisoformat(told).timestamp() - time.time())


def children_cpu() -> float:
    """Return the processor seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""Those who are measured, each in a process of its own, and what they hold in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import calls
from measure import PAGE, Held, held
from processes import GatewayError, daemon
from servers import HERE

SERVICES = ("companies", "investors")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a contender is to do: mirror so many pages of ``url`` at ``limit`` a second into ``folder``."""

    url: str
    limit: float
    pages: int
    folder: Path
    scrapy: str  # the interpreter that has Scrapy

    @property
    def out(self) -> Path:
        """Where the simple ones put their rows."""
        return self.folder / "rows.jsonl"


def _whole_second(task: Task) -> list[str]:
    return [*_limiter(task), "--max-rate", f"{task.limit}", "--period", "1"]


def _one_at_a_time(task: Task) -> list[str]:
    return [*_limiter(task), "--max-rate", "1", "--period", f"{1 / task.limit}"]


def bare(task: Task, rate: float, burst: int) -> list[str]:
    """Return the command of the plain loop, paced by a small bucket."""
    return [*_limiter(task), "--max-rate", f"{burst}", "--period", f"{burst / rate}"]


def _limiter(task: Task) -> list[str]:
    return [sys.executable, str(HERE / "limiter_contender.py"), *_common(task)]


def _scrapy(task: Task) -> list[str]:
    return [task.scrapy, str(HERE / "scrapy_contender.py"), *_common(task), "--rate", str(task.limit)]


def _common(task: Task) -> list[str]:
    return ["--url", task.url + SERVICES[0], "--pages", str(task.pages), "--out", str(task.out)]


def _harvester(task: Task) -> list[str]:
    return run_command(task, SERVICES[0])


COMMANDS: Mapping[str, Callable[[Task], list[str]]] = {
    "harvester": _harvester,
    "AsyncLimiter(N,1)": _whole_second,
    "AsyncLimiter(1,1/N)": _one_at_a_time,
    "Scrapy": _scrapy,
}


def run_command(task: Task, *services: str) -> list[str]:
    """Write a job file and return the command of ``harvester run``."""
    job, token = task.folder / "job.toml", task.folder / "token"
    token.touch(0o600)
    token.write_text(calls.TOKEN)
    lines = [
        "[apps.gateway]",
        'platform = "wuhan"',
        f'passid = "{calls.PASSID}"',
        'token = { file = "token" }',
        f'url = "{task.url}"',
        f"rate_limit = {task.limit:g}",
        *(line for name in services for line in (f"[datasets.{name}]", 'app = "gateway"', f'service = "{name}"')),
    ]
    job.write_text("\n".join(lines) + "\n")
    return [sys.executable, "-m", "harvester", "run", str(job), "--quiet", "--json"]


@contextmanager
def started(
    command: Sequence[str], folder: Path, state: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a contender with a state folder of its choice; ends it with the block."""
    environment = {**os.environ, "XDG_STATE_HOME": str(state), **(env or {})}
    with daemon(command, folder / "contender.out", environment) as process:
        yield process


def rows_held(task: Task) -> Held:
    """Compare the rows that a contender holds with those of the dataset."""
    folder = task.folder / "mirror" / SERVICES[0]
    if not folder.exists():
        return held([task.out], task.pages * PAGE)
    snapshots = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    return held((part for path in snapshots for part in path.glob("part-*")), task.pages * PAGE)


def demand_alive(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Raise a ``GatewayError`` if a contender that is to go on has ended."""
    if (code := process.poll()) is not None:
        raise GatewayError(f"harvester run ended early: {failure(code, folder) or 'it was done'}")


def failure(code: int, folder: Path) -> str:
    """Return what a contender said last if it ended badly, else an empty text."""
    if code == 0:
        return ""
    said = (folder / "contender.stderr").read_text().split("\n\nhint:")[0].strip().splitlines() or ["nothing"]
    return f"exit code {code}: {said[-1]}"


def scrapy_version(interpreter: str) -> str | None:
    """Return the version of Scrapy that an interpreter has; None for none."""
    shown = subprocess.run(
        [interpreter, "-c", "import scrapy; print(scrapy.__version__)"], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() if shown.returncode == 0 else None

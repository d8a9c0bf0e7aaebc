"""Every contender in front of every gateway, at a limit that stays."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contenders import COMMANDS, Task, failure, rows_held, started
from measure import Held, Rate
from servers import Setting, gateway

TARGET = (97.0, 0.1)  # percent of the limit accepted at least, percent refused at most
TARGET_KINDS = ("nginx-burst5", "nginx-burst20", "haproxy")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of all benchmarks: calls per second, seconds a cell, seconds of jitter, the interpreter that has Scrapy."""

    limit: float
    seconds: float
    jitter: float
    scrapy: str
    quick: bool


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One contender in front of one gateway; ``held`` is None if it was not done, and ``note`` says why."""

    gateway: str
    contender: str
    rate: Rate
    held: Held | None
    note: str
    passed: bool | None


def cells(kinds: Sequence[str], contenders: Sequence[str], settings: Settings, folder: Path) -> Iterator[Cell]:
    """Measure one pair after the other."""
    for kind in kinds:
        for contender in contenders:
            place = folder / f"{kind}-{list(COMMANDS).index(contender)}".replace(":", "-")
            place.mkdir()
            yield measure(kind, contender, settings, place)


def measure(kind: str, contender: str, settings: Settings, folder: Path) -> Cell:
    """Let a contender mirror somewhat more than it can in the time, then look into the gateway's log."""
    pages = round(settings.limit * (settings.seconds + 2))
    with gateway(kind, folder, Setting(limit=settings.limit, pages=pages, jitter=settings.jitter)) as server:
        task = Task(url=server.url, limit=settings.limit, pages=pages, folder=folder, scrapy=settings.scrapy)
        note = "stopped before it was done"
        with (
            started(COMMANDS[contender](task), folder, folder / "state") as process,
            suppress(subprocess.TimeoutExpired),
        ):
            note = failure(process.wait(3 * settings.seconds + 15), folder)
        seen = server.rate(settings.limit, settings.seconds)
    passed = None
    if contender == "harvester" and kind in TARGET_KINDS:
        passed = seen.of_limit >= TARGET[0] and seen.refused <= TARGET[1]
    held = None if note else rows_held(task)
    return Cell(gateway=kind, contender=contender, rate=seen, held=held, note=note, passed=passed)

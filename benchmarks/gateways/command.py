"""Pacing against real gateways: how much of a rate limit can be had, what is refused on the way, what goes wrong.

Without a name: `static`, every contender in front of every gateway. The other names are trials of `harvester run`
alone; `all` is everything. A run of `static` takes about half an hour, `--quick` a quarter of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from contenders import COMMANDS, scrapy_version
from finding import Chart, Finding, Result
from machine import clock, cpu
from plot import svg
from processes import GatewayError
from servers import kinds, missing, program
from static import Cell, Settings, cells
from trials import adapt, latency, lockout, shared

PACKAGES = ("harvester", "aiohttp", "aiolimiter", "uvloop", "orjson", "msgspec")
CAVEATS = (
    "loopback, no TLS: round trips are far below a millisecond unless --jitter or a trial adds to them",
    "all processes share this machine: a load beside the benchmark shows as jitter",
    "rates are of the first --seconds after the first call, by the gateway's own log; peaks are of the whole log",
    "times in nginx's log are whole milliseconds, so a peak may be one or two calls off",
    "the simulator counts its first second from its first call and tells its peak exactly",
    "the contenders are told how many pages there are; harvester finds the end by itself",
    "AsyncLimiter's refused pages wait for the limiter again at once, as often as it takes",
)
TRIALS: dict[str, tuple[Callable[[Settings, Path], Iterator[Result]], tuple[str, ...]]] = {
    "adapt": (adapt, ("nginx", "haproxy")),
    "shared": (shared, ("nginx", "haproxy")),
    "latency": (latency, ("nginx", "libnginx-mod-http-lua", "haproxy")),
    "lockout": (lockout, ("haproxy",)),
    "clock": (clock, ("faketime",)),
    "cpu": (cpu, ("nginx",)),
}
"""Each trial with the Debian packages that it cannot do without."""
HEADINGS = ("offered/s", "accepted/s", "% of limit", "% refused", "peak 1 s", "first 1 s", "lost", "doubled")


def main() -> None:
    """Measure what was asked for, print it, and write what was asked for."""
    try:
        _measure(_arguments())
    except GatewayError as error:
        sys.exit(f"stopped: {error}")


def _measure(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that servers are stopped then too
    seconds = options.seconds or (4 if options.quick else 20)
    settings = Settings(
        limit=options.limit, seconds=seconds, jitter=options.jitter / 1000, scrapy=options.scrapy, quick=options.quick
    )
    names = ["static", *TRIALS] if "all" in options.names else options.names or ["static"]
    scrapy = scrapy_version(options.scrapy)
    for caveat in CAVEATS:
        print(f"caveat: {caveat}")
    versions = _versions(scrapy)
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{os.cpu_count()} cores; limit {settings.limit:g}/s, jitter {options.jitter:g} ms, {seconds:g} s a cell")
    for package, without in missing().items():
        print(f"Debian's {package} is not installed; left out: {without}")
    if scrapy is None:
        print(f"{options.scrapy} has no Scrapy; left out: that contender")
    measured: list[Cell] = []
    findings: list[Finding] = []
    charts: list[Chart] = []
    with tempfile.TemporaryDirectory(prefix="gateways-") as name:
        folder = Path(name)
        if "static" in names:
            contenders = [each for each in COMMANDS if each != "Scrapy" or scrapy]
            measured = list(_static(_only(kinds(), options.only), _only(contenders, options.only), settings, folder))
            charts = [
                Chart(title=f"{cell.gateway}: {cell.contender}", limit=settings.limit, seconds=cell.rate.seconds)
                for cell in measured
            ]
        for trial in [each for each in TRIALS if each in names]:
            for result in _trial(trial, settings, folder):
                if isinstance(result, Chart):
                    charts.append(result)
                else:
                    findings.append(result)
    if options.json:
        results = {
            "versions": versions,
            "caveats": CAVEATS,
            "settings": asdict(settings),
            "cells": [_cell(cell) for cell in measured],
            "findings": [asdict(finding) for finding in findings],
        }
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.plot:
        options.plot.write_text(svg(charts, "Calls per second, as the gateway saw them"))
    judged = [cell.passed for cell in measured if cell.passed is not None]
    judged += [finding.passed for finding in findings if finding.passed is not None]
    print(f"\n{sum(judged)} of {len(judged)} targets met")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gateways.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: static, {', '.join(TRIALS)}, all")
    parser.add_argument("--limit", type=float, default=300, metavar="N", help="calls per second (300)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each cell of `static` (20)")
    parser.add_argument("--quick", action="store_true", help="4 s a cell, shorter and fewer trials")
    parser.add_argument("--only", action="append", metavar="WORD", help="gateways or contenders (repeatable)")
    parser.add_argument("--jitter", type=float, default=0, metavar="MS", help="a proxy delays each call by 0 to MS")
    parser.add_argument("--scrapy", default=sys.executable, metavar="PYTHON", help="the interpreter that has Scrapy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw what the gateways saw per second")
    options = parser.parse_args()
    if unknown := set(options.names) - {"static", "all", *TRIALS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are static, {', '.join(TRIALS)}, all")
    if options.plot and options.plot.suffix != ".svg":
        parser.error("--plot writes SVG: give the file that ending")
    for word in options.only or ():
        if not any(each.startswith(word) for each in (*kinds(), *COMMANDS)):
            parser.error(f"--only {word}: known are {', '.join((*kinds(), *COMMANDS))}")
    return options


def _only(names: Sequence[str], words: Sequence[str] | None) -> list[str]:
    """Keep the names that begin with one of the words; all of them where no word is about names of this kind."""
    chosen = [name for name in names if any(name.startswith(word) for word in words or ())]
    return chosen or [name for name in names if name != "nginx-open"]


def _static(gateways: Sequence[str], contenders: Sequence[str], settings: Settings, folder: Path) -> Iterator[Cell]:
    print(f"\n{'gateway':16}{'contender':20}" + "".join(f"{heading:>11}" for heading in HEADINGS))
    for cell in cells(gateways, contenders, settings, folder):
        rate, held = cell.rate, cell.held
        kept = (f"{held.lost:>11}{held.doubled:>11}") if held else f"{'-':>11}{'-':>11}"
        print(
            f"{cell.gateway:16}{cell.contender:20}{rate.offered:11.1f}{rate.accepted:11.1f}{rate.of_limit:11.1f}"
            f"{rate.refused:11.2f}{rate.any_second:11}{rate.first_second:11}{kept}{_verdict(cell.passed)}"
            + (f"  {cell.note}" if cell.note else ""),
            flush=True,
        )
        yield cell


def _trial(name: str, settings: Settings, folder: Path) -> Iterator[Result]:
    run, needed = TRIALS[name]
    print(f"\n{name}")
    if lacking := [package for package in needed if package in missing()]:
        print(f"  left out: {', '.join(lacking)} not installed")
        return
    try:
        for result in run(settings, folder):
            if isinstance(result, Finding):
                value = "never" if result.value is None else f"{result.value:,.2f}".rstrip("0").rstrip(".")
                print(
                    f"  {result.case:42}{result.figure:36}{value:>10} {result.unit:22}{result.target:9}"
                    f"{_verdict(result.passed)}",
                    flush=True,
                )
            yield result
    except GatewayError as error:
        print(f"  stopped: {error}")
        yield Finding(trial=name, case="stopped", figure=str(error), value=None, passed=False)


def _verdict(passed: bool | None) -> str:  # noqa: FBT001 - three states: passed, missed, no target
    return {True: "  pass", False: "  FAIL", None: ""}[passed]


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "gateway": cell.gateway,
        "contender": cell.contender,
        **cell.rate._asdict(),
        "rows": cell.held._asdict() if cell.held else None,
        "note": cell.note,
        "passed": cell.passed,
    }


def _versions(scrapy: str | None) -> dict[str, str]:
    found = {"Python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    if scrapy:
        found["Scrapy"] = scrapy
    for name, flag in (("nginx", "-v"), ("haproxy", "-v"), ("faketime", "--version")):
        if path := program(name):
            shown = subprocess.run([path, flag], capture_output=True, text=True, check=True)
            words = (shown.stdout + shown.stderr).replace("/", " ").split()
            found[name] = next((word for word in words if word[:1].isdigit()), "unknown")
    return found


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)

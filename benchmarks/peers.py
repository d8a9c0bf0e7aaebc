"""The same job by harvester and by its peers: rows per second, what is lost or doubled, what a kill costs.

    python benchmarks/peers.py --venvs DIR --install          # every peer in an environment of its own
    python benchmarks/peers.py --venvs DIR --only scrapy --pages 4000 --rounds 1

The job is to have every row of a paged interface on disk as JSON lines: one signed POST a page, with the page's number
in the body, from a page server on this machine (nginx, every page distinct). The parts lie in the folder of the same
name, one script for each peer. How peers fare in front of a rate limit is what ``gateways.py`` tells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("gateways")))
sys.path.insert(0, str(Path(__file__).with_name("pages")))
sys.path.insert(0, str(Path(__file__).with_suffix("")))

from bare import wrk
from bars import Bar, svg
from outcome import MOST, Outcome, Recovery, killed, whole
from processes import GatewayError
from roster import CONTENDERS, OWN, PACKAGES, Contender, install, versions
from served import logged_pages
from server import PAGE
from servers import program

OWN_PACKAGES = ("harvester", "aiohttp", "uvloop", "orjson", "msgspec")
LEAST = 100  # pages of a contender
KILL_PART = 4  # the run that is killed has one fourth of the pages
CAVEATS = (
    "loopback, no TLS, no compression, answers within a millisecond: a real platform's network hides most differences",
    "client and page server share this machine's cores: a contender with threads of its own takes the server's",
    "slow contenders get fewer pages (the column says how many), as nothing but the rate is compared",
    "times are from the first answer to the end of the process: interpreters' starts are not in them, see start.py",
    "64 calls in flight where a contender leaves that to its user; dlt's paginator and singer-sdk send one at a time",
    "bare aiohttp is told how many pages there are and writes nothing; everyone else finds the first empty page",
    "harvester syncs, indexes, hashes, publishes and reads up to 700 pages a second time for its proof; peers write",
    "wrk sends one fixed request again and again, unsigned anew and unparsed: the most that the page server gives",
    "a second run after a kill is the same command again; Scrapy's best then has the job directory it needs for that",
    "rows count as good if number, name and capital belong together; 1.50 may have become 1.5",
)


@dataclass
class Measured:
    """A contender's outcomes, a round each; the rates beside it are harvester's of the same rounds."""

    contender: Contender
    outcomes: list[Outcome] = field(default_factory=list)
    recoveries: list[Recovery | None] = field(default_factory=list)

    def median(self, figure: Callable[[Outcome], float]) -> float:
        """Return the median of a figure."""
        return statistics.median(figure(outcome) for outcome in self.outcomes)

    def ratio(self, other: Measured) -> float:
        """Return the median of the ratios of the rates, round by round."""
        pairs = zip(self.outcomes, other.outcomes, strict=True)
        return statistics.median(mine.rows_per_s / max(1e-9, its.rows_per_s) for mine, its in pairs)


def main() -> None:
    """Measure what was asked for, print it, and write what was asked for."""
    options = _arguments()
    try:
        _measure(options)
    except GatewayError as error:
        sys.exit(f"stopped: {error}")


def _measure(options: argparse.Namespace) -> None:
    for caveat in CAVEATS:
        print(f"caveat: {caveat}")
    found = _peers(options)
    print(", ".join(f"{name} {number}" for name, number in found.items()))
    wanted = [each for each in CONTENDERS if _wanted(each, found, options.only)]
    load = os.getloadavg()
    print(
        f"{os.cpu_count()} cores, load {load[0]:.1f}; {options.pages:,} pages of {PAGE} rows, {options.rounds} rounds"
    )
    everyone = [Measured(contender) for contender in wanted]
    limits: list[float] = []
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        for number in range(options.rounds):
            for measured in everyone[:: -1 if number % 2 else 1]:
                _round(measured, options, Path(tempfile.mkdtemp(dir=name)))
            with logged_pages(Path(name) / f"wrk-{number}", options.pages) as served:
                limits += [most * PAGE for most in [wrk(served.url, 3)] if most]
    print()
    print("\n".join(table(everyone, limits)))
    print()
    print("\n".join(verdicts(everyone)))
    if options.json:
        result = {
            "versions": found,
            "caveats": CAVEATS,
            "cores": os.cpu_count(),
            "load": [load, os.getloadavg()],
            "wrk_rows_per_s": limits,
            "contenders": [_plain(each) for each in everyone],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        options.plot.write_text(svg(bars(everyone, limits), "Good rows per second, medians, lowest to highest"))


def _round(measured: Measured, options: argparse.Namespace, folder: Path) -> None:
    """Measure one contender once; what it has left is removed, so that the disk does not fill."""
    contender = measured.contender
    pages = max(LEAST, options.pages // contender.part)
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    outcome = whole(contender, pages, options.venvs, folder / "whole")
    measured.outcomes.append(outcome)
    if contender.files:
        part = max(LEAST, pages // KILL_PART)
        measured.recoveries.append(killed(contender, part, options.venvs, folder / "killed"))
    shutil.rmtree(folder)
    label = f"{contender.name}, {contender.setting}"
    print(f"  {label:22}{outcome.rows_per_s:12,.0f} rows/s   exit {outcome.code}{_stopped([outcome])}", flush=True)


def table(everyone: Sequence[Measured], limits: Sequence[float]) -> list[str]:
    """Return two tables in Markdown, of whole runs and of those after a kill; processor time and calls are per page."""
    own = _own(everyone)
    lines = [
        "| contender | setting | pages | rows/s | spread | x harvester | us | MiB | calls | lost | doubled | exit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    if limits:
        spread = f"{min(limits):,.0f} to {max(limits):,.0f}"
        lines.append(f"| wrk | limit | | {statistics.median(limits):,.0f} | {spread} | | | | | | | |")
    for each in sorted(everyone, key=lambda one: -one.median(lambda outcome: outcome.rows_per_s)):
        rates = [outcome.rows_per_s for outcome in each.outcomes]
        ratio = f"{each.ratio(own):.3g}" if own else ""
        cells = [
            each.contender.name,
            each.contender.setting,
            f"{each.outcomes[0].pages:,}",
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            ratio,
            f"{each.median(lambda outcome: outcome.cpu_us_per_page):,.0f}",
            f"{each.median(lambda outcome: outcome.peak_mib):,.0f}",
            f"{each.median(lambda outcome: outcome.calls_per_page):.3f}",
            _values([outcome.lost for outcome in each.outcomes]),
            _values([outcome.doubled for outcome in each.outcomes]),
            _values([outcome.code for outcome in each.outcomes]) + _stopped(each.outcomes),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| contender, killed at half | setting | pages | lost | doubled | broken lines | calls | exit |",
        "| --- | --- | ---: | --- | --- | --- | ---: | --- |",
    ]
    for each in everyone:
        after = [recovery for recovery in each.recoveries if recovery]
        if each.recoveries and not after:
            lines.append(
                f"| {each.contender.name} | {each.contender.setting} | done before it could be killed | | | | | |"
            )
        if not after:
            continue
        cells = [
            each.contender.name,
            each.contender.setting,
            f"{after[0].pages:,}",
            _values([recovery.lost for recovery in after]),
            _values([recovery.doubled for recovery in after]),
            _values([recovery.broken for recovery in after]),
            f"{statistics.median(recovery.calls_per_page for recovery in after):.2f}",
            _values([recovery.code for recovery in after]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdicts(everyone: Sequence[Measured]) -> list[str]:
    """Return how harvester, with nothing tuned, stands to its targets."""
    own = _own(everyone)
    if own is None:
        return []
    lines = []
    for name, least in (("bare aiohttp", 0.9), ("rnet", 1.0), ("scrapy", 25.0)):
        for each in everyone:
            if each.contender.name == name and each.contender.setting == "best":
                ratio = own.ratio(each)
                lines.append(
                    f"{OWN} is {ratio:.2f} times {name}: {'pass' if ratio >= least else 'FAIL'} (>= {least:g})"
                )
    return lines


def bars(everyone: Sequence[Measured], limits: Sequence[float]) -> list[Bar]:
    """Return what is to be drawn, the fastest first; who holds nothing has no bar."""
    drawn = [Bar("wrk", "limit", statistics.median(limits), min(limits), max(limits))] if limits else []
    for each in everyone:
        rates = [outcome.rows_per_s for outcome in each.outcomes]
        if min(rates) > 0:
            label = f"{each.contender.name}, {each.contender.setting}"
            drawn.append(Bar(label, each.contender.setting, statistics.median(rates), min(rates), max(rates)))
    return sorted(drawn, key=lambda bar: -bar.median)


def _own(everyone: Sequence[Measured]) -> Measured | None:
    return next((each for each in everyone if each.contender.name == OWN and each.contender.setting == "default"), None)


def _values(numbers: Sequence[int]) -> str:
    """Return one number if all are the same, else the lowest and the highest."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _stopped(outcomes: Sequence[Outcome]) -> str:
    """Say how many runs were stopped from here."""
    number = sum(outcome.stopped for outcome in outcomes)
    return f", {number} stopped after {MOST:.0f} s" if number else ""


def _plain(measured: Measured) -> dict[str, object]:
    return {
        "name": measured.contender.name,
        "setting": measured.contender.setting,
        "advice": measured.contender.advice,
        "outcomes": [asdict(outcome) for outcome in measured.outcomes],
        "recoveries": [recovery and asdict(recovery) for recovery in measured.recoveries],
    }


def _peers(options: argparse.Namespace) -> dict[str, str]:
    """Return all versions; install peers if asked to, name those that are not there."""
    found = {"Python": platform.python_version()} | {name: version(name) for name in OWN_PACKAGES}
    for peer, packages in PACKAGES.items():
        if options.install:
            install(options.venvs, peer)
        its = versions(options.venvs, peer)
        if its is None:
            print(f"{peer} is not installed in {options.venvs / peer}; left out (see --install)")
        else:
            main_package = packages[0].partition("[")[0]
            found[peer if peer != "aiohttp" else "aiohttp (peer)"] = its[main_package]
    if nginx := program("nginx"):
        shown = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True)
        found["nginx"] = shown.stderr.rpartition("/")[2].strip()
    if tool := shutil.which("wrk"):
        shown = subprocess.run([tool, "-v"], capture_output=True, text=True, check=False)
        found["wrk"] = shown.stdout.split()[1]
    else:
        print("wrk is not installed; left out")
    return found


def _wanted(contender: Contender, found: dict[str, str], only: Sequence[str] | None) -> bool:
    if contender.peer and contender.peer not in found and f"{contender.peer} (peer)" not in found:
        return False
    return not only or contender.name == OWN or any(word in contender.name for word in only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=Path("peers-venvs"), help="holds one environment for each peer")
    parser.add_argument("--install", action="store_true", help="make them, with pip")
    parser.add_argument("--pages", type=int, default=20_000, help=f"pages of {PAGE} rows (default 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--only", action="append", metavar="WORD", help="contenders beside harvester (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the rates")
    options = parser.parse_args()
    options.venvs = options.venvs.absolute()
    if options.plot and options.plot.suffix != ".svg":
        parser.error("--plot writes SVG: give the file that ending")
    return options


if __name__ == "__main__":
    main()

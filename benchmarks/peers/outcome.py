"""One contender does the job once, to its end or killed half-way and begun again; what came of it in figures."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from roster import Contender, Errand
from rows import Rows, count
from served import Served, logged_pages
from server import PAGE
from watch import Watched, watch

GATEWAYS = Path(__file__).parent.parent / "gateways"  # for calls.py
MOST = 240.0  # seconds for one run
SIGKILL = -9
SAID = 2000  # characters of complaints that are kept


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one whole run; times are from the first answer to the end of the process, costs include child processes.

    ``said`` is the end of standard error where the exit code is not zero; ``stopped`` if it took longer than ``MOST``.
    """

    pages: int
    seconds: float
    rows_per_s: float
    cpu_us_per_page: float
    peak_mib: float
    calls_per_page: float
    good: int
    lost: int
    doubled: int
    broken: int
    code: int
    stopped: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Of a run that was killed at about half and of the one after it, together; ``killed`` after so many answers."""

    pages: int
    killed: int
    calls_per_page: float
    lost: int
    doubled: int
    broken: int
    code: int


def whole(contender: Contender, pages: int, venvs: Path, folder: Path) -> Outcome:
    """Let a contender do the job."""
    with logged_pages(folder / "server", pages) as served:
        errand = _errand(served, pages, venvs, folder, resumable=False)
        watched = _run(contender, errand, served)
    seen = served.seen()
    began = seen[0][0] if seen else watched.ended
    seconds = watched.ended - began
    rows = _rows(contender, errand)
    return Outcome(
        pages=pages,
        seconds=seconds,
        rows_per_s=rows.good / max(seconds, 1e-3),
        cpu_us_per_page=watched.cpu_since(began) / pages * 1e6,
        peak_mib=watched.peak / 2**20,
        calls_per_page=len(seen) / pages,
        good=rows.good,
        lost=rows.lost,
        doubled=rows.doubled,
        broken=rows.broken,
        code=watched.code,
        stopped=watched.stopped,
        said=(errand.folder / "stderr").read_text(errors="replace")[-SAID:] if watched.code else "",
    )


def killed(contender: Contender, pages: int, venvs: Path, folder: Path) -> Recovery | None:
    """Kill a contender after half of the answers and let it run once more; None if it was done before the kill."""
    with logged_pages(folder / "server", pages) as served:
        errand = _errand(served, pages, venvs, folder, resumable=True)
        first = _run(contender, errand, served, kill_at=pages // 2)
        answers = served.calls()
        second = _run(contender, errand, served)
    rows = _rows(contender, errand)
    if first.code != SIGKILL:
        return None
    return Recovery(
        pages=pages,
        killed=answers,
        calls_per_page=len(served.seen()) / pages,
        lost=rows.lost,
        doubled=rows.doubled,
        broken=rows.broken,
        code=second.code,
    )


def _errand(served: Served, pages: int, venvs: Path, folder: Path, *, resumable: bool) -> Errand:
    place = folder / "work"
    place.mkdir()
    return Errand(url=served.url, pages=pages, folder=place, venvs=venvs, resumable=resumable)


def _run(contender: Contender, errand: Errand, served: Served, kill_at: int = 0) -> Watched:
    """Start the contender with a home of its own, as some of them keep things there."""
    home = errand.folder.parent / "home"
    home.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(GATEWAYS), "HOME": str(home), "XDG_STATE_HOME": str(home)}
    if not contender.peer:
        env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    return watch(contender.command(errand), errand.folder, env, served, most=MOST, kill_at=kill_at)


def _rows(contender: Contender, errand: Errand) -> Rows:
    expected = errand.pages * PAGE
    if contender.files:
        return count(contender.files(errand.folder), expected)
    said = (errand.folder / "stdout").read_text()  # it has counted, and kept nothing
    good = int(json.loads(said)["rows"]) if said else 0
    return Rows(good=good, lost=expected - good, doubled=0, broken=0)

"""What a limit that does not stay, a second process and a slow server do to ``harvester run``.

Each trial starts its own servers and processes and yields findings: a figure and, where there is one, its target.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from contenders import SERVICES, Task, demand_alive, run_command, started
from finding import Case, Result, at_least, at_most, refused, refused_share, share
from measure import Arrival, Second, per_second, settled
from processes import GatewayError
from servers import Logged, Setting, Simulated, logged
from static import Settings

ROUND_TRIP = 0.05  # seconds; of accepted calls, refusals are faster
WARM_UP = 3.0  # seconds that are left out where a steady state is measured
WHOLE = 0.95  # of the limit


Step = tuple[float, Callable[[Logged], None]]
"""Seconds after the first call, and what is done to the gateway then."""
Run = tuple[subprocess.Popen[bytes], Path]
"""A process of ``harvester run``, and the folder that holds what it says."""


# A limit that is not what was configured, or does not stay


def adapt(settings: Settings, folder: Path) -> Iterator[Result]:
    """Configured 300, true 150 and 40; then 300, 100, 300 in one run."""
    kinds = ("haproxy",) if settings.quick else ("haproxy", "nginx-burst20")
    for kind in kinds:
        for true in (round(settings.limit / 2), round(settings.limit * 2 / 15)):
            case = Case("adapt", f"{kind}, true limit {true:g}")
            length = 40 if settings.quick else 60
            arrivals, _ = run_alone(kind, place(folder), settings, length, limit=true)
            seconds = per_second(arrivals, arrivals[0].at, length)
            yield case.finding("refused in the first 30 s", refused(seconds[:30]), "calls", at_most(60))
            yield from steady(case, seconds, true)
    yield from schedule(settings, folder)


def steady(case: Case, seconds: Sequence[Second], limit: float) -> Iterator[Result]:
    """Find when a run settled, and how well it went from then on."""
    since = settled(seconds, limit)
    yield case.finding("settled after", since, "s", at_most(10))
    after = seconds[since:] if since is not None else seconds[len(seconds) // 2 :]
    yield case.finding(
        "accepted from then on" if since is not None else "accepted in the second half",
        share(after, limit),
        "% of the limit",
        at_least(95),
    )
    yield case.finding(
        "refused from then on" if since is not None else "refused in the second half",
        refused_share(after),
        "%",
        at_most(0.2),
    )
    yield case.chart(limit, seconds)


def schedule(settings: Settings, folder: Path) -> Iterator[Result]:
    """Lower the limit to a third in mid-run, then raise it again."""
    low, down, up = round(settings.limit / 3), 10, 40
    length = up + (30 if settings.quick else 70)
    case = Case("adapt", f"haproxy, limit {settings.limit:g}, {low:g}, {settings.limit:g}")
    steps: list[Step] = [
        (down, lambda server: server.set_limit(low)),
        (up, lambda server: server.set_limit(settings.limit)),
    ]
    arrivals, stepped = run_alone("haproxy", place(folder), settings, length, steps=steps)
    lowered = per_second(arrivals, stepped[0], up - down)
    raised = per_second(arrivals, stepped[1], length - up)
    yield case.finding("settled at the lower limit after", settled(lowered, low), "s", at_most(12))
    yield case.finding("refused in those 30 s", refused(lowered), "calls", at_most(100))
    yield case.finding("back above 90 % after", settled(raised, settings.limit), "s", at_most(60))
    yield case.chart(settings.limit, per_second(arrivals, arrivals[0].at, length))


def lockout(settings: Settings, folder: Path) -> Iterator[Result]:
    """Refuse everything for a minute."""
    before, locked = 5, 15 if settings.quick else 60
    length = before + locked + 30
    case = Case("lockout", f"haproxy, everything refused for {locked} s")
    steps: list[Step] = [
        (before, lambda server: server.set_limit(-1)),
        (before + locked, lambda server: server.set_limit(settings.limit)),
    ]
    arrivals, stepped = run_alone("haproxy", place(folder), settings, length, steps=steps)
    sent = sum(stepped[0] <= arrival.at < stepped[1] for arrival in arrivals)
    yield case.finding("calls sent meanwhile", sent, "calls", at_most(20))
    after = per_second(arrivals, stepped[1], length - before - locked)
    yield case.finding("back above 90 % after", settled(after, settings.limit), "s", at_most(15))
    yield case.chart(settings.limit, per_second(arrivals, arrivals[0].at, length))


def latency(settings: Settings, folder: Path) -> Iterator[Result]:
    """Let the server become slow: what it grants does not change."""
    before, length = 5, 25 if settings.quick else 65
    case = Case("latency", "haproxy, 20 ms, then 2 s")
    steps: list[Step] = [(before, lambda server: server.set_latency(2.0))]
    arrivals, stepped = run_alone("haproxy", place(folder), settings, length, steps=steps, delay=0.02)
    after = per_second(arrivals, stepped[0], length - before)
    yield case.finding("at 95 % of the limit after", settled(after, settings.limit, WHOLE), "s", at_most(10))
    yield case.finding(
        "accepted in the second half", share(after[len(after) // 2 :], settings.limit), "% of the limit", at_least(95)
    )
    yield case.finding("refused", refused_share(after), "%", at_most(0.1))
    yield case.chart(settings.limit, per_second(arrivals, arrivals[0].at, length))


# Two processes


def shared(settings: Settings, folder: Path) -> Iterator[Result]:
    """Two runs of one app on one machine; then one is killed."""
    together, alone = (15, 15) if settings.quick else (60, 40)
    for kind in ("haproxy",) if settings.quick else ("haproxy", "nginx-burst20"):
        case = Case("shared", f"{kind}, two processes")
        home = place(folder)
        setting = Setting(limit=settings.limit, pages=pages_for(settings, together + alone), jitter=settings.jitter)
        with ExitStack() as stack:
            server = stack.enter_context(logged(kind, home, setting))
            command = run_command(task_for(server, setting, settings, home), *SERVICES)
            runs: list[Run] = []
            for name in SERVICES:
                (home / name).mkdir()
                process = stack.enter_context(started([*command, "--dataset", name], home / name, home / "state"))
                runs.append((process, home / name))
            began = first_arrivals(server, runs) + WARM_UP
            sleep_until(began + together, runs)
            killed = time.time()
            runs[0][0].kill()
            sleep_until(killed + alone, runs[1:])
        arrivals = server.arrivals()
        seconds = per_second((call for call in arrivals if call.at < killed), began, together)
        halves = [
            sum(began <= call.at < killed and not call.refused and call.path.endswith(name) for call in arrivals)
            for name in SERVICES
        ]
        yield case.finding("both together", share(seconds, settings.limit), "% of the limit", at_least(96))
        yield case.finding("the smaller share", 100 * min(halves) / max(1, sum(halves)), "% of both", at_least(40))
        yield case.finding("refused", refused_share(seconds), "%", at_most(0.1))
        after = per_second(arrivals, killed, alone)
        yield case.finding(
            "the other has the whole limit after", settled(after, settings.limit, WHOLE), "s", at_most(2)
        )
        yield case.chart(settings.limit, per_second(arrivals, began, together + alone))


# What trials share


def run_alone(
    kind: str,
    folder: Path,
    settings: Settings,
    length: float,
    *,
    limit: float | None = None,
    steps: Sequence[Step] = (),
    delay: float = ROUND_TRIP,
) -> tuple[list[Arrival], list[float]]:
    """Run ``harvester run`` for ``length`` seconds from its first call on, and take steps on the way.

    Returns:
        What the gateway saw, and the Unix times of the steps.
    """
    setting = Setting(
        limit=limit or settings.limit, pages=pages_for(settings, length), latency=delay, jitter=settings.jitter
    )
    stepped = []
    with logged(kind, folder, setting) as server:
        task = task_for(server, setting, settings, folder)
        with started(run_command(task, SERVICES[0]), folder, folder / "state") as process:
            runs = [(process, folder)]
            began = first_arrivals(server, runs)
            for after, step in steps:
                sleep_until(began + after, runs)
                stepped.append(time.time())
                step(server)
            sleep_until(began + length, runs)
        return server.arrivals(), stepped


def task_for(server: Logged | Simulated, setting: Setting, settings: Settings, folder: Path) -> Task:
    """Return the task of a run that is told the configured limit, whatever the true one is."""
    return Task(url=server.url, limit=settings.limit, pages=setting.pages, folder=folder, scrapy="")


def pages_for(settings: Settings, length: float) -> int:
    """Return more pages than can be had in so many seconds."""
    return round(settings.limit * (length + 30))


def place(folder: Path) -> Path:
    """Make a folder for a case."""
    return Path(tempfile.mkdtemp(dir=folder))


def first_arrivals(server: Logged, runs: Sequence[Run]) -> float:
    """Wait until every run has called, each a service of its own; returns when the last of them began."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = server.arrivals() if server.log.exists() else []
        first = {call.path: call.at for call in reversed(found)}
        if len(first) >= len(runs):
            return max(first.values())
        for process, folder in runs:
            demand_alive(process, folder)
        time.sleep(0.05)
    raise GatewayError("nobody called within 20 s")


def sleep_until(moment: float, runs: Sequence[Run]) -> None:
    """Sleep until a Unix time; a run that ends meanwhile ends the trial."""
    while (rest := moment - time.time()) > 0:
        for process, folder in runs:
            demand_alive(process, folder)
        time.sleep(min(rest, 0.2))

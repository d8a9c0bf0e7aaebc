"""The command ``bench``: what can I get from this gateway, and what holds me back.

An own gateway, on loopback, is offered ever more until it refuses, and probed for how it counts. A platform is never
offered more than the rate that the job file grants, in as many calls or seconds as the user has said, so its limit is
not observed. Either way a short harvest shows where the time goes. Nothing is written into a mirror.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec.structs import replace

from harvester.bench.measurement import Limits, measure
from harvester.bench.report import Report
from harvester.bench.simulator_process import simulated
from harvester.errors import Exit, UsageError
from harvester.harvest import wanted
from harvester.job import Job, RunSettings
from harvester.model import App, Dataset, Secret
from harvester.platforms import PLATFORMS
from harvester.simulator import WUHAN_PASSID, WUHAN_TOKEN, Config

OWN_SERVICE: Final = "companies"  # that a gateway without a job file is asked for, as simulators serve it


def target(dataset: Dataset) -> str:
    """Return where calls of a dataset go."""
    return PLATFORMS[dataset.app.platform].target(dataset)


def is_own(dataset: Dataset) -> bool:
    """Tell whether calls of a dataset end on this machine: the address does, and nothing leads on from there."""
    app, host = dataset.app, urlsplit(target(dataset)).hostname or ""
    if app.proxy or (app.host and not _is_loopback(urlsplit(f"//{app.host}").hostname or "")):
        return False
    return _is_loopback(host)


def at(dataset: Dataset, url: str) -> Dataset:
    """Return the dataset at another address of the app, which has to be on this machine.

    Raises:
        UsageError: it is not.
    """
    moved = replace(dataset, url="", service=dataset.service or _last(dataset.url)) if dataset.url else dataset
    moved = replace(moved, app=replace(dataset.app, url=url, host=""))
    if urlsplit(url).scheme not in {"http", "https"} or not is_own(moved):
        raise UsageError(
            f"--url is for a gateway of your own on this machine, and {url!r} is not on it",
            hint="for example --url http://127.0.0.1:8080/ebus/kftp/v1/service/; a platform is measured with its job "
            "file and --calls N",
        )
    return moved


def demand_bound(dataset: Dataset, limits: Limits) -> None:
    """Refuse to call somebody else's machine as often as it takes.

    Raises:
        UsageError: neither calls nor seconds are bounded.
    """
    if limits.calls is None and limits.seconds is None:
        address = target(dataset)
        raise UsageError(
            f"{address} is not on this machine, so bench calls it only as often as you say; nothing was sent",
            hint="add --calls N or --seconds N; a simulator is measured without a job file",
        )


def own_job(url: str, service: str) -> Job:
    """Return a job for a gateway of one's own that nobody wrote a job file for: Wuhan's form, made-up credentials."""
    app = App(
        name="own",
        platform="wuhan",
        url=url,
        id=WUHAN_PASSID,
        secret=Secret(WUHAN_TOKEN),
        rate_limit=None,
    )
    dataset = Dataset(name=service, app=app, service=service, page_param=PLATFORMS["wuhan"].PAGE_PARAM)
    here = Path.cwd()
    return Job(path=here, output=here, apps={app.name: app}, datasets=(dataset,), run=RunSettings())


def measured(
    config: Config | None,
    job: Job | None,
    name: str | None,
    url: str | None,
    limits: Limits,
    *,
    run: Callable[[Coroutine[Any, Any, Report | Exit]], Report | Exit],
    agreed: Callable[[str], bool] | Literal[True],
    tell: Callable[[str], None],
) -> Report | Exit:
    """Measure a simulation, an own gateway or a platform, whichever is asked for.

    Args:
        config: of a simulation that is to be measured; None for another gateway.
        job: the job of that gateway, if it has one.
        name: of the dataset; None for the first one.
        url: an own gateway instead of the job's address.
        limits: what the caller allows.
        run: runs a coroutine to its end.
        agreed: asks whether a platform may be called, or knows that it may.
        tell: is told what goes on.

    Raises:
        UsageError: what is asked for does not go together, or a platform must not be called so.
    """
    with ExitStack() as stack:
        if config is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harvester-bench-")))
            stack.enter_context(simulated(config, folder / "job.toml"))
            job = Job.load(folder / "job.toml")
        elif job is None:
            job = own_job(url or "", name or OWN_SERVICE)
        dataset = wanted(job, [name] if name else [])[0]
        if url is not None:
            dataset = at(dataset, url)
        own = is_own(dataset)
        if not own:
            demand_bound(dataset, limits)
            bound = f"{limits.calls:,} calls" if limits.calls else f"calls for {limits.seconds:g} s"
            if agreed is not True and not agreed(f"Send up to {bound} to {target(dataset)}?"):
                tell("nothing was sent")
                return Exit.OK
        return run(stoppable(measure(job, dataset, limits, own=own, tell=tell)))


async def stoppable(work: Coroutine[Any, Any, Report]) -> Report | Exit:
    """Await a measurement, or return the exit code of the signal that ended it; either way it tidies up."""
    task, code = asyncio.ensure_future(work), Exit.OK

    def stop(number: int) -> None:
        nonlocal code
        code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if code is Exit.OK:
            raise
        return code


def _last(url: str) -> str:
    return urlsplit(url).path.rstrip("/").rpartition("/")[2]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

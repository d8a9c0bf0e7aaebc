"""The command ``simulate``: its options, what they make of a simulation, and playing it until a signal comes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from harvester.escape import safe

if TYPE_CHECKING:  # the simulator brings a web server along: too slow for --help
    from harvester.simulator import Config, Fault, Quirks, Simulator

Command = TypeVar("Command", bound=Callable[..., Any])

_SHARE: Final = click.FloatRange(0, 1)
_SECONDS: Final = click.FloatRange(0)
_OPTIONS: Final = (
    click.option(
        "--platform", "platforms", multiple=True, type=click.Choice(["wuhan", "sipop"]), help="Only this one."
    ),
    click.option("--rows", type=click.IntRange(0), default=1_000, show_default=True, help="Rows of each dataset."),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Serve this table: CSV or JSONL, also .gz or .zip.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Other seeds give other rows."),
    click.option(
        "--rate-limit",
        default="300",
        show_default=True,
        metavar="N",
        help='Calls per second per app, or "none"; 300,10:100,40:300 changes it at seconds 10 and 40.',
    ),
    click.option(
        "--limit-kind",
        default="sliding",
        show_default=True,
        metavar="KIND",
        help="sliding, calendar, first-hit, weighted, token:DEPTH, leaky:DEPTH, nginx or nginx:BURST.",
    ),
    click.option(
        "--latency",
        default="0",
        metavar="SECONDS",
        help="Before each answer; may change on schedule as well: 0.02,10:2.",
    ),
    click.option("--jitter", type=_SECONDS, default=0.0, metavar="SECONDS", help="On the way, peak to peak."),
    click.option(
        "--slow-pages",
        type=_SECONDS,
        default=0.0,
        metavar="SECONDS",
        help="More latency per 1,000 of the page number.",
    ),
    click.option(
        "--bandwidth",
        type=click.FloatRange(0),
        default=0.0,
        metavar="BYTES",
        help="Of answers' bodies per second, over all connections together; 0: no bound.",
    ),
    click.option("--quota", default="", metavar="N/day|N/month", help="Calls of each interface or method per app."),
    click.option(
        "--refuse-with",
        type=click.Choice(["code", "429"]),
        default="code",
        show_default=True,
        help="What calls over a limit get: the platform's own code, or HTTP 429.",
    ),
    click.option("--retry-after", default="", metavar="N|date:N", help="With a 429: in so many seconds."),
    click.option("--proxy-errors", type=_SHARE, default=0.0, metavar="SHARE", help="Calls lost to a broken proxy."),
    click.option(
        "--quirk",
        "quirks",
        multiple=True,
        metavar="[NAME:]KEY=VALUE,...",
        help="What is wrong with a dataset, or with all: companies:past_end=last,window=1000; repeat it for more.",
    ),
    click.option(
        "--fault",
        "faults",
        multiple=True,
        metavar="KIND:RATE|KIND:AT:LASTS",
        help="What goes wrong on the wire: reset-in-body:0.01 for a share of the calls, restart:5:20 for all of them "
        "during 20 seconds from second 5 on; repeat it for more.",
    ),
    click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free one."),
)


def simulation_options(command: Command) -> Command:
    """Give a command the options of a simulation, each named as the setting it makes."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def configure(given: dict[str, Any]) -> Config:
    """Make the settings of a simulation from the values of the options.

    Raises:
        click.BadParameter: a value that changes on schedule, a quirk or a fault is not written as one.
        UsageError: a value is out of its range.
    """
    from harvester.simulator import Config  # noqa: PLC0415 - see above

    settings = {**given}
    if not settings["platforms"]:
        del settings["platforms"]  # the setting's default is both
    if settings["rate_limit"] == "none":
        settings["rate_limit"] = None
    else:
        settings["rate_limit"], settings["schedule"] = _steps(settings["rate_limit"], "--rate-limit")
    settings["latency"], settings["latency_schedule"] = _steps(settings["latency"], "--latency")
    settings["quirks"] = _quirks(settings["quirks"])
    settings["faults"] = _faults(settings["faults"])
    return Config(**settings)


def _steps(text: str, option: str) -> tuple[float, tuple[tuple[float, float], ...]]:
    """Read the value of an option that may change on schedule."""
    from harvester.simulator import parse_steps  # noqa: PLC0415 - see above

    try:
        return parse_steps(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _quirks(texts: Sequence[str]) -> dict[str, Quirks]:
    """Read the values of the option for quirks."""
    from harvester.simulator import parse_quirks  # noqa: PLC0415 - see above

    try:
        return parse_quirks(texts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--quirk") from None


def _faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """Read the values of the option for faults."""
    from harvester.simulator import parse_fault  # noqa: PLC0415 - see above

    try:
        return tuple(map(parse_fault, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None


async def play(config: Config, write_job: Path | None) -> None:
    """Serve until SIGINT or SIGTERM: the address to standard output, what is served to standard error."""
    import asyncio  # noqa: PLC0415 - see above
    import signal  # noqa: PLC0415

    from harvester.simulator import serve  # noqa: PLC0415

    def ready(simulator: Simulator) -> None:
        click.echo(simulator.url)
        for platform, tables in simulator.tables.items():
            served = ", ".join(f"{name} ({len(table):,} rows)" for name, table in tables.items())
            click.echo(safe(f"{platform}: {served}"), err=True)
        if write_job:
            click.echo(safe(f"next, in another terminal: harvester run {shlex.quote(str(write_job))}"), err=True)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.ensure_future(serve(config, write_job, ready))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, stopping):
        task.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    try:
        await serving
    except asyncio.CancelledError:
        return

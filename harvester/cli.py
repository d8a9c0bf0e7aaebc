"""Arguments to calls, results to words, errors to exit codes. What a command does stands elsewhere."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from harvester import __version__
from harvester.errors import Exit, HarvesterError, LocalError, UsageError, worst
from harvester.terminal import columns, safe

if TYPE_CHECKING:  # each command imports what it needs, so that --help and errors come at once
    from harvester.job import Job
    from harvester.report import Result
    from harvester.store.verify import Verification

T = TypeVar("T")
PATH: Final = click.Path(path_type=Path)
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on standard output.")
CSV: Final = click.option("--csv", "as_csv", is_flag=True, help="A table with commas on standard output.")


def run() -> int:
    """Run the command line; every error becomes one message and the documented exit code."""
    try:
        return int(main(prog_name="harvester", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except click.Abort:
        say("interrupted")
        return Exit.INTERRUPTED
    except HarvesterError as error:
        say(f"error: {error}")
        return error.exit
    except Exception:  # noqa: BLE001 - the last resort: say so and ask for a report
        traceback.print_exc()
        say("\nerror: this should not happen; please report it with the lines above")
        return Exit.UNEXPECTED


def say(text: str) -> None:
    """Print words for people."""
    for line in text.split("\n"):
        click.echo(safe(line), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Every command: harvester COMMAND --help")
@click.version_option(__version__, prog_name="harvester")
def main() -> None:
    """Mirror whole datasets from signed, rate-limited, paginated open-data platforms.

    \b
    Example, without a key or a network:
        harvester demo
    """  # noqa: D301 - \b is click's


@main.command("run")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--fresh", is_flag=True, help="Start a new snapshot now, whatever is there.")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@click.option("--output", type=PATH, metavar="DIR", help="Instead of the job file's `output`.")
@click.option("--max-pages", type=click.IntRange(1), metavar="N", help="Stop after N pages of this run.")
@click.option("--max-calls", type=click.IntRange(1), metavar="N", help="Stop after N calls of this run.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Every event.")
@JSON
def run_(  # noqa: PLR0913 - one argument per option
    job_file: Path,
    *,
    fresh: bool,
    datasets: tuple[str, ...],
    output: Path | None,
    max_pages: int | None,
    max_calls: int | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Mirror: continue an open snapshot, start the first one, or say how old the mirror is.

    \b
    Example:
        harvester run job.toml
        harvester run job.toml --dataset investors --fresh
    """  # noqa: D301 - \b is click's
    from harvester.harvest import Options, mirror  # noqa: PLC0415

    job = _load(job_file, output=output)
    options = Options(fresh=fresh, datasets=datasets, max_pages=max_pages, max_calls=max_calls)
    result = _with_progress(
        lambda events, interrupt: mirror(job, options, events=events, interrupt=interrupt), quiet=quiet, verbose=verbose
    )
    if as_json:
        _print_json(result)
    again = [f"--output {output}"] * bool(output) + [f"--dataset {name}" for name in datasets]
    _say_result(result, " ".join([f"harvester run {job_file}", *again]))
    return result.exit


@main.command()
@click.option("--output", type=PATH, default=Path("harvester-demo"), show_default=True, metavar="DIR")
@click.option("--quiet", is_flag=True, help="No progress.")
@JSON
def demo(*, output: Path, quiet: bool, as_json: bool) -> int:
    """Mirror a simulated dataset of each platform, verify it, and say what to do next. No key, no network.

    \b
    Example:
        harvester demo
    """  # noqa: D301 - \b is click's
    from harvester.demo import demo as play  # noqa: PLC0415

    shown = _with_progress(lambda events, interrupt: play(output, events, interrupt), quiet=quiet, verbose=False)
    if as_json:
        _print_json(shown.result)
    _say_result(shown.result, "harvester demo")
    for name, verification in shown.verified.items():
        say(f"{name}: verified {_verified(verification)}")
    say(
        "\nNext: play both platforms in one terminal and mirror them from another, interrupting as you like\n"
        "  harvester simulate --rows 200000 --write-job job.toml\n"
        "  harvester run job.toml"
    )
    return worst([shown.result.exit, *(verification.exit for verification in shown.verified.values())])


@main.command()
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@CSV
@JSON
def check(job_file: Path, *, datasets: tuple[str, ...], as_csv: bool, as_json: bool) -> int:
    """Make one signed call per dataset: credentials, clock, page size, total, first row.

    \b
    Example:
        harvester check job.toml
    """  # noqa: D301 - \b is click's
    from harvester.check import check as look  # noqa: PLC0415
    from harvester.check import exit_of  # noqa: PLC0415
    from harvester.harvest import wanted  # noqa: PLC0415

    job = _load(job_file)
    findings = _run(look(job, wanted(job, datasets)))
    fields = ("dataset", "app", "state", "code", "page_size", "total", "clock_offset", "first_row")
    _print_table(fields, findings, as_csv=as_csv, as_json=as_json)
    for finding in findings:
        if finding.message:
            say(f"\n{finding.dataset}: {finding.message}" + (f"\nhint: {finding.hint}" if finding.hint else ""))
    code = exit_of(findings)
    say(
        f"\n{sum(f.exit is Exit.OK for f in findings)} of {len(findings)} datasets can be mirrored"
        + (f"; next: harvester run {job_file}" if code is Exit.OK else "")
    )
    return code


@main.command()
@click.argument("path", metavar="JOB_OR_DIR", type=PATH)
@CSV
@JSON
def status(path: Path, *, as_csv: bool, as_json: bool) -> int:
    """Say what is mirrored, how old it is, what is open, and the next command. Sends nothing.

    \b
    Example:
        harvester status job.toml
        harvester status mirror
    """  # noqa: D301 - \b is click's
    from harvester.status import dataset_folders, states  # noqa: PLC0415

    if path.is_dir():
        folders, command = dataset_folders(path), "harvester run JOB"
    else:
        job = _load(path, secrets=False)
        folders, command = [job.output / dataset.name for dataset in job.datasets], f"harvester run {path}"
    found = states(folders, command, datetime.now(UTC))
    fields = ("dataset", "published", "verdict", "rows", "age_hours", "open", "open_pages_kept", "open_pages_in_all")
    _print_table(fields, found, as_csv=as_csv, as_json=as_json)
    for state in found:
        say(f"{state.dataset}: {state.problem + '; ' if state.problem else ''}next: {state.next}")
    if not found:
        say(f"nothing is mirrored in {path} yet")
    return Exit.LOCAL if any(state.problem for state in found) else Exit.OK


@main.command()
@click.argument("path", metavar="DIR", type=PATH)
@JSON
def verify(path: Path, *, as_json: bool) -> int:
    """Compare shards with what was recorded of them: digests, rows, pages, gaps.

    One symbol per shard: . good, X damaged, ? missing, o open pages, + extra file.

    \b
    Example:
        harvester verify mirror
        harvester verify mirror/investors
    """  # noqa: D301 - \b is click's
    from msgspec.structs import asdict  # noqa: PLC0415

    from harvester.status import dataset_folders  # noqa: PLC0415
    from harvester.store.verify import is_snapshot, snapshots_in, verify_snapshot  # noqa: PLC0415

    found: dict[str, Verification] = {}
    problems: list[HarvesterError] = []
    for folder in [path] if is_snapshot(path) else dataset_folders(path):
        try:
            for place in snapshots_in(folder):
                verification = found[str(place)] = verify_snapshot(place)
                if not as_json:
                    click.echo(f"{place}  {_verified(verification)}")
                for shard in verification.shards:
                    for reason in shard.reasons:
                        say(f"  {shard.name}: {reason}")
        except LocalError as error:  # the other datasets are looked at all the same
            problems.append(error)
            say(f"error: {error}")
    if not found and not problems:
        raise UsageError(f"there is no snapshot in {path}", hint="name the mirror, a dataset in it, or a snapshot")
    if as_json:
        _print_json(
            {place: {**asdict(item), "symbols": item.symbols, "exit": item.exit} for place, item in found.items()}
        )
    code = worst([*(item.exit for item in found.values()), *(error.exit for error in problems)])
    said = {Exit.OK: "no damage found", Exit.OPEN_PAGES: "open pages: run the job again"}
    say(said.get(code, "damage found: run the job again with --fresh for the datasets named above"))
    return code


@main.command()
@click.option("--platform", "platforms", multiple=True, type=click.Choice(["wuhan", "sipop"]), help="Only this one.")
@click.option("--rows", type=click.IntRange(0), default=1_000, show_default=True, help="Rows of each dataset.")
@click.option("--data", type=PATH, metavar="FILE", help="Serve this table: CSV or JSONL, also .gz or .zip.")
@click.option("--seed", type=int, default=0, show_default=True, help="Other seeds give other rows.")
@click.option(
    "--rate-limit",
    default="300",
    show_default=True,
    metavar="N",
    help='Calls per second per app, or "none"; 300,10:100,40:300 changes it at seconds 10 and 40.',
)
@click.option(
    "--limit-kind",
    default="sliding",
    show_default=True,
    metavar="KIND",
    help="sliding, calendar, first-hit, weighted, token:DEPTH, leaky:DEPTH, nginx or nginx:BURST.",
)
@click.option(
    "--latency", default="0", metavar="SECONDS", help="Before each answer; may change on schedule as well: 0.02,10:2."
)
@click.option("--jitter", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="On the way, peak to peak.")
@click.option(
    "--slow-pages",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="More latency per 1,000 of the page number.",
)
@click.option("--quota", default="", metavar="N/day|N/month", help="Calls of each interface or method per app.")
@click.option(
    "--refuse-with",
    type=click.Choice(["code", "429"]),
    default="code",
    show_default=True,
    help="What calls over a limit get: the platform's own code, or HTTP 429.",
)
@click.option("--retry-after", default="", metavar="N|date:N", help="With a 429: in so many seconds.")
@click.option(
    "--proxy-errors", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE", help="Calls lost to a broken proxy."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free one.")
@click.option("--write-job", type=PATH, metavar="PATH", help="Write a job file that `run` can use at once.")
def simulate(  # noqa: PLR0913 - one argument per option
    *,
    platforms: tuple[str, ...],
    rows: int,
    data: Path | None,
    seed: int,
    rate_limit: str,
    limit_kind: str,
    latency: str,
    jitter: float,
    slow_pages: float,
    quota: str,
    refuse_with: Literal["code", "429"],
    retry_after: str,
    proxy_errors: float,
    port: int,
    write_job: Path | None,
) -> int:
    """Play both platforms on loopback, as strict as the real ones, until interrupted.

    \b
    Example:
        harvester simulate --rows 200000 --write-job job.toml
        harvester simulate --data flights.csv.zip --rate-limit none
    """  # noqa: D301 - \b is click's
    from harvester.simulator import Config, Simulator, serve  # noqa: PLC0415

    limit, schedule = (None, ()) if rate_limit == "none" else _steps(rate_limit, "--rate-limit")
    first_latency, latency_schedule = _steps(latency, "--latency")
    given: dict[str, Any] = {"platforms": platforms} if platforms else {}
    config = Config(
        rows=rows,
        data=data,
        seed=seed,
        rate_limit=limit,
        limit_kind=limit_kind,
        schedule=schedule,
        latency=first_latency,
        latency_schedule=latency_schedule,
        jitter=jitter,
        slow_pages=slow_pages,
        quota=quota,
        refuse_with=refuse_with,
        retry_after=retry_after,
        proxy_errors=proxy_errors,
        port=port,
        **given,
    )

    def ready(simulator: Simulator) -> None:
        click.echo(simulator.url)
        for platform, tables in simulator.tables.items():
            say(f"{platform}: " + ", ".join(f"{name} ({len(table):,} rows)" for name, table in tables.items()))
        if write_job:
            say(f"next, in another terminal: harvester run {write_job}")

    async def until_stopped() -> None:
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

    _run(until_stopped())
    return Exit.OK


# What commands share


def _steps(text: str, option: str) -> tuple[float, tuple[tuple[float, float], ...]]:
    """Read the value of an option that may change on schedule."""
    from harvester.simulator import parse_steps  # noqa: PLC0415

    try:
        return parse_steps(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _load(path: Path, *, output: Path | None = None, secrets: bool = True) -> Job:
    from msgspec.structs import replace  # noqa: PLC0415

    from harvester.job import Job  # noqa: PLC0415

    job = Job.load(path, secrets=secrets)
    for warning in job.warnings:
        say(f"warning: {warning}")
    return replace(job, output=output.absolute()) if output else job


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _with_progress(
    work: Callable[[Any, asyncio.Future[Exit]], Coroutine[Any, Any, T]], *, quiet: bool, verbose: bool
) -> T:
    """Run something that tells events, showing them; the first signal stops in order, the second at once."""
    from harvester.events import Events  # noqa: PLC0415
    from harvester.terminal import Progress  # noqa: PLC0415

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        interrupt: asyncio.Future[Exit] = loop.create_future()

        def stop(code: Exit) -> None:
            if interrupt.done():
                os._exit(code)  # what is durable stays, whenever this happens
            interrupt.set_result(code)
            say("\nstopping: calls in flight may finish (at most 5 s); once more to leave at once")

        for number, code in ((signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)):
            loop.add_signal_handler(number, stop, code)
        events = Events()
        with Progress(events, sys.stderr, quiet=quiet, verbose=verbose) as progress:
            events.add(progress)
            return await work(events, interrupt)

    return _run(watched())


def _say_result(result: Result, command: str) -> None:
    """Say verdict, rows, place and the next command of every dataset; the run's own last."""
    say("")
    for entry in result.datasets:
        verdict = entry.verdict or "not finished"
        said = f"{entry.name}: {verdict}, {entry.rows:,} rows"
        say(
            said
            + (
                f" in {entry.pages:,} pages; {entry.calls:,} call{'s'[: entry.calls != 1]} in this run"
                if entry.calls
                else ""
            )
        )
        for text in (entry.why, entry.hint and f"hint: {entry.hint}", entry.snapshot and _near(entry.snapshot)):
            if text:
                say(f"  {text}")
    say(f"{sum(entry.rows for entry in result.datasets):,} rows in all; report: {_near(result.path)}/report.html")
    done = result.exit is Exit.OK
    say(f"next: {f'harvester verify {_near(Path(result.path).parents[1])}' if done else command}")


def _near(path: str | Path) -> str:
    """Return a path as short as it can be written from here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _verified(verification: Verification) -> str:
    return f"{verification.symbols}  {verification.pages:,} pages, {verification.rows:,} rows"


def _print_table(fields: Sequence[str], found: Sequence[Any], *, as_csv: bool, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    rows = [[_cell(getattr(item, field)) for field in fields] for item in found]
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([fields, *([safe(cell) for cell in row] for row in rows)])
    elif rows:
        for line in columns([[field.replace("_", " ") for field in fields], *rows]):
            click.echo(line)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _print_json(value: object) -> None:
    import msgspec  # noqa: PLC0415

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))

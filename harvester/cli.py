"""Arguments to calls, results to words, errors to exit codes. What a command does stands elsewhere."""

from __future__ import annotations

import csv
import os
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from harvester import __version__
from harvester.errors import Exit, HarvesterError, LocalError, UsageError, worst
from harvester.escape import in_csv, in_json
from harvester.lines import columns, say
from harvester.simulate import configure, play, simulation_options

if TYPE_CHECKING:  # each command imports what it needs, so that --help and errors come at once
    from harvester.job import Job
    from harvester.pool import Pool
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
        say(traceback.format_exc())
        say("\nerror: this should not happen; please report it with the lines above")
        return Exit.UNEXPECTED


class _ExampleFirst(click.Command):
    """A command whose help begins with an example: one command a line."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:  # noqa: ANN401 - handed on to click
        super().__init__(*args, **kwargs)
        self._example = example

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Example:\n{textwrap.indent(self._example, '    ')}\n\n")
        super().format_help(ctx, formatter)


class _Group(_ExampleFirst, click.Group):
    command_class = _ExampleFirst


@click.group(
    cls=_Group,
    example="harvester demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command: harvester COMMAND --help",
)
@click.version_option(__version__, prog_name="harvester")
def main() -> None:
    """Mirror whole datasets from signed, rate-limited, paginated open-data platforms."""


@main.command("run", example="harvester run job.toml\nharvester run job.toml --dataset investors --fresh")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--fresh", is_flag=True, help="Start a new snapshot now, whatever is there.")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@click.option("--output", type=PATH, metavar="DIR", help="Instead of the job file's `output`.")
@click.option("--max-pages", type=click.IntRange(1), metavar="N", help="Stop after N pages of this run.")
@click.option("--max-calls", type=click.IntRange(1), metavar="N", help="Stop after N calls of this run.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="For limits that add up to more than one core.")
@click.option("--repair", is_flag=True, help="Look for damage; fetch what is damaged again, and nothing else.")
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
    processes: int | None,
    repair: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Mirror: continue an open snapshot, start the first one, or say how old the mirror is."""
    from harvester import foreground  # noqa: PLC0415
    from harvester.harvest import Options, mirror  # noqa: PLC0415

    if fresh and repair:
        raise UsageError("--repair mends what is there, --fresh leaves it alone", hint="choose one of them")
    job = _load(job_file, output=output)
    options = Options(fresh=fresh, datasets=datasets, max_pages=max_pages, max_calls=max_calls, repair=repair)
    with _children(job, processes or job.run.processes) as pool:
        result = foreground.with_progress(
            lambda events, interrupt: mirror(job, options, events=events, interrupt=interrupt, pool=pool),
            quiet=quiet,
            verbose=verbose,
        )
    if as_json:
        _print_json(result)
    _say_result(result, _run_command(job_file, datasets, output))
    return result.exit


def _children(job: Job, processes: int) -> AbstractContextManager[Pool | None]:
    """Make the processes that a run has beside this one."""
    if processes == 1:
        return nullcontext()
    from harvester import foreground  # noqa: PLC0415
    from harvester.child import fork  # noqa: PLC0415

    return fork(job, processes, foreground.run)


@main.command(example="harvester demo")
@click.option("--output", type=PATH, default=Path("harvester-demo"), show_default=True, metavar="DIR")
@click.option("--quiet", is_flag=True, help="No progress.")
@JSON
def demo(*, output: Path, quiet: bool, as_json: bool) -> int:
    """Mirror a simulated dataset of each platform, verify it, and say what to do next. No key, no network."""
    from harvester import foreground  # noqa: PLC0415
    from harvester.demo import demo as play  # noqa: PLC0415

    shown = foreground.with_progress(
        lambda events, interrupt: play(output, events, interrupt), quiet=quiet, verbose=False
    )
    if as_json:
        _print_json(shown.result)
    _say_result(shown.result, _command("demo", "--output", output))
    for name, verification in shown.verified.items():
        say(f"{name}: verified {_verified(verification)}")
    say(
        "\nNext: play both platforms in one terminal and mirror them from another, interrupting as you like\n"
        "  harvester simulate --rows 200000 --write-job job.toml\n"
        "  harvester run job.toml"
    )
    return worst([shown.result.exit, *(verification.exit for verification in shown.verified.values())])


@main.command(example="harvester check job.toml")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@CSV
@JSON
def check(job_file: Path, *, datasets: tuple[str, ...], as_csv: bool, as_json: bool) -> int:
    """Make one signed call per dataset: credentials, clock, page size, total, first row."""
    from harvester import foreground  # noqa: PLC0415
    from harvester.check import check as look  # noqa: PLC0415
    from harvester.check import exit_of  # noqa: PLC0415
    from harvester.harvest import wanted  # noqa: PLC0415

    job = _load(job_file)
    findings = foreground.run(look(job, wanted(job, datasets)))
    fields = ("dataset", "app", "state", "code", "page_size", "total", "clock_offset", "first_row")
    _print_table(fields, findings, as_csv=as_csv, as_json=as_json)
    for finding in findings:
        if finding.message:
            say(f"\n{finding.dataset}: {finding.message}" + (f"\nhint: {finding.hint}" if finding.hint else ""))
    code = exit_of(findings)
    say(
        f"\n{sum(f.exit is Exit.OK for f in findings)} of {len(findings)} datasets can be mirrored"
        + (f"; next: {_run_command(job_file, datasets)}" if code is Exit.OK else "")
    )
    return code


@main.command(example="harvester plan job.toml")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@click.option("--output", type=PATH, metavar="DIR", help="Instead of the job file's `output`.")
@click.option("--quiet", is_flag=True, help="No progress.")
@CSV
@JSON
def plan(
    job_file: Path, *, datasets: tuple[str, ...], output: Path | None, quiet: bool, as_csv: bool, as_json: bool
) -> int:
    """Find the end of every list in a few calls: pages, rows, calls, time, share of the allowance.

    What is read for that is kept, and not read again by `run`.
    """
    from harvester import foreground  # noqa: PLC0415
    from harvester.harvest import Options, mirror  # noqa: PLC0415
    from harvester.plan import FIELDS, plans_of  # noqa: PLC0415

    job = _load(job_file, output=output)
    options = Options(datasets=datasets, plan=True)
    result = foreground.with_progress(
        lambda events, interrupt: mirror(job, options, events=events, interrupt=interrupt), quiet=quiet, verbose=False
    )
    found = plans_of(result)
    _print_table(FIELDS, found, as_csv=as_csv, as_json=as_json)
    for item in found:
        for text in (item.remark, item.hint and f"hint: {item.hint}"):
            if text:
                say(f"{item.dataset}: {text}")
    if result.exit is Exit.OK:
        say(f"next: {_run_command(job_file, datasets, output)}")
    return result.exit


@main.command(example="harvester status job.toml\nharvester status mirror")
@click.argument("path", metavar="JOB_OR_DIR", type=PATH)
@CSV
@JSON
def status(path: Path, *, as_csv: bool, as_json: bool) -> int:
    """Say what is mirrored, how old it is, what is open, and the next command. Sends nothing."""
    from harvester.status import dataset_folders, states  # noqa: PLC0415

    if path.is_dir():
        folders, command = dataset_folders(path), _run_command("JOB")
    else:
        job = _load(path, secrets=False)
        folders, command = [job.output / dataset.name for dataset in job.datasets], _run_command(path)
    found = states(folders, command, datetime.now(UTC))
    fields = ("dataset", "published", "verdict", "rows", "age_hours", "open", "open_pages_kept", "open_pages_in_all")
    _print_table(fields, found, as_csv=as_csv, as_json=as_json)
    for state in found:
        remark = state.problem or (f"not published, {state.held}" if state.held else "")
        say(f"{state.dataset}: {remark + '; ' if remark else ''}next: {state.next}")
    if not found:
        say(f"nothing is mirrored in {path} yet")
    return Exit.LOCAL if any(state.problem for state in found) else Exit.OK


@main.command(example="harvester verify mirror\nharvester verify mirror/investors")
@click.argument("path", metavar="DIR", type=PATH)
@JSON
def verify(path: Path, *, as_json: bool) -> int:
    """Compare shards with what was recorded of them: digests, rows, pages, gaps; and the certificate with its evidence.

    One symbol per shard: . good, X damaged, ? missing, o open pages, + extra file.
    """
    from msgspec.structs import asdict  # noqa: PLC0415

    from harvester.status import dataset_folders, way_out  # noqa: PLC0415
    from harvester.store.verify import is_snapshot, snapshots_in  # noqa: PLC0415

    found: dict[str, Verification] = {}
    codes: list[Exit] = []
    ways: dict[str, list[str]] = {"--repair": [], "--fresh": [], "": []}  # out of it, and the datasets that it is for
    single = is_snapshot(path)
    for folder in [path] if single else dataset_folders(path):
        dataset = (folder.resolve().parent if single else folder.resolve()).name
        try:
            for place in snapshots_in(folder):
                found[str(place)], code = _look_at(place, quiet=as_json)
                codes.append(code)
                if code is Exit.LOCAL:
                    ways["--repair"].append(dataset)
        except LocalError as error:  # the other datasets are looked at all the same
            codes.append(error.exit)
            ways[way_out(error)].append(dataset)
            say(f"error: {error}")
    if not codes:
        raise UsageError(f"there is no snapshot in {path}", hint="name the mirror, a dataset in it, or a snapshot")
    if as_json:
        _print_json(
            {place: {**asdict(item), "symbols": item.symbols, "exit": item.exit} for place, item in found.items()}
        )
    said = {Exit.OK: "no damage found", Exit.OPEN_PAGES: f"open pages; next: {_run_command('JOB')}"}
    damaged = [
        f"damage found; next: {_run_command('JOB', dict.fromkeys(ways[way]))} {way}"
        for way in ways
        if way and ways[way]
    ]
    code = worst(codes)
    say("\n".join(damaged) or said.get(code, "not everything could be looked at"))
    return code


def _look_at(place: Path, *, quiet: bool) -> tuple[Verification, Exit]:
    """Verify one snapshot, its certificate too, and say what is wrong."""
    from harvester.recount import snapshot_fault  # noqa: PLC0415
    from harvester.store.verify import verify_snapshot  # noqa: PLC0415

    verification = verify_snapshot(place)
    if not quiet:
        click.echo(f"{place}  {_verified(verification)}")
    for shard in verification.shards:
        for reason in shard.reasons:
            say(f"  {shard.name}: {reason}")
    fault = "" if verification.exit is Exit.LOCAL else snapshot_fault(place)
    if fault:
        say(f"  {fault}")
    return verification, Exit.LOCAL if fault else verification.exit


@main.command(example="harvester quota job.toml\nharvester quota job.toml --dataset inventions --set-used 12")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@click.option("--set-used", type=click.IntRange(0, 1_000_000_000), metavar="N", help="What the platform has counted.")
@CSV
@JSON
def quota(job_file: Path, *, datasets: tuple[str, ...], set_used: int | None, as_csv: bool, as_json: bool) -> int:
    """Say how many calls of each allowance are used, left, and when it resets in Beijing time. Sends nothing."""
    from time import time  # noqa: PLC0415

    from harvester.harvest import wanted  # noqa: PLC0415
    from harvester.quota import quotas  # noqa: PLC0415
    from harvester.quota import set_used as put_right  # noqa: PLC0415
    from harvester.slots import state_folder  # noqa: PLC0415

    job, state = _load(job_file, secrets=False, ids=True), state_folder(os.environ)
    chosen = wanted(job, datasets)
    if set_used is not None:
        changed = put_right(job, datasets, state, time, set_used)
        say(f"{changed.name}: {set_used:,} call{'s'[: set_used != 1]} counted as used from now on")
    found = quotas(job, chosen, state, time)
    fields = ("dataset", "operation", "allowance", "used", "left", "resets", "shared_with")
    _print_table(fields, found, as_csv=as_csv, as_json=as_json)
    for each in found:
        if each.problem:
            say(f"{each.dataset}: {each.problem}" + (f"\nhint: {each.hint}" if each.hint else ""))
    if not found:
        say("no dataset has `max_calls`, and no call was counted")
    return Exit.LOCAL if any(each.problem for each in found) else Exit.OK


@main.command(
    example="harvester simulate --rows 200000 --write-job job.toml\n"
    "harvester simulate --data flights.csv.zip --rate-limit none"
)
@simulation_options
@click.option("--write-job", type=PATH, metavar="PATH", help="Write a job file that `run` can use at once.")
def simulate(*, write_job: Path | None, **given: Any) -> int:  # noqa: ANN401 - whatever the options say
    """Play both platforms on loopback, as strict as the real ones, until interrupted."""
    from harvester import foreground  # noqa: PLC0415

    foreground.run(play(configure(given), write_job))
    return Exit.OK


@main.command(
    example="harvester bench --rate-limit 300 --limit-kind nginx:5\n"
    "harvester bench job.toml --dataset investors --calls 200"
)
@click.argument("job_file", metavar="[JOB]", required=False, type=PATH)
@click.option("--dataset", "name", metavar="NAME", help="Whose first page is asked for; the first if not given.")
@click.option("--url", metavar="URL", help="A gateway of your own on this machine, instead of the job file's address.")
@click.option("--calls", type=click.IntRange(1), metavar="N", help="At most so many calls; needed for a platform.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="The same in seconds.")
@click.option("--yes", is_flag=True, help="Do not ask before a platform is called.")
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Draw rates and latencies against the offered rate.")
@JSON
@simulation_options
@click.pass_context
def bench(  # noqa: PLR0913 - one argument per option
    context: click.Context,
    /,
    *,
    job_file: Path | None,
    name: str | None,
    url: str | None,
    calls: int | None,
    seconds: float | None,
    yes: bool,
    plot: Path | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - whatever the options of a simulation say
) -> int:
    """Measure what a gateway grants, how it counts, and what holds a harvest back.

    Without JOB and --url a simulator is measured, which takes the options of `simulate`. A platform is offered no more
    than its `rate_limit`, and only as many --calls or --seconds as you say.
    """
    from harvester import foreground  # noqa: PLC0415
    from harvester.bench.command import measured  # noqa: PLC0415
    from harvester.bench.measurement import Limits  # noqa: PLC0415
    from harvester.bench.report import content, facts, sentence, svg, table  # noqa: PLC0415
    from harvester.store.durable import explained  # noqa: PLC0415

    config = None
    if job_file is None and url is None:
        config = configure(given)
    elif meant := [key for key in given if context.get_parameter_source(key) is ParameterSource.COMMANDLINE]:
        option = f"--{meant[0].replace('_', '-')}"
        raise UsageError(f"{option} is for a simulator, and {job_file or url} is none", hint="leave one of them out")
    job = None if job_file is None else _load(job_file)
    report = measured(
        config,
        job,
        name,
        url,
        Limits(calls=calls, seconds=seconds),
        run=foreground.run,
        agreed=yes or _agreed,
        tell=say,
    )
    if isinstance(report, Exit):
        say("stopped; nothing of it is kept")
        return report
    if as_json:
        _print_json(content(report))
    else:
        for line in columns(table(report)) if report.steps else ():
            click.echo(line)
        click.echo("")
        for line in columns(facts(report)):
            click.echo(line)
    if plot is not None:
        with explained("write", plot):
            plot.write_text(svg(report), encoding="utf-8")
    say(f"\n{sentence(report)}" if report.exit is Exit.OK else f"error: {report.message}\n\nhint: {report.hint}")
    return report.exit


def _agreed(question: str) -> bool:
    """Ask at a terminal whether a platform may be called."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} cannot be asked where there is no terminal; nothing was sent", hint="add --yes")
    return click.confirm(question, err=True)


# What commands share


def _load(path: Path, *, output: Path | None = None, secrets: bool = True, ids: bool = False) -> Job:
    from msgspec.structs import replace  # noqa: PLC0415

    from harvester.job import Job  # noqa: PLC0415

    job = Job.load(path, secrets=secrets, ids=ids)
    for warning in job.warnings:
        say(f"warning: {warning}")
    return replace(job, output=output.absolute()) if output else job


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
    say(f"next: {_command('verify', _near(Path(result.path).parents[1])) if done else command}")


def _command(*words: str | Path) -> str:
    """Return a command that a shell reads back as these words."""
    return shlex.join(["harvester", *map(str, words)])


def _run_command(job: str | Path, datasets: Iterable[str] = (), output: Path | None = None) -> str:
    options = [word for name in datasets for word in ("--dataset", name)]
    return _command("run", job, *(["--output", str(output)] if output else []), *options)


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
        csv.writer(sys.stdout, lineterminator="\n").writerows(
            [fields, *([in_csv(cell) for cell in row] for row in rows)]
        )
    elif rows:
        for line in columns([[field.replace("_", " ") for field in fields], *rows]):
            click.echo(line)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _print_json(value: object) -> None:
    import msgspec  # noqa: PLC0415

    click.echo(in_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))

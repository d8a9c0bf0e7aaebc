"""Wires a run together: locks, snapshots, one crew of workers per app, one writer, an orderly stop. Nothing else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson
from msgspec import Struct, to_builtins

from harvester import repair
from harvester.app_run import AppRun, calls_possible
from harvester.attempt import counter
from harvester.dataset_run import DatasetRun, Stop
from harvester.disk import demand_room, shortage
from harvester.errors import Exit, HarvesterError, LocalError, UsageError, worst
from harvester.events import Events, Log, encoded
from harvester.health import Health, Reach
from harvester.job import Job
from harvester.ledger import counted_calls
from harvester.lifecycle import NAME_FORMAT, Published, choose, identity
from harvester.model import App, Dataset
from harvester.platforms import PLATFORMS
from harvester.pool import Pool
from harvester.repair import RepairRun
from harvester.report import DatasetResult, Result, render
from harvester.schedule import Budget
from harvester.store.durable import Folder, explained
from harvester.store.folder import DatasetFolder
from harvester.store.shardfile import require
from harvester.writer import Writer

TICK: Final = 1.0  # seconds


class Options(Struct, frozen=True, kw_only=True):
    """What the caller of one run may ask for beside its job file."""

    fresh: bool = False
    datasets: tuple[str, ...] = ()
    max_pages: int | None = None
    max_calls: int | None = None
    repair: bool = False  # look for damage, and read again what is damaged
    plan: bool = False  # only find out where the lists end; what is read for that is kept


async def mirror(
    job: Job,
    options: Options | None = None,
    *,
    events: Events | None = None,
    interrupt: asyncio.Future[Exit] | None = None,
    pool: Pool | None = None,
) -> Result:
    """Mirror the datasets of a job: continue what is open, start what is missing, publish what is complete.

    Args:
        job: loaded with its secrets.
        options: of this run.
        events: told of everything as it happens.
        interrupt: set it to ``Exit.INTERRUPTED`` or ``Exit.TERMINATED`` to stop in order.
        pool: processes that may fetch whole shards, made before the event loop; none is left when this returns.

    Raises:
        HarvesterError: the run as a whole cannot begin.
    """
    options = options or Options()
    events = events or Events()
    began = datetime.now(UTC)
    chosen = wanted(job, options.datasets)
    require(job.run.compression)
    with ExitStack() as locks:
        place = _run_folder(job.output, began)
        with explained("create", place / "events.jsonl"):
            log = locks.enter_context(Log(place / "events.jsonl"))
        events.add(log)
        events.tell("began", datasets=[dataset.name for dataset in chosen])
        runs, results = await asyncio.to_thread(_open, job, chosen, options, locks, began)  # it may read for minutes
        if runs:
            demand_room(job.output, runs)
        for run in runs:
            events.counts[run.dataset.name] = run.counts
        await _work(job, runs, options, events, interrupt, pool)
        results |= {run.dataset.name: _result(run) for run in runs}
        ended = datetime.now(UTC)
        result = Result(
            exit=worst(entry.exit for entry in results.values()),
            path=str(place),
            began=began.isoformat(timespec="seconds"),
            ended=ended.isoformat(timespec="seconds"),
            datasets=tuple(results[dataset.name] for dataset in chosen),
        )
        events.tell("ended", exit=result.exit)
        _write_result(place, result, events)
        return result


def wanted(job: Job, names: Sequence[str]) -> tuple[Dataset, ...]:
    """Return the datasets of those names, in the job file's order; all of them if none is named.

    Raises:
        UsageError: there is none of that name.
    """
    known = {dataset.name: dataset for dataset in job.datasets}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{job.path} has no enabled dataset {name!r}", hint=f"it has: {', '.join(known) or 'none at all'}"
            )
    return tuple(dataset for dataset in job.datasets if not names or dataset.name in names)


def _run_folder(output: Path, began: datetime) -> Path:
    path = output / "runs" / f"{began.strftime(NAME_FORMAT)}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise LocalError(
            f"cannot create {path}: {error.strerror}",
            hint="make room in the output folder, or make it writable, or choose another: --output DIR",
        ) from error
    return path


def _write_result(place: Path, result: Result, events: Events) -> None:
    """Write the result for machines and for people; failing to does not undo what is mirrored."""
    data = encoded(to_builtins(result), orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    try:
        with Folder(place) as folder:
            folder.replace("result.json", data)
            folder.replace("report.html", render(result).encode(errors="replace"))
    except LocalError as error:
        events.tell("no report", path=str(place), reason=error.message)


def _open(
    job: Job, datasets: Iterable[Dataset], options: Options, locks: ExitStack, now: datetime
) -> tuple[list[DatasetRun], dict[str, DatasetResult]]:
    """Lock every dataset and choose its snapshot; what cannot be worked on has its result at once."""
    runs: list[DatasetRun] = []
    results: dict[str, DatasetResult] = {}
    reaches: dict[tuple[str, str], Reach] = {}
    hosts: dict[tuple[str, str], Health] = {}
    for dataset in datasets:
        platform = PLATFORMS[dataset.app.platform]
        folder = DatasetFolder(job.output / dataset.name)
        try:
            locks.enter_context(folder.lock())
            same = identity(dataset, platform)
            chosen = (
                repair.begin(folder, same) if options.repair else choose(folder, same, fresh=options.fresh, now=now)
            )
            if isinstance(chosen, Published | repair.Intact):
                results[dataset.name] = _looked_at(folder, chosen, now)
                continue
            locks.callback(chosen.close)
            address = urlsplit(platform.target(dataset)).netloc
            reach = reaches.setdefault((address, dataset.app.proxy), Reach())
            health = hosts.setdefault((dataset.app.name, address), Health(counter(), job.run.stall_patience, reach))
            kind = RepairRun if repair.REPAIR in chosen.notes else DatasetRun
            run = kind(
                dataset,
                folder,
                chosen,
                health,
                (job.run.rows_per_shard, job.run.compression),
                ledger=counted_calls(dataset, locks),
                planning=options.plan,
            )
            runs.append(run)
        except HarvesterError as error:
            results[dataset.name] = DatasetResult(
                name=dataset.name, exit=error.exit, why="; ".join([error.message, *error.causes]), hint=error.hint
            )
    return runs, results


def _looked_at(folder: DatasetFolder, found: Published | repair.Intact, now: datetime) -> DatasetResult:
    """Return the result of a dataset for which nothing has to be sent."""
    if isinstance(found, repair.Intact):
        path, why, hint = found.path, found.words, "without --repair a run goes on, or says that nothing is due"
    else:
        hours = found.age(now).total_seconds() / 3600
        age = f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"  # noqa: PLR2004 - two days
        path, why, hint = folder.path / found.name, f"published {age} ago", "--fresh starts a new snapshot now"
    published = path is not None and path.name == folder.current()
    summary = folder.summary() if published else {}
    return DatasetResult(
        name=folder.path.name,
        exit=Exit.OK,
        verdict=summary.get("verdict", ""),
        why=f"{why}; nothing was sent",
        hint=hint,
        rows=summary.get("rows", 0),
        snapshot="" if path is None else str(path),
        published=published,
    )


async def _work(
    job: Job,
    runs: Sequence[DatasetRun],
    options: Options,
    events: Events,
    interrupt: asyncio.Future[Exit] | None,
    pool: Pool | None,
) -> None:
    """Let one crew per app work; see to it that everything that arrived is durable, however it ends."""
    budget = Budget(options.max_pages, _least(options.max_calls, job.run.max_calls))
    writer = Writer()
    crews = _crews(job, runs, budget, events, writer, pool)
    try:
        async with asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(writer.run()),
                background.create_task(_ticks(events)),
                background.create_task(_watch_disk(job.output, runs, crews)),
            ]
            if pool is not None:
                tasks.append(background.create_task(pool.listen()))
            if interrupt is not None:
                tasks.append(background.create_task(_obey(interrupt, runs, crews)))
            async with asyncio.TaskGroup() as group:
                for crew in crews:
                    group.create_task(crew.run())
            for task in tasks:
                task.cancel()
        await _conclude(crews, budget)
    except* HarvesterError as errors:
        error = _first(errors)
        events.tell("failed", reason=error.message)
        for run in runs:
            if not run.stopped and not run.published:
                run.stop = Stop(exit=error.exit, message="; ".join([error.message, *error.causes]), hint=error.hint)
    finally:
        events.tick()
        if pool is not None:
            pool.end()
        writer.stop()
        for run in runs:
            run.snapshot.close()


async def _conclude(crews: Sequence[AppRun], budget: Budget) -> None:
    """Bring to its end what no worker has brought there."""
    for crew in crews:
        for member in crew.members:
            unfinished = not member.frontier.complete or budget.pages == 0  # a second reading keeps no page, or few
            if budget.spent and unfinished and not (member.stopped or member.concluded):
                member.stop = Stop(
                    exit=Exit.BUDGET,
                    message="the pages or calls allowed for this run are used up",
                    hint="run again with a larger --max-pages or --max-calls, or without",
                )
            await crew.conclude(member)
        crew.explain_permissions()


def _first(errors: BaseExceptionGroup[HarvesterError]) -> HarvesterError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, HarvesterError) else HarvesterError(str(error))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _crews(
    job: Job, runs: Sequence[DatasetRun], budget: Budget, events: Events, writer: Writer, pool: Pool | None
) -> list[AppRun]:
    members: dict[str, tuple[App, list[DatasetRun]]] = {}
    for run in runs:
        members.setdefault(run.dataset.app.name, (run.dataset.app, []))[1].append(run)
    return [
        AppRun(
            app,
            of_app,
            job.run,
            budget=budget,
            events=events,
            writer=writer,
            reread=job.rereaders.get(app.name),
            most=calls_possible(len(members), len(runs)),
            pool=None if any(isinstance(run, RepairRun) for run in of_app) else pool,
        )
        for app, of_app in members.values()
    ]


async def _obey(interrupt: asyncio.Future[Exit], runs: Sequence[DatasetRun], crews: Sequence[AppRun]) -> None:
    """Wait for the word to stop, then stop every crew."""
    await _stop(Stop(exit=await interrupt, message="interrupted; everything fetched is kept"), runs, crews)


async def _watch_disk(output: Path, runs: Sequence[DatasetRun], crews: Sequence[AppRun]) -> None:
    """Stop every crew while there is still room for what has arrived."""
    while not (why := await asyncio.to_thread(shortage, output)):  # noqa: ASYNC110 - nobody tells of a disk
        await asyncio.sleep(TICK)
    hint = "free some space, then run again: everything fetched is kept"
    await _stop(Stop(exit=Exit.LOCAL, message=why, hint=hint), runs, crews)


async def _stop(stop: Stop, runs: Sequence[DatasetRun], crews: Sequence[AppRun]) -> None:
    """Let everybody come to an orderly end."""
    for run in runs:
        if not run.stopped and not run.concluded:
            run.stop = stop
    await asyncio.gather(*(crew.stop() for crew in crews))


async def _ticks(events: Events) -> None:
    while True:
        await asyncio.sleep(TICK)
        events.tick()


def _result(run: DatasetRun) -> DatasetResult:
    stop = run.stop
    certificate = run.keeper.certificate
    repaired = [run.words] if isinstance(run, RepairRun) else []
    verdict = certificate.verdict if certificate else ""
    return DatasetResult(
        name=run.dataset.name,
        exit=stop.exit if stop else Exit.OK,
        verdict=verdict,
        why="; ".join([*repaired, *([stop.message] if stop else certificate.reasons if certificate else ())]),
        hint=stop.hint if stop else "",
        rows=run.keeper.rows,
        pages=run.frontier.done,
        calls=run.counts.calls,
        refused=run.counts.refused,
        retried=run.counts.retried,
        snapshot=str(run.snapshot.path),
        published=run.published,
        outlook=run.outlook(_pace(run.dataset.app)),
    )


def _pace(app: App) -> float | None:
    return None if app.rate_limit is None else app.rate_limit * app.rate_share * app.headroom

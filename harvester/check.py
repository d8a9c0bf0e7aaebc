"""One signed call per dataset (a second one only after a clock refusal): what works, and why not what does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.app_run import pacer_for, permission_note, told
from harvester.attempt import Again, Caller, Decision, Keep, Refuse, Subject, counter
from harvester.dataset_run import DatasetRun
from harvester.errors import Exit, HarvesterError, worst
from harvester.events import Events
from harvester.health import Health
from harvester.job import Job
from harvester.ledger import counted_calls
from harvester.lifecycle import Published, choose, identity
from harvester.model import App, Dataset, Kind, Page
from harvester.platforms import PLATFORMS
from harvester.send import Sender
from harvester.store.folder import DatasetFolder

FIRST_ROW: Final = 60  # characters of the first row that are shown

_STATES: Final = {"permission": "no permission", "address": "wrong or withdrawn", "parameters": "key required"}


class Finding(Struct, frozen=True, kw_only=True):
    """What one call showed of a dataset.

    ``state`` is one of usable, unpaged, no permission, wrong or withdrawn, key required, refused, over limit,
    no answer. ``clock_offset`` is in whole seconds, the platform's clock ahead of ours; None where it did not say.
    """

    dataset: str
    app: str
    state: str
    exit: Exit
    page_size: int | None = None
    total: int | None = None
    clock_offset: int | None = None
    first_row: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""


async def check(job: Job, datasets: Sequence[Dataset]) -> list[Finding]:
    """Look at every dataset once, app by app. Page 1 of a dataset with an allowance is kept: its call was paid for."""
    findings = []
    for app in {dataset.app.name: dataset.app for dataset in datasets}.values():
        of_app = [dataset for dataset in datasets if dataset.app.name == app.name]
        findings += await _check_app(job, app, of_app)
    return findings


async def _check_app(job: Job, app: App, datasets: Sequence[Dataset]) -> list[Finding]:
    findings: list[Finding] = []
    with closing(pacer_for(app, job.run.limit_patience, Events())) as pacer:
        async with Sender.of(app, job.run.timeout) as sender:
            caller = Caller(app, PLATFORMS[app.platform], pacer, sender, attempts=1)
            findings = [await _check_dataset(job, dataset, caller) for dataset in datasets]
    return explain_permissions(findings)


async def _check_dataset(job: Job, dataset: Dataset, caller: Caller) -> Finding:
    subject = Subject(dataset, Health(counter(), job.run.stall_patience))
    decision: Decision | None = None
    with ExitStack() as stack:
        ledger = counted_calls(dataset, stack)
        if ledger is not None:
            ledger.use_clock(lambda: caller.clock.now(counter()))
        while decision is None or (isinstance(decision, Again) and decision.verdict.kind is Kind.CLOCK):
            again = decision is not None
            if ledger is not None and not ledger.take():
                return _used_up(dataset)
            decision = await caller.attempt(subject, 1, await caller.pacer.permit())
            if again:
                break
    offset = round(caller.clock.now(counter()) - time.time()) if caller.clock.known else None
    finding = _finding(dataset, decision, offset)
    if dataset.max_calls is not None and isinstance(decision, Keep):
        try:
            await asyncio.to_thread(keep_first, job, dataset, decision.page)
        except HarvesterError as error:
            finding = replace(finding, message=f"page 1 could not be kept for `run`: {error.message}")
    return finding


def keep_first(job: Job, dataset: Dataset, page: Page) -> None:
    """Keep page 1 where a run will look for it, unless a mirror is published or has it already."""
    folder = DatasetFolder(job.output / dataset.name)
    with folder.lock():
        now = datetime.now(UTC)
        chosen = choose(folder, identity(dataset, PLATFORMS[dataset.app.platform]), fresh=False, now=now)
        if isinstance(chosen, Published):
            return
        health = Health(counter(), job.run.stall_patience)
        layout = (job.run.rows_per_shard, job.run.compression)
        run = DatasetRun(dataset, folder, chosen, health, layout, planning=True)
        run.counts.calls = 1
        if run.frontier.next() == 1:
            run.accept(1, page, now)
        run.last_batch()()


def _used_up(dataset: Dataset) -> Finding:
    return Finding(
        dataset=dataset.name,
        app=dataset.app.name,
        state="over limit",
        exit=Exit.BUDGET,
        message=f"the allowance of {dataset.max_calls:,} calls is used up; nothing was sent",
        hint="`harvester quota JOB` shows when it resets",
    )


def _finding(dataset: Dataset, decision: Decision, offset: int | None) -> Finding:
    if isinstance(decision, Keep):
        return _usable(dataset, decision.page, offset)
    verdict = decision.verdict
    if isinstance(decision, Again | Refuse) and decision.ours:
        state, code = "no answer", Exit.LOCAL
    elif isinstance(decision, Refuse):
        state, code = _STATES.get(verdict.about, "refused"), Exit.REFUSED
    elif verdict.kind is Kind.OVER_LIMIT:
        state, code = "over limit", Exit.BUDGET
    else:
        state, code = "no answer", Exit.OPEN_PAGES
    return Finding(
        dataset=dataset.name,
        app=dataset.app.name,
        state=state,
        exit=code,
        clock_offset=offset,
        code=verdict.code,
        message=told(verdict),
        hint=verdict.hint,
    )


def _usable(dataset: Dataset, page: Page, offset: int | None) -> Finding:
    silent = page.rows > 0 and page.number is None and page.size is None and page.total is None
    row = page.lines.partition(b"\n")[0].decode()
    return Finding(
        dataset=dataset.name,
        app=dataset.app.name,
        state="unpaged" if dataset.paging == "none" or page.single or silent else "usable",
        exit=Exit.OK,
        page_size=page.size or page.rows,
        total=page.total,
        clock_offset=offset,
        first_row=row if len(row) <= FIRST_ROW else row[: FIRST_ROW - 1] + "…",
        message="no rows match the parameters" if not page.rows else "",
    )


def explain_permissions(findings: list[Finding]) -> list[Finding]:
    """Say whom a missing permission concerns: credentials that open another dataset are good."""
    lacking = [finding for finding in findings if finding.state == _STATES["permission"]]
    works = any(finding.exit is Exit.OK for finding in findings)
    note = permission_note(works=works, all_lack=lacking == findings)
    return [
        replace(finding, message=f"{finding.message}; {note}") if note and finding in lacking else finding
        for finding in findings
    ]


def exit_of(findings: Sequence[Finding]) -> Exit:
    """Return the exit code of a check."""
    return worst(finding.exit for finding in findings)

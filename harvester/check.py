"""One signed call per dataset (a second one only after a clock refusal): what works, and why not what does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.app_run import pacer_for, permission_note, told
from harvester.attempt import Again, Caller, Decision, Keep, Refuse, Subject, counter
from harvester.errors import Exit, worst
from harvester.events import Events
from harvester.health import Health
from harvester.job import Job
from harvester.model import App, Dataset, Kind, Page
from harvester.platforms import PLATFORMS
from harvester.send import Sender

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
    """Look at every dataset once, app by app."""
    findings = []
    for app in {dataset.app.name: dataset.app for dataset in datasets}.values():
        of_app = [dataset for dataset in datasets if dataset.app.name == app.name]
        findings += await _check_app(job, app, of_app)
    return findings


async def _check_app(job: Job, app: App, datasets: Sequence[Dataset]) -> list[Finding]:
    findings: list[Finding] = []
    with closing(pacer_for(app, job.run.limit_patience, Events())) as pacer:
        async with Sender(job.run.timeout) as sender:
            caller = Caller(app, PLATFORMS[app.platform], pacer, sender, attempts=1)
            for dataset in datasets:
                subject = Subject(dataset, Health(counter(), job.run.stall_patience))
                decision = await caller.attempt(subject, 1, await pacer.permit())
                if isinstance(decision, Again) and decision.verdict.kind is Kind.CLOCK:
                    decision = await caller.attempt(subject, 1, await pacer.permit())
                offset = round(caller.clock.now(counter()) - time.time()) if caller.clock.known else None
                findings.append(_finding(dataset, decision, offset))
    return explain_permissions(findings)


def _finding(dataset: Dataset, decision: Decision, offset: int | None) -> Finding:
    if isinstance(decision, Keep):
        return _usable(dataset, decision.page, offset)
    verdict = decision.verdict
    if isinstance(decision, Refuse):
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

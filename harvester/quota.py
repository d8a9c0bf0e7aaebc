"""What the call ledger says of a job's datasets, and putting it right. Sends nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import LocalError, UsageError
from harvester.job import Job
from harvester.ledger import ledger_of, path_of
from harvester.model import Dataset
from harvester.platforms import PLATFORMS


class Quota(Struct, frozen=True, kw_only=True):
    """One dataset's line: calls used and left of its allowance, and when the count starts anew, in Beijing time.

    Datasets of one operation share a count: ``shared_with`` names the job's others. ``allowance`` and ``left`` are None
    where the job file names no ``max_calls``; ``used`` is None where ``problem`` says why it is not known.
    """

    dataset: str
    operation: str
    allowance: int | None
    used: int | None = None
    left: int | None = None
    resets: str = ""
    shared_with: str = ""
    problem: str = ""
    hint: str = ""


def quotas(job: Job, datasets: Sequence[Dataset], state: Path, now: Callable[[], float]) -> list[Quota]:
    """Look up datasets in the ledger; one without an allowance is told only if calls of it were counted.

    Args:
        job: loaded with the apps' ids.
        datasets: of the job.
        state: the user's state folder.
        now: the time in Unix seconds.
    """
    found = [_quota(job, dataset, state, now) for dataset in datasets]
    return [quota for quota in found if quota.allowance is not None or quota.used or quota.problem]


def set_used(job: Job, names: Sequence[str], state: Path, now: Callable[[], float], calls: int) -> Dataset:
    """Put the count of one dataset right: the one that is named, else the only one with an allowance.

    Args:
        job: loaded with the apps' ids.
        names: of datasets of the job.
        state: the user's state folder.
        now: the time in Unix seconds.
        calls: what the platform has counted.

    Returns:
        The dataset.

    Raises:
        UsageError: it is not one that is meant.
        LocalError: the ledger cannot be written.
    """
    meant = [dataset for dataset in job.datasets if (dataset.name in names if names else dataset.max_calls is not None)]
    if len(meant) != 1:
        which = "are named" if names else "have `max_calls`"
        example = next(iter(meant or job.datasets)).name
        raise UsageError(
            f"--set-used is for one dataset, {len(meant) or 'none'} of {job.path} {which}",
            causes=[dataset.name for dataset in meant],
            hint=f"harvester quota {shlex.quote(str(job.path))} --dataset {example} --set-used {calls}",
        )
    (dataset,) = meant
    with closing(ledger_of(dataset, state, now)) as ledger:
        ledger.set_used(calls)
    return dataset


def _quota(job: Job, dataset: Dataset, state: Path, now: Callable[[], float]) -> Quota:
    path = path_of(dataset, state)
    others = [other.name for other in job.datasets if other is not dataset and path_of(other, state) == path]
    quota = Quota(
        dataset=dataset.name,
        operation=_operation(dataset),
        allowance=dataset.max_calls,
        shared_with=", ".join(others),
    )
    try:
        standing = ledger_of(dataset, state, now).state()
    except LocalError as error:
        return replace(quota, problem=error.message, hint=error.hint)
    resets = standing.resets.isoformat() if standing.resets else ""
    return replace(quota, used=standing.used, left=standing.left, resets=resets)


def _operation(dataset: Dataset) -> str:
    return PLATFORMS[dataset.app.platform].operation(dataset)

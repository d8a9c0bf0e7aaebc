"""What the ledger says of a job, and putting it right."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from harvester.call_counts import BEIJING
from harvester.errors import Exit, UsageError
from harvester.job import Job
from harvester.ledger import Ledger, ledger_path
from harvester.quota import Quota, quotas, set_used

NOON: Final = datetime(2026, 11, 22, 12, tzinfo=BEIJING).timestamp()
JOB: Final = """\
[apps.s]
platform = "sipop"
app_key = "key-1"
app_secret = { env = "NOT_SET" }
rate_limit = 10
url = "https://example.org/"

[datasets.metered]
method = "m.one"
max_calls = 20

[datasets.also]
method = "m.one"
params = { a = "1" }
max_calls = 5
calls_reset = "day"

[datasets.free]
method = "m.two"
"""


def now() -> float:
    """Return the time that it always is."""
    return NOON


def job(folder: Path, text: str = JOB) -> Job:
    """Load a job as the command does."""
    (folder / "job.toml").write_text(text)
    return Job.load(folder / "job.toml", environ={}, secrets=False, ids=True)


def ledger(folder: Path, operation: str, allowance: int | None = None) -> Ledger:
    """Return the ledger that a run would use."""
    return Ledger(ledger_path(folder, "sipop", "key-1", operation), allowance, "month", now)


def said(folder: Path, loaded: Job) -> list[Quota]:
    """Look up all datasets."""
    return quotas(loaded, loaded.datasets, folder, now)


def test_allowances_are_told_before_any_call(tmp_path: Path) -> None:
    """To look makes no file; a dataset without an allowance is not told while nothing was counted."""
    loaded = job(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert said(tmp_path, loaded) == [
        Quota(
            dataset="metered",
            operation="m.one",
            allowance=20,
            used=0,
            left=20,
            resets="2026-12-01T00:00:00+08:00",
            shared_with="also",
        ),
        Quota(
            dataset="also",
            operation="m.one",
            allowance=5,
            used=0,
            left=5,
            resets="2026-11-23T00:00:00+08:00",
            shared_with="metered",
        ),
    ]
    assert sorted(tmp_path.iterdir()) == before


def test_calls_that_a_run_counts_are_seen(tmp_path: Path) -> None:
    """Under the app's id and the operation, whatever the job and the dataset are called; also without an allowance."""
    loaded = job(tmp_path)
    with closing(ledger(tmp_path, "m.one", 20)) as one, closing(ledger(tmp_path, "m.two")) as two:
        assert all(one.take() for _ in range(6))
        two.note(3)
    assert [(each.dataset, each.used, each.left) for each in said(tmp_path, loaded)] == [
        ("metered", 6, 14),
        ("also", 6, 0),
        ("free", 3, None),
    ]
    other = job(tmp_path, JOB.replace("key-1", "key-2"))
    assert [each.used for each in said(tmp_path, other)] == [0, 0]
    assert [each.dataset for each in quotas(loaded, loaded.datasets[2:], tmp_path, now)] == ["free"]


def test_a_date_that_has_passed_resets_no_more(tmp_path: Path) -> None:
    """Nothing is promised."""
    loaded = job(tmp_path, JOB.replace('"day"', "2026-11-22"))
    assert [each.resets for each in said(tmp_path, loaded)] == ["2026-12-01T00:00:00+08:00", ""]


def test_damage_of_one_hides_no_other(tmp_path: Path) -> None:
    """A file that cannot be read is told with the way out, which works."""
    loaded = job(tmp_path, JOB.replace('method = "m.one"\nparams', 'method = "m.three"\nparams'))
    ledger_path(tmp_path, "sipop", "key-1", "m.one").write_text("rubbish")
    metered, also = said(tmp_path, loaded)
    assert (metered.used, metered.left, metered.resets) == (None, None, "")
    assert "is damaged" in metered.problem
    assert "--set-used N" in metered.hint
    assert (also.used, also.problem) == (0, "")
    assert set_used(loaded, ["metered"], tmp_path, now, 4).name == "metered"
    assert [(each.used, each.problem) for each in said(tmp_path, loaded)] == [(4, ""), (0, "")]


def test_the_only_allowance_need_not_be_named(tmp_path: Path) -> None:
    """A dataset without one can be named; what is set is at once what a run finds."""
    loaded = job(tmp_path, JOB.replace("max_calls = 5\n", ""))
    assert set_used(loaded, [], tmp_path, now, 18).name == "metered"
    assert set_used(loaded, ["free", "free"], tmp_path, now, 7).name == "free"
    assert [(each.dataset, each.used, each.left) for each in said(tmp_path, loaded)] == [
        ("metered", 18, 2),
        ("free", 7, None),
    ]
    with closing(ledger(tmp_path, "m.one", 20)) as one:
        assert [one.take() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (JOB, [], "--set-used is for one dataset, 2 of {} have `max_calls`\n  metered\n  also\n"),
        (JOB, ["also", "free"], "--set-used is for one dataset, 2 of {} are named\n  also\n  free\n"),
        (
            JOB.replace("max_calls = 20\n", "").replace("max_calls = 5\n", ""),
            [],
            "--set-used is for one dataset, none of {} have `max_calls`\n",
        ),
    ],
)
def test_which_one_is_meant_must_be_clear(tmp_path: Path, text: str, names: Sequence[str], message: str) -> None:
    """Else nothing changes, and the hint is a command that works."""
    loaded = job(tmp_path, text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError) as caught:
        set_used(loaded, names, tmp_path, now, 3)
    path = tmp_path / "job.toml"
    example = "also" if names else "metered"
    hint = f"\nhint: harvester quota {path} --dataset {example} --set-used 3"
    assert str(caught.value) == message.format(path) + hint
    assert caught.value.exit is Exit.USAGE
    assert sorted(tmp_path.iterdir()) == before

"""Loss of power while calls are counted: none that was sent is forgotten, and what was put right stays so.

The line is shorter than a sector and is written in one piece, so here a write is lost or kept, and never torn.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from model_fs import Mark, Recorder, Rest, materialise, memory

from harvester import ledger as ledger_module
from harvester.errors import DamagedError
from harvester.ledger import Ledger

SEED: Final = 20261122
ALLOWANCE: Final = 20
NOON: Final = 1_795_320_000.0  # 2026-11-22, 12:00 in Beijing

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="stands in for fdatasync, which macOS lacks")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory, where there is such a place."""
    with memory() as path:
        yield path


@pytest.fixture(autouse=True)
def _boots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ledger is opened after another boot."""
    boots = iter(range(100_000))
    monkeypatch.setattr(ledger_module, "boot_id", lambda: f"boot-{next(boots)}")


def opened(root: Path) -> Ledger:
    """Open the ledger below a folder."""
    return Ledger(root / "state" / "harvester" / "calls", ALLOWANCE, "month", lambda: NOON, block=4)


def after_power_cuts(
    disk: Path, run: Callable[[Ledger, Callable[..., None]], None]
) -> Iterator[tuple[int, int | None]]:
    """Yield, for each moment of a run and each rest, what the run marked last and the count then; None for damage."""
    root = disk / "recorded"
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, root)
        with closing(opened(root)) as ledger:
            run(ledger, recorder.mark)
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    used: int | None
    marked = states = 0
    for number, step in enumerate(recorder.replay()):
        if isinstance(step, Mark):
            (marked,) = step.told
        for names in ("lost", "kept", "any", "ordered"):
            for content in ("lost", "kept"):
                states += 1
                crashed = disk / f"crashed-{states}"
                crashed.mkdir()
                materialise(Rest(names, content, chance).image(recorder.tree), crashed)
                print(f"after step {number}, {type(step).__name__}: names {names}, bytes {content}")
                with closing(opened(crashed)) as again:
                    try:
                        used = again.state().used
                    except DamagedError:
                        used = None
                yield marked, used


def test_no_call_is_forgotten(disk: Path) -> None:
    """After any step of the first calls, those of a block, and a clean end."""
    (disk / "recorded").mkdir()

    def run(ledger: Ledger, mark: Callable[..., None]) -> None:
        for sent in range(1, ALLOWANCE + 1):
            assert ledger.take()
            mark(sent)
        assert not ledger.take()

    for sent, used in after_power_cuts(disk, run):
        assert used is not None
        assert sent <= used <= ALLOWANCE


def test_what_was_put_right_stays_right(disk: Path) -> None:
    """A file that was damaged, and longer, holds the given count after any loss of power, and nothing else."""
    folder = disk / "recorded" / "state" / "harvester"
    folder.mkdir(parents=True)
    (folder / "calls").write_bytes(b"x" * 300)

    def run(ledger: Ledger, mark: Callable[..., None]) -> None:
        ledger.set_used(7)
        mark(7)

    found = list(after_power_cuts(disk, run))
    assert {used for right, used in found if right} == {7}
    assert {used for right, used in found if not right} == {7, None}

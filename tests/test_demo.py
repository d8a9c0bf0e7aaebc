"""The demonstration: both platforms, verified, from nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from harvester import demo
from harvester.__main__ import main
from harvester.errors import Exit
from harvester.events import Events


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirror less than a user sees."""
    monkeypatch.setattr(demo, "ROWS", 210)


async def test_one_dataset_of_each_platform(tmp_path: Path) -> None:
    """Both are mirrored, published and verified, with all their rows."""
    told: list[str] = []
    shown = await demo.demo(tmp_path / "deep" / "demo", Events(lambda event, _: told.append(event)))
    assert shown.result.exit is Exit.OK
    assert [(entry.name, entry.rows, entry.verdict) for entry in shown.result.datasets] == [
        (name, 210, "proven") for name in demo.DATASETS
    ]
    assert {name: (item.symbols, item.rows, item.exit) for name, item in shown.verified.items()} == dict.fromkeys(
        demo.DATASETS, (".", 210, Exit.OK)
    )
    assert told.count("concluded") == 2


async def test_playing_it_again(tmp_path: Path) -> None:
    """A second time makes one more snapshot of each; nothing of the first is lost."""
    first = await demo.demo(tmp_path, Events())
    second = await demo.demo(tmp_path, Events())
    assert second.result.exit is Exit.OK
    for before, after in zip(first.result.datasets, second.result.datasets, strict=True):
        assert before.snapshot != after.snapshot
        parts = [Path(entry.snapshot, "part-00000.jsonl").read_bytes() for entry in (before, after)]
        assert parts[0] == parts[1]


async def test_it_can_be_interrupted(tmp_path: Path) -> None:
    """The word to stop reaches the run."""
    interrupt: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def stop_at_once(event: str, _: object) -> None:
        if event == "began":
            interrupt.set_result(Exit.INTERRUPTED)

    shown = await demo.demo(tmp_path, Events(stop_at_once), interrupt)
    assert shown.result.exit is Exit.INTERRUPTED
    assert shown.verified == {}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what it verified and what to do next; ``--json`` stands alone on standard output."""
    monkeypatch.setattr(sys, "argv", ["harvester", "demo", "--output", str(tmp_path), "--json"])
    assert main() == Exit.OK
    out, err = capsys.readouterr()
    assert [entry["rows"] for entry in json.loads(out)["datasets"]] == [210, 210]
    assert "wuhan-companies: verified .  11 pages, 210 rows" in err
    assert "sipop-patent.search: verified .  5 pages, 210 rows" in err
    assert err.endswith("  harvester simulate --rows 200000 --write-job job.toml\n  harvester run job.toml\n")

"""Ends of lists, as portals have them, mirrored from the simulator: exact rows, few calls past the end, the verdict."""

from __future__ import annotations

import asyncio
from math import log2
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from harvester import health
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.recount import rebuilt
from harvester.simulator import Config, Quirks, Simulator, jobfile
from harvester.store.contents import Contents

ROWS: Final = (0, 1, 19, 20, 21, 400)
PAGE: Final = 20


class Behaviour(NamedTuple):
    """How a pager behaves past the end, and what a clean mirror of it deserves: with rows, and without any."""

    name: str
    quirks: Quirks
    verdict: str
    empty: str = "proven"
    platform: str = "wuhan"


BEHAVIOURS: Final = (
    Behaviour("empty list", Quirks(), "proven"),
    Behaviour("null", Quirks(past_end="null"), "proven"),
    Behaviour("no data member", Quirks(past_end="absent"), "proven"),
    Behaviour("last page again", Quirks(past_end="last"), "likely"),
    Behaviour("last page again, as if it were another", Quirks(past_end="last", echo="asked"), "likely"),
    Behaviour("last page again, unnumbered", Quirks(past_end="last", echo="absent"), "likely"),
    Behaviour("page 1 again", Quirks(past_end="first"), "likely"),
    Behaviour("page 1 again, as if it were another", Quirks(past_end="first", echo="asked"), "likely"),
    Behaviour("page 1 again, unnumbered", Quirks(past_end="first", echo="absent"), "likely"),
    Behaviour("unknown code", Quirks(past_end="error"), "likely", empty="likely"),
    Behaviour("internal error", Quirks(past_end="error", past_end_code="500"), "likely", empty="likely"),
    Behaviour("numbers always 1", Quirks(echo="wrong"), "proven"),
    Behaviour("SIPOP, empty list", Quirks(), "proven", platform="sipop"),
    Behaviour("SIPOP, code 1100", Quirks(past_end="code"), "proven", platform="sipop"),
    Behaviour("SIPOP, last page again", Quirks(past_end="last"), "likely", platform="sipop"),
    Behaviour("SIPOP, unknown code, no total", Quirks(past_end="error", total="absent"), "likely", "likely", "sipop"),
    Behaviour("SIPOP, total as text", Quirks(total="string"), "proven", platform="sipop"),
)
DATASET: Final = {"wuhan": "companies", "sipop": "patent.search"}


def allowed(pages: int) -> float:
    """Return how many calls past the end a clean run may make."""
    return 2 * log2(max(pages, 1)) + 8


async def mirrored(folder: Path, behaviour: Behaviour, rows: int, latency: float) -> tuple[int, int, str]:
    """Mirror a dataset, see that its rows are exact; return calls, calls past the end, and the verdict."""
    platform, name = behaviour.platform, DATASET[behaviour.platform]
    config = Config(rows=rows, rate_limit=None, latency=latency, platforms=(platform,), quirks={"": behaviour.quirks})
    async with Simulator(config) as simulator:
        path = folder / "job.toml"
        jobfile.write(path, simulator.url, None, simulator.tables)
        path.write_text(path.read_text().replace("page_size = 50", f"page_size = {PAGE}"))
        dataset = f"{platform}-{name}"
        result = await mirror(Job.load(path, environ={}), Options(datasets=(dataset,)))
        expected = [simulator.tables[platform][name].row_bytes(row) for row in range(rows)]
        beyond = simulator.stats.beyond.get(f"{platform}/{name}", 0)
    (entry,) = result.datasets
    assert result.exit is Exit.OK, entry.why
    snapshot = Path(entry.snapshot)
    assert [line for part in sorted(snapshot.glob("part-*")) for line in part.read_bytes().splitlines()] == expected
    with Contents.open(snapshot) as contents:
        assert rebuilt(contents).verdict == entry.verdict
    return entry.calls, beyond, entry.verdict


@pytest.mark.parametrize("latency", [0.0, 0.05])
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
async def test_every_end_is_found(
    tmp_path: Path, behaviour: Behaviour, latency: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a pager does past the end: every row, few calls too many, and no better verdict than it deserves."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)  # what fails past the end looks like an outage at first
    folders = [tmp_path / str(rows) for rows in ROWS]
    for folder in folders:
        folder.mkdir()
    found = await asyncio.gather(
        *(mirrored(folder, behaviour, rows, latency) for folder, rows in zip(folders, ROWS, strict=True))
    )
    for rows, (calls, beyond, verdict) in zip(ROWS, found, strict=True):
        print(f"{behaviour.name}; {rows} rows; {latency} s; {calls} calls; {beyond} beyond; {verdict}")
        assert beyond <= allowed(-(-rows // PAGE))
        assert verdict == (behaviour.verdict if rows else behaviour.empty)


@pytest.mark.soak
@pytest.mark.parametrize("latency", [0.0, 0.05])
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
async def test_every_end_of_a_long_list_is_found(tmp_path: Path, behaviour: Behaviour, latency: float) -> None:
    """The same with as many pages as all flights of a year from New York fill."""
    rows = 336_776
    calls, beyond, verdict = await mirrored(tmp_path, behaviour, rows, latency)
    print(f"{behaviour.name}; {rows} rows; {latency} s; {calls} calls; {beyond} beyond; {verdict}")
    assert beyond <= allowed(-(-rows // PAGE))
    assert verdict == behaviour.verdict

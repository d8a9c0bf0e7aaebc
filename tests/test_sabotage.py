"""Platforms that lose, hide, repeat or move rows: whatever they do, no mirror of theirs is called proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from harvester import health
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.report import DatasetResult
from harvester.simulator import Change, Config, Quirks, Simulator, jobfile

ROWS: Final = 400  # 20 pages
DATASET: Final = {"wuhan": "companies", "sipop": "patent.search"}


def again_and_again(kind: Any, **more: Any) -> tuple[Change, ...]:  # noqa: ANN401 - the words of Change
    """Return a change that comes back so often that no mending catches up."""
    return tuple(Change(calls, kind, **more) for calls in range(10, 400, 15))


WUHAN: Final[dict[str, tuple[int, Quirks]]] = {
    "a page without rows in mid-list": (ROWS, Quirks(short_pages={7: 0})),
    "the last but one without rows": (ROWS, Quirks(short_pages={19: 0})),
    "four pages without rows": (ROWS, Quirks(short_pages={9: 0, 10: 0, 11: 0, 12: 0})),
    "page 2 without rows": (ROWS, Quirks(short_pages={2: 0})),
    "a page lost while the list is read": (ROWS, Quirks(lose_after=((12, 5),))),
    "a page twice": (ROWS, Quirks(repeat=((8, 7),))),
    "the last page twice": (ROWS, Quirks(repeat=((20, 19),))),
    "page 1 in mid-list": (ROWS, Quirks(repeat=((11, 1),))),
    "a window of 1,000 rows": (3_000, Quirks(window=1_000)),
    "a window of 5,000 rows": (6_000, Quirks(window=5_000)),
    "a window that fails behind its last row": (3_000, Quirks(window=1_000, past_end="error")),
    "an unknown code at page 16": (ROWS, Quirks(errors=((16, "7001"),))),
    "an unknown code at the last page": (ROWS, Quirks(errors=((20, "7001"),))),
    "an unknown code at page 2": (ROWS, Quirks(errors=((2, "7001"),))),
    "two codes at the end": (ROWS, Quirks(past_end="error", errors=((20, "7002"),))),
    "a failing query in mid-list": (ROWS, Quirks(errors=((13, "100106"),))),
    "the last page for ever": (ROWS, Quirks(past_end="last")),
    "page 1 for ever": (ROWS, Quirks(past_end="first")),
    "page 1 for ever, as if it were another": (ROWS, Quirks(past_end="first", echo="asked")),
    "an error past the end": (ROWS, Quirks(past_end="error")),
    "smaller pages from call 9 on": (ROWS, Quirks(size_changes=((9, 10),))),
    "smaller pages without a word": (ROWS, Quirks(size_changes=((9, 10),), size_echo=False)),
    "larger pages from call 9 on": (ROWS, Quirks(size_changes=((9, 40),))),
    "larger pages without a word": (ROWS, Quirks(size_changes=((9, 40),), size_echo=False)),
    "smaller pages at the second reading": (ROWS, Quirks(size_changes=((34, 10),), size_echo=False)),
    "rows come at the head": (ROWS, Quirks(changes=again_and_again("insert"))),
    "rows go in the middle": (ROWS, Quirks(changes=again_and_again("delete", where="middle"))),
    "rows change places": (ROWS, Quirks(changes=again_and_again("reorder", count=40))),
    "values change": (ROWS, Quirks(changes=again_and_again("update", where="middle", count=40))),
    "bytes in no charset": (ROWS, Quirks(body="invalid")),
    "GB18030 that nobody declared": (ROWS, Quirks(body="gb18030-undeclared")),
    "a challenge page": (ROWS, Quirks(body="html")),
    "rows that are null": (ROWS, Quirks(body="nulls")),
}
SIPOP: Final[dict[str, tuple[int, Quirks]]] = {
    "a total that is too large": (ROWS, Quirks(total="wrong:500")),
    "a total that is too small": (ROWS, Quirks(total="wrong:10")),
    "a total beyond all bounds": (ROWS, Quirks(total="wrong:999999999999")),
    "rows come at the end, and with them the total": (ROWS, Quirks(changes=(Change(15, "append", "tail", 90),))),
    "a growing total": (ROWS, Quirks(total="growing")),
    "a shrinking total": (ROWS, Quirks(total="shrinking")),
    "a total that moves": (ROWS, Quirks(total="moving")),
    "a capped total": (ROWS, Quirks(total="capped:300")),
    "a window that the total gives away": (ROWS, Quirks(window=300)),
    "rows hidden in mid-list": (ROWS, Quirks(short_pages={3: 15})),
    "a page twice, with the right total": (ROWS, Quirks(repeat=((8, 7),))),
    "an unknown code at page 16": (ROWS, Quirks(errors=((16, "7001"),))),
    "smaller pages from call 9 on": (ROWS, Quirks(size_changes=((9, 10),))),
    "the last page for ever": (ROWS, Quirks(past_end="last")),
    "one row as an object, and the others hidden": (ROWS, Quirks(short_pages={20: 1}, body="object")),
}
CASES: Final = [
    *(pytest.param("wuhan", *case, "", id=f"wuhan: {name}") for name, case in WUHAN.items()),
    *(pytest.param("sipop", *case, "", id=f"sipop: {name}") for name, case in SIPOP.items()),
    pytest.param("sipop", ROWS, Quirks(repeat=((8, 7),)), 'key = "appNumber"', id="sipop: a page twice, by its key"),
    pytest.param("wuhan", ROWS, Quirks(), "expect_rows = 401", id="wuhan: one row less than expected"),
    pytest.param("wuhan", ROWS, Quirks(), 'key = "NO_SUCH"', id="wuhan: a key that no row has"),
    pytest.param("wuhan", ROWS, Quirks(), "recheck = 0", id="wuhan: read once"),
    pytest.param("wuhan", ROWS, Quirks(), "recheck = 5", id="wuhan: five pages read twice"),
]
CLEAN: Final = {
    "wuhan": [
        Quirks(),
        Quirks(empty_once=(5, 20)),
        Quirks(past_end="null"),
        Quirks(body="gb18030"),
        Quirks(body="bom"),
        Quirks(changes=(Change(15, "append", "tail", 90),)),
    ],
    "sipop": [
        Quirks(),
        Quirks(size="clamped", size_cap=7),
        Quirks(size="clamped-silent", size_cap=7),
        Quirks(size="ignored"),
        Quirks(body="control"),
        Quirks(body="surrogates"),
        Quirks(body="string"),
        Quirks(body="whole-string"),
        Quirks(body="pretty"),
        Quirks(body="html-type"),
        Quirks(changes=(Change(15, "insert"),)),
        Quirks(changes=(Change(15, "delete", "middle", 30),)),
    ],
}


async def mirrored(folder: Path, platform: str, rows: int, quirks: Quirks, settings: str) -> tuple[DatasetResult, bool]:
    """Mirror one dataset; return what became of it, and whether its shards hold just what the platform serves now."""
    config = Config(rows=rows, rate_limit=None, platforms=(platform,), quirks={"": quirks})
    async with Simulator(config) as simulator:
        path = folder / "job.toml"
        jobfile.write(path, simulator.url, None, simulator.tables)
        name = DATASET[platform]
        text = path.read_text().replace("page_size = 50", "page_size = 20")
        key = "service" if platform == "wuhan" else "method"
        text = text.replace(f'{key} = "{name}"', f'{key} = "{name}"\n{settings}')
        path.write_text(f"{text}\n[run]\nattempts = 2\n")
        result = await mirror(Job.load(path, environ={}), Options(datasets=(f"{platform}-{name}",)))
        served = simulator.current_rows(platform, name)
    (entry,) = result.datasets
    kept = [
        line for part in sorted(Path(entry.snapshot).glob("part-*.jsonl")) for line in part.read_bytes().splitlines()
    ]
    return entry, kept == served


@pytest.mark.parametrize(("platform", "rows", "quirks", "settings"), CASES)
async def test_no_sabotage_is_proven(
    tmp_path: Path, platform: str, rows: int, quirks: Quirks, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows may be missing, doubled or moving: the verdict says so, and only what is at least likely is published."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    entry, _ = await mirrored(tmp_path, platform, rows, quirks, settings)
    print(f"{int(entry.exit)} {entry.verdict or 'not finished'}: {entry.why}")
    assert entry.verdict != "proven"
    assert entry.why
    assert entry.published == (entry.verdict == "likely")
    assert (entry.exit is Exit.OK) == (entry.verdict == "likely")


@pytest.mark.parametrize(
    ("platform", "quirks"), [(platform, quirks) for platform, all_ in CLEAN.items() for quirks in all_]
)
async def test_a_clean_run_is_proven(tmp_path: Path, platform: str, quirks: Quirks) -> None:
    """Odd but honest: proven, exit 0, and exactly the rows that are served at the end."""
    entry, exact = await mirrored(tmp_path, platform, ROWS, quirks, "")
    print(f"{int(entry.exit)} {entry.verdict or 'not finished'}: {entry.why}")
    assert (entry.exit, entry.verdict) == (Exit.OK, "proven")
    assert entry.published
    assert exact


def test_there_are_enough_sabotages() -> None:
    """The table is as long as it is meant to be."""
    assert len(CASES) >= 30

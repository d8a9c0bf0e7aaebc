"""Whatever happens on the wire, now and then or for a while: the mirror is the same, byte for byte.

Every cell mirrors a dataset of each platform while the simulator does something to the calls, and compares the files
with those of a run that was left alone. What stops a run because it has to (a redirect, a network's login page) is met
as a user would meet it: by running again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from harvester import health, rate, retries
from harvester.errors import Exit
from harvester.harvest import Options, mirror
from harvester.job import Job
from harvester.simulator import Config, Fault, Simulator, jobfile
from harvester.simulator.faults import KINDS, OF_THE_PORT

PAGE: Final = 20
DATASETS: Final = {"wuhan-companies": ("wuhan", "companies"), "sipop-patent.search": ("sipop", "patent.search")}
OUTAGE: Final = 20.0  # seconds
LEAST: Final = 20  # faults that have to happen for a share to be one
EARLY: Final = ("reset", "close", "silent", "502")
"""Faults that are tried before the platform has counted the call as well."""

STOPS: Final = frozenset({"login"})
"""Faults of which one stops a run: a signed call is not sent where nobody has said it should go."""

STOPS_IF_IT_LASTS: Final = frozenset({"html", "login-page", "cut-json", "empty", "other-charset"})
"""Faults that count as an answer, so that a page is given up after some of them."""

HARMLESS: Final = frozenset({"wrong-charset", "twice"})
"""Faults that keep no page from being read, so that they hold nothing up."""

KINDS_OF_FAULTS: Final = (*(Fault(kind) for kind in KINDS), *(Fault(kind, early=True) for kind in EARLY))


class Size(NamedTuple):
    """How much is mirrored, and how patiently."""

    rows: int
    timeout: float
    concurrency: int = 16
    recheck: int | None = None
    attempts: int = 8

    @property
    def pages(self) -> int:
        """Pages of both datasets together."""
        return 2 * -(-self.rows // PAGE)


SMALL: Final = Size(rows=4_000, timeout=0.3)
LARGE: Final = Size(rows=20_000, timeout=2)


class Mirrored(NamedTuple):
    """What a mirror holds in the end, and what it took."""

    files: dict[str, str]
    verdicts: tuple[str, ...]
    runs: int
    calls: int
    faults: int
    seconds: float


def digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every published shard and index."""
    return {
        f"{name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for name in DATASETS
        for pattern in ("part-*.jsonl", "pages.idx")
        for file in sorted((output / name / "current").glob(pattern))
    }


def job(folder: Path, simulator: Simulator, size: Size) -> Job:
    """Return the job that mirrors both datasets."""
    path = folder / "job.toml"
    jobfile.write(path, simulator.url, None, simulator.tables)
    text = path.read_text().replace("page_size = 50", f"page_size = {PAGE}")
    # Without `charset` the first answer would decide in which one the others are read, and it may be the faulty one.
    text += '\n[defaults]\ncharset = "utf-8"\n' + ("" if size.recheck is None else f"recheck = {size.recheck}\n")
    text += f"\n[run]\ntimeout = {size.timeout}\nconcurrency = {size.concurrency}\n"
    text += f"attempts = {size.attempts}\nrows_per_shard = 5_000\n"
    path.write_text(text)
    return Job.load(path, environ={})


async def mirrored(folder: Path, size: Size, *faults: Fault, most_runs: int = 1, pause: float = 0.0) -> Mirrored:
    """Mirror both datasets, running again if a run is stopped; see that nothing unseemly was sent.

    Args:
        folder: for all files; made.
        size: of it all.
        faults: what goes wrong.
        most_runs: how many runs it may take.
        pause: seconds between two of them.
    """
    folder.mkdir()
    began, runs = time.monotonic(), 0
    async with Simulator(Config(rows=size.rows, rate_limit=None, faults=faults, seed=2)) as simulator:
        order = job(folder, simulator, size)
        while True:
            runs += 1
            result = await mirror(order, Options(datasets=tuple(DATASETS)))
            if result.exit is Exit.OK:
                break
            assert runs < most_runs, [(entry.name, entry.exit, entry.why) for entry in result.datasets]
            await asyncio.sleep(pause)
        assert simulator.stats.repeated_nonces == 0
        assert simulator.stats.oldest_signature <= 5
        calls, happened = simulator.stats.calls, simulator.stats.faults.total()
    verdicts = tuple(entry.verdict for entry in result.datasets)
    return Mirrored(digests(order.output), verdicts, runs, calls, happened, time.monotonic() - began)


_left_alone: Final[dict[Size, Mirrored]] = {}


async def left_alone(tmp_path: Path, size: Size) -> Mirrored:
    """Return what comes of it when nothing goes wrong: every row of the tables, once."""
    if size not in _left_alone:
        found = _left_alone[size] = await mirrored(tmp_path / "alone", size)
        async with Simulator(Config(rows=size.rows, seed=2)) as simulator:
            for name, (platform, table) in DATASETS.items():
                parts = sorted((tmp_path / "alone" / "mirror" / name / "current").glob("part-*.jsonl"))
                rows = [line for part in parts for line in part.read_bytes().splitlines()]
                assert rows == [simulator.tables[platform][table].row_bytes(index) for index in range(size.rows)]
        assert len(found.files) >= len(DATASETS) * (2 if size is SMALL else 5)
    return _left_alone[size]


async def compared(tmp_path: Path, size: Size, *faults: Fault, most_runs: int = 1, pause: float = 0.0) -> Mirrored:
    """Compare a disturbed mirror with one that was left alone."""
    expected = await left_alone(tmp_path, size)
    found = await mirrored(tmp_path / "disturbed", size, *faults, most_runs=most_runs, pause=pause)
    assert found.files == expected.files
    assert found.verdicts == expected.verdicts
    return found


def name(fault: Fault) -> str:
    """Return a fault's name for people."""
    return fault.kind + (", early" if fault.early else "")


def show(fault: Fault, often: str, size: Size, found: Mirrored) -> None:
    """Print a line of the table: fault, how often, pages, faults that happened, calls counted, runs, seconds."""
    print(
        f"| {name(fault)} | {often} | {size.pages:,} | {found.faults:,} | {found.calls:,} | {found.runs} "
        f"| {found.seconds:.1f} |"
    )


@pytest.mark.parametrize("kind", ["reset-in-body", "gzip-no-trailer", "silent", "502", "twice"])
async def test_one_call_in_ten(tmp_path: Path, kind: str) -> None:
    """A sample of what the long test does with every fault."""
    found = await compared(tmp_path, SMALL, Fault(kind, 0.1))
    show(Fault(kind), "10 %", SMALL, found)
    assert found.faults >= LEAST


async def test_a_bit_of_everything(tmp_path: Path) -> None:
    """All faults of single calls that do not take time or stop the run, one call in ten."""
    slow = {"503", "silent", "half-open", "stall", "drip", "endless", "bomb", *STOPS, *OF_THE_PORT}
    kinds = [kind for kind in KINDS if kind not in slow]
    found = await compared(tmp_path, SMALL, *(Fault(kind, 0.1 / len(kinds)) for kind in kinds))
    print(f"| {len(kinds)} faults | 10 % | {SMALL.pages:,} | {found.faults:,} | {found.calls:,} | {found.runs} |")
    assert found.faults >= LEAST


async def test_a_short_restart(tmp_path: Path) -> None:
    """All connections are dropped, and for a second nobody listens."""
    found = await compared(tmp_path, SMALL, Fault("restart", at=0.1, lasts=1))
    show(Fault("restart"), "1 s", SMALL, found)
    assert found.faults >= 1


@pytest.mark.soak
@pytest.mark.parametrize("share", [0.01, 0.1], ids=["1 in 100", "1 in 10"])
@pytest.mark.parametrize("fault", KINDS_OF_FAULTS, ids=name)
async def test_a_share_of_the_calls(
    tmp_path: Path, fault: Fault, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fault, one call in a hundred and one in ten of more than 2,000."""
    size, most_runs = LARGE, 10 if fault.kind in STOPS_IF_IT_LASTS else 1
    if fault.kind in OF_THE_PORT:
        # Each takes all calls under way along and looks like the end of the host, so one page can fail often. With
        # one repetition a second, and one look at the host every three, that would be a matter of hours.
        monkeypatch.setattr(retries, "FLOOR", 1000.0)
        monkeypatch.setattr(health, "PROBE_INTERVAL", 0.1)
        monkeypatch.setattr(health, "BACKOFF_CAP", 0.5)
        size = LARGE._replace(concurrency=4, attempts=1000)
    if fault.kind in STOPS:
        size, most_runs = LARGE._replace(concurrency=4), 1000
    if fault.kind == "503":
        # Each is taken for a limit, so that the pace would settle near four calls a second.
        size = LARGE._replace(recheck=5)
        monkeypatch.setattr(rate, "SOON", 0.1)
        monkeypatch.setattr(rate, "SOON_RISE", 1.0)
        monkeypatch.setattr(rate, "RISE_EVERY", 0.1)
    found = await compared(tmp_path, size, Fault(fault.kind, share, early=fault.early), most_runs=most_runs)
    show(fault, f"{share:.0%}", size, found)
    assert size.pages >= 2_000
    assert found.faults >= LEAST


@pytest.mark.soak
@pytest.mark.parametrize("fault", KINDS_OF_FAULTS, ids=name)
async def test_an_outage(tmp_path: Path, fault: Fault) -> None:
    """Every fault, all calls of 20 seconds."""
    lasting = fault.kind in STOPS | STOPS_IF_IT_LASTS
    found = await compared(
        tmp_path,
        LARGE,
        Fault(fault.kind, at=0.3, lasts=OUTAGE, early=fault.early),
        most_runs=100 if lasting else 1,
        pause=1.0,
    )
    show(fault, f"{OUTAGE:g} s", LARGE, found)
    assert found.faults >= 1
    assert found.seconds >= OUTAGE or fault.kind in HARMLESS

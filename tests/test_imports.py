"""Imports go one way, and the pure modules stay pure: read from the sources, not from what happens to be loaded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import harvester

ROOT: Final = Path(harvester.__file__).parent

# From top to bottom. A module may import what stands in a line below its own; what shares a line may not import each
# other. A package's name stands for its __init__, whose version number anybody may read.
LAYERS: Final = """
__main__
cli
bench.command demo simulate
harvester
check harvest bench.measurement plan quota foreground
bench.short_harvest bench.simulator_process
bench.scratch
child
app_run disk repair
pool block
dataset_run bench.load
keeper status store.verify
lifecycle recount
store.snapshot
store.filling
store.contents store.recovery
store.folder store.journal store.sealed store.package store.keys
store.checkpoint store.index
store.shardfile ledger
store.durable store.cores
store
terminal report writer
lines
outlook bench.report
bench.probing
bench.counting
bench.ramp
bench.offering bench.diagnosis
bench
attempt events
schedule send
job
job.file
job.apps
job.credentials job.schema
job.rules
pace room route exchange deadline nonces messages
platforms
platforms.wuhan platforms.sipop
platforms.status plain
envelope frontier health clock certificate rate slots concurrency shard call_counts retries shortage
charset literals body second_reading page_size edge
page_states
simulator
simulator.server
simulator.jobfile simulator.files simulator.sipop simulator.wuhan simulator.wire
simulator.config simulator.pager
simulator.gate simulator.generated simulator.drift simulator.bodies
simulator.tables simulator.stats simulator.limits simulator.quirks simulator.jsontext simulator.faults
model errors escape
"""
RANK: Final = {name: rank for rank, line in enumerate(LAYERS.split("\n")) for name in line.split()}

PURE: Final = {
    "frontier",
    "edge",
    "page_states",
    "page_size",
    "second_reading",
    "outlook",
    "bench.offering",
    "bench.ramp",
    "bench.probing",
    "bench.counting",
    "bench.diagnosis",
    "bench.report",
    "rate",
    "concurrency",
    "retries",
    "shortage",
    "envelope",
    "plain",
    "messages",
    "charset",
    "literals",
    "call_counts",
    "body",
    "certificate",
    "clock",
    "health",
    "shard",
    "model",
    "errors",
    "escape",
    "job.rules",
} | {name for name in RANK if name.split(".")[0] == "platforms"}
IMPURE: Final = {"asyncio", "aiohttp", "aiolimiter", "time", "pathlib", "os", "io", "threading", "uvloop", "socket",
                 "subprocess", "secrets", "uuid", "tempfile", "concurrent", "logging"}  # fmt: skip


def module_name(path: Path) -> str:
    """Return a module's name below the package, ``harvester`` for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "harvester"


SOURCES: Final = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Yield every (module, name) that a source imports, also inside functions; the name is "" for a whole module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def own(source: str) -> set[str]:
    """Return the modules of the package that a source imports."""
    found = set()
    for module, name in imported(source):
        if module.split(".")[0] == "harvester" and name != "__version__":
            below = module.removeprefix("harvester").removeprefix(".")
            whole = f"{below}.{name}".strip(".")
            found.add(whole if whole in SOURCES else below or "harvester")
    return found


def upward(importer: str, source: str) -> set[str]:
    """Return what a module imports from its own line or above it; a package may import its parts, not they it."""
    return {name for name in own(source) if RANK[name] <= RANK[importer]}


def foreign(source: str) -> set[str]:
    """Return the first parts of what a source imports from elsewhere."""
    return {module.split(".")[0] for module, _ in imported(source)} - {"harvester"}


def test_every_module_has_its_place() -> None:
    """The table lists what there is, once."""
    names = LAYERS.split()
    assert len(names) == len(set(names))
    assert set(names) == SOURCES.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_downward(name: str) -> None:
    """No arrow up or sideways, wherever in the module it stands."""
    assert upward(name, SOURCES[name].read_text()) == set()


def test_there_is_no_cycle() -> None:
    """The table forbids it; this would hold without the table."""
    TopologicalSorter({name: own(path.read_text()) for name, path in SOURCES.items()}).prepare()


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_nothing_that_waits_or_looks(name: str) -> None:
    """No loop, clock, file, thread or chance; ``Random`` as the type of an argument is none."""
    source = SOURCES[name].read_text()
    assert foreign(source) & IMPURE == set()
    assert {found for module, found in imported(source) if module == "random"} <= {"Random"}
    assert own(source) <= PURE


def test_one_module_each_talks_to_the_network() -> None:
    """The client's half of aiohttp is imported by the two modules that send, the server's by the simulator."""
    client: set[str] = set()
    server: set[str] = set()
    for name, path in SOURCES.items():
        for module, found in imported(path.read_text()):
            if module.split(".")[0] == "aiohttp":
                (server if "web" in {found, *module.split(".")} else client).add(name)
    assert client == {"send", "exchange"}
    assert server
    assert {name.split(".")[0] for name in server} == {"simulator"}


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "simulator"])
def test_the_simulator_shares_nothing_with_what_it_checks(name: str) -> None:
    """It knows the values and the errors, and was written from the platforms' documents."""
    assert {found for found in own(SOURCES[name].read_text()) if found.split(".")[0] != "simulator"} <= {
        "model",
        "errors",
    }


@pytest.mark.parametrize(
    "source",
    [
        "from harvester.cli import run",
        "from harvester import cli",
        "import harvester.cli",
        "def f():\n    from harvester.cli import run",
        "if TYPE_CHECKING:\n    from harvester.cli import run",
        "try:\n    from harvester import cli\nexcept ImportError:\n    pass",
    ],
)
def test_an_arrow_upward_is_seen(source: str) -> None:
    """The instrument itself: every form of an import counts."""
    assert upward("frontier", source) == {"cli"}

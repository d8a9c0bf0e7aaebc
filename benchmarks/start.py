"""How long it takes to start: ``harvester --help``, and ``harvester run`` until its first call arrives.

    python benchmarks/start.py                       # each 15 times, in fresh processes, one after the other
    python benchmarks/start.py --times 31 --json FILE

``run`` gets a job file with one dataset, and a listening socket in this process that notes the moment of the first
byte; then the process is killed. Everything is measured from just before the process is made. The floor is what
Python itself takes, and what importing aiohttp takes, which whoever calls over HTTP has to wait for as well.

Caveats: files are in the page cache and byte code is compiled, as for a program that was used before; a load on the
machine is a load on these figures, so read the lowest as well as the median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "gateways"))

import calls

PACKAGES = ("harvester", "aiohttp", "uvloop", "click", "msgspec")
PATIENCE = 30.0  # seconds for anything measured here
HELP, FIRST = "harvester --help", "harvester run, first call"
TARGETS = {HELP: 150.0, FIRST: 400.0}  # milliseconds
HARVESTER = [sys.executable, "-m", "harvester"]


def ended(*command: str) -> float:
    """Return the milliseconds that a process takes from before it is made until it has ended."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return 1000 * (time.perf_counter() - began)


def first_byte() -> float:
    """Return the milliseconds until ``harvester run`` has sent the first byte of its first call."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        job = job_file(Path(name), server.getsockname()[1])
        environment = {**os.environ, "XDG_STATE_HOME": name}
        began = time.perf_counter()
        process = subprocess.Popen(
            [*HARVESTER, "run", str(job), "--quiet"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    if connection.recv(1):  # a connection that was only opened is no call
                        return 1000 * (time.perf_counter() - began)
        finally:
            process.kill()
            process.wait()


def job_file(folder: Path, port: int) -> Path:
    """Write a job file of one dataset at a port of this machine; returns it."""
    token, job = folder / "token", folder / "job.toml"
    token.touch(0o600)
    token.write_text(calls.TOKEN)
    lines = [
        "[apps.gateway]",
        'platform = "wuhan"',
        f'passid = "{calls.PASSID}"',
        'token = { file = "token" }',
        f'url = "http://127.0.0.1:{port}{calls.PATH}"',
        "rate_limit = 300",
        "[datasets.companies]",
        'service = "companies"',
    ]
    job.write_text("\n".join(lines) + "\n")
    return job


CASES: dict[str, Callable[[], float]] = {
    "python -c pass": lambda: ended(sys.executable, "-c", "pass"),
    'python -c "import aiohttp"': lambda: ended(sys.executable, "-c", "import aiohttp"),
    HELP: lambda: ended(*HARVESTER, "--help"),
    FIRST: first_byte,
}


def main() -> None:
    """Measure every case in turn, so often, and print medians and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15, help="fresh processes of each kind (default 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    options = parser.parse_args()
    versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    load = os.getloadavg()[0]
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{os.cpu_count()} cores, load {load:.1f}; milliseconds, {options.times} fresh processes of each in turn\n")
    for measure in CASES.values():
        measure()  # compiles byte code and fills the page cache
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.times):
        for name, measure in CASES.items():
            found[name].append(measure())
    print("| what | median | lowest to highest | target |\n| --- | ---: | ---: | --- |")
    for name, values in found.items():
        median, target = statistics.median(values), TARGETS.get(name)
        verdict = "" if target is None else f"<= {target:g}: {'pass' if median <= target else 'FAIL'}"
        print(f"| `{name}` | {median:,.0f} | {min(values):,.0f} to {max(values):,.0f} | {verdict} |")
    if options.json:
        result = {"versions": versions, "load": load, "targets": TARGETS, "milliseconds": found}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

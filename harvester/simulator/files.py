"""A table from a file: CSV or JSON Lines, plain, gzipped, or alone in a zip archive."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NoReturn

import orjson

from harvester.errors import UsageError
from harvester.simulator.tables import StoredTable

JSON_LINES: Final = frozenset({".jsonl", ".ndjson"})
MAX_NAME: Final = 80
HINT: Final = "give a file whose name ends in .csv, .jsonl or .ndjson, with .gz behind it or alone in a .zip"


def dataset_name(path: Path) -> str:
    """Return the file's name up to its first dot, with letters, digits, ``_`` and ``-`` only."""
    stem = path.name.lstrip(".").partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:MAX_NAME] or "data"


def load(path: Path) -> StoredTable:
    """Read a table into memory.

    CSV: the first line names the columns, every value becomes a JSON string with exactly the characters of the
    field. JSON Lines: every line that is not blank is a row, byte for byte.

    Raises:
        UsageError: the file cannot be read or is not what its name says; names the line.
    """
    try:
        with ExitStack() as stack:
            name, stream = _open(path, stack)
            columns: dict[str, None] = {}
            read = _csv_rows if name.suffix.lower() == ".csv" else _json_rows
            return StoredTable(read(stream, columns), columns, title=dataset_name(path))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, csv.Error, ValueError) as error:
        raise UsageError(f"cannot serve {path}: {error}", hint=HINT) from error


def _open(path: Path, stack: ExitStack) -> tuple[PurePosixPath, IO[bytes]]:
    """Return the name that tells the format, and the bytes behind any compression."""
    name = PurePosixPath(path.name)
    stream: IO[bytes]
    if name.suffix.lower() == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise ValueError(f"the archive holds {len(members)} files, not one")
        name = PurePosixPath(members[0].filename)
        stream = stack.enter_context(archive.open(members[0]))
    elif name.suffix.lower() == ".gz":
        name = name.with_suffix("")
        stream = io.BufferedReader(stack.enter_context(gzip.GzipFile(path)))
    else:
        stream = stack.enter_context(path.open("rb"))
    if name.suffix.lower() not in JSON_LINES | {".csv"}:
        raise ValueError(f"{name.name!r} tells no format")
    return name, stream


def _csv_rows(stream: IO[bytes], columns: dict[str, None]) -> Iterator[bytes]:
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        header = next(lines, [])
        columns.update(dict.fromkeys(header))
        if not header or len(columns) != len(header):
            raise ValueError("line 1 must name the columns, each once")
        for fields in lines:
            if not fields:  # a blank line; one empty field would be written with quotes
                continue
            if len(fields) != len(header):
                raise ValueError(f"line {lines.line_num} has {len(fields)} fields, the header {len(header)}")
            yield orjson.dumps(dict(zip(header, fields, strict=True)))


def _json_rows(stream: IO[bytes], columns: dict[str, None]) -> Iterator[bytes]:
    for number, line in enumerate(stream, 1):
        text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip(b"\r\n")
        if not text.strip():
            continue
        try:
            row = _parse(text)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON text in UTF-8: {error}") from error
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
        yield text


def _parse(text: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Lone surrogates are JSON though orjson refuses them; NaN is none though json takes it.
        return json.loads(text.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")

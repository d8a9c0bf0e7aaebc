"""Tables from files: every value and every byte as it stands there."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.simulator.files import dataset_name, load
from harvester.simulator.tables import SimulatedTable

CSV = '\ufeffid,名称,note\r\n007,"a ""b"", c",\r\n\r\n1.10,武汉,"two\nlines"\r\n'.encode()
CSV_ROWS = [
    '{"id":"007","名称":"a \\"b\\", c","note":""}'.encode(),
    '{"id":"1.10","名称":"武汉","note":"two\\nlines"}'.encode(),
]
LINES = b'\xef\xbb\xbf{"a": 1.10, "a":2}\r\n\n{"s":"\\ud800", "n":18446744073709551616}\nnull\n[ 1 ]'
LINES_ROWS = [b'{"a": 1.10, "a":2}', b'{"s":"\\ud800", "n":18446744073709551616}', b"null", b"[ 1 ]"]


def rows_of(table: SimulatedTable) -> list[bytes]:
    """Return all rows."""
    return [table.row_bytes(index) for index in range(len(table))]


def packed(path: Path, name: str, data: bytes) -> Path:
    """Write the data under ``name``, compressed as its ending says."""
    target = path / name
    if name.endswith(".gz"):
        target.write_bytes(gzip.compress(data))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(target, "w") as archive:
            archive.mkdir("folder")
            archive.writestr(f"folder/{name.removesuffix('.zip')}", data)
    else:
        target.write_bytes(data)
    return target


@pytest.mark.parametrize("ending", ["", ".gz", ".zip"])
def test_csv_values_stay_text(tmp_path: Path, ending: str) -> None:
    """Header as keys, every field a JSON string with its exact characters; BOM and blank lines are no data."""
    table = load(packed(tmp_path, f"data.csv{ending}", CSV))
    assert rows_of(table) == CSV_ROWS
    assert rows_of(table.where({"名称": "武汉"})) == CSV_ROWS[1:]


@pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson", "DATA.JSONL.gz", "data.jsonl.zip"])
def test_json_lines_stay_bytes(tmp_path: Path, name: str) -> None:
    """Every line verbatim: white space, duplicate keys, long numbers, lone surrogates."""
    table = load(packed(tmp_path, name, LINES))
    assert rows_of(table) == LINES_ROWS
    assert rows_of(table.where({"N": "18446744073709551616"})) == LINES_ROWS[1:2]


def test_empty_table_has_no_rows(tmp_path: Path) -> None:
    """A header alone is a table."""
    assert len(load(packed(tmp_path, "data.csv", b"id,name\n"))) == 0


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"", "line 1"),
        ("a.csv", b"id,id\n1,2\n", "line 1"),
        ("a.csv", b"id,name\n1,2\n1,2,3\n", "line 3 has 3 fields, the header 2"),
        ("a.csv", b"id\n\xff\n", "decode byte 0xff"),
        ("a.jsonl", b'{"a":1}\n{"a":\n', "line 2"),
        ("a.jsonl", b"NaN\n", "NaN"),
        ("a.jsonl", b'"\xff"\n', "line 1"),
        ("a.xlsx", b"PK", "tells no format"),
        ("a.csv.gz", b"", "tells no format"),
    ],
)
def test_what_is_no_table_is_refused_in_words(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    """The message names the file and the line or the reason."""
    path = tmp_path / name
    if name == "a.csv.gz":
        path = path.rename(packed(tmp_path, "a.txt.gz", data)) if path.exists() else packed(tmp_path, "a.txt.gz", data)
    else:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=said) as caught:
        load(path)
    assert str(path) in caught.value.message


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    """Cut short, no archive at all, two files in one, or not there."""
    whole = packed(tmp_path, "a.csv.gz", CSV).read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-12])
    (tmp_path / "bad.csv.gz").write_bytes(b"id\n1\n")
    (tmp_path / "bad.zip").write_bytes(b"id\n1\n")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    for name in ("cut.csv.gz", "bad.csv.gz", "bad.zip", "two.zip", "absent.csv"):
        with pytest.raises(UsageError, match="cannot serve"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("flights.csv.gz", "flights"),
        ("my data (2).v1.jsonl", "my-data-2"),
        ("企业.csv", "data"),
        (".hidden.csv", "hidden"),
        ("x" * 200 + ".csv", "x" * 80),
    ],
)
def test_dataset_is_named_after_the_file(name: str, made: str) -> None:
    """Up to the first dot, with characters that fit a URL and a folder."""
    assert dataset_name(Path(name)) == made


def test_csv_row_is_json(tmp_path: Path) -> None:
    """Control characters and quotes come back as they were."""
    odd = 'a\tb\x01"\\/'
    path = packed(tmp_path, "a.csv", b'v\n"a\tb\x01""\\/"\n')
    assert json.loads(load(path).row_bytes(0)) == {"v": odd}

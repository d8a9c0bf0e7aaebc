"""Generated datasets: deterministic, cheap by position, and with the values that trip a mirror up."""

from __future__ import annotations

import json
import re

import pytest

from harvester.simulator.generated import DATASETS, MAX_ROWS, GeneratedTable

KINDS = {name: kind for kinds in DATASETS.values() for name, kind in kinds.items()}


def table(name: str, rows: int = 3000, seed: int = 0) -> GeneratedTable:
    """Return a generated table."""
    return GeneratedTable(KINDS[name], rows, seed)


def rows_of(name: str, rows: int = 3000) -> list[dict[str, object]]:
    """Return all rows of a table, parsed with every number as its text."""
    text = b"[%b]" % table(name, rows).page_bytes(0, rows)
    return [dict(row) for row in json.loads(text, parse_int=str, parse_float=str)]


GOLDEN = {
    "companies": (
        r'{"ENTNAME":"武汉金桥三江生物科技有限公司","REGNO":"420113326350126","UNISCID":"91420113MA1F1F8846","LEREP":"冯****","REGCAP":"4334.88","ESTDATE":"2015-01-20","DOM":"武汉市汉南区解放大道978号A\/14座","ENTSTATUS":"存续","REVDATE":null}'
    ),
    "investors": (
        r'{"INV":"杨****","REGNO":"420103236180172","ENTNAME":"武汉中南宏达环保设备有限公司","UNISCID":"91420103MA16861E16"}'
    ),
    "patent.search": (
        r'{"appNumber":"CN200922635012.9","pubNumber":"CN102635012A","title":"高效水泵",'
        r'"applicant":["武汉新纪生物科技有限公司","汉口大学"],"inventor":"张**",'
        r'"ipc":"F04D 29/22","appDate":"2009-02-27","citations":22,"score":6.28,"familyId":619959498049}'
    ),
    "patent.legal": (
        r'{"appNumber":"CN2009154214161","legalDate":"2011-03-10","legalStatus":"实质审查的生效","legalInfo":null}'
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_rows_of_a_seed_never_change(name: str) -> None:
    """Row 7 of seed 0, byte for byte: benchmarks and goldens elsewhere may rely on it."""
    assert table(name).row_bytes(7).decode() == GOLDEN[name]


@pytest.mark.parametrize("name", KINDS)
def test_row_depends_on_seed_and_position_only(name: str) -> None:
    """Same seed same bytes, whatever the table's length; another seed, other bytes."""
    assert table(name).page_bytes(40, 20) == table(name, rows=60).page_bytes(40, 20)
    assert table(name).page_bytes(40, 20) != table(name, seed=1).page_bytes(40, 20)


@pytest.mark.parametrize("name", KINDS)
def test_page_is_its_rows(name: str) -> None:
    """A page joins the rows that are read one by one, and ends where the table ends."""
    made = table(name, rows=50)
    assert made.page_bytes(40, 20) == b",".join(made.row_bytes(index) for index in range(40, 50))
    assert made.page_bytes(60, 20) == b""
    with pytest.raises(IndexError):
        made.row_bytes(50)


@pytest.mark.parametrize("name", KINDS)
def test_rows_have_the_columns_and_differ(name: str) -> None:
    """Every row is a JSON object with the stated columns; no two rows are alike."""
    rows = rows_of(name)
    assert {tuple(row) for row in rows} == {KINDS[name].columns}
    assert len({json.dumps(row) for row in rows}) == len(rows)


def test_registration_numbers_do_not_repeat() -> None:
    """15 digits and 18 characters, a key for companies; investors speak of the same companies."""
    companies = {str(row["REGNO"]): row for row in rows_of("companies")}
    assert len(companies) == 3000
    assert all(re.fullmatch(r"4201\d{11}", regno) for regno in companies)
    assert all(re.fullmatch(r"[0-9A-Z]{18}", str(row["UNISCID"])) for row in companies.values())
    for row in rows_of("investors"):
        assert all(companies[str(row["REGNO"])][name] == row[name] for name in ("REGNO", "UNISCID", "ENTNAME"))
        assert re.fullmatch(r".\*{4}", str(row["INV"]))


def test_application_numbers_carry_their_check_digit() -> None:
    """CN, twelve digits, a dot, and the weighted sum modulo 11; unique."""
    numbers = [str(row["appNumber"]) for row in rows_of("patent.search")]
    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        digits, _, check = number.removeprefix("CN").partition(".")
        weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
        assert "0123456789X"[sum(int(d) * w for d, w in zip(digits, weights, strict=True)) % 11] == check


def test_patents_hold_what_must_not_be_coerced() -> None:
    """Integers beyond 64 bits, trailing zeros, texts and lists in one column, escapes, spellings of a number."""
    rows = rows_of("patent.search")
    assert any(int(str(row["familyId"])) > 2**64 for row in rows)
    assert any(str(row["score"]).endswith("0") for row in rows)
    assert {type(row["applicant"]) for row in rows} == {str, list}
    text = table("patent.search").page_bytes(0, 3000)
    assert all(escape in text for escape in (rb"\/", rb"\"", rb"\u00b2"))
    spellings = {re.sub(r"\d", "9", str(row["appNumber"]))[:15].strip("X") for row in rows_of("patent.legal")}
    assert any(spelling.startswith("CN") for spelling in spellings)
    assert any("." in spelling for spelling in spellings)


def test_last_row_of_the_largest_table_is_cheap_and_new() -> None:
    """Nothing is kept per row, and numbers stay within their width up to the bound."""
    for name in KINDS:
        last = table(name, rows=MAX_ROWS).row_bytes(MAX_ROWS - 1)
        assert last != table(name, rows=MAX_ROWS).row_bytes(0)
        assert json.loads(last)
    number = json.loads(table("patent.search", rows=MAX_ROWS).row_bytes(MAX_ROWS - 1))["appNumber"]
    assert re.fullmatch(r"CN20\d{10}\.[0-9X]", number)


def test_filter_finds_a_company_by_its_number() -> None:
    """Three investors for each company."""
    regno = json.loads(table("companies").row_bytes(12))["REGNO"]
    found = table("investors").where({"regno": regno})
    assert [json.loads(found.row_bytes(index))["REGNO"] for index in range(len(found))] == [regno] * 3

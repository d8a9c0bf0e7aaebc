"""A certificate is found again from the snapshot alone: from its shards, and the evidence that lies beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from msgspec.structs import replace
from scripted_portal import Script, good, job_for, listed, portal, reply, rows_of

from harvester.certificate import EndFacts, Evidence, KeyFacts, SizeFacts, TotalFacts
from harvester.errors import DamagedError
from harvester.harvest import mirror
from harvester.recount import certified, rebuilt, recounted, snapshot_fault
from harvester.store.contents import Contents
from harvester.store.keys import KeyCounter, row_key

KEYED: Final = 'key = "ID"\n'


async def mirrored(folder: Path, script: Script, datasets: str = "", run: str = "") -> Path:
    """Mirror what a portal serves; return the snapshot, published or not."""
    async with portal(script) as (_, url):
        result = await mirror(job_for(folder, url, datasets=datasets, run=run))
    assert (Path(result.datasets[0].snapshot) / "datapackage.json").is_file(), result.datasets[0].why
    return Path(result.datasets[0].snapshot)


def of(rows: list[dict[str, Any]], page: int, last: int) -> web.Response:
    """Return a page of a list of so many pages."""
    return reply({"errcode": 0, "data": {"pageNo": page, "data": rows if page <= last else []}})


def with_a_doubled_row(page: int, _: int) -> web.Response:
    """Answer with three pages; the first row of page 3 is the last one of page 1."""
    return of(rows_of(1)[-1:] + rows_of(3)[1:] if page == 3 else rows_of(page), page, 3)


def with_a_row_without_key(page: int, _: int) -> web.Response:
    """Answer with three pages; a row of the second one has another column."""
    return of([{"NAME": "x"}, *rows_of(page)] if page == 2 else rows_of(page, 21), page, 3)


def with_equal_pages(page: int, _: int) -> web.Response:
    """Answer with five pages; the third holds what the second does."""
    return of(rows_of(2) if page == 3 else rows_of(page), page, 5)


def with_twins(page: int, _: int) -> web.Response:
    """Answer with three pages; on the second, two rows are the same."""
    return of([*rows_of(2, 19), rows_of(2)[0]] if page == 2 else rows_of(page), page, 3)


def with_repairs(page: int, _: int) -> web.Response:
    """Answer with three pages, each with a byte order mark."""
    answer = good(page) if page <= 3 else reply({"errcode": "0", "data": {"data": []}})
    assert isinstance(answer.body, bytes)
    return web.Response(body=b"\xef\xbb\xbf" + answer.body, content_type="application/json")


CASES: Final = (
    ("clean", listed(5), "proven"),
    ("no rows", listed(0), "proven"),
    ("a doubled row", with_a_doubled_row, "not proven"),
    ("a row without key", with_a_row_without_key, "not proven"),
    ("equal pages", with_equal_pages, "not proven"),
    ("repairs", with_repairs, "proven"),
)


@pytest.mark.parametrize("run", ["", 'rows_per_shard = 40\ncompression = "gzip"'], ids=["one shard", "compressed"])
@pytest.mark.parametrize(("script", "verdict"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_the_same_certificate_with_a_key(tmp_path: Path, script: Script, verdict: str, run: str) -> None:
    """Rows, keys, doubled and lacking ones are counted again; believing the count of keys gives the same."""
    path = await mirrored(tmp_path, script, KEYED, run)
    with Contents.open(path) as contents:
        said = certified(contents)
        assert said.verdict == verdict
        assert said.evidence.key is not None
        assert rebuilt(contents) == rebuilt(contents, keys=False) == said
    assert snapshot_fault(path) == ""


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        (listed(5), "proven"),
        (listed(0), "proven"),
        (with_a_doubled_row, "proven"),  # on two pages that differ: only a key would tell
        (with_equal_pages, "not proven"),
        (with_twins, "likely"),
        (with_repairs, "proven"),
        (listed(50), "likely"),  # 1,000 rows
    ],
    ids=["clean", "no rows", "a doubled row", "equal pages", "twins", "repairs", "window"],
)
async def test_the_same_certificate_without_a_key(tmp_path: Path, script: Script, verdict: str) -> None:
    """Pages that repeat and rows that are twins are counted again, too."""
    path = await mirrored(tmp_path, script)
    with Contents.open(path) as contents:
        said = certified(contents)
        assert (said.verdict, said.evidence.key) == (verdict, None)
        assert rebuilt(contents) == rebuilt(contents, keys=False) == said
    assert snapshot_fault(path) == ""


async def test_the_same_certificate_after_mending(tmp_path: Path) -> None:
    """A row that was deleted meanwhile is gone from every file; how many are is taken over as it was recorded."""

    def changing(page: int, times: int) -> web.Response:
        rows = rows_of(page)
        return of([{"ID": "new"}, *rows[1:]] if page == 2 and times > 1 else rows, page, 3)

    path = await mirrored(tmp_path, changing, KEYED)
    with Contents.open(path) as contents:
        said = certified(contents)
        assert said.evidence.key == KeyFacts(columns=("ID",), distinct=60, doubled=0, gone=1)
        assert said.evidence.read_again.mended == 1
        assert rebuilt(contents) == said


Edit = Callable[[dict[str, Any]], None]


def verdict(certificate: dict[str, Any]) -> None:
    """Claim another verdict."""
    certificate["verdict"] = "likely"


def rows(certificate: dict[str, Any]) -> None:
    """Claim a row more."""
    certificate["evidence"]["rows"] += 1


def keys(certificate: dict[str, Any]) -> None:
    """Claim a key that occurs twice."""
    certificate["evidence"]["key"]["doubled"] = 1


def hidden_change(certificate: dict[str, Any]) -> None:
    """Claim nothing, but leave evidence of a change."""
    certificate["evidence"]["read_again"]["changed"] = 2


def reasons(certificate: dict[str, Any]) -> None:
    """Add a reason."""
    certificate["reasons"] = ["somebody says so"]


@pytest.mark.parametrize(
    "facts",
    [
        {"pages": 2},
        {"end": {"how": "empty", "beyond": []}},
        {"end": {"how": "error 7001", "beyond": [4]}},
        {"holes": [2]},
        {"repairs": {"bom": 3}},
        {"total": {"lowest": 60, "highest": 60, "last": 60}},
        {"twins": 1},
        {"read_again": {"pages": 9, "share_below": 0.0}},
    ],
    ids=str,
)
async def test_evidence_that_contradicts_the_manifest_is_found(tmp_path: Path, facts: dict[str, Any]) -> None:
    """What is known from elsewhere in the snapshot is not believed because the certificate says so."""
    path = await mirrored(tmp_path, listed(3))
    package = json.loads((path / "datapackage.json").read_text())
    package["harvester"]["certificate"]["evidence"] |= facts
    (path / "datapackage.json").write_text(json.dumps(package))
    assert snapshot_fault(path) == "the certificate does not say what the files and its evidence give"


async def test_an_end_of_another_kind_gives_another_verdict(tmp_path: Path) -> None:
    """The manifest may be what was edited."""
    path = await mirrored(tmp_path, listed(3))
    package = json.loads((path / "datapackage.json").read_text())
    package["harvester"]["end"]["how"] = "repeat"
    (path / "datapackage.json").write_text(json.dumps(package))
    assert snapshot_fault(path) == "the certificate says 'proven', its evidence gives 'likely'"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (verdict, "the certificate says 'likely', its evidence gives 'proven'"),
        (rows, "the certificate does not say what the files and its evidence give"),
        (keys, "the certificate says 'proven', its evidence gives 'not proven'"),
        (hidden_change, "the certificate says 'proven', its evidence gives 'not proven'"),
        (reasons, "the certificate does not say what the files and its evidence give"),
    ],
)
async def test_an_edited_certificate_is_found(tmp_path: Path, edit: Edit, words: str) -> None:
    """Whatever it says must follow."""
    path = await mirrored(tmp_path, listed(3), KEYED)
    package = json.loads((path / "datapackage.json").read_text())
    edit(package["harvester"]["certificate"])
    (path / "datapackage.json").write_text(json.dumps(package))
    assert snapshot_fault(path) == words


async def test_an_edited_count_of_keys_is_found_by_counting(tmp_path: Path) -> None:
    """It is believed where only the verdict is looked at; a full recount does not."""
    path = await mirrored(tmp_path, listed(3), KEYED)
    text = (path / "datapackage.json").read_text()
    package = json.loads(text)
    package["harvester"]["certificate"]["evidence"]["key"]["distinct"] = 59
    (path / "datapackage.json").write_text(json.dumps(package))
    with Contents.open(path) as contents:
        assert rebuilt(contents, keys=False) == certified(contents)
        assert rebuilt(contents) != certified(contents)


@pytest.mark.parametrize("text", ["{", "{}", '{"harvester":{"certificate":{"verdict":"proved"}}}'])
async def test_a_package_without_a_certificate(tmp_path: Path, text: str) -> None:
    """It is damaged, and the file is named."""
    path = await mirrored(tmp_path, listed(3))
    with Contents.open(path) as contents:
        (path / "datapackage.json").write_text(text)
        with pytest.raises(DamagedError, match=r"cannot read the certificate in .*datapackage\.json") as caught:
            certified(contents)
    assert "harvester run JOB --dataset d --" in caught.value.hint


def test_what_was_not_judged_yet_has_no_fault(tmp_path: Path) -> None:
    """An open snapshot has no certificate."""
    assert snapshot_fault(tmp_path) == ""


async def test_what_keys_tell(tmp_path: Path) -> None:
    """Lost are the rows that a total claims beyond the keys there are; gone are keys that stood in replaced pages."""
    path = await mirrored(tmp_path, listed(3))
    evidence = Evidence(
        pages=3,
        rows=0,
        end=EndFacts(how="empty", beyond=(4,)),
        page_size=SizeFacts(asked=0, effective=20),
        total=TotalFacts(lowest=63, highest=63, last=63),
    )
    with Contents.open(path) as contents, KeyCounter(tmp_path) as before:
        for line in (b'{"ID":"1-0"}', b'{"ID":"deleted"}'):
            before.add(row_key(line, ("ID",)))
        found = recounted(contents, evidence, ("ID",), before)
        assert found.key == KeyFacts(columns=("ID",), distinct=60, doubled=0, lost=3, gone=1)
        assert (found.rows, found.repeated_pages, found.twins) == (60, 0, 0)
        lacking = recounted(contents, replace(evidence, total=None), ("ID", "NAME"))
        assert lacking.key == KeyFacts(columns=("ID", "NAME"), distinct=0, doubled=0, without=60)
        assert recounted(contents, evidence, ()).key is None

"""Which snapshot a run works on, over real folders and a date that is set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harvester import lifecycle
from harvester.errors import DamagedError, UsageError
from harvester.lifecycle import OVER, Published, begun, choose, held_snapshot, identity, open_snapshot
from harvester.model import App, Dataset, Secret
from harvester.platforms import sipop, wuhan
from harvester.shard import Layout
from harvester.store.folder import DatasetFolder
from harvester.store.snapshot import Snapshot

NOW = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
APP = App(name="w", platform="wuhan", url="http://127.0.0.1/a/", id="my-id", secret=Secret("t"), rate_limit=None)
DATASET = Dataset(name="d", app=APP, service="s", params={"a": "1"}, page_param="pageNo")
SAME = identity(DATASET, wuhan)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DatasetFolder]:
    """Lock the folder of a dataset."""
    found = DatasetFolder(tmp_path / "d")
    with found.lock():
        yield found


def chosen(
    folder: DatasetFolder, same: dict[str, Any] = SAME, *, fresh: bool = False, now: datetime = NOW
) -> Published | str:
    """Choose, and return the snapshot's name if it is to be filled."""
    found = choose(folder, same, fresh=fresh, now=now)
    if isinstance(found, Published):
        return found
    with found:
        return found.path.name


def test_identity_is_what_makes_a_dataset_the_same() -> None:
    """Golden: what is kept of the job file; the app's id only as a digest, secrets not at all."""
    assert SAME == {
        "platform": "wuhan",
        "app_id": "915430721245ebba",
        "address": "http://127.0.0.1/a/s",
        "body": {"form": "", "envelope": {}},
        "params": {"a": "1"},
        "paging": ["page", "pageNo", 1],
        "page_size": None,
    }
    assert identity(replace(DATASET, title="other"), wuhan) == SAME
    assert identity(replace(DATASET, app=replace(APP, secret=Secret("u"), rate_limit=9.0, name="x")), wuhan) == SAME


def test_names_tell_when_a_snapshot_was_begun() -> None:
    """A name is a moment in UTC, and an age can be told from it."""
    assert begun("20261121T020000Z") == NOW
    assert Published("20261121T020000Z").age(NOW + timedelta(hours=3)) == timedelta(hours=3)


def test_the_first_snapshot(folder: DatasetFolder) -> None:
    """Where there is nothing, one is begun, named after the moment, with its identity."""
    assert chosen(folder) == "20261121T020000Z"
    with Snapshot.open(folder.path / "20261121T020000Z") as snapshot:
        assert snapshot.identity == SAME
        assert snapshot.created == "2026-11-21T02:00:00+00:00"


def test_an_open_snapshot_is_continued(folder: DatasetFolder) -> None:
    """A later run goes on with what an earlier one began."""
    first = chosen(folder)
    assert chosen(folder, now=NOW + timedelta(days=1)) == first
    assert open_snapshot(folder) == first


def test_what_is_published_is_not_due(folder: DatasetFolder) -> None:
    """A published snapshot stays, unless a fresh one is asked for."""
    publish(folder, "20261121T020000Z")
    assert chosen(folder, now=NOW + timedelta(days=1)) == Published("20261121T020000Z")
    assert chosen(folder, fresh=True, now=NOW + timedelta(days=1)) == "20261122T020000Z"
    assert chosen(folder, now=NOW + timedelta(days=2)) == "20261122T020000Z"


def test_what_is_older_than_the_published_one_is_not_continued(folder: DatasetFolder) -> None:
    """An open snapshot that a fresh one has overtaken is left where it is."""
    chosen(folder)
    publish(folder, "20261121T030000Z")
    assert open_snapshot(folder) is None
    assert chosen(folder) == Published("20261121T030000Z")


def test_what_is_over_is_not_continued(folder: DatasetFolder) -> None:
    """A whole snapshot that could not be published is kept, and the next run begins a new one."""
    name = begin_held(folder, NOW, "page 3 stayed empty")
    assert open_snapshot(folder) is None
    assert held_snapshot(folder) == (name, ["page 3 stayed empty"])
    assert chosen(folder, now=NOW + timedelta(hours=1)) == "20261121T030000Z"
    assert (folder.path / name).is_dir()
    assert held_snapshot(folder) is None, "a later one is under way"


def test_nothing_is_held(folder: DatasetFolder) -> None:
    """Neither where nothing was begun, nor of what is open, nor of what a publication has overtaken."""
    assert held_snapshot(folder) is None
    chosen(folder)
    assert held_snapshot(folder) is None
    begin_held(folder, NOW + timedelta(minutes=1), "why")
    publish(folder, "20261121T030000Z")
    assert held_snapshot(folder) is None
    later = begin_held(folder, NOW + timedelta(days=1), "why", "and why")
    assert held_snapshot(folder) == (later, ["why", "and why"])
    assert chosen(folder, now=NOW + timedelta(days=2)) == Published("20261121T030000Z")


def test_a_damaged_snapshot_that_a_fresh_one_replaced_is_not_looked_at(folder: DatasetFolder) -> None:
    """Whoever began anew because of the damage is not told of it again."""
    damaged = chosen(folder)
    assert isinstance(damaged, str)
    (folder.path / damaged / "checkpoint.json").write_bytes(b"{")
    with pytest.raises(DamagedError):
        chosen(folder)
    name = chosen(folder, fresh=True, now=NOW + timedelta(hours=1))
    assert open_snapshot(folder) == name
    assert held_snapshot(folder) is None


def test_two_in_one_second(folder: DatasetFolder) -> None:
    """A name that is taken is not used again."""
    names = [chosen(folder, fresh=True) for _ in range(3)]
    assert names == ["20261121T020000Z", "20261121T020001Z", "20261121T020002Z"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": "t"}, "the address"),
        ({"body": "form"}, "the body form"),
        ({"envelope": {"v": "2"}}, "the body form"),
        ({"params": {}}, "the parameters"),
        ({"paging": "none"}, "the way of paging"),
        ({"page_param": "page"}, "the way of paging"),
        ({"first_page": 0}, "the way of paging"),
        ({"page_size": 50}, "the page size"),
        ({"app": replace(APP, id="another")}, "the app's id"),
        ({"service": "t", "params": {}, "page_size": 50}, "the address, the parameters and the page size"),
    ],
)
def test_pages_of_two_datasets_are_not_mixed(folder: DatasetFolder, changes: dict[str, Any], words: str) -> None:
    """Each setting that makes another dataset of it refuses an open snapshot with pages, and is named."""
    begin_with_layout(folder)
    before = (folder.path / "20261121T020000Z" / "checkpoint.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        chosen(folder, identity(replace(DATASET, **changes), wuhan))
    assert caught.value.message.startswith("dataset 'd' is not the same one any more: ")
    assert caught.value.message.endswith(
        f"20261121T020000Z is being filled, and since then the job file has changed {words}"
    )
    assert "--dataset d --fresh" in caught.value.hint
    assert (folder.path / "20261121T020000Z" / "checkpoint.json").read_bytes() == before
    assert chosen(folder) == "20261121T020000Z"


def test_another_platform(folder: DatasetFolder) -> None:
    """The platform is named first."""
    begin_with_layout(folder)
    with pytest.raises(UsageError, match="has changed the platform"):
        chosen(folder, identity(replace(DATASET, method="m"), sipop))


def test_a_snapshot_without_pages_takes_over_what_was_mended(folder: DatasetFolder) -> None:
    """Before the first page there is nothing to mix: the corrected settings are durable, also for the run after."""
    chosen(folder)
    mended = identity(replace(DATASET, service="t"), wuhan)
    assert chosen(folder, mended) == "20261121T020000Z"
    with Snapshot.open(folder.path / "20261121T020000Z") as snapshot:
        assert snapshot.identity == mended


def test_a_published_dataset_that_became_another_is_refused(folder: DatasetFolder) -> None:
    """Old rows are no answer to new settings; a fresh snapshot takes them, and the same settings go on as before."""
    publish(folder, "20261121T020000Z", SAME)
    before = (folder.path / "current.json").read_bytes()
    other = identity(replace(DATASET, params={}, page_size=50), wuhan)
    with pytest.raises(UsageError) as caught:
        chosen(folder, other)
    assert caught.value.message.endswith(
        "20261121T020000Z is published, and since then the job file has changed the parameters and the page size"
    )
    assert "--dataset d --fresh" in caught.value.hint
    assert folder.snapshots() == ["20261121T020000Z"]
    assert (folder.path / "current.json").read_bytes() == before
    assert chosen(folder) == Published("20261121T020000Z")
    assert chosen(folder, other, fresh=True, now=NOW + timedelta(days=1)) == "20261122T020000Z"


def test_every_part_of_an_identity_has_words() -> None:
    """No change of identity can go unnamed, and so unnoticed."""
    assert set(lifecycle._WORDS) == set(SAME)


def publish(folder: DatasetFolder, name: str, same: dict[str, Any] | None = None) -> None:
    """Publish an empty snapshot; without an identity in its summary unless one is given."""
    with Snapshot.create(folder.path / name, dict(SAME), "") as snapshot:
        snapshot.set_end({"last": 0})
        snapshot.finish({"resources": []})
        folder.publish(name, {"verdict": "likely", "rows": 0} | ({"identity": same} if same else {}))
        snapshot.close_open()


def begin_with_layout(folder: DatasetFolder) -> None:
    """Begin a snapshot that has come as far as its first page."""
    name = chosen(folder)
    assert isinstance(name, str)
    with Snapshot.open(folder.path / name) as snapshot:
        snapshot.freeze(Layout(100, 20, "none"))


def begin_held(folder: DatasetFolder, now: datetime, *reasons: str) -> str:
    """Begin a snapshot that is whole and was not published."""
    name = chosen(folder, fresh=True, now=now)
    assert isinstance(name, str)
    with Snapshot.open(folder.path / name) as snapshot:
        snapshot.notes = {OVER: reasons}
        snapshot.save()
    return name

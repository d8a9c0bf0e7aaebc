"""The data package as a record: back and forth, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from harvester.errors import DamagedError
from harvester.shard import Compression, Layout, ShardEntry, resources
from harvester.store.checkpoint import Checkpoint
from harvester.store.durable import Folder
from harvester.store.package import members, read_package


def entries(compression: Compression) -> list[ShardEntry]:
    """Return two shards of three pages."""
    content = "" if compression == "none" else "c" * 64
    shared: dict[str, Any] = {"bytes": 40, "sha256": "a" * 64, "mtime_ns": 0, "content_sha256": content}
    stored = 40 if compression == "none" else 30
    return [
        ShardEntry(number=0, first=1, last=2, rows=4, file_bytes=stored, twins=2, **shared),
        ShardEntry(number=1, first=3, last=3, rows=2, file_bytes=stored, **shared),
    ]


def recorded(compression: Compression = "none") -> Checkpoint:
    """Return what is known of a finished snapshot."""
    return Checkpoint(
        identity={"platform": "wuhan", "params": {"名": "值"}},
        created="2026-11-21T02:00:00+00:00",
        layout=Layout(4, 2, compression),
        end={"last": 3, "how": "empty", "beyond": [4, 5]},
        notes={"calls": 7},
        sealed=entries(compression),
    )


def package(content: Checkpoint) -> dict[str, Any]:
    """Return the package as a caller makes it, beside members of its own."""
    found = resources(content.layout, content.sealed) if content.layout else []
    ours = {"version": "0.1.0", "rows": 6, **members(content), "certificate": {"verdict": "likely"}}
    return {"name": "investors", "created": content.created, "resources": found, "harvester": ours}


def read(path: Path, found: dict[str, Any]) -> Checkpoint:
    """Write a package the way the store does and read it."""
    (path / "datapackage.json").write_bytes(orjson.dumps(found))
    with Folder(path) as folder:
        return read_package(folder)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_back_and_forth(tmp_path: Path, compression: Compression) -> None:
    """All that a checkpoint would say comes back, also how many pages hold twins."""
    assert read(tmp_path, package(recorded(compression))) == recorded(compression)


def test_empty_dataset(tmp_path: Path) -> None:
    """No page, no shard, perhaps no layout."""
    for layout in (None, Layout(4, 2)):
        empty = Checkpoint(identity={}, created="", layout=layout, end={"last": 0}, notes={}, sealed=[])
        assert read(tmp_path, package(empty)) == empty


def test_package_of_the_first_version(tmp_path: Path) -> None:
    """It does not say the end; its layout is one that gives the same shards."""
    found = package(recorded("gzip"))
    del found["harvester"]
    old = read(tmp_path, found)
    assert (old.end, old.layout, old.sealed) == (None, Layout(2, 1, "gzip"), entries("gzip"))


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["harvester"]["end"].update(last=4),
        lambda found: found["harvester"]["end"].pop("last"),
        lambda found: found["harvester"]["end"].update(last="3"),
        lambda found: found["harvester"]["end"].update(last=-1),
        lambda found: found["harvester"]["layout"].update(rows_per_shard=2),
        lambda found: found["harvester"]["layout"].update(rows_per_shard=0),
        lambda found: found["harvester"]["layout"].update(compression="gzip"),
        lambda found: found["harvester"].update(layout=None, end={"last": 0}),
        lambda found: found["resources"].pop(),
        lambda found: found["resources"].reverse(),
        lambda found: found["resources"][0].update(path="../part-00000.jsonl"),
        lambda found: found["resources"][0]["harvester"].update(pages=[1, 1]),
        lambda found: found["resources"][0]["harvester"].update(pages=[2, 2]),
        lambda found: found.pop("resources"),
    ],
)
def test_package_that_contradicts_itself_is_damage(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The end, the layout and the resources say the same three times."""
    found = json.loads(orjson.dumps(package(recorded())))
    change(found)
    with pytest.raises(DamagedError, match=r"datapackage\.json") as caught:
        read(tmp_path, found)
    assert "--fresh" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null"])
def test_package_that_is_none_is_damage(tmp_path: Path, data: bytes) -> None:
    """Missing or torn: said in the same words."""
    with Folder(tmp_path) as folder:
        with pytest.raises(DamagedError, match="missing or damaged"):
            read_package(folder)
        (tmp_path / "datapackage.json").write_bytes(data)
        with pytest.raises(DamagedError, match="missing or damaged"):
            read_package(folder)

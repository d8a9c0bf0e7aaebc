"""A disk that changes what it holds: every flipped bit and every cut is named, or does no harm."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from crash_scenarios import IDENTITY, NAME, page
from model_fs import memory, tree
from msgspec.structs import replace

from harvester.errors import DamagedError
from harvester.shard import Compression, Layout, resources
from harvester.store.snapshot import Snapshot
from harvester.store.verify import verify_snapshot

LAYOUT: Final = Layout(4, 1)  # four pages a shard
LAST: Final = 9
RANDOM: Final = 1_000
SEED: Final = 20261122


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory, where there is such a place: thousands of snapshots are written."""
    with memory() as path:
        yield path


def flips(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every flip of one bit, in words and as it leaves the file."""
    for offset in range(len(data)):
        for bit in range(8):
            changed = data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]
            yield f"bit {bit} of byte {offset} flipped", changed


def cuts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every shorter file."""
    for size in range(len(data)):
        yield f"cut to {size} bytes", data[:size]


def opened(path: Path) -> None:
    """Leave a snapshot with a sealed shard, the end known, and two journals, one of them of three batches."""
    with Snapshot.create(path, IDENTITY, "2026-11-21T02:00:00+00:00") as snapshot:
        snapshot.freeze(LAYOUT)
        snapshot.set_end({"last": LAST})
        snapshot.append([(n, page(n)) for n in (1, 2, 3, 4, 9)])
        snapshot.seal(0)
        for number in (5, 7, 6):
            snapshot.append([(number, page(number))])


def ended(path: Path) -> dict[str, Any]:
    """Continue a snapshot to its end; return all that it holds then."""
    with Snapshot.open(path) as snapshot:
        held = {kept.page for kept in snapshot.recover()}
        for entry in snapshot.sealed.values():
            held.update(range(entry.first, entry.last + 1))
        snapshot.append([(n, page(n)) for n in range(1, LAST + 1) if n not in held])
        for shard in LAYOUT.shards(LAST):
            if shard not in snapshot.sealed:
                snapshot.seal(shard)
        snapshot.finish({"resources": resources(LAYOUT, snapshot.sealed.values())})
        snapshot.close_open()
    return tree(path)


@pytest.mark.parametrize("name", ["checkpoint.json", "part-00001.pages"])
def test_every_flip_and_cut_of_what_is_open(disk: Path, name: str) -> None:
    """Continuing says which file is damaged, or ends with the very bytes of an undisturbed snapshot."""
    opened(disk / "kept" / NAME)
    shutil.copytree(disk / "kept", disk / "undisturbed")
    expected = ended(disk / "undisturbed" / NAME)
    good = (disk / "kept" / NAME / name).read_bytes()
    path = disk / "hurt" / NAME
    named = harmless = 0
    found: dict[str, Any] = {}
    for words, changed in (*flips(good), *cuts(good)):
        shutil.copytree(disk / "kept" / NAME, path)
        (path / name).write_bytes(changed)
        try:
            found = ended(path)
        except DamagedError as error:
            damage = str(error)
            named += 1
        else:
            damage = ""
            harmless += 1
        if damage:
            assert str(path / name) in damage, words
            assert "hint: " in damage, words
        else:
            assert found == expected, words
        shutil.rmtree(path)
    print(f"{name} of {len(good)} bytes: {named} named, {harmless} harmless")
    assert named + harmless == 9 * len(good)
    assert named > len(good)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_verify_finds_every_change(disk: Path, compression: Compression) -> None:
    """A thousand flips and cuts in shards and index, half of them in an open snapshot."""
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    layout = replace(LAYOUT, compression=compression)
    open_one, path = disk / "open", disk / "published"
    with Snapshot.create(path, IDENTITY, "2026-11-21T02:00:00+00:00") as snapshot:
        snapshot.freeze(layout)
        snapshot.append([(n, page(n)) for n in range(1, 11)])
        snapshot.set_end({"last": 10})
        for shard in range(3):
            snapshot.seal(shard)
        shutil.copytree(path, open_one)
        snapshot.finish({"resources": resources(layout, snapshot.sealed.values())})
        snapshot.close_open()
    for folder in (open_one, path):
        assert verify_snapshot(folder).symbols == "..."
    for number in range(RANDOM):
        folder = chance.choice((open_one, path))
        file = chance.choice([*sorted(folder.glob("part-*.jsonl*")), folder / "pages.idx"])
        good = file.read_bytes()
        place, bit = chance.randrange(len(good)), chance.randrange(8)
        if chance.random() < 0.5:
            file.write_bytes(good[:place])
        else:
            file.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
        symbols = verify_snapshot(folder).symbols
        assert set(symbols) & {"X", "?"}, f"change {number} of {file}: byte {place}, bit {bit}: {symbols}"
        file.write_bytes(good)
    assert verify_snapshot(path).symbols == "..."

"""Loss of power on a real file system: ext4 on a disk that is cut off after any write, its journal replayed.

Needs root, for loop devices; elsewhere the model file system has to do (``test_crash_power``).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Final

import pytest
from block_log import BlockLog, formatted, mounted
from crash_scenarios import SCRIPTS, Promises, Script
from model_fs import memory
from test_crash_syscalls import bench, found

from harvester.errors import Exit

SEED: Final = 20261122
SIZE: Final = 12 * 2**20
SIZE_FOR_RUN: Final = 80 * 2**20  # it does not begin where little is free
IMAGES: Final = 40  # of each kind
OPTIONS: Final = ("data=ordered", "data=writeback")

pytestmark = pytest.mark.soak


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory, on a system where file systems can be mounted."""
    with memory() as path:
        try:
            with closing(BlockLog(path / "try", formatted(path / "empty", SIZE))) as log, mounted(log.path):
                pass
        except (OSError, CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            pytest.skip(f"cannot mount ext4 on a loop device on FUSE, as user {os.geteuid()}: {said}")
        yield path


def moments(chance: random.Random, steps: int) -> Iterator[tuple[int, random.Random | None]]:
    """Yield numbers of steps; half of them for a disk that puts writes off."""
    for number in range(IMAGES):
        yield chance.randint(1, steps), chance if number % 2 else None


def mirror(root: Path) -> dict[str, Any]:
    """Return what a scenario has left, but for the lock, which names the process."""
    folder = root / "mirror" / "investors"
    files = (path for path in sorted(folder.rglob("*")) if path.name != ".lock" and "current" not in path.parts[-2:-1])
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else ""
        for path in files
    }


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_scenario(kind: type[Script], options: str, disk: Path) -> None:
    """All that was promised by then is there, and the end is the same."""
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    with mounted(disk / "empty") as root:
        kind.prepare(root)
    promised: list[tuple[int, tuple[Any, ...]]] = []
    with closing(BlockLog(disk / "disk", (disk / "empty").read_bytes())) as log, mounted(log.path, options) as root:
        kind(root, lambda *told: promised.append((len(log.steps), told)), lambda *_: None).run()
        expected = mirror(root)
        steps = len(log.steps)
    assert steps > IMAGES
    for number, some in moments(chance, steps):
        promises = Promises()
        for known, told in promised:
            if known <= number:
                promises.learn(*told)
        image = disk / "image"
        image.write_bytes(log.image(number, some))
        print(f"seed {SEED}: power lost after step {number} of {steps}, writes put off: {some is not None}")
        with mounted(image, options) as root:
            script = kind(root, lambda *_: None, promises.compare_snapshot)
            script.repair &= not promises.mended
            promises.compare_folder(script.dataset, readable=script.readable)
            script.run()
            assert mirror(root) == expected


async def test_run(disk: Path) -> None:
    """A run that loses power, its network alive, is continued to the undisturbed bytes; one that had ended is whole."""
    chance = random.Random(SEED)  # noqa: S311 - a seed makes a failure repeatable
    async with bench() as place:
        blank = formatted(disk / "empty", SIZE_FOR_RUN)
        with closing(BlockLog(disk / "disk", blank)) as log, mounted(log.path) as root:
            code, printed = await place.run(root / "out", name="first")
            assert code == Exit.OK, printed
            place.expected = found(root / "out")
            steps = len(log.steps)
        for number, some in [*moments(chance, steps), (steps, chance)]:
            image = disk / "image"
            image.write_bytes(log.image(number, some))
            print(f"seed {SEED}: power lost after step {number} of {steps}, writes put off: {some is not None}")
            with mounted(image) as root:
                if number == steps:
                    assert found(root / "out") == place.expected
                code, printed = await place.run(root / "out")
                assert code == Exit.OK, printed
                assert found(root / "out") == place.expected

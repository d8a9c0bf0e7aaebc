"""Loss of power at any moment, whatever the disk has written: nothing promised is lost, the end is the same."""

from __future__ import annotations

import errno
import fcntl
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from crash_scenarios import NAME, SCRIPTS, Again, Fill, Mend, Promises, Repair, Script
from model_fs import Fault, Mark, PowerCutError, Recorder, Rest, materialise, memory, rests, tree

from harvester.errors import LocalError
from harvester.shard import PageRecord, index_record
from harvester.store.durable import Folder
from harvester.store.index import INDEX, Index

SEED: Final = 20261122
NEAR: Final = 5
"""Steps of a new process in which it must not rely on what the last one has left in memory."""

STATES: Final = {Fill: 900, Mend: 1_600, Repair: 800, Again: 600}
STATES_AFTER_KILLS: Final = 700
"""Different states, at least, in which a disk is found; by default 6,000 together."""

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="stands in for fdatasync, which macOS lacks")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder, in memory where the system has such a place."""
    with memory() as path:
        yield path


def ignore(*_: object) -> None:
    """Take note of nothing."""


def prepared(kind: type[Script], path: Path) -> Path:
    """Return a new folder with what a scenario begins from."""
    path.mkdir()
    kind.prepare(path)
    return path


def outcome(kind: type[Script], disk: Path) -> dict[str, Any]:
    """Return the dataset as one process leaves it that nothing disturbs."""
    root = prepared(kind, disk / "undisturbed")
    kind(root, ignore, ignore).run()
    return visible(root)


def visible(root: Path) -> dict[str, Any]:
    """Return the dataset's folder but for the lock, which names the process."""
    found: dict[str, Any] = tree(root)["mirror"]["investors"]
    del found[".lock"]
    return found


def recorded(kind: type[Script], root: Path, stop: int = 0, fault: Fault | None = None) -> tuple[Recorder, int]:
    """Run a scenario and record it; where it is killed, or ends with an error, another process takes over and ends it.

    Returns:
        The record, and how many steps of it the first process has done.
    """
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, root, stop, fault)
        try:
            kind(root, recorder.mark, ignore).run()
            done = len(recorder.steps)
        except (PowerCutError, LocalError):
            done = len(recorder.steps)
            recorder.revive()
            kind(root, recorder.mark, ignore).run()
    return recorder, done


class Crashes:
    """Tries what may be left after each step of a record; each different rest, with the promises made by then, once."""

    def __init__(self, kind: type[Script], disk: Path, seed: int) -> None:
        self.kind = kind
        self.disk = disk
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - a seed makes a failure repeatable
        self.expected = outcome(kind, disk)
        self.states = 0
        self._seen: set[int] = set()

    def after_each_step(self, recorder: Recorder, drawn: int, since: int = 0, share: float = 1.0) -> None:
        """Lose power after each step from some step on: after the first few always, then after a share of them.

        Beside the plain rests so many are drawn of each moment.
        """
        promises = Promises()
        for number, step in enumerate(recorder.replay(), 1):
            if isinstance(step, Mark):
                promises.learn(*step.told)
            if number > since and (number <= since + NEAR or self.chance.random() < share):
                for rest in rests(self.chance, drawn):
                    self._try(recorder, rest, promises, f"after step {number}, {type(step).__name__}: {rest[:2]}")

    def after_each_kill(self, drawn: int, share: float) -> None:
        """Kill the first process before each change in turn; lose power at some moments of the second."""
        stop = changes = 1
        while stop <= changes:
            recorder, done = recorded(self.kind, prepared(self.kind, self.disk / "killed"), stop)
            self.after_each_step(recorder, drawn, since=done, share=share)
            shutil.rmtree(recorder.root)
            stop, changes = stop + 1, recorder.changes

    def _try(self, recorder: Recorder, rest: Rest, promises: Promises, where: str) -> None:
        image = rest.image(recorder.tree)
        key = hash((_key(image), repr(vars(promises))))
        if key in self._seen:
            return
        self._seen.add(key)
        self.states += 1
        root = self.disk / "crashed"
        root.mkdir()
        materialise(image, root)
        try:
            self._continue(root, promises, rest)
        except BaseException:
            print(f"seed {self.seed}, {self.kind.__name__}: power lost {where}\n{vars(promises)}\n{image}")
            raise
        shutil.rmtree(root)

    def _continue(self, root: Path, promises: Promises, rest: Rest) -> None:
        """Do what the next run does; compare with the promises on the way, and the end with the undisturbed one."""
        script = self.kind(root, ignore, promises.compare_snapshot)
        script.repair &= not promises.mended
        promises.compare_folder(script.dataset, readable=script.readable)
        script.run()
        found = visible(root)
        if rest.names == "any":  # its removal may be lost although a later one, that of the checkpoint, is not
            found[NAME].pop(".tmp-left", None)
        assert found == self.expected


def _key(image: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, _key(held) if isinstance(held, dict) else held) for name, held in sorted(image.items()))


@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_record_is_complete(kind: type[Script], disk: Path) -> None:
    """Every change of a file has been seen: with nothing lost the model holds what the real folder does."""
    root = prepared(kind, disk / "recorded")
    recorder, _ = recorded(kind, root)
    for _ in recorder.replay():
        pass
    chance = random.Random(SEED)  # noqa: S311 - nothing is left to it here
    assert Rest("kept", "kept", chance).image(recorder.tree) == tree(root)
    assert recorder.changes > 50


def test_index_is_durable_after_each_change(disk: Path) -> None:
    """Whatever is done to the index, when it is done nothing of it can be lost."""
    chance = random.Random(SEED)  # noqa: S311 - nothing is left to it here
    records = [PageRecord(number, 1, 0, 5, b"%016d" % number) for number in range(1, 6)]
    changes: dict[str, Callable[[Index], None]] = {
        "create": Index.create,
        "put": lambda index: index.put(1, b"".join(map(index_record, records))),
        "cut": lambda index: index.cut(3),
        "mend": Index.mend,
    }
    for name, change in changes.items():
        if name == "mend":
            (disk / INDEX).write_bytes(b"x" + (disk / INDEX).read_bytes()[1:])
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(patch, disk)
            with Folder(disk) as folder, closing(Index(folder)) as index:
                change(index)
        assert recorder.changes, name
        for _ in recorder.replay():
            pass
        assert Rest("lost", "lost", chance).image(recorder.tree) == tree(disk), name


@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_power_lost_anywhere(kind: type[Script], disk: Path) -> None:
    """After any step, with any part of what was not durable lost, kept or torn."""
    crashes = Crashes(kind, disk, SEED)
    recorder, _ = recorded(kind, prepared(kind, disk / "recorded"))
    crashes.after_each_step(recorder, drawn=25)
    print(f"{crashes.states} states")
    assert crashes.states >= STATES[kind]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, id=name, marks=[pytest.mark.soak] * (name == "mend")) for name, kind in SCRIPTS.items()],
)
def test_power_lost_after_a_kill(kind: type[Script], disk: Path) -> None:
    """The next process found in memory what was not durable, and builds upon it; then power is lost."""
    crashes = Crashes(kind, disk, SEED)
    crashes.after_each_kill(drawn=2, share=0.015)
    print(f"{crashes.states} states")
    assert crashes.states >= STATES_AFTER_KILLS


@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_error_anywhere(kind: type[Script], disk: Path) -> None:
    """The disk fails once, at any call, while every write takes a few bytes only: no error but ours, and no loss."""
    crashes = Crashes(kind, disk, SEED)
    failing = changes = 1
    while failing <= changes:

        def fault(number: int, call: str, failing: int = failing) -> OSError | int | None:
            if number == failing:
                return OSError(errno.EIO if "sync" in call else errno.ENOSPC, "made to fail")
            return 40

        root = prepared(kind, disk / "failing")
        recorder, _ = recorded(kind, root, fault=fault)
        assert visible(root) == crashes.expected, failing
        shutil.rmtree(root)
        failing, changes = failing + 1, recorder.changes


@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_power_lost_after_a_failed_sync(kind: type[Script], disk: Path) -> None:
    """What a sync could not write never gets to the disk, whatever later ones say; the next process is told nothing."""
    crashes = Crashes(kind, disk, SEED)
    failing = changes = 1
    while failing <= changes:

        def fault(number: int, call: str, failing: int = failing) -> OSError | None:
            return OSError(errno.EIO, "made to fail") if number == failing and "sync" in call else None

        recorder, done = recorded(kind, prepared(kind, disk / "failing"), fault=fault)
        if done < len(recorder.steps):
            crashes.after_each_step(recorder, drawn=0, since=done, share=0.01)
        shutil.rmtree(recorder.root)
        failing, changes = failing + 1, recorder.changes
    print(f"{crashes.states} states")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", SCRIPTS.values(), ids=SCRIPTS)
def test_power_lost_everywhere(kind: type[Script], seed: int, disk: Path) -> None:
    """Many more rests of each moment, and of every moment after a kill."""
    crashes = Crashes(kind, disk, seed)
    recorder, _ = recorded(kind, prepared(kind, disk / "recorded"))
    crashes.after_each_step(recorder, drawn=100)
    crashes.after_each_kill(drawn=4, share=0.5)
    print(f"{crashes.states} states")


def test_macos_empties_the_buffer_of_the_drive(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There another call does what a sync does elsewhere."""
    asked: list[object] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))
    monkeypatch.setattr(sys, "platform", "darwin")
    with Folder(disk) as folder:
        folder.replace("file", b"content")
    assert asked == [51]

"""Calls counted in a file: never more than the allowance, and nothing lost but what was in flight."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harvester import ledger as ledger_module
from harvester import slots
from harvester.call_counts import BEIJING, parse
from harvester.errors import DamagedError, LocalError
from harvester.ledger import BLOCK, Ledger, Standing, ledger_path
from harvester.store.durable import Folder, sync

NOON: Final = datetime(2026, 11, 22, 12, tzinfo=BEIJING).timestamp()
DAY: Final = 86400.0


class Clock:
    """A clock that is set."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a ledger goes; neither the file nor its folder is there."""
    return tmp_path / "state" / "calls-1"


@pytest.fixture
def clock() -> Clock:
    """Noon of a day in the middle of a month."""
    return Clock()


def taken(ledger: Ledger, most: int = 1000) -> int:
    """Take until there is no more; return how many there were."""
    return next(count for count in range(most) if not ledger.take())


def killed(ledger: Ledger) -> None:
    """Let go as the kernel does when a process dies."""
    os.close(ledger._fd)


def used(path: Path, clock: Callable[[], float], reset: str = "month") -> int:
    """Return what a ledger in the file counts."""
    return Ledger(path, None, reset, clock).state().used


@pytest.mark.parametrize("allowance", [1, 2, 20, 100])
def test_there_are_as_many_calls_as_the_allowance(path: Path, clock: Clock, allowance: int) -> None:
    """Then no more, for this ledger and for the next one."""
    with closing(Ledger(path, allowance, "month", clock)) as ledger:
        assert taken(ledger) == allowance
        assert not ledger.take()
    with closing(Ledger(path, allowance, "month", clock)) as ledger:
        assert not ledger.take()
    assert used(path, clock) == allowance


def test_an_allowance_that_changes_counts_what_was_used(path: Path, clock: Clock) -> None:
    """More room for a greater one, none for a smaller one, and never less than none."""
    with closing(Ledger(path, 5, "month", clock)) as ledger:
        assert taken(ledger) == 5
    with closing(Ledger(path, 8, "month", clock)) as ledger:
        assert taken(ledger) == 3
    with closing(Ledger(path, 4, "month", clock)) as ledger:
        assert not ledger.take()
        assert ledger.state().left == 0


def test_the_state_says_what_is_left_and_until_when(path: Path, clock: Clock) -> None:
    """To look changes nothing and makes nothing."""
    ledger = Ledger(path, 20, "day", clock)
    midnight = datetime(2026, 11, 23, tzinfo=BEIJING)
    assert ledger.state() == Standing(used=0, left=20, resets=midnight)
    assert not path.parent.exists()
    with closing(ledger):
        ledger.take()
        before = path.read_bytes()
        clock.now += DAY
        assert ledger.state() == Standing(used=0, left=20, resets=midnight + timedelta(days=1))
        assert path.read_bytes() == before
        clock.now -= DAY
        assert ledger.state() == Standing(used=1, left=19, resets=midnight)
        assert Ledger(path, None, "2026-11-22", clock).state() == Standing(used=1, left=None, resets=None)


@pytest.mark.parametrize(("reset", "days"), [("day", 1), ("month", 9), ("2026-12-03", 11)])
def test_a_reset_gives_the_whole_allowance_again(path: Path, clock: Clock, reset: str, days: int) -> None:
    """From midnight in Beijing on, not a second earlier; a clock that is set back takes nothing back."""
    with closing(Ledger(path, 9, reset, clock)) as ledger:
        assert taken(ledger) == 9
        clock.now = NOON - 12 * 3600 + days * DAY - 1
        assert not ledger.take()
        clock.now += 1
        assert taken(ledger) == 9
        clock.now -= 1
        assert not ledger.take()
        assert ledger.state().used == 9


def test_a_date_resets_once(path: Path, clock: Clock) -> None:
    """What is used after it stays used."""
    with closing(Ledger(path, 2, "2026-11-23", clock)) as ledger:
        taken(ledger)
        clock.now += DAY
        assert taken(ledger) == 2
        clock.now += 400 * DAY
        assert not ledger.take()


def test_jobs_with_different_resets_share_every_call(path: Path, clock: Clock) -> None:
    """The day of one job never empties the month of another, and calls without an allowance count in both."""
    daily, monthly = Ledger(path, 10, "day", clock), Ledger(path, 25, "month", clock)
    with closing(daily), closing(monthly), closing(Ledger(path, None, "month", clock)) as unmetered:
        assert taken(daily) == 10
        clock.now += DAY
        unmetered.note(4)
        assert taken(daily) == 6
        assert taken(monthly) == 5
        assert not daily.take()
        clock.now += DAY
        assert not monthly.take()
        assert taken(daily) == 10
        assert monthly.state().used == 35


@pytest.mark.parametrize("boot", ["boot", "-"])
def test_without_an_allowance_calls_are_counted_and_never_refused(path: Path, clock: Clock, boot: str) -> None:
    """Noted or taken: neither reserves anything, nor waits for the disk before the end."""
    disk = Disk(path)
    with watched(disk, lambda: boot), closing(Ledger(path, None, "month", clock)) as ledger:
        ledger.note(1000)
        assert all(ledger.take() for _ in range(5))
        assert ledger.state() == Standing(used=1005, left=None, resets=datetime(2026, 12, 1, tzinfo=BEIJING))
        assert disk.syncs == 0
    with closing(Ledger(path, 1006, "month", clock)) as ledger:
        assert taken(ledger) == 1


def test_a_call_that_was_not_sent_is_given_back(path: Path, clock: Clock) -> None:
    """Also the last one; what was not taken cannot be given back."""
    with closing(Ledger(path, 3, "day", clock)) as ledger, closing(Ledger(path, 3, "day", clock)) as other:
        assert taken(ledger) == 3
        other.give_back()
        assert not ledger.take()
        ledger.give_back()
        assert other.take()
        assert not ledger.take()


def test_a_call_of_yesterday_makes_no_room_today(path: Path, clock: Clock) -> None:
    """Taken before midnight and given back after it: the month has it back, the day never had it."""
    daily, monthly = Ledger(path, 3, "day", clock), Ledger(path, 3, "month", clock)
    with closing(daily), closing(monthly):
        daily.take()
        clock.now += DAY
        assert taken(daily) == 3
        daily.give_back()
        assert not daily.take()
        assert monthly.state().used == 3


def test_threads_take_turns(path: Path, clock: Clock) -> None:
    """One ledger in many threads: as many calls as the allowance."""
    with closing(Ledger(path, 400, "month", clock)) as ledger:
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(taken(ledger))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) == ledger.state().used == 400


def test_nobody_looks_or_counts_while_another_holds_the_file(path: Path, clock: Clock) -> None:
    """Each waits for the lock of another process, and then sees what that one wrote."""
    with closing(Ledger(path, 9, "month", clock)) as ledger:
        ledger.take()
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with closing(Ledger(path, 9, "month", clock)) as ledger:
            found: list[object] = []
            for work in (ledger.state, ledger.take):
                thread = threading.Thread(target=lambda work=work: found.append(work()))
                thread.start()
                thread.join(0.1)
                assert thread.is_alive()
                fcntl.flock(fd, fcntl.LOCK_UN)
                thread.join(10)
                fcntl.flock(fd, fcntl.LOCK_EX)
            fcntl.flock(fd, fcntl.LOCK_UN)
        assert found == [Standing(used=1, left=8, resets=datetime(2026, 12, 1, tzinfo=BEIJING)), True]
    finally:
        os.close(fd)


# Power cuts


class Disk:
    """What a power cut leaves of one file: the content of the last sync, or any that was written since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.syncs = 0
        self.contents = [b""]  # since the last sync; the first is the synced one

    def synced(self, fd: int) -> None:
        """Stand in for ``sync``."""
        sync(fd)
        self.syncs += 1
        self.contents = [self.path.read_bytes()]

    def cut(self, choose: Callable[[int], int]) -> None:
        """Leave the file as one of the contents that it may have."""
        if self.path.exists():
            self.path.write_bytes(self.contents[choose(len(self.contents))])
            self.contents = [self.path.read_bytes()]


@contextmanager
def watched(disk: Disk, boot: Callable[[], str]) -> Iterator[None]:
    """Let a disk see the ledger's syncs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "sync", disk.synced)
        patch.setattr(ledger_module, "boot_id", boot)
        yield


@pytest.mark.parametrize(
    ("allowance", "block", "syncs"), [(20, 300, 11), (1, 300, 1), (100_000, 300, 4), (1000, 100, 28)]
)
def test_a_block_costs_one_sync(path: Path, clock: Clock, allowance: int, block: int, syncs: int) -> None:
    """A quarter of what is left, at most a block, and single calls near the end."""
    disk = Disk(path)
    with watched(disk, lambda: "boot"), closing(Ledger(path, allowance, "month", clock, block)) as ledger:
        assert all(ledger.take() for _ in range(min(allowance, 1000)))
        assert disk.syncs == syncs


@pytest.mark.parametrize("back", ["day", "month", "2027-01-01"])
def test_a_power_cut_uses_up_what_was_reserved(path: Path, clock: Clock, back: str) -> None:
    """The synced count may be old: all that may have been sent since counts, whatever the reset is."""
    disk, boot = Disk(path), ["1"]
    with watched(disk, lambda: boot[0]):
        ledger = Ledger(path, 20, back, clock)
        assert all(ledger.take() for _ in range(3))
        killed(ledger)
        disk.cut(lambda _: 0)
        boot[0] = "2"
        with closing(Ledger(path, 20, back, clock)) as ledger:
            assert ledger.state().used == 5
            assert taken(ledger) == 15


def test_a_system_without_a_boot_id_syncs_every_call(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reserved where nobody could tell that counts were lost; also after a call was given back."""
    monkeypatch.setattr(slots, "_BOOT_ID", path / "none")
    disk = Disk(path)
    monkeypatch.setattr(ledger_module, "sync", disk.synced)
    for content in ("absent", "empty"):
        if content == "empty":
            (path.parent / "boot").write_text("")
            monkeypatch.setattr(slots, "_BOOT_ID", path.parent / "boot")
        ledger = Ledger(path, 20, "month", clock)
        assert [ledger.take() for _ in range(3)] == [True] * 3
        ledger.give_back()
        disk.contents.append(path.read_bytes())
        assert ledger.take()
        killed(ledger)
        disk.cut(lambda count: count - 1)
    assert disk.syncs == 8
    assert used(path, clock) == 6


def test_a_first_call_makes_the_files_name_durable(tmp_path: Path, clock: Clock) -> None:
    """The folder and those above, before anything is written; not again once there is a count."""
    path = tmp_path / "a" / "b" / "calls-1"
    seen: list[tuple[Path, int]] = []

    class Seen(Folder):
        def sync(self) -> None:
            seen.append((self.path, path.stat().st_size))
            super().sync()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "Folder", Seen)
        with closing(Ledger(path, 2, "month", clock)) as ledger:
            ledger.take()
        above = list(seen)
        with closing(Ledger(path, 2, "month", clock)) as ledger:
            ledger.take()
    assert above[:3] == [(tmp_path / "a" / "b", 0), (tmp_path / "a", 0), (tmp_path, 0)]
    assert seen == above


def test_folders_of_others_are_left_alone(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that another user owns is not as new as ours, and may not be readable."""
    (tmp_path / "theirs" / "ours").mkdir(parents=True)
    look = Path.stat

    def owned(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = look(self, follow_symlinks=follow_symlinks)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if self.name == "theirs" else found

    monkeypatch.setattr(Path, "stat", owned)
    seen: list[Path] = []
    monkeypatch.setattr(Folder, "sync", lambda self: seen.append(self.path))
    with closing(Ledger(tmp_path / "theirs" / "ours" / "calls-1", 2, "month", clock)) as ledger:
        ledger.take()
    assert seen == [tmp_path / "theirs" / "ours"]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_call_whose_sync_fails_is_not_taken(path: Path, clock: Clock, failing: int) -> None:
    """The message names the file; what was being reserved is nobody's, and nothing is lost of the count."""
    disk = Disk(path)

    def fail(fd: int) -> None:
        if disk.syncs + 1 == failing:
            disk.syncs += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        disk.synced(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "sync", fail)
        ledger = Ledger(path, 20, "month", clock)
        with pytest.raises(LocalError, match=f"cannot count calls in {path}: Input/output error"):  # noqa: PT012
            for before in range(20):  # noqa: B007 - it says which take raised
                ledger.take()
        assert before == [0, 5, 8][failing - 1]
        assert ledger.state().used == before
        syncs = disk.syncs
        assert ledger.take()
        assert disk.syncs == syncs + 1, "the reservation that failed is made again"
        killed(ledger)


def test_a_kill_while_reserving_loses_nothing(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block was not known to be durable, so no call of it was sent; the next process reserves anew."""

    def kill(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger_module, "sync", kill)
    ledger = Ledger(path, 20, "month", clock)
    with pytest.raises(KeyboardInterrupt):
        ledger.take()
    killed(ledger)
    disk = Disk(path)
    with watched(disk, slots.boot_id), closing(Ledger(path, 20, "month", clock)) as ledger:
        assert ledger.state().used == 0
        assert ledger.take()
        assert disk.syncs == 1
        assert taken(ledger) == 19


def test_a_clean_end_reserves_nothing(path: Path, clock: Clock) -> None:
    """After a power cut the next process finds the count itself, not the block; noted calls are durable too."""
    disk, boot = Disk(path), ["1"]
    with watched(disk, lambda: boot[0]):
        with closing(Ledger(path, 20, "month", clock)) as ledger:
            ledger.take()
            ledger.note(2)
        disk.cut(lambda _: 0)
        boot[0] = "2"
        assert used(path, clock) == 3


def test_noted_calls_make_no_room_in_a_block(path: Path, clock: Clock) -> None:
    """They use up what is reserved, so that what is taken after them is still covered after a power cut."""
    disk, boot = Disk(path), ["1"]
    with watched(disk, lambda: boot[0]):
        ledger = Ledger(path, 100, "month", clock)
        ledger.take()
        ledger.note(23)
        assert ledger.take()
        assert disk.syncs == 1
        assert ledger.take()
        assert disk.syncs == 2
        ledger.note(50)
        assert ledger.take()
        assert disk.syncs == 3
        killed(ledger)
        disk.cut(lambda _: 0)
        boot[0] = "2"
        assert used(path, clock) >= 77


def test_a_closed_ledger_counts_nothing(path: Path, clock: Clock) -> None:
    """A thread that comes too late hears of it; closing twice is no error, and an unused one made no file."""
    ledger = Ledger(path, 20, "month", clock)
    ledger.close()
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        ledger.take()
    assert not path.exists()


def test_another_clock_tells_another_day(path: Path, clock: Clock) -> None:
    """The platform's, as soon as it is known."""
    with closing(Ledger(path, 1, "day", clock)) as ledger:
        assert taken(ledger) == 1
        ledger.use_clock(lambda: clock.now + DAY)
        assert taken(ledger) == 1


# Putting it right


@pytest.mark.parametrize("reset", ["day", "month", "2027-01-01"])
def test_what_is_set_is_what_is_used(path: Path, clock: Clock, reset: str) -> None:
    """More or less than was counted, durably and without what was reserved; other forms keep their count."""
    disk, boot = Disk(path), ["1"]
    with watched(disk, lambda: boot[0]), closing(Ledger(path, 20, reset, clock)) as ledger:
        assert ledger.take()
        for calls, left in ((18, 2), (0, 20), (25, 0)):
            ledger.set_used(calls)
            disk.cut(lambda _: 0)
            boot[0] += "1"
            fresh = Ledger(path, 20, reset, clock)
            assert (fresh.state().used, fresh.state().left) == (calls, left)
        assert [used(path, clock, other) for other in ("day", "month") if other != reset] == [1] * (
            1 if reset in {"day", "month"} else 2
        )
        assert not ledger.take()


def test_setting_ends_a_future_that_a_wrong_clock_began(path: Path, clock: Clock) -> None:
    """A clock that was years ahead: the count would not start anew for as long; said anew, it does."""
    with closing(Ledger(path, 5, "month", clock)) as ledger:
        clock.now += 1000 * DAY
        taken(ledger)
        clock.now -= 1000 * DAY
        assert not ledger.take()
        ledger.set_used(5)
        assert ledger.state().resets == datetime(2026, 12, 1, tzinfo=BEIJING)
        clock.now += 20 * DAY
        assert taken(ledger) == 5


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"harvester-calls 1 2026-11-22 0000", DamagedError, "is damaged: its 33 bytes from offset 0"),
        (b"\0" * 600, DamagedError, "is damaged"),
        (b"\xff\xfe", DamagedError, "is damaged"),
        (b"harvester-calls 2 whatever\n", LocalError, "has version '2', which this version of harvester does not know"),
    ],
)
def test_what_cannot_be_read_is_refused_until_it_is_put_right(
    path: Path, clock: Clock, content: bytes, kind: type[LocalError], words: str
) -> None:
    """Every way in names the file and the way out, and changes nothing."""
    path.parent.mkdir()
    path.write_bytes(content)
    ledger = Ledger(path, 20, "day", clock)
    for work in (ledger.take, ledger.state, lambda: ledger.note(1)):
        with pytest.raises(kind) as caught:
            work()
        assert caught.value.message.startswith(str(path))
        assert words in caught.value.message
        assert "harvester quota JOB --set-used N" in caught.value.hint
    assert path.read_bytes() == content
    ledger.set_used(7)
    assert [used(path, clock, reset) for reset in ("day", "month", "2027-01-01")] == [7, 7, 7]
    with closing(ledger):
        assert taken(ledger) == 13


def test_a_ledger_that_is_damaged_while_in_use_is_let_go_of(path: Path, clock: Clock) -> None:
    """Closing says so, and does not keep the descriptor."""
    ledger = Ledger(path, 20, "day", clock)
    ledger.take()
    fd = ledger._fd
    path.write_bytes(b"x")
    with pytest.raises(DamagedError):
        ledger.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


# The file


def test_only_the_user_reads_the_file(path: Path, clock: Clock) -> None:
    """Neither the file nor a folder that had to be made is anybody else's business."""
    before = os.umask(0)
    try:
        with closing(Ledger(path, 2, "month", clock)) as ledger:
            ledger.take()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_link_is_not_followed(path: Path, clock: Clock) -> None:
    """A file that somebody put a link in place of stays as it is; a state folder that is a link is fine."""
    (path.parent.parent / "elsewhere").mkdir()
    path.parent.symlink_to("elsewhere")
    with closing(Ledger(path, 2, "month", clock)) as ledger:
        assert ledger.take()
    path.unlink()
    (path.parent / "mine").write_text("mine")
    path.symlink_to("mine")
    ledger = Ledger(path, 2, "month", clock)
    for work in (ledger.take, ledger.state):
        with pytest.raises(LocalError, match="symbolic link"):
            work()
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_is_named(tmp_path: Path, clock: Clock) -> None:
    """A state folder that is a file."""
    (tmp_path / "state").write_text("")
    with pytest.raises(LocalError, match=f"cannot count calls in {tmp_path}/state/calls-1"):
        Ledger(tmp_path / "state" / "calls-1", 2, "month", clock).take()


def test_an_operation_is_named_by_a_hash(tmp_path: Path) -> None:
    """The same for the same operation, another for every difference, and no id to be read."""
    operation = ("sipop", "key-0815", "patentIndex.queryKeywordPage")
    path = ledger_path(tmp_path, *operation)
    assert path == ledger_path(tmp_path, *operation)
    assert (path.parent, path.name[:6]) == (tmp_path, "calls-")
    others = [("wuhan", *operation[1:]), (operation[0], "key-0816", operation[2]), (*operation[:2], "m")]
    split = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd")]
    assert len({path, *(ledger_path(tmp_path, *other) for other in others + split)}) == 7
    assert "0815" not in path.name


# Everything at once


class Calls(RuleBasedStateMachine):
    """Two jobs of one operation, by day and by month, against the truth: takes, kills, power cuts, clocks, notes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(prefix="ledger-"))
        self.path = self.folder / "calls"
        self.disk = Disk(self.path)
        self.clock = Clock()
        self.boot = 1
        self.days: Counter[date] = Counter()  # calls that were taken and not given back, by the server's day
        self.volatile: Counter[date] = Counter()  # noted since the last sync
        self.recorded = date.min  # the last day on which anything was written
        self.exact = True  # no power cut yet, and no call given back that is of another day than the first
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(ledger_module, "sync", self.synced)
        self.patch.setattr(ledger_module, "boot_id", lambda: str(self.boot))
        self.forms = ("day", "month")
        self.allowances = (0, 0)
        self.jobs: list[Ledger] = []
        self.flying: list[list[date]] = [[], []]  # by job: the days of calls taken since it was started
        self.first: list[date | None] = [None, None]

    def synced(self, fd: int) -> None:
        """Let the disk see it; what was noted before is durable with it."""
        self.disk.synced(fd)
        self.volatile.clear()

    @property
    def latest(self) -> date:
        """The day that calls count for: it never goes back behind one that is recorded."""
        return max(self.recorded, datetime.fromtimestamp(self.clock.now, BEIJING).date())

    def look(self) -> None:
        """Take note of what was written."""
        if self.path.exists() and self.path.stat().st_size:
            self.disk.contents.append(self.path.read_bytes())
            counts = parse(self.path.read_bytes())
            assert counts is not None
            assert counts.day >= self.recorded
            self.recorded = counts.day

    def counted(self, job: int) -> int:
        """Return the calls of the period that a job's allowance is for."""
        day = self.latest
        return sum(
            n for at, n in self.days.items() if at == day or (job == 1 and at.replace(day=1) == day.replace(day=1))
        )

    def start(self, job: int) -> None:
        """Start a job's process."""
        self.jobs[job] = Ledger(self.path, self.allowances[job], self.forms[job], self.clock, block=6)
        self.flying[job], self.first[job] = [], None

    @initialize(daily=st.integers(1, 12), monthly=st.integers(1, 40))
    def begin(self, daily: int, monthly: int) -> None:
        """Set both allowances."""
        self.allowances = (daily, monthly)
        self.jobs = [Ledger(self.path, 1, "day", self.clock)] * 2
        for job in (0, 1):
            self.start(job)

    @rule(job=st.integers(0, 1), calls=st.integers(1, 8))
    def take(self, job: int, calls: int) -> None:
        """Send some calls, each of which the server counts."""
        for _ in range(calls):
            before, room = self.counted(job), self.jobs[job].take()
            self.look()
            assert not room or before < self.allowances[job], "more than the allowance"
            assert room or not self.exact or before >= self.allowances[job], "less than the allowance"
            if room:
                self.days[self.latest] += 1
                self.flying[job].append(self.latest)
                self.first[job] = self.first[job] or self.latest

    @precondition(lambda self: any(self.flying))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Not send a call after all, of whichever day."""
        job = data.draw(st.sampled_from([job for job in (0, 1) if self.flying[job]]))
        day = self.flying[job].pop(data.draw(st.integers(0, len(self.flying[job]) - 1)))
        self.exact = self.exact and day == self.first[job]
        self.days[day] -= 1
        self.jobs[job].give_back()
        self.look()

    @rule(job=st.integers(0, 1), calls=st.integers(1, 9))
    def note(self, job: int, calls: int) -> None:
        """Count calls that ask for no allowance."""
        self.jobs[job].note(calls)
        self.look()
        self.days[self.latest] += calls
        self.volatile[self.latest] += calls

    @rule(job=st.integers(0, 1), clean=st.booleans())
    def restart(self, job: int, clean: bool) -> None:  # noqa: FBT001 - drawn
        """End a process in order, or kill it; what it sent stays counted."""
        if clean:
            self.jobs[job].close()
        elif self.jobs[job]._fd >= 0:
            killed(self.jobs[job])
        self.look()
        self.start(job)

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """Cut the power: both processes end, and the disk has any content since the last sync."""
        self.restart(0, clean=False)
        self.restart(1, clean=False)
        self.disk.cut(lambda count: data.draw(st.integers(0, count - 1)))
        self.boot += 1
        self.recorded = date.min
        self.look()
        self.start(0)
        self.start(1)
        self.exact = False
        self.days -= self.volatile
        self.volatile.clear()

    @rule(hours=st.sampled_from([-30.0, -1.0, 1.0, 13.0, 25.0, 24.0 * 12]))
    def tick(self, hours: float) -> None:
        """Move the clock, also back."""
        self.clock.now += hours * 3600

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """The ledger counts what the server does, and more only where something may have been lost."""
        for job, ledger in enumerate(self.jobs):
            found = ledger.state().used
            assert found >= self.counted(job)
            assert found == self.counted(job) or not self.exact

    def teardown(self) -> None:
        """Let go of everything."""
        for ledger in self.jobs:
            ledger.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


SENDER: Final = """
import os, sys, time
from pathlib import Path
from harvester.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), int(sys.argv[2]), "month", time.time, block=20)
server = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
while ledger.take():
    os.write(server, b".")
    time.sleep(0.001)
ledger.close()
"""


def test_killed_processes_send_no_call_too_many_and_lose_one_each(tmp_path: Path) -> None:
    """Four senders, of which three are killed at any moment: the server has all but the calls that were in flight."""
    path, server, allowance = tmp_path / "calls", tmp_path / "server", 1000
    chance = random.Random(4)  # noqa: S311 - moments of kills
    arguments = [sys.executable, "-c", SENDER, str(path), str(allowance), str(server)]
    with ExitStack() as stack:
        senders = [
            stack.enter_context(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))  # noqa: S603 - this interpreter
            for _ in range(4)
        ]
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline()
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write("go\n")
            sender.stdin.flush()
        for sender in senders[1:]:
            time.sleep(chance.uniform(0.0, 0.02))
            sender.kill()
    codes = [sender.returncode for sender in senders]
    assert codes[0] == 0
    kills = codes.count(-signal.SIGKILL)
    assert kills
    assert allowance - kills <= server.stat().st_size <= allowance
    assert Ledger(path, allowance, "month", time.time).state().left == 0


def test_a_block_is_no_more_than_a_second_at_the_highest_known_limit() -> None:
    """Three hundred calls a second is the most that a platform grants."""
    assert BLOCK == 300

"""Moments that processes share: one after the other, whoever asks, and nothing that a dead or foreign file spoils."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester import slots
from harvester.slots import FAR, SharedSlots, path_for, state_folder

ROUNDED: Final = 1.1e-6  # seconds; the file keeps microseconds

TAKER: Final = """
import sys
from pathlib import Path
from harvester.slots import SharedSlots
path, now, count, interval = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
shared = SharedSlots(path)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2000):
    print(repr(shared.take(now, count, interval, 0.0)))
    shared.hold(now)  # changes nothing, unless it writes back what was read before another's turn
shared.close()
"""

HOLDER: Final = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start another interpreter and wait for its first line."""
    process = subprocess.Popen(  # noqa: S603 - this interpreter, with a script of ours
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedSlots]:
    """The slots of one app, in a file of its own."""
    with closing(SharedSlots(tmp_path / "slots")) as slots:
        yield slots


def test_a_first_block_begins_now(shared: SharedSlots) -> None:
    """Late by no more than the slack that is asked for; the next one follows the last."""
    assert shared.take(100.0, 3, 0.01, 0.02) == pytest.approx(99.98)
    assert shared.take(100.0, 2, 0.01, 0.02) == pytest.approx(100.01)
    assert shared.take(100.0, 1, 0.01, 0.0) == pytest.approx(100.03)


def test_time_that_nobody_used_is_not_saved_up(shared: SharedSlots) -> None:
    """A block after a quiet while begins at most its slack ago."""
    shared.take(100.0, 3, 0.01, 0.0)
    assert shared.take(200.0, 3, 0.01, 0.005) == pytest.approx(199.995)
    assert shared.take(200.0, 3, 0.01, 0.005) == pytest.approx(200.025)


def test_a_pause_holds_for_everybody_and_is_never_shortened(tmp_path: Path) -> None:
    """Whoever asked for it, and through whichever descriptor the next block is taken."""
    with closing(SharedSlots(tmp_path / "slots")) as one, closing(SharedSlots(tmp_path / "slots")) as other:
        one.take(100.0, 3, 0.01, 0.0)
        other.hold(108.0)
        one.hold(101.0)
        assert one.take(100.1, 3, 0.01, 1.0) == 108.0
        assert other.take(100.1, 3, 0.01, 1.0) == pytest.approx(108.03)


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([0.0, 0.0, 0.001, 0.3, 40.0]),
            st.integers(1, 3),
            st.sampled_from([1 / 292.5, 0.01, 1.0, 7.0]),
            st.floats(0, 120),
        ),
        max_size=25,
    )
)
def test_moments_never_go_back(steps: Sequence[tuple[bool, float, int, float, float]]) -> None:
    """Any blocks and pauses of two holders: each block is clear of the one before and of every pause."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slots"
        with closing(SharedSlots(path)) as one, closing(SharedSlots(path)) as other:
            now, clear, held = 1000.0, 0.0, 0.0
            for number, (pause, later, count, interval, length) in enumerate(steps):
                holder = (one, other)[number % 2]
                now += later
                if pause:
                    holder.hold(now + length)
                    held = max(held, now + length)
                    continue
                slack = min(length, interval)
                start = holder.take(now, count, interval, slack)
                assert start >= clear - ROUNDED
                assert start >= held - ROUNDED
                assert start >= now - slack
                assert start <= max(clear, held, now) + ROUNDED, "and none is wasted"
                clear = start + count * interval


def test_two_processes_share_one_rate(tmp_path: Path) -> None:
    """Four thousand blocks, taken as fast as both can: none overlaps, none is lost, each process got its own."""
    path, count, interval = tmp_path / "slots", 3, 0.01
    takers = [started(TAKER, str(path), "5000.0", str(count), str(interval)) for _ in range(2)]
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    starts = [[float(line) for line in taker.communicate(timeout=20)[0].split()] for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    assert all(mine == sorted(mine) and len(mine) == 2000 for mine in starts)
    together = sorted(starts[0] + starts[1])
    assert together[0] == 5000.0
    assert together == pytest.approx([5000.0 + block * count * interval for block in range(4000)])
    assert min(later - earlier for earlier, later in pairwise(together)) >= count * interval - ROUNDED


def test_a_holder_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    """The kernel gives it back at once; what was written stands."""
    path = tmp_path / "slots"
    with closing(SharedSlots(path)) as shared:
        shared.take(100.0, 1, 0.5, 0.0)
        holder = started(HOLDER, str(path))
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        holder.send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert shared.take(100.0, 1, 0.5, 0.0) == 100.5
        assert time.monotonic() - began < 5, "it would have slept for a minute"
        holder.communicate()


OTHER_BOOT: Final = "00000000-0000-4000-8000-000000000000"


def line(boot: str, free: float, resume: float, version: int = 1) -> bytes:
    """Return what a file of that boot would hold."""
    return f"harvester-slots {version} {boot:36} {free:020.6f} {resume:020.6f}\n".encode()


def test_what_a_file_says_of_this_boot_is_believed(shared: SharedSlots, tmp_path: Path) -> None:
    """The form below is the one that is written, so that the next test is about what it says."""
    (tmp_path / "slots").write_bytes(line(slots.boot_id(), 107.5, 3.0))
    assert shared.take(100.0, 1, 0.5, 0.0) == 107.5
    assert (tmp_path / "slots").read_bytes() == line(slots.boot_id(), 108.0, 3.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"harvester-slots",
        b"\xff\x00\xfe" * 40,
        b"x" * 10_000,
        line(OTHER_BOOT, 107.5, 3.0),
        line(OTHER_BOOT, 3.0, 107.5),
        line("{boot}", 107.5, 3.0)[:60],
        line("{boot}", 107.5, 3.0, version=2),
        line("{boot}", 100.0 + FAR + 1, 3.0),
        line("{boot}", 3.0, 100.0 + FAR + 1),
        line("{boot}", -1.0, 107.5),
        line("{boot}", float("nan"), 107.5),
        line("{boot}", float("inf"), 107.5),
        line("{boot}", 107.5, 3.0).replace(b"107", b"1o7"),
    ],
)
def test_a_file_that_says_nothing_of_this_boot_is_started_over(
    shared: SharedSlots, tmp_path: Path, content: bytes
) -> None:
    """Empty, cut, damaged, of another boot or version, or further ahead than anybody would promise."""
    (tmp_path / "slots").write_bytes(content.replace(b"{boot}".ljust(36), slots.boot_id().encode().ljust(36)))
    assert shared.take(100.0, 1, 0.5, 0.0) == 100.0
    assert shared.take(100.0, 1, 0.5, 0.0) == 100.5, "and it is whole again"


def test_a_system_without_boot_ids_shares_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There moments are believed unless they lie far ahead."""
    monkeypatch.setattr(slots, "_BOOT_ID", tmp_path / "none")
    with closing(SharedSlots(tmp_path / "slots")) as one, closing(SharedSlots(tmp_path / "slots")) as other:
        assert one.take(9000.0, 1, 0.5, 0.0) == 9000.0
        assert other.take(9000.0, 1, 0.5, 0.0) == 9000.5
        assert other.take(9000.0 - FAR, 1, 0.5, 0.0) == 9000.0 - FAR


def test_only_the_user_reads_the_file(tmp_path: Path) -> None:
    """Neither the file nor a folder that had to be made is anybody else's business."""
    before = os.umask(0)
    try:
        SharedSlots(tmp_path / "state" / "slots").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "slots").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file that somebody put a link in place of stays as it is."""
    (tmp_path / "other").write_text("mine")
    (tmp_path / "slots").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic link"):
        SharedSlots(tmp_path / "slots")
    assert (tmp_path / "other").read_text() == "mine"


def test_what_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A state folder that is a file."""
    (tmp_path / "state").write_text("")
    with pytest.raises(OSError, match="state"):
        SharedSlots(tmp_path / "state" / "slots")


def test_closing_lets_go_of_the_descriptor(tmp_path: Path) -> None:
    """Once closed it is of no use."""
    shared = SharedSlots(tmp_path / "slots")
    shared.close()
    with pytest.raises(OSError, match="descriptor"):
        shared.take(100.0, 1, 0.5, 0.0)


def test_an_app_is_named_by_a_hash(tmp_path: Path) -> None:
    """The same for the same app, another for every difference, and no id to be read anywhere."""
    app = ("wuhan", "http://203.0.113.7/gw", "passid-0815")
    path = path_for(tmp_path, *app)
    assert path == path_for(tmp_path, *app)
    assert path.parent == tmp_path
    others = [("sipop", *app[1:]), (app[0], "http://203.0.113.8/gw", app[2]), (*app[:2], "passid-0816")]
    split = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd")]
    assert len({path, *(path_for(tmp_path, *other) for other in others + split)}) == 7
    assert "0815" not in path.name
    with closing(SharedSlots(path)) as shared:
        shared.take(100.0, 1, 0.5, 0.0)
    assert b"0815" not in path.read_bytes()
    assert b"203.0" not in path.read_bytes()


@pytest.mark.parametrize(
    ("environ", "base"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state"),
        ({"XDG_STATE_HOME": "here"}, "~/.local/state"),
        ({"XDG_STATE_HOME": ""}, "~/.local/state"),
        ({}, "~/.local/state"),
    ],
)
def test_the_state_folder_is_the_users(environ: dict[str, str], base: str) -> None:
    """As the XDG base directory specification has it: a path that is not absolute is ignored."""
    assert state_folder(environ) == Path(base).expanduser() / "harvester"

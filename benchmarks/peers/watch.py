"""A contender as a process: how long it takes, what it costs of processor and memory, and how it ends. Linux only."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from served import Served

STEP = 0.025  # seconds between two looks
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Unix time of the end, exit code, whether it took too long, peak of memory in bytes, processor time at moments.

    Processor time is in seconds. Child processes are included.
    """

    ended: float
    code: int
    stopped: bool
    peak: int
    cpu: Sequence[tuple[float, float]]

    def cpu_since(self, moment: float) -> float:
        """Return the processor seconds from a moment on, by a straight line between the looks around it."""
        before, after = self.cpu[0], self.cpu[-1]
        for look in self.cpu:
            if look[0] <= moment:
                before = look
            else:
                after = look
                break
        share = min(1.0, (moment - before[0]) / max(1e-9, after[0] - before[0]))
        return self.cpu[-1][1] - (before[1] + share * (after[1] - before[1]))


def watch(
    command: Sequence[str], folder: Path, env: Mapping[str, str], served: Served, *, most: float, kill_at: int = 0
) -> Watched:
    """Run a command to its end, or kill it and its children after so many answers or ``most`` seconds."""
    looks: list[tuple[float, float]] = [(time.time(), 0.0)]
    peak = 0
    end = time.monotonic() + most
    stopped = False
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as complaints:
        process = subprocess.Popen(command, stdout=out, stderr=complaints, env=env, start_new_session=True)
    while True:
        tree = family(process.pid)
        resident, cpu, most_of_one = usage(tree)
        peak = max(peak, resident, most_of_one)
        looks.append((time.time(), max(cpu, looks[-1][1])))
        stopped = time.monotonic() > end
        if stopped or (kill_at and served.calls() >= kill_at):
            os.killpg(process.pid, signal.SIGKILL)
        ended, status, used = os.wait4(process.pid, 0 if stopped else os.WNOHANG)
        if ended:
            break
        time.sleep(STEP)
    process.returncode = os.waitstatus_to_exitcode(status)  # waited for here, for the sake of what it used
    looks.append((time.time(), used.ru_utime + used.ru_stime))
    return Watched(ended=looks[-1][0], code=process.returncode, stopped=stopped, peak=peak, cpu=looks)


def family(pid: int) -> list[int]:
    """Return a process and its descendants, as far as they still live."""
    found = [pid]
    for member in found:  # grows on the way
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:  # it has ended in between
                continue
    return found


def usage(pids: Sequence[int]) -> tuple[int, float, int]:
    """Return resident bytes of all, processor seconds of all and of their ended children, and the peak of the first."""
    resident, ticks, most = 0, 0, 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has ended in between
            continue
        ticks += sum(map(int, fields[11:15]))
        resident += int(fields[21]) * PAGE_BYTES
        if pid == pids[0] and "VmHWM:" in status:
            most = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return resident, ticks * TICK, most

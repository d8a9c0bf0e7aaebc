"""Work in the foreground: what it returns, on which loop, and what signals do to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import uvloop

from harvester import foreground
from harvester.errors import Exit
from harvester.events import Events


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And asyncio's own where it is not."""
    assert isinstance(foreground.run(_loop()), uvloop.Loop)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert not isinstance(foreground.run(_loop()), uvloop.Loop)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED), (signal.SIGHUP, Exit.TERMINATED)],
)
def test_a_signal_stops_in_order(number: int, code: Exit, capfd: pytest.CaptureFixture[str]) -> None:
    """The work is told which one it was, and ends by itself."""

    async def work(events: Events, interrupt: asyncio.Future[Exit]) -> Exit:
        events.tell("began", datasets=[])
        os.kill(os.getpid(), number)
        return await interrupt

    assert foreground.with_progress(work, quiet=True, verbose=False) == code
    assert "stopping: calls in flight may finish" in capfd.readouterr().err


def test_the_second_signal_leaves_at_once() -> None:
    """Whatever the work is doing: the process is gone, with the first code."""
    script = textwrap.dedent("""
        import asyncio, os, signal
        from harvester import foreground

        async def work(events, interrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            await interrupt
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

        foreground.with_progress(work, quiet=True, verbose=False)
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=30)  # noqa: S603 - ours
    assert done.returncode == Exit.INTERRUPTED


def test_nohup_is_respected() -> None:
    """Who ignores SIGHUP goes on when the terminal is gone."""
    script = textwrap.dedent("""
        import asyncio, os, signal
        from harvester import foreground

        async def work(events, interrupt):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            return interrupt.done()

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise SystemExit(3 if foreground.with_progress(work, quiet=True, verbose=False) else 0)
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=30)  # noqa: S603 - ours
    assert done.returncode == 0

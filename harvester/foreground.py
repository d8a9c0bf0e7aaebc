"""Work in the foreground: an event loop, progress for people, and signals that stop it in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from harvester.errors import Exit
from harvester.events import Events
from harvester.lines import say
from harvester.terminal import Progress

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def with_progress(
    work: Callable[[Events, asyncio.Future[Exit]], Coroutine[Any, Any, T]], *, quiet: bool, verbose: bool
) -> T:
    """Run something that tells events, showing them; the first signal stops in order, the second at once."""

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        interrupt: asyncio.Future[Exit] = loop.create_future()

        def stop(code: Exit) -> None:
            if interrupt.done():
                os._exit(code)  # what is durable stays, whenever this happens
            interrupt.set_result(code)
            say("\nstopping: calls in flight may finish (at most 5 s); once more to leave at once")

        def hang_up() -> None:  # the terminal is gone; the shell may say so too
            if not interrupt.done():
                stop(Exit.TERMINATED)

        for number, code in ((signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)):
            loop.add_signal_handler(number, stop, code)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
            loop.add_signal_handler(signal.SIGHUP, hang_up)
        events = Events()
        with Progress(events, sys.stderr, quiet=quiet, verbose=verbose) as progress:
            events.add(progress)
            return await work(events, interrupt)

    return run(watched())

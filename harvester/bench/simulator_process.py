"""A simulation in a process of its own, so that it costs the one who measures no time."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from harvester.errors import HarvesterError, LocalError
from harvester.simulator import Config, Simulator, serve

READY: Final = 30.0  # seconds it gets to begin; a large table takes a few


@contextmanager
def simulated(config: Config, job_file: Path) -> Iterator[None]:
    """Serve a simulation, and write a job file for it, for as long as the block lasts.

    Raises:
        LocalError: it cannot be had; the message says why.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(config, job_file, theirs), daemon=True)
    with ours:
        process.start()
        theirs.close()
        try:
            said = ""
            with suppress(EOFError):
                said = ours.recv() if ours.poll(READY) else "it does not begin"
            if said != "ready":
                raise LocalError(f"cannot start the simulator: {said or 'it has ended'}")
            yield
        finally:
            process.terminate()
            process.join()
            process.close()


def _serve(config: Config, job_file: Path, pipe: Connection) -> None:
    """Serve until terminated, or until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the other side terminates this one
    try:
        with asyncio.Runner(loop_factory=_loop()) as runner:
            runner.run(_until_gone(config, job_file, pipe))
    except HarvesterError as error:
        with suppress(OSError):
            pipe.send(str(error))


async def _until_gone(config: Config, job_file: Path, pipe: Connection) -> None:
    gone = asyncio.Event()

    def ready(_: Simulator) -> None:
        asyncio.get_running_loop().add_reader(pipe.fileno(), gone.set)
        pipe.send("ready")

    serving = asyncio.ensure_future(serve(config, job_file, ready))
    leaving = asyncio.ensure_future(gone.wait())
    await asyncio.wait((serving, leaving), return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, leaving):
        task.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    with suppress(asyncio.CancelledError):
        await serving


def _loop() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - there is none on some systems
    except ImportError:
        return None
    return uvloop.Loop

"""Programs that run as long as a block, and how to find out that they are ready."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

READY = 10.0  # seconds a server gets to listen


class GatewayError(Exception):
    """A server did not start, or said something that cannot be understood."""


@contextmanager
def daemon(
    command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the foreground of a block; what it prints goes to a file."""
    with output.open("wb") as out, output.with_suffix(".stderr").open("wb") as complaints:
        process = subprocess.Popen(command, stdout=out, stderr=complaints, env=env)
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process: politely, then not."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(process: subprocess.Popen[bytes], address: tuple[str, int] | str) -> None:
    """Wait until a server takes connections."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    end = time.monotonic() + READY
    while time.monotonic() < end and process.poll() is None:
        with socket.socket(family) as probe:
            if probe.connect_ex(address) == 0:
                time.sleep(0.1)  # a daemon that could not bind is about to leave; the port may be another's
                if process.poll() is None:
                    return
        time.sleep(0.02)
    raise GatewayError(f"{process.args!r} does not listen; the port may have been taken in between")


def said(process: subprocess.Popen[bytes], output: Path, pattern: str) -> str:
    """Wait until a program has printed something that fits; returns it."""
    end = time.monotonic() + READY
    while time.monotonic() < end and process.poll() is None:
        if match := re.search(pattern + r"(?=\n)", output.read_text()):
            return match[0]
        time.sleep(0.02)
    raise GatewayError(f"{process.args!r} did not start:\n{output.with_suffix('.stderr').read_text()}")

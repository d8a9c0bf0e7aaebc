"""One piece of work for many items, on all cores: each child takes its share and sends back what it found."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)

_HEAD: Final = Struct(">II")  # which item, how many bytes follow


def usable() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[T], R], items: Sequence[T], kind: type[R], cores: int | None = None) -> list[R]:
    """Return what the work gives for each item, in order.

    What a child fails to send, because the work raised or the child was killed, is done here: errors are raised as
    without children. For use where this process has one thread.

    Args:
        work: what to do; it must change nothing that matters outside of the child.
        items: what to do it for.
        kind: what it returns.
        cores: how many to use; all that this process may by default.
    """
    share = min(usable() if cores is None else cores, len(items))
    found: dict[int, R] = {}
    if share > 1 and hasattr(os, "fork"):
        children = [_child(work, items, range(turn, len(items), share)) for turn in range(share)]
        for pid, pipe in children:
            with os.fdopen(pipe, "rb") as results:
                for number, data in _messages(results.read):
                    found[number] = msgspec.msgpack.decode(data, type=kind)
            os.waitpid(pid, 0)
    return [found[number] if number in found else work(item) for number, item in enumerate(items)]


def _child(work: Callable[[T], R], items: Sequence[T], mine: range) -> tuple[int, int]:
    """Start a child for some of the items; return its process and the pipe to read from."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid:
        os.close(sink)
        return pid, source
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the terminal tells everybody; one of us says it
        os.close(source)
        with os.fdopen(sink, "wb") as results:
            for number in mine:
                data = msgspec.msgpack.encode(work(items[number]))
                results.write(_HEAD.pack(number, len(data)) + data)
    finally:
        os._exit(0)  # whatever was not sent is done again by who can tell of the error


def _messages(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    while len(head := read(_HEAD.size)) == _HEAD.size:
        number, size = _HEAD.unpack(head)
        if len(data := read(size)) < size:
            return
        yield number, data

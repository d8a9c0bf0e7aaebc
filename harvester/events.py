"""Facts about a run, as they happen. Renderings of them stand apart (``terminal``); the log of them is here.

Two kinds: what is rare is an event of its own; what happens per call (pages, refusals for the rate, failures that are
retried) is counted, and the counts of refusals and retries are written once per second.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from harvester.escape import in_json

Sink = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's name and its facts."""


class Counts:
    """What has been counted for one dataset since the run began."""

    __slots__ = ("calls", "kept", "pages", "refused", "retried", "rows")

    def __init__(self) -> None:
        self.calls = 0
        self.pages = 0
        self.rows = 0
        self.refused = 0
        self.retried = 0
        self.kept = 0  # pages that were there already when the run began


class Events:
    """Where facts go in and renderings take them out.

    Args:
        sinks: told of every event, in order.
    """

    def __init__(self, *sinks: Sink) -> None:
        self.counts: dict[str, Counts] = {}
        self._sinks = list(sinks)
        self._summed: Counter[tuple[str, str, str, str]] = Counter()

    def add(self, sink: Sink) -> None:
        """Tell one more sink from now on."""
        self._sinks.append(sink)

    def tell(self, event: str, **facts: object) -> None:
        """Pass an event on."""
        for sink in self._sinks:
            sink(event, facts)

    def sum(self, event: str, dataset: str, code: str, text: str, times: int = 1) -> None:
        """Count something that may happen many times a second; ``tick`` tells it."""
        self._summed[event, dataset, code, text] += times

    def tick(self) -> None:
        """Tell what was summed since the last tick, then that a second has passed."""
        summed, self._summed = self._summed, Counter()
        for (event, dataset, code, text), times in summed.items():
            self.tell(event, dataset=dataset, code=code, text=text, times=times)
        self.tell("tick")


def encoded(value: object, option: int = 0) -> bytes:
    """Return JSON, also for text that is no valid Unicode, as headers can bring it."""
    try:
        return in_json(orjson.dumps(value, default=str, option=option).decode()).encode()
    except TypeError:
        return json.dumps(value, default=str).encode()


class Log:
    """``events.jsonl``: one JSON object a line. Losing it must not lose data: after an error it falls silent.

    Args:
        path: the file, which must not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = path.open("xb", buffering=0)
        self.error = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write one event with the time."""
        if self._file is None or event == "tick":
            return
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        try:
            data = encoded(line) + b"\n"
            # A part of a line means that the disk has become full; the next one must not go on in the middle of it.
            self.error = "" if self._file.write(data) == len(data) else os.strerror(errno.ENOSPC)
        except OSError as error:
            self.error = str(error)
        if self.error:
            self._file.close()
            self._file = None

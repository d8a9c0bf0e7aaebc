"""Events and results in words, for people, on standard error.

A terminal gets one line per dataset at work, rewritten twice a second; anything else gets a plain line at most every
ten seconds. Text that a server sent is shown with its control and formatting characters escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Self, TextIO

from harvester.escape import safe
from harvester.events import Counts, Events
from harvester.lines import columns

PLAIN_INTERVAL: Final = 10.0  # seconds between plain progress lines
SHOWN: Final = 12  # datasets with a line of their own

_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "pace": lambda f: f"{f['app']}: {f['rate']:g} calls/s ({f['headroom']:g} of {f['limit']:g}, burst {f['burst']})",
    "paused": lambda f: (
        f"{f['app']}: over the limit, {f['code']} 「{f['text']}」; all calls wait {f['seconds']:g} s"
        + (f", then {f['rate']:g} calls/s" if f.get("rate") else "")
    ),
    "in flight": lambda f: (
        f"{f['app']}: answers take {f['latency']:g} s, so up to {f['calls']:,} calls are in flight now"
        if f["because"] == "latency"
        else f"{f['app']}: the server answers no faster with more calls in flight, so {f['calls']:,} have to do"
    ),
    "no report": lambda f: (
        f"the report could not be written to {f['path']} ({f['reason']}); the mirror is not affected"
    ),
    "limit not shared": lambda f: f"{f['app']}: other runs on this machine do not share its limit ({f['reason']})",
    "down": lambda f: f"{f['app']}: the platform does not answer ({f['failure']}); one probe every few seconds",
    "fewer calls": lambda f: f"{f['app']}: {f['reason']}; up to {f['calls']:,} calls are in flight now",
    "new secret": lambda f: f"{f['app']}: the secret was refused, so it was read again: there is a new one",
    "up again": lambda f: f"{f['app']}: the platform answers again",
    "left open": lambda f: f"{f['dataset']}: page {f['page']:,} stays open after {f['code']} 「{f['text']}」",
}

_ORDINARY: Final = frozenset({"pace", "in flight", "up again"})
"""Events that --quiet keeps to itself."""


class Progress:
    """Shows a run as it goes; a sink of ``Events``.

    Args:
        events: whose counts are shown.
        stream: where to.
        quiet: show nothing but what went wrong.
        verbose: show every event.
    """

    def __init__(self, events: Events, stream: TextIO, *, quiet: bool = False, verbose: bool = False) -> None:
        self._events = events
        self._stream = stream
        self._quiet = quiet
        self._verbose = verbose
        self._pages_before = 0
        self._shown_at = self._began = time.monotonic()
        self._live = self._make_live() if stream.isatty() and not quiet else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Say an event in words, if it is worth it; ``tick`` comes once a second."""
        if event == "tick":
            self._tick()
        elif event in _WORDS and not (self._quiet and event in _ORDINARY):
            self._say(_WORDS[event](facts))
        elif self._verbose:
            self._say(f"{event}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(safe(text), markup=False, highlight=False, soft_wrap=True)
        else:
            with suppress(OSError):  # nobody reads any more; the data goes on
                print(safe(text), file=self._stream, flush=True)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._live is not None:
            self._live.update("\n".join(self._lines()), refresh=True)
        elif not self._quiet and now - self._shown_at >= PLAIN_INTERVAL:
            total = _sum(self._events.counts.values())
            rate = (total.pages - self._pages_before) / (now - self._shown_at)
            self._say(f"{_told(total)}, {rate:,.1f} pages/s")
            self._pages_before, self._shown_at = total.pages, now

    def _lines(self) -> list[str]:
        seconds = max(time.monotonic() - self._began, 0.001)
        counts = [(name, count) for name, count in self._events.counts.items() if count.calls]
        rows = [(name, _told(count), f"{count.pages / seconds:,.1f} pages/s") for name, count in counts[-SHOWN:]]
        if len(counts) > 1:
            total = _sum(self._events.counts.values())
            rows.append(("all", _told(total), f"{total.pages / seconds:,.1f} pages/s"))
        return columns(rows) or ["waiting for the first answer"]

    def _make_live(self) -> Any:  # noqa: ANN401 - rich is imported only where a terminal is
        from rich.console import Console  # noqa: PLC0415 - not needed by every command
        from rich.live import Live  # noqa: PLC0415

        console = Console(file=self._stream, markup=False, highlight=False, emoji=False)
        return Live("", console=console, auto_refresh=False, transient=True)


def _told(counts: Counts) -> str:
    kept = f" (and {counts.kept:,} from before)" if counts.kept else ""
    return f"{counts.rows:,} rows, {counts.pages:,} pages{kept}, {counts.refused:,} refused"


def _sum(all_counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for counts in all_counts:
        for name in Counts.__slots__:
            setattr(total, name, getattr(total, name) + getattr(counts, name))
    return total

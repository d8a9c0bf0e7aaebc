"""What people see: words, numbers in columns, and nothing that a server could do to their terminal."""

from __future__ import annotations

import io

import pytest

from harvester import terminal
from harvester.escape import safe
from harvester.events import Counts, Events
from harvester.terminal import PLAIN_INTERVAL, Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Clock:
    """Stands for ``time`` in the module."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time that was set."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that is set."""
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    return clock


def counted(events: Events, name: str, pages: int) -> Counts:
    """Count pages of 20 rows for a dataset."""
    counts = events.counts.setdefault(name, Counts())
    counts.calls, counts.pages, counts.rows = pages + 1, pages, pages * 20
    return counts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("武汉 plain", "武汉 plain"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb\x07", "a\\r\\nb\\x07"),
        ("\u202eabc", "\\u202eabc"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_move_the_cursor_is_escaped(text: str, shown: str) -> None:
    """Control, formatting and lone surrogate characters; Chinese is left alone."""
    assert safe(text) == shown


def test_a_plain_line_comes_every_ten_seconds(clock: Clock) -> None:
    """With the rate since the last one."""
    events, stream = Events(), io.StringIO()
    with Progress(events, stream) as progress:
        counted(events, "a", 1000)
        clock.now += PLAIN_INTERVAL - 0.1
        progress("tick", {})
        assert stream.getvalue() == ""
        clock.now += 0.1
        progress("tick", {})
        counted(events, "a", 1500).kept = 7
        clock.now += PLAIN_INTERVAL
        progress("tick", {})
    assert stream.getvalue().splitlines() == [
        "20,000 rows, 1,000 pages, 0 refused, 100.0 pages/s",
        "30,000 rows, 1,500 pages (and 7 from before), 0 refused, 50.0 pages/s",
    ]


def test_a_quiet_run_says_only_what_went_wrong(clock: Clock) -> None:
    """No progress, but pauses and pages that stay open."""
    events, stream = Events(), io.StringIO()
    with Progress(events, stream, quiet=True) as progress:
        counted(events, "a", 10)
        clock.now += 100
        progress("tick", {})
        progress("concluded", {"dataset": "a"})
        progress("left open", {"dataset": "a", "page": 1234, "code": "500", "text": "x\x1b"})
    assert stream.getvalue() == "a: page 1,234 stays open after 500 「x\\x1b」\n"


@pytest.mark.parametrize(
    ("event", "facts", "words"),
    [
        ("paused", {"app": "main", "code": "1141", "text": "快", "seconds": 1.05}, "all calls wait 1.05 s"),
        ("down", {"app": "main", "failure": "HTTP 502"}, "does not answer (HTTP 502)"),
        ("up again", {"app": "main"}, "answers again"),
    ],
)
def test_events_in_words(event: str, facts: dict[str, object], words: str) -> None:
    """One line each."""
    stream = io.StringIO()
    Progress(Events(), stream)(event, facts)
    assert words in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_verbose_shows_every_event() -> None:
    """With its facts."""
    stream = io.StringIO()
    Progress(Events(), stream, verbose=True)("concluded", {"dataset": "a", "published": True})
    assert stream.getvalue() == "concluded: dataset a, published True\n"


def test_a_terminal_gets_a_line_per_dataset_and_their_sum(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewritten in place; words go above."""
    monkeypatch.setenv("TERM", "xterm")
    events, stream = Events(), Terminal()
    with Progress(events, stream) as progress:
        progress("tick", {})
        counted(events, "a", 10)
        counted(events, "b", 30)
        clock.now += 10
        progress("tick", {})
        progress("up again", {"app": "[bold]main"})
    shown = stream.getvalue()
    assert "waiting for the first answer" in shown
    assert "4.0 pages/s" in shown
    assert "800 rows, 40 pages" in shown
    assert "[bold]main: the platform answers again" in shown

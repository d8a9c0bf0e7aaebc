"""Facts reach every sink, sums once a second, and a log that fails harms nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from harvester.events import Events, Log, encoded
from harvester.model import Secret


def test_every_sink_is_told_in_order() -> None:
    """Also one that was added later."""
    told: list[tuple[str, str, Mapping[str, Any]]] = []
    events = Events(lambda event, facts: told.append(("first", event, facts)))
    events.add(lambda event, facts: told.append(("second", event, facts)))
    events.tell("up", dataset="a")
    assert told == [("first", "up", {"dataset": "a"}), ("second", "up", {"dataset": "a"})]


def test_what_happens_often_is_told_once_a_second() -> None:
    """Summed by what it is, and no second time."""
    told: list[tuple[str, Mapping[str, Any]]] = []
    events = Events(lambda event, facts: told.append((event, facts)))
    for code in ("1141", "1141", "500"):
        events.sum("over limit", "a", code, "words")
    assert told == []
    events.tick()
    events.tick()
    assert told == [
        ("over limit", {"dataset": "a", "code": "1141", "text": "words", "times": 2}),
        ("over limit", {"dataset": "a", "code": "500", "text": "words", "times": 1}),
        ("tick", {}),
        ("tick", {}),
    ]


def test_the_log_has_one_line_per_event(tmp_path: Path) -> None:
    """With the time, without the ticks; what is no JSON is written as text, a secret as its mask."""
    path = tmp_path / "events.jsonl"
    with Log(path) as log:
        log("refused", {"dataset": "专利", "path": Path("x"), "token": Secret("made-up")})
        log("tick", {})
        assert b"refused" in path.read_bytes(), "written at once"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert len(lines) == 1
    assert datetime.fromisoformat(lines[0].pop("at")).tzinfo is not None
    assert lines[0] == {"event": "refused", "dataset": "专利", "path": "x", "token": "********"}


def test_text_that_is_no_valid_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    """Headers can bring lone surrogates; the line is still one line of JSON, with everything else in it."""
    path = tmp_path / "events.jsonl"
    with Log(path) as log:
        log("refused", {"text": "a\udcffb", "path": Path("x"), "token": Secret("made-up")})
        log("up", {"dataset": "专利"})
    broken, sound = path.read_bytes().splitlines()
    facts = json.loads(broken)
    assert (facts["text"], facts["path"], facts["token"]) == ("a\udcffb", "x", "********")
    assert orjson.loads(sound)["dataset"] == "专利"
    assert encoded({"a": "b"}, orjson.OPT_APPEND_NEWLINE) == b'{"a":"b"}\n'


def test_a_log_is_never_written_over(tmp_path: Path) -> None:
    """A file that is there belongs to another run."""
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(FileExistsError):
        Log(tmp_path / "events.jsonl")


class _Full:
    """A file on a full disk."""

    closed = False

    def write(self, _data: bytes) -> int:
        """Fail."""
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Note it."""
        self.closed = True


def test_a_full_disk_silences_the_log_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is remembered, nothing is raised, the file is closed."""
    full = _Full()
    with Log(tmp_path / "events.jsonl") as log:
        assert log._file is not None
        log._file.close()
        monkeypatch.setattr(log, "_file", full)
        log("one", {})
        log("two", {})
        assert "No space left" in log.error
        assert full.closed

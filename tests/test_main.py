"""The way in: standard streams that cannot fail a run, and the word to those on Windows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harvester import __main__, __version__
from harvester.errors import Exit


def test_windows_is_told_of_wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On Windows there is one message, before anything is imported that does not exist there."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "harvester.cli", None)  # importing it would fail
    assert __main__.main() == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "WSL" in err
    assert len(err.splitlines()) == 1


def test_the_exit_code_comes_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``main`` returns what the command line does, and leaves streams alone that are not the process's own."""
    monkeypatch.setattr(sys, "argv", ["harvester", "--version"])
    before = sys.stdout, sys.stderr
    assert __main__.main() == Exit.OK
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == f"harvester, version {__version__}\n"


def test_a_stream_survives_its_reader() -> None:
    """After the reader has left, writing goes on and goes nowhere; before, every byte arrives."""
    reading, writing = os.pipe()
    with __main__._Stream(writing, "w") as stream:
        assert stream.write(b"seen") == 4
        assert os.read(reading, 10) == b"seen"
        os.close(reading)
        assert stream.write(b"unseen") == 6
        assert os.path.sameopenfile(writing, stream.fileno())
        assert os.fstat(stream.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
        assert stream.write(b"also unseen") == 11


def test_a_stream_shows_what_its_encoding_has_no_character_for() -> None:
    """Text is escaped rather than refused, and every line leaves at once."""

    class Ascii:
        encoding = "ascii"

    reading, writing = os.pipe()
    stream = __main__._text(writing, Ascii())  # type: ignore[arg-type]  # all that is asked of a stream
    try:
        stream.write("武汉\n")
        assert os.read(reading, 100) == b"\\u6b66\\u6c49\n"
    finally:
        stream.close()
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_closed_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """Started with closed descriptors the command works, and no file of the mirror ever becomes a standard stream."""
    script = (
        "import os, sys\n"
        f"for number in {closed!r}: os.close(number)\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'harvester', 'demo', '--output', {str(tmp_path)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=30)  # noqa: S603 - ourselves
    assert done.returncode == Exit.OK, done.stderr
    assert (tmp_path / "mirror" / "wuhan-companies" / "current.json").exists()
    assert bool(done.stderr) is (2 not in closed)

"""Credentials: their four forms, and that no message ever shows one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.job import credentials


def resolve(value: object, folder: Path, environ: dict[str, str] | None = None, *, text_allowed: bool = False) -> str:
    """Fetch the credential of a made-up app, which must not warn."""
    warnings: list[str] = []
    source = credentials.parse(value, table="[apps.a]", key="token", variable="A_TOKEN", text_allowed=text_allowed)
    text = source.resolve(folder, environ or {}, warnings.append)
    assert warnings == []
    return text


def refusal(value: object, folder: Path, environ: dict[str, str] | None = None, *, text_allowed: bool = False) -> str:
    """Return the message of a credential that cannot be fetched, which must not show it."""
    with pytest.raises(UsageError) as caught:
        resolve(value, folder, environ, text_allowed=text_allowed)
    message = str(caught.value)
    assert message.startswith("[apps.a] `token`")
    assert "hunter2" not in message
    # Nor may a traceback lead to it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def python(script: str) -> dict[str, list[str]]:
    """Return the command that runs a script."""
    return {"command": [sys.executable, "-c", script]}


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file that has this mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_value_comes_from_each_of_its_places(tmp_path: Path) -> None:
    """Text, variable, file beside the job file, and what a command prints."""
    write(tmp_path / "token.txt", b"from-file\r\n")
    assert resolve("from-text", tmp_path, text_allowed=True) == "from-text"
    assert resolve({"env": "TOKEN"}, tmp_path, {"TOKEN": "from-env"}) == "from-env"
    assert resolve({"file": "token.txt"}, tmp_path) == "from-file"
    assert resolve({"file": str(tmp_path / "token.txt")}, tmp_path / "elsewhere") == "from-file"
    assert resolve(python("print('from-command')"), tmp_path) == "from-command"


@pytest.mark.parametrize("value", ["\ufefftoken", "token\n", "token\r\n", " token\t", "\ufeff token\r\n\n"])
def test_what_editors_add_at_the_ends_is_dropped(tmp_path: Path, value: str) -> None:
    """A byte order mark, line ends and white space are not part of a credential."""
    write(tmp_path / "f", value.encode())
    assert resolve({"file": "f"}, tmp_path) == "token"
    assert resolve({"env": "T"}, tmp_path, {"T": value}) == "token"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("hunter2\nhunter2", "holds a line break after 7 of its 15 characters"),
        ("hunter2\x00x", "holds a control or invisible character after 7"),
        ("hunter\u200b2", "holds a control or invisible character after 6"),
        ("hunter2\udcff", "holds a control or invisible character after 7"),
        ("", "is empty"),
        (" \ufeff\r\n", "is empty"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused_unseen(tmp_path: Path, value: str, what: str) -> None:
    """The place in the value is said, the value is not."""
    assert f"`token` {what}" in refusal({"env": "T"}, tmp_path, {"T": value})


def test_a_secret_as_text_is_refused_unseen(tmp_path: Path) -> None:
    """The whole message, which says how to write it instead."""
    assert refusal("hunter2", tmp_path) == (
        "[apps.a] `token` stands in the job file as text; a secret must not\n\n"
        'hint: write token = { env = "A_TOKEN" } and set that variable; '
        '{ file = "…" } and { command = ["…"] } are possible too'
    )


@pytest.mark.parametrize(
    "value",
    [5, ["hunter2"], {}, {"value": "hunter2"}, {"text": "hunter2"}, {"env": "A", "file": "hunter2"}, {"env": 5},
     {"env": ""}, {"env": "hunter2-hunter2"}, {"file": "hunter2\n"}, {"command": "hunter2"}, {"command": []},
     {"command": ["a", 5]}, {"command": ["a", "hunter2\x00"]},
     {"command": [""]}],
)  # fmt: skip
def test_every_other_form_is_refused_unseen(tmp_path: Path, value: Any) -> None:  # noqa: ANN401 - what TOML can hold
    """Whatever stands there may be the secret in a wrong form."""
    assert "hint: " in refusal(value, tmp_path, text_allowed=True)


def test_an_unset_variable_is_named(tmp_path: Path) -> None:
    """With the line that sets it."""
    assert refusal({"env": "A_TOKEN"}, tmp_path) == (
        "[apps.a] `token`: the environment variable A_TOKEN is not set\n\nhint: export A_TOKEN=…"
    )


def test_a_file_that_holds_no_credential_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, too large, not UTF-8: by its whole path."""
    write(tmp_path / "large", b"x" * (credentials.SIZE_LIMIT + 1))
    write(tmp_path / "utf16", "hunter2".encode("utf-16"))
    for name, what in (
        ("none", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("large", "gives more than 65536 bytes"),
        ("utf16", "gives no UTF-8 text (at byte 0)"),
    ):
        assert f"the file {tmp_path / name} {what}" in refusal({"file": name}, tmp_path)


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o611, 0)])
def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, count: int) -> None:
    """With the command that closes it."""
    path = write(tmp_path / "f", b"x", mode)
    warnings: list[str] = []
    source = credentials.parse({"file": "f"}, table="[apps.a]", key="token", variable="A", text_allowed=False)
    assert source.resolve(tmp_path, {}, warnings.append) == "x"
    assert warnings == [f"[apps.a] `token`: other users of this machine can read {path}; chmod 600 {path}"] * count


def test_a_command_runs_in_the_folder_of_the_job_file_with_its_environment(tmp_path: Path) -> None:
    """No shell reads the arguments."""
    script = "import os, sys; print(os.getcwd(), os.environ['X'], sys.argv[1], sep='|')"
    value = {"command": [sys.executable, "-c", script, "$X; *"]}
    assert resolve(value, tmp_path, {"X": "y"}) == f"{tmp_path.resolve()}|y|$X; *"


def test_a_command_does_not_read_what_is_typed(tmp_path: Path) -> None:
    """Its standard input is empty, whatever this process's own is."""
    typed = write(tmp_path / "typed", b"typed")
    own = os.dup(0)
    try:
        with typed.open("rb") as file:
            os.dup2(file.fileno(), 0)
        assert resolve(python("import sys; print(repr(sys.stdin.read()))"), tmp_path) == "''"
    finally:
        os.dup2(own, 0)
        os.close(own)


def test_a_command_that_fails_shows_its_complaint_and_not_its_output(tmp_path: Path) -> None:
    """The last lines of standard error, without what could steer a terminal."""
    script = (
        "import sys; print('hunter2'); [print('line', n, file=sys.stderr) for n in range(9)]; "
        "print('\\x1b[31mlocked', file=sys.stderr); sys.exit(3)"
    )
    message = refusal(python(script), tmp_path)
    assert (
        f"the command {sys.executable!r} failed with exit code 3\n  line 5\n  line 6\n  line 7\n  line 8\n" in message
    )
    assert "\n  ?[31mlocked\n\nhint: run it by hand" in message


def test_a_command_that_cannot_start_is_refused(tmp_path: Path) -> None:
    """Its name is shown, its arguments are not."""
    message = refusal({"command": ["no-such-program", "hunter2"]}, tmp_path)
    assert "the command 'no-such-program' cannot be started: No such file or directory" in message


def test_a_command_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has printed until then is not shown."""
    monkeypatch.setattr(credentials, "COMMAND_TIMEOUT", 0.5)
    script = "import time; print('hunter2', flush=True); time.sleep(60)"
    assert "did not end within 0.5 s" in refusal(python(script), tmp_path)


def test_a_command_that_prints_no_text_is_refused(tmp_path: Path) -> None:
    """Nothing at all, or bytes that are not UTF-8."""
    assert "`token` is empty" in refusal(python(""), tmp_path)
    message = refusal(python("import sys; sys.stdout.buffer.write(b'hunter2\\xff')"), tmp_path)
    assert "gives no UTF-8 text (at byte 7)" in message


@given(st.text(max_size=12))
def test_a_value_is_one_visible_line_or_refused_unseen(value: str) -> None:
    """Whatever is in the variable, nothing reaches a header that could break it."""
    try:
        text = resolve({"env": "T"}, Path(), {"T": value})
    except UsageError:
        return
    assert text
    assert text in value
    assert text.isprintable()
    assert text == text.strip()

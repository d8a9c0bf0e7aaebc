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
from harvester.model import App, Secret

TOKENS = (
    "3f2a9c1b77de40518a6e0c94b25d8f13",
    "9B1DEB4D3B7D4BAD9BDD2B0D7B3DCB6D",
    "2fc62edd-03ee-4c32-8db8-e7e9c77ed05a",
    "q9Zr_7TgXw2LkPb4",
    "C4nary+/token?=&%&tweet",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SflKxwRJSMeKKF2QT4fwpM",
    "abcdefghijklmnopqrstuvwxyz",
)
"""As platforms make them."""


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


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("way", ["env", "file", "command"])
def test_a_value_in_the_place_of_its_name_is_refused_unseen(tmp_path: Path, token: str, way: str) -> None:
    """The most natural mistake: the token itself stands where the variable, file or program belongs."""
    message = refusal({way: [token] if way == "command" else token}, tmp_path)
    assert "hint: " in message
    for start in range(len(token) - 7):
        assert token[start : start + 8] not in message


@pytest.mark.parametrize(
    "name", ["A_TOKEN", "TOKEN2", "wuhan.token", "../secrets/wuhan-token.txt", "密钥/token", "a b"]
)
def test_a_name_made_of_words_is_shown(tmp_path: Path, name: str) -> None:
    """No token looks like that, and a slip in a name has to be seen to be found."""
    assert str(tmp_path / name) in refusal({"file": name}, tmp_path)
    assert repr(name) in refusal({"command": [name]}, tmp_path)
    if name.isidentifier():
        assert f"export {name}=" in refusal({"env": name}, tmp_path)


def test_a_place_that_is_there_is_shown(tmp_path: Path) -> None:
    """Whatever it is called; so is one that exists and cannot be read."""
    (tmp_path / TOKENS[0]).mkdir()
    assert f"{TOKENS[0]} cannot be read: Is a directory" in refusal({"file": TOKENS[0]}, tmp_path)
    assert f"{TOKENS[0]}' cannot be started: " in refusal({"command": [f"./{TOKENS[0]}"]}, tmp_path)
    assert "File name too long" in refusal({"file": "1x" * 500}, tmp_path)


@pytest.mark.parametrize("written", ["$CREDENTIALS_DIRECTORY/deep/token", "${CREDENTIALS_DIRECTORY}//deep/token"])
def test_the_folder_of_systemds_credentials_is_put_in(tmp_path: Path, written: str) -> None:
    """Nobody is warned of it: systemd closes the folder, and the rights it adds to the file look like the group's."""
    place = tmp_path / "credentials"
    (place / "deep").mkdir(parents=True)
    write(place / "deep" / "token", b"from-systemd\n", 0o440)
    assert resolve({"file": written}, tmp_path / "elsewhere", {"CREDENTIALS_DIRECTORY": str(place)}) == "from-systemd"
    for environ in ({}, {"CREDENTIALS_DIRECTORY": ""}):
        assert refusal({"file": written}, tmp_path, environ) == (
            "[apps.a] `token`: the environment variable CREDENTIALS_DIRECTORY is not set\n\n"
            "hint: systemd sets it for a service that has LoadCredential= or SetCredentialEncrypted="
        )


@pytest.mark.parametrize(
    "written",
    ["$HOME/token", "~/token", "${HOME}/token", "$CREDENTIALS_DIRECTORYX/token", "a/$CREDENTIALS_DIRECTORY/token",
     "$CREDENTIALS_DIRECTORY", "$CREDENTIALS_DIRECTORY/", "%h/token", "`id`", "$(id)"],
)  # fmt: skip
def test_nothing_else_is_put_in(tmp_path: Path, written: str) -> None:
    """The file is looked for under exactly that name."""
    environ = {"HOME": str(tmp_path), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    write(tmp_path / "token", b"x")
    assert "No such file or directory" in refusal({"file": written}, tmp_path, environ)
    if not written.endswith("/"):
        (tmp_path / written).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / written, b"literal")
        assert resolve({"file": written}, tmp_path, environ) == "literal"


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


# Reading once more


def app(secret: str) -> App:
    """Return an app with that secret."""
    return App(name="a", platform="wuhan", url="u", id="i", secret=Secret(secret), rate_limit=1)


def source(value: object) -> credentials.Source:
    """Return where the secret comes from."""
    return credentials.parse(value, table="[apps.a]", key="token", variable="A_TOKEN", text_allowed=False)


def test_a_file_is_read_again(tmp_path: Path) -> None:
    """A new secret makes a new app, the same one none; everything else about the app stays."""
    path = write(tmp_path / "token", b"old\n")
    again = credentials.rereader(source({"file": "token"}), tmp_path, {})
    assert again(app("old")) is None
    write(path, b"\xef\xbb\xbfnew\r\n", 0o644)
    found = again(app("old"))
    assert found is not None
    assert (found.name, found.id, found.secret.reveal()) == ("a", "i", "new")
    assert again(found) is None


def test_a_command_is_run_again_and_a_variable_is_not_looked_at(tmp_path: Path) -> None:
    """The process's environment cannot change, its helper's answer can."""
    write(tmp_path / "token", b"new")
    script = python("print(open('token').read())")
    environ = {"TOKEN": "new", **os.environ}
    found = credentials.rereader(source(script), tmp_path, environ)(app("old"))
    assert found is not None
    assert found.secret.reveal() == "new"
    assert credentials.rereader(source({"env": "TOKEN"}), tmp_path, environ)(app("old")) is None


def test_a_secret_that_has_gone_is_an_error(tmp_path: Path) -> None:
    """The reason is told as it would have been at the start."""
    for value in ({"file": "token"}, python("raise SystemExit(1)")):
        with pytest.raises(UsageError, match="token"):
            credentials.rereader(source(value), tmp_path, {})(app("old"))


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """Who waits at a pipe that was emptied waits for ever."""
    os.mkfifo(tmp_path / "token", 0o600)
    write_end = os.open(tmp_path / "token", os.O_RDWR)
    os.write(write_end, b"old")
    try:
        assert credentials.rereader(source({"file": "token"}), tmp_path, {})(app("old")) is None
    finally:
        os.close(write_end)


def test_neither_source_nor_reader_shows_anything(tmp_path: Path) -> None:
    """The arguments of a command may be secrets as well, and so may everything in the environment."""
    where = source({"command": ["get", "--password", "hunter2"]})
    assert repr(where) == "Source(where='[apps.a] `token`', way='command')"
    assert "hunter2" not in repr(credentials.rereader(where, tmp_path, {"PASSWORD": "hunter2"}))

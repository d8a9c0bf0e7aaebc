"""Where an app's credentials come from, and fetching them: a variable, a file, a command; for an id also the text.

No message of this module holds a value, nor anything that could be one by mistake: a value is easily written where the
name of its place belongs. A name is shown if the place is there, or if it is made of words, as no token is.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import UsageError
from harvester.job import rules
from harvester.model import App, Secret

COMMAND_TIMEOUT: Final = 30.0  # seconds
SIZE_LIMIT: Final = 64 * 1024  # bytes; whatever is larger is some other file
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd names the folder of a service's credentials (systemd.exec, LoadCredential=)."""
_IN_CREDENTIALS: Final = re.compile(rf"\$(?:{CREDENTIALS}|\{{{CREDENTIALS}\}})/+(?=[^/])")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_READABLE_BY_OTHERS: Final = 0o044
_STDERR_LINES: Final = 5


class Source(Struct, frozen=True, kw_only=True):
    """One credential as the job file states it: ``way`` is ``text``, ``env``, ``file`` or ``command``.

    ``where`` is the table and key that begin every message; ``words`` holds the text, the variable, the path, or the
    command and its arguments.
    """

    where: str
    way: str
    words: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Source(where={self.where!r}, way={self.way!r})"  # an argument of a command may be a secret too

    def resolve(self, folder: Path, environ: Mapping[str, str], warn: Callable[[str], None]) -> str:
        """Fetch the value, without BOM and white space at its ends.

        Args:
            folder: relative paths start here, and a command runs here.
            environ: the process's environment.
            warn: told about a file that others can read.

        Raises:
            UsageError: there is no value, or it cannot be one.
        """
        return _cleaned(_WAYS[self.way](self, folder, environ, warn), self.where)


def parse(value: object, *, table: str, key: str, variable: str, text_allowed: bool) -> Source:
    """Read ``{ env = }``, ``{ file = }``, ``{ command = [] }`` or, if allowed, the text itself.

    Args:
        value: what stands in the job file.
        table: the table's name in brackets, for messages.
        key: the key in it.
        variable: a good name of an environment variable, for hints.
        text_allowed: whether the value may stand in the job file; an id's may, a secret's may not.

    Raises:
        UsageError: it is none of these.
    """
    where = f"{table} `{key}`"
    hint = f'write {key} = {{ env = "{variable}" }} and set that variable; {{ file = "…" }} and '
    hint += '{ command = ["…"] } are possible too'
    if isinstance(value, str):
        if not text_allowed:
            raise UsageError(f"{where} stands in the job file as text; a secret must not", hint=hint)
        return Source(where=where, way="text", words=(value,))
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= _WAYS.keys() - {"text"}:
        allowed = "a text or " if text_allowed else ""
        raise UsageError(f"{where} must be {allowed}a table with one of `env`, `file`, `command`", hint=hint)
    (way, words), *_ = value.items()
    if way != "command":
        if not words or not rules.is_line(words):
            raise UsageError(f"{where}: `{way}` must be a text on one line that is not empty", hint=hint)
        if way == "env" and not _VARIABLE.fullmatch(words):
            # Not shown: the secret itself is easily written here.
            raise UsageError(f"{where}: what `env` says is no name of an environment variable", hint=hint)
        return Source(where=where, way=way, words=(words,))
    if not isinstance(words, list) or not all(map(rules.is_line, words)) or not any(words[:1]):
        raise UsageError(
            f"{where}: `command` must be a list of texts, the program and its arguments",
            hint=f'for example {key} = {{ command = ["pass", "show", "{variable.lower()}"] }}; no shell reads it',
        )
    return Source(where=where, way=way, words=tuple(words))


def rereader(source: Source, folder: Path, environ: Mapping[str, str]) -> Callable[[App], App | None]:
    """Return what fetches an app's secret once more: the platform may have been given a new one meanwhile.

    A file is read again and a command runs again; a variable of this process cannot have changed, and a pipe gives its
    content only once. What is returned is a closure, whose ``repr`` shows neither environment nor secret. It may take
    ``COMMAND_TIMEOUT`` seconds, so it is not for the event loop. It takes an app to the same app with its new secret,
    or to None if there is no other one, and raises ``UsageError`` if there is none any more.

    Args:
        source: of the secret, not of the id.
        folder: see ``Source.resolve``, where also everything was warned of.
        environ: the process's environment.
    """

    def reread(app: App) -> App | None:
        if source.way not in {"file", "command"}:
            return None
        if source.way == "file":
            path = _path(source, folder, environ)
            if _exists(path) and not path.is_file():
                return None
        secret = source.resolve(folder, environ, lambda _: None)
        return None if secret == app.secret.reveal() else replace(app, secret=Secret(secret))

    return reread


def _cleaned(value: str, where: str) -> str:
    """Drop BOM and white space at the ends; what is left must be one line of visible characters."""
    text = value.strip().strip("\ufeff").strip()
    if not text:
        raise UsageError(f"{where} is empty", hint="give it the value that the platform shows for this app")
    if not text.isprintable():
        at = next(index for index, character in enumerate(text, 1) if not character.isprintable())
        what = "a line break" if text[at - 1] in "\r\n" else "a control or invisible character"
        raise UsageError(
            f"{where} holds {what} after {at - 1} of its {len(text)} characters",
            hint="copy the value again, without anything before, inside or after it",
        )
    return text


def _from_text(source: Source, _folder: Path, _environ: Mapping[str, str], _warn: Callable[[str], None]) -> str:
    return source.words[0]


def _from_env(source: Source, _folder: Path, environ: Mapping[str, str], _warn: Callable[[str], None]) -> str:
    (name,) = source.words
    if name in environ:
        return environ[name]
    if not rules.is_words(name):
        raise UsageError(
            f"{source.where}: the environment variable that `env` names is not set",
            hint="`env` takes the name of a variable, not the value itself",
        )
    raise UsageError(f"{source.where}: the environment variable {name} is not set", hint=f"export {name}=…")


def _from_file(source: Source, folder: Path, environ: Mapping[str, str], warn: Callable[[str], None]) -> str:
    path = _path(source, folder, environ)
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        named = f"the file {path}" if rules.is_words(source.words[0]) or _exists(path) else "the file that it names"
        raise UsageError(
            f"{source.where}: {named} cannot be read: {error.strerror}",
            hint=f"a relative path starts at the job file's folder, {folder}; nothing is replaced in it but a "
            f"${CREDENTIALS} at its beginning",
        ) from None
    # systemd's own are closed by their folder, and the rights it adds to them look like the group's.
    if mode & _READABLE_BY_OTHERS and stat.S_ISREG(mode) and not _IN_CREDENTIALS.match(source.words[0]):
        warn(f"{source.where}: other users of this machine can read {path}; chmod 600 {path}")
    return _decoded(content, f"{source.where}: the file {path}")


def _path(source: Source, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return where the file is."""
    (text,) = source.words
    inside = _IN_CREDENTIALS.match(text)
    if not inside:
        return folder / text
    if not environ.get(CREDENTIALS):
        raise UsageError(
            f"{source.where}: the environment variable {CREDENTIALS} is not set",
            hint="systemd sets it for a service that has LoadCredential= or SetCredentialEncrypted=",
        )
    return folder / environ[CREDENTIALS] / text[inside.end() :]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long is no file's
        return False


def _from_command(source: Source, folder: Path, environ: Mapping[str, str], _warn: Callable[[str], None]) -> str:
    program = source.words[0]
    known = rules.is_words(program) or shutil.which(program, path=environ.get("PATH")) or _exists(folder / program)
    what = f"{source.where}: the command" + (f" {program!r}" if known else "")
    hint = "run it by hand in the job file's folder; it must print the value and nothing else"
    try:
        done = subprocess.run(  # noqa: S603 - the job file's owner chose the program, and no shell reads it
            source.words,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        # `from None`: the exception holds what the command has printed so far.
        raise UsageError(f"{what} did not end within {COMMAND_TIMEOUT:g} s", hint=hint) from None
    except OSError as error:
        raise UsageError(f"{what} cannot be started: {error.strerror}", hint=hint) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        raise UsageError(
            f"{what} failed with exit code {done.returncode}",
            causes=("".join(c if c.isprintable() else "?" for c in line) for line in lines),
            hint=hint,
        )
    return _decoded(done.stdout, what)


def _decoded(content: bytes, what: str) -> str:
    if len(content) > SIZE_LIMIT:
        raise UsageError(f"{what} gives more than {SIZE_LIMIT} bytes, which is no credential")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} gives no UTF-8 text (at byte {error.start})", hint="save the value as UTF-8"
        ) from None


_WAYS: Final[Mapping[str, Callable[[Source, Path, Mapping[str, str], Callable[[str], None]], str]]] = {
    "text": _from_text,
    "env": _from_env,
    "file": _from_file,
    "command": _from_command,
}

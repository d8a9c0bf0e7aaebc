"""``python -m harvester`` and the ``harvester`` command: one way in, with streams that cannot fail a run."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from harvester.errors import Exit, LocalError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_STDERR: Final = 2
_GONE: Final = {errno.EPIPE, errno.EIO}  # a reader that has left, a terminal that was closed


class _Stream(io.FileIO):
    """A standard stream whose reader may leave: what is written after that goes nowhere, and the work goes on.

    Words for people, on standard error, may be lost to a full disk too; data on standard output may not.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of ours
                os.dup2(nowhere.fileno(), self.fileno())
            if error.errno not in _GONE and self.fileno() != _STDERR:
                raise LocalError(f"cannot write standard output: {error.strerror}") from error
            return memoryview(data).nbytes


def main() -> int:
    """Run the command line; return its exit code."""
    if sys.platform == "win32":
        print("harvester does not run on Windows itself; it runs in WSL: https://aka.ms/wsl", file=sys.stderr)  # noqa: T201
        return Exit.USAGE
    _open_streams()
    from harvester.cli import run  # noqa: PLC0415 - imports what does not exist on Windows

    return run()


def _open_streams() -> None:
    """See to it that output never fails: not on an encoding, a reader that has left or a descriptor that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file opened, perhaps one of the mirror, would get what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(2, sys.stderr)


def _text(number: int, given: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(number, "w", closefd=False)),
        encoding=given.encoding if given else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


if __name__ == "__main__":
    sys.exit(main())

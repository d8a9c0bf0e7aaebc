"""``python -m harvester`` and the ``harvester`` command: one way in, and one place where errors become words."""

from __future__ import annotations

import os
import sys

from harvester.errors import Exit


def main() -> int:
    """Run the command line; return its exit code."""
    if sys.platform == "win32":
        print("harvester does not run on Windows itself; it runs in WSL: https://aka.ms/wsl", file=sys.stderr)  # noqa: T201
        return Exit.USAGE
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # output never fails on a terminal's encoding
    from harvester.cli import run  # noqa: PLC0415 - imports what does not exist on Windows

    try:
        return run()
    except BrokenPipeError:
        # Whoever read our output has enough. Point stdout elsewhere, so that the flush at exit does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


if __name__ == "__main__":
    sys.exit(main())

"""Everything that can go wrong, split by whose fault it is; each error knows its exit code and carries a hint.

A message follows one shape: what was tried and why it failed, the causes below it, a blank line, then a hint that
names the next command or edit. ``cli`` prints ``str(error)`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar, Final


class Exit(IntEnum):
    """Exit codes of every command, as the README lists them."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    REFUSED = 3
    OPEN_PAGES = 4
    NOT_PROVEN = 5
    BUDGET = 6
    LOCAL = 7
    LOCKED = 8
    HELD = 9
    INTERRUPTED = 130
    TERMINATED = 143


# With several datasets the first of these that applies to any of them is the run's.
PRECEDENCE: Final = (
    Exit.INTERRUPTED,
    Exit.TERMINATED,
    Exit.UNEXPECTED,
    Exit.USAGE,
    Exit.LOCAL,
    Exit.REFUSED,
    Exit.HELD,
    Exit.BUDGET,
    Exit.OPEN_PAGES,
    Exit.NOT_PROVEN,
    Exit.LOCKED,
    Exit.OK,
)


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the exit code of a run from those of its datasets; ``Exit.OK`` for none."""
    seen = set(codes)
    return next((code for code in PRECEDENCE if code in seen), Exit.OK)


class HarvesterError(Exception):
    """Base of all errors that are told to the user in words instead of a traceback.

    Args:
        message: what was tried and why it failed, one sentence.
        causes: further lines, each printed below the message.
        hint: what to do next, with the exact command or edit where there is one.
    """

    exit: ClassVar[Exit] = Exit.UNEXPECTED

    def __init__(self, message: str, *, causes: Iterable[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  {cause}" for cause in self.causes)]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class UsageError(HarvesterError):
    """The caller's: arguments or the job file."""

    exit = Exit.USAGE


class LocalError(HarvesterError):
    """This machine's: disk, permissions, an own file that is damaged."""

    exit = Exit.LOCAL


class DamagedError(LocalError):
    """A file of ours does not hold what was written: names the file, the offset, the bytes and the reason."""


class LockedError(HarvesterError):
    """Another run works on this dataset."""

    exit = Exit.LOCKED

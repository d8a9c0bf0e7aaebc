"""Deadlines of many calls under one timer: one that looks again and again costs less than one for each call."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

TICK: Final = 0.05  # seconds between two looks, by which a call may end late


class Deadlines:
    """The deadlines of the calls under way; the timer runs while there are any.

    Args:
        loop: whose tasks make the calls. To ask which one is running takes a question to the system each time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._under_way: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def at(self, when: float) -> Deadline:
        """Return a deadline for what the present task does in a ``with`` block; ``when`` is the loop's time."""
        return Deadline(self, when)

    def add(self, deadline: Deadline) -> None:
        """Watch a deadline."""
        self._under_way.add(deadline)
        if self._timer is None:
            self._timer = self.loop.call_later(TICK, self._look)

    def discard(self, deadline: Deadline) -> None:
        """Watch a deadline no more."""
        self._under_way.discard(deadline)

    def _look(self) -> None:
        now = self.loop.time()
        for deadline in self._under_way:
            deadline.look(now)
        self._timer = self.loop.call_later(TICK, self._look) if self._under_way else None


class Deadline:
    """When a task has to have left a block; as with ``asyncio.timeout``, one that is late gets a ``TimeoutError``.

    Attributes:
        when: the loop's time; may be moved while the block runs.
        expired: whether it has passed.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "expired", "when")

    def __init__(self, deadlines: Deadlines, when: float) -> None:
        task = asyncio.current_task(deadlines.loop)
        if task is None:
            raise RuntimeError("a deadline is a task's")
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()
        self.when = when
        self.expired = False

    def look(self, now: float) -> None:
        """End the block if it is late."""
        if now >= self.when and not self.expired:
            self.expired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        self._deadlines.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.discard(self)
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error  # somebody else's cancellation stays one

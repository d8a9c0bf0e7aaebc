"""A loop whose time is set: it jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import pytest

T = TypeVar("T")
STEP: Final = 1e-7  # seconds that the loop itself takes; a clock that stands still would make some waits endless
STUCK: Final = 3  # looks without a timer or a ready callback after which nothing will ever happen


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing; tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0
        self._idle = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look at the files once; count the time-out as time that has passed."""
        self.slept += max(timeout or 0.0, STEP)
        self._idle = self._idle + 1 if timeout is None else 0
        if self._idle > STUCK:
            raise RuntimeError("every task waits for something that no timer will bring")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, in seconds from 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the seconds that all timers together have waited."""
        return self._jumping.slept


class VirtualTime:
    """Runs a coroutine in virtual time; ``now`` is its clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Return the virtual seconds."""
        return self._loop.time()

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end; fails at once where a real loop would hang."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            return runner.run(main())


@pytest.fixture
def virtual() -> Iterator[VirtualTime]:
    """Time that is set, not slept."""
    loop = VirtualLoop()
    yield VirtualTime(loop)
    loop.close()


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a state folder of its own: limits are shared through it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))

"""Whose turn is it: the next page over all datasets of an app, fairly, and never more than the moment allows.

Datasets take turns, page by page. An app's first call goes alone, so that a wrong clock or secret costs one call. A
host that is down gets one probe at a time; a page that it has served before makes the best probe, because its success
shows that what still fails are single pages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from msgspec import Struct

from harvester.frontier import Frontier
from harvester.health import Health
from harvester.second_reading import SecondReading


class Member(Protocol):
    """What the schedule needs of a dataset's run."""

    @property
    def pages(self) -> Frontier | SecondReading:
        """Its pages in the present phase."""

    @property
    def health(self) -> Health:
        """Its host."""

    @property
    def metered(self) -> bool:
        """Whether only one call may be under way."""

    @property
    def finished(self) -> bool:
        """Whether it wants no more calls."""


class Turn(Struct, frozen=True, gc=False):
    """One page to ask for; a ``probe`` asks for a page that is there already, to see whether the host answers."""

    member: Member
    page: int
    probe: bool = False


class Budget:
    """Pages and calls that a run may still make, over all its apps; None: as many as it likes."""

    def __init__(self, pages: int | None = None, calls: int | None = None) -> None:
        self.pages = pages
        self.calls = calls
        self._in_flight = 0
        self._wakes: list[Callable[[], None]] = []

    def watch(self, wake: Callable[[], None]) -> None:
        """Have somebody told whenever what is left may have changed: the schedules of all apps share it."""
        self._wakes.append(wake)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return (self.pages is not None and self.pages <= 0) or (self.calls is not None and self.calls <= 0)

    @property
    def room(self) -> bool:
        """Whether a page and a call are left beside those under way."""
        return all(left is None or left > self._in_flight for left in (self.pages, self.calls))

    def take(self) -> None:
        """Set one page and one call aside."""
        self._in_flight += 1

    def settle(self, *, called: bool, kept: bool) -> None:
        """Say what became of what was set aside."""
        self._in_flight -= 1
        if self.calls is not None:
            self.calls -= called
        if self.pages is not None:
            self.pages -= kept
        for wake in self._wakes:
            wake()


class Schedule:
    """The turns of one app.

    Args:
        members: the datasets' runs.
        budget: of the whole run.
        now: monotonic time in seconds.
    """

    def __init__(self, members: Sequence[Member], budget: Budget, now: Callable[[], float]) -> None:
        self._budget = budget
        self._members = deque(members)
        self._now = now
        self._alone = True
        self._in_flight = 0
        self._later: list[tuple[float, int, Turn]] = []
        self._order = count()
        self._changed = asyncio.Event()
        if budget.pages is not None or budget.calls is not None:
            budget.watch(self._changed.set)
        self.closed = False

    async def take(self) -> Turn | None:
        """Wait for a turn; None when there will be no more."""
        while not self.closed and not self._budget.spent:
            self._changed.clear()
            rest = None  # with the budget in flight, only an answer can change anything
            if self._budget.room:
                if (turn := self._pick()) is not None:
                    self._budget.take()
                    self._in_flight += 1
                    turn.member.health.in_flight += 1
                    return turn
                if not self._members and not self._later:
                    return None
                rest = self._rest()
            try:
                async with asyncio.timeout(rest):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    def give_back(self, turn: Turn, *, called: bool, kept: bool) -> None:
        """Note that a turn is over, and whether it made a call and kept a page."""
        self._budget.settle(called=called, kept=kept)
        self._in_flight -= 1
        turn.member.health.in_flight -= 1
        self._changed.set()

    def again(self, turn: Turn, after: float) -> None:
        """Ask for the page of a turn once more after so many seconds, or in its order at once."""
        if turn.probe:
            return
        if after:
            heappush(self._later, (self._now() + after, next(self._order), turn))
        else:
            turn.member.pages.put_back(turn.page)

    def wake(self) -> None:
        """Look again: a dataset has come to its next phase or to its end."""
        self._changed.set()

    def together(self) -> None:
        """End the first call's solitude."""
        self._alone = False

    def close(self) -> None:
        """Hand out no more turns."""
        self.closed = True
        self._changed.set()

    def _pick(self) -> Turn | None:
        if self._alone and self._in_flight:
            return None
        now = self._now()
        while self._later and self._later[0][0] <= now:
            due = heappop(self._later)[2]
            if not due.member.finished:
                if not due.member.health.down:
                    return due
                due.member.pages.put_back(due.page)
        for _ in range(len(self._members)):
            member = self._members[0]
            if member.finished:
                self._members.popleft()
                continue
            self._members.rotate(-1)
            if (turn := self._turn(member, now)) is not None:
                return turn
        return None

    def _turn(self, member: Member, now: float) -> Turn | None:
        if member.health.down:
            if member.health.in_flight or member.health.rest(now):
                return None
            if member.pages.witness:
                return Turn(member, member.pages.witness, probe=True)
        if member.metered and member.pages.in_flight:
            return None
        page = member.pages.next()
        return None if page is None else Turn(member, page)

    def _rest(self) -> float | None:
        """Return the seconds until something may be due without an answer coming in; None: nothing will."""
        now = self._now()
        waits = [self._later[0][0] - now] if self._later else []
        waits += [rest for member in self._members if (rest := member.health.rest(now)) > 0]
        return max(0.0, min(waits)) if waits else None

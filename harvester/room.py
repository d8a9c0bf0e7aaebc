"""Memory for the bodies that are being read at once."""

from __future__ import annotations

import asyncio
from typing import Final

from harvester.body import LIMIT, Body

SMALL: Final = 2**20  # bytes up to which a body never waits
SHARED: Final = LIMIT  # bytes for all but the largest body


class Room:
    """Lets bodies grow one after another once there is no room for all.

    The largest may always grow, so one can be finished whatever happens and nobody waits for ever; a further one waits
    while all but the largest hold more than ``SHARED``. With the largest at its own cap this makes 64 MiB in all, and
    what ``SMALL`` bodies hold beyond them.
    """

    def __init__(self) -> None:
        self._bodies: dict[Body, None] = {}  # in order, so that of two equal ones the first is the largest
        self._left = asyncio.Event()

    def enter(self, body: Body) -> None:
        """Count a body in, until it leaves."""
        self._bodies[body] = None

    def leave(self, body: Body) -> None:
        """Count a body out, also one that never entered, and let those that wait look again."""
        if self._bodies.pop(body, self) is None:
            self._left.set()

    def fits(self, body: Body) -> bool:
        """Tell whether a body that has entered may grow further now."""
        if body.size <= SMALL:
            return True
        largest = max(self._bodies, key=_size)
        return body is largest or sum(map(_size, self._bodies)) - largest.size <= SHARED

    async def wait(self, body: Body) -> None:
        """Return when a body that has entered may grow further."""
        while not self.fits(body):
            self._left.clear()
            await self._left.wait()


def _size(body: Body) -> int:
    return body.size

"""Who may grow when there is no room for all."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester import room
from harvester.body import Body
from harvester.room import Room


def sized(size: int) -> Body:
    """Return a body that has come to this size."""
    body = Body(framed=True)
    body.size = size
    return body


def entered(*sizes: int) -> tuple[Room, list[Body]]:
    """Return a room with bodies of these sizes in it."""
    bodies = [sized(size) for size in sizes]
    filled = Room()
    for body in bodies:
        filled.enter(body)
    return filled, bodies


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count in bytes."""
    monkeypatch.setattr(room, "SMALL", 1)
    monkeypatch.setattr(room, "SHARED", 10)


def test_who_fits() -> None:
    """The largest always does, the others while they hold no more than their share; small ones never wait."""
    for sizes, expected in (
        ([32], [True]),
        ([32, 10], [True, True]),
        ([32, 11], [True, False]),
        ([32, 5, 6], [True, False, False]),
        ([32, 5, 5, 1], [True, False, False, True]),
        ([11, 11], [True, False]),
        ([5, 5, 5], [True, True, True]),
        ([6, 6, 6], [True, False, False]),
    ):
        filled, bodies = entered(*sizes)
        assert [filled.fits(body) for body in bodies] == expected, sizes


def test_a_body_that_never_entered_may_leave() -> None:
    """Leaving is for every end of a call."""
    Room().leave(sized(5))


async def test_those_that_wait_go_on_when_one_leaves() -> None:
    """Each looks for itself again, and no one else's leaving is missed."""
    filled, (first, second, third) = entered(32, 12, 11)
    waits = [asyncio.create_task(filled.wait(body)) for body in (second, third)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    filled.leave(first)
    await waits[0]
    assert not waits[1].done()
    filled.leave(second)
    await waits[1]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_all_finish_and_the_bound_holds(sizes: list[int], random: Random) -> None:
    """In whatever order they grow, byte by byte: nobody is stuck, and all but the largest keep to their share."""
    filled, growing = entered(*[0] * len(sizes))
    goals = dict(zip(growing, sizes, strict=True))
    while growing:
        body = random.choice([body for body in growing if filled.fits(body)])
        body.size += 1
        others = [other.size for other in growing if other.size > room.SMALL]
        over = len(others) * (room.SMALL + 1)  # what each may take unasked, and its last step
        assert sum(others) - max(others, default=0) <= room.SHARED + over
        if body.size == goals[body]:
            growing.remove(body)
            filled.leave(body)

"""Work on all cores: the same results as on one, in order, and the same errors."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from harvester.store.cores import spread, usable


class Found(msgspec.Struct):
    """A result, and the process it comes from."""

    value: str
    pid: int


def look(item: int) -> Found:
    """Say which process saw an item."""
    return Found(f"item {item}", os.getpid())


@pytest.mark.parametrize("cores", [1, 2, 3, 50])
def test_order(cores: int) -> None:
    """Results come in the order of the items, from as many processes as there may be."""
    found = spread(look, range(20), Found, cores)
    assert [one.value for one in found] == [f"item {number}" for number in range(20)]
    pids = {one.pid for one in found}
    assert len(pids) == min(cores, 20)
    assert (os.getpid() in pids) == (cores == 1)


def test_large_results() -> None:
    """A result may be larger than a pipe holds."""
    found = spread(lambda item: Found("x" * 300_000 + str(item), 0), range(4), Found, 2)
    assert [one.value[-2:] for one in found] == ["x0", "x1", "x2", "x3"]


def test_errors_are_raised_here() -> None:
    """What fails in a child fails here as well, with the same words."""

    def fail(item: int) -> Found:
        if item == 3:
            raise ValueError(f"item {item} is damaged")
        return look(item)

    with pytest.raises(ValueError, match="item 3 is damaged"):
        spread(fail, range(6), Found, 2)


def test_killed_child() -> None:
    """What a child did not get to is done here."""
    here = os.getpid()

    def die(item: int) -> Found:
        if item == 2 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return look(item)

    found = spread(die, range(6), Found, 2)
    assert [one.value for one in found] == [f"item {number}" for number in range(6)]
    assert found[2].pid == here
    assert found[1].pid != here


def test_nothing_to_do() -> None:
    """No item, no child."""
    assert spread(look, [], Found) == []
    assert usable() >= 1

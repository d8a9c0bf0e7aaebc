"""Exit codes in their order, and the shape of a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester import errors
from harvester.errors import PRECEDENCE, Exit, HarvesterError, worst


def test_every_exit_code_has_its_place() -> None:
    """None is forgotten, none stands twice."""
    assert sorted(PRECEDENCE) == sorted(Exit)


def test_the_numbers_are_a_promise() -> None:
    """Scripts rely on them."""
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "REFUSED": 3,
        "OPEN_PAGES": 4,
        "NOT_PROVEN": 5,
        "BUDGET": 6,
        "LOCAL": 7,
        "LOCKED": 8,
        "HELD": 9,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


@given(st.lists(st.sampled_from(Exit)))
def test_the_worst_is_the_first_that_applies(codes: list[Exit]) -> None:
    """Of no dataset at all it is success."""
    got = worst(codes)
    assert got in codes or (not codes and got is Exit.OK)
    assert all(PRECEDENCE.index(got) <= PRECEDENCE.index(code) for code in codes)


def test_a_message_has_causes_and_a_hint() -> None:
    """What failed, why, a blank line, what to do."""
    error = HarvesterError("cannot read x", causes=["no such file", "no disk"], hint="try y")
    assert str(error) == "cannot read x\n  no such file\n  no disk\n\nhint: try y"
    assert str(HarvesterError("short")) == "short"
    assert error.args == ("cannot read x",)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, Exit.USAGE),
        (errors.LocalError, Exit.LOCAL),
        (errors.DamagedError, Exit.LOCAL),
        (errors.LockedError, Exit.LOCKED),
    ],
)
def test_each_error_knows_its_exit_code(kind: type[HarvesterError], code: Exit) -> None:
    """Split by whose fault it is."""
    assert kind("x").exit is code

"""What both gatekeepers share."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.simulator.gate import NonceMemory, Quota, form_fields, make_quota, media_type


def test_nonce_is_free_again_after_exactly_its_span() -> None:
    """Ten minutes: not a moment earlier; a refused repetition does not prolong it."""
    memory = NonceMemory(600.0)
    assert memory.add(b"n", 0.0)
    assert not memory.add(b"n", 599.5)
    assert memory.add(b"n", 600.0)
    assert not memory.add(b"n", 600.0)


def test_forgotten_nonces_take_no_memory() -> None:
    """What is too old goes, and so does the oldest beyond the bound."""
    memory = NonceMemory(600.0, most=3)
    for number in range(4):
        memory.add(bytes([number]), float(number))
    memory.add(b"late", 602.5)
    assert len(memory) == 2
    for number in range(100):
        memory.add(b"%d" % number, 603.0)
    assert len(memory) <= 4


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_memory_agrees_with_a_plain_history(calls: list[tuple[int, int]]) -> None:
    """Whatever comes when: refused if and only if the same was admitted less than the span ago."""
    memory, admitted, now = NonceMemory(100.0), dict[int, int](), 0
    for nonce, gap in calls:
        now += gap
        fresh = nonce not in admitted or now - admitted[nonce] >= 100
        assert memory.add(bytes([nonce]), float(now)) == fresh
        if fresh:
            admitted[nonce] = now


@pytest.mark.parametrize(
    ("written", "last", "first"),
    [
        ("2/day", "2027-01-14T15:59:59.999", "2027-01-14T16:00:00"),
        ("2/month", "2027-01-31T15:59:59.999", "2027-01-31T16:00:00"),
        ("2/month", "2026-12-31T15:59:59.999", "2026-12-31T16:00:00"),
    ],
)
def test_quota_is_full_until_midnight_in_beijing(written: str, last: str, first: str) -> None:
    """Which is 16:00 UTC; the first moment of the next period is free."""
    quota = make_quota(written)
    before, after = (datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in (last, first))
    assert [quota.admit("a", before) for _ in range(3)] == [True, True, False]
    assert quota.used == {"a": 2}
    assert [quota.admit("a", after) for _ in range(3)] == [True, True, False]


def test_quota_of_a_month_outlasts_its_days() -> None:
    """The turn of a day brings nothing."""
    quota = Quota(1, daily=False)
    assert quota.admit("a", 1_800_000_000.0)  # 15 January
    assert not quota.admit("a", 1_800_000_000.0 + 86_400)


def test_quota_belongs_to_a_service() -> None:
    """Each has its own; what is used shows, in the same dict after the turn of the period; refused calls are free."""
    quota = Quota(2, daily=True)
    used = quota.used
    assert [quota.admit(service, 0.0) for service in "abaab"] == [True, True, True, False, True]
    assert used == {"a": 2, "b": 2}
    assert quota.admit("a", 86_400.0)
    assert used == {"a": 1}


def test_quota_does_not_come_again_when_the_clock_goes_back() -> None:
    """A clock that is set back over midnight and forward again gives no calls."""
    quota = Quota(1, daily=True)
    assert [quota.admit("a", now) for now in (86_400.0, 0.0, 86_400.0)] == [True, False, False]


@pytest.mark.parametrize("text", ["", "5", "/day", "0/day", "-1/day", "5/week", "5/day/month", "１/day", "5 / day"])
def test_quota_that_nobody_can_read(text: str) -> None:
    """It says how one is written."""
    with pytest.raises(ValueError, match="N/day nor N/month"):
        make_quota(text)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1&b=%E7%89%99+%2B&c=", {"a": "1", "b": "牙 +", "c": ""}),
        (b"%61=x%3D1=2", {"a": "x=1=2"}),
        (b"", None),
        (b"a", None),
        (b"a=1&a=2", None),
        (b"a=%FF", None),
        (b"a=\xe7\x89\x99", None),
    ],
)
def test_form_is_decoded_strictly(body: bytes, fields: dict[str, str] | None) -> None:
    """UTF-8 in percent signs; no bare bytes, no field twice, no field without a value."""
    assert form_fields(body) == fields


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("Application/JSON; charset=UTF-8", "application/json"),
        ('application/json;charset="utf-8"', "application/json"),
        ("application/json", "application/json"),
        ("application/json; charset=GBK", ""),
        ("", ""),
    ],
)
def test_media_type_is_read_without_its_parameters(header: str, kind: str) -> None:
    """A charset other than UTF-8 gives no type at all."""
    assert media_type(header) == kind

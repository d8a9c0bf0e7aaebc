"""Settings of a simulation are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from harvester.errors import UsageError
from harvester.simulator import Config, Quirks, parse_steps
from harvester.simulator.generated import MAX_ROWS


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104 - to be refused
def test_only_loopback_is_bound(host: str) -> None:
    """A simulator with public credentials is nothing for a network."""
    with pytest.raises(UsageError, match="loopback"):
        Config(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_has_several_names(host: str) -> None:
    """All of them are fine."""
    assert Config(host=host).host == host


@pytest.mark.parametrize(
    "setting",
    [
        {"platforms": ()},
        {"platforms": ("wuhan", "beijing")},
        {"rows": -1},
        {"rows": MAX_ROWS + 1},
        {"rate_limit": 0},
        {"rate_limit": float("nan")},
        {"limit_kind": "token"},
        {"limit_kind": "fixed"},
        {"schedule": ((10, -1),)},
        {"schedule": ((10, 100), (10, 300))},
        {"schedule": ((float("inf"), 100),)},
        {"schedule": ((10, 100),), "rate_limit": None},
        {"latency": -0.1},
        {"latency": float("nan")},
        {"latency_schedule": ((20, 1), (10, 2))},
        {"slow_pages": float("inf")},
        {"jitter": -1},
        {"bandwidth": -1},
        {"bandwidth": float("nan")},
        {"quota": "5"},
        {"refuse_with": "503"},
        {"retry_after": "3"},
        {"retry_after": "soon", "refuse_with": "429"},
        {"proxy_errors": 1.5},
        {"port": 65536},
        {"sipop_digest": "sha"},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    """Each says what would be right."""
    with pytest.raises(UsageError, match="cannot simulate that"):
        Config(**setting)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("300", (300, ())),
        ("300,10:100,40:300", (300, ((10, 100), (40, 300)))),
        ("0.02, 10:2", (0.02, ((10, 2),))),
    ],
)
def test_values_on_schedule_are_read(text: str, steps: tuple[float, tuple[tuple[float, float], ...]]) -> None:
    """The value at first, then seconds and values."""
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "fast", "300,", "300,100", "300,10:", "300,10:100:3", "10:100"])
def test_values_on_schedule_that_nobody_can_read(text: str) -> None:
    """It is shown how one is written."""
    with pytest.raises(ValueError, match="300,10:100"):
        parse_steps(text)


def test_quirks_are_those_of_one_setting_only() -> None:
    """Settings that are made apart do not share them."""
    assert Config().quirks == {}
    assert Config().quirks is not Config().quirks
    assert Config(quirks={"companies": Quirks(window=5)}) != Config()

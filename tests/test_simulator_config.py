"""Settings of a simulation are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from harvester.errors import UsageError
from harvester.simulator import Config
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
        {"latency": -0.1},
        {"port": 65536},
        {"past_end": "wrap"},
        {"page_cap": 0},
        {"sipop_digest": "sha"},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    """Each says what would be right."""
    with pytest.raises(UsageError, match="cannot simulate that"):
        Config(**setting)

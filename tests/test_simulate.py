"""Options of a simulation: what they make of it."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from harvester.simulate import configure, simulation_options
from harvester.simulator import Change, Config, Fault, Quirks


def configured(*arguments: str) -> tuple[list[Config], str]:
    """Return the settings that a command with these arguments is given, if any, and what it prints."""
    made: list[Config] = []

    @click.command
    @simulation_options
    def command(**given: Any) -> None:  # noqa: ANN401 - whatever the options say
        made.append(configure(given))

    return made, CliRunner().invoke(command, arguments).output


def test_quirks_add_up() -> None:
    """Each option names one dataset or all; none is none."""
    assert configured()[0] == [Config()]
    made, _ = configured(
        "--quirk",
        "past_end=last",
        "--quirk",
        "companies:changes=100:insert:head:5,total=wrong:7",
        "--quirk",
        "companies:window=60",
    )
    changed = Quirks(changes=(Change(100, "insert", "head", 5),), total="wrong:7", window=60)
    assert made == [Config(quirks={"": Quirks(past_end="last"), "companies": changed})]


@pytest.mark.parametrize("text", ["companies", "colour=red", "window=many"])
def test_quirks_that_nobody_can_read_are_the_options_fault(text: str) -> None:
    """It is named, and nothing is simulated."""
    made, said = configured("--quirk", text)
    assert made == []
    assert "Invalid value for --quirk" in said


def test_faults_add_up() -> None:
    """Each option names one; they keep their order."""
    made, _ = configured("--fault", "reset-in-body:0.01", "--fault", "restart:5:20", "--fault", "502:0.5:5:20")
    assert made == [
        Config(faults=(Fault("reset-in-body", 0.01), Fault("restart", at=5, lasts=20), Fault("502", 0.5, 5, 20)))
    ]


@pytest.mark.parametrize("text", ["reset", "reset:often", "reset:1:2:3:4"])
def test_faults_that_nobody_can_read_are_the_options_fault(text: str) -> None:
    """It is named, and nothing is simulated."""
    made, said = configured("--fault", text)
    assert made == []
    assert "Invalid value for --fault" in said


def test_a_slow_line_has_a_bandwidth() -> None:
    """In bytes per second; without one there is no bound."""
    assert configured("--bandwidth", "250000")[0] == [Config(bandwidth=250_000)]
    assert configured("--bandwidth", "-1")[0] == []

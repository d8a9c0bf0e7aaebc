"""Figures with targets, and what charts are drawn from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measure import Second


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A figure with its unit; ``target`` in words and ``passed`` where there is a target; ``seconds`` for a chart."""

    trial: str
    case: str
    figure: str
    value: float | None
    unit: str = ""
    target: str = ""
    passed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What the gateway saw second by second."""

    title: str
    limit: float
    seconds: Sequence[Second]


Result = Finding | Chart


def at_most(most: float) -> tuple[str, Callable[[float], bool]]:
    """Return a target in words and as a test."""
    return f"<= {most:g}", lambda value: value <= most


def at_least(least: float) -> tuple[str, Callable[[float], bool]]:
    """Return a target in words and as a test."""
    return f">= {least:g}", lambda value: value >= least


class Case:
    """Makes findings of one case of a trial."""

    def __init__(self, trial: str, case: str) -> None:
        self.trial = trial
        self.case = case

    def finding(
        self,
        figure: str,
        value: float | None,
        unit: str = "",
        target: tuple[str, Callable[[float], bool]] | None = None,
    ) -> Finding:
        """Judge a figure; None is one that was never reached, which misses any target."""
        words, test = target or ("", None)
        passed = None if test is None else value is not None and test(value)
        return Finding(
            trial=self.trial, case=self.case, figure=figure, value=value, unit=unit, target=words, passed=passed
        )

    def chart(self, limit: float, seconds: Sequence[Second]) -> Chart:
        """Return the chart of the case."""
        return Chart(title=f"{self.trial}: {self.case}", limit=limit, seconds=seconds)


def refused(seconds: Sequence[Second]) -> int:
    """Return the number of refused calls."""
    return sum(second.refused for second in seconds)


def refused_share(seconds: Sequence[Second]) -> float:
    """Return the share of refused calls in percent."""
    return 100 * refused(seconds) / max(1, sum(second.offered for second in seconds))


def share(seconds: Sequence[Second], limit: float) -> float:
    """Return accepted calls in percent of what the limit allows in that time."""
    return 100 * sum(second.accepted for second in seconds) / max(1, len(seconds)) / limit

"""What a measurement has shown, for people: tables, sentences, and a drawing in SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import log10
from typing import Any, Final

from msgspec import Struct, to_builtins

from harvester.bench.counting import Counting
from harvester.bench.diagnosis import Diagnosis, Work
from harvester.bench.offering import Step
from harvester.errors import Exit
from harvester.escape import in_html

FIELDS: Final = ("offered", "accepted", "refused", "failed", "p50", "p90", "p99", "longest")

ABOVE: Final = 1.02  # of what a gateway grants; `rate_limit` should not be more
WIDTH, HEIGHT = 420.0, 230.0  # of one chart, in pixels
LEFT, TOP, GAP = 60.0, 70.0, 80.0
_RATES: Final = (("accepted", "#0a7d4f"), ("refused", "#c22f2f"))
_LATENCIES: Final = (("p50", "#1f5fa8"), ("p90", "#8a5a00"), ("p99", "#c22f2f"))
_MILLI: Final = 1e3


class Report(Struct, frozen=True, kw_only=True):
    """What a measurement has shown.

    ``limit`` is the rate that the gateway grants as far as it was seen, in calls a second, ``granted`` what the job
    file says; ``efficiency`` what the short harvest got, over the first of the two that is known. ``exit`` is
    ``Exit.OK`` unless nothing could be measured, ``failures`` counts calls that brought neither page nor refusal.
    """

    dataset: str
    address: str
    own: bool
    steps: tuple[Step, ...]
    counting: Counting
    granted: float | None
    work: Work | None
    diagnosis: Diagnosis | None
    calls: int
    exit: Exit = Exit.OK
    message: str = ""
    hint: str = ""
    failures: dict[str, int] = {}

    @property
    def limit(self) -> float | None:
        """The rate that the gateway grants, as far as it was seen."""
        return self.counting.limit

    @property
    def efficiency(self) -> float | None:
        """Accepted calls a second of the short harvest, over the limit."""
        limit = self.limit or self.granted
        return None if limit is None or self.work is None else self.work.rate / limit


def content(report: Report) -> dict[str, Any]:
    """Return everything for machines, with what follows from it."""
    found: dict[str, Any] = to_builtins(report)
    found["counting"]["words"] = report.counting.words
    return {**found, "limit": report.limit, "efficiency": report.efficiency, "sentence": sentence(report)}


def table(report: Report) -> list[list[str]]:
    """Return the steps as rows of cells under a heading; rates in calls a second, latencies in milliseconds."""
    units = ("/s",) * 4 + (" ms",) * 4
    rows = [[field + unit for field, unit in zip(FIELDS, units, strict=True)]]
    rows += [
        [
            *(f"{getattr(step, field):,.1f}" for field in FIELDS[:4]),
            *(_ms(getattr(step, field)) for field in FIELDS[4:]),
        ]
        for step in report.steps
    ]
    return rows


def facts(report: Report) -> list[list[str]]:
    """Return what was found out as rows of a name and its value."""
    counting, work, diagnosis = report.counting, report.work, report.diagnosis
    rows = [["limit", _limit(report)]]
    if report.own:
        rows.append(["counts by", _counting(report)])
    if work is not None and diagnosis is not None:
        rows.append(
            ["harvest", f"{work.rate:,.1f} pages/s with {work.workers:,} calls in flight, {work.refused:,} refused"]
        )
        if report.efficiency is not None:
            whose = "the limit" if counting.limit else "`rate_limit`"
            rows.append(["efficiency", f"{report.efficiency:.1%} of {whose}"])
        shares = sorted(diagnosis.shares.items(), key=lambda item: -item[1])
        rows.append(["workers' time", ", ".join(f"{stage} {share:.1%}" for stage, share in shares)])
    if report.failures:
        rows.append(["failed", "; ".join(f"{count:,} times: {why}" for why, count in report.failures.items())])
    return rows


def sentence(report: Report) -> str:
    """Return what is the bottleneck and what to change."""
    if report.diagnosis is None:
        return ""
    if report.limit and report.granted and report.granted > ABOVE * report.limit:
        return (
            f"`rate_limit` of {report.granted:,.4g} calls/s is the bottleneck, for the gateway grants only "
            f"{report.limit:,.4g}: lower it to that, so that a run need not find out by being refused"
        )
    return report.diagnosis.sentence


def _limit(report: Report) -> str:
    if not report.own:
        return f"not observed: offered no more than the {report.granted or 0:,.4g} calls/s of `rate_limit`"
    if report.counting.limit is None:
        most = max((step.accepted for step in report.steps), default=0.0)
        return f"none up to {most:,.1f} calls/s" if report.counting.kind == "none" else report.counting.remark
    return f"{report.counting.limit:,.1f} calls/s"


def _counting(report: Report) -> str:
    counting = report.counting
    parts = [counting.words]
    if counting.window is not None:
        parts.append(f"{counting.window:,.3g} s long")
    if counting.depth is not None:
        parts.append(f"{counting.depth:,} calls {'deep' if counting.kind == 'bucket' else 'in it'}")
    if counting.remark:
        parts.append(counting.remark)
    return ", ".join(parts)


def _ms(seconds: float) -> str:
    return f"{seconds * _MILLI:,.1f}"


# The drawing


def svg(report: Report) -> str:
    """Draw accepted and refused calls, and latencies, against the offered rate."""
    steps = sorted(report.steps, key=lambda step: step.offered)
    width, height = LEFT + 2 * (WIDTH + GAP), TOP + HEIGHT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">',
        '<g font-family="system-ui,sans-serif" font-size="11">',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        f'<text x="{LEFT:g}" y="20" font-size="14">{in_html(report.dataset)}, {in_html(report.address)}</text>',
        f'<text x="{LEFT:g}" y="40" fill="#444">{in_html(_limit(report))}; {in_html(sentence(report))}</text>',
    ]
    if steps:
        far = 1.05 * max(step.offered for step in steps)
        parts += _chart(LEFT, steps, _RATES, far, far, "calls/s", report.limit)
        longest = 1.05 * _MILLI * max(1e-6, *(step.p99 for step in steps))
        parts += _chart(LEFT + WIDTH + GAP, steps, _LATENCIES, far, longest, "ms", None)
    return "\n".join([*parts, "</g></svg>\n"])


def _chart(
    left: float,
    steps: Sequence[Step],
    series: Iterable[tuple[str, str]],
    far: float,
    high: float,
    unit: str,
    limit: float | None,
) -> Iterator[str]:
    scale = _MILLI if unit == "ms" else 1.0

    def across(value: float) -> str:
        return f"{WIDTH * value / far:.1f}"

    def down(value: float) -> str:
        return f"{HEIGHT * (1 - value / high):.1f}"

    yield f'<g transform="translate({left:g} {TOP:g})">'
    yield f'<path d="M0 0V{HEIGHT:g}H{WIDTH:g}" fill="none" stroke="#bbb"/>'
    for value in _ticks(far):
        yield f'<text x="{across(value)}" y="{HEIGHT + 16:g}" text-anchor="middle">{value:,g}</text>'
    for value in _ticks(high):
        yield f'<path d="M0 {down(value)}H{WIDTH:g}" stroke="#eee"/>'
        yield f'<text x="-6" y="{down(value)}" dy="4" text-anchor="end">{value:,g}</text>'
    yield f'<text x="{WIDTH:g}" y="{HEIGHT + 32:g}" text-anchor="end">offered, calls/s</text>'
    if limit is not None:
        yield f'<path d="M{across(limit)} 0V{HEIGHT:g}" stroke="#444" stroke-dasharray="3 3"/>'
        yield f'<text x="{across(limit)}" y="-4" text-anchor="middle">limit</text>'
    for number, (name, colour) in enumerate(series):
        points = [(across(step.offered), down(getattr(step, name) * scale)) for step in steps]
        line = " ".join(f"{x},{y}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        for x, y in points:
            yield f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'
        yield f'<text x="{8 + 90 * number}" y="{HEIGHT + 48:g}" fill="{colour}">{name}, {unit}</text>'
    yield "</g>"


def _ticks(most: float) -> list[float]:
    """Return up to five round values above 0."""
    power = 10.0 ** int(log10(most) // 1)
    step = next(power * part for part in (0.2, 0.5, 1.0, 2.0) if most / (power * part) < 6)  # noqa: PLR2004
    return [step * number for number in range(1, int(most / step) + 1)]

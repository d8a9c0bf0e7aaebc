"""Horizontal bars on a logarithmic scale in one SVG. Pure; no library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, BAR, GAP = 560, 16, 8  # of the scale, a bar, and between two, in pixels
LEFT, TOP, RIGHT = 170, 64, 90
COLOURS = {"default": "#8fb8a6", "best": "#0a7d4f", "limit": "#8a8a8a"}


class Bar(NamedTuple):
    """A name, one of the kinds that have colours, a median, and the lowest and the highest of what was measured."""

    name: str
    kind: str
    median: float
    low: float
    high: float


def svg(bars: Sequence[Bar], heading: str) -> str:
    """Draw the bars from top to bottom, with whiskers from the lowest to the highest."""
    first, last = floor(log10(min(bar.low for bar in bars))), ceil(log10(max(bar.high for bar in bars)))

    def x(value: float) -> float:
        return round(LEFT + WIDTH * (log10(value) - first) / max(1, last - first), 1)

    height = TOP + len(bars) * (BAR + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}">',
        '<g font-family="system-ui,sans-serif" font-size="11">',
        f'<rect width="{LEFT + WIDTH + RIGHT}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="14">{escape(heading)}</text>',
    ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        left = LEFT + 90 * number
        parts.append(f'<rect x="{left}" y="34" width="12" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18}" y="43">{kind}</text>')
    for power in range(first, last + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at} {TOP - 6}V{height - 24}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{height - 10}" text-anchor="middle">{10.0**power:,.0f}</text>')
    for number, bar in enumerate(bars):
        y = TOP + number * (BAR + GAP)
        middle = y + BAR / 2
        parts += [
            f'<text x="{LEFT - 8}" y="{y + BAR - 4}" text-anchor="end">{escape(bar.name)}</text>',
            f'<path d="M{LEFT} {middle}H{x(bar.median)}" stroke="{COLOURS[bar.kind]}" stroke-width="{BAR}"/>',
            f'<path d="M{x(bar.low)} {middle}H{x(bar.high)}" stroke="#333" stroke-width="1.4"/>',
            f'<text x="{x(bar.high) + 6}" y="{y + BAR - 4}">{bar.median:,.0f}</text>',
        ]
    return "\n".join([*parts, "</g></svg>\n"])

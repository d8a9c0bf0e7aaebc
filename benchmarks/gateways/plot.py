"""Small charts in one SVG: calls offered, accepted and refused per second. Pure; no library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from finding import Chart

WIDTH, HEIGHT = 300, 150  # of one chart, in pixels
LEFT, TOP, GAP = 44, 70, 56
SERIES = (("offered", "#8a8a8a"), ("accepted", "#0a7d4f"), ("refused", "#c22f2f"))


def svg(charts: Sequence[Chart], heading: str, columns: int = 3) -> str:
    """Draw the charts in rows; every chart has an axis of its own, which begins at zero."""
    rows = -(-len(charts) // columns)
    width, height = LEFT + columns * (WIDTH + GAP), TOP + rows * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        '<g font-family="system-ui,sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(heading)}</text>',
    ]
    for number, (name, colour) in enumerate(SERIES):
        x = LEFT + 90 * number
        parts.append(
            f'<path d="M{x} 36h18" stroke="{colour}" stroke-width="2"/><text x="{x + 24}" y="40">{name}</text>'
        )
    x = LEFT + 90 * len(SERIES)
    parts.append(f'<path d="M{x} 36h18" stroke="#444" stroke-dasharray="3 3"/><text x="{x + 24}" y="40">limit</text>')
    for number, chart in enumerate(charts):
        x, y = LEFT + number % columns * (WIDTH + GAP), TOP + number // columns * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">{_chart(chart)}</g>')
    return "\n".join([*parts, "</g></svg>\n"])


def _chart(chart: Chart) -> str:
    top = 1.05 * max([chart.limit, *(second.offered for second in chart.seconds)])
    step = WIDTH / max(1, len(chart.seconds) - 1)

    def level(value: float) -> float:
        return round(HEIGHT * (1 - value / top), 1)

    lines = [
        f'<text y="-6">{escape(chart.title)}</text><path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#bbb"/>',
        f'<path d="M0 {level(chart.limit)}H{WIDTH}" stroke="#444" stroke-dasharray="3 3"/>',
        f'<text x="-6" y="{level(chart.limit) + 4}" text-anchor="end">{chart.limit:g}</text>',
        f'<text x="-6" y="{HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{len(chart.seconds)} s</text>',
    ]
    for name, colour in SERIES:
        points = " ".join(
            f"{number * step:.1f},{level(getattr(second, name))}" for number, second in enumerate(chart.seconds)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return "".join(lines)

"""Lines for people: one after the other on standard error, or as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from harvester.escape import safe


def say(text: str) -> None:
    """Print words for people."""
    for line in text.split("\n"):
        click.echo(safe(line), err=True)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align cells in columns by the width they take on a terminal, Chinese characters counted as two."""
    from rich.cells import cell_len  # noqa: PLC0415 - not needed by every command

    table = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)] if table else []
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]

"""What became of a run, and the same as one HTML page: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from harvester.errors import Exit
from harvester.escape import in_html
from harvester.outlook import Outlook

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid #ccc;padding:.4rem .6rem;text-align:left;"
    "vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}.good{color:#06603a}.bad{color:#a01818}"
    "small{color:#555}"
)
_COLUMNS: Final = ("dataset", "verdict", "why", "rows", "pages", "calls", "refused", "retried", "snapshot")


class DatasetResult(Struct, frozen=True, kw_only=True):
    """What became of one dataset; ``rows`` and ``pages`` are of its snapshot, ``calls`` of this run.

    ``why`` says what keeps the verdict from being better, or why the dataset is not finished. ``outlook`` is what a
    plan found.
    """

    name: str
    exit: Exit
    verdict: str = ""
    why: str = ""
    hint: str = ""
    rows: int = 0
    pages: int = 0
    calls: int = 0
    refused: int = 0
    retried: int = 0
    snapshot: str = ""
    published: bool = False
    outlook: Outlook | None = None


class Result(Struct, frozen=True, kw_only=True):
    """What became of a run; ``path`` is its folder under ``runs``, times are ISO 8601 in UTC."""

    exit: Exit
    path: str
    began: str
    ended: str
    datasets: tuple[DatasetResult, ...]


def render(result: Result) -> str:
    """Return the page."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = "".join(map(_row, result.datasets))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>harvester: report of a run</title>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style></head><body><h1>Report of a run</h1>"
        f"<p>{in_html(result.began)} to {in_html(result.ended)}, exit code {int(result.exit)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "<p><small>“likely” and “proven” hold under the assumptions in each snapshot's datapackage.json. "
        "Calls, refused and retried are of this run; rows and pages of the snapshot.</small></p></body></html>\n"
    )


def _row(entry: DatasetResult) -> str:
    kind = "good" if entry.exit is Exit.OK else "bad"
    why = in_html(entry.why) + (f"<br><small>{in_html(entry.hint)}</small>" if entry.hint else "")
    numbers = (entry.rows, entry.pages, entry.calls, entry.refused, entry.retried)
    cells = "".join(f'<td class="n">{number:,}</td>' for number in numbers)
    verdict = in_html(entry.verdict or "not finished")
    return (
        f'<tr><td>{in_html(entry.name)}</td><td class="{kind}">{verdict}</td><td>{why}</td>{cells}'
        f"<td>{in_html(entry.snapshot)}</td></tr>"
    )

"""Portals that answer by script on loopback, and jobs that mirror them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from harvester.certificate import Certificate, recorded
from harvester.job import Job
from harvester.report import Result

Script = Callable[[int, int], web.Response | Awaitable[web.Response]]
"""From page number and how often it was asked for (from 1) to an answer."""


def rows_of(page: int, count: int = 20) -> list[dict[str, str]]:
    """Return the rows of a scripted page."""
    return [{"ID": f"{page}-{row}"} for row in range(count)]


def good(page: int, count: int = 20) -> web.Response:
    """Return a page as Wuhan's platform sends it."""
    return reply({"errcode": 0, "data": {"pageNo": page, "pageSize": 20, "data": rows_of(page, count)}})


def reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.json_response(body, status=status, headers=headers)


EMPTY: Final = {"errcode": "0", "data": {"data": []}}


class Portal:
    """A Wuhan interface that answers by script and counts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: Counter[int] = Counter()
        self.nonces: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one call."""
        self.nonces.append(request.headers["x-tif-nonce"])
        query = (await request.json())["query"]
        self.queries.append(query)
        page = int(query.get("pageNo", 1))  # an unpaged interface has one
        self.asked[page] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self.script(page, self.asked[page])
            return answer if isinstance(answer, web.Response) else await answer
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def portal(script: Script) -> AsyncIterator[tuple[Portal, str]]:
    """Serve a script on loopback; yields the portal and its address."""
    served = Portal(script)
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield served, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def job_for(tmp_path: Path, url: str, *, run: str = "", datasets: str = "", limit: object = '"none"') -> Job:
    """Return a job with one Wuhan dataset ``d`` at that address."""
    (tmp_path / "token").write_text("a-token")
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "job.toml"
    path.write_text(
        f'[apps.wuhan]\nplatform = "wuhan"\npassid = "id"\ntoken = {{ file = "token" }}\nurl = "{url}"\n'
        f'rate_limit = {limit}\n\n[datasets.d]\nservice = "d"\n{datasets}\n[run]\n{run}\n'
    )
    return Job.load(path, environ={})


def lines(result: Result, name: str) -> list[bytes]:
    """Return the rows of a dataset's snapshot, read from its shards in order."""
    entry = next(entry for entry in result.datasets if entry.name == name)
    return [
        line for part in sorted(Path(entry.snapshot).glob("part-*.jsonl")) for line in part.read_bytes().splitlines()
    ]


def parts(result: Result) -> list[Path]:
    """Return the shards and journals of the first dataset's snapshot."""
    return sorted(Path(result.datasets[0].snapshot).glob("part-*"))


def facts(result: Result, event: str) -> list[dict[str, Any]]:
    """Return the events of that name from the run's log."""
    log = (Path(result.path) / "events.jsonl").read_text().splitlines()
    return [entry for line in log if (entry := json.loads(line))["event"] == event]


def listed(last: int) -> Script:
    """Return the script of a list of so many full pages."""
    return lambda page, _: good(page) if page <= last else reply(EMPTY)


def certificate(result: Result) -> Certificate:
    """Return the certificate of the first dataset's snapshot, as it is recorded there."""
    return recorded((Path(result.datasets[0].snapshot) / "datapackage.json").read_bytes())


def as_served(pages: Mapping[int, int] | range) -> list[bytes]:
    """Return the lines of scripted pages: full ones, or with so many rows each."""
    counts = pages if isinstance(pages, Mapping) else dict.fromkeys(pages, 20)
    return [json.dumps(row, separators=(",", ":")).encode() for page in counts for row in rows_of(page, counts[page])]

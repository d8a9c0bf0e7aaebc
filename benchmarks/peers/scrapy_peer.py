"""Contender: Scrapy with a JSON lines feed. A process of its own.

    python scrapy_peer.py --url URL --folder FOLDER [--best] [--resumable]

``start`` yields requests until an empty page was seen, and waits while the engine wants no more: without that, an
endless ``start`` spins. By default every setting as it comes; at best what the pages about broad crawls and asyncio
advise (many requests at once, no cookies, a short log, uvloop). With ``--resumable`` there is a job directory, which is
how the page about jobs has an interrupted crawl go on.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import calls
from job import Job, Pages, told

# In an environment of its own: looked up by name, so that nobody else needs it.
scrapy: Any = importlib.import_module("scrapy")
crawler: Any = importlib.import_module("scrapy.crawler")

BEST = {
    "CONCURRENT_REQUESTS": 100,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 100,
    "LOG_LEVEL": "INFO",
    "COOKIES_ENABLED": False,
    "TELNETCONSOLE_ENABLED": False,
    "ASYNCIO_EVENT_LOOP": "uvloop.Loop",
}


class Sign:
    """Signs each request, also a retried one, when it is on its way to the downloader."""

    def process_request(self, request: Any) -> None:  # noqa: ANN401 - Scrapy is looked up by name
        """Replace the headers of the signature."""
        for name, value in calls.headers().items():
            request.headers[name] = value


class Rows(scrapy.Spider):  # type: ignore[misc]  # Scrapy is looked up by name
    """Asks for pages and yields their rows."""

    name = "rows"

    def __init__(self, *, url: str) -> None:
        super().__init__()
        self._url = url
        self._pages = Pages()

    async def start(self) -> AsyncIterator[Any]:
        """Yield requests until a page was empty, as fast as they can be sent."""
        for page in self._pages:
            if self.crawler.engine.needs_backout():
                await self.crawler.signals.wait_for(scrapy.signals.scheduler_empty)
            yield scrapy.Request(self._url, method="POST", body=calls.body(page))

    def parse(self, response: Any, **_: object) -> Iterator[Any]:  # noqa: ANN401 - as above
        """Yield the rows, or notice the end."""
        rows = json.loads(response.body)["data"]["data"]
        if not rows:
            self._pages.over()
        yield from rows


def settings(job: Job) -> dict[str, Any]:
    """Return the settings of a crawl."""
    own = {"FEEDS": {str(job.rows): {"format": "jsonlines"}}, "DOWNLOADER_MIDDLEWARES": {Sign: 900}}
    return own | (BEST if job.best else {}) | ({"JOBDIR": str(job.folder / "job")} if job.resumable else {})


def main() -> None:
    """Read the arguments and crawl."""
    job = told(__doc__)
    process = crawler.CrawlerProcess(settings(job))
    process.crawl(Rows, url=job.url)
    process.start()


if __name__ == "__main__":
    main()

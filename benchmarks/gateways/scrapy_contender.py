"""Contender: Scrapy with its documented settings for a fixed rate. A process of its own.

    python scrapy_contender.py --url URL --rate 300 --pages 6000 --out rows.jsonl

``DOWNLOAD_DELAY = 1 / rate`` without randomisation and enough concurrency is what Scrapy's documentation offers for a
rate; AutoThrottle follows latency, not a quota. Refusals come with status 200, so they are retried with
``get_retry_request``; a page is given up after ``RETRY_TIMES``.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import calls

# Optional and in an environment of its own: looked up by name, so that nobody else needs it.
scrapy: Any = importlib.import_module("scrapy")
crawler: Any = importlib.import_module("scrapy.crawler")
retry: Any = importlib.import_module("scrapy.downloadermiddlewares.retry")

SETTINGS = {
    "CONCURRENT_REQUESTS": 64,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
    "RANDOMIZE_DOWNLOAD_DELAY": False,
    "RETRY_TIMES": 20,
    "ROBOTSTXT_OBEY": False,
    "COOKIES_ENABLED": False,
    "TELNETCONSOLE_ENABLED": False,
    "LOG_LEVEL": "ERROR",
}


class Sign:
    """Signs each request anew, also a retried one, when it is on its way to the downloader."""

    def process_request(self, request: Any) -> None:  # noqa: ANN401 - Scrapy is looked up by name
        """Replace the headers of the signature."""
        for name, value in calls.headers().items():
            request.headers[name] = value


class Pages(scrapy.Spider):  # type: ignore[misc]  # Scrapy is looked up by name
    """Asks for every page and writes its rows."""

    name = "pages"

    def __init__(self, *, url: str, pages: int, out: Path) -> None:
        super().__init__()
        self._url = url
        self._pages = pages
        self._out = out.open("wb")

    async def start(self) -> AsyncIterator[Any]:
        """Yield a request for every page."""
        for page in range(1, self._pages + 1):
            yield scrapy.Request(self._url, method="POST", body=calls.body(page), dont_filter=True)

    def parse(self, response: Any, **_: object) -> Iterator[Any]:  # noqa: ANN401 - as above
        """Write the rows, or ask again."""
        answer = json.loads(response.body)
        if str(answer["errcode"]) == "0":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in answer["data"]["data"])
            self._out.write("".join(lines).encode())
        elif again := retry.get_retry_request(response.request, spider=self, reason=str(answer["errcode"])):
            yield again

    def closed(self, reason: str) -> None:
        """Close the file."""
        self._out.close()
        self.logger.debug(reason)


def main() -> None:
    """Read the arguments and crawl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    process = crawler.CrawlerProcess(
        SETTINGS | {"DOWNLOAD_DELAY": 1 / options.rate, "DOWNLOADER_MIDDLEWARES": {Sign: 900}}
    )
    process.crawl(Pages, url=options.url, pages=options.pages, out=options.out)
    process.start()


if __name__ == "__main__":
    main()

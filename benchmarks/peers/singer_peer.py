"""Contender: a tap made with singer-sdk whose messages go to a file. A process of its own.

    python singer_peer.py --url URL --folder FOLDER [--best]

A ``RESTStream`` with the SDK's own paginator, which ends at the first empty page. By default every setting as it
comes; at best the message writer that the page about performance advises, made with msgspec. As with ``tap > file``,
a second run begins a new file: a tap has no way of asking this platform for what comes after a bookmark.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import calls
from job import told

# In an environment of its own: looked up by name, so that nobody else needs it.
singer: Any = importlib.import_module("singer_sdk")
pagination: Any = importlib.import_module("singer_sdk.pagination")

TEXT = {"type": ["string", "null"]}


class Companies(singer.RESTStream):  # type: ignore[misc]  # singer-sdk is looked up by name
    """The one stream."""

    name = "companies"
    path = ""
    http_method = "POST"
    records_jsonpath = "$.data.data[*]"
    primary_keys = ("REGNO",)
    schema = {  # noqa: RUF012 - this is how the SDK wants it
        "properties": dict.fromkeys(("REGNO", "ENTNAME", "REGSTATE", "OPFROM"), TEXT)
        | {"REGCAP": {"type": ["number", "null"]}}
    }

    @property
    def url_base(self) -> str:
        """The address."""
        return str(self.config["url"])

    @property
    def http_headers(self) -> dict[str, str]:
        """The headers of one call; the SDK asks anew for every page."""
        return calls.headers()

    def get_new_paginator(self) -> Any:  # noqa: ANN401 - singer-sdk is looked up by name
        """Count pages from one."""
        return pagination.PageNumberPaginator(start_value=1)

    def prepare_request_payload(self, context: object, next_page_token: int) -> dict[str, Any]:  # noqa: ARG002 - the SDK's
        """Return what asks for a page; the SDK makes JSON of it."""
        return {"query": {"pageNo": str(next_page_token)}}


class Tap(singer.Tap):  # type: ignore[misc]  # as above
    """The tap."""

    name = "tap-pages"
    config_jsonschema = {"properties": {"url": {"type": "string"}}}  # noqa: RUF012 - this is how the SDK wants it

    def discover_streams(self) -> Sequence[Any]:
        """Return the one stream."""
        return [Companies(self)]


def main() -> None:
    """Read the arguments and sync, with the file as standard output."""
    job = told(__doc__)
    if job.best:
        Tap.message_writer_class = importlib.import_module("singer_sdk.contrib.msgspec").MsgSpecWriter
    with job.rows.open("wb") as out:
        os.dup2(out.fileno(), 1)
        Tap(config={"url": job.url}).sync_all()


if __name__ == "__main__":
    main()

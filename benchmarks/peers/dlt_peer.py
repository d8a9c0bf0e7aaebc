"""Contender: a dlt pipeline that reads with dlt's RESTClient and loads JSONL files. A process of its own.

    python dlt_peer.py --url URL --folder FOLDER [--best]

By default the client's own paginator, which ends at the first empty page, and every setting as it comes. At best what
the page about performance advises: calls yielded as callables and made in a pool of threads, large buffers, no
compression. The pipeline keeps its working folder, so that a second run finds what the first has left.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import calls
from job import CALLS, Job, Pages, told

BEST = {
    "EXTRACT__WORKERS": "16",
    "EXTRACT__MAX_PARALLEL_ITEMS": str(CALLS),
    "DATA_WRITER__BUFFER_MAX_ITEMS": "50000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}
"""Of dlt's configuration, as environment variables; read when dlt is loaded and later."""


def pipeline(job: Job) -> None:
    """Extract, normalise and load."""
    # In an environment of its own: looked up by name, so that nobody else needs it.
    dlt: Any = importlib.import_module("dlt")
    rest: Any = importlib.import_module("dlt.sources.helpers.rest_client")
    paginators: Any = importlib.import_module("dlt.sources.helpers.rest_client.paginators")
    auth: Any = importlib.import_module("requests.auth")

    class Sign(auth.AuthBase):  # type: ignore[misc]  # requests is looked up by name
        def __call__(self, request: Any) -> Any:  # noqa: ANN401 - as above
            request.headers.update(calls.headers())
            return request

    class Texts(paginators.PageNumberPaginator):  # type: ignore[misc]  # dlt is looked up by name
        """Page numbers as texts, which is how this platform wants them."""

        def update_request(self, request: Any) -> None:  # noqa: ANN401 - as above
            super().update_request(request)
            request.json["query"]["pageNo"] = str(self.current_value)

    client = rest.RESTClient(base_url=job.url, auth=Sign(), data_selector="data.data")

    def paginated() -> Iterator[Any]:
        paginator = Texts(base_page=1, page_body_path="query.pageNo", total_path=None)
        yield from client.paginate("", method="POST", json={"query": {"pageNo": "1"}}, paginator=paginator)

    def parallel() -> Iterator[Callable[[], Any]]:
        pages = Pages()

        def fetch(number: int) -> Any:  # noqa: ANN401 - as above
            rows = client.post("", json={"query": {"pageNo": str(number)}}).json()["data"]["data"]
            if not rows:
                pages.over()
            return rows

        for number in pages:
            yield partial(fetch, number)

    loaded = dlt.pipeline(
        pipeline_name="peers",
        pipelines_dir=str(job.folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=(job.folder / "loaded").as_uri()),
        dataset_name="mirror",
    )
    loaded.run(dlt.resource(parallel if job.best else paginated, name="companies"))


def main() -> None:
    """Read the arguments and run the pipeline."""
    job = told(__doc__)
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # nothing may leave this machine
    os.environ.update(BEST if job.best else {})
    pipeline(job)


if __name__ == "__main__":
    main()

"""The page server of the throughput benchmarks: nginx with Lua on a free loopback port, every page distinct."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import GatewayError, daemon, free_port, listening
from servers import LUA_MODULE, program

PATH = "/ebus/kftp/v1/service/companies"
PAGE = 20  # rows on one


@contextmanager
def page_server(folder: Path, pages: int, workers: int = 1) -> Iterator[str]:
    """Serve so many pages; yields the server's address.

    Raises:
        GatewayError: nginx or its Lua module is not installed, or it did not start.
    """
    nginx = program("nginx")
    if nginx is None or not LUA_MODULE.exists():
        raise GatewayError("the page server needs nginx with Lua: apt install nginx libnginx-mod-http-lua")
    port = free_port()
    values = {
        "folder": str(folder),
        "port": str(port),
        "pages": str(pages),
        "workers": str(workers),
        "user": "user root;" if os.geteuid() == 0 else "",  # workers must reach the private folder
    }
    template = Path(__file__).with_name("nginx.conf").read_text()
    config = folder / "pages.conf"
    config.write_text(re.sub(r"@(folder|port|pages|workers|user)@", lambda match: values[match[1]], template))
    with daemon([nginx, "-c", str(config), "-e", str(folder / "pages.error.log")], folder / "pages.stdout") as process:
        listening(process, ("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"

"""The page server with a log: which pages were asked for, how often, and when."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import server
from processes import GatewayError, daemon, free_port, listening
from servers import LUA_MODULE, program

FORMAT = "log_format call escape=json '$msec $request_body';"  # the page asked for stands in the body
PLACES = re.compile("@(folder|port|pages|workers|user)@")
ASKED = re.compile(r'\\"pageNo\\": ?\\"(\d+)\\"')  # as the server looks for it, with the log's backslashes


@dataclass(frozen=True)
class Served:
    """A running page server, or what it has left."""

    url: str
    log: Path

    def calls(self) -> int:
        """Return the number of answers so far; up to a twentieth of a second behind."""
        return self.log.read_bytes().count(b"\n")

    def seen(self) -> list[tuple[float, int]]:
        """Return Unix time and page of every answer, in order. Complete when the server has ended."""
        found = []
        for line in self.log.read_text().splitlines():
            at, _, body = line.partition(" ")
            asked = ASKED.search(body)
            found.append((float(at), int(asked[1]) if asked else 1))  # the server answers page 1 to what it cannot read
        return found


@contextmanager
def logged_pages(folder: Path, pages: int) -> Iterator[Served]:
    """Serve so many pages, with the configuration of ``pages/nginx.conf`` and a log written in blocks.

    Raises:
        GatewayError: nginx or its Lua module is not installed, or it did not start.
    """
    nginx = program("nginx")
    if nginx is None or not LUA_MODULE.exists():
        raise GatewayError("the page server needs nginx with Lua: apt install nginx libnginx-mod-http-lua")
    folder.mkdir()
    port = free_port()
    values = {"folder": str(folder), "port": str(port), "pages": str(pages), "workers": "1"}
    values["user"] = "user root;" if os.geteuid() == 0 else ""  # workers must reach the private folder
    template = Path(server.__file__).with_name("nginx.conf").read_text()
    if template.count("access_log off;") != 1:
        raise GatewayError("the page server's configuration is not the one that a log can be put into")
    log = folder / "calls.log"
    template = template.replace("access_log off;", f"{FORMAT} access_log {log} call buffer=64k flush=50ms;")
    config = folder / "pages.conf"
    config.write_text(PLACES.sub(lambda match: values[match[1]], template))
    with daemon([nginx, "-c", str(config), "-e", str(folder / "pages.error.log")], folder / "pages.stdout") as process:
        listening(process, ("127.0.0.1", port))
        yield Served(f"http://127.0.0.1:{port}{server.PATH}", log)

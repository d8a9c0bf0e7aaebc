"""Real gateways on free loopback ports, a page server behind them, and the simulator with its own kinds of limits.

Everything a daemon writes lies in one temporary folder; daemons stay in the foreground and end with the block that
started them. A port is found by binding 0; should somebody else take it in between, the daemon cannot bind and the
benchmark stops.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import calls
from measure import PAGE, Arrival, Rate, Second, rate
from processes import GatewayError, daemon, free_port, listening, said, stop

HERE = Path(__file__).parent
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"))
LUA_MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
REFUSAL = '{"errcode":1141,"errmsg":"over the limit","data":{"data":[]}}'
NGINX = {
    "nginx-burst0": "limit_req zone=apps;",
    "nginx-burst5": "limit_req zone=apps burst=5 nodelay;",
    "nginx-burst20": "limit_req zone=apps burst=20 nodelay;",
    "nginx-open": "",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a gateway is to be: its limit per second, the pages behind it, seconds of latency and of jitter."""

    limit: float
    pages: int
    latency: float = 0.0
    jitter: float = 0.0


class Gateway(Protocol):
    """A running gateway."""

    @property
    def url(self) -> str:
        """Where services are called, with a slash at the end."""

    def rate(self, limit: float, window: float) -> Rate:
        """Return what it saw in the first ``window`` seconds after the first call."""


@dataclass(frozen=True)
class Logged:
    """A gateway with an access log of one line a call, and what stands in its folder."""

    url: str
    folder: Path
    log: Path

    def arrivals(self) -> list[Arrival]:
        """Read the log: moment, duration, path and decision of every call, in order of arrival."""
        found = []
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last line may be half written
        for line in whole.splitlines():
            at, took, path, decision = line.split(" ", 3)
            moment = float(at) / 1e6 if "." not in at else float(at) - float(took)
            found.append(Arrival(moment, path, decision in {"REJECTED", "<NOSRV>"}))
        return sorted(found)

    def rate(self, limit: float, window: float) -> Rate:
        """Return what it saw in the first ``window`` seconds after the first call."""
        return rate(self.arrivals(), limit, window)

    def set_limit(self, limit: float) -> None:
        """Change HAProxy's limit from the next call on; below zero refuses everything."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.folder / "haproxy.sock"))
            admin.sendall(f"experimental-mode on; set var proc.limit int({limit:.0f})\n".encode())
            if answer := admin.makefile().read().strip():
                raise GatewayError(f"HAProxy does not change its limit: {answer}")

    def set_latency(self, seconds: float) -> None:
        """Change how long the page server takes for an answer."""
        with socket.socket(socket.AF_UNIX) as pages:
            pages.connect(str(self.folder / "pages.sock"))
            pages.sendall(f"GET /latency?seconds={seconds} HTTP/1.0\r\n\r\n".encode())
            if not (answer := pages.makefile("rb").read()).endswith(b"set\n"):
                raise GatewayError(f"the page server does not change its latency: {answer!r}")


@dataclass(frozen=True)
class Simulated:
    """``harvester simulate``: it counts by itself."""

    url: str
    address: str

    def stats(self) -> dict[str, Any]:
        """Return what it counted."""
        with urllib.request.urlopen(f"{self.address}/_simulator/stats") as answer:  # noqa: S310 - http on loopback
            found: dict[str, Any] = json.load(answer)
        return found

    def rate(self, limit: float, window: float) -> Rate:
        """Return what it counted per second; the peak is exact, the first second is the first that it lists."""
        app = self.stats()["apps"][f"wuhan/{calls.PASSID}"]
        listed = app["per_second"]
        began = listed[0][0] if listed else 0
        inside = {entry[0] - began: Second(*entry[1:4]) for entry in listed if entry[0] - began < window}
        seconds = [inside.get(number, Second(0, 0, 0)) for number in range(round(window))]
        offered = sum(second.offered for second in seconds)
        accepted = sum(second.accepted for second in seconds)
        return Rate(
            offered=offered / window,
            accepted=accepted / window,
            of_limit=100 * accepted / window / limit,
            refused=100 * (1 - accepted / offered) if offered else 0,
            any_second=app["most_calls"],
            first_second=seconds[0].offered,
            seconds=seconds,
        )


def program(name: str) -> str | None:
    """Return where a daemon is installed, also where only root looks."""
    return shutil.which(name, path=SYSTEM_PATH)


def missing() -> dict[str, str]:
    """Return the Debian packages that are not installed, and what is left out without each."""
    wanted = {
        "nginx": (program("nginx"), "the nginx gateways, and the page server: the simulator takes its place"),
        "libnginx-mod-http-lua": (LUA_MODULE.exists(), "the page server with Lua: the simulator takes its place"),
        "haproxy": (program("haproxy"), "the HAProxy gateway, and with it what needs a limit that changes"),
        "faketime": (program("faketime"), "`clock`"),
    }
    return {package: without for package, (there, without) in wanted.items() if not there}


def kinds() -> list[str]:
    """Return the gateways that can be started here."""
    found = list(NGINX) if program("nginx") else []
    if program("haproxy"):
        found.append("haproxy")
    return found + [f"sim-{kind}" for kind in simulator_kinds()]


def simulator_kinds() -> list[str]:
    """Return the simulator's kinds of limits."""
    shown = subprocess.run(
        [sys.executable, "-m", "harvester", "simulate", "--help"], capture_output=True, text=True, check=True
    )
    if "--limit-kind" not in shown.stdout:
        return []
    return ["sliding", "calendar", "first-hit", "weighted", "token:16", "leaky:16", "nginx", "nginx:5"]


@contextmanager
def gateway(kind: str, folder: Path, setting: Setting) -> Iterator[Gateway]:
    """Start a gateway of that kind with its page server; ends them with the block."""
    if kind.startswith("sim-"):
        limit = ["--rate-limit", f"{setting.limit:g}", "--limit-kind", kind.removeprefix("sim-")]
        with (
            simulator(folder, setting.pages, [*limit, "--latency", f"{setting.latency:g}"]) as address,
            way(address, setting.jitter) as url,
        ):
            yield Simulated(url, address)
        return
    with logged(kind, folder, setting) as found:
        yield found


@contextmanager
def logged(kind: str, folder: Path, setting: Setting) -> Iterator[Logged]:
    """Start nginx or HAProxy in front of a page server."""
    with page_server(folder, setting) as upstream:
        port = free_port()
        values = {
            "folder": str(folder),
            "port": str(port),
            "limit": f"{setting.limit:g}",
            "refusal": REFUSAL,
            "upstream": upstream,
            "limit_req": NGINX.get(kind, ""),
        }
        if kind == "haproxy":
            values["upstream"] = upstream.replace("unix:", "unix@")
            config = configured("haproxy.cfg", folder, values)
            log = folder / "gateway.log"
            command = [program("haproxy") or "", "-db", "-f", str(config)]
        else:
            config = configured("nginx.conf", folder, values)
            log = folder / "gateway.stdout"
            command = [program("nginx") or "", "-c", str(config), "-e", str(folder / "gateway.error.log")]
        with daemon(command, log) as process:
            listening(process, ("127.0.0.1", port))
            with way(f"http://127.0.0.1:{port}", setting.jitter) as url:
                yield Logged(url, folder, folder / "gateway.log")


@contextmanager
def page_server(folder: Path, setting: Setting) -> Iterator[str]:
    """Serve pages without a limit; yields the address as nginx writes it."""
    nginx = program("nginx")
    if nginx and LUA_MODULE.exists():
        values = {"folder": str(folder), "pages": str(setting.pages), "latency": f"{setting.latency:g}"}
        config = configured("pages.conf", folder, values)
        command = [nginx, "-c", str(config), "-e", str(folder / "pages.error.log")]
        with daemon(command, folder / "pages.stdout") as process:
            listening(process, str(folder / "pages.sock"))
            yield f"unix:{folder}/pages.sock"
    else:
        with simulator(folder, setting.pages, ["--rate-limit", "none", "--latency", f"{setting.latency:g}"]) as address:
            yield address.removeprefix("http://")


@contextmanager
def simulator(folder: Path, pages: int, options: Sequence[str]) -> Iterator[str]:
    """Run ``harvester simulate``; yields its address."""
    command = [
        sys.executable,
        "-m",
        "harvester",
        "simulate",
        "--platform",
        "wuhan",
        "--rows",
        str(pages * PAGE),
        *options,
    ]
    with daemon(command, folder / "simulator.log") as process:
        yield said(process, folder / "simulator.log", r"http://\S+")


@contextmanager
def way(address: str, jitter: float) -> Iterator[str]:
    """Put the jittering proxy in front of an address, if there is to be jitter; yields where to call."""
    if not jitter:
        yield address + calls.PATH
        return
    command = [sys.executable, str(HERE / "jitter.py"), "--to", address.removeprefix("http://"), "--most", str(jitter)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            yield f"http://127.0.0.1:{int(port)}{calls.PATH}"
        finally:
            stop(process)


def configured(template: str, folder: Path, values: Mapping[str, str]) -> Path:
    """Fill in a template's ``@name@`` places."""
    values = {**values, "user": "user root;" if os.geteuid() == 0 else ""}  # workers must reach the private folder
    text = re.sub(
        r"@(folder|port|limit|refusal|upstream|limit_req|pages|latency|user)@",
        lambda m: values[m[1]],
        (HERE / template).read_text(),
    )
    path = folder / template
    path.write_text(text)
    return path

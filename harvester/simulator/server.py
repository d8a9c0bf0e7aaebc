"""The HTTP side: carries calls to the gatekeepers and their answers back. Listens on loopback only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

import orjson
from aiohttp import web

from harvester.errors import LocalError, UsageError
from harvester.simulator import config as registered
from harvester.simulator import files, jobfile
from harvester.simulator.config import Config
from harvester.simulator.faults import OF_THE_PORT, Fault, Faults, script
from harvester.simulator.gate import Answer, Call, Gate, RegisteredApp, make_quota
from harvester.simulator.generated import DATASETS, GeneratedTable
from harvester.simulator.limits import Limit, ScheduledLimit, Steps, make_limit
from harvester.simulator.sipop import SipopGate
from harvester.simulator.stats import Stats
from harvester.simulator.tables import SimulatedTable
from harvester.simulator.wire import Line, Port, Scripted
from harvester.simulator.wuhan import WuhanGate

WUHAN_PATH: Final = "/ebus/kftp/v1/service/"
SIPOP_PATH: Final = "/dataplatpro/api/route"
STATS_PATH: Final = "/_simulator/stats"
RESET_PATH: Final = "/_simulator/reset"

JSON_TYPE: Final = "application/json;charset=UTF-8"
PROXY_CLOCK_ERROR: Final = -3600.0  # seconds by which the date of a proxy's error page is wrong
GRACE: Final = 0.1  # seconds that calls in flight get when the server stops


class Simulator:
    """Both platforms on one loopback port, from ``async with`` to its end.

    Attributes:
        url: ``http://127.0.0.1:PORT``, the address that is really bound, without a slash at the end.
        tables: what is served, by platform and then by the interface's or method's name; the truth for a test, where
            no quirks touch it (see ``current_rows``).
        stats: what was counted so far.
        config: the settings it was made with.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.stats = Stats()
        self.tables: Mapping[str, Mapping[str, SimulatedTable]] = {}
        self.url = ""
        self._gates: dict[str, Gate] = {}
        self._server: web.Server | None = None
        self._port: Port | None = None
        self._date = (0, "")
        self._latency = Steps(self.config.latency, self.config.latency_schedule)
        self._jitter = Random(f"{self.config.seed} jitter")  # noqa: S311 - to be repeatable
        self._proxy = Random(f"{self.config.seed} proxy")  # noqa: S311 - as above
        self._faults = Faults(self.config.faults, self.config.seed)
        self._line = Line(self.config.bandwidth) if self.config.bandwidth else None
        self._slow = bool(self.config.latency or self.config.latency_schedule or self.config.slow_pages)

    async def __aenter__(self) -> Self:
        """Load or generate the tables and listen.

        Raises:
            UsageError: the data file cannot be served, or quirks are set for a dataset that there is not.
            LocalError: the port cannot be had.
        """
        config = self.config
        self.tables = await asyncio.to_thread(_tables, config)
        names = {name for tables in self.tables.values() for name in tables}
        if unknown := config.quirks.keys() - names - {""}:
            raise UsageError(
                f"cannot simulate quirks of {', '.join(sorted(unknown))}: nothing of that name is served",
                hint=f"there are {', '.join(sorted(names))}",
            )
        self._gates = {platform: self._gate(platform) for platform in config.platforms}
        # Who has left gets no further bytes of an answer that goes wrong.
        server = web.Server(self._handle, access_log=None, handler_cancellation=bool(self._faults))
        port = Port(server, config.host, config.port)
        try:
            await port.open()
        except OSError as error:
            raise LocalError(
                f"cannot listen on {config.host} port {config.port}: {error.strerror}",
                hint="leave the port out: any free one is taken then",
            ) from error
        self._server, self._port = server, port
        host, number = port.address
        self.url = f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; calls in flight are dropped."""
        server, port, self._server, self._port = self._server, self._port, None, None
        if server is not None and port is not None:
            try:
                await port.close()
            finally:
                server.pre_shutdown()
                await server.shutdown(GRACE)

    def current_rows(self, platform: str, name: str, size: int | None = None) -> list[bytes]:
        """Return what a walk over all pages of a dataset would bring from now on: the rows that a mirror can hold.

        Changes that are due are made. Rows that no page gives are not among them, and rows of pages that change
        places are; each is JSON in UTF-8 without white space between its tokens, with control characters escaped.

        Args:
            platform: ``wuhan`` or ``sipop``.
            name: the interface's or method's name.
            size: the page size that SIPOP is asked for; None for the one that it was asked for last.
        """
        return self._gates[platform].current_rows(name, size)

    def _gate(self, platform: str) -> Gate:
        config, stats, tables = self.config, self.stats, self.tables[platform]
        if platform == "wuhan":
            accounts = ((registered.WUHAN_PASSID, registered.WUHAN_TOKEN), registered.WUHAN_UNSUBSCRIBED)
        else:
            accounts = ((registered.SIPOP_APP_KEY, registered.SIPOP_APP_SECRET), registered.SIPOP_UNSUBSCRIBED)
        apps = {}
        for (name, secret), subscribed in zip(accounts, (True, False), strict=True):
            counts = stats.app(f"{platform}/{name}")
            quota = make_quota(config.quota) if config.quota else None
            if quota:
                counts.quota_used = quota.used
            apps[name] = RegisteredApp(
                id=name, secret=secret, subscribed=subscribed, limit=self._limit(), quota=quota, stats=counts
            )
        if platform == "wuhan":
            return WuhanGate(apps, tables, stats, config.quirks, config.seed)
        return SipopGate(apps, tables, stats, quirks=config.quirks, seed=config.seed, digest=config.sipop_digest)

    def _limit(self) -> Limit | None:
        config = self.config
        if config.rate_limit is None:
            return None
        make = partial(make_limit, config.limit_kind, phase=config.clock() - config.timer())
        if config.schedule:
            return ScheduledLimit(make, config.rate_limit, config.schedule)
        return make(config.rate_limit)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        config = self.config
        path = request.raw_path.partition("?")[0]
        platform, service = _route(path)
        gate = self._gates.get(platform)
        if gate is None:
            return self._control(request.method, path, config.clock())
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST", "Date": self._http_date(config.clock())})
        sent = await request.read()
        fault = self._faults.draw(config.timer()) if self._faults else None
        if config.jitter:
            await asyncio.sleep(self._jitter.uniform(0.0, config.jitter))
        tick, now = config.timer(), config.clock()
        if config.proxy_errors and self._proxy.random() < config.proxy_errors:
            return self._proxy_error(now)
        early = fault is not None and fault.early
        answer = Answer(b"") if early else gate.answer(Call(service, request.headers, sent, now, tick))
        if self._slow:
            await asyncio.sleep(self._latency.at(tick) + config.slow_pages * answer.page / 1000)
            now = config.clock()
        if fault is not None:
            return self._fail(fault, answer.body, now, tick)
        if answer.over_limit and config.refuse_with == "429":
            return self._too_many(now)
        headers = {"Content-Type": answer.content_type or JSON_TYPE, "Date": self._http_date(now)}
        if self._line is not None:
            return await self._line.send(request, web.StreamResponse(headers=headers), answer.body)
        return web.Response(body=answer.body, headers=headers)

    def _fail(self, fault: Fault, body: bytes, now: float, tick: float) -> web.StreamResponse:
        self.stats.faults[fault.kind] += 1
        if fault.kind in OF_THE_PORT and self._port is not None:
            wait = self._faults.shut_until(fault, tick) - tick
            self._port.shut(asyncio.get_running_loop().time() + wait, drop=fault.kind == "restart")
        return Scripted(script(fault.kind, body, self._http_date(now)))

    def _proxy_error(self, now: float) -> web.Response:
        self.stats.proxy_errors += 1
        headers = {"Content-Type": "text/html", "Date": formatdate(now + PROXY_CLOCK_ERROR, usegmt=True)}
        return web.Response(status=502, body=b"<html><body><h1>502 Bad Gateway</h1></body></html>", headers=headers)

    def _too_many(self, now: float) -> web.Response:
        headers = {"Content-Type": JSON_TYPE, "Date": self._http_date(now)}
        form, _, seconds = self.config.retry_after.rpartition(":")
        if seconds:
            headers["Retry-After"] = formatdate(now + int(seconds), usegmt=True) if form else seconds
        return web.Response(status=429, body=b'{"message":"too many requests"}', headers=headers)

    def _control(self, method: str, path: str, now: float) -> web.Response:
        headers = {"Content-Type": JSON_TYPE, "Date": self._http_date(now)}
        if (method, path) == ("GET", STATS_PATH):
            return web.Response(
                body=orjson.dumps(self.stats.as_dict(), option=orjson.OPT_NON_STR_KEYS), headers=headers
            )
        if (method, path) == ("POST", RESET_PATH):
            self.stats.clear()
            return web.Response(body=b"{}", headers=headers)
        return web.Response(status=404, body=b'{"error":"nothing is served here"}', headers=headers)

    def _http_date(self, now: float) -> str:
        second = int(now)
        if self._date[0] != second:
            self._date = second, formatdate(second, usegmt=True)
        return self._date[1]


async def serve(config: Config, write_job: Path | None, ready: Callable[[Simulator], None]) -> None:
    """Run a simulator until cancelled.

    Args:
        config: what to simulate.
        write_job: where to write a job file that mirrors everything served, or None.
        ready: called once calls are answered and the job file is there.

    Raises:
        UsageError: the data file cannot be served.
        LocalError: the port cannot be had, or the job file not be written.
    """
    async with Simulator(config) as simulator:
        if write_job is not None:
            await asyncio.to_thread(jobfile.write, write_job, simulator.url, config.rate_limit, simulator.tables)
        ready(simulator)
        await asyncio.Event().wait()


def _tables(config: Config) -> dict[str, dict[str, SimulatedTable]]:
    if config.data is not None:
        table = files.load(config.data)
        return {platform: {files.dataset_name(config.data): table} for platform in config.platforms}
    return {
        platform: {name: GeneratedTable(kind, config.rows, config.seed) for name, kind in DATASETS[platform].items()}
        for platform in config.platforms
    }


def _route(path: str) -> tuple[str, str]:
    """Return the platform that a path belongs to and what follows its address; empty texts if none."""
    if path.startswith(WUHAN_PATH):
        return "wuhan", path.removeprefix(WUHAN_PATH)
    return ("sipop", "") if path == SIPOP_PATH else ("", "")

"""The simulator over HTTP: both platforms, its own two addresses, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
import tomllib
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from harvester.errors import LocalError, UsageError
from harvester.simulator import (
    SIPOP_APP_KEY,
    SIPOP_APP_SECRET,
    SIPOP_UNSUBSCRIBED,
    WUHAN_PASSID,
    WUHAN_TOKEN,
    WUHAN_UNSUBSCRIBED,
    Config,
    Simulator,
    serve,
)

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


async def wuhan(
    simulator: Simulator, page: int, service: str = "companies", app: tuple[str, str] = (WUHAN_PASSID, WUHAN_TOKEN)
) -> Any:  # noqa: ANN401 - a parsed answer
    """Ask for a page of a Wuhan interface."""
    stamp, nonce = str(int(simulator.config.clock())), str(uuid4())
    headers = {
        "Accept": "application/json",
        "x-tif-passid": app[0],
        "x-tif-timestamp": stamp,
        "x-tif-nonce": nonce,
        "x-tif-signature": hashlib.sha256(f"{stamp}{app[1]}{nonce}{stamp}".encode()).hexdigest(),
    }
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(
            f"{simulator.url}/ebus/kftp/v1/service/{service}", json={"query": {"pageNo": str(page)}}
        ) as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
        return await response.json()


async def sipop(
    simulator: Simulator,
    page: int,
    method: str = "patent.search",
    app: tuple[str, str] = (SIPOP_APP_KEY, SIPOP_APP_SECRET),
) -> Any:  # noqa: ANN401 - a parsed answer
    """Ask for a page of a SIPOP method."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(simulator.config.clock() + 8 * 3600))
    param = f'{{"pageNum":{page},"pageSize":20}}'
    form = {
        "appKey": app[0],
        "method": method,
        "param": param,
        "timestamp": stamp,
        "v": "1.0",
        "sign": hashlib.md5(f"{stamp}{param}{app[1]}".encode()).hexdigest(),  # noqa: S324 - the platform's choice
    }
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{simulator.url}/dataplatpro/api/route", data=form) as response,
    ):
        assert response.status == 200
        return await response.json()


async def test_every_dataset_is_answered_from_its_table() -> None:
    """The tables are the truth: what comes over HTTP is what they hold."""
    async with Simulator(Config(rows=45)) as simulator:
        for ask, platform in ((wuhan, "wuhan"), (sipop, "sipop")):
            for name, table in simulator.tables[platform].items():
                answer = await ask(simulator, 3, name)
                rows = answer["data"]["data"] if platform == "wuhan" else answer["data"]
                assert len(rows) == 5
                assert rows == [json.loads(table.row_bytes(index)) for index in range(40, 45)]


async def test_unsubscribed_apps_get_no_permission() -> None:
    """They are registered, so it is not the signature."""
    async with Simulator() as simulator:
        assert (await wuhan(simulator, 1, app=WUHAN_UNSUBSCRIBED))["errcode"] == 1403
        assert (await sipop(simulator, 1, app=SIPOP_UNSUBSCRIBED))["code"] == "1006"


async def test_stats_are_told_and_zeroed() -> None:
    """What was asked shows in the answer as in the object; a reset zeroes it but forgets no nonce."""
    async with Simulator(Config(rate_limit=1, timer=lambda: 0.0)) as simulator, aiohttp.ClientSession() as client:
        await wuhan(simulator, 1)
        await wuhan(simulator, 2)
        await sipop(simulator, 1)
        async with client.get(f"{simulator.url}/_simulator/stats") as response:
            told = await response.json()
        assert (told["calls"], told["accepted"], told["refused"]) == (3, 2, {"1141": 1})
        assert told["pages"] == {"wuhan/companies": {"1": 1}, "sipop/patent.search": {"1": 1}}
        assert told["apps"]["wuhan/sim-passid"]["most_calls"] == 2
        async with client.post(f"{simulator.url}/_simulator/reset") as response:
            assert response.status == 200
        assert simulator.stats.calls == 0
        assert (await wuhan(simulator, 1))["errcode"] == 1141


async def test_date_follows_the_configured_clock() -> None:
    """On every answer, good or bad, so that a client can measure the offset."""
    async with Simulator(Config(clock=lambda: NOW)) as simulator, aiohttp.ClientSession() as client:
        assert (await wuhan(simulator, 1))["errcode"] == 0
        for method, path, status in (
            ("POST", "/ebus/kftp/v1/service/companies?x=1", 200),
            ("POST", "/dataplatpro/api/route", 200),
            ("GET", "/dataplatpro/api/route", 405),
            ("GET", "/_simulator/stats", 200),
            ("GET", "/_simulator/reset", 404),
            ("POST", "/", 404),
        ):
            async with client.request(method, f"{simulator.url}{path}") as response:
                assert response.status == status
                assert parsedate_to_datetime(response.headers["Date"]).timestamp() == NOW


async def test_url_names_the_bound_address() -> None:
    """A host name is resolved; the address answers."""
    async with Simulator(Config(host="localhost")) as simulator:
        assert simulator.url.startswith(("http://127.0.0.1:", "http://[::1]:"))
        assert (await wuhan(simulator, 1))["errcode"] == 0


async def test_one_platform_alone() -> None:
    """The other's address is then nothing."""
    async with Simulator(Config(platforms=("sipop",))) as simulator, aiohttp.ClientSession() as client:
        assert (await sipop(simulator, 1))["code"] == "1000"
        async with client.post(f"{simulator.url}/ebus/kftp/v1/service/companies") as response:
            assert response.status == 404


async def test_latency_is_added_to_an_answer() -> None:
    """The call is judged on arrival and answered later."""
    async with Simulator(Config(latency=0.05)) as simulator:
        start = time.monotonic()
        assert (await wuhan(simulator, 1))["errcode"] == 0
        assert time.monotonic() - start >= 0.05


async def test_stop_does_not_wait_for_calls_in_flight() -> None:
    """A long latency is cut short when the simulator ends."""
    async with Simulator(Config(latency=60)) as simulator:
        pending = asyncio.create_task(wuhan(simulator, 1))
        while not simulator.stats.accepted:  # noqa: ASYNC110 - the simulator tells nobody when it has judged
            await asyncio.sleep(0.001)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    with pytest.raises(aiohttp.ClientError):
        await pending


async def test_data_file_is_served_through_both_platforms(tmp_path: Path) -> None:
    """One table, named after the file, instead of the generated ones."""
    path = tmp_path / "flights.csv"
    path.write_text("carrier,delay\nUA,02\nAA,\n")
    async with Simulator(Config(data=path)) as simulator:
        rows = [{"carrier": "UA", "delay": "02"}, {"carrier": "AA", "delay": ""}]
        assert (await wuhan(simulator, 1, "flights"))["data"]["data"] == rows
        assert (await sipop(simulator, 1, "flights"))["data"] == rows
        assert (await wuhan(simulator, 1, "companies"))["errcode"] == 100101
    with pytest.raises(UsageError):
        await Simulator(Config(data=tmp_path / "absent.csv")).__aenter__()


async def test_port_in_use_is_said() -> None:
    """The message names the port; the simulator can be entered again afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port}"):
            await Simulator(Config(port=port)).__aenter__()


async def test_serve_runs_until_cancelled(tmp_path: Path) -> None:
    """The job file is there when the caller is told; the port is free after the end."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    job = tmp_path / "job.toml"

    def ready(simulator: Simulator) -> None:
        assert tomllib.loads(job.read_text())["apps"]["sipop"]["url"].startswith(simulator.url)
        told.set_result(simulator.url)

    task = asyncio.create_task(serve(Config(), job, ready))
    url = await asyncio.wait_for(told, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_call_without_the_rest_of_its_body_harms_nobody() -> None:
    """A client that goes away in mid-call leaves no trace."""
    async with Simulator() as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        writer.write(b"POST /dataplatpro/api/route HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nappKey")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert not await reader.read()
        assert (await sipop(simulator, 1))["code"] == "1000"
        assert simulator.stats.calls == 1

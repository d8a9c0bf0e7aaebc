"""The simulator over HTTP: both platforms, its own two addresses, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
import tomllib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from typing import Any, get_args
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
    Change,
    Config,
    Quirks,
    SimulatedTable,
    Simulator,
    serve,
)
from harvester.simulator.quirks import Body

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


@dataclass
class Page:
    """One answer as it came."""

    body: bytes
    content_type: str

    @property
    def text(self) -> str:
        """The text, read with the help of what the test knows."""
        known = "gb18030" if "GB" in self.content_type or self.content_type == "application/json" else "utf-8-sig"
        return self.body.decode(known)


async def page_of(simulator: Simulator, platform: str, name: str, number: int) -> Page:
    """Ask for a page, twenty rows long, and take what comes."""
    now = simulator.config.clock()
    if platform == "wuhan":
        stamp, nonce = str(int(now)), str(uuid4())
        headers = {
            "Accept": "application/json",
            "x-tif-passid": WUHAN_PASSID,
            "x-tif-timestamp": stamp,
            "x-tif-nonce": nonce,
            "x-tif-signature": hashlib.sha256(f"{stamp}{WUHAN_TOKEN}{nonce}{stamp}".encode()).hexdigest(),
        }
        sent: dict[str, Any] = {"json": {"query": {"pageNo": str(number)}}, "headers": headers}
        path = f"ebus/kftp/v1/service/{name}"
    else:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now + 8 * 3600))
        param = f'{{"pageNum":{number},"pageSize":20}}'
        sign = hashlib.md5(f"{stamp}{param}{SIPOP_APP_SECRET}".encode()).hexdigest()  # noqa: S324 - the platform's choice
        form = {"appKey": SIPOP_APP_KEY, "method": name, "param": param, "timestamp": stamp, "v": "1.0", "sign": sign}
        sent, path = {"data": form}, "dataplatpro/api/route"
    async with aiohttp.ClientSession() as client, client.post(f"{simulator.url}/{path}", **sent) as response:
        assert response.status == 200
        return Page(await response.read(), response.headers["Content-Type"])


def rows_of(platform: str, page: Page) -> list[Any]:
    """Return the parsed rows of a page, as a reader who is told of nothing finds them."""
    answer = json.loads(page.text, strict=False)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    data = answer["data"]["data"] if platform == "wuhan" else answer["data"]
    data = json.loads(data) if isinstance(data, str) else data
    return data if isinstance(data, list) else [data]


READABLE = [body for body in get_args(Body) if body not in {"html", "invalid"}]


@pytest.mark.parametrize("body", READABLE)
async def test_current_rows_are_what_comes_in_every_form(body: Any) -> None:  # noqa: ANN401 - a Literal
    """Both platforms, the last page with one row only."""
    async with Simulator(Config(rows=41, quirks={"": Quirks(body=body)}, platforms=("wuhan", "sipop"))) as simulator:
        for platform, tables in simulator.tables.items():
            for name in tables:
                pages = [await page_of(simulator, platform, name, number) for number in (1, 2, 3)]
                came = [row for page in pages for row in rows_of(platform, page)]
                kept = simulator.current_rows(platform, name)
                assert came == list(map(json.loads, kept))
                assert min(map(min, kept)) >= ord(" ")
                assert (kept == rows_kept(tables[name])) == (body not in {"control", "surrogates", "nulls"})


def rows_kept(table: SimulatedTable) -> list[bytes]:
    """Return all rows of a table."""
    return [table.row_bytes(index) for index in range(len(table))]


async def test_quirks_belong_to_a_dataset() -> None:
    """Its own, or else those of all; their calls show in the stats."""
    quirks = {"": Quirks(past_end="last"), "investors": Quirks(body="html"), "patent.legal": Quirks(body="invalid")}
    async with Simulator(Config(rows=100, quirks=quirks)) as simulator:
        assert (await wuhan(simulator, 9))["data"]["pageNo"] == 5
        assert (await sipop(simulator, 9))["count"] == 20
        blocked = await page_of(simulator, "wuhan", "investors", 1)
        assert (b"<html>" in blocked.body, blocked.content_type) == (True, "text/html;charset=UTF-8")
        with pytest.raises(UnicodeDecodeError):
            _ = (await page_of(simulator, "sipop", "patent.legal", 5)).text
        assert len(simulator.current_rows("sipop", "patent.legal")) == 80
        assert simulator.stats.refused == {"html": 1}
        async with aiohttp.ClientSession() as client, client.get(f"{simulator.url}/_simulator/stats") as response:
            told = await response.json()
        assert told["beyond"] == {"wuhan/companies": 1, "sipop/patent.search": 1}
        assert told["dataset_calls"]["wuhan/investors"] == 1
        assert told["pages"]["wuhan/companies"] == {"9": 1}
    with pytest.raises(UsageError, match="quirks of companys: nothing of that name") as caught:
        await Simulator(Config(quirks={"companys": Quirks()})).__aenter__()
    assert "companies" in caught.value.hint


async def test_rows_change_while_they_are_read() -> None:
    """By the dataset's own calls, and the current rows tell."""
    quirks = {"companies": Quirks(changes=(Change(2, "delete", "head", 20), Change(3, "append", count=2)))}
    async with Simulator(Config(rows=40, quirks=quirks)) as simulator:
        before = simulator.current_rows("wuhan", "companies")
        await wuhan(simulator, 1)
        await wuhan(simulator, 1, "investors")
        assert simulator.current_rows("wuhan", "companies") == before
        await wuhan(simulator, 1)
        assert simulator.current_rows("wuhan", "companies") == before[20:]
        assert (await wuhan(simulator, 1))["data"]["data"] == list(map(json.loads, before[20:]))
        after = simulator.current_rows("wuhan", "companies")
        assert (after[:20], len(after)) == (before[20:], 22)
        assert rows_kept(simulator.tables["wuhan"]["companies"]) == before


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


async def status_and_headers(simulator: Simulator) -> tuple[int, Any]:
    """Send a call that is signed for Wuhan; return what stands around the body."""
    stamp, nonce = str(int(simulator.config.clock())), str(uuid4())
    headers = {
        "Accept": "application/json",
        "x-tif-passid": WUHAN_PASSID,
        "x-tif-timestamp": stamp,
        "x-tif-nonce": nonce,
        "x-tif-signature": hashlib.sha256(f"{stamp}{WUHAN_TOKEN}{nonce}{stamp}".encode()).hexdigest(),
    }
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(f"{simulator.url}/ebus/kftp/v1/service/companies", json={"query": {"pageNo": "1"}}) as response,
    ):
        await response.read()
        return response.status, response.headers


async def test_rate_and_latency_change_on_schedule() -> None:
    """By the timer, from the first call on; each app has its own schedule of rates."""
    moment = 1000.0
    config = Config(rate_limit=1, schedule=((10, 0), (12, 2)), latency_schedule=((11, 0.05),), timer=lambda: moment)
    async with Simulator(config) as simulator:
        codes = []
        for moment in (1000.0, 1000.5, 1010.0, 1012.0, 1012.0, 1012.0):
            start = time.monotonic()
            codes.append((await wuhan(simulator, 1))["errcode"])
            assert (time.monotonic() - start >= 0.05) >= (moment > 1011)
        assert codes == [0, 1141, 1141, 0, 0, 1141]
        assert (await sipop(simulator, 1))["code"] == "1000"
        assert simulator.stats.apps["wuhan/sim-passid"].per_second == [[0, 2, 1, 1], [10, 1, 0, 1], [12, 3, 2, 1]]


async def test_calendar_seconds_are_the_platforms() -> None:
    """The timer's own seconds do not matter, the clock's do."""
    moment = 7.5
    config = Config(rate_limit=1, limit_kind="calendar", clock=lambda: NOW, timer=lambda: moment)
    async with Simulator(config) as simulator:
        for moment, code in ((7.5, 0), (8.25, 1141), (8.5, 0)):  # the clock showed a full second at 7.5
            assert (await wuhan(simulator, 1))["errcode"] == code, moment


@pytest.mark.parametrize("seed", [1, 2])
async def test_jitter_delays_the_judgement(seed: int) -> None:
    """By what the seed says, and in the order of arrival; the client's own pages of statistics come at once."""
    judged: list[float] = []

    def timer() -> float:
        judged.append(time.monotonic())
        return judged[-1]

    draws = Random(f"{seed} jitter")  # noqa: S311 - the same as the simulator's
    async with Simulator(Config(jitter=0.1, seed=seed, timer=timer)) as simulator:
        for _ in range(2):
            start, delay = time.monotonic(), draws.uniform(0, 0.1)
            assert (await wuhan(simulator, 1))["errcode"] == 0
            assert delay <= judged[-1] - start < delay + 0.1


async def test_deep_pages_are_slow() -> None:
    """Latency grows with the number of the page; a refusal has none."""
    async with Simulator(Config(slow_pages=1.0)) as simulator:
        start = time.monotonic()
        assert (await wuhan(simulator, 50))["errcode"] == 0
        assert (await sipop(simulator, 50))["code"] == "1000"
        assert 0.1 <= time.monotonic() - start < 1
        start = time.monotonic()
        assert (await wuhan(simulator, 5000, "nothing"))["errcode"] == 100101
        assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [("", None), ("3", "3"), ("date:3", "Fri, 15 Jan 2027 08:00:03 GMT")],
)
async def test_limit_can_be_refused_with_a_429(retry_after: str, header: str | None) -> None:
    """With or without a Retry-After, of both forms; counted under the platform's code all the same."""
    config = Config(rate_limit=1, refuse_with="429", retry_after=retry_after, clock=lambda: NOW, timer=lambda: 0.0)
    async with Simulator(config) as simulator:
        assert (await wuhan(simulator, 1))["errcode"] == 0
        status, headers = await status_and_headers(simulator)
        assert (status, headers.get("Retry-After")) == (429, header)
        assert parsedate_to_datetime(headers["Date"]).timestamp() == NOW
        assert simulator.stats.refused == {"1141": 1}
        assert (await wuhan(simulator, 1, app=("nobody", "")))["errcode"] == 1433


async def test_quota_shows_in_the_stats() -> None:
    """By app and service; a reset of the counts does not bring it back."""
    async with Simulator(Config(quota="2/month", clock=lambda: NOW)) as simulator:
        assert [(await sipop(simulator, page))["code"] for page in (1, 2, 3)] == ["1000", "1000", "1008"]
        assert (await sipop(simulator, 1, "patent.legal"))["code"] == "1000"
        simulator.stats.clear()
        assert (await sipop(simulator, 1))["code"] == "1008"
        apps = simulator.stats.as_dict()["apps"]
        assert apps["sipop/sim-app-key"]["quota_used"] == {"patent.search": 2, "patent.legal": 1}
        assert apps["wuhan/sim-passid"]["quota_used"] == {}


async def test_proxy_errors_have_a_wrong_date_and_reach_no_platform() -> None:
    """A share of the calls as the seed has it; the page is no JSON, and no app's counts move."""
    draws = Random("5 proxy")  # noqa: S311 - the same as the simulator's
    lost = [draws.random() < 0.5 for _ in range(12)]
    assert 0 < sum(lost) < 12
    async with Simulator(Config(proxy_errors=0.5, seed=5, clock=lambda: NOW)) as simulator:
        seen = [await status_and_headers(simulator) for _ in range(12)]
        assert [status == 502 for status, _ in seen] == lost
        for status, headers in seen:
            assert (parsedate_to_datetime(headers["Date"]).timestamp() == NOW - 3600) == (status == 502)
            assert (headers["Content-Type"] == "text/html") == (status == 502)
        assert (simulator.stats.proxy_errors, simulator.stats.calls) == (sum(lost), 12 - sum(lost))
        async with aiohttp.ClientSession() as client, client.get(f"{simulator.url}/_simulator/stats") as response:
            assert (await response.json())["proxy_errors"] == sum(lost)


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

"""Runs past a proxy, through a network that wants a login, with a secret that changes, short of sockets."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from aiohttp import web
from conftest import VirtualTime
from multidict import CIMultiDict
from scripted_portal import EMPTY, Portal, Script, as_served, facts, good, job_for, lines, listed, portal, reply

from harvester import attempt, health, send
from harvester.attempt import Caller, Subject
from harvester.check import check
from harvester.errors import Exit
from harvester.harvest import mirror
from harvester.health import Health, Reach
from harvester.job import Job
from harvester.model import App, Dataset, Reply, Secret, Signed
from harvester.pace import Pacer
from harvester.platforms import wuhan
from harvester.report import Result
from harvester.send import Sender, SendError

PASSWORD: Final = "pr0xy-Passw0rd"
AUTH: Final = b"Basic " + b64encode(f"me:{PASSWORD}".encode())
LOGIN: Final = '<html><title>网络认证</title><form><input name="p" type="password"></form></html>'
APP: Final = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("token"), rate_limit=None)


class Proxy:
    """Passes plain calls on as they are; asks for a password if it has one."""

    def __init__(self, authorization: bytes = b"") -> None:
        self.authorization = authorization
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, at the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.authorization and self.authorization not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            host, _, port = head.split(b" ", 2)[1].split(b"/")[2].decode().partition(":")
            onward, outward = await asyncio.open_connection(host, int(port))
            outward.write(head)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, outward))
                    group.create_task(_pass_on(onward, writer))
            finally:
                outward.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy(authorization: bytes = b"") -> AsyncIterator[Proxy]:
    """Run a proxy on loopback."""
    served = Proxy(authorization)
    await served.open()
    try:
        yield served
    finally:
        await served.close()


Look = Callable[[web.BaseRequest], web.Response | None]
"""Sees every call first, and may answer it."""


@asynccontextmanager
async def watched(script: Script, look: Look) -> AsyncIterator[tuple[Portal, str]]:
    """Serve a script on loopback to calls that somebody looks at."""
    served = Portal(script)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return look(request) or await served.handle(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield served, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


class Ages:
    """Notes how old signatures are when they arrive, in seconds; whole seconds are signed."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, request: web.BaseRequest) -> None:
        """Look at a call."""
        self.seen.append(time.time() - int(request.headers["x-tif-timestamp"]))


def by_way(folder: Path, url: str, keys: str, *, run: str = "", environ: Mapping[str, str] | None = None) -> Job:
    """Return a job whose app has further keys."""
    path = job_for(folder, url, run=run).path
    path.write_text(path.read_text().replace("\n[datasets", f"{keys}\n[datasets", 1))
    return Job.load(path, environ=environ or {})


def two_apps(folder: Path, url: str, keys: str = "", *, run: str = "") -> Job:
    """Return a job with a second app, which has further keys and a dataset ``e``, at the same address."""
    path = job_for(folder, url, run=run).path
    path.write_text(
        path.read_text().replace('service = "d"\n', 'service = "d"\napp = "wuhan"\n')
        + f'[apps.other]\nplatform = "wuhan"\npassid = "o"\ntoken = {{ file = "token" }}\nurl = "{url}"\n'
        f'rate_limit = "none"\n{keys}[datasets.e]\nservice = "e"\napp = "other"\n'
    )
    return Job.load(path, environ={})


def written(folder: Path) -> bytes:
    """Return everything that a run has left behind."""
    return b"".join(path.read_bytes() for path in sorted((folder / "mirror").rglob("*")) if path.is_file())


# -- proxies ---------------------------------------------------------------------------------------------------------


async def test_a_run_past_a_proxy(tmp_path: Path) -> None:
    """With user and password; the password is nowhere in what the run leaves."""
    keys = 'proxy = {{ url = "{}", user = "me", password = {{ env = "P" }} }}\nlegacy_tls = true\nhost = "localhost"'
    hosts: set[str] = set()
    look: Look = lambda request: hosts.add(request.headers["Host"])  # noqa: E731 - `add` returns None
    async with watched(listed(5), look) as (_, url), proxy(AUTH) as between:
        job = by_way(tmp_path, url, keys.format(between.url), environ={"P": PASSWORD})
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 6))
    assert between.connections > 0
    assert hosts == {"localhost"}
    assert PASSWORD.encode() not in written(tmp_path)
    assert AUTH.split()[1] not in written(tmp_path)


async def test_a_wrong_password_for_the_proxy_ends_at_once(tmp_path: Path) -> None:
    """Exit 7 after one call, in ``run`` and in ``check``; the proxy is named, the password is not."""
    keys = 'proxy = {{ url = "{}", user = "me", password = {{ env = "P" }} }}'
    async with portal(listed(3)) as (served, url), proxy(AUTH) as between:
        job = by_way(tmp_path, url, keys.format(between.url), environ={"P": "s3cret-and-wrong"})
        (found,) = await check(job, job.datasets)
        assert (found.exit, found.state, between.connections) == (Exit.LOCAL, "no answer", 1)
        result = await mirror(job)
    assert result.exit is Exit.LOCAL
    assert between.connections == 2
    assert served.asked.total() == 0
    for words in (found.message, result.datasets[0].why):
        assert between.url in words
        assert "407" in words
        assert "refused by the platform" not in words
    assert "proxy" in result.datasets[0].hint
    assert b"s3cret-and-wrong" not in written(tmp_path)


async def test_a_proxy_that_stays_away_ends_with_exit_7(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as long as a platform would be waited for; nothing is left open for it."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    between = Proxy()
    await between.open()
    await between.close()
    async with portal(listed(3)) as (_, url):
        job = by_way(tmp_path, url, f'proxy = "{between.url}"', run="stall_patience = 0.3")
        started = time.monotonic()
        result = await mirror(job)
    assert 0.3 <= time.monotonic() - started < 3
    assert result.exit is Exit.LOCAL
    assert between.url in result.datasets[0].why
    assert "platform is down" not in result.datasets[0].why
    assert result.datasets[0].hint.startswith("check `proxy`")
    assert 2 <= result.datasets[0].calls <= 10


async def test_a_proxy_that_comes_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It restarts in mid-run: every page comes, none was charged."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    between = Proxy()
    restarts: list[asyncio.Task[None]] = []

    async def restart() -> None:
        await between.close()
        await asyncio.sleep(0.3)
        await between.open()

    async def script(page: int, _: int) -> web.Response:
        if page == 12 and not restarts:
            restarts.append(asyncio.create_task(restart()))
        answer = good(page) if page <= 60 else reply(EMPTY)
        answer.force_close()  # so that the next call needs the proxy
        await asyncio.sleep(0.005)
        return answer

    await between.open()
    try:
        async with portal(script) as (served, url):
            job = by_way(tmp_path, url, f'proxy = "{between.url}"', run="attempts = 2\nconcurrency = 4")
            result = await mirror(job)
    finally:
        await asyncio.gather(*restarts)
        await between.close()
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 61))
    assert facts(result, "down")
    assert between.url in facts(result, "down")[0]["failure"]
    assert facts(result, "left open") == []
    assert len(set(served.nonces)) == len(served.nonces)


async def test_a_login_page_is_our_own_side(tmp_path: Path) -> None:
    """The network in between wants somebody to log in: exit 7 naming the proxy, and its Date teaches nothing."""

    def script(page: int, _: int) -> web.Response:
        if page < 3:
            return good(page)
        wrong = formatdate(time.time() - 90_000, usegmt=True)
        return web.Response(text=LOGIN, content_type="text/html", headers={"Date": wrong})

    ages = Ages()
    async with watched(script, ages) as (_, url), proxy() as between:
        result = await mirror(by_way(tmp_path, url, f'proxy = "{between.url}"', run="concurrency = 1"))
    assert len(ages.seen) >= 6
    assert max(ages.seen) < 5
    assert result.exit is Exit.LOCAL
    assert "the login page of a network or a proxy" in result.datasets[0].why
    assert between.url in result.datasets[0].why
    assert "网络认证" in result.datasets[0].why
    assert result.datasets[0].pages == 2


def test_the_way_reaches_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of an app's keys comes to the argument that stands for it."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(Sender, "__init__", lambda _, *args, **named: calls.append((args, named)))
    secret = Secret("x")
    for proxy_key in ("http://p", "env", ""):
        Sender.of(
            App(
                name="w",
                platform="wuhan",
                url="https://127.0.0.1/",
                id="",
                secret=secret,
                rate_limit=None,
                proxy=proxy_key,
                proxy_auth=("me", secret),
                ca_file="/ca.pem" if proxy_key else "",
                legacy_tls=bool(proxy_key),
                host="h",
            ),
            7.0,
        )
    assert [(args, named["proxy"], named["proxy_from_env"]) for args, named in calls] == [
        ((7.0,), "http://p", False),
        ((7.0,), None, True),
        ((7.0,), "", False),
    ]
    assert [(named["ca_file"], named["legacy_tls"]) for _, named in calls] == [(Path("/ca.pem"), True)] * 2 + [
        (None, False)
    ]
    assert {(named["proxy_auth"], named["host"]) for _, named in calls} == {(("me", secret), "h")}


async def test_a_ca_file_that_holds_none_harms_no_other_app(tmp_path: Path) -> None:
    """Exit 7 for the app that names it; the others are mirrored."""
    async with portal(listed(3)) as (_, url):
        (tmp_path / "ca.pem").write_text("no certificate")
        result = await mirror(two_apps(tmp_path, url, 'ca_file = "ca.pem"\n'))
    assert [entry.exit for entry in result.datasets] == [Exit.OK, Exit.LOCAL]
    assert "ca.pem cannot be used" in result.datasets[1].why
    assert result.datasets[1].calls == 0


# -- one host, two apps ----------------------------------------------------------------------------------------------


async def test_two_apps_share_that_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While connections are refused both send single probes; both are whole in the end, with no page left open."""
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.1)
    down_until = [0.0]
    refused: list[float] = []
    real = Sender.send

    async def sent(self: Sender, signed: Signed) -> Reply:
        if time.monotonic() < down_until[0]:
            refused.append(time.monotonic())
            raise SendError("no connection (Connection refused)")
        return await real(self, signed)

    async def script(page: int, _: int) -> web.Response:
        if page == 30 and not down_until[0]:
            down_until[0] = time.monotonic() + 1.0
        await asyncio.sleep(0.002)
        return good(page) if page <= 60 else reply(EMPTY)

    monkeypatch.setattr(Sender, "send", sent)
    async with portal(script) as (_, url):
        result = await mirror(two_apps(tmp_path, url, run="concurrency = 4"))
    assert result.exit is Exit.OK
    for name in "de":
        assert lines(result, name) == as_served(range(1, 61))
    assert len(refused) <= 2 * 2 * 60
    late = [moment for moment in refused if moment > down_until[0] - 0.5]
    assert 1 <= len(late) <= 2 * 6, "single probes of each app at most"
    assert facts(result, "left open") == []


@pytest.mark.parametrize(("way", "shared"), [("", True), ('proxy = "http://127.0.0.1:9"\n', False)])
async def test_who_shares_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, shared: bool) -> None:  # noqa: FBT001 - a parameter
    """Apps that call the same address by the same way; past a proxy it is another way."""
    reaches: list[Reach] = []
    real = Health.__init__

    def noted(self: Health, started: float, patience: float, reach: Reach) -> None:
        reaches.append(reach)
        real(self, started, patience, reach)

    monkeypatch.setattr(Health, "__init__", noted)
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.1)
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    async with portal(listed(3)) as (_, url):
        await mirror(two_apps(tmp_path, url, way))
    assert len(set(map(id, reaches))) == (1 if shared else 2)


# -- short of sockets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", ["64", '"auto"'])
async def test_a_machine_without_descriptors_makes_fewer_calls_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: str
) -> None:
    """Until they suffice: no page is charged, the event says so, and the run is whole."""
    in_flight = 0
    real = Sender.send

    async def sent(self: Sender, signed: Signed) -> Reply:
        nonlocal in_flight
        in_flight += 1
        try:
            if in_flight > 10:
                raise SendError("this machine cannot open another connection (Too many open files)", local=True)
            return await real(self, signed)
        finally:
            in_flight -= 1

    later = 0  # the most in flight when the bound has long been found

    async def script(page: int, _: int) -> web.Response:
        nonlocal later
        if 200 < page <= 280:
            later = max(later, served.in_flight)
        await asyncio.sleep(0.01)
        return good(page) if page <= 300 else reply(EMPTY)

    monkeypatch.setattr(Sender, "send", sent)
    async with portal(script) as (served, url):
        job = job_for(tmp_path, url, run=f"concurrency = {concurrency}\nattempts = 2", limit=20_000)
        result = await mirror(job)
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 301))
    told = facts(result, "fewer calls")
    assert told
    assert "Too many open files" in told[0]["reason"]
    assert all(entry["calls"] >= 1 for entry in told)
    assert told[-1]["calls"] <= 13
    assert facts(result, "left open") == []
    assert served.most_in_flight <= 10
    assert later == told[-1]["calls"], "only those leave who are too many"


# -- a secret that is replaced in mid-run ----------------------------------------------------------------------------


def demanding(token: Callable[[], str]) -> Look:
    """Return a check of signatures that refuses all but those made with the present token."""

    def judge(request: web.BaseRequest) -> web.Response | None:
        stamp, nonce = request.headers["x-tif-timestamp"], request.headers["x-tif-nonce"]
        right = sha256(f"{stamp}{token()}{nonce}{stamp}".encode()).hexdigest().upper()
        wrong = request.headers["x-tif-signature"] != right
        return reply({"errcode": "1433", "errmsg": "请求签名错误"}) if wrong else None

    return judge


async def rotated(folder: Path, *, renewed: bool, alike: bool = False) -> tuple[Result, int]:
    """Mirror 40 pages from a portal whose token is another one from page 20 on; return the calls it refused."""
    token, refused = "a-token", 0
    judge = demanding(lambda: token)

    async def script(page: int, _: int) -> web.Response:
        nonlocal token
        if page == 20 and token == "a-token":
            token = "b-token"
            if renewed:
                (folder / "token").write_text("wrong" if alike else "b-token")
        await asyncio.sleep(0.005)
        return good(page) if page <= 40 else reply(EMPTY)

    def look(request: web.BaseRequest) -> web.Response | None:
        nonlocal refused
        refusal = judge(request)
        refused += refusal is not None
        return refusal

    async with watched(script, look) as (_, url):
        return await mirror(job_for(folder, url, run="concurrency = 8")), refused


async def test_a_token_that_was_regenerated_does_not_end_the_run(tmp_path: Path) -> None:
    """Somebody has put the new one into the file: it is read once, and everything is mirrored."""
    result, refused = await rotated(tmp_path, renewed=True)
    assert result.exit is Exit.OK
    assert lines(result, "d") == as_served(range(1, 41))
    assert len(facts(result, "new secret")) == 1
    assert 1 <= refused <= 4 * 8
    assert b"b-token" not in written(tmp_path)


@pytest.mark.parametrize("renewed", [True, False])
async def test_a_token_that_is_wrong_for_good_ends_it(tmp_path: Path, renewed: bool) -> None:  # noqa: FBT001 - a parameter
    """The file holds the old one still, or another wrong one: refused by the platform, exit 3, after few calls."""
    result, refused = await rotated(tmp_path, renewed=renewed, alike=True)
    assert result.exit is Exit.REFUSED
    assert "1433" in result.datasets[0].why
    assert len(facts(result, "new secret")) == renewed
    assert 2 <= refused <= 4 * 8


# -- the age of signatures -------------------------------------------------------------------------------------------


async def test_signatures_are_fresh_although_every_connection_is_taken(tmp_path: Path) -> None:
    """Answers take their time and all calls in flight wait for theirs: what arrives was signed just now."""
    ages = Ages()

    async def script(page: int, _: int) -> web.Response:
        await asyncio.sleep(0.2)
        return good(page) if page <= 200 else reply(EMPTY)

    async with watched(script, ages) as (served, url):
        result = await mirror(job_for(tmp_path, url, run="concurrency = 16", datasets="recheck = 0"))
    assert result.exit in {Exit.OK, Exit.NOT_PROVEN}
    assert served.most_in_flight == 16
    assert len(ages.seen) >= 200
    assert max(ages.seen) < 3


@pytest.mark.parametrize("workers", [1, 64])
def test_signatures_are_fresh_after_a_pause(
    virtual: VirtualTime, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """A minute's pause for the whole app, with every worker waiting for its permit: nothing is signed before it."""
    now, epoch = virtual.now, 1_800_000_000.0
    ages: list[float] = []
    answers = {"refused": 0}

    class Wire:
        async def send(self, signed: Signed) -> Reply:
            ages.append(epoch + now() - int(signed.headers["x-tif-timestamp"]))
            await asyncio.sleep(0.2)
            date = {"Date": formatdate(epoch + now(), usegmt=True)}
            if 2 <= now() < 30:
                answers["refused"] += 1
                return Reply(429, CIMultiDict({**date, "Retry-After": "60"}), b"")
            return Reply(200, CIMultiDict(date), b'{"errcode":0,"data":{"data":[{"ID":"1"}]}}')

    monkeypatch.setattr(attempt, "counter", now)
    monkeypatch.setattr(attempt, "time", SimpleNamespace(time=lambda: epoch + now()))
    paused = []

    async def work(caller: Caller, subject: Subject) -> None:
        while now() < 120:
            permitted = await caller.pacer.permit()
            decision = await caller.attempt(subject, 1, permitted)
            if isinstance(decision, attempt.Again) and decision.paused:
                paused.append(decision.paused)

    async def run() -> None:
        pacer = Pacer(20.0, 300.0, now)
        caller = Caller(APP, wuhan, pacer, cast(Sender, Wire()), 8)
        subject = Subject(Dataset(name="d", app=APP, service="d", page_param="pageNo"), Health(0.0, 900.0))
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work(caller, subject))
        pacer.close()

    virtual.run(run)
    assert answers["refused"] >= 1
    assert max(paused) >= 60
    assert len(ages) > 100
    assert max(ages) < 2


async def test_what_is_signed_waits_for_no_connection_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up the name counts too: a connection that comes late is not used."""
    assert send.CONNECT_TIMEOUT < 5

    async def slow(*_: object, **__: object) -> list[Any]:
        await asyncio.sleep(30)
        return []

    monkeypatch.setattr(send, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", slow)
    started = time.monotonic()
    async with Sender(10) as sender:
        with pytest.raises(SendError):
            await sender.send(Signed("http://portal.example/", {}, b""))
    assert time.monotonic() - started < 3

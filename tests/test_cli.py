"""The command line as a user meets it: words, streams, exit codes, signals, and what must never be printed."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

import pytest
from aiohttp import web

from harvester import health
from harvester.__main__ import main
from harvester.errors import Exit
from harvester.simulator import (
    SIPOP_UNSUBSCRIBED,
    WUHAN_PASSID,
    WUHAN_TOKEN,
    WUHAN_UNSUBSCRIBED,
    Config,
    Simulator,
    jobfile,
)
from harvester.status import State

T = TypeVar("T")
COMMANDS = ("run", "check", "plan", "status", "verify", "quota", "bench", "demo", "simulate")


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Harvester = Callable[..., Said]


@pytest.fixture
def harvester(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Harvester:
    """Run the command line in this process; no command ever shows a traceback."""

    def command(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harvester", *map(str, arguments)])
        code = main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return command


@contextmanager
def beside(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Run a server in a thread of its own, beside the commands."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def enter() -> T:
        return await server.__aenter__()

    async def leave() -> None:
        await server.__aexit__(None, None, None)

    try:
        entered = asyncio.run_coroutine_threadsafe(enter(), loop).result(10)
        try:
            yield entered
        finally:
            asyncio.run_coroutine_threadsafe(leave(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Portal:
    """A Wuhan interface that answers by script and counts; calls beyond the first so many wait until released."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self.hold_after = sys.maxsize
        self.held = asyncio.Event()  # a call waits
        self.release = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one call."""
        page = int((await request.json())["query"]["pageNo"])
        if len(self.asked) >= self.hold_after and not self.release.is_set():
            self.held.set()
            await self.release.wait()
        self.asked.append(page)
        return web.Response(body=self.answer(page), content_type="text/plain")


@asynccontextmanager
async def portal(answer: Callable[[int], bytes]) -> AsyncIterator[Portal]:
    """Serve a script on loopback."""
    served = Portal(answer)
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield served
    finally:
        served.release.set()
        await runner.cleanup()


def pages(last: int) -> Callable[[int], bytes]:
    """Return a script of that many pages with 20 rows each."""

    def answer(page: int) -> bytes:
        rows = [{"ID": f"{page}-{row}"} for row in range(20 if page <= last else 0)]
        return json.dumps({"errcode": 0, "data": {"pageNo": page, "pageSize": 20, "data": rows}}).encode()

    return answer


def saying(code: str, text: str) -> Callable[[int], bytes]:
    """Return a script that answers every call with that code."""
    return lambda _: json.dumps({"errcode": code, "errmsg": text}, ensure_ascii=False).encode()


JOB = """\
[apps.w]
platform = "wuhan"
passid = "id"
token = { file = "token" }
url = "URL"
rate_limit = "none"

[datasets.d]
service = "d"
"""


def write_job(folder: Path, url: str = "http://127.0.0.1:9/", credential: str = "made up", more: str = "") -> Path:
    """Write a job file with one dataset, and its secret."""
    file = folder / "token"
    file.touch(0o600)
    file.write_text(credential)
    path = folder / "job.toml"
    path.write_text(JOB.replace("URL", url) + more)
    return path


@contextmanager
def simulated(folder: Path, rows: int = 100) -> Iterator[Path]:
    """Play both platforms; yields the job file for them."""
    with beside(Simulator(Config(rows=rows, rate_limit=None))) as simulator:
        jobfile.write(folder / "job.toml", simulator.url, None, simulator.tables)
        yield folder / "job.toml"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_message(said: Said, code: Exit) -> str:
    """Return the message of a command that failed with that exit code and said one thing, on standard error."""
    assert said.code == code
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("error: ") == 1
    assert len(said.err.splitlines()) <= 8
    return said.err


# Mistakes that are found before anything is sent


@pytest.mark.parametrize("command", ["run", "check", "plan", "status"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'token = { file = "token" }',
            'token = "literal-5ecret"',
            ("[apps.w] `token`", "must not", "hint: write token"),
        ),
        ('service = "d"', 'service = "d"\npasing = "none"', ("[datasets.d]", "pasing", "`paging`")),
        ('service = "d"', 'service = "d', ("line 9", "column")),
        ("[apps.w]", "[apps.w", ("line 1", "column")),
        ('platform = "wuhan"', 'platform = "wuhna"', ("'wuhna'", 'platform = "wuhan"')),
        ('service = "d"', 'app = "v"\nservice = "d"', ("`app` is 'v'", 'app = "w"')),
        ("[datasets.d]", '[datasets."../d"]', ("../d", "letters, digits")),
        ("[datasets.d]", '[datasets."/etc"]', ("/etc", "letters, digits")),
        ("[datasets.d]", "[datasets.runs]", ("the mirror itself uses it",)),
        ('rate_limit = "none"', "", ("`rate_limit`", "for example")),
    ],
    ids=[
        "literal secret",
        "unknown key",
        "TOML in a value",
        "TOML in a header",
        "platform",
        "app",
        "name that climbs",
        "absolute name",
        "reserved name",
        "no rate limit",
    ],
)
def test_mistakes_in_the_job_file(
    harvester: Harvester, tmp_path: Path, command: str, old: str, new: str, said: tuple[str, ...]
) -> None:
    """A mistake is one message that names file, place and edit; nothing is written, no secret is shown."""
    path = write_job(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    before = contents(tmp_path)
    message = one_message(harvester(command, path), Exit.USAGE)
    assert str(path) in message
    for words in said:
        assert words in message
    assert "literal-5ecret" not in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_variable_that_is_not_set(
    harvester: Harvester, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing environment variable is named with the command that sets it; ``status`` does not need it."""
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    path = write_job(tmp_path)
    path.write_text(path.read_text().replace('{ file = "token" }', '{ env = "NO_SUCH_TOKEN" }'))
    message = one_message(harvester(command, path), Exit.USAGE)
    assert "NO_SUCH_TOKEN is not set" in message
    assert "hint: export NO_SUCH_TOKEN=" in message
    assert harvester("status", path).code == Exit.OK


@pytest.mark.parametrize("command", ["run", "check", "plan", "status"])
def test_a_job_file_that_cannot_be_read(harvester: Harvester, tmp_path: Path, command: str) -> None:
    """A job file that is not there, or is a folder, is named."""
    message = one_message(harvester(command, tmp_path / "nowhere.toml"), Exit.USAGE)
    assert str(tmp_path / "nowhere.toml") in message
    if command != "status":  # which takes a folder for a mirror
        assert "is a folder" in one_message(harvester(command, tmp_path), Exit.USAGE)


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_dataset_that_is_not_in_the_job(harvester: Harvester, tmp_path: Path, command: str) -> None:
    """``--dataset`` with an unknown name lists the known ones and writes nothing."""
    path = write_job(tmp_path)
    before = contents(tmp_path)
    message = one_message(harvester(command, path, "--dataset", "e"), Exit.USAGE)
    assert "no enabled dataset 'e'" in message
    assert "it has: d" in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_an_output_folder_that_cannot_be(harvester: Harvester, tmp_path: Path, below: str) -> None:
    """A file where the output folder should be is left alone; the message says how to choose another."""
    path = write_job(tmp_path)
    (tmp_path / "file").write_text("mine")
    message = one_message(harvester("run", path, "--output", f"{tmp_path}/file{below}"), Exit.LOCAL)
    assert f"{tmp_path}/file{below}" in message
    assert "--output DIR" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dataset_folder_that_cannot_be(harvester: Harvester, tmp_path: Path) -> None:
    """A file in the place of a dataset's folder is left alone."""
    path = write_job(tmp_path)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "d").write_text("mine")
    said = harvester("run", path)
    assert said.code == Exit.LOCAL
    assert str(tmp_path / "mirror" / "d") in said.err
    assert (tmp_path / "mirror" / "d").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "job.toml", "--max-pages", "0"), ("run", "job.toml", "--frehs"), ("rnu", "job.toml"), ()],
    ids=["no job", "bad number", "unknown option", "unknown command", "nothing"],
)
def test_usage(harvester: Harvester, arguments: tuple[str, ...]) -> None:
    """Wrong arguments are exit 2 with the usage on standard error."""
    said = harvester(*arguments)
    assert said.code == Exit.USAGE
    assert said.out == ""
    assert "Usage: " in said.err


def test_bom_and_crlf(harvester: Harvester, tmp_path: Path) -> None:
    """Job and secret files from an editor on Windows work."""
    with simulated(tmp_path, rows=20) as path:
        for file in (path, *tmp_path.glob("*.secret")):
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
        assert harvester("run", path).code == Exit.OK


# Refusals


def write_credentials(path: Path, platform: str, app_id: str, secret: str) -> None:
    """Give a simulated platform's app other credentials."""
    key = {"wuhan": "passid", "sipop": "app_key"}[platform]
    path.write_text(re.sub(rf'(?m)^{key} = ".*"$', f'{key} = "{app_id}"', path.read_text()))
    path.with_name(f"job.{platform}.secret").write_text(secret)


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_wrong_credentials(harvester: Harvester, tmp_path: Path, command: str) -> None:
    """A wrong token is exit 3 with the platform's code, our words and where to look; the token is not shown."""
    with simulated(tmp_path) as path:
        write_credentials(path, "wuhan", WUHAN_PASSID, "wrong-5ecret")
        said = harvester(command, path, "--dataset", "wuhan-companies")
    assert said.code == Exit.REFUSED
    assert "1433" in said.err
    assert "check PASSID and TOKEN" in said.err
    assert "which has been allowed for" in said.err
    assert "wrong-5ecret" not in said.out + said.err


@pytest.mark.parametrize("command", ["run", "check", "plan"])
@pytest.mark.parametrize(
    ("platform", "name", "credentials"),
    [("wuhan", "wuhan-companies", WUHAN_UNSUBSCRIBED), ("sipop", "sipop-patent.search", SIPOP_UNSUBSCRIBED)],
    ids=["wuhan", "sipop"],
)
def test_no_subscription(
    harvester: Harvester, tmp_path: Path, command: str, platform: str, name: str, credentials: tuple[str, str]
) -> None:
    """An app that may not call the interface gets exit 3 and a hint, and everything else stays as it was."""
    with simulated(tmp_path) as path:
        write_credentials(path, platform, *credentials)
        said = harvester(command, path, "--dataset", name)
    assert said.code == Exit.REFUSED
    assert "hint: " in said.err
    assert not list((tmp_path / "mirror").glob("*/current*"))


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_service_that_does_not_exist(harvester: Harvester, tmp_path: Path, command: str) -> None:
    """A misspelt service is exit 3; the other datasets are mirrored all the same."""
    with simulated(tmp_path) as path:
        path.write_text(path.read_text().replace('service = "investors"', 'service = "inventors"'))
        said = harvester(command, path)
    assert said.code == Exit.REFUSED
    assert "100101" in said.err
    assert "compare `service`" in said.err
    if command == "run":
        assert sorted(folder.parent.name for folder in (tmp_path / "mirror").glob("*/current.json")) == [
            "sipop-patent.legal",
            "sipop-patent.search",
            "wuhan-companies",
        ]


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_platform_that_is_down(
    harvester: Harvester, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listening is exit 4, to be run again."""
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.2)
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        said = harvester(command, write_job(tmp_path, f"http://127.0.0.1:{bound.getsockname()[1]}/"))
    assert said.code == Exit.OPEN_PAGES
    assert "no connection (Connection refused)" in said.err
    assert "hint: check" in said.err


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_web_page_instead_of_data(harvester: Harvester, tmp_path: Path, command: str) -> None:
    """A login page is exit 3 and shown by its title, never taken for an empty page."""
    with beside(portal(lambda _: b"<!DOCTYPE html><title>Please log in</title>")) as served:
        said = harvester(command, write_job(tmp_path, served.url))
    assert said.code == Exit.REFUSED
    assert "Please log in" in said.err
    assert "a web page came instead of data" in said.err


@pytest.mark.parametrize("command", [("run",), ("run", "-v"), ("check",), ("plan",)])
def test_what_a_server_says_cannot_move_the_cursor(
    harvester: Harvester, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Control and reordering characters of the platform's messages arrive escaped."""
    with beside(portal(saying("8888", "\x1b[2J维护\u202e\r\n"))) as served:
        said = harvester(*command, write_job(tmp_path, served.url))
    assert said.code == Exit.REFUSED
    assert "\\x1b[2J维护\\u202e" in said.err
    assert not set("\x1b\u202e\r") & set(said.out + said.err)


def test_rows_in_a_table_cannot_move_the_cursor(harvester: Harvester, tmp_path: Path) -> None:
    """The first row that ``check`` shows is escaped like any other text of the platform's."""
    answer = '{"errcode":0,"data":[{"A":"\x9b2J\u202e"}]}'.encode()
    with beside(portal(lambda _: answer)) as served:
        said = harvester("check", write_job(tmp_path, served.url))
    assert said.code == Exit.OK
    assert "\\x9b2J\\u202e" in said.out


# What is printed where


def normalised(text: str, folder: Path) -> str:
    """Replace what differs from run to run."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"runs/\d{8}T\d{6}Z-[0-9a-f]{4}", "runs/RUN", text)
    return re.sub(r"\d{8}T\d{6}Z", "SNAPSHOT", text)


def test_the_last_lines_of_a_run(harvester: Harvester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdict, rows, place and the exact next command, word for word: complete, nothing due, and cut short."""
    monkeypatch.chdir(tmp_path)
    with beside(portal(pages(30))) as served:
        write_job(tmp_path, served.url)
        short = harvester("run", "job.toml", "--max-pages", 10)
        whole = harvester("run", "job.toml")
        again = harvester("run", "job.toml")
    assert {short.out, whole.out, again.out} == {""}
    assert (short.code, whole.code, again.code) == (Exit.BUDGET, Exit.OK, Exit.OK)

    def words(said: Said) -> str:
        return re.sub(r"\d+ calls", "N calls", normalised(said.err, tmp_path))  # how many probes fit in is chance

    assert words(short) == (
        "\n"
        "d: not finished, 200 rows in 10 pages; N calls in this run\n"
        "  the pages or calls allowed for this run are used up\n"
        "  hint: run again with a larger --max-pages or --max-calls, or without\n"
        "  mirror/d/SNAPSHOT\n"
        "200 rows in all; report: mirror/runs/RUN/report.html\n"
        "next: harvester run job.toml\n"
    )
    assert words(whole) == (
        "\n"
        "d: proven, 600 rows in 30 pages; N calls in this run\n"
        "  mirror/d/SNAPSHOT\n"
        "600 rows in all; report: mirror/runs/RUN/report.html\n"
        "next: harvester verify mirror\n"
    )
    assert words(again) == (
        "\n"
        "d: proven, 600 rows\n"
        "  published 0.0 hours ago; nothing was sent\n"
        "  hint: --fresh starts a new snapshot now\n"
        "  mirror/d/SNAPSHOT\n"
        "600 rows in all; report: mirror/runs/RUN/report.html\n"
        "next: harvester verify mirror\n"
    )


def test_a_command_that_is_named_can_be_pasted(harvester: Harvester, tmp_path: Path) -> None:
    """Paths with spaces and quotes are written so that a shell reads them back as they are."""
    folder = tmp_path / "it's a folder; $HOME"
    folder.mkdir()
    with beside(portal(pages(3))) as served:
        path = write_job(folder, served.url)
        short = harvester("run", path, "--max-pages", 1, "--output", folder / "m m", "--dataset", "d")
        checked, whole = harvester("check", path), harvester("run", path)

    def named(said: Said) -> list[str]:
        return shlex.split(said.err.rpartition("next: ")[2])

    assert named(short) == ["harvester", "run", str(path), "--output", str(folder / "m m"), "--dataset", "d"]
    assert named(checked) == ["harvester", "run", str(path)]
    assert named(whole) == ["harvester", "verify", str(folder / "mirror")]


def test_the_command_after_a_simulation_can_be_pasted(
    harvester: Harvester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job file that was written is named as a shell reads it."""

    async def serve(config: Config, _: object, ready: Callable[[Simulator], None]) -> None:
        async with Simulator(config) as simulator:
            ready(simulator)

    monkeypatch.setattr("harvester.simulator.serve", serve)
    path = tmp_path / "a b" / "job.toml"
    said = harvester("simulate", "--rows", 1, "--write-job", path)
    assert said.code == Exit.OK
    assert said.out.startswith("http://127.0.0.1:")
    assert shlex.split(said.err.rpartition("terminal: ")[2]) == ["harvester", "run", str(path)]


def test_machine_output_stands_alone(harvester: Harvester, tmp_path: Path) -> None:
    """With ``--json`` and ``--csv`` standard output parses as a whole; words go to standard error."""
    with simulated(tmp_path) as path:
        ran = harvester("run", path, "--json")
        checked = harvester("check", path, "--json")
        table = harvester("check", path, "--csv")
    assert (ran.code, checked.code, table.code) == (0, 0, 0)
    names = ["wuhan-companies", "wuhan-investors", "sipop-patent.search", "sipop-patent.legal"]
    result = json.loads(ran.out)
    assert [entry["name"] for entry in result["datasets"]] == names
    assert {entry["rows"] for entry in result["datasets"]} == {100}
    assert "next: harvester verify" in ran.err
    assert [finding["dataset"] for finding in json.loads(checked.out)] == names
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["dataset"] for row in rows] == names
    assert {row["state"] for row in rows} == {"usable"}
    assert "4 of 4 datasets can be mirrored" in table.err

    for given in (path, tmp_path / "mirror"):
        states = json.loads(harvester("status", given, "--json").out)
        assert sorted(state["dataset"] for state in states) == sorted(names)
        listed = list(csv.DictReader(io.StringIO(harvester("status", given, "--csv").out)))
        assert [(row["rows"], row["verdict"]) for row in listed] == [("100", "proven")] * 4
    verified = json.loads(harvester("verify", tmp_path / "mirror", "--json").out)
    assert [Path(place).parent.name for place in verified] == sorted(names)
    assert {(entry["symbols"], entry["rows"], entry["exit"]) for entry in verified.values()} == {(".", 100, 0)}


def test_plan(harvester: Harvester, tmp_path: Path) -> None:
    """One line per dataset, for people, as CSV and as JSON; then the command that mirrors, which promises kept."""
    with beside(portal(pages(30))) as served:
        path = write_job(tmp_path, served.url, more='key = "ID"\nmax_calls = 100\n')
        table = harvester("plan", path)
        spent = len(served.asked)
        listed, told = harvester("plan", path, "--csv"), harvester("plan", path, "--json")
        assert len(served.asked) == spent <= 20
        assert harvester("run", path, "--quiet").code == Exit.OK
        calls = len(served.asked) - spent
    assert (table.code, listed.code, told.code) == (Exit.OK, Exit.OK, Exit.OK)
    head, line = table.out.splitlines()
    assert head.split() == ["dataset", "pages", "rows", "calls", "time", "left", "share", "key", "time"]
    share = f"{calls / (100 - spent):.0%}"
    assert line.split() == ["d", "30", "600", str(calls), str(100 - spent), share, "0:00:01"]
    assert table.err.endswith(f"next: harvester run {path}\n")
    (row,) = csv.DictReader(io.StringIO(listed.out))
    assert (row["dataset"], row["pages"], row["calls"], row["share"]) == ("d", "30", str(calls), share)
    (found,) = json.loads(told.out)
    assert (found["exit"], found["pages"], found["calls"], found["left"]) == (0, 30, calls, 100 - spent)
    assert {"seconds", "exact", "remark", "hint"} < set(found)


def test_plan_of_what_does_not_work(harvester: Harvester, tmp_path: Path) -> None:
    """The dataset has its line, its reason and its hint; no run is proposed."""
    with beside(portal(saying("1403", "您没有权限调用此接口"))) as served:
        path = write_job(tmp_path, served.url)
        said, told = harvester("plan", path), harvester("plan", path, "--json")
    assert said.code == told.code == Exit.REFUSED
    assert said.out.splitlines()[1].split() == ["d"]
    assert "d: refused by the platform: 1403" in said.err
    assert "d: hint: " in said.err
    assert "next: " not in said.err
    assert json.loads(told.out)[0]["exit"] == Exit.REFUSED


def test_failures_are_machine_readable_too(harvester: Harvester, tmp_path: Path) -> None:
    """A refused run and check print their JSON all the same, with the exit code in it."""
    with beside(portal(saying("1403", "您没有权限调用此接口"))) as served:
        path = write_job(tmp_path, served.url)
        ran, checked = harvester("run", path, "--json"), harvester("check", path, "--json")
    assert ran.code == checked.code == json.loads(ran.out)["exit"] == json.loads(checked.out)[0]["exit"] == 3
    assert json.loads(checked.out)[0]["state"] == "no permission"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate-limit", "quick"), "'quick' is neither a number"),
        (("--rate-limit", "300,5"), "like 300,10:100"),
        (("--rate-limit", "0"), "above 0"),
        (("--rate-limit", "300,9:100,9:300"), "ever later seconds"),
        (("--latency", "-1"), "latency is 0 seconds or more"),
        (("--latency", "0,ten:2"), "'0,ten:2' is neither a number"),
        (("--limit-kind", "token"), "token:DEPTH"),
        (("--quota", "5"), "N/day or N/month"),
        (("--retry-after", "3"), "only a 429"),
        (("--refuse-with", "429", "--retry-after", "soon"), "N or date:N"),
        (("--refuse-with", "503"), "--refuse-with"),
        (("--jitter", "-1"), "--jitter"),
        (("--proxy-errors", "2"), "--proxy-errors"),
    ],
)
def test_what_cannot_be_simulated(harvester: Harvester, arguments: tuple[str, ...], said: str) -> None:
    """Exit 2, nothing is served, and the message says what would be right."""
    answer = harvester("simulate", *arguments)
    assert (answer.code, answer.out) == (Exit.USAGE, "")
    assert said in answer.err


def test_every_option_of_a_simulation_arrives(harvester: Harvester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given becomes a setting; what is not keeps the setting's own default."""
    served: list[Config] = []

    async def serve(config: Config, *_: object) -> None:
        served.append(config)

    monkeypatch.setattr("harvester.simulator.serve", serve)
    everything = (
        "--platform sipop --rows 7 --data t.csv --seed 3 --rate-limit 30,10:0,12.5:60 --limit-kind nginx:5"
        " --latency 0.02,10:2 --slow-pages 0.5 --jitter 0.1 --quota 9/month --refuse-with 429 --retry-after date:3"
        " --proxy-errors 0.01 --port 8080"
    )
    for line in ("", "--rate-limit none", everything):
        assert harvester("simulate", *line.split()).code == Exit.OK
    assert served == [
        Config(),
        Config(rate_limit=None),
        Config(
            platforms=("sipop",),
            rows=7,
            data=Path("t.csv"),
            seed=3,
            rate_limit=30,
            limit_kind="nginx:5",
            schedule=((10, 0), (12.5, 60)),
            latency=0.02,
            latency_schedule=((10, 2),),
            slow_pages=0.5,
            jitter=0.1,
            quota="9/month",
            refuse_with="429",
            retry_after="date:3",
            proxy_errors=0.01,
            port=8080,
        ),
    ]


def test_progress_is_told_only_when_asked_for(harvester: Harvester, tmp_path: Path) -> None:
    """A short run into a pipe shows no progress; ``-v`` shows every event; nobody gets escape sequences."""
    with beside(portal(pages(3))) as served:
        path = write_job(tmp_path, served.url)
        plain, verbose = harvester("run", path), harvester("run", path, "--fresh", "-v")
    assert plain.err.startswith("\nd: proven")
    assert "concluded: dataset d, published True" in verbose.err
    assert "\x1b" not in plain.err + verbose.err


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_help_begins_with_an_example(harvester: Harvester, command: str) -> None:
    """Every command's help has an example before everything else."""
    said = harvester(*filter(None, [command]), "--help")
    assert said.code == Exit.OK
    assert said.err == ""
    example, _, rest = said.out.partition("\n\n")
    title, *commands = example.splitlines()
    assert title == "Example:"
    assert all(line.startswith(f"    harvester {command or 'demo'}") for line in commands)
    assert commands
    assert rest.startswith(f"Usage: {f'harvester {command}'.strip()} [OPTIONS]")


def test_every_command_is_tested(harvester: Harvester) -> None:
    """The list of commands above is the one that the help shows."""
    listed = harvester("--help").out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(COMMANDS)


def test_an_unexpected_error_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A bug is exit 1, with the traceback that a report needs."""
    monkeypatch.setattr("harvester.status.states", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["harvester", "status", str(tmp_path)])
    assert main() == Exit.UNEXPECTED
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.endswith("please report it with the lines above\n")


# Damage


@pytest.fixture
def mirror(harvester: Harvester, tmp_path: Path) -> Path:
    """Mirror 30 pages in three shards; returns the snapshot."""
    with beside(portal(pages(30))) as served:
        path = write_job(tmp_path, served.url, more="[run]\nrows_per_shard = 200\n")
        assert harvester("run", path).code == Exit.OK
    return (tmp_path / "mirror" / "d" / "current").resolve()


def test_verify_finds_damage(harvester: Harvester, mirror: Path, tmp_path: Path) -> None:
    """A flipped bit is X, a missing shard ?, an extra file +; exit 7, and the place is named to the byte."""
    good = harvester("verify", tmp_path / "mirror")
    assert (good.code, good.out) == (Exit.OK, f"{mirror}  ...  30 pages, 600 rows\n")
    assert good.err == "no damage found\n"
    shard = bytearray((mirror / "part-00001.jsonl").read_bytes())
    shard[100] ^= 1
    (mirror / "part-00001.jsonl").write_bytes(shard)
    flipped = harvester("verify", tmp_path / "mirror" / "d")
    assert (flipped.code, flipped.out) == (Exit.LOCAL, f"{mirror}  .X.  20 pages, 400 rows\n")
    assert re.search(r"part-00001\.jsonl: offset 0, \d+ bytes: page 11 has changed", flipped.err)
    (mirror / "part-00002.jsonl").unlink()
    (mirror / "part-00009.jsonl").write_text("")
    missing = harvester("verify", mirror)
    assert (missing.code, missing.out) == (Exit.LOCAL, f"{mirror}  .X?+  10 pages, 200 rows\n")
    assert "part-00009.jsonl: nothing refers to it" in missing.err
    assert missing.err.endswith("damage found; next: harvester run JOB --dataset d --repair\n")


def test_repair_mends_what_verify_finds(harvester: Harvester, tmp_path: Path) -> None:
    """The command that ``verify`` names: it says what was damaged, what was read again, and what that shows."""
    with beside(portal(pages(30))) as served:
        path = write_job(tmp_path, served.url, more="[run]\nrows_per_shard = 200\n")
        harvester("run", path)
        shard = (tmp_path / "mirror" / "d" / "current").resolve() / "part-00001.jsonl"
        shard.write_bytes(b"x" + shard.read_bytes()[1:])
        said = harvester("verify", tmp_path / "mirror")
        assert said.err.endswith("damage found; next: harvester run JOB --dataset d --repair\n")
        asked = len(served.asked)
        said = harvester("run", path, "--dataset", "d", "--repair")
        assert served.asked[asked:] == [11]
    assert said.code == Exit.OK
    assert "d: proven, 600 rows in 30 pages; 1 call in this run\n" in said.err
    assert (
        "  damaged: part-00001.jsonl; repaired, 1 page read again, and every shard is what it was: the certificate "
        "stands\n"
    ) in said.err
    assert harvester("verify", tmp_path / "mirror").code == Exit.OK
    again = harvester("run", path, "--repair")
    assert again.code == Exit.OK
    assert "  no damage found; nothing was sent\n" in again.err


def test_repair_is_not_fresh(harvester: Harvester, tmp_path: Path) -> None:
    """One mends what is there, the other leaves it alone."""
    message = one_message(harvester("run", write_job(tmp_path), "--repair", "--fresh"), Exit.USAGE)
    assert "choose one of them" in message


FALSE_CLAIMS: Final = (
    ("verdict", '"verdict":"proven"', '"verdict":"likely"', "says 'likely', its evidence gives 'proven'"),
    ("rows", '"evidence":{"pages":30,"rows":600', '"evidence":{"pages":30,"rows":601', "does not say what the files"),
    ("pages read again", '"read_again":{"pages":30', '"read_again":{"pages":29', "says 'proven', its evidence gives"),
    ("end", '"end":{"how":"empty"', '"end":{"how":"repeat"', "does not say what the files"),
    (
        "holes",
        '"expect_rows":null,"holes":[]',
        '"expect_rows":null,"holes":[7]',
        "does not say what the files",
    ),
    ("assumptions", "not asked for has rows", "was asked for has rows", "does not say what the files"),
)


@pytest.mark.parametrize(
    ("old", "new", "said"), [claim[1:] for claim in FALSE_CLAIMS], ids=[c[0] for c in FALSE_CLAIMS]
)
def test_verify_finds_a_certificate_that_was_edited(
    harvester: Harvester, mirror: Path, old: str, new: str, said: str
) -> None:
    """Verdict, evidence and files have to agree; exit 7, though every shard is what it was."""
    assert harvester("verify", mirror).code == Exit.OK
    package = mirror / "datapackage.json"
    text = json.dumps(json.loads(package.read_text()), ensure_ascii=False, separators=(",", ":"))
    assert text.count(old) == 1
    package.write_text(text.replace(old, new))
    for given in (mirror, mirror.parent, mirror.parents[1]):
        edited = harvester("verify", given)
        assert edited.code == Exit.LOCAL
        assert edited.out.endswith("  ...  30 pages, 600 rows\n")
        assert f"  the certificate {said}" in edited.err
        assert edited.err.endswith("damage found; next: harvester run JOB --dataset d --repair\n")


def test_verify_of_an_open_snapshot(harvester: Harvester, tmp_path: Path) -> None:
    """Open shards are ``o``, exit 4, with how many pages are here."""
    with beside(portal(pages(30))) as served:
        path = write_job(tmp_path, served.url, more="[run]\nrows_per_shard = 200\nconcurrency = 1\n")
        harvester("run", path, "--max-pages", 15)
    said = harvester("verify", tmp_path / "mirror")
    assert said.code == Exit.OPEN_PAGES
    assert said.out.split()[1:] == [".oo", "10", "pages,", "200", "rows"]
    here = [int(number) for number in re.findall(r"(\d+) of 10 pages are here", said.err)]
    assert sum(here) == 5  # beside the sealed ones: what probing for the end has brought, too
    assert all(here)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_verify_of_nothing_is_no_success(harvester: Harvester, tmp_path: Path, name: str) -> None:
    """A folder without a snapshot is a mistake in the command, not a mirror without damage."""
    (tmp_path / "empty").mkdir()
    one_message(harvester("verify", tmp_path / name), Exit.USAGE)


@pytest.mark.parametrize(("file", "way"), [("datapackage.json", "--fresh"), ("../current.json", "--repair")])
def test_verify_of_damaged_records(harvester: Harvester, mirror: Path, file: str, way: str) -> None:
    """What cannot be compared with anything is damaged, and named with what helps."""
    (mirror / file).write_bytes(b'{"resources": [')
    said = harvester("verify", mirror.parent)
    assert file.removeprefix("../") in one_message(said, Exit.LOCAL)
    assert said.err.endswith(f"damage found; next: harvester run JOB --dataset d {way}\n")


def test_status_names_what_is_damaged(harvester: Harvester, mirror: Path, tmp_path: Path) -> None:
    """``status`` goes on past a damaged dataset, names it and what mends it, with exit 7."""
    (mirror.parent / "current.json").write_bytes(b"{")
    said = harvester("status", tmp_path / "job.toml")
    assert said.code == Exit.LOCAL
    assert "current.json" in said.err
    assert f"next: harvester run {tmp_path / 'job.toml'} --dataset d --repair" in said.err


def test_status_says_what_is_held_back(harvester: Harvester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is whole but not proven is named with the reasons, and is no failure of ``status``."""
    held = State(dataset="d", held="20261121T020000Z: the total moved", next="harvester run job.toml --fresh")
    monkeypatch.setattr("harvester.status.states", lambda *_: [held])
    said = harvester("status", tmp_path)
    assert said.code == Exit.OK
    assert said.err == ("d: not published, 20261121T020000Z: the total moved; next: harvester run job.toml --fresh\n")


def test_a_run_over_damage_changes_nothing(harvester: Harvester, tmp_path: Path) -> None:
    """A damaged shard of an open snapshot ends the run with exit 7 before anything is sent."""
    with beside(portal(pages(30))) as served:
        path = write_job(tmp_path, served.url, more="[run]\nrows_per_shard = 200\n")
        harvester("run", path, "--max-pages", 15)
        (shard,) = (tmp_path / "mirror" / "d").glob("2*Z/part-00000.jsonl")
        shard.write_bytes(shard.read_bytes()[:-1])
        asked = len(served.asked)
        said = harvester("run", path)
        assert said.code == Exit.LOCAL
        assert "part-00000.jsonl" in said.err
        assert "harvester run JOB --dataset d --" in said.err
        assert len(served.asked) == asked


# Streams and signals, in processes of their own


def environment(**more: str) -> dict[str, str]:
    """Return an environment for a process of its own."""
    return {**os.environ, "PYTHONWARNINGS": "error", **more}


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1"])
def test_no_encoding_fails_output(tmp_path: Path, encoding: str) -> None:
    """Whatever a terminal can show, output in Chinese does not fail."""
    with beside(portal(saying("8888", "维护é€"))) as served:
        path = write_job(tmp_path, served.url)
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "harvester", "check", str(path)],
            env=environment(PYTHONIOENCODING=encoding, NO_COLOR="1", LC_ALL="C"),
            capture_output=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == Exit.REFUSED
    assert b"8888" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_reader_that_leaves_does_no_harm(tmp_path: Path, stderr_too: bool) -> None:  # noqa: FBT001 - from the table
    """A closed pipe changes neither the mirror nor the exit code, and brings no complaint."""
    with beside(portal(pages(3))) as served:
        path = write_job(tmp_path, served.url)
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(  # noqa: S603 - ourselves
                [sys.executable, "-m", "harvester", "run", str(path), "--json", "-v", "--max-pages", "2"],
                env=environment(),
                stdout=writing,
                stderr=writing if stderr_too else subprocess.PIPE,
                check=False,
                timeout=20,
            )
        finally:
            os.close(writing)
    assert done.returncode == Exit.BUDGET
    assert stderr_too or b"next: harvester run" in done.stderr
    assert stderr_too or b"BrokenPipe" not in done.stderr


async def start(path: Path, command: str = "run") -> asyncio.subprocess.Process:
    """Start a command as a user does."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harvester", command, str(path)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def until_told(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Read the process's words until these come."""
    assert process.stderr is not None
    async with asyncio.timeout(10):
        while line := await process.stderr.readline():
            if words in line:
                return
    pytest.fail(f"the process ended without saying {words!r}")


def rows_of(folder: Path) -> bytes:
    """Return the published rows."""
    return b"".join(part.read_bytes() for part in sorted((folder / "mirror/d/current").glob("part-*")))


def expected_rows(last: int) -> bytes:
    """Return the rows that a portal of that many pages serves, as they are mirrored."""
    return b"".join(b'{"ID":"%d-%d"}\n' % (page, row) for page in range(1, last + 1) for row in range(20))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_in_order(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The first signal lets calls in flight finish, keeps everything, and the next run fetches only the rest."""
    async with portal(pages(200)) as served:
        path = write_job(tmp_path, served.url, more="[run]\nconcurrency = 8\nrows_per_shard = 400\n")
        served.hold_after = 60
        process = await start(path)
        async with asyncio.timeout(10):
            await served.held.wait()
        began = monotonic()
        process.send_signal(number)
        await until_told(process, b"stopping: calls in flight may finish")
        served.release.set()
        _, err = await process.communicate()
        assert process.returncode == code
        assert monotonic() - began < 5
        assert b"interrupted; everything fetched is kept" in err
        assert f"next: harvester run {path}".encode() in err
        assert b"Traceback" not in err
        assert 60 <= len(served.asked) < 200
        kept = {page for page in served.asked if page <= 200}
        before = len(served.asked)
        process = await start(path)
        await process.communicate()
        assert process.returncode == Exit.OK
        rest = set(range(1, 201)) - kept
        position = max(map(served.asked[before:].index, rest)) + 1  # from here on pages are read a second time
        again = [page for page in served.asked[before : before + position] if page <= 200]
        assert sorted(again) == sorted(rest)
        assert sorted(page for page in served.asked[before + position :] if page <= 200) == list(range(1, 201))
    assert rows_of(tmp_path) == expected_rows(200)


async def test_calls_in_flight_get_five_seconds(tmp_path: Path) -> None:
    """A platform that does not answer cannot keep an interrupted run from ending."""
    async with portal(pages(200)) as served:
        path = write_job(tmp_path, served.url, more="[run]\nconcurrency = 8\n")
        served.hold_after = 60
        process = await start(path)
        async with asyncio.timeout(10):
            await served.held.wait()
        began = monotonic()
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == Exit.INTERRUPTED
        assert 4.5 < monotonic() - began < 6.5


async def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    """Twice Ctrl-C does not wait for anything; what was durable is continued to the same bytes."""
    async with portal(pages(200)) as served:
        path = write_job(tmp_path, served.url, more="[run]\nconcurrency = 8\nrows_per_shard = 400\n")
        served.hold_after = 60
        process = await start(path)
        async with asyncio.timeout(10):
            await served.held.wait()
        process.send_signal(signal.SIGINT)
        await until_told(process, b"once more to leave at once")
        began = monotonic()
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert monotonic() - began < 1
        assert process.returncode == Exit.INTERRUPTED
        served.release.set()
        process = await start(path)
        await process.communicate()
        assert process.returncode == Exit.OK
    assert rows_of(tmp_path) == expected_rows(200)


async def test_a_check_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a command that keeps nothing at once: exit 130, one word, no traceback."""
    async with portal(pages(3)) as served:
        served.hold_after = 0
        process = await start(write_job(tmp_path, served.url), "check")
        async with asyncio.timeout(10):
            await served.held.wait()
        began = monotonic()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert monotonic() - began < 1
    assert err.decode().split() == ["interrupted"]


# Secrets


def forms(secret: str) -> set[bytes]:
    """Return a secret as it could leak: itself, in hex, in base64 at every alignment, encoded for a URL."""
    raw = secret.encode()
    # In base64 the characters that a shift touches at either end depend on the neighbours: leave them out.
    shifted = {base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)}
    digests = {raw.hex().encode(), raw.hex().upper().encode(), hashlib.sha256(raw).hexdigest().encode()}
    return {raw, quote(secret, safe="").encode(), *shifted, *digests}


CANARY = "C4nary+/token?=&%&tweet"


@pytest.mark.parametrize(
    "answer",
    [
        pages(3),
        saying("1433", "请求签名错误"),
        saying("1403", "no"),
        saying("8888", "?"),
        lambda _: b"<html>no</html>",
        lambda _: b"{",
    ],
    ids=["good", "signature", "permission", "unknown", "web page", "unreadable"],
)
def test_the_secret_stays_inside(
    harvester: Harvester, tmp_path: Path, answer: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No output and no file holds the secret, in any form, whether things go well or not."""
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.1)
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    with beside(portal(answer)) as served:
        path = write_job(tmp_path, served.url, credential=CANARY)
        said = [
            harvester("plan", path, "--json"),
            harvester("run", path, "-v"),
            harvester("run", path, "--json"),
            harvester("check", path, "--json"),
            harvester("check", path),
            harvester("status", path),
            harvester("quota", path),
            harvester("run", path, "--dataset", "e"),
        ]
        path.write_text(path.read_text().replace('{ file = "token" }', f'{{ env = "{CANARY}" }}'))
        said.append(harvester("run", path))
        path.write_text(path.read_text().replace(f'{{ env = "{CANARY}" }}', f'{{ evn = "{CANARY}" }}'))
        said.append(harvester("run", path))
        path.write_text(path.read_text().replace(f'{{ evn = "{CANARY}" }}', f'"{CANARY}'))
        said.append(harvester("check", path))
    printed = "".join(one.out + one.err for one in said).encode()
    written = contents(tmp_path / "mirror")
    assert any(name.endswith("events.jsonl") for name in written)
    for form in forms(CANARY):
        assert len(form) >= 20
        assert form not in printed
        assert [name for name, content in written.items() if form in content] == []


def test_the_search_for_secrets_finds_them() -> None:
    """The forms above match a secret that is hidden in the middle of something."""
    for before in ("", "a", "ab", "abc"):
        text = f"{before}{CANARY}{before}".encode()
        encoded = base64.b64encode(text)
        assert any(form in encoded for form in forms(CANARY))
    assert WUHAN_TOKEN.encode() in forms(WUHAN_TOKEN)


# The call ledger


METERED = """
max_calls = 20
calls_reset = "2099-01-01"
[datasets.e]
service = "d"
params = { a = "1" }
max_calls = 4
calls_reset = "2099-01-01"
[datasets.f]
service = "f"
"""


def test_quota(harvester: Harvester, tmp_path: Path) -> None:
    """A table of allowances, sharing said; nothing is written, no server is asked, and no secret is needed."""
    path = write_job(tmp_path, more=METERED)
    (tmp_path / "token").unlink()
    before = contents(tmp_path)
    said = harvester("quota", path)
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.out.splitlines() == [
        "dataset  operation  allowance  used  left  resets                     shared with",
        "d        d          20         0     20    2099-01-01T00:00:00+08:00  e",
        "e        d          4          0     4     2099-01-01T00:00:00+08:00  d",
    ]
    assert contents(tmp_path) == before


def test_quota_can_be_put_right(harvester: Harvester, tmp_path: Path) -> None:
    """For one dataset, which must be clear; the table that follows shows it, also for machines."""
    path = write_job(tmp_path, more=METERED)
    message = one_message(harvester("quota", path, "--set-used", "3"), Exit.USAGE)
    assert "--set-used is for one dataset" in message
    (pasted,) = re.findall(r"hint: harvester (.+)", message)
    said = harvester(*shlex.split(pasted), "--csv")
    assert (said.code, said.err) == (Exit.OK, "d: 3 calls counted as used from now on\n")
    assert said.out == (
        "dataset,operation,allowance,used,left,resets,shared_with\nd,d,20,3,17,2099-01-01T00:00:00+08:00,e\n"
    )
    assert harvester("quota", path, "--dataset", "f", "--set-used", "1").err == (
        "f: 1 call counted as used from now on\n"
    )
    found = json.loads(harvester("quota", path, "--json").out)
    assert [(each["dataset"], each["used"], each["left"]) for each in found] == [
        ("d", 3, 17),
        ("e", 3, 1),
        ("f", 1, None),
    ]
    assert "no enabled dataset 'g'" in one_message(harvester("quota", path, "--dataset", "g"), Exit.USAGE)


def test_quota_of_a_job_without_one(harvester: Harvester, tmp_path: Path) -> None:
    """Words instead of an empty table; for machines an empty list."""
    path = write_job(tmp_path)
    assert harvester("quota", path) == (Exit.OK, "", "no dataset has `max_calls`, and no call was counted\n")
    assert harvester("quota", path, "--json").out == "[]\n"


def test_quota_that_cannot_be_read(harvester: Harvester, tmp_path: Path) -> None:
    """Exit 7 with the file and the way out; putting it right mends it."""
    path = write_job(tmp_path, more=METERED)
    harvester("quota", path, "--dataset", "d", "--set-used", "3")
    (ledger,) = (Path(os.environ["XDG_STATE_HOME"]) / "harvester").glob("calls-*")
    ledger.write_bytes(ledger.read_bytes()[:-9])
    said = harvester("quota", path, "--dataset", "d")
    assert said.code == Exit.LOCAL
    assert f"d: {ledger} is damaged" in said.err
    assert "hint: say how many calls the platform has counted: harvester quota JOB --set-used N" in said.err
    assert harvester("quota", path, "--dataset", "d", "--set-used", "3").code == Exit.OK

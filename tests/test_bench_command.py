"""The command ``bench``: whom it measures, whom only if asked, and what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace
from test_bench_report import REPORT

from harvester.__main__ import main
from harvester.bench import command
from harvester.bench.command import at, demand_bound, is_own, own_job, stoppable
from harvester.bench.measurement import Limits
from harvester.bench.report import Report
from harvester.errors import Exit, UsageError
from harvester.model import App, Dataset, Secret

PLATFORM = App(
    name="w", platform="wuhan", url="https://rio.wuhan.gov.cn/ebus/", id="i", secret=Secret("t"), rate_limit=300
)
JOB = """
[apps.w]
platform = "wuhan"
passid = "id"
token = { file = "token" }
url = "https://platform.invalid/ebus/"
rate_limit = 300
[datasets.investors]
service = "one"
[datasets.companies]
service = "two"
"""


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def harvester(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def command(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harvester", "bench", *map(str, arguments)])
        code = main()
        return Said(code, *capsys.readouterr())

    return command


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """Write a job of a platform that is not there."""
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Dataset, Limits, bool]]:
    """Measure nothing; note what would have been measured."""
    found: list[tuple[Dataset, Limits, bool]] = []

    async def measure(_: object, dataset: Dataset, limits: Limits, *, own: bool, tell: object) -> Report:
        del tell
        found.append((dataset, limits, own))
        return REPORT

    monkeypatch.setattr(command, "measure", measure)
    return found


def dataset_at(url: str, **about: str) -> Dataset:
    """Return a dataset of a job whose app is at an address."""
    app = replace(PLATFORM, url=url, **about)
    return Dataset(name="d", app=app, service="d")


@pytest.mark.parametrize(
    ("dataset", "own"),
    [
        (dataset_at("http://127.0.0.1:8080/"), True),
        (dataset_at("https://[::1]/x"), True),
        (dataset_at("http://localhost/"), True),
        (dataset_at("http://127.0.0.1:8080/", host="localhost:8080"), True),
        (dataset_at("http://127.0.0.1:8080/", host="rio.wuhan.gov.cn"), False),  # a tunnel
        (dataset_at("http://127.0.0.1:8080/", proxy="http://proxy:3128"), False),
        (dataset_at("http://127.0.0.1:8080/", proxy="env"), False),
        (dataset_at("http://192.168.1.2/"), False),
        (dataset_at("https://127.0.0.1.example.org/"), False),
        (Dataset(name="d", app=replace(PLATFORM, url="http://127.0.0.1/"), url="https://rio.wuhan.gov.cn/d"), False),
    ],
)
def test_only_what_ends_on_this_machine_is_ones_own(dataset: Dataset, own: bool) -> None:  # noqa: FBT001 - expected
    """Nothing leads on from there: no proxy, no tunnel to somebody else's host."""
    assert is_own(dataset) is own


def test_another_address_has_to_be_on_this_machine() -> None:
    """Signed calls go nowhere else; a whole address in the job gives way to it."""
    assert at(dataset_at("https://a.example/"), "http://127.0.0.1:1/").app.url == "http://127.0.0.1:1/"
    whole = Dataset(name="d", app=PLATFORM, url="https://rio.wuhan.gov.cn/ebus/service/d")
    assert command.target(at(whole, "http://127.0.0.1:1/s/")) == "http://127.0.0.1:1/s/d"
    for url in ("https://b.example/", "127.0.0.1:80", "ftp://127.0.0.1/"):
        with pytest.raises(UsageError, match="on this machine"):
            at(dataset_at("https://a.example/"), url)


def test_a_platform_needs_a_bound() -> None:
    """Calls or seconds."""
    with pytest.raises(UsageError, match="nothing was sent"):
        demand_bound(dataset_at("https://a.example/"), Limits())
    demand_bound(dataset_at("https://a.example/"), Limits(calls=1))
    demand_bound(dataset_at("https://a.example/"), Limits(seconds=1))


def test_an_own_gateway_needs_no_job_file() -> None:
    """It is asked as a simulator would be."""
    (dataset,) = own_job("http://127.0.0.1:1/s/", "companies").datasets
    assert is_own(dataset)
    assert command.target(dataset) == "http://127.0.0.1:1/s/companies"


def test_a_platform_without_a_bound_is_a_mistake(harvester: Callable[..., Said], job_file: Path) -> None:
    """Exit code 2, and how to mend it."""
    said = harvester(job_file)
    assert said.code == Exit.USAGE
    assert "--calls N" in said.err


def test_without_a_terminal_nobody_can_be_asked(
    harvester: Callable[..., Said], job_file: Path, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts say --yes."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    said = harvester(job_file, "--calls", 30)
    assert (said.code, asked) == (Exit.USAGE, [])
    assert "nothing was sent" in said.err
    assert "--yes" in said.err


def test_who_says_no_sends_nothing(
    harvester: Callable[..., Said], job_file: Path, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question says how many calls go where."""
    questions: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda text, **_: questions.append(text))
    said = harvester(job_file, "--calls", 30)
    assert (said.code, asked) == (Exit.OK, [])
    assert questions == ["Send up to 30 calls to https://platform.invalid/ebus/one?"]
    assert "nothing was sent" in said.err


def test_a_platform_is_measured_within_its_bound(
    harvester: Callable[..., Said], job_file: Path, asked: list[tuple[Dataset, Limits, bool]]
) -> None:
    """The dataset that is named, or the first."""
    assert harvester(job_file, "--calls", 30, "--yes").code == Exit.OK
    assert harvester(job_file, "--seconds", 5, "--yes", "--dataset", "companies").code == Exit.OK
    assert [(dataset.name, limits, own) for dataset, limits, own in asked] == [
        ("investors", Limits(calls=30), False),
        ("companies", Limits(seconds=5), False),
    ]
    assert harvester(job_file, "--calls", 30, "--yes", "--dataset", "none").code == Exit.USAGE


def test_an_own_gateway_is_measured_without_asking(
    harvester: Callable[..., Said], job_file: Path, asked: list[tuple[Dataset, Limits, bool]]
) -> None:
    """With the job's signatures, or without a job."""
    assert harvester(job_file, "--url", "http://127.0.0.1:1/").code == Exit.OK
    assert harvester("--url", "http://127.0.0.1:1/", "--dataset", "x").code == Exit.OK
    assert [(dataset.name, own) for dataset, _, own in asked] == [("investors", True), ("x", True)]
    assert harvester("--url", "https://platform.invalid/").code == Exit.USAGE


def test_options_of_a_simulator_are_for_a_simulator(
    harvester: Callable[..., Said], job_file: Path, asked: list[object]
) -> None:
    """A limit that is given for a gateway that has its own would mislead."""
    said = harvester(job_file, "--calls", 3, "--yes", "--rate-limit", 5)
    assert (said.code, asked) == (Exit.USAGE, [])
    assert "--rate-limit is for a simulator" in said.err


def test_the_result_is_on_standard_output(
    harvester: Callable[..., Said], job_file: Path, asked: list[object], tmp_path: Path
) -> None:
    """A table for people, the sentence last; or JSON; and a drawing."""
    plot = tmp_path / "plot.svg"
    said = harvester(job_file, "--calls", 3, "--yes", "--plot", plot)
    assert said.out.splitlines()[0].split()[:2] == ["offered/s", "accepted/s"]
    assert "a sliding window" in said.out
    assert "bottleneck" in said.err.splitlines()[-1]
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314 - our own
    assert json.loads(harvester(job_file, "--calls", 3, "--yes", "--json").out)["limit"] == 110
    assert len(asked) == 2


def test_a_plot_that_cannot_be_written_is_told(
    harvester: Callable[..., Said], job_file: Path, asked: list[object], tmp_path: Path
) -> None:
    """Before it: the figures are out."""
    said = harvester(job_file, "--calls", 3, "--yes", "--plot", tmp_path / "none" / "plot.svg")
    assert said.code == Exit.LOCAL
    assert "a sliding window" in said.out
    assert asked


async def test_a_signal_ends_it_in_order() -> None:
    """What has to be tidied up is."""
    tidied = []

    async def work() -> Report:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
        finally:
            tidied.append(1)
        return REPORT

    assert await stoppable(work()) is Exit.TERMINATED
    assert tidied == [1]


def test_a_simulator_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    """As a user would: so many calls, JSON, and nothing left behind when it is stopped."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "harvester", "bench", "--rows", "40", "--rate-limit", "50"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, "--calls", "60", "--json"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == Exit.OK, done.stderr
    found = json.loads(done.stdout)
    assert (found["calls"], found["own"], found["granted"]) == (60, True, 50)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        assert process.stderr is not None
        assert process.stderr.readline().startswith("offering")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == Exit.TERMINATED
        assert "stopped" in process.stderr.read()
    assert {path.name for path in tmp_path.iterdir()} <= {"state"}

"""Bodies that nobody would send on purpose: each is read rightly or refused, and what is stored was really in one.

What the tool reads is compared to the byte with a second reader (``body_reader``), in both directions: nothing wrong
is taken, and nothing right is refused.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import parse_qs

import orjson
import pytest
from aiohttp import web
from body_mutations import good_bodies, mutated
from body_reader import NoPageError, disagreement, kept, page_in
from msgspec.structs import replace
from test_platforms import SPECIMENS

import harvester
from harvester.errors import Exit
from harvester.harvest import mirror
from harvester.job import Job
from harvester.model import Dataset, Kind, Page, Reply, Verdict
from harvester.platforms import PLATFORMS
from harvester.report import DatasetResult

SEED: Final = 1
BODIES: Final = 10_000  # per platform
SLOWEST: Final = 2.0  # seconds that one body of some kilobytes may take on a busy machine
MIRRORED: Final = 20  # datasets per platform, with two bad answers each
EVERY_PLATFORM: Final = pytest.mark.parametrize("platform", sorted(PLATFORMS))


@contextmanager
def alarmed(seconds: float) -> Iterator[None]:
    """Fail instead of hanging; regular expressions look at signals, too."""

    def ring(*_: object) -> None:
        raise AssertionError(f"not read within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def dataset_of(platform: str, charset: str) -> Dataset:
    """Return a dataset whose charset is known or not."""
    return replace(SPECIMENS[platform].dataset, charset=charset)


def drawn(platform: str, count: int) -> Iterator[tuple[Dataset, Reply]]:
    """Yield so many changed answers, the same every time."""
    dice, bodies = Random(SEED), good_bodies(platform)  # noqa: S311 - as above
    datasets = {charset: dataset_of(platform, charset) for charset in ("", "utf-8", "gb18030")}
    for _ in range(count):
        body = mutated(dice, bodies)
        kind = "application/json" + (";charset=GBK" if dice.random() < 0.1 else "")
        yield datasets[dice.choice(("", "", "", "utf-8", "gb18030"))], Reply(200, {"Content-Type": kind}, body)


@EVERY_PLATFORM
def test_good_answers_are_pages(platform: str) -> None:
    """What the changes start from is read by both readers alike, most of it as rows."""
    dataset, rows = dataset_of(platform, ""), 0
    for body in good_bodies(platform):
        assert disagreement(dataset, Reply(200, {}, body)) == "", body
        got = PLATFORMS[platform].read(dataset, Reply(200, {}, body))
        rows += got.rows if isinstance(got, Page) else 0
    assert rows > 60


@EVERY_PLATFORM
def test_ten_thousand_bodies(platform: str) -> None:
    """No exception, no wrong row, no right one refused, and no body that takes long."""
    slowest, pages, refused = 0.0, 0, Counter[str]()
    for number, (dataset, reply) in enumerate(drawn(platform, BODIES)):
        began = time.perf_counter()
        with alarmed(10 * SLOWEST):
            got = PLATFORMS[platform].read(dataset, reply)
        slowest = max(slowest, time.perf_counter() - began)
        assert disagreement(dataset, reply) == "", (SEED, number, dataset.charset, reply)
        if isinstance(got, Page):
            pages += got.rows > 0
        else:
            refused[got.code] += 1
            assert orjson.dumps([got.code, got.text, got.meaning, got.hint])
    print(f"{platform}: {pages:,} of {BODIES:,} are pages with rows; slowest {slowest:.3f} s; {refused.most_common(5)}")
    assert pages > BODIES / 20  # else nothing was compared
    assert sum(refused.values()) > BODIES / 2
    assert slowest < SLOWEST


@EVERY_PLATFORM
@pytest.mark.parametrize(
    "change",
    [
        lambda page: replace(page, lines=page.lines.replace(b"1.10", b"1.1")),
        lambda page: replace(page, lines=page.lines.replace(b"12345678901234567890", b"1.2345678901234567e19")),
        lambda page: replace(page, lines=page.lines.replace(b"\\ud83d", b"\\ufffd", 1)),
        lambda page: replace(page, lines=page.lines.replace(b'"a":"\\ud83d\\ude00",', b"")),
        lambda page: replace(page, lines=page.lines.partition(b"\n")[2], rows=page.rows - 1),
        lambda page: replace(page, lines=page.lines + b"null\n", rows=page.rows + 1),
        lambda page: replace(page, lines=b"".join(reversed(page.lines.splitlines(keepends=True)))),
        lambda page: replace(page, number=7),
        lambda _: Verdict(kind=Kind.AGAIN, code="", text="", meaning=""),
    ],
    ids=["digit", "float", "half pair", "double key", "lost", "more", "order", "number", "refused"],
)
def test_the_comparison_sees_a_wrong_row(
    platform: str, change: Callable[[Page], Page | Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instrument itself: whatever a reader may do to a row is noticed."""
    read = PLATFORMS[platform].read
    body = good_bodies(platform)[0]

    def wrong(dataset: Dataset, reply: Reply) -> Page | Verdict:
        got = read(dataset, reply)
        assert isinstance(got, Page)
        changed = change(got)
        assert changed != got
        return changed

    monkeypatch.setattr(PLATFORMS[platform], "read", wrong)
    assert disagreement(dataset_of(platform, ""), Reply(200, {}, body))


# Through a server, a run and its files


def rows_of(name: str, page: int) -> list[dict[str, str]]:
    """Return the rows of a good page; there are three."""
    return [{"ID": f"{name}-{page}-{row}", "T": "武汉"} for row in range(5 if page <= 3 else 0)]


def good(platform: str, name: str, page: int) -> bytes:
    """Return a good answer."""
    if platform == "wuhan":
        return orjson.dumps({"errcode": 0, "data": {"pageNo": page, "pageSize": 5, "data": rows_of(name, page)}})
    return orjson.dumps({"result": True, "code": "1000", "total": 15, "data": rows_of(name, page)})


def stops_an_app(platform: str, body: bytes) -> bool:
    """Tell whether an answer says something about the app, not the page: then all its datasets wait, or stop."""
    got = PLATFORMS[platform].read(dataset_of(platform, ""), Reply(200, {}, body))
    return isinstance(got, Verdict) and (got.kind in {Kind.CLOCK, Kind.OVER_LIMIT} or got.concerns == "app")


def bad_answers(platform: str) -> dict[str, list[bytes]]:
    """Return two changed bodies per dataset."""
    dice, bodies = Random(SEED + 1), good_bodies(platform)  # noqa: S311 - the same every time
    made = (body for body in iter(lambda: mutated(dice, bodies), b"none") if not stops_an_app(platform, body))
    return {f"{platform}-{number}": [next(made), next(made)] for number in range(MIRRORED)}


@asynccontextmanager
async def served(answers: dict[str, list[bytes]]) -> AsyncIterator[str]:
    """Serve lists of three pages; page 2 of each comes wrong twice before it comes right."""
    left = {name: list(bodies) for name, bodies in answers.items()}

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if request.path == "/":
            form = parse_qs(body.decode())
            name, page = form["method"][0], orjson.loads(form["param"][0])["pageNum"]
        else:
            name, page = request.path.strip("/"), int(orjson.loads(body)["query"]["pageNo"])
        if page == 2 and left[name]:
            return web.Response(body=left[name].pop(0), content_type="application/json")
        return web.Response(body=good(name.partition("-")[0], name, page), content_type="application/json")

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def write_job(folder: Path, url: str, names: list[str]) -> Path:
    """Write the job of all datasets."""
    apps = (
        f'[apps.{name}]\nplatform = "{name}"\n{key} = "id"\n{secret} = {{ env = "A_SECRET" }}\nurl = "{url}"\n'
        'rate_limit = "none"\n'
        for name, (key, secret) in ((name, platform.CREDENTIAL_KEYS) for name, platform in PLATFORMS.items())
    )
    key = {"wuhan": "service", "sipop": "method"}
    tables = (
        f'[datasets.{name}]\napp = "{name.partition("-")[0]}"\n{key[name.partition("-")[0]]} = "{name}"\n'
        for name in names
    )
    path = folder / "job.toml"
    path.write_text("".join([*apps, *tables, "[run]\ntimeout = 5\n"]))
    return path


def possible(platform: str, bodies: list[bytes]) -> set[bytes]:
    """Return every row that the second reader finds in bodies, in whichever charset."""
    found = set()
    for body in bodies:
        for known in ("", "utf-8", "gb18030"):
            try:
                found.update(page_in(platform, body, known, "").rows)
            except NoPageError:
                continue
    return found


def stored(entry: DatasetResult) -> set[bytes]:
    """Return every row in the shards and journals of a snapshot."""
    parts = [path.read_bytes() for path in Path(entry.snapshot).glob("part-*")]
    # The records of a journal begin with a capital letter, as no JSON does.
    return {line for part in parts for line in part.splitlines() if not re.match(rb"[A-Z] ", line)}


async def test_what_is_stored_was_sent(tmp_path: Path) -> None:
    """Runs over changed answers end in order, and hold nothing that was not in one."""
    answers = {name: bodies for platform in PLATFORMS for name, bodies in bad_answers(platform).items()}
    async with served(answers) as url:
        job = Job.load(write_job(tmp_path, url, list(answers)), environ={"A_SECRET": "made-up"})
        result = await mirror(job)
    assert result.exit is not Exit.UNEXPECTED
    ends = Counter(entry.exit.name for entry in result.datasets)
    print(f"{len(result.datasets)} datasets: {ends}")
    assert ends["OK"] > MIRRORED  # most bad answers are simply asked for again
    foreign = 0
    for entry in result.datasets:
        platform = entry.name.partition("-")[0]
        first, middle, last = (
            {kept(orjson.dumps(row).decode()) for row in rows_of(entry.name, page)} for page in (1, 2, 3)
        )
        found, others = stored(entry), possible(platform, answers[entry.name])
        assert found <= first | middle | last | others, (entry.name, answers[entry.name])
        assert entry.exit is not Exit.OK or (found >= first | last and found & (middle | others))
        foreign += bool(found & others)
    assert foreign  # some changed answers are good ones, of other rows


@pytest.mark.soak
def test_a_million_bodies() -> None:
    """Guided by coverage, for as long as a million bodies take."""
    if find_spec("atheris") is None:
        pytest.skip("atheris is no dependency of the tests: pip install atheris")
    script = Path(__file__).with_name("atheris_bodies.py")
    runs = os.environ.get("HARVESTER_FUZZ_RUNS", "1000000")
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, str(script), f"-runs={runs}"],
        env={**os.environ, "PYTHONPATH": str(Path(harvester.__file__).parents[1])},
        capture_output=True,
        check=False,
        text=True,
    )
    print(done.stderr[-2000:])
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr

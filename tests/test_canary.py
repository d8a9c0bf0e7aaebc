"""A secret leaves the process in one way only, inside a signature, and a signature goes to the platform only.

Real runs against the simulator, good and bad, at their most verbose and with asyncio's debugging on. Everything that a
command leaves behind is searched for every twelve characters of every form that a secret could leak in.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, quote_plus

import orjson
import pytest
from msgspec.structs import replace
from test_cli import beside

from harvester import health
from harvester.__main__ import main
from harvester.errors import Exit
from harvester.harvest import mirror
from harvester.job import Job
from harvester.model import App, Request, Secret, Signed
from harvester.platforms import PLATFORMS
from harvester.route import Route
from harvester.send import Sender
from harvester.simulator import Config, Quirks, Simulator, jobfile
from harvester.simulator import config as registered

TOKEN: Final = "C4nary+/tok=n?&%~q9Zr7TgXw2LkPb4"
SECRET: Final = "3f2a9c1b77de40518a6e0c94b25d8f13"
PASSWORD: Final = "pr0xy-P4ssw0rd-9b1deb4d3b7d4bad"
CANARIES: Final = (TOKEN, SECRET, PASSWORD)
PIECE: Final = 12  # characters of a secret that nothing may hold
SIGNED_PIECE: Final = 16  # the same of a signature or nonce, which hexadecimal digests could hold by chance


def forms(secret: str) -> Iterator[str]:
    """Yield a secret in every way that it could leak."""
    raw = secret.encode()
    yield from (secret, secret.upper(), secret.lower(), secret[::-1], raw.hex(), raw.hex().upper(), repr(raw))
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1])
    yield from (secret.replace("&", "&amp;"), "".join(f"\\u{ord(char):04x}" for char in secret))
    for shift in range(3):  # in base64 the characters at either end depend on what stands beside
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + raw).decode()[4 if shift else 0 : -4]
    yield from (base64.b64encode(raw[::-1]).decode()[:-4], base64.b32encode(raw).decode()[:-8])
    for digest in (hashlib.md5, hashlib.sha1, hashlib.sha256):  # guessed at leisure, where the secret is short
        yield digest(raw).hexdigest()


def pieces(texts: Iterable[str], size: int) -> set[str]:
    """Return every run of so many characters in the texts."""
    return {text[at : at + size] for text in texts for at in range(len(text) - size + 1)}


LEAKS: Final = pieces((form for canary in CANARIES for form in forms(canary)), PIECE)


def leaks(content: str, signed: Iterable[str] = ()) -> list[str]:
    """Return what of the secrets, or of these signatures, a text holds."""
    return sorted((pieces([content], PIECE) & LEAKS) | (pieces([content], SIGNED_PIECE) & pieces(signed, SIGNED_PIECE)))


class Watched:
    """The commands of a test: what they left behind, and what was signed meanwhile."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        self.folder = folder
        self.signed: list[str] = []
        self.said: list[str] = []
        self._capsys = capsys
        self._caplog = caplog

    def __call__(self, *arguments: object) -> int:
        """Run a command in this process; return its exit code."""
        sys.argv = ["harvester", *map(str, arguments)]
        code = main()
        self.said += [*self._capsys.readouterr(), self._caplog.text]
        self._caplog.clear()
        return code

    @property
    def err(self) -> str:
        """What the last command said to people."""
        return self.said[-2]

    def written(self) -> dict[str, str]:
        """Return every file that a command may have written, by its path, but for the job's own."""
        found = {}
        for top in (self.folder / "mirror", Path(os.environ["XDG_STATE_HOME"])):
            for path in sorted(top.rglob("*")):
                found[str(path)] = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        return found

    def demand_silence(self) -> None:
        """Fail if anything was said or written that holds a piece of a secret or a signature."""
        for text in self.said:
            assert leaks(text, self.signed) == []
        for name, content in self.written().items():
            assert leaks(name + content, self.signed) == [], name


def told(signed: Signed) -> Iterator[str]:
    """Yield what a signed call lets the platform alone know."""
    yield from (value for name, value in signed.headers.items() if name in {"x-tif-signature", "x-tif-nonce"})
    yield from parse_qs(signed.body.decode()).get("sign", ())


@pytest.fixture
def watched(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watched]:
    """Commands at their most verbose, whose every word, file and signature is searched when the test ends."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(health, "NEVER_PATIENCE", 0.1)
    monkeypatch.setattr(health, "PROBE_INTERVAL", 0.05)
    monkeypatch.setattr(registered, "WUHAN_TOKEN", TOKEN)
    monkeypatch.setattr(registered, "SIPOP_APP_SECRET", SECRET)
    commands = Watched(tmp_path, capsys, caplog)
    for platform in PLATFORMS.values():
        monkeypatch.setattr(platform, "sign", spied(platform.sign, commands.signed))
    yield commands
    commands.demand_silence()


def spied(sign: Callable[..., Signed], seen: list[str]) -> Callable[..., Signed]:
    """Return a way to sign that notes what only the platform may know."""

    def spy(request: Request, app: App, now: float, nonce: str) -> Signed:
        signed = sign(request, app, now, nonce)
        seen.extend(told(signed))
        return signed

    return spy


def job_for(simulator: Simulator, folder: Path, *, run: str = "timeout = 2\nrows_per_shard = 100\n") -> Path:
    """Write the job file of everything that is simulated."""
    path = folder / "job.toml"
    jobfile.write(path, simulator.url, simulator.config.rate_limit, simulator.tables)
    path.write_text(path.read_text() + f"\n[run]\n{run}")
    return path


def reading_commands(job: Path) -> Iterator[tuple[object, ...]]:
    """Yield every command that looks at a job and its mirror, in every form of its output."""
    folder = job.parent / "mirror"
    commands: tuple[tuple[object, ...], ...] = (("status", job), ("status", folder), ("quota", job), ("verify", folder))
    for command in commands:
        yield from (command, (*command, "--json"))
    yield from (("status", job, "--csv"), ("quota", job, "--csv"), ("run", job, "--dataset", "e"), ("nonsense", job))


def test_when_all_goes_well(watched: Watched, tmp_path: Path) -> None:
    """Every command; shards, journals, checkpoint, quarantine, ledger and slots are there and hold nothing."""
    with beside(Simulator(Config(rows=400, rate_limit=300, quirks={"companies": Quirks(body="invalid")}))) as simulator:
        job = job_for(simulator, tmp_path, run="rows_per_shard = 100\nattempts = 1\n")
        job.write_text(job.read_text().replace('service = "investors"', 'service = "investors"\nmax_calls = 1000'))
        assert watched("check", job) == Exit.OK
        for line in ("check --csv", "check --json", "plan", "plan --json"):
            command, *options = line.split()
            watched(command, job, *options)
        assert watched("run", job, "-v", "--max-pages", 10) == Exit.BUDGET
        watched.demand_silence()
        names = set(watched.written())
        assert watched("run", job, "-v", "--json") == Exit.OPEN_PAGES
        assert watched("run", job, "--fresh", "--quiet") == Exit.OPEN_PAGES
        for looking in reading_commands(job):
            watched(*looking)
    names |= set(watched.written())
    for wanted in ("events.jsonl", "result.json", "report.html", "checkpoint.json", ".pages", "part-00000.jsonl",
                   "pages.idx", "datapackage.json", "current.json", "/quarantine/", "/slots-", "/calls-"):  # fmt: skip
        assert any(wanted in name for name in names), wanted
    assert len(watched.signed) > 100


def test_when_the_signature_is_wrong(watched: Watched, tmp_path: Path) -> None:
    """1433 and 1004: the server knows another secret."""
    with beside(Simulator(Config(rows=50, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path)
        (tmp_path / "job.wuhan.secret").write_text(TOKEN[::-1])
        (tmp_path / "job.sipop.secret").write_text(SECRET[::-1])
        for command in (
            ("run", job, "-v"),
            ("run", job, "--json"),
            ("check", job),
            ("check", job, "--json"),
            ("plan", job),
        ):
            assert watched(*command) == Exit.REFUSED
            assert "1433" in "".join(watched.said)
            assert "1004" in "".join(watched.said)
        for looking in reading_commands(job):
            watched(*looking)


def test_when_calls_are_refused_for_the_rate(watched: Watched, tmp_path: Path) -> None:
    """1141, 1008 and a used-up allowance."""
    with beside(Simulator(Config(rows=50, rate_limit=None, quota="3/day"))) as simulator:
        job = job_for(simulator, tmp_path, run="limit_patience = 0.2\n")
        assert watched("run", job, "-v") == Exit.BUDGET
        assert "over limit" in "".join(watched.said)


def test_when_nobody_answers(watched: Watched, tmp_path: Path) -> None:
    """A refused connection, a server that hangs up, and one that says nothing HTTP."""
    with beside(Simulator(Config(rows=50, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path, run="timeout = 0.3\nstall_patience = 0.1\n")
    for command in (("run", job, "-v"), ("check", job), ("plan", job, "--csv")):
        assert watched(*command) == Exit.OPEN_PAGES
    assert "Connection refused" in "".join(watched.said)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text, port = job.read_text(), silent.getsockname()[1]
        job.write_text(text.replace(simulator.url, f"http://127.0.0.1:{port}"))
        assert watched("run", job, "-v") == Exit.OPEN_PAGES
        job.write_text(text.replace(simulator.url, f"https://127.0.0.1:{port}"))
        assert watched("check", job) == Exit.OPEN_PAGES
    job.write_text(text.replace(simulator.url, "http://no-such-host.invalid").replace('"none"', "300"))
    assert watched("run", job, "-v") == Exit.OPEN_PAGES


def test_when_the_proxy_fails(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its password stays as secret as the platform's, from the job file and from the environment."""
    with beside(Simulator(Config(rows=50, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path, run="timeout = 0.3\nstall_patience = 0.1\n")
        (tmp_path / "password").write_text(PASSWORD)
        (tmp_path / "password").chmod(0o600)
        proxy = 'proxy = { url = "http://127.0.0.1:9", user = "me", password = { file = "password" } }'
        text = job.read_text()
        job.write_text(text.replace('rate_limit = "none"', f'{proxy}\nrate_limit = "none"'))
        for command in (("run", job, "-v"), ("check", job)):
            assert watched(*command) == Exit.LOCAL
            assert "127.0.0.1:9" in watched.err
        monkeypatch.setenv("http_proxy", f"http://me:{PASSWORD}@127.0.0.1:9/")
        monkeypatch.setenv("no_proxy", "")
        job.write_text(text.replace('rate_limit = "none"', 'proxy = "env"\nrate_limit = "none"'))
        assert watched("run", job, "-v") == Exit.LOCAL


DAMAGES: Final[tuple[tuple[str, bytes], ...]] = (
    ("mirror/*/*/checkpoint.json", b"{"),
    ("mirror/*/current.json", b"\xff"),
    ("mirror/*/*/part-00000.jsonl", b"x"),
    ("mirror/*/*/pages.idx", b"x"),
    ("mirror/*/*/datapackage.json", b"null"),
)


def test_when_files_are_damaged(watched: Watched, tmp_path: Path) -> None:
    """Every file of a mirror, of the ledger and of the shared moments, one after the other."""
    with beside(Simulator(Config(rows=100, rate_limit=300))) as simulator:
        job = job_for(simulator, tmp_path)
        job.write_text(job.read_text().replace('service = "investors"', 'service = "investors"\nmax_calls = 1000'))
        assert watched("run", job) == Exit.OK
        shutil.copytree(tmp_path / "mirror", tmp_path / "good")
        for pattern, content in DAMAGES:
            shutil.rmtree(tmp_path / "mirror")
            shutil.copytree(tmp_path / "good", tmp_path / "mirror", symlinks=True)
            for path in tmp_path.glob(pattern):
                path.write_bytes(content)
            for command in (("run", job, "-v"), ("status", job), ("verify", tmp_path / "mirror")):
                watched(*command)
        for path in Path(os.environ["XDG_STATE_HOME"]).glob("*/*"):
            path.write_bytes(b"junk " * 20)
        assert watched("run", job, "-v", "--fresh") == Exit.LOCAL
        assert watched("quota", job) == Exit.LOCAL


MISPLACED: Final = (
    ('{ file = "token" }', '"CANARY"'),
    ('{ file = "token" }', '"CANARY'),
    ('{ file = "token" }', "CANARY"),
    ('{ file = "token" }', '{ file = "CANARY" }'),
    ('{ file = "token" }', '{ env = "CANARY" }'),
    ('{ file = "token" }', '{ command = ["CANARY"] }'),
    ('{ file = "token" }', '{ command = ["false", "CANARY"] }'),
    ('{ file = "token" }', '{ command = "CANARY" }'),
    ('{ file = "token" }', '{ evn = "CANARY" }'),
    ('{ file = "token" }', '{ "CANARY" = "token" }'),
    ('{ file = "token" }', '["CANARY"]'),
    ('token = { file = "token" }', 'token.file = "token"\ntoken.file = "CANARY"'),
    ('token = { file = "token" }', '[apps.w.token]\n"CANARY" = 1'),
    ('token = { file = "token" }', '"CANARY" = "token"'),
    ('token = { file = "token" }', 'tokn = "CANARY"'),
    ('token = { file = "token" }', 'token = { file = "token" }\n"CANARY" = 1\n"CANARY" = 2'),
    ('token = { file = "token" }', 'token = { file = "token" }\nid_headers = ["CANARY"]\nid_headers = 5'),
    ("[datasets.d]", '[datasets.d]\ntoken = "CANARY"'),
    ("[datasets.d]", '[run]\ntoken = "CANARY"\n[datasets.d]'),
    ("[datasets.d]", '["CANARY"]\n[datasets.d]'),
    ("URL", "http://me:CANARY@127.0.0.1:9/"),
    ("URL", "http://CANARY@127.0.0.1:9/"),
    ("URL", "//me:CANARY@[/"),
    ("[datasets.d]", '[datasets.d]\nurl = "https://me:CANARY@example.org/"'),
    ("[apps.w]", '[apps.w]\nproxy = "http://me:CANARY@127.0.0.1:9/"'),
    ("[apps.w]", '[apps.w]\nproxy = { url = "http://127.0.0.1:9/", user = "me", password = "CANARY" }'),
)
JOB: Final = """\
[apps.w]
platform = "wuhan"
passid = "id"
token = { file = "token" }
url = "URL"
rate_limit = "none"

[datasets.d]
service = "d"
"""


@pytest.mark.parametrize("canary", [SECRET, TOKEN], ids=["hexadecimal", "mixed"])
@pytest.mark.parametrize(("old", "new"), MISPLACED, ids=[new.replace("\n", " ") for _, new in MISPLACED])
def test_when_it_stands_in_the_wrong_place(watched: Watched, tmp_path: Path, old: str, new: str, canary: str) -> None:
    """Wherever a slip may put it in the job file, the message names the place and not what stands there."""
    job = tmp_path / "job.toml"
    assert old in JOB
    job.write_text(JOB.replace(old, new.replace("CANARY", canary)).replace("URL", "http://127.0.0.1:9/"))
    (tmp_path / "token").write_text("made up")
    for command in ("run", "check", "plan"):
        assert watched(command, job) == Exit.USAGE
        assert str(job) in watched.err
    for command in ("status", "quota"):
        watched(command, job)


@pytest.mark.parametrize(
    "place",
    ["harvester.platforms.wuhan.read", "harvester.platforms.sipop.read", "harvester.platforms.wuhan.sha256",
     "harvester.platforms.sipop.md5", "harvester.send.Sender.send", "harvester.send.Sender._whole",
     "harvester.pace.Pacer.permit", "harvester.attempt.Caller.attempt", "harvester.dataset_run.DatasetRun.accept",
     "harvester.store.durable.write_all", "harvester.job.credentials._cleaned", "harvester.harvest._write_result"],
)  # fmt: skip
def test_when_the_program_is_at_fault(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A traceback from anywhere on the way of a call shows where, and not what was signed with."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with beside(Simulator(Config(rows=50, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path)
        monkeypatch.setattr(place, fail)
        assert watched("run", job, "-v") == Exit.UNEXPECTED
        assert "RuntimeError: a bug" in watched.err
        if "harvest." not in place and "durable" not in place and "dataset_run" not in place:
            assert watched("check", job) == Exit.UNEXPECTED


async def test_no_object_shows_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ``repr`` of everything of ours that is alive during a call, as debuggers and crash reports print it."""
    signatures: list[str] = []
    shown: dict[str, str] = {}
    send = Sender.send

    async def looked_at(self: Sender, signed: Signed) -> Any:  # noqa: ANN401 - a Reply
        signatures.extend(told(signed))
        shown["Signed"] = repr(signed)
        for each in gc.get_objects():
            module, name = str(type(each).__module__), type(each).__name__
            if module.startswith("harvester") and not module.startswith("harvester.simulator"):
                shown[name] = shown.get(name, "")[:100_000] + repr(each)
        return await send(self, signed)

    monkeypatch.setattr(Sender, "send", looked_at)
    monkeypatch.setattr(registered, "WUHAN_TOKEN", TOKEN)
    monkeypatch.setattr(registered, "SIPOP_APP_SECRET", SECRET)
    async with Simulator(Config(rows=20, rate_limit=None)) as simulator:
        job = Job.load(job_for(simulator, tmp_path))
        names = ("wuhan-companies", "sipop-patent.search")
        job = replace(job, datasets=tuple(dataset for dataset in job.datasets if dataset.name in names))
        assert (await mirror(job)).exit is Exit.OK
    for address in ("http://example.org/", "https://example.org/"):
        route = Route("http://127.0.0.1:9", ("me", Secret(PASSWORD)), from_env=False, host="")
        shown[f"Way {address}"] = repr(route.way(address))
        shown["Route"] = repr(route)
    assert {"Signed", "Secret", "App", "Dataset", "Job", "Sender", "Caller", "AppRun", "DatasetRun"} <= shown.keys()
    assert signatures
    assert {name: found for name, text in shown.items() if (found := leaks(text, signatures))} == {}


AUDITED: Final = textwrap.dedent(
    """
    import os, sys
    log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watch(event, arguments):
        if event in {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.spawn"}:
            os.write(log, f"{event} {arguments!r}\\n".encode())

    sys.addaudithook(watch)
    from harvester.__main__ import main
    sys.exit(main())
    """
)


def test_no_process_gets_to_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one kind of child is a credential's command; neither its arguments and environment nor ours hold a secret."""
    monkeypatch.setattr(registered, "WUHAN_TOKEN", TOKEN)
    monkeypatch.setattr(registered, "SIPOP_APP_SECRET", SECRET)
    helper = textwrap.dedent(
        """
        import os
        from pathlib import Path
        if Path("/proc/self/environ").exists():
            processes = (os.getpid(), os.getppid())
            seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in processes for name in ("cmdline", "environ")]
            Path("seen").write_bytes(b"\\n".join(seen))
        print(Path("job.wuhan.secret").read_text())
        """
    )
    with beside(Simulator(Config(rows=60, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path)
        (tmp_path / "seen").touch()
        (tmp_path / "helper.py").write_text(helper)
        command = orjson.dumps([sys.executable, "helper.py"]).decode()
        job.write_text(job.read_text().replace('{ file = "job.wuhan.secret" }', f"{{ command = {command} }}"))
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-X", "dev", "-c", AUDITED, str(tmp_path / "children"), "run", str(job), "-v"],
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == Exit.OK, done.stderr.decode()
    started = (tmp_path / "children").read_text()
    assert started.splitlines()
    assert {line.split()[0] for line in started.splitlines()} == {"subprocess.Popen"}
    assert started.count("subprocess.Popen") == 1
    for text in (started, done.stdout.decode(), done.stderr.decode(), (tmp_path / "seen").read_bytes().decode()):
        assert leaks(text) == []
    for path in (tmp_path / "mirror").rglob("*"):
        assert not path.is_file() or leaks(path.read_bytes().decode(errors="replace")) == []


def test_what_the_server_says_is_data(watched: Watched, tmp_path: Path) -> None:
    """The instrument sees a leak: a row that holds the secret is found where rows are, which is no leak."""
    with beside(Simulator(Config(rows=20, rate_limit=None))) as simulator:
        job = job_for(simulator, tmp_path)
        assert watched("run", job) == Exit.OK
    shard = next((tmp_path / "mirror").glob("*/*/part-00000.jsonl"))
    rows = shard.read_bytes()
    shard.write_bytes(rows + TOKEN.encode())
    with pytest.raises(AssertionError, match=r"part-00000\.jsonl"):
        watched.demand_silence()
    shard.write_bytes(rows)


@pytest.mark.parametrize("canary", CANARIES)
def test_the_search_finds_every_form(canary: str) -> None:
    """Whole or in part, in the middle of something else."""
    middle = canary[5:25]
    for text in (canary, middle, middle[::-1], middle.encode().hex(), quote(middle, safe=""), quote_plus(middle)):
        assert leaks(f"before {text} after")
    for before in ("", "a", "ab", "abc", "abcd"):
        assert leaks(base64.b64encode(f"{before}{canary}{before}".encode()).decode())
        assert leaks(base64.urlsafe_b64encode(f"{before}{canary}".encode()).decode())
    assert leaks(hashlib.sha256(canary.encode()).hexdigest())
    assert not leaks(f"nothing of the kind, {time.time()}, {Path.cwd()}")
    assert leaks("", ["0123456789abcdef0"]) == []
    assert leaks("x0123456789abcdef0x", ["0123456789abcdef0"])

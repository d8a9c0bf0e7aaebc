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
import pytest

import harvester
from harvester import __version__, certificate
from harvester.cli import main
from harvester.errors import PRECEDENCE, Exit
from harvester.job import Job, schema
from harvester.job.file import RunSettings
from harvester.pace import HEADROOM, Pacer
from harvester.platforms import PLATFORMS

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
    links = re.findall(r"\]\(([^)]+)\)", PROSE)
    paths = re.findall(r"(?:^|[\s`])((?:harvester|tests|benchmarks|config|\.ci)/[\w./-]+)", PROSE)
    assert links
    assert paths
    for name in [*links, *paths]:
        assert (ROOT / name).exists(), name


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


def test_defaults_of_a_run() -> None:
    """The table of ``[run]`` has every key with its default, in order."""

    def written(value: str) -> Any:  # noqa: ANN401 - whatever TOML can say
        return None if value == "none" else tomllib.loads(f"value = {value.strip('`')}")["value"]

    stated = {row[0].strip("`"): written(row[1]) for row in table("key of `[run]`")}
    assert list(stated) == list(schema.RUN)
    assert RunSettings(**stated) == RunSettings()


def test_rates() -> None:
    """The table of rates is what the pacer does, and its jitter what the inequality leaves."""
    for limit, rate, burst, jitter in table("limit, calls/s"):
        limiter = Pacer(float(limit), patience=1, now=float)._limiter
        assert limiter is not None
        assert limiter.max_rate == int(burst)
        assert limiter.max_rate / limiter.time_period == pytest.approx(float(rate))
        room = (float(limit) - int(burst) + 1) / float(rate) - 1
        assert f"{room * 1000:.1f} ms" == jitter
    assert f"at {HEADROOM} of the limit" in README


def test_verdicts() -> None:
    """The verdicts of the table are the certificate's, and a clean walk earns the second best."""
    assert {row[0].strip("`") for row in table("verdict")} == {"likely", "not proven", "proven"}
    clean = certificate.Evidence(pages=2, rows=40, end="empty", beyond=(3, 10), totals=(40, 40, 40))
    assert certificate.judge(clean).verdict == "likely"
    assert certificate.LIKELY_AT_MOST in README


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

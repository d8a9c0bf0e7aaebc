"""Break the order of writing on purpose, one place at a time, and see that a test notices: ``python tests/mutants.py``.

Of everything that writes (the store, the ledger, the slots) each sync, each rename and each lock is left out in turn,
and each two neighbouring steps of writing change places. A mutant is made in a copy of the project, in memory where the
system has such a place; there the tests of durability run until one fails, those of the changed module first. A mutant
that survives means that something could be lost and nobody would see: the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from model_fs import memory

ROOT: Final = Path(__file__).resolve().parent.parent
STORE_TESTS: Final = (
    "tests/test_crash_power.py",
    "tests/test_store_*.py",
    "tests/test_block.py",
)  # nothing that a busy machine could fail
TESTS: Final = {
    "ledger": ("tests/test_ledger.py", "tests/test_crash_ledger.py"),
    "slots": ("tests/test_slots.py",),
}
"""Of the modules outside the store."""
TIMEOUT: Final = 600.0  # seconds; a mutant that hangs is noticed too

SYNCS: Final = {"sync", "fsync", "fdatasync"}
RENAMES: Final = {"rename"}
LOCKS: Final = {"flock"}
WRITES: Final = {"write", "pwrite", "ftruncate", "unlink", "mkdir", "symlink", "link", "rmtree"} | SYNCS | RENAMES
NOT_OURS: Final = {"add", "append", "cut", "replace", "update"}
"""Names that lists, strings, and functions that only read have too; they count where the receiver is one of ours."""
NOT_WRITING: Final = {"open", "close"}
"""Names whose bearers write here and there; what they write is in their own bodies."""
RECEIVERS: Final = re.compile(r"(^|[._])(journal|folder|above|snapshot|index)\b")

_PACKAGE_UNREAD: Final = "while there is a checkpoint, nobody reads the data package; finishing replaces it"
_SAVING_SYNCS: Final = "saving the checkpoint syncs the folder, and nothing is told before"
_END_KNOWN: Final = "the checkpoint knows the end by then: what lies beyond it goes, in any order, and recovery goes on"
EQUIVALENT: Final[dict[str, str]] = {
    "snapshot Snapshot.adopt: if self._folder.is_file(layout.journal_name(shard)):  BEFORE  "
    "self._folder.unlink(layout.shard_name(shard))": "the next recovery deletes a shard's file beside its journal",
    "snapshot Snapshot.recover: without self._folder.sync()": _SAVING_SYNCS,
    "snapshot Snapshot.recover: self._folder.sync()  BEFORE  for name in self._folder.names():": _SAVING_SYNCS,
    "snapshot Snapshot.recover: self._save()  BEFORE  self._folder.sync()": _SAVING_SYNCS,
    "snapshot Snapshot.recover: if self.layout is not None:  BEFORE  self._drop_leftovers(strangers_too=repair)": (
        "a journal that is left over is deleted, or replaced when its shard is taken apart"
    ),
    "snapshot Snapshot._settle: with Folder(self.path.resolve().parent) as above:  BEFORE  self._folder.sync()": (
        "they sync two folders, and nothing happens between them"
    ),
    "filling Filling.set_end: self._folder.unlink(PACKAGE)  BEFORE  if self.layout is not None:": _PACKAGE_UNREAD,
    "filling Filling.set_end: self._save()  BEFORE  self._folder.unlink(PACKAGE)": _PACKAGE_UNREAD,
    "filling Filling.forget_end: self._folder.unlink(PACKAGE)  BEFORE  if layout is not None and entry is not None and "
    "(layout.pages_of(entry.number)[-1] != entry.last):": _PACKAGE_UNREAD,
    "filling Filling.forget_end: self._save()  BEFORE  self._folder.unlink(PACKAGE)": _PACKAGE_UNREAD,
    "filling Filling._reopen: self._folder.unlink(PACKAGE)  BEFORE  journal.rewrite(sound())": _PACKAGE_UNREAD,
    "filling Filling._reopen: self._save()  BEFORE  self._folder.unlink(PACKAGE)": _PACKAGE_UNREAD,
    "folder DatasetFolder.lock: make_folder(self.path)  BEFORE  make_folder(self.path.parent)": (
        "both sync the folder above, and nothing is promised before both have"
    ),
    "folder DatasetFolder.lock: self._end_publication()  BEFORE  self._drop_drafts()": (
        "a draft is never the published snapshot, and the next process does what one that was stopped has not done"
    ),
    "filling Filling.set_end: self._drop_leftovers()  BEFORE  if self.layout is not None:": _END_KNOWN,
    "filling Filling.set_end: for journal in self._journals.values():  BEFORE  self._drop_leftovers()": _END_KNOWN,
}
"""Mutants that cannot be told from the original, by their words, each with the reason."""


class Mutant(NamedTuple):
    """A changed module: its path in the project, what was done to it in words, its new source."""

    module: str
    words: str
    source: str


class Verdict(NamedTuple):
    """What became of a mutant: the test that noticed, empty if none did."""

    mutant: Mutant
    killer: str
    seconds: float


def called(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield receiver and name of every call in a piece of source, also of those put off by ``partial``.

    Functions defined in it are left out.
    """
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(inner, ast.Call):
            if isinstance(inner.func, ast.Attribute):
                yield ast.unparse(inner.func.value), inner.func.attr
            elif isinstance(inner.func, ast.Name):
                yield "", inner.func.id
                if inner.func.id == "partial" and isinstance(inner.args[0], ast.Attribute):
                    yield ast.unparse(inner.args[0].value), inner.args[0].attr
        yield from called(inner)


def writes(node: ast.AST, writers: set[str]) -> bool:
    """Tell whether a piece of source changes files, by the names it calls; functions defined in it left out."""
    return not isinstance(node, ast.FunctionDef) and any(
        name in writers and (name not in NOT_OURS or RECEIVERS.search(receiver)) for receiver, name in called(node)
    )


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function of a module with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{prefix}{node.name}"
            if isinstance(node, ast.FunctionDef):
                yield name, node
            yield from functions(node, f"{name}.")


def writers_of(trees: list[ast.Module]) -> set[str]:
    """Return the names of all functions that change files, themselves or through others."""
    found = set(WRITES)
    known = [function for tree in trees for _, function in functions(tree)]
    while True:
        more = {
            one.name
            for one in known
            if one.name not in NOT_WRITING and any(writes(statement, found) for statement in one.body)
        }
        if more <= found:
            return found
        found |= more


def suites(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    """Yield every list of statements in a function, but not those of functions inside it."""
    pending: list[ast.AST] = [function]
    while pending:
        node = pending.pop(0)
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value
        pending += [inner for inner in ast.iter_child_nodes(node) if not isinstance(inner, ast.FunctionDef)]


def short(statement: ast.stmt) -> str:
    """Return the first line of a statement."""
    return ast.unparse(statement).partition("\n")[0]


def left_out(tree: ast.Module) -> Iterator[str]:
    """Leave out one sync, rename or lock after the other; the tree is whole again after each."""
    for name, function in functions(tree):
        for suite in suites(function):
            for place, statement in enumerate(suite):
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                    if "LOCK_UN" in short(statement):
                        continue
                    calls = {call for _, call in called(statement)}
                    if calls & (SYNCS | RENAMES | LOCKS) or "FULLFSYNC" in short(statement):
                        suite[place] = ast.Pass()
                        yield f"{name}: without {short(statement)}"
                        suite[place] = statement


def swapped(tree: ast.Module, writers: set[str]) -> Iterator[str]:
    """Let neighbouring steps of writing change places, each with the statements that prepare it."""
    for name, function in functions(tree):
        managed = any("contextmanager" in ast.unparse(decorator) for decorator in function.decorator_list)
        for suite in suites(function):
            steps: list[list[ast.stmt]] = []
            held: list[ast.stmt] = []
            for statement in suite:
                held.append(statement)
                caller = managed and any(isinstance(inner, ast.Yield) for inner in ast.walk(statement))
                if caller or writes(statement, writers):  # what the caller does in its block counts as writing
                    steps.append(held)
                    held = []
            whole = suite.copy()
            for place, (first, second) in enumerate(pairwise(steps)):
                if isinstance(second[-1], ast.Return):
                    continue
                order = [*steps[:place], second, first, *steps[place + 2 :], held]
                suite[:] = [statement for step in order for statement in step]
                yield f"{name}: {short(second[-1])}  BEFORE  {short(first[-1])}"
                suite[:] = whole


def mutants(root: Path) -> Iterator[Mutant]:
    """Yield every mutant of a project."""
    package = root / "harvester"
    paths = [*sorted((package / "store").glob("*.py")), *(package / f"{name}.py" for name in TESTS)]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    writers = writers_of(list(trees.values()))
    for path, tree in trees.items():
        module = str(path.relative_to(root))
        seen: Counter[str] = Counter()
        for change in (left_out, partial(swapped, writers=writers)):
            for words in change(tree):
                seen[words] += 1
                again = f" ({seen[words]})" if seen[words] > 1 else ""
                yield Mutant(module, f"{path.stem} {words}{again}", ast.unparse(ast.fix_missing_locations(tree)))


def copied(target: Path) -> Path:
    """Copy what the tests need."""
    for name in ("harvester", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def tests_of(module: str) -> tuple[str, ...]:
    """Return the patterns of the tests that have to notice a change of a module, the quickest to notice it first."""
    stem = Path(module).stem
    return TESTS.get(stem) or (f"tests/test_store_{stem}.py", *STORE_TESTS)


def run_tests(project: Path, patterns: tuple[str, ...]) -> str:
    """Run the tests of durability in a copy until one fails; return its name, empty if none does."""
    found = (str(test.relative_to(project)) for pattern in patterns for test in sorted(project.glob(pattern)))
    options = ("-x", "-q", "-n", "0", "--no-header", "-p", "no:cacheprovider")
    command = [sys.executable, "-B", "-m", "pytest", *options, *dict.fromkeys(found)]
    place = os.environ | {"TMPDIR": str(project)}
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=project, env=place, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "(no end)"
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1].removeprefix("tests/") if failed else f"(pytest ends with {done.returncode})"


def judge(mutant: Mutant, projects: queue.Queue[Path]) -> Verdict:
    """Try one mutant in a free copy."""
    project = projects.get()
    file = project / mutant.module
    original = file.read_text()
    began = time.monotonic()
    try:
        file.write_text(mutant.source)
        return Verdict(mutant, run_tests(project, tests_of(mutant.module)), time.monotonic() - began)
    finally:
        file.write_text(original)
        projects.put(project)


def main() -> int:
    """Try all mutants; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the mutants, try none")
    parser.add_argument("--only", default="", metavar="TEXT", help="try those whose words hold this")
    options = parser.parse_args()
    survivors: list[str] = []
    stale: set[str] = set()
    with memory() as folder, ThreadPoolExecutor(2) as pool:
        projects: queue.Queue[Path] = queue.Queue()
        copies = [copied(folder / str(number)) for number in range(2)]
        chosen = [mutant for mutant in mutants(copies[0]) if options.only in mutant.words]
        chosen.sort(key=lambda mutant: mutant.words in EQUIVALENT)  # they take longest
        if options.list:
            print(*(mutant.words for mutant in chosen), f"{len(chosen)} mutants", sep="\n")
            return 0
        for killer in pool.map(run_tests, copies, [STORE_TESTS, sum(TESTS.values(), ())]):
            if killer:
                print(f"without any change {killer} fails: nothing can be said of any mutant")
                return 1
        for project in copies:
            projects.put(project)
        for mutant, killer, seconds in pool.map(partial(judge, projects=projects), chosen):
            reason = EQUIVALENT.get(mutant.words)
            if not killer and reason is None:
                survivors.append(mutant.words)
            if killer and reason is not None:
                stale.add(f"{mutant.words}: it is noticed")
            result = killer or ("SURVIVED" if reason is None else f"equivalent: {reason}")
            print(f"{seconds:6.1f} s  {mutant.words}\n          {result}", flush=True)
    if not options.only:
        stale |= {
            f"{words}: there is no such mutant" for words in EQUIVALENT.keys() - {mutant.words for mutant in chosen}
        }
    print(*(f"wrongly listed as equivalent: {words}" for words in sorted(stale)), sep="\n")
    print(f"{len(chosen)} mutants, {len(survivors)} survived", *survivors, sep="\n")
    return 1 if survivors or stale else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())

"""The job file (TOML) and the environment, read once into frozen settings.

What a value must be stands in tables of rules, and a key without a rule is an error. Every error is a `UsageError`
that names the file, the table and the key, what was found there, and the edit that mends it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import UsageError
from harvester.job import apps as app_tables
from harvester.job import credentials, schema
from harvester.job.credentials import Source
from harvester.job.rules import Rule
from harvester.model import App, Dataset
from harvester.platforms import PLATFORMS

ENVIRONMENT_PREFIX: Final = "HARVESTER_RUN_"
NAME_LIMIT: Final = 100  # characters of a dataset's name

# Windows takes these for devices in every folder and with every suffix, and mirrors travel on shares and sticks.
_DEVICES: Final = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789")}


class RunSettings(Struct, frozen=True, kw_only=True):
    """How a run works, the same for all its datasets. Times are in seconds."""

    concurrency: int | Literal["auto"] = "auto"
    compression: Literal["none", "zstd", "gzip"] = "none"
    rows_per_shard: int = 100_000
    timeout: float = 30
    attempts: int = 8
    limit_patience: float = 300
    stall_patience: float = 900
    max_calls: int | None = None
    processes: int = 1


class Job(Struct, frozen=True, kw_only=True):
    """A job file with everything filled in: both paths absolute, ``datasets`` the enabled ones in the file's order.

    ``rereaders`` has for each app what fetches its secret once more (see ``credentials.rereader``).
    """

    path: Path
    output: Path
    apps: Mapping[str, App]
    datasets: tuple[Dataset, ...]
    run: RunSettings
    warnings: tuple[str, ...] = ()
    rereaders: Mapping[str, Callable[[App], App | None]] = {}

    @classmethod
    def load(
        cls, path: str | Path, *, environ: Mapping[str, str] | None = None, secrets: bool = True, ids: bool = False
    ) -> Job:
        """Read a job file and the variables ``HARVESTER_RUN_…``, which win over ``[run]`` unless they are empty.

        Args:
            path: the job file; relative paths in it start at its folder.
            environ: the environment, by default the process's own.
            secrets: without them no credential is fetched, and the apps' ids and secrets are empty,
            ids: but for the ids where these are wanted.

        Raises:
            UsageError: the file or the environment has a mistake.
        """
        environ = os.environ if environ is None else environ
        path = Path(path).absolute()
        overrides = _from_environment(environ)
        warnings: list[str] = []
        rereaders: dict[str, Callable[[App], App | None]] = {}
        try:
            document = schema.read(path)
            tables = document.get("apps", {})
            apps = {name: app_tables.unsigned(name, table, path.parent) for name, table in tables.items()}
            datasets = _datasets(document, apps)
            for app in apps.values():
                warnings += app_tables.warnings(app, datasets)
            sources = {name: app_tables.sources(app, tables[name]) for name, app in apps.items()}
            if secrets or ids:
                fetch = partial(Source.resolve, folder=path.parent, environ=environ, warn=warnings.append)
                for name, its in sources.items():
                    apps[name] = app_tables.signed(apps[name], tables[name], its, fetch, secrets=secrets)
                datasets = tuple(replace(dataset, app=apps[dataset.app.name]) for dataset in datasets)
            if secrets:
                rereaders = {
                    name: credentials.rereader(its.secret, path.parent, environ) for name, its in sources.items()
                }
        except UsageError as error:
            raise UsageError(f"{path}: {error.message}", causes=error.causes, hint=error.hint) from None
        return cls(
            path=path,
            output=path.parent / document.get("output", schema.DEFAULT_OUTPUT),
            apps=apps,
            datasets=datasets,
            run=RunSettings(**{**document.get("run", {}), **overrides}),
            warnings=tuple(warnings),
            rereaders=rereaders,
        )


# Datasets


def _datasets(document: Mapping[str, Any], apps: Mapping[str, App]) -> tuple[Dataset, ...]:
    tables, defaults = document.get("datasets", {}), document.get("defaults", {})
    if not apps:
        raise UsageError("has no app", hint='add a table [apps.NAME] with platform = "…", credentials and rate_limit')
    if not tables:
        raise UsageError("has no dataset", hint="add a table [datasets.NAME]; NAME becomes the name of its folder")
    _demand_names(tables)
    datasets = {name: _dataset(name, table, defaults, apps) for name, table in tables.items()}
    enabled = {name for name, table in tables.items() if table.get("enabled", defaults.get("enabled", True))}
    if not enabled:
        raise UsageError("has no dataset that is enabled", hint="remove `enabled = false` from one of them")
    return tuple(dataset for name, dataset in datasets.items() if name in enabled)


def _demand_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be folders, here or where a mirror may be carried to."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        twin = seen.setdefault(folded, name)
        faults = {
            "may hold only letters, digits, '.', '_' and '-'": not app_tables.NAME.fullmatch(name),
            f"has {len(name)} characters, more than {NAME_LIMIT}": len(name) > NAME_LIMIT,
            "begins or ends with a dot": name.startswith(".") or name.endswith("."),
            "is taken: the mirror itself uses it": folded == "runs" or folded.startswith("current"),
            "is the name of a device on Windows": folded.partition(".")[0] in _DEVICES,
            f"differs from {twin!r} in upper and lower case only, which not every file system can tell": twin != name,
        }
        fault = next((fault for fault, applies in faults.items() if applies), None)
        if fault:
            raise UsageError(
                f"{schema.header('datasets', name)} the name {fault}",
                hint="it becomes a folder's name: rename it, for example [datasets.investors]; `title` is for people",
            )


def _dataset(name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], apps: Mapping[str, App]) -> Dataset:
    header = schema.header("datasets", name)
    app = _app_of(header, table, defaults, apps)
    platform = PLATFORMS[app.platform]
    known = schema.dataset_rules([platform]).keys() - {"app", "enabled"}
    settings = {key: value for key, value in {**defaults, **table}.items() if key in known}
    settings |= {key: stored(settings[key]) for key, stored in schema.STORED.items() if key in settings}
    settings["params"] = {**defaults.get("params", {}), **table.get("params", {})}
    if "url" in settings:
        app_tables.demand_address(header, settings["url"])
        app_tables.demand_rate(app, settings["url"])
    dataset = Dataset(name=name, app=app, **{"page_param": platform.PAGE_PARAM, **settings})
    complaint = platform.complaint(dataset)
    if complaint:
        what, hint = complaint
        raise UsageError(f"{header} {what}", hint=hint)
    return dataset


def _app_of(header: str, table: Mapping[str, Any], defaults: Mapping[str, Any], apps: Mapping[str, App]) -> App:
    """Find the dataset's app; the only one of a file need not be named."""
    name = table.get("app", defaults.get("app"))
    known = ", ".join(apps)
    if name is None:
        if len(apps) > 1:
            raise UsageError(
                f"{header} needs `app`, because there is more than one: {known}",
                hint=f'for example app = "{next(iter(apps))}"',
            )
        return next(iter(apps.values()))
    if name not in apps:
        where = header if "app" in table else "[defaults]"
        close = schema.closest(name, apps) or next(iter(apps))
        raise UsageError(f"{where} `app` is {name!r}, the file has {known}", hint=f'for example app = "{close}"')
    return apps[name]


# Settings from outside the file


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read ``HARVESTER_RUN_…``; a misspelt one is an error too, because `max_calls` unheeded can cost money."""
    found = {}
    for name, text in environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or not text:
            continue
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key not in schema.RUN:
            close = schema.closest(key, schema.RUN)
            meant = f"did you mean {ENVIRONMENT_PREFIX}{close.upper()}? " if close else ""
            raise UsageError(f"environment: {name} is no setting of [run]", hint=f"{meant}unset {name}")
        found[key] = _typed(text.strip())
        schema.RUN[key].demand(found[key], f"environment: {name}", f"export {name}={_plain(schema.RUN[key])}")
    return found


def _typed(text: str) -> float | str:
    """Turn text into the number that it spells, if it spells one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _plain(rule: Rule) -> str:
    return rule.example.strip('"')

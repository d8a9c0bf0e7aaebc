"""The job file (TOML) and the environment, read once into frozen settings.

What a value must be stands in tables of rules, and a key without a rule is an error. Every error is a `UsageError`
that names the file, the table and the key, what was found there, and the edit that mends it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import UsageError
from harvester.job import credentials, rules, schema
from harvester.job.rules import Rule
from harvester.model import App, Dataset, Secret
from harvester.pace import HEADROOM
from harvester.platforms import PLATFORMS

ENVIRONMENT_PREFIX: Final = "HARVESTER_RUN_"
NAME_LIMIT: Final = 100  # characters of a dataset's name

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
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


class Job(Struct, frozen=True, kw_only=True):
    """A job file with everything filled in: both paths absolute, ``datasets`` the enabled ones in the file's order."""

    path: Path
    output: Path
    apps: Mapping[str, App]
    datasets: tuple[Dataset, ...]
    run: RunSettings
    warnings: tuple[str, ...] = ()

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
        try:
            document = schema.read(path)
            apps = {name: _app(name, table) for name, table in document.get("apps", {}).items()}
            datasets = _datasets(document, apps)
            warnings += filter(None, (_unencrypted(app, datasets) for app in apps.values()))
            sources = {name: _sources(app, document["apps"][name]) for name, app in apps.items()}
            if secrets or ids:
                for name, pair in sources.items():
                    identity, *secret = (
                        source.resolve(path.parent, environ, warnings.append) for source in pair[: 1 + secrets]
                    )
                    apps[name] = replace(apps[name], id=identity, secret=Secret("".join(secret)))
                datasets = tuple(replace(dataset, app=apps[dataset.app.name]) for dataset in datasets)
        except UsageError as error:
            raise UsageError(f"{path}: {error.message}", causes=error.causes, hint=error.hint) from None
        return cls(
            path=path,
            output=path.parent / document.get("output", schema.DEFAULT_OUTPUT),
            apps=apps,
            datasets=datasets,
            run=RunSettings(**{**document.get("run", {}), **overrides}),
            warnings=tuple(warnings),
        )


# Apps


def _app(name: str, table: Mapping[str, Any]) -> App:
    """Make the app, without its credentials."""
    header = schema.header("apps", name)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{header} is no name for an app", hint="use letters, digits, '.', '_' and '-' only")
    for key in ("platform", "rate_limit"):
        if key not in table:
            raise UsageError(f"{header} needs `{key}`", hint=f"for example {key} = {schema.APP[key].example}")
    if table["platform"] not in PLATFORMS:
        close = schema.closest(table["platform"], PLATFORMS) or next(iter(PLATFORMS))
        raise UsageError(
            f"{header} `platform` is {table['platform']!r}, known are {', '.join(PLATFORMS)}",
            hint=f'for example platform = "{close}"',
        )
    platform = PLATFORMS[table["platform"]]
    url = table.get("url", platform.DEFAULT_URL)
    _demand_address(header, url)
    rate = None if table["rate_limit"] == "none" else float(table["rate_limit"])
    _demand_rate(header, url, rate)
    return App(
        name=name,
        platform=platform.NAME,
        url=url,
        id="",
        secret=Secret(""),
        rate_limit=rate,
        rate_share=float(table.get("rate_share", 1)),
        headroom=float(table.get("headroom", HEADROOM)),
        id_headers=tuple(table.get("id_headers", ())),
        digest=table.get("digest", ""),
    )


def _sources(app: App, table: Mapping[str, Any]) -> list[credentials.Source]:
    """Return where the app's id and its secret come from, in this order."""
    sources = []
    for key, text_allowed in zip(PLATFORMS[app.platform].CREDENTIAL_KEYS, (True, False), strict=True):
        header, variable = schema.header("apps", app.name), f"{app.platform}_{key}".upper()
        if key not in table:
            raise UsageError(f"{header} needs `{key}`", hint=f'for example {key} = {{ env = "{variable}" }}')
        sources.append(
            credentials.parse(table[key], table=header, key=key, variable=variable, text_allowed=text_allowed)
        )
    return sources


def _demand_address(header: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and not any(map(str.isspace, url))
    except ValueError:
        whole, parts = False, urlsplit("")
    if "@" in parts.netloc:
        raise UsageError(
            f"{header} `url` holds a user name or a password", hint="write the address without what stands before the @"
        )
    if not whole or parts.scheme not in {"http", "https"} or "#" in url:
        # An address with an @ can hold a password, wherever a misspelling has moved it.
        found = "this one" if "@" in url else rules.shown(url)
        raise UsageError(
            f"{header} `url` must be an http or https address without a fragment (#), found {found}",
            hint='for example url = "https://example.org/service/"',
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _demand_rate(header: str, url: str, rate_limit: float | None) -> None:
    if rate_limit is None and not _is_loopback(url):
        raise UsageError(
            f'{header} `rate_limit` is "none", but {url} is not on this machine',
            hint="give the calls per second that the platform grants this app, for example rate_limit = 300",
        )


def _unencrypted(app: App, datasets: Iterable[Dataset]) -> str | None:
    """Warn of the first address of an app that is called over a network without encryption."""
    own = [dataset.url or app.url for dataset in datasets if dataset.app.name == app.name] or [app.url]
    plain = next((url for url in own if urlsplit(url).scheme == "http" and not _is_loopback(url)), None)
    if not plain:
        return None
    return (
        f"{schema.header('apps', app.name)} {plain} is not encrypted: others on the way can read and change what is "
        f'sent; if the platform offers https, write url = "https{plain[4:]}"'
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
            "may hold only letters, digits, '.', '_' and '-'": not _NAME.fullmatch(name),
            f"has {len(name)} characters, more than {NAME_LIMIT}": len(name) > NAME_LIMIT,
            "begins with a dot": name.startswith("."),
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
        _demand_address(header, settings["url"])
        _demand_rate(schema.header("apps", app.name), settings["url"], app.rate_limit)
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

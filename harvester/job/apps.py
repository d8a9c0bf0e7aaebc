"""The tables ``[apps.NAME]``: who signs, how often, and by which way calls get to the platform."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import UsageError
from harvester.job import credentials, rules, schema
from harvester.job.credentials import Source
from harvester.model import App, Dataset, Secret
from harvester.pace import HEADROOM
from harvester.platforms import PLATFORMS

NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_PROXY_TABLE: Final = 'proxy = { url = "http://proxy:3128", user = "me", password = { env = "PROXY_PASSWORD" } }'


class Sources(Struct, frozen=True, kw_only=True):
    """Where the credentials of one app come from; ``proxy`` is that of its proxy's password, if it has one."""

    id: Source
    secret: Source
    proxy: Source | None


def unsigned(name: str, table: Mapping[str, Any], folder: Path) -> App:
    """Make the app of a table, without its credentials.

    Args:
        name: of the table.
        table: as ``schema.read`` returned it.
        folder: of the job file, where relative paths start.

    Raises:
        UsageError: something is missing, or no app can be made of it.
    """
    header = schema.header("apps", name)
    if not NAME.fullmatch(name):
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
    app = App(
        name=name,
        platform=platform.NAME,
        url=table.get("url", platform.DEFAULT_URL),
        id="",
        secret=Secret(""),
        rate_limit=None if table["rate_limit"] == "none" else float(table["rate_limit"]),
        rate_share=float(table.get("rate_share", 1)),
        headroom=float(table.get("headroom", HEADROOM)),
        id_headers=tuple(table.get("id_headers", ())),
        digest=table.get("digest", ""),
        proxy=_proxy(header, table),
        ca_file=str(folder / table["ca_file"]) if "ca_file" in table else "",
        legacy_tls=table.get("legacy_tls", False),
        host=table.get("host", ""),
    )
    demand_address(header, app.url)
    demand_rate(app, app.url)
    return app


def sources(app: App, table: Mapping[str, Any]) -> Sources:
    """Return where the credentials of an app come from.

    Raises:
        UsageError: one is missing, or stands in the job file itself.
    """
    header, found = schema.header("apps", app.name), []
    for key, text_allowed in zip(PLATFORMS[app.platform].CREDENTIAL_KEYS, (True, False), strict=True):
        variable = f"{app.platform}_{key}".upper()
        if key not in table:
            raise UsageError(f"{header} needs `{key}`", hint=f'for example {key} = {{ env = "{variable}" }}')
        found.append(credentials.parse(table[key], table=header, key=key, variable=variable, text_allowed=text_allowed))
    proxy = table.get("proxy")
    return Sources(
        id=found[0], secret=found[1], proxy=_proxy_password(app.name, proxy) if isinstance(proxy, dict) else None
    )


def signed(
    app: App,
    table: Mapping[str, Any],
    sources: Sources,
    fetch: Callable[[Source], str],
    *,
    secrets: bool,
) -> App:
    """Return the app with its id and, if wanted, all that only a caller needs: secret, password, authorities.

    Raises:
        UsageError: something cannot be had.
    """
    app = replace(app, id=fetch(sources.id))
    if not secrets:
        return app
    auth = None if sources.proxy is None else (table["proxy"]["user"], Secret(fetch(sources.proxy)))
    if app.ca_file and not Path(app.ca_file).is_file():
        raise UsageError(
            f"{schema.header('apps', app.name)} `ca_file`: there is no file {app.ca_file}",
            hint="give a file with certificates in PEM form; a relative path starts at the job file's folder",
        )
    return replace(app, secret=Secret(fetch(sources.secret)), proxy_auth=auth)


def warnings(app: App, datasets: Iterable[Dataset]) -> Iterator[str]:
    """Warn of what makes the calls of an app easier to read or change for others on the way."""
    header = schema.header("apps", app.name)
    own = [dataset.url or app.url for dataset in datasets if dataset.app.name == app.name] or [app.url]
    plain = next((url for url in own if urlsplit(url).scheme == "http" and not _is_loopback(url)), None)
    if plain:
        yield (
            f"{header} {plain} is not encrypted: others on the way can read and change what is "
            f'sent; if the platform offers https, write url = "https{plain[4:]}"'
        )
    if app.legacy_tls:
        yield (
            f"{header} `legacy_tls` admits TLS 1.0 and the ciphers of its time, which others on the way may break; "
            "certificates are verified as ever; remove it as soon as the server knows TLS 1.2"
        )


def demand_address(header: str, url: str, key: str = "url") -> None:
    """Raise a ``UsageError``, which shows no password, unless calls can be sent to ``url``."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and not any(map(str.isspace, url))
    except ValueError:
        whole, parts = False, urlsplit("")
    if "@" in url:
        raise UsageError(
            f"{header} `{key}` holds a user name or a password, or at least an @",
            hint=_PROXY_TABLE if key == "proxy" else "write the address without what stands before the @",
        )
    if not whole or parts.scheme not in {"http", "https"} or "#" in url:
        found = rules.shown(url)
        example = schema.APP["proxy"].example if key == "proxy" else '"https://example.org/service/"'
        raise UsageError(
            f"{header} `{key}` must be an http or https address without a fragment (#), found {found}",
            hint=f"for example {key} = {example}",
        )


def demand_rate(app: App, url: str) -> None:
    """Raise a ``UsageError`` if calls to ``url`` have no limit although it leads to somebody else's machine."""
    if app.rate_limit is not None or (_is_loopback(url) and (not app.host or _is_loopback(f"//{app.host}"))):
        return
    where = f"`host` {app.host}" if _is_loopback(url) else url
    raise UsageError(
        f'{schema.header("apps", app.name)} `rate_limit` is "none", but {where} is not on this machine',
        hint="give the calls per second that the platform grants this app, for example rate_limit = 300",
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy(header: str, table: Mapping[str, Any]) -> str:
    """Return the proxy's address without user and password, "env", or nothing."""
    value = table.get("proxy", "")
    if "proxy" not in table or value == "env":
        return str(value)
    url: Any = value.get("url") if isinstance(value, dict) else value
    if not rules.is_line(url):
        raise UsageError(f"{header} `proxy` needs an address as a text on one line", hint=_PROXY_TABLE)
    demand_address(header, url, "proxy")
    parts = urlsplit(url)
    if parts.path not in {"", "/"} or parts.query:
        raise UsageError(
            f"{header} `proxy` must be the address of a host, with nothing behind it",
            hint=f"for example proxy = {schema.APP['proxy'].example}",
        )
    return str(url)


def _proxy_password(name: str, proxy: Mapping[str, Any]) -> Source | None:
    if not proxy.keys() & {"user", "password"}:
        return None
    header = schema.proxy_header(name)
    for key in ("user", "password"):
        if key not in proxy:
            raise UsageError(f"{header} needs `{key}`", hint=_PROXY_TABLE)
    return credentials.parse(
        proxy["password"], table=header, key="password", variable="PROXY_PASSWORD", text_allowed=False
    )

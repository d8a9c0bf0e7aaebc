"""A job file that mirrors everything a simulator serves, with its made-up secrets in files beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from harvester.errors import LocalError
from harvester.simulator import config as registered
from harvester.simulator.tables import SimulatedTable

SIPOP_PAGE_SIZE: Final = 50


def write(path: Path, url: str, rate_limit: float | None, tables: Mapping[str, Mapping[str, SimulatedTable]]) -> None:
    """Write the job file and, with access for the owner only, one file per secret.

    Args:
        path: the job file; overwritten if it is there.
        url: the simulator's address, without a slash at the end.
        rate_limit: calls per second, None for no limit.
        tables: what is served, by platform and name.

    Raises:
        LocalError: a file cannot be written.
    """
    secrets = {"wuhan": registered.WUHAN_TOKEN, "sipop": registered.SIPOP_APP_SECRET}
    try:
        for platform in tables:
            _write_secret(path.with_name(_secret_name(path, platform)), secrets[platform])
        path.write_text("\n".join(_lines(path, url, rate_limit, tables)) + "\n", encoding="utf-8")
    except OSError as error:
        raise LocalError(f"cannot write {error.filename or path}: {error.strerror}") from error


def _lines(
    path: Path, url: str, rate_limit: float | None, tables: Mapping[str, Mapping[str, SimulatedTable]]
) -> Iterator[str]:
    limit = '"none"' if rate_limit is None else f"{rate_limit:.15g}"
    yield "# A simulated platform. It answers only while the simulator runs; the credentials are made up."
    yield 'output = "mirror"'
    for platform in tables:
        secret = f"{{ file = {_quoted(_secret_name(path, platform))} }}"
        yield from ("", f"[apps.{platform}]", f'platform = "{platform}"')
        if platform == "wuhan":
            yield from (f"passid = {_quoted(registered.WUHAN_PASSID)}", f"token = {secret}")
            yield f"url = {_quoted(f'{url}/ebus/kftp/v1/service/')}"
        else:
            yield from (f"app_key = {_quoted(registered.SIPOP_APP_KEY)}", f"app_secret = {secret}")
            yield f"url = {_quoted(f'{url}/dataplatpro/api/route')}"
        yield f"rate_limit = {limit}"
    for platform, served in tables.items():
        for name, table in served.items():
            # The platform in front keeps the names apart where both serve the same table.
            yield from ("", f"[datasets.{_key(f'{platform}-{name}')}]", f'app = "{platform}"')
            if table.title:
                yield f"title = {_quoted(table.title)}"
            if platform == "wuhan":
                yield f"service = {_quoted(name)}"
            else:
                yield from (f"method = {_quoted(name)}", f"page_size = {SIPOP_PAGE_SIZE}")


def _secret_name(path: Path, platform: str) -> str:
    return f"{path.stem}.{platform}.secret"


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # an older file keeps its mode when opened
        file.write(f"{secret}\n")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode().replace("\x7f", "\\u007f")  # else a JSON string is a TOML string

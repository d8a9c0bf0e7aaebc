"""The job file's grammar: which keys may stand in which table, and what their values must be.

A key that one platform names is unknown to the apps and datasets of the others.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from harvester.errors import UsageError
from harvester.job import rules
from harvester.job.rules import Rule
from harvester.model import Platform
from harvester.platforms import PLATFORMS

DEFAULT_OUTPUT: Final = "mirror"
_QUOTED: Final = re.compile(r"\('.*'.*?\)|'\w.*'")
LONGEST_KEY: Final = 24  # letters of a misspelt key that is shown
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# GB 18030 holds every text of the older two; what platforms call by their names often is GB 18030.
_CHARSETS: Final = {"utf-8": "utf-8", "gb18030": "gb18030", "gbk": "gb18030", "gb2312": "gb18030"}
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2, `token`
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*(?::([0-9]{1,5}))?")


def _tables(section: str) -> Rule:
    return Rule(
        f"made of tables [{section}.NAME] and nothing else",
        lambda value: isinstance(value, dict) and all(isinstance(table, dict) for table in value.values()),
        f"[{section}.first]",
    )


def _section(name: str) -> Rule:
    return Rule("a table", lambda value: isinstance(value, dict), f"[{name}]")


def _is_host(value: str) -> bool:
    found = _HOST.fullmatch(value)
    return found is not None and 0 < int(found[1] or 1) < 2**16


def _is_path(value: Any) -> bool:  # noqa: ANN401 - anything that TOML can hold
    return rules.is_line(value) and bool(value) and not value.startswith("~")


_TOP: Final[Mapping[str, Rule]] = {
    "output": Rule(
        'the path of a folder, without "~"',
        _is_path,
        f'"{DEFAULT_OUTPUT}"',
    ),
    "apps": _tables("apps"),
    "defaults": _section("defaults"),
    "datasets": _tables("datasets"),
    "run": _section("run"),
}
APP: Final[Mapping[str, Rule]] = {
    "platform": rules.text('"wuhan"'),
    "rate_limit": rules.either(rules.number("300"), "none"),
    "rate_share": rules.share("0.5"),
    "headroom": rules.share("0.975"),
    "url": rules.text('"https://…"'),
    "id_headers": Rule(
        "a list of names of HTTP headers",
        lambda value: (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(name, str) and _HEADER_NAME.fullmatch(name) for name in value)
        ),
        '["x-tif-passid"]',
    ),
    "digest": rules.word("md5", "md5-16"),
    # What kind of text it is, is judged elsewhere: it can hold a password by mistake, which must not be shown.
    "proxy": Rule(
        'an address, a table with `url`, `user` and `password`, or "env"',
        lambda value: isinstance(value, str | dict),
        '"http://proxy:3128"',
    ),
    "ca_file": Rule('the path of a file, without "~"', _is_path, '"authority.pem"'),
    "legacy_tls": rules.flag("true"),
    "host": Rule(
        "the name of a host, with a port if need be",
        lambda value: isinstance(value, str) and _is_host(value),
        '"rio.wuhan.gov.cn"',
    ),
}
_DATASET: Final[Mapping[str, Rule]] = {
    "app": rules.text('"wuhan"'),
    "title": rules.text('"企业公示_出资人信息"'),
    "enabled": rules.flag("false"),
    "params": rules.table('{ regno = "420104000223773" }'),
    "page_size": rules.whole(1, 10_000, example="50"),
    "paging": rules.word("page", "none"),
    "page_param": rules.text('"pageNo"'),
    "first_page": rules.whole(0, example="1"),
    "service": rules.text('"qygsczrxxqkapijk"'),
    "url": rules.text('"https://…"'),
    "body": rules.text('"form"'),
    "envelope": rules.table('{ version = "1.0" }'),
    "method": rules.text('"patentIndex.queryKeywordPage"'),
    "charset": Rule(
        '"utf-8" or "gb18030"', lambda value: isinstance(value, str) and value.lower() in _CHARSETS, '"gb18030"'
    ),
    "key": rules.names('["REGNO", "INV"]'),
    "recheck": rules.whole(0, example="700"),
    "expect_rows": rules.whole(0, example="16839"),
    "strict": rules.flag("true"),
    "max_calls": rules.whole(1, example="20"),
    "calls_reset": rules.either(rules.either(rules.day("2026-12-31"), "day"), "month"),
}
STORED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "charset": lambda value: _CHARSETS[value.lower()],
    "key": lambda value: (value,) if isinstance(value, str) else tuple(value),
    "calls_reset": str,
}
"""How a dataset's settings are kept that can be written in several ways."""
RUN: Final[Mapping[str, Rule]] = {
    "concurrency": rules.either(rules.whole(1, example="32"), "auto"),
    "compression": rules.word("none", "gzip", "zstd"),
    "rows_per_shard": rules.whole(1, example="100000"),
    "timeout": rules.number("30"),
    "attempts": rules.whole(1, example="8"),
    "limit_patience": rules.number("300", zero=True),
    "stall_patience": rules.number("900", zero=True),
    "max_calls": rules.whole(1, example="1000"),
    "processes": rules.whole(1, example="2"),
}
_CREDENTIAL: Final = Rule("a credential", lambda _: True, "")  # judged in full, and without being shown, elsewhere
_PROXY: Final[Mapping[str, Rule]] = {
    "url": _CREDENTIAL,  # as it can hold one by mistake
    "user": Rule("a text on one line without a colon", lambda value: rules.is_line(value) and ":" not in value, '"me"'),
    "password": _CREDENTIAL,
}


def read(path: Path) -> dict[str, Any]:
    """Parse a job file; a BOM and CRLF are what editors on Windows add.

    Returns:
        The file's tables, of which every key is known where it stands and has a value of the right type. What is
        not in the file is not in the tables, and credentials are as they were written.

    Raises:
        UsageError: the file cannot be read, is not TOML, or breaks the grammar. The message lacks the file's name.
    """
    document = _parse(path)
    _check("", document, _TOP)
    tables = list(_walk(document))
    remarks = [
        f"{table.header} {_remark(key, table.values[key], table.rules)}".lstrip()
        for table in tables
        for key in table.values
        if key not in table.rules
    ]
    if remarks:
        count = "an unknown key" if len(remarks) == 1 else f"{len(remarks)} unknown keys"
        raise UsageError(f"has {count}", causes=remarks, hint="correct the key, or put # in front of its line")
    for table in tables:
        _check(f"{table.header} ", table.values, table.rules)
    return document


def header(section: str, name: str) -> str:
    """Return a table's name as it stands in the file, such as ``[apps.wuhan]``."""
    return f"[{section}.{_quoted(name)}]"


def proxy_header(name: str) -> str:
    """Return the name of an app's table for its proxy, which may stand in one line or as a table of its own."""
    return f"{header('apps', name)[:-1]}.proxy]"


def closest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that a misspelt word is probably meant for."""
    spellings = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), spellings, n=1)
    return spellings[close[0]] if close else None


def dataset_rules(platforms: Iterable[Platform]) -> dict[str, Rule]:
    """Return the keys of a dataset that can belong to any of the platforms."""
    foreign = {key for each in PLATFORMS.values() for key in each.DATASET_KEYS}
    own = {key for each in platforms for key in each.DATASET_KEYS}
    return {key: rule for key, rule in _DATASET.items() if key in own or key not in foreign}


def _app_rules(platforms: Iterable[Platform]) -> dict[str, Rule]:
    foreign = {key for each in PLATFORMS.values() for key in each.APP_KEYS}
    own = {key for each in platforms for key in each.APP_KEYS}
    secrets = {key: _CREDENTIAL for each in platforms for key in each.CREDENTIAL_KEYS}
    return {key: rule for key, rule in APP.items() if key in own or key not in foreign} | secrets


class _Table(NamedTuple):
    header: str
    values: Mapping[str, Any]
    rules: Mapping[str, Rule]


def _walk(document: Mapping[str, Any]) -> Iterator[_Table]:
    """Go through the tables; one whose platform is not to be had may hold the keys of all that can be meant."""
    every = tuple(PLATFORMS.values())
    defaults = document.get("defaults", {})
    yield _Table("", document, _TOP)
    yield _Table("[run]", document.get("run", {}), RUN)
    platforms: dict[str, tuple[Platform, ...]] = {}
    for name, table in document.get("apps", {}).items():
        platforms[name] = tuple(each for each in every if table.get("platform", "") == each.NAME) or every
        yield _Table(header("apps", name), table, _app_rules(platforms[name]))
        if isinstance(table.get("proxy"), dict):
            yield _Table(proxy_header(name), table["proxy"], _PROXY)
    used = tuple(dict.fromkeys(each for some in platforms.values() for each in some)) or every
    yield _Table("[defaults]", defaults, dataset_rules(used))
    for name, table in document.get("datasets", {}).items():
        app = table.get("app", defaults.get("app"))
        meant = platforms.get(app, used) if isinstance(app, str) else used
        yield _Table(header("datasets", name), table, dataset_rules(meant))


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise UsageError("is a folder, not a job file", hint=f"name the file in it: {path / 'job.toml'}") from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", hint="check the path and who may read it") from None
    try:
        return tomllib.loads(content.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"is not UTF-8 text: byte 0x{content[error.start]:02x} at offset {error.start}, line {line}",
            hint="save the file with the encoding UTF-8",
        ) from None
    except RecursionError:
        raise UsageError("nests lists or tables too deeply", hint="flatten them") from None
    except ValueError as error:  # also what int() says of a number with thousands of digits
        # Keys that the message quotes stay unsaid: one can be a secret in the wrong place.
        raise UsageError(
            f"is not TOML: {_QUOTED.sub('…', str(error))}", hint='texts stand in quotes, as in title = "…"'
        ) from None


def _check(where: str, values: Mapping[str, Any], table: Mapping[str, rules.Rule]) -> None:
    for key, rule in table.items():
        if key in values:
            edit = rule.example if rule.example.startswith(f"[{key}") else f"{key} = {rule.example}"
            rule.demand(values[key], f"{where}`{key}`", edit)


def _named(key: str) -> str:
    """Name an unknown key, unless it looks like a secret that was written where a key belongs."""
    if rules.is_words(key) or (key.isalpha() and len(key) <= LONGEST_KEY):
        return f"`{_quoted(key)}`"
    return f"a key of {len(key)} characters, not shown because it may be a secret,"


def _quoted(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else repr(key)


def _remark(key: str, value: object, known: Iterable[str]) -> str:
    """Say of an unknown key where it belongs, or which known one it may be meant for."""
    places: dict[str, Iterable[str]] = {}
    for each in PLATFORMS.values():
        places[f"to platform {each.NAME}, in [apps.NAME]"] = {*each.APP_KEYS, *each.CREDENTIAL_KEYS}
        places[f"to platform {each.NAME}, in [datasets.NAME]"] = each.DATASET_KEYS
    places |= {
        "at the top of the file": _TOP,
        "in [apps.NAME]": APP,
        "in [datasets.NAME]": _DATASET,
        "in [run]": RUN,
    }
    place = next((place for place, keys in places.items() if key in keys), None)
    if place:
        return f"`{key}` belongs {place}"
    close = closest(key, known)
    if close:
        return f"{_named(key)} is unknown; did you mean `{close}`?"
    dot = "; a name with a dot in it needs quotes, as in [datasets.'a.b']" if isinstance(value, dict) else ""
    return f"{_named(key)} is unknown{dot}"

"""The grammar of job files: reading them, keys in the right place, values of the right type."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.job import schema
from harvester.platforms import PLATFORMS

CONFIG = Path(__file__).parent.parent / "config"


def read(folder: Path, content: str | bytes) -> dict[str, object]:
    """Read a job file with this content."""
    path = folder / "job.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return schema.read(path)


def refusal(folder: Path, content: str | bytes) -> str:
    """Return the message about a job file with this content."""
    with pytest.raises(UsageError) as caught:
        read(folder, content)
    return str(caught.value)


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    """Editors on Windows write both."""
    assert read(tmp_path, b'\xef\xbb\xbfoutput = "a"\r\n[run]\r\nattempts = 2\r\n') == {
        "output": "a",
        "run": {"attempts": 2},
    }


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, below a file: in words, not as a traceback."""
    for path, words in (
        (tmp_path / "none.toml", "cannot be read: No such file or directory"),
        (tmp_path, "is a folder, not a job file"),
        (tmp_path / "file" / "job.toml", "cannot be read: Not a directory"),
    ):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError) as caught:
            schema.read(path)
        assert str(caught.value).startswith(words)
        assert caught.value.hint


def test_what_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    """GBK is what a Chinese Windows saves by default; the offset counts a BOM like any bytes."""
    gbk = b"\xef\xbb\xbf# ok\r\ntitle = " + "企业".encode("gbk")
    assert refusal(tmp_path, gbk).startswith("is not UTF-8 text: byte 0xc6 at offset 17, line 2\n")
    assert refusal(tmp_path, "output".encode("utf-16")).startswith("is not UTF-8 text: byte 0xff at offset 0, line 1\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = 1\nb = = 2\n", "is not TOML: Invalid value (at line 2, column 5)"),
        ("[apps\n", "is not TOML: Expected ']'"),
        ("a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("a = " + "1" * 5000, "is not TOML: Exceeds the limit"),
        ("a = " + "[" * 5000, "nests lists or tables too deeply"),
    ],
)
def test_what_is_not_toml_is_refused_with_its_place(tmp_path: Path, content: str, words: str) -> None:
    """Line and column as the parser counts them."""
    assert refusal(tmp_path, content).startswith(words)


def test_all_unknown_keys_are_named_at_once(tmp_path: Path) -> None:
    """Each with where it belongs or what it may be meant for: the whole message is pinned."""
    content = """
    outptu = "x"
    [dataset.a]
    [apps.w]
    platform = "wuhan"
    tokn = "SECRET"
    digest = "md5"
    app_key = "SECRET"
    [apps.s]
    platform = "sipop"
    service = "s"
    [defaults]
    rate_limit = 1
    [datasets.one]
    app = "w"
    page-size = 5
    method = "m"
    attempts = 5
    xyz = 1
    [datasets.b.c]
    service = "s"
    [run]
    Timeout = 1
    output = "y"
    """
    assert refusal(tmp_path, content) == (
        "has 14 unknown keys\n"
        "  `outptu` is unknown; did you mean `output`?\n"
        "  `dataset` is unknown; did you mean `datasets`?\n"
        "  [run] `Timeout` is unknown; did you mean `timeout`?\n"
        "  [run] `output` belongs at the top of the file\n"
        "  [apps.w] `tokn` is unknown; did you mean `token`?\n"
        "  [apps.w] `digest` belongs to platform sipop, in [apps.NAME]\n"
        "  [apps.w] `app_key` belongs to platform sipop, in [apps.NAME]\n"
        "  [apps.s] `service` belongs to platform wuhan, in [datasets.NAME]\n"
        "  [defaults] `rate_limit` belongs in [apps.NAME]\n"
        "  [datasets.one] `page-size` is unknown; did you mean `page_size`?\n"
        "  [datasets.one] `method` belongs to platform sipop, in [datasets.NAME]\n"
        "  [datasets.one] `attempts` belongs in [run]\n"
        "  [datasets.one] `xyz` is unknown\n"
        "  [datasets.b] `c` is unknown; a name with a dot in it needs quotes, as in [datasets.'a.b']\n"
        "\n"
        "hint: correct the key, or put # in front of its line"
    )


def test_keys_of_every_platform_pass_while_the_platform_is_unknown(tmp_path: Path) -> None:
    """A misspelt platform is told by its own message, not as a list of keys that would be right."""
    content = '[apps.a]\nplatform = "wuhna"\ntoken = 1\ndigest = "md5"\n[datasets.b]\nmethod = "m"\nservice = "s"\n'
    assert read(tmp_path, content)["apps"] == {"a": {"platform": "wuhna", "token": 1, "digest": "md5"}}
    assert refusal(tmp_path, "[apps.a]\nplatform = ['x']") == (
        '[apps.a] `platform` must be a text on one line, found a list\n\nhint: for example platform = "wuhan"'
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("output = ''", "`output` must be the path of a folder"),
        ("output = '~/mirror'", "`output` must be the path of a folder, without \"~\", found the text '~/mirror'"),
        (
            "apps = 1",
            (
                "`apps` must be made of tables [apps.NAME] and nothing else, found the number 1\n\n"
                "hint: for example [apps.first]"
            ),
        ),
        ("[apps]\nw = 'TOKEN'", "`apps` must be made of tables [apps.NAME] and nothing else, found a table"),
        ("[[datasets]]\napp = 'x'", "`datasets` must be made of tables [datasets.NAME] and nothing else, found a list"),
        ("run = 'x'", "`run` must be a table, found the text 'x'"),
        ("[datasets.a]\napp = ['w']", "[datasets.a] `app` must be a text on one line, found a list"),
        ("[defaults]\nenabled = 'no'", "[defaults] `enabled` must be true or false, found the text 'no'"),
        ("[datasets.a]\npage_size = 10001", "[datasets.a] `page_size` must be a whole number from 1 to 10000, found"),
        ("[datasets.a]\nfirst_page = -1", "[datasets.a] `first_page` must be a whole number from 0 to"),
        ("[datasets.a]\npaging = 'all'", '[datasets.a] `paging` must be "page" or "none", found the text \'all\''),
        (
            "[datasets.a]\ncharset = 'big5'",
            '[datasets.a] `charset` must be "utf-8" or "gb18030", found the text \'big5\'',
        ),
        ("[datasets.a]\ncharset = 1", '[datasets.a] `charset` must be "utf-8" or "gb18030", found the number 1'),
        ("[datasets.a]\nkey = []", "[datasets.a] `key` must be a name or a list of different names, found a list"),
        ("[datasets.a]\nrecheck = -1", "[datasets.a] `recheck` must be a whole number from 0 to"),
        ("[datasets.a]\nexpect_rows = 1.5", "[datasets.a] `expect_rows` must be a whole number from 0 to"),
        ("[datasets.a]\nstrict = 1", "[datasets.a] `strict` must be true or false, found the number 1"),
        ("[defaults]\nmax_calls = 0", "[defaults] `max_calls` must be a whole number from 1 to"),
        (
            "[datasets.a]\ncalls_reset = 'year'",
            '[datasets.a] `calls_reset` must be a date (YYYY-MM-DD) or "day" or "month", found the text \'year\'',
        ),
        (
            "[datasets.a]\ncalls_reset = 2026-12-31T00:00:00",
            '[datasets.a] `calls_reset` must be a date (YYYY-MM-DD) or "day" or "month", found the date or time 2026-',
        ),
        ("[datasets.'a.b']\ntitle = 1", "[datasets.'a.b'] `title` must be a text on one line, found the number 1"),
        ("[datasets.a]\nparams = { d = 2026-01-01 }", "[datasets.a] `params` must be a table of texts, numbers"),
        ("[apps.a]\nid_headers = []", "[apps.a] `id_headers` must be a list of names of HTTP headers, found a list"),
        ("[apps.a]\nid_headers = ['a: b']", "[apps.a] `id_headers` must be a list of names of HTTP headers"),
        ("[apps.a]\ndigest = 'sha256'", '[apps.a] `digest` must be "md5" or "md5-16", found the text \'sha256\''),
        ("[run]\ncompression = 'zip'", '[run] `compression` must be "none" or "gzip" or "zstd", found'),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """The message says what the key wants and what was found; what may be a misplaced secret is not shown."""
    message = refusal(tmp_path, content)
    assert message.startswith(words)
    assert "hint: for example " in message
    assert "TOKEN" not in message


def test_every_key_of_a_platform_has_a_rule() -> None:
    """A platform that names a key nobody can check would make the key unusable."""
    for platform in PLATFORMS.values():
        assert schema.APP.keys() >= platform.APP_KEYS
        assert schema.dataset_rules([platform]).keys() >= platform.DATASET_KEYS


def test_every_example_of_a_rule_is_accepted_by_it() -> None:
    """A hint that leads into the next error is none."""
    for table in (schema.APP, schema.RUN, schema.dataset_rules(PLATFORMS.values())):
        for key, rule in table.items():
            assert rule.accepts(tomllib.loads(f"{key} = {rule.example}")[key]), key


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_example_job_file_shows_every_key_of_its_platform(name: str) -> None:
    """Set or commented out, and what is commented out is right as it stands."""
    platform = PLATFORMS[name]
    text = (CONFIG / f"{name}.toml").read_text(encoding="utf-8")
    wanted = {
        *(schema.APP.keys() - {key for each in PLATFORMS.values() for key in each.APP_KEYS}),
        *(*platform.APP_KEYS, *platform.CREDENTIAL_KEYS),
        *(schema.dataset_rules([platform]).keys() - {"page_size"}),
        *schema.RUN,
    }
    assert wanted <= set(re.findall(r"^#?(\w+) =", text, re.MULTILINE))
    rules = {**schema.RUN, **schema.APP} | schema.dataset_rules([platform])
    for line in re.findall(r"^#(\w+ = .*)", text, re.MULTILINE):
        ((key, value),) = tomllib.loads(line).items()
        assert rules[key].accepts(value), line


@given(st.binary(max_size=40) | st.text("[]{}=.\"'\n ab1", max_size=40).map(str.encode))
def test_no_bytes_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever is in the file, it is a job's tables or a refusal."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        assert isinstance(schema.read(path), dict)

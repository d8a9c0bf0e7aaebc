"""The way from a job file and an environment to settings, and every refusal on it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import Exit, UsageError
from harvester.job import Job, RunSettings
from harvester.platforms import sipop, wuhan

ENVIRON = {"ID": "the-id", "SECRET": "the-secret"}
WUHAN = """
[apps.w]
platform = "wuhan"
passid = { env = "ID" }
token = { env = "SECRET" }
rate_limit = 300
"""
SIPOP = """
[apps.s]
platform = "sipop"
app_key = "plain-key"
app_secret = { env = "SECRET" }
rate_limit = 0.5
url = "https://example.org/route"
"""
ONE = '[datasets.one]\nservice = "abc"\n'


def load(folder: Path, text: str | bytes, environ: dict[str, str] | None = None, *, secrets: bool = True) -> Job:
    """Load a job file with this content."""
    path = folder / "job.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Job.load(path, environ=ENVIRON if environ is None else environ, secrets=secrets)


def refusal(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> str:
    """Return the message of a job that cannot be loaded, without the name of the file."""
    with pytest.raises(UsageError) as caught:
        load(folder, text, environ)
    assert caught.value.exit is Exit.USAGE
    return str(caught.value).removeprefix(f"{folder / 'job.toml'}: ")


def test_a_short_job_is_filled_in(tmp_path: Path) -> None:
    """What the file does not say comes from the platform and from the defaults."""
    job = load(tmp_path, WUHAN + ONE)
    (dataset,) = job.datasets
    assert (job.path, job.output) == (tmp_path / "job.toml", tmp_path / "mirror")
    assert (dataset.name, dataset.service, dataset.page_param) == ("one", "abc", wuhan.PAGE_PARAM)
    assert (dataset.app, dataset.app.url, dataset.app.rate_limit) == (job.apps["w"], wuhan.DEFAULT_URL, 300.0)
    assert (dataset.app.id, dataset.app.secret.reveal()) == ("the-id", "the-secret")
    assert "the-secret" not in repr(job)
    assert (job.run, job.warnings) == (RunSettings(), ())


def test_everything_that_is_said_is_taken_over(tmp_path: Path) -> None:
    """Each key of a job file arrives in the field of the same name."""
    job = load(
        tmp_path,
        'output = "../elsewhere"\n'
        + WUHAN
        + 'url = "https://example.org/base"\nid_headers = ["x-id"]\n'
        + SIPOP
        + 'digest = "md5-16"\n'
        + """
        [datasets.a]
        app = "w"
        title = "甲"
        url = "https://example.org/a?b"
        body = "json"
        envelope = { more = [1, { x = true }] }
        params = { k = "v" }
        paging = "none"
        page_param = "p"
        first_page = 0
        charset = "gb18030"
        key = ["ID", "名称"]
        recheck = 0
        expect_rows = 16839
        strict = true
        max_calls = 20
        calls_reset = "day"
        [datasets.b]
        app = "s"
        method = "m"
        page_size = 50
        """,
    )
    a, b = job.datasets
    assert job.output == tmp_path / "../elsewhere"
    assert (a.app.url, a.app.id_headers, a.app.digest) == ("https://example.org/base", ("x-id",), "")
    assert (b.app.rate_limit, b.app.id, b.app.digest) == (0.5, "plain-key", "md5-16")
    assert (a.title, a.url, a.body, a.envelope) == ("甲", "https://example.org/a?b", "json", {"more": [1, {"x": True}]})
    assert (a.params, a.paging, a.page_param, a.first_page, a.page_size) == ({"k": "v"}, "none", "p", 0, None)
    assert (a.charset, a.key, a.recheck, a.expect_rows, a.strict) == ("gb18030", ("ID", "名称"), 0, 16839, True)
    assert (a.max_calls, a.calls_reset) == (20, "day")
    assert (b.charset, b.key, b.recheck, b.expect_rows, b.strict) == ("", (), None, None, False)
    assert (b.max_calls, b.calls_reset) == (None, "month")
    assert (b.method, b.page_size, b.page_param, b.first_page) == ("m", 50, sipop.PAGE_PARAM, 1)


@pytest.mark.parametrize(
    ("key", "written", "kept"),
    [
        ("charset", '"gbk"', "gb18030"),
        ("charset", '"GB2312"', "gb18030"),
        ("charset", '"UTF-8"', "utf-8"),
        ("key", '"ID"', ("ID",)),
        ("calls_reset", '"month"', "month"),
        ("calls_reset", '"2026-12-31"', "2026-12-31"),
        ("calls_reset", "2026-12-31", "2026-12-31"),
    ],
)
@pytest.mark.parametrize("table", ["[defaults]\n{}\n{}", "{1}\n{0}"])
def test_what_can_be_written_in_several_ways_is_kept_in_one(
    tmp_path: Path, table: str, key: str, written: str, kept: object
) -> None:
    """For the datasets of both platforms, said for one or for all."""
    both = WUHAN + SIPOP + table.format(f"{key} = {written}", ONE + 'app = "w"')
    both += f'\n[datasets.two]\napp = "s"\nmethod = "m"\n{"" if "defaults" in table else f"{key} = {written}"}'
    assert [getattr(dataset, key) for dataset in load(tmp_path, both).datasets] == [kept, kept]


def test_defaults_fill_what_a_dataset_does_not_say(tmp_path: Path) -> None:
    """Parameters merge key by key, and a default of one platform leaves datasets of the other alone."""
    job = load(
        tmp_path,
        WUHAN
        + SIPOP
        + """
        [defaults]
        app = "s"
        body = "form"
        method = "m"
        params = { a = "1", b = "1" }
        [datasets.first]
        params = { b = "2" }
        [datasets.second]
        app = "w"
        service = "abc"
        [datasets.third]
        method = "other"
        """,
    )
    first, second, third = job.datasets
    assert (first.method, first.params, first.body) == ("m", {"a": "1", "b": "2"}, "")
    assert (second.method, second.params, second.body) == ("", {"a": "1", "b": "1"}, "form")
    assert (third.method, third.app.name) == ("other", "s")


def test_datasets_keep_the_order_of_the_file_and_disabled_ones_are_left_out(tmp_path: Path) -> None:
    """`enabled` counts where it is nearest to the dataset."""
    tables = "".join(f'[datasets.{name}]\nservice = "s"\n{more}\n' for name, more in
                     (("z", "enabled = true"), ("m", ""), ("a", "enabled = true")))  # fmt: skip
    assert [each.name for each in load(tmp_path, WUHAN + tables).datasets] == ["z", "m", "a"]
    off = WUHAN + "[defaults]\nenabled = false\n" + tables
    assert [each.name for each in load(tmp_path, off).datasets] == ["z", "a"]


def test_a_job_needs_something_to_do(tmp_path: Path) -> None:
    """A file without apps, without datasets, or with disabled ones only, says which it is."""
    assert refusal(tmp_path, "").startswith("has no app\n\nhint: add a table [apps.NAME]")
    assert refusal(tmp_path, WUHAN).startswith("has no dataset\n\nhint: add a table [datasets.NAME]")
    assert refusal(tmp_path, WUHAN + ONE + "enabled = false").startswith("has no dataset that is enabled\n")


def test_without_secrets_nothing_is_fetched_but_the_form_is_checked(tmp_path: Path) -> None:
    """Commands that send nothing work where no credential is at hand."""
    job = load(tmp_path, WUHAN + SIPOP + '[datasets.a]\napp = "s"\nmethod = "m"', {}, secrets=False)
    assert [(app.id, app.secret.reveal()) for app in job.apps.values()] == [("", ""), ("", "")]
    with pytest.raises(UsageError, match="`token` stands in the job file as text"):
        load(tmp_path, WUHAN.replace('{ env = "SECRET" }', '"abc"') + ONE, secrets=False)


def test_ids_are_had_without_secrets(tmp_path: Path) -> None:
    """Whoever asks which calls were counted needs to know for whom, and no secret."""
    text = WUHAN.replace('{ env = "SECRET" }', '{ command = ["touch", "ran"] }') + ONE
    path = tmp_path / "job.toml"
    path.write_text(text)
    job = Job.load(path, environ=ENVIRON, secrets=False, ids=True)
    assert [(dataset.app.id, dataset.app.secret.reveal()) for dataset in job.datasets] == [("the-id", "")]
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="variable ID is not set"):
        Job.load(path, environ={}, secrets=False, ids=True)


def test_a_missing_variable_is_named_with_the_file_and_the_key(tmp_path: Path) -> None:
    """The message leads to the edit: the whole of it is pinned."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, WUHAN + ONE, {"ID": "x"})
    assert str(caught.value) == (
        f"{tmp_path / 'job.toml'}: [apps.w] `token`: the environment variable SECRET is not set\n"
        "\n"
        "hint: export SECRET=…"
    )


def test_no_command_runs_before_the_whole_file_is_known_to_be_good(tmp_path: Path) -> None:
    """A command may ask a person for a password; nobody types one for a job with a mistake in it."""
    text = WUHAN.replace('{ env = "SECRET" }', '{ command = ["touch", "ran"] }')
    assert "`service` and `url`" in refusal(tmp_path, text + "[datasets.one]")
    assert not (tmp_path / "ran").exists()
    assert "`token` is empty" in refusal(tmp_path, text + ONE)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            WUHAN.replace("wuhan", "wuhna") + ONE,
            "[apps.w] `platform` is 'wuhna', known are wuhan, sipop\n\nhint: for example platform = \"wuhan\"",
        ),
        (
            WUHAN.replace('platform = "wuhan"', "") + ONE,
            '[apps.w] needs `platform`\n\nhint: for example platform = "wuhan"',
        ),
        (
            WUHAN.replace("rate_limit = 300", "") + ONE,
            "[apps.w] needs `rate_limit`\n\nhint: for example rate_limit = 300",
        ),
        (
            WUHAN.replace('token = { env = "SECRET" }', "") + ONE,
            '[apps.w] needs `token`\n\nhint: for example token = { env = "WUHAN_TOKEN" }',
        ),
        (
            WUHAN.replace("300", '"fast"') + ONE,
            (
            "[apps.w] `rate_limit` must be a number above 0 or \"none\", found the text 'fast'\n\n"
            "hint: for example rate_limit = 300"
            ),
        ),
        (
            WUHAN.replace("300", '"none"') + ONE,
            (
            f'[apps.w] `rate_limit` is "none", but {wuhan.DEFAULT_URL} is not on this machine\n\n'
            "hint: give the calls per second that the platform grants this app, for example rate_limit = 300"
            ),
        ),
        (
            WUHAN + ONE + 'app = "W1"',
            "[datasets.one] `app` is 'W1', the file has w\n\nhint: for example app = \"w\"",
        ),
        (
            WUHAN + '[defaults]\napp = "x"\n' + ONE,
            "[defaults] `app` is 'x', the file has w\n\nhint: for example app = \"w\"",
        ),
        (
            WUHAN + SIPOP + ONE,
            '[datasets.one] needs `app`, because there is more than one: w, s\n\nhint: for example app = "w"',
        ),
        (
            WUHAN.replace("apps.w", "apps.'a b'") + ONE,
            "[apps.'a b'] is no name for an app\n\nhint: use letters, digits, '.', '_' and '-' only",
        ),
        (
            WUHAN + ONE + "params = { pageNo = '1' }",
            "[datasets.one] parameter 'pageNo' is the page number, which is filled in for each call\n\nhint: remove it",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_edit_that_mends_it(tmp_path: Path, text: str, message: str) -> None:
    """Whole messages: where, what was found, why it is wrong, what to write."""
    assert refusal(tmp_path, text) == message


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "may hold only letters"),
        ("a/b", "may hold only letters"),
        ("a\\nb", "may hold only letters"),
        ("数据", "may hold only letters"),
        (".", "begins or ends with a dot"),
        ("..", "begins or ends with a dot"),
        (".hidden", "begins or ends with a dot"),
        ("x" * 101, "has 101 characters, more than 100"),
        ("Runs", "is taken"),
        ("current.json", "is taken"),
        ("nul", "a device on Windows"),
        ("Com1.txt", "a device on Windows"),
        ("ONE", "differs from 'one' in upper and lower case only"),
    ],
)
def test_a_dataset_name_that_is_no_good_folder_is_refused(tmp_path: Path, name: str, fault: str) -> None:
    """Names become folders, here and wherever a mirror is copied to."""
    message = refusal(tmp_path, WUHAN + ONE + f'[datasets."{name}"]\nservice = "s"')
    assert message.startswith("[datasets.")
    assert fault in message


def test_unusual_names_that_are_good_folders_are_accepted(tmp_path: Path) -> None:
    """Only what would break is refused."""
    names = ["a.b", "x" * 100, "-", "com10", "console", "2026_runs"]
    text = WUHAN + "".join(f'[datasets."{name}"]\nservice = "s"\n' for name in names)
    assert [dataset.name for dataset in load(tmp_path, text).datasets] == names


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/", "example.org/x", "https://", "https://e.org/#top", "https://e.org/a b", "https://[::1/",
     "https://e.org:0/", "https://e.org:99999/", "https://e.org:x/"],
)  # fmt: skip
def test_an_address_that_cannot_be_called_is_refused(tmp_path: Path, url: str) -> None:
    """Apps and datasets are held to the same rule, and the message shows the address."""
    for text in (WUHAN + f'url = "{url}"\n' + ONE, WUHAN + f'[datasets.one]\nurl = "{url}"'):
        message = refusal(tmp_path, text)
        assert "`url` must be an http or https address without a fragment (#), found the text" in message
        assert repr(url) in message


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@e.org/", "https://hunter2@e.org", "me:hunter2@e.org", "//hunter2@[/"]
)
def test_an_address_with_a_password_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    """A password in an address would reach logs and reports."""
    message = refusal(tmp_path, WUHAN + f'url = "{url}"\n' + ONE)
    assert "[apps.w] `url`" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("url", "allowed"),
    [("http://127.0.0.1:8080/", True), ("http://[::1]:1/", True), ("http://localhost/", True),
     ("http://127.0.0.1.example.org/", False), ("https://10.0.0.1/", False), ("http://localhost.example.org/", False)],
)  # fmt: skip
def test_no_rate_limit_is_for_this_machine_only(tmp_path: Path, url: str, allowed: bool) -> None:  # noqa: FBT001 - a case
    """Neither the app's address nor a dataset's own may be elsewhere."""
    app = WUHAN.replace("300", '"none"')
    local = 'url = "http://127.0.0.1/"\n'
    texts = [app + f'url = "{url}"\n' + ONE, app + local + f'[datasets.one]\nurl = "{url}"']
    for text in texts:
        if allowed:
            assert load(tmp_path, text).apps["w"].rate_limit is None
        else:
            assert f"{url} is not on this machine" in refusal(tmp_path, text)


def test_each_app_without_encryption_is_warned_of_once(tmp_path: Path) -> None:
    """Loopback needs none; an address of a dataset counts like its app's; SIPOP's documented default is http."""
    plain = '[datasets.{}]\napp = "w"\nurl = "http://example.org/{}"\n'
    sipop_default = SIPOP.replace('url = "https://example.org/route"', "")
    text = WUHAN + sipop_default + plain.format("a", "a") + plain.format("b", "b")
    first, second = load(tmp_path, text).warnings
    assert first.startswith("[apps.w] http://example.org/a is not encrypted")
    assert 'write url = "https://example.org/a"' in first
    assert second.startswith(f"[apps.s] {sipop.DEFAULT_URL} is not encrypted")
    assert load(tmp_path, WUHAN + 'url = "http://127.0.0.1:1/"\n' + ONE).warnings == ()


def test_run_settings_come_from_the_environment_before_the_file(tmp_path: Path) -> None:
    """Flag, then environment, then file, then default; an empty variable is one that is not set."""
    text = WUHAN + ONE + '[run]\ntimeout = 10\nattempts = 3\ncompression = "gzip"\nmax_calls = 7\n'
    environ = {
        **ENVIRON,
        "HARVESTER_RUN_TIMEOUT": "2.5",
        "HARVESTER_RUN_CONCURRENCY": " 64\r",
        "HARVESTER_RUN_COMPRESSION": "none\r",
        "HARVESTER_RUN_MAX_CALLS": "",
    }
    job = load(tmp_path, text, environ)
    assert job.run == RunSettings(concurrency=64, compression="none", timeout=2.5, attempts=3, max_calls=7)


def test_a_wrong_setting_is_named_as_it_was_given(tmp_path: Path) -> None:
    """File and variable each by its own spelling, under one rule."""
    wants = "must be a whole number from 1 to 1000000000, found"
    text = WUHAN + ONE + "[run]\nrows_per_shard = 0"
    assert refusal(tmp_path, text).startswith(f"[run] `rows_per_shard` {wants} the number 0\n")
    assert refusal(tmp_path, WUHAN + ONE, {**ENVIRON, "HARVESTER_RUN_ROWS_PER_SHARD": "many"}) == (
        f"environment: HARVESTER_RUN_ROWS_PER_SHARD {wants} the text 'many'\n\n"
        "hint: for example export HARVESTER_RUN_ROWS_PER_SHARD=100000"
    )


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    """A bound on calls that nobody heeds costs money."""
    assert refusal(tmp_path, WUHAN + ONE, {**ENVIRON, "HARVESTER_RUN_MAX_CALL": "20"}) == (
        "environment: HARVESTER_RUN_MAX_CALL is no setting of [run]\n\n"
        "hint: did you mean HARVESTER_RUN_MAX_CALLS? unset HARVESTER_RUN_MAX_CALL"
    )


@given(st.text(st.sampled_from('0123456789.eE+-_ infatuo"'), max_size=8))
def test_whatever_the_environment_says_is_a_good_setting_or_a_refusal(text: str) -> None:
    """No text makes a setting that is out of bounds, and none a traceback."""
    path = Path(__file__).parent.parent / "config" / "wuhan.toml"
    try:
        job = Job.load(path, environ={"HARVESTER_RUN_CONCURRENCY": text, "HARVESTER_RUN_TIMEOUT": text}, secrets=False)
    except UsageError:
        return
    if text:
        assert isinstance(job.run.concurrency, int)
        assert job.run.concurrency >= 1
        assert 0 < job.run.timeout < float("inf")


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ`, credentials and settings come from the process; a relative path becomes absolute."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**ENVIRON, "HARVESTER_RUN_ATTEMPTS": "2"}.items():
        monkeypatch.setenv(name, value)
    Path("job.toml").write_text(WUHAN + ONE, encoding="utf-8")
    job = Job.load("job.toml")
    assert (job.path, job.run.attempts, job.apps["w"].id) == (tmp_path / "job.toml", 2, "the-id")
    assert os.environ["ID"] == "the-id"


@pytest.mark.parametrize("name", ["wuhan", "sipop"])
def test_the_example_job_files_load_as_they_are(name: str) -> None:
    """Somebody who copies one and sets the two variables has a job without a warning."""
    path = Path(__file__).parent.parent / "config" / f"{name}.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))["apps"][name]
    variables = [source["env"] for source in table.values() if isinstance(source, dict)]
    job = Job.load(path, environ={variable: f"made-up {variable}" for variable in variables})
    assert (job.apps[name].platform, len(job.datasets), job.warnings) == (name, 1, ())
    assert job.apps[name].secret.reveal() == f"made-up {variables[1]}"

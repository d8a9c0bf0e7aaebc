"""The tables of apps: by which way calls get to the platform, and what must not stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_job_file import ENVIRON, ONE, SIPOP, WUHAN, load, refusal

from harvester.lifecycle import identity
from harvester.platforms import PLATFORMS

PASSWORD = "pr0xy-Passw0rd"
AUTH = '{ url = "http://proxy:3128", user = "me", password = { env = "PROXY" } }'


def with_keys(keys: str) -> str:
    """Return a job whose app has further keys."""
    return f"{WUHAN}{keys}\n{ONE}"


def test_a_way_of_its_own(tmp_path: Path) -> None:
    """Every key arrives; the file's path is absolute, and the password a secret in every rendering."""
    (tmp_path / "ca.pem").touch()
    keys = f'proxy = {AUTH}\nca_file = "ca.pem"\nlegacy_tls = true\nhost = "platform.example:8443"'
    job = load(tmp_path, with_keys(keys), {**ENVIRON, "PROXY": PASSWORD})
    app = job.apps["w"]
    assert (app.proxy, app.ca_file, app.legacy_tls) == ("http://proxy:3128", str(tmp_path / "ca.pem"), True)
    assert app.host == "platform.example:8443"
    assert app.proxy_auth is not None
    user, password = app.proxy_auth
    assert (user, password.reveal()) == ("me", PASSWORD)
    assert PASSWORD not in f"{job!r} {app} {app.proxy_auth}"
    assert job.datasets[0].app is app


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "https://10.0.0.1", "http://[::1]:8080/", "env"])
def test_a_proxy_without_a_password(tmp_path: Path, proxy: str) -> None:
    """An address, or the environment's, is taken as it is written; a table with an address alone says the same."""
    app = load(tmp_path, with_keys(f'proxy = "{proxy}"')).apps["w"]
    assert (app.proxy, app.proxy_auth) == (proxy, None)
    if proxy != "env":
        app = load(tmp_path, with_keys(f'proxy = {{ url = "{proxy}" }}')).apps["w"]
        assert (app.proxy, app.proxy_auth) == (proxy, None)


def test_without_these_keys_nothing_is_different(tmp_path: Path) -> None:
    """No proxy, no file, no old TLS, the address's own host."""
    app = load(tmp_path, with_keys("")).apps["w"]
    assert (app.proxy, app.proxy_auth, app.ca_file, app.legacy_tls, app.host) == ("", None, "", False, "")


@pytest.mark.parametrize(
    "proxy",
    [
        f'"http://me:{PASSWORD}@proxy:3128"',
        f'"http://{PASSWORD}@proxy"',
        f'"http:/me:{PASSWORD}@proxy"',
        f'"me:{PASSWORD}@proxy:3128"',
        f'"http://me:{PASSWORD}@proxy:port"',
        f'{{ url = "http://me:{PASSWORD}@proxy" }}',
        f'{{ url = "http://proxy", user = "me", password = "{PASSWORD}" }}',
        f'{{ url = "http://proxy", user = "me:{PASSWORD}", password = {{ env = "PROXY" }} }}',
        f'{{ url = ["{PASSWORD}"] }}',
        f'{{ url = "http://proxy", user = "me", password = ["{PASSWORD}"] }}',
        f'{{ url = "http://proxy", password = {{ value = "{PASSWORD}" }} }}',
        f'{{ url = "http://proxy/", user = "me", passwrd = "{PASSWORD}" }}',
        f'["{PASSWORD}"]',
    ],
)
def test_a_password_in_the_wrong_place_is_refused_unseen(tmp_path: Path, proxy: str) -> None:
    """Wherever it stands, the message names the place and how to write it, and shows nothing of it."""
    message = refusal(tmp_path, with_keys(f"proxy = {proxy}"), {**ENVIRON, "PROXY": "x"})
    assert "proxy" in message
    assert "hint: " in message
    if "me:" not in proxy or "@" in proxy:
        assert PASSWORD not in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('proxy = ""', "`proxy` must be an http or https address"),
        ('proxy = "proxy:3128"', "`proxy` must be an http or https address"),
        ('proxy = "socks5://proxy:1080"', "`proxy` must be an http or https address"),
        ('proxy = "http://proxy/path"', "`proxy` must be the address of a host, with nothing behind it"),
        ('proxy = "http://proxy?a=b"', "`proxy` must be the address of a host, with nothing behind it"),
        ('proxy = "http://pro\\u0007xy"', "`proxy` needs an address as a text on one line"),
        ('proxy = { user = "me" }', "`proxy` needs an address"),
        ("proxy = true", '`proxy` must be an address, a table with `url`, `user` and `password`, or "env", found true'),
        ('proxy = { url = "http://proxy", user = "me" }', "[apps.w.proxy] needs `password`"),
        ('proxy = { url = "http://proxy", password = { env = "A" } }', "[apps.w.proxy] needs `user`"),
        (
            'proxy = { url = "http://proxy", usr = "me" }',
            "has an unknown key\n  [apps.w.proxy] `usr` is unknown; did you mean `user`?",
        ),
        ('ca_file = "~/ca.pem"', "`ca_file` must be the path of a file"),
        ('ca_file = ""', "`ca_file` must be the path of a file"),
        ('ca_file = "nowhere.pem"', "`ca_file`: there is no file"),
        ("legacy_tls = 1", "`legacy_tls` must be true or false"),
        ('host = "https://x"', "`host` must be the name of a host"),
        ('host = "a..b"', "`host` must be the name of a host"),
        ('host = "x:0"', "`host` must be the name of a host"),
        ('host = "x:65536"', "`host` must be the name of a host"),
        ('host = "x\\r\\nA: b"', "`host` must be the name of a host"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, keys: str, words: str) -> None:
    """With the table, the key, and an edit that mends it."""
    message = refusal(tmp_path, with_keys(keys))
    assert words in message
    assert "hint: " in message


def test_what_only_a_caller_needs_is_not_looked_for_by_others(tmp_path: Path) -> None:
    """A job can be looked at where there is neither the password nor the file."""
    job = load(tmp_path, with_keys(f'proxy = {AUTH}\nca_file = "nowhere.pem"'), {}, secrets=False)
    assert (job.apps["w"].proxy, job.apps["w"].proxy_auth) == ("http://proxy:3128", None)
    assert job.rereaders == {}
    assert "`password`: the environment variable PROXY is not set" in refusal(tmp_path, with_keys(f"proxy = {AUTH}"))


def test_old_tls_is_warned_of_once(tmp_path: Path) -> None:
    """For each app that admits it, however many datasets it has."""
    two = ONE + '[datasets.two]\nservice = "abc"\n'
    (warning,) = load(tmp_path, f"{WUHAN}legacy_tls = true\n{two}").warnings
    assert warning.startswith("[apps.w] `legacy_tls` admits TLS 1.0")
    assert load(tmp_path, f"{WUHAN}legacy_tls = false\n{two}").warnings == ()


@pytest.mark.parametrize(
    ("host", "allowed"), [("", True), ("localhost:8080", True), ("127.0.0.1", True), ("rio.wuhan.gov.cn", False)]
)
def test_a_gateway_on_this_machine_is_no_reason_to_have_no_limit(tmp_path: Path, host: str, allowed: bool) -> None:  # noqa: FBT001 - a case
    """What is called through it is somebody else's."""
    app = WUHAN.replace("300", '"none"') + 'url = "http://127.0.0.1:1/"\n' + (f'host = "{host}"\n' if host else "")
    if allowed:
        assert load(tmp_path, app + ONE).apps["w"].rate_limit is None
    else:
        assert f"`host` {host} is not on this machine" in refusal(tmp_path, app + ONE)


def test_the_way_is_not_part_of_what_a_dataset_is(tmp_path: Path) -> None:
    """A snapshot goes on whichever way its pages come."""
    (tmp_path / "ca.pem").touch()
    keys = 'proxy = "http://proxy"\nca_file = "ca.pem"\nlegacy_tls = true\nhost = "h"'
    one, other = (load(tmp_path, with_keys(text)).datasets[0] for text in ("", keys))
    assert identity(one, PLATFORMS["wuhan"]) == identity(other, PLATFORMS["wuhan"])


def test_each_secret_can_be_read_again(tmp_path: Path) -> None:
    """From the file that it came from; an app whose secret is the same as before is not handed back."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("old")
    job = load(tmp_path, WUHAN.replace('{ env = "SECRET" }', '{ file = "secret" }') + SIPOP + ONE + 'app = "w"\n')
    assert job.rereaders.keys() == {"w", "s"}
    app = job.apps["w"]
    assert job.rereaders["w"](app) is None
    secret.write_text("new")
    renewed = job.rereaders["w"](app)
    assert renewed is not None
    assert (renewed.secret.reveal(), renewed.id, app.secret.reveal()) == ("new", app.id, "old")
    assert job.rereaders["s"](job.apps["s"]) is None, "a variable does not change"

"""Ways to an address, from settings and from the environment."""

from __future__ import annotations

import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from harvester.errors import LocalError
from harvester.model import Secret
from harvester.route import Route, RouteError, Way, trust

PASSWORD = "pass:w0rd/秘"


def basic(user: str, password: str) -> str:
    """Return the header's value."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def way(
    address: str,
    proxy: str | None = None,
    auth: tuple[str, Secret] | None = None,
    host: str = "",
    *,
    from_env: bool = False,
) -> Way:
    """Return the way to an address."""
    return Route(proxy, auth, from_env=from_env, host=host).way(address)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no proxies in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_plain_way() -> None:
    """Without settings there is nothing but the address, byte for byte."""
    found = way("https://a.example/x%2F?b=%20+")
    assert (str(found.url), found.proxy, found.headers, found.options) == ("https://a.example/x%2F?b=%20+", "", {}, {})


def test_another_name() -> None:
    """The name is for the Host header with its port, and for TLS without it."""
    assert way("http://10.0.0.1/x", host="api.example:8080").headers == {"Host": "api.example:8080"}
    assert way("http://10.0.0.1/x", host="api.example:8080").options == {}
    found = way("https://10.0.0.1/x", host="api.example:8443")
    assert (found.headers, found.options) == ({"Host": "api.example:8443"}, {"server_hostname": "api.example"})
    assert way("https://10.0.0.1/x", host="[::1]:443").options == {"server_hostname": "::1"}


def test_a_proxy_gets_its_password_and_nobody_else() -> None:
    """Through a tunnel the password goes to the proxy alone; without one there is one request for both."""
    auth = ("me", Secret(PASSWORD))
    expected = {"Proxy-Authorization": basic("me", PASSWORD)}
    tunnel = way("https://a.example/x", "http://proxy.example:3128", auth)
    assert tunnel.headers == {}
    assert tunnel.options["proxy_headers"] == expected
    assert str(tunnel.options["proxy"]) == "http://proxy.example:3128"
    assert tunnel.proxy == "http://proxy.example:3128"
    plain = way("http://a.example/x", "http://proxy.example:3128", auth)
    assert plain.headers == expected
    assert "proxy_headers" not in plain.options
    assert way("http://a.example/x", "http://proxy.example:3128").headers == {}


def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken only if asked for, by scheme, with its user and password, and not for exceptions."""
    monkeypatch.setenv("https_proxy", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("all_proxy", "other.example:8080")
    monkeypatch.setenv("no_proxy", "near.example,.inner.example,port.example:8443")
    assert way("https://a.example/x").proxy == ""
    found = way("https://a.example/x", from_env=True)
    assert found.proxy == "http://proxy.example:3128"
    assert str(found.options["proxy"]) == "http://proxy.example:3128"
    assert found.options["proxy_headers"] == {"Proxy-Authorization": basic("me", "p@ss")}
    assert way("http://a.example/x", from_env=True).proxy == "http://other.example:8080"
    for host, proxied in (("near.example", False), ("a.inner.example", False), ("far.example", True)):
        assert bool(way(f"https://{host}/x", from_env=True).proxy) is proxied
    assert way("https://port.example:8443/x", from_env=True).proxy == ""
    assert way("https://port.example/x", from_env=True).proxy
    assert way("https://a.example/x", "http://set.example:1", from_env=True).proxy == "http://set.example:1"


def test_no_proxy_in_the_environment() -> None:
    """To ask for the environment's proxy where there is none is to go without."""
    assert way("https://a.example/x", from_env=True).proxy == ""


@pytest.mark.parametrize(
    "address", ["socks5://me:canary@proxy.example:1080", "http://me:canary@proxy.example:port", "http://", "canary"]
)
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The error tells the form that is needed, and no password."""
    monkeypatch.setenv("http_proxy", address)
    with pytest.raises(RouteError) as caught:
        way("http://a.example/x", address)
    assert "canary" not in caught.value.text
    if address != "canary":  # without a scheme it is a host's name
        with pytest.raises(RouteError) as caught:
            way("http://a.example/x", from_env=True)
        assert "canary" not in caught.value.text


def test_nothing_is_trusted_beyond_the_systems_authorities() -> None:
    """The default is the client's own, which verifies."""
    assert trust(None, legacy=False) is True


def test_legacy_never_means_unverified() -> None:
    """Old protocols are let in; certificates and names are verified as ever."""
    context = trust(None, legacy=True)
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.options & ssl.OP_NO_SSLv3
    assert not context.options & ssl.OP_NO_TLSv1
    assert context.security_level == 0
    assert context.cert_store_stats() == ssl.create_default_context().cert_store_stats()


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n"])
def test_a_ca_file_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or broken file is this machine's, and is named."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LocalError) as caught:
        trust(path, legacy=False)
    assert str(path) in caught.value.message
    assert all(caught.value.causes)

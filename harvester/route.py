"""How calls get to their address: past which proxy, under which name, and whom TLS believes."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.request import getproxies, proxy_bypass

from msgspec import Struct
from yarl import URL

from harvester.errors import LocalError
from harvester.model import MASK, Secret

_LEGACY_SERVER_CONNECT: Final = getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)  # named from Python 3.12 on


class RouteError(Exception):
    """There is no way to the address.

    Args:
        text: why, for people.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Way(Struct, frozen=True):
    """The way to one address: headers and options that every call to it takes along.

    ``proxy`` is the proxy's address without user and password, empty if there is none.
    """

    url: URL
    proxy: str
    headers: Mapping[str, str]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Way({str(self.url)!r}, {self.proxy!r}, {MASK})"


class Route:
    """Finds the way to an address.

    Args:
        proxy: address of the proxy to take, without user and password.
        proxy_auth: user and password for it.
        from_env: take the proxy that the environment names for the address (``https_proxy``, ``no_proxy`` and their
            like), unless ``proxy`` names one. Its address may hold a user and a password.
        host: the name to ask for in the Host header and in TLS instead of the address's own, with a port if need be.
    """

    def __init__(self, proxy: str | None, proxy_auth: tuple[str, Secret] | None, *, from_env: bool, host: str) -> None:
        self._proxy = proxy
        self._auth = proxy_auth
        self._from_env = from_env and not proxy
        self._host = host

    def way(self, address: str) -> Way:
        """Return the way to an address.

        Raises:
            RouteError: the proxy's address is none that can be used.
        """
        url = URL(address, encoded=True)
        headers: dict[str, str] = {}
        options: dict[str, Any] = {}
        if self._host:
            headers["Host"] = self._host
            if url.scheme == "https":
                options["server_hostname"] = URL.build(scheme="https", authority=self._host).raw_host
        proxy, authorization = self._proxy_to(url)
        if proxy is None:
            return Way(url, "", headers, options)
        options["proxy"] = proxy
        if authorization is not None and url.scheme == "https":  # for the proxy only: it goes with CONNECT
            options["proxy_headers"] = {"Proxy-Authorization": authorization.reveal()}
        elif authorization is not None:
            headers["Proxy-Authorization"] = authorization.reveal()
        return Way(url, str(proxy.origin()), headers, options)

    def _proxy_to(self, url: URL) -> tuple[URL | None, Secret | None]:
        address = _from_environment(url) if self._from_env else self._proxy
        if not address:
            return None, None
        try:
            proxy = URL(address)
        except ValueError:
            raise RouteError("the proxy's address is not a URL") from None  # unnamed: it may hold a password
        if proxy.scheme not in {"http", "https"} or not proxy.host:
            raise RouteError(f"the proxy's address has to begin with http:// or https://, not {proxy.scheme[:20]!a}")
        if proxy.user is None:
            return proxy, None if self._auth is None else _basic(self._auth[0], self._auth[1].reveal())
        return proxy.with_user(None), _basic(proxy.user, proxy.password or "")


def _from_environment(url: URL) -> str:
    if proxy_bypass(f"{url.host}:{url.port}"):
        return ""
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all", "")
    return address if "://" in address or not address else f"http://{address}"


def _basic(user: str, password: str) -> Secret:
    return Secret("Basic " + b64encode(f"{user}:{password}".encode()).decode())


def trust(ca_file: Path | None, *, legacy: bool) -> ssl.SSLContext | Literal[True]:
    """Return whom TLS believes: the system's authorities, and those of a file; True stands for the former alone.

    The server's certificate and name are always verified, ``legacy`` or not: that only admits TLS 1.0, the algorithms
    of its time, and servers that know nothing of secure renegotiation (RFC 5746).

    Raises:
        LocalError: the file cannot be used.
    """
    if ca_file is None and not legacy:
        return True
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if legacy:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # TLS 1.0; SSL 3 is switched off by default
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.options |= _LEGACY_SERVER_CONNECT
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise LocalError(
                f"the certificates in {ca_file} cannot be used",
                causes=[error.strerror or type(error).__name__],
                hint="give a readable file with certificates in PEM form",
            ) from None
    return context

"""Who may talk to the server: programs on this machine, not web pages in its browser.

A page on the internet can make a browser send requests to 127.0.0.1, directly or by giving its own
name that address (DNS rebinding). Both show: in `Origin`, or in `Host`. So both are checked
before anything else, on every path, and no CORS header is ever sent.
"""

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from techtree.serve.errors import ApiError, error_response

OPEN_PATHS = frozenset({"/health", "/models", "/v1/models"})
"""Need no key, as in llama.cpp: they say nothing about anybody's code."""

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/@\[\]]+))(?::(?P<port>[0-9]{1,5}))?")

_logger = logging.getLogger(__name__)


def parse_authority(text: str) -> tuple[str, int] | None:
    """Return host and port of a `Host` header, or None when it is none.

    >>> parse_authority("LOCALHOST:8012"), parse_authority("[0:0::1]:8012"), parse_authority("a.b")
    (('localhost', 8012), ('::1', 8012), ('a.b', 80))
    >>> parse_authority("::1:8012") is None
    True
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host = (match["v6"] or match["name"]).lower()
    if match["v6"] and not isinstance(as_address(host), ipaddress.IPv6Address):
        return None
    return str(as_address(host) or host), int(match["port"] or 80)


def as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens at a host.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "example.org")]
    [True, True, True, False, False, False]
    """
    address = as_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    host: str = "127.0.0.1"
    port: int = 8012

    @property
    def url(self) -> str:
        """The address as the beginning of a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def is_meant_by(self, authority: str) -> bool:
        """Return whether a `Host` header names this server.

        A server that other machines reach may be called by any address, since a page cannot make
        the browser send an address as its own name; names other than its own are refused there too.
        """
        parsed = parse_authority(authority)
        if parsed is None or parsed[1] != self.port:
            return False
        if parsed[0] in ("127.0.0.1", "::1", "localhost", self.host.lower()):
            return True
        return not is_loopback(self.host) and as_address(parsed[0]) is not None


class Guard:
    """Refuses what does not come from a program on this machine, or does not know the key.

    Parameters
    ----------
    app
        What to protect.
    address
        Where the server listens.
    api_key
        What ``Authorization: Bearer`` must give, on all but `OPEN_PATHS`; None for nothing.
    is_open
        Tells of a path whether it needs no key either: a browser cannot give one.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: Address,
        api_key: str | None,
        is_open: Callable[[str], bool] = OPEN_PATHS.__contains__,
    ):
        self._app = app
        self._address = address
        self._api_key = api_key
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 401 or 403."""
        if scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            try:
                self._check(scope["path"], Headers(scope=scope))
            except ApiError as error:
                _logger.warning("%d %s %r: %s", error.status, scope["method"], scope["path"], error.message)
                await error_response(error.status, error.message)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._address.is_meant_by(hosts[0]):
            raise ApiError(
                403, f"Host must be this server, as in {self._address.url}; got {', '.join(hosts) or 'none'}"
            )
        for origin in headers.getlist("origin"):
            scheme, _, authority = origin.partition("://")
            if scheme != "http" or not self._address.is_meant_by(authority):
                raise ApiError(403, f"web pages of {origin} may not use this server: only programs may")
        if self._api_key is None or path in OPEN_PATHS or self._is_open(path):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Starlette decodes headers as Latin-1; that gives the bytes back.
        is_right = hmac.compare_digest(given.strip().encode("latin-1"), self._api_key.encode("utf-8"))
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError(
                401, "the key must be given as 'Authorization: Bearer KEY'; it is missing or wrong"
            )

"""What a request must show before an application sees it: ASGI middleware.

In this order: few enough connections (503), headers that are small enough (431), a Host that is this server's (403: any
web page could reach it under a name of its own that leads here), no Origin but its own (403: a foreign page), the token
(401), JSON where the application wants it (415), a body that is small enough (413). The paths that an orchestrator and
Prometheus ask need small headers and nothing more: they tell no rows.
"""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.web.connection import TURNED_AWAY

__all__ = ["LOOPBACK_NAMES", "OPEN_PATHS", "Access", "BodyLimit", "Rules", "own_names"]

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/health"})
"""Asked without a token, under any name."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HEADER_BYTES_MAX = 16_384
RETRY_AFTER_S = 1

_HOST = re.compile(rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::\d*)?")


@dataclass(frozen=True)
class Rules:
    """What a server asks for.

    Args:
        hosts: names under which it may be called, lower case.
        token: none: nobody needs one.
        json_only: requests with a body of another content type are refused.
        open_paths: asked without the token, under the names above only: a page that tells nothing by itself.
    """

    hosts: frozenset[str] = frozenset(LOOPBACK_NAMES)
    token: str | None = None
    json_only: bool = False
    open_paths: frozenset[str] = frozenset()


def own_names(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names of a server that was told to listen on `host`, and `allowed`: for `Rules.hosts`."""
    names = {*LOOPBACK_NAMES, host, socket.gethostname(), *allowed}
    return frozenset(name.strip("[]").rstrip(".").lower() for name in names)


class Access:
    """Refuses requests that break `rules`.

    Args:
        refusal: makes the application's own kind of answer of a status, a reason and headers.
    """

    def __init__(self, app: ASGIApp, rules: Rules, refusal: Callable[[int, str, Mapping[str, str]], Response]) -> None:
        self._app, self._rules, self._refusal = app, rules, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            status, why, headers = refused
            await self._refusal(status, why, headers)(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str, Mapping[str, str]] | None:
        is_open = scope["path"] in OPEN_PATHS
        if scope.get("state", {}).get(TURNED_AWAY) and not is_open:
            return 503, "too many connections", {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if sum(len(name) + len(value) + 4 for name, value in headers) > HEADER_BYTES_MAX:
            return 431, f"the headers are larger than {HEADER_BYTES_MAX} bytes", {"Connection": "close"}
        if is_open:
            return None
        hosts, origins = _all(headers, b"host"), _all(headers, b"origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            return 403, "Host is not a name of this server: it may be called under others with --allow-host NAME", {}
        if any(not _same_origin(origin, hosts[0], scope["scheme"]) for origin in origins):
            return 403, "Origin is not this server: pages of others may not call it", {}
        if scope["path"] not in self._rules.open_paths and not self._knows_token(_all(headers, b"authorization")):
            return 401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        if self._rules.json_only and _has_body(headers) and (kind := _content_type(headers)) != "application/json":
            return 415, f"Content-Type is {kind or 'missing'}: it must be application/json", {}
        return None

    def _is_ours(self, host: bytes, scope: Scope) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["v6"] or match["name"]).decode("latin-1").rstrip(".").lower()
        # The address that the peer connected to is no name that somebody else could have led here.
        there = str((scope.get("server") or ("",))[0]).removeprefix("::ffff:")  # one of IPv4 on a socket for both
        return name in self._rules.hosts or name == there

    def _knows_token(self, shown: list[bytes]) -> bool:
        token = self._rules.token
        if token is None:
            return True
        scheme, _, secret = (shown[0] if len(shown) == 1 else b"").partition(b" ")
        # Compared in the same time however much of it is right.
        return hmac.compare_digest(secret.strip(), token.encode()) and scheme.lower() == b"bearer"


class BodyLimit:
    """Refuses a body above `bytes_max` (413): at once where a header tells its size, else while it is read.

    Args:
        together_max: bytes of the bodies of all requests that are not answered yet; one that would exceed them is told
            to come again (503). None: as many as there are connections.
    """

    def __init__(self, app: ASGIApp, bytes_max: int, together_max: int | None = None) -> None:
        self._app, self._bytes_max, self._together_max = app, bytes_max, together_max
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = _all(scope.get("headers", []), b"content-length")
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive() if not told or int(told[0]) <= self._bytes_max else {}
            more = len(message.get("body", b""))
            size += more
            self._held += more
            if not message or size > self._bytes_max:
                raise HTTPException(413, f"the body is larger than {self._bytes_max} bytes")
            if self._together_max is not None and self._held > self._together_max:
                raise HTTPException(503, "too many large bodies at a time", {"Retry-After": str(RETRY_AFTER_S)})
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held -= size


def _all(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _same_origin(origin: bytes, host: bytes, scheme: str) -> bool:
    """Is `origin` this server? Of plain HTTP there may be something in front that speaks TLS."""
    there, _, name = origin.lower().partition(b"://")
    return name == host.lower() and there in {scheme.encode(), b"https"}


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return bool(_all(headers, b"transfer-encoding")) or any(int(n) for n in _all(headers, b"content-length"))


def _content_type(headers: list[tuple[bytes, bytes]]) -> str:
    """Without its parameters, lower case; '': there is none, or several."""
    kinds = _all(headers, b"content-type")
    return kinds[0].partition(b";")[0].strip().lower().decode("latin-1") if len(kinds) == 1 else ""

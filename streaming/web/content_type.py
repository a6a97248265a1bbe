"""What a body says that it is: JSON, or nothing at all.

Clients leave the header `Content-Type` out, and `curl -d` says that it sends a form. FastAPI reads neither as JSON and
then calls the body a wrong dictionary. Here one without the header is JSON, other kinds are refused by name.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["JsonBody"]

_NAME = b"content-type"
_JSON = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.IGNORECASE)


class JsonBody:
    """ASGI middleware: what is sent to one path is JSON, whether it says so or says nothing; else status 415."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("content-type", "").strip()
        if not given:
            headers = [(name, value) for name, value in scope["headers"] if name != _NAME]
            await self._app({**scope, "headers": [*headers, (_NAME, b"application/json")]}, receive, send)
        elif _JSON.fullmatch(given.partition(";")[0].strip()):
            await self._app(scope, receive, send)
        else:
            why = f"Content-Type: {given[:100]!r} is not read here; send the row as application/json, or without a type"
            await JSONResponse({"detail": why}, 415)(scope, receive, send)

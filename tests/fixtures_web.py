"""A server of `streaming.web` in this process, and peers that behave badly."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from streaming.web.access import OPEN_PATHS, Access, BodyLimit, Rules
from streaming.web.connection import Limits
from streaming.web.listen import listening, tls_context
from streaming.web.server import Server

PATIENCE_S = 60.0
"""For what must come to an end by itself: far above any limit that the tests set."""

BODY_BYTES_MAX = 1000
LARGE_BYTES = 64 * 1024 * 1024  # more than the system's buffers take
SLOW_S = 2.0


async def body(request: Request) -> Response:
    """The length of the body."""
    return PlainTextResponse(str(len(await request.body())))


def application(rules: Rules | None = None) -> Starlette:
    """Answers POST /body with its length, GET /slow after `SLOW_S`, GET /large with `LARGE_BYTES`."""

    async def large(_: Request) -> Response:
        return Response(b"x" * LARGE_BYTES)

    async def slow(_: Request) -> Response:
        await asyncio.sleep(SLOW_S)
        return PlainTextResponse("done")

    async def well(_: Request) -> Response:
        return PlainTextResponse("well")

    async def gone(_: Request, __: Exception) -> Response:
        return Response()

    def refusal(status: int, why: str, headers: Mapping[str, str]) -> Response:
        return PlainTextResponse(why, status, dict(headers))

    routes = [Route("/body", body, methods=["POST"]), Route("/large", large), Route("/slow", slow)]
    routes += [Route(path, well) for path in sorted(OPEN_PATHS)]
    app = Starlette(routes=routes, exception_handlers={ClientDisconnect: gone})
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    app.add_middleware(Access, rules=rules or Rules(), refusal=refusal)
    return app


class Running:
    """Serves `app` on a port of its own from a thread, until the context is left."""

    def __init__(self, app: ASGIApp, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        self._server = Server(app, limits, tls)
        self._listener = listening("127.0.0.1", 0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def connections(self) -> int:
        """How many it holds."""
        return len(self._server.server_state.connections)

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class Certificate:
    """A certificate of 127.0.0.1 and localhost that vouches for itself, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self.key, "-out", self.cert],
            check=True, capture_output=True,
        )  # fmt: skip

    def server(self) -> ssl.SSLContext:
        return tls_context(self.cert, self.key)

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.cert)


def ended(peer: socket.socket) -> bytes:
    """All that still comes, until the server ends the connection; a TimeoutError when it does not."""
    peer.settimeout(PATIENCE_S)
    received = b""
    try:
        while part := peer.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def drip(peer: socket.socket, byte: bytes) -> bool:
    """Sends one byte, and reads what has come: is the connection there still?"""
    peer.settimeout(0.05)
    try:
        peer.send(byte)
        return bool(peer.recv(65_536))
    except TimeoutError:
        return True
    except OSError:
        return False

"""Alive and ready, and the small HTTP server that says so: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streaming.config import Http
from streaming.errors import ConfigError

__all__ = ["PARTS", "Health", "HttpServer"]

PARTS = ("assignment", "state", "model")
"""What has to be there before the scorer is ready."""

CONNECTIONS_MAX = 32
CONNECTION_S = 5.0  # for a request and its answer; each connection has one
LEAVING_S = 1.0  # to read that it should come again
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

_log = structlog.stdlib.get_logger("streaming.ops.health")


class Health:
    """What the loop tells about itself; read by the HTTP server's threads.

    Args:
        stalled_s: a loop that has not called `beat` for so long counts as hung. Only from `watch` on: before it history
            is loaded and servers are awaited, which takes as long as it takes, and a kill would only begin it anew.

    Attributes:
        beaten: when the loop went round last (monotonic).
        watched: from `watch` on.
        leaves: the loop is over, and its clients are closed.
        why: it leaves; none: it was told to.
    """

    def __init__(self, stalled_s: float) -> None:
        self._stalled_s = stalled_s
        self.beaten = time.monotonic()
        self.watched = self.leaves = False
        self.why: BaseException | None = None
        self._missing: dict[str, str] = dict.fromkeys(PARTS, "starting")

    def watch(self) -> None:
        """The loop begins to go round: silence means that it hangs."""
        self.beat()
        self.watched = True

    def leave(self, why: BaseException | None = None) -> None:
        """The loop is over: what is left is to close the clients."""
        self.why = why or self.why
        self.leaves = True

    def beat(self) -> None:
        """The loop goes round."""
        self.beaten = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last `beat`."""
        return time.monotonic() - self.beaten

    def alive(self) -> bool:
        return not self.watched or self.silent_s() < self._stalled_s

    def ready(self, part: str) -> None:
        """`part` of `PARTS` is there."""
        self._missing = {name: why for name, why in self._missing.items() if name != part}

    def not_ready(self, part: str, why: str) -> None:
        """`part` of `PARTS` is not there."""
        self._missing = {**self._missing, part: why}

    def missing(self) -> dict[str, str]:
        """The parts that are not there, and why; empty: ready."""
        return self._missing


class _Bounded(ThreadingTCPServer):
    """Answers in at most `CONNECTIONS_MAX` threads; a connection ends after `CONNECTION_S`, whatever its peer does."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int] | str, handler: type[BaseHTTPRequestHandler]) -> None:
        self._until: dict[socket.socket, float] = {}  # when each connection that has a thread is cut
        self._leaving: dict[socket.socket, float] = {}  # those that were told to come again
        super().__init__(address, handler)  # type: ignore[arg-type]  # a Unix socket's is its path

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives it a thread, or tells it to come again."""
        now = time.monotonic()
        if len(self._until) < CONNECTIONS_MAX:
            self._until[request] = now + CONNECTION_S
            super().process_request(request, client_address)
        elif len(self._leaving) < CONNECTIONS_MAX:
            self._leaving[request] = now + LEAVING_S
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(BUSY)
                request.shutdown(socket.SHUT_WR)
        else:
            self.shutdown_request(request)

    def close_request(self, request: Any) -> None:
        """It has ended: its place is free."""
        self._until.pop(request, None)
        super().close_request(request)

    def service_actions(self) -> None:
        """Cuts those whose time is over; twice a second."""
        now = time.monotonic()
        for request, until in list(self._until.items()):
            if now > until:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # ends what its thread waits for; the thread closes it
        for request, until in list(self._leaving.items()):
            if now > until:
                del self._leaving[request]
                self.shutdown_request(request)

    def server_close(self) -> None:
        """Nobody is left."""
        super().server_close()
        for request in self._leaving:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away, or was cut, is no news; anything else is a defect."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("an answer failed")


class _UnixServer(_Bounded):
    """On a Unix socket. A socket that another process has left must be removed first."""

    address_family = socket.AF_UNIX


class HttpServer:
    """Serves on `http.host`:`http.port`, or on a Unix socket where the host is `unix:PATH`, from threads of its own.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """

    def __init__(self, http: Http, health: Health, registry: CollectorRegistry) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = CONNECTION_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/healthz":
                    alive = health.alive()
                    self._json(200 if alive else 503, {"alive": alive, "silent_s": round(health.silent_s(), 3)})
                elif path == "/readyz":
                    missing = health.missing()
                    self._json(503 if missing else 200, {"ready": not missing, "missing": missing})
                else:
                    self._json(404, {"error": "there are /metrics, /healthz and /readyz"})

            def _json(self, status: int, body: object) -> None:
                self._answer(status, "application/json", msgspec.json.encode(body))

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """A scrape every few seconds is no news."""

        try:
            if http.host.startswith("unix:"):
                self._server: _Bounded = _UnixServer(http.host.removeprefix("unix:"), Handler)
            else:
                self._server = _Bounded((http.host, http.port), Handler)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(f"http: cannot listen on {http.host} port {http.port}: {why}") from error
        self.port: int = 0 if isinstance(self._server, _UnixServer) else self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> HttpServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

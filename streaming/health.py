"""Alive and ready, and the small HTTP server that says so: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingTCPServer
from types import TracebackType

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streaming.config import Http
from streaming.errors import ConfigError

__all__ = ["PARTS", "Health", "HttpServer"]

PARTS = ("assignment", "state", "model")
"""What has to be there before the scorer is ready."""


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


class _UnixServer(ThreadingTCPServer):
    """On a Unix socket. A socket that another process has left must be removed first."""

    address_family = socket.AF_UNIX
    request_queue_size = 5

    def __init__(self, path: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(path, handler)  # type: ignore[arg-type]  # typed for TCP: (host, port)


class HttpServer:
    """Serves on `http.host`:`http.port`, or on a Unix socket where the host is `unix:PATH`, from threads of its own.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """

    def __init__(self, http: Http, health: Health, registry: CollectorRegistry) -> None:
        class Handler(BaseHTTPRequestHandler):
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
                self._server: _UnixServer | ThreadingHTTPServer = _UnixServer(http.host.removeprefix("unix:"), Handler)
            else:
                self._server = ThreadingHTTPServer((http.host, http.port), Handler)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(f"http: cannot listen on {http.host} port {http.port}: {why}") from error
        self._server.daemon_threads = True
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

"""A uvicorn server with an end to everything: connections are counted, and those that take too long are dropped."""

from __future__ import annotations

import asyncio
import collections
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from streaming.web.connection import Connection, Limits, Places

__all__ = ["Server", "run_until_told"]

TELL_S = 60.0  # how often the log says what was dropped
GRACE_S = 10

_log = structlog.stdlib.get_logger("streaming.web")


class Server(uvicorn.Server):
    """Serves `app` on sockets that listen already.

    Args:
        tls: none: plain HTTP.
    """

    def __init__(self, app: ASGIApp, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                log_level="error",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=limits.idle_s,
                timeout_graceful_shutdown=GRACE_S,
                h11_max_incomplete_event_size=limits.header_bytes_max,
            )
        )
        self._limits, self._tls = limits, tls
        self._failure: BaseException | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until it is told to stop, or until nobody looks after its connections any more: that is a defect."""
        await super().serve(sockets)
        if self._failure is not None:
            raise self._failure

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure, self.should_exit = task.exception(), True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept; in place of uvicorn's, which accepts without a bound."""
        await self.lifespan.startup()
        places = Places(self._limits.connections_max)

        def connection() -> Connection:
            return Connection(self.config, self.server_state, places, self._limits)

        doors = [_Door(listener, connection, self.server_state, self._limits, self._tls) for listener in sockets or []]
        for task in (task for door in doors for task in door.tasks):
            task.add_done_callback(self._ended)
        self.servers = cast(list[Any], doors)  # it closes them, and waits until they are
        self.started = True


class _Door:
    """Accepts connections from a listening socket, and looks after them until they are gone."""

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], Connection],
        state: uvicorn.server.ServerState,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        listener.setblocking(False)
        self._listener, self._connection, self._state = listener, connection, state
        self._limits, self._tls = limits, tls
        self._handshakes: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._dropped: collections.Counter[str] = collections.Counter()
        self._accepting = asyncio.create_task(self._accept())
        self._looking = asyncio.create_task(self._look())
        self.tasks = (self._accepting, self._looking)

    def close(self) -> None:
        """No more connections."""
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        """When the last one has gone."""
        self._looking.cancel()
        self._tell()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        there_may_be = self._limits.connections_max + self._limits.turned_away_max
        while True:
            while len(self._handshakes) + len(self._state.connections) >= there_may_be:
                self._room.clear()
                await self._room.wait()
            try:
                peer, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # it was gone again; or this process has as many files open as it may
                self._dropped[f"not accepted: {error.strerror}"] += 1
                await asyncio.sleep(self._limits.look_s)
                continue
            # Its connection is made in a task of its own: with TLS that takes as long as the peer likes.
            task = asyncio.create_task(self._welcome(peer))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, peer: socket.socket) -> None:
        limit_s = self._limits.handshake_s if self._tls else None
        connect = asyncio.get_running_loop().connect_accepted_socket
        try:
            await connect(self._connection, peer, ssl=self._tls, ssl_handshake_timeout=limit_s)
        except OSError:  # ssl.SSLError and the timeout, too; the socket is closed by then
            self._dropped["no TLS"] += 1

    async def _look(self) -> None:
        told = time.monotonic()
        while True:
            await asyncio.sleep(self._limits.look_s)
            now = time.monotonic()
            for connection in list(self._state.connections):
                why = cast(Connection, connection).overdue(now)
                if why is not None:
                    self._dropped[why] += 1
                    cast(Connection, connection).drop()
            self._room.set()
            if now - told > TELL_S:
                self._tell()
                told = now

    def _tell(self) -> None:
        if self._dropped:
            _log.warning("connections were dropped", why=dict(self._dropped))
            self._dropped.clear()


def run_until_told(serve: Callable[[], Awaitable[None]]) -> None:
    """Runs a server's coroutine to its end, which SIGTERM and Ctrl-C bring about."""
    # uvicorn gives a signal that it stopped for back to the handler that was there before: ours ends in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    async def run() -> None:
        await serve()

    asyncio.run(run())

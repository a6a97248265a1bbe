"""One HTTP connection: uvicorn's, and the clock that it lacks.

uvicorn 0.54 waits for ever for a request that has begun, for one that never begins on a new connection, for a body, for
a peer that does not read its answer, and for the end of TLS: each holds memory and a place. Here a server looks at all
connections twice a second, and drops those that take longer than `Limits` says.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["TURNED_AWAY", "Connection", "Limits", "Places"]

TURNED_AWAY = "turned_away"
"""In the state of a request: did it come on one connection too many?"""


@dataclass(frozen=True)
class Limits:
    """How many, how long, how large.

    Args:
        connections_max: connections whose requests are answered, at a time.
        turned_away_max: more of them that are told so; what comes on top of these waits unaccepted.
        handshake_s: for TLS.
        headers_s: from the connection, or the first byte of a later request, to the end of its headers.
        body_s: from there to the end of its body.
        idle_s: between two requests; whole seconds.
        unread_s: for a peer to read `unread_bytes` of its answer, or the rest.
        closing_s: for the other side to take part in the end of a connection.
        look_s: how often that is looked at.
    """

    connections_max: int = 128
    turned_away_max: int = 32
    handshake_s: float = 5.0
    headers_s: float = 10.0
    body_s: float = 10.0
    idle_s: int = 10
    unread_s: float = 30.0
    unread_bytes: int = 65_536
    closing_s: float = 5.0
    look_s: float = 0.5
    header_bytes_max: int = 16_384


class Places:
    """Those of a server where requests are answered: `count` of them, `taken` at the moment."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0


class Connection(H11Protocol):
    """A connection that knows whether its peer takes too long.

    Args:
        config, state: as uvicorn hands them to its own.
        places: it takes one until it is lost; where none is left, its first request is told so, and it ends.
    """

    def __init__(self, config: Config, state: ServerState, places: Places, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits, self._places = limits, places
        self._has_place = False
        self._began: float | None = None  # when the request began that has not come whole
        self._unread: tuple[int, float] | None = None  # bytes of answers that the peer has not taken, and since when
        self._closing: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._has_place = self._places.taken < self._places.count
        self._places.taken += self._has_place
        self.app_state = {TURNED_AWAY: not self._has_place}
        super().connection_made(transport)
        self._began = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._places.taken -= self._has_place
        self._has_place = False
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if self._has_place:
            super().on_response_complete()
            # A request that came with the one before it begins now: perhaps nothing more of it ever comes.
            state = self.conn.their_state
            if self._began is None and (state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0])):
                self._began = time.monotonic()
        else:
            self.timeout_keep_alive_handler()  # ends it, before another request that waits behind this one begins

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._began = None
        elif self._began is None:
            self._began = time.monotonic()

    def overdue(self, now: float) -> str | None:
        """What the peer has taken too long for; none: nothing.

        Args:
            now: of the monotonic clock. Asked again and again: progress is what has changed since the last time.
        """
        limits = self._limits
        try:
            size = self.transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS has lost its connection, and is about to say so
            return None
        if size == 0:
            self._unread = None
        elif self._unread is None or size <= self._unread[0] - limits.unread_bytes:
            self._unread = size, now
        elif now - self._unread[1] > limits.unread_s:
            return "an answer was not read"
        ending = size == 0 and self.conn.our_state in (h11.CLOSED, h11.MUST_CLOSE, h11.ERROR)
        self._closing = (self._closing or now) if ending else None
        if self._closing is not None and now - self._closing > limits.closing_s:
            return "the connection was not closed"
        if self._began is not None:
            late = now - self._began
            if self.conn.their_state is h11.IDLE and late > limits.headers_s:
                return "no request came"
            if self.conn.their_state is h11.SEND_BODY and late > limits.headers_s + limits.body_s:
                return "a body did not come whole"
        return None

    def drop(self) -> None:
        """Ends it without a word."""
        self.transport.abort()

"""A TCP proxy whose network fails on command: cut, delayed, reset, or silent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType

__all__ = ["Proxy"]

CHUNK_BYTES = 65_536
LINGER_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on with zero seconds: close sends RST


class Proxy:
    """Listens on `port` and passes bytes on to `target` and back, until told otherwise.

    Attributes:
        port: on loopback.
        delay_s: how long each chunk is held back, in each direction.
        silent: bytes are taken and go nowhere; connections stay open.
    """

    def __init__(self, target: int | None = None, port: int = 0) -> None:
        self.target = target
        self.delay_s = 0.0
        self.silent = False
        self._refusing = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Ends all connections (FIN) and takes no new one, until `heal`."""
        self._refusing = True
        self._end_all(reset=False)

    def reset(self) -> None:
        """Ends all connections with RST; new ones are taken."""
        self._end_all(reset=True)

    def heal(self) -> None:
        """All is well again; connections that were silent are ended: bytes are missing in them."""
        was_silent = self.silent
        self._refusing, self.silent, self.delay_s = False, False, 0.0
        if was_silent:
            self._end_all(reset=True)

    def close(self) -> None:
        self._refusing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all(reset=False)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            if self._refusing or self.target is None:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                near.close()
                continue
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pass, args=(source, sink, pair), name="proxy", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if not self.silent:
                    sink.sendall(chunk)
        self._end(pair, reset=False)

    def _end_all(self, reset: bool) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair, reset)

    def _end(self, pair: tuple[socket.socket, socket.socket], reset: bool) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            end.close()

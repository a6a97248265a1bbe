"""Memory that this process shares with a Triton on the same host: ids go there, and only their place over gRPC.

A batch of 4,096 rows of 41 ids is 1.3 MB, which gRPC takes longer to carry than Triton to hand on. Each call under way
has a region of its own, a file in /dev/shm that its owner keeps locked: whoever can lock it knows that the owner is
dead, and removes it. Answers come back over gRPC: they are four bytes a row, and a call that was given up must not
write into the region that the next one has.

Regions are made and registered by a thread beside the calls, which go inline until one is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import mmap
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

__all__ = ["Region", "Regions", "is_this_host"]

FOLDER = Path("/dev/shm")
PREFIX = "jd_intent_ids_"
REGIONS_MAX = 4  # calls under way of one client; what is beyond goes inline
CONTROL_TIMEOUT_S = 2.0
AGAIN_S = 60.0  # after a refusal: the server may have been started again with other options
AGAIN_AWAY_S = 1.0  # after no answer

_log = structlog.stdlib.get_logger("streaming.model.shared_memory")


def is_this_host(url: str) -> bool:
    """Does `host:port` or `unix:PATH` lead to this host by its name alone? No name is looked up."""
    if url.startswith("unix:"):
        return True
    host = url.rpartition(":")[0].strip("[]")
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(eq=False)
class Region:
    """One file in /dev/shm, mapped, and known to the server by the same name.

    Attributes:
        name: of the file and of the server's region.
        size: bytes.
        generation: of `Regions`: a server that was started again does not know those of an older one.
    """

    name: str
    size: int
    generation: int
    _file: int
    _memory: mmap.mmap

    @classmethod
    def make(cls, size: int, generation: int) -> Region:
        """A new file of `size` bytes, all of them reserved.

        Raises:
            OSError: /dev/shm is full or is not there.
        """
        while True:
            name = f"{PREFIX}{os.getpid()}_{secrets.token_hex(8)}"
            file = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_nlink == 0:  # taken for a dead one's before it was locked
                    os.close(file)
                    continue
                os.posix_fallocate(file, 0, size)  # a sparse file would end the process when memory runs out later
                return cls(name, size, generation, file, mmap.mmap(file, size))
            except OSError:
                (FOLDER / name).unlink(missing_ok=True)
                os.close(file)
                raise

    def write(self, ids: npt.NDArray[np.int64]) -> None:
        """Puts ids at the beginning."""
        np.frombuffer(self._memory, np.int64, ids.size).reshape(ids.shape)[:] = ids

    def remove(self) -> None:
        """Removes the file; the server's own mapping lasts until it is unregistered."""
        (FOLDER / self.name).unlink(missing_ok=True)
        self._memory.close()
        os.close(self._file)


class Regions:
    """The regions of one client, all of one size. Calls may come from several threads.

    Args:
        client: whose server is asked to map them.
        url: the server's, for the log.
    """

    def __init__(self, client: InferenceServerClient, url: str) -> None:
        self._client = client
        self._url = url
        self._changed = threading.Condition()
        self._size = 0  # bytes, from the first call on
        self._free: list[Region] = []
        self._taken = 0
        self._maker: threading.Thread | None = None
        self._generation = 0
        self._not_before = 0.0  # monotonic seconds
        self._tidied = False
        self._said = ""
        self._closed = False

    def take(self, size: int, size_max: int) -> Region | None:
        """A free region of at least `size` bytes; None: go inline (one is being made, where that may be).

        Args:
            size_max: bytes of the largest call to come.
        """
        with self._changed:
            self._size = self._size or size_max
            if size > self._size:
                return None
            if self._free:
                self._taken += 1
                return self._free.pop()
            may_be = not self._closed and self._taken < REGIONS_MAX and time.monotonic() >= self._not_before
            if may_be and self._maker is None:
                self._maker = threading.Thread(target=self._make, name="shared-memory", daemon=True)
                self._maker.start()
            return None

    def give(self, region: Region) -> None:
        """Takes back what `take` gave."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()
            if region.generation == self._generation and not self._closed:
                self._free.append(region)
                return
        region.remove()

    def forget(self, region: Region) -> None:
        """The server does not know `region`: it was started again. All of that time go, and are made anew."""
        with self._changed:
            if region.generation != self._generation:
                return
            self._generation += 1
            gone, self._free = self._free, []
        for old in gone:
            old.remove()

    def prepare(self, size: int) -> bool:
        """Returns once there is a free region of `size` bytes (true), or there cannot be one now."""
        region = self.take(size, size)
        if region is not None:
            self.give(region)
            return True
        with self._changed:
            self._changed.wait_for(lambda: self._maker is None, 2 * CONTROL_TIMEOUT_S)
            return bool(self._free)

    def close(self) -> None:
        """Unregisters and removes all.

        What a call still has after a moment goes when it ends; the server's mapping of that is for the next client to
        tidy, for the server may be about to read it.
        """
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._maker is None and self._taken == 0, CONTROL_TIMEOUT_S)
            gone, self._free = self._free, []
        for region in gone:
            self._unregister(region.name)
            region.remove()

    def _make(self) -> None:
        try:
            region = Region.make(self._size, self._generation)
        except OSError as error:
            self._refused(str(error))
            return
        try:
            self._client.register_system_shared_memory(
                region.name, f"/{region.name}", region.size, client_timeout=CONTROL_TIMEOUT_S
            )
        except (InferenceServerException, ValueError) as error:  # ValueError is gRPC's for a closed channel
            region.remove()
            if isinstance(error, InferenceServerException) and not _away(error):
                self._refused(error.message())
            else:
                self._made(None, AGAIN_AWAY_S)
            return
        if not self._tidied:
            self._tidied = True
            self._tidy()
        self._say("ids go through shared memory")
        self._made(region, 0.0)

    def _made(self, region: Region | None, again_s: float) -> None:
        with self._changed:
            self._maker = None
            self._not_before = time.monotonic() + again_s
            late = region is not None and (self._closed or region.generation != self._generation)
            if region is not None and not late:
                self._free.append(region)
            self._changed.notify_all()
        if region is not None and late:
            self._unregister(region.name)
            region.remove()

    def _refused(self, why: str) -> None:
        self._say("ids go over gRPC, shared memory cannot be used", why=why)
        self._made(None, AGAIN_S)

    def _say(self, what: str, **more: str) -> None:
        """Once, until there is something else to say."""
        if self._said != what:
            self._said = what
            _log.info(what, url=self._url, **more)

    def _unregister(self, name: str) -> None:
        # What is gone or was started again has no such region any more.
        with contextlib.suppress(InferenceServerException, ValueError):
            self._client.unregister_system_shared_memory(name, client_timeout=CONTROL_TIMEOUT_S)

    def _tidy(self) -> None:
        """Removes what dead clients have left: their files, and the server's mappings of them.

        Only once a region of our own was registered: then the server's /dev/shm is this one.
        """
        for path in FOLDER.glob(f"{PREFIX}*"):
            _remove_ownerless(path)
        with contextlib.suppress(InferenceServerException, ValueError):
            for name in self._client.get_system_shared_memory_status(client_timeout=CONTROL_TIMEOUT_S).regions:
                if name.startswith(PREFIX) and not (FOLDER / name).exists():
                    self._unregister(name)


def _away(error: InferenceServerException) -> bool:
    """Nobody answers, which is no refusal; a restricted API has the same status, and says so."""
    nobody = error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")
    return nobody and "restricted" not in error.message()


def _remove_ownerless(path: Path) -> None:
    """Removes the file if its owner is dead and was one of this user's."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()  # while it is locked: its maker may be just about to lock it, and looks again
        finally:
            os.close(file)

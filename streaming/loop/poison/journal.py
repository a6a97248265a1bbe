"""What a process leaves behind of the records that it had in hand when it died.

{folder}/in-hand       which records are being prepared: written before, cleared after; locked while its process lives
{folder}/deaths.json   what came of it: suspects, and the records that were in hand alone when a process died

Both outlive the process and not the machine: nothing is synced, because a power cut is no message's doing. Writes go
through `pwrite` rather than a mapped file, which on a full disk would kill the process by itself (SIGBUS).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog
import xxhash

from streaming.errors import FolderTaken, unusable

__all__ = ["Death", "Journal", "Ledger", "Note", "Span"]

FORMAT = 1
"""Raised whenever files of an older program cannot be read by a newer one, or the other way round."""

MAGIC = b"jdpoison"
HEADER = struct.Struct("<8sIIQ")  # magic, format, bytes behind it, their xxh3-64

LOCK_TRIES = 10

_log = structlog.stdlib.get_logger("streaming.loop.poison.detection")


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Offsets `first` up to and without `end` of a partition."""

    topic: str
    partition: int
    first: int
    end: int

    @property
    def place(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition


class Note(msgspec.Struct):
    """Records in hand.

    Attributes:
        run: names the process.
        fingerprint: of the record, where it is a single one; else "".
        stage: what is being done to it.
        why: the exception that ends the process, if one does.
        replayed: they were committed before, and are read to rebuild the state.
    """

    run: str
    spans: list[Span]
    fingerprint: str = ""
    stage: str = ""
    why: str = ""
    replayed: bool = False


class Death(msgspec.Struct):
    """A record that was in hand alone when a process died.

    Attributes:
        times: how often.
        stage, why: see `Note`; of the last death.
        replayed: it was read to rebuild the state.
    """

    topic: str
    partition: int
    offset: int
    fingerprint: str
    times: int
    stage: str
    why: str = ""
    replayed: bool = False

    @property
    def place(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition


class Ledger(msgspec.Struct, forbid_unknown_fields=True):
    """What the deaths so far have told.

    Attributes:
        run: the process whose death was entered last: no death counts twice.
        suspects: were in hand together when a process died; each is prepared alone.
        replayed: the same of records that were read to rebuild the state.
    """

    format: int = FORMAT
    run: str = ""
    suspects: list[Span] = []
    replayed: list[Span] = []
    deaths: list[Death] = []


class _Unusable(Exception):
    """`kind`: damaged, foreign or future."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Journal:
    """The two files of one scorer.

    Args:
        folder: made where it is not there.

    Attributes:
        ledger: change it, then `save`.
        left: what the last process had in hand when it died.

    Raises:
        ConfigError: the folder cannot be used.
        NoSpace: the disk is full, and the folder or a file in it is not there yet.
        FolderTaken: another process uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._encode = msgspec.msgpack.Encoder().encode
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(folder / "in-hand")
            self.left = self._or_aside("in-hand", _note(folder / "in-hand"))
            found = self._or_aside("deaths.json", _ledger(folder / "deaths.json"))
        except OSError as error:
            raise unusable("poison.folder", folder, error) from error
        self.ledger = found or Ledger()

    def write(self, note: Note) -> None:
        """These records are in hand."""
        payload = self._encode(note)
        self._put(HEADER.pack(MAGIC, FORMAT, len(payload), xxhash.xxh3_64_intdigest(payload)) + payload)

    def clear(self) -> None:
        """Nothing is in hand."""
        self._put(HEADER.pack(MAGIC, FORMAT, 0, 0))

    def save(self) -> None:
        """Writes the ledger, whole or not at all."""
        writing = self.folder / "deaths.json.writing"
        try:
            writing.write_bytes(msgspec.json.format(msgspec.json.encode(self.ledger), indent=1))
            writing.replace(self.folder / "deaths.json")
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Lets another process have it. What is in hand stays so."""
        os.close(self._file)

    def siblings(self) -> list[tuple[Note | None, Ledger]]:
        """The same of the other scorers in the folder above; what one has in hand only where its process is dead."""
        found = []
        for folder in sorted(self.folder.parent.iterdir()):
            if folder == self.folder or not (folder / "in-hand").is_file():
                continue
            with contextlib.suppress(OSError):
                note, ledger = _note(folder / "in-hand"), _ledger(folder / "deaths.json")
                found.append(
                    (
                        None if isinstance(note, _Unusable) or _lives(folder / "in-hand") else note,
                        Ledger() if ledger is None or isinstance(ledger, _Unusable) else ledger,
                    )
                )
        return found

    def _put(self, data: bytes) -> None:
        try:
            os.pwrite(self._file, data, 0)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        """A full disk costs the isolation of messages, not the flow."""
        if not self._failed:
            self._failed = True
            _log.error("what is in hand cannot be noted", folder=str(self.folder), error=str(error))

    def _or_aside(self, name: str, found: Note | Ledger | _Unusable | None) -> Any:
        if not isinstance(found, _Unusable):
            return found
        path = self.folder / name
        aside = path.with_name(f"{found.kind}-{name}")
        path.rename(aside)
        _log.warning("a file is set aside", file=str(path), kind=found.kind, why=str(found), now_at=str(aside))
        if name == "in-hand":
            os.close(self._file)
            self._file = _locked(path)
        return None


def _locked(path: Path) -> int:
    """The open file, locked: the lock ends with the process, however it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # a sibling may be looking whether we live
        else:
            return file
    os.close(file)
    raise FolderTaken(
        f"poison.folder: {path.parent} is in use by another process: stop that one, or give each scorer its own "
        "kafka.instance_id"
    )


def _lives(path: Path) -> bool:
    """Does a process hold the lock?"""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _note(path: Path) -> Note | _Unusable | None:
    """What is in hand by this file."""
    data = path.read_bytes()
    if not data:
        return None  # new
    if len(data) < HEADER.size:
        return _Unusable("damaged", f"it has {len(data)} bytes only")
    magic, version, length, digest = HEADER.unpack_from(data)
    if magic != MAGIC:
        return _Unusable("foreign", f"it begins with {magic!r}")
    if version != FORMAT:
        return _Unusable("future", f"its format is {version}, this program knows {FORMAT}")
    if not length:
        return None
    payload = data[HEADER.size : HEADER.size + length]
    if len(payload) < length or xxhash.xxh3_64_intdigest(payload) != digest:
        return _Unusable("damaged", "its bytes have another checksum than it says")
    try:
        return msgspec.msgpack.decode(payload, type=Note)
    except msgspec.MsgspecError as error:
        return _Unusable("damaged", str(error))


def _ledger(path: Path) -> Ledger | _Unusable | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        fields = msgspec.json.decode(data)
        version = fields.get("format") if isinstance(fields, dict) else None
        if not isinstance(version, int):
            return _Unusable("foreign", "it names no format")
        if version != FORMAT:
            return _Unusable("future", f"its format is {version}, this program knows {FORMAT}")
        return msgspec.convert(fields, Ledger)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _Unusable("damaged", str(error))

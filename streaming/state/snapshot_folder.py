"""A folder of snapshots: each a folder that appears whole or not at all, checksummed, with a manifest.

{folder}/lock                   held while a process uses the folder; says which
{folder}/snapshot-000017/       manifest.json, strings.arrow, one Arrow IPC file per table
{folder}/damaged-000015/        set aside: damaged, foreign (of other topics, SQL, …) or future (a later format)
{folder}/.writing               one that is not finished, or never was
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pyarrow as pa
import xxhash

from streaming.engine.storage.snapshot import STRINGS
from streaming.errors import BadSnapshot, FolderTaken, unusable
from streaming.store.dedup import REQUEST_IDS

__all__ = ["FORMAT", "Manifest", "SnapshotFolder", "Writing"]

FORMAT = 1
"""Raised whenever files of an older program cannot be read by a newer one, or the other way round."""

ASIDE_MAX = 2  # set-aside snapshots that are kept, for who wants to know why
_NAME = re.compile(r"(snapshot|damaged|foreign|future)-(\d{6,})")
_CHUNK = 1 << 22

Positions = dict[tuple[str, int], int]


@dataclass(frozen=True)
class File:
    """One file of a snapshot: its name, size, xxh3-128 and rows."""

    name: str
    bytes: int
    xxh3: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What a snapshot stands for.

    Attributes:
        made_at: when it was begun, seconds since the epoch.
        identity: what it belongs to: cluster, topics, group, scripts, history, settings; every entry must be the same.
        actions, dimensions: the offsets behind the records that are in it.
        newest: per partition of the events the greatest time seen.
        files: by part (a table, `STRINGS`, or `REQUEST_IDS`).
    """

    made_at: float
    identity: Mapping[str, str]
    actions: Positions
    dimensions: Positions
    newest: Positions
    files: Mapping[str, File] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def rows(self) -> int:
        """Of all its tables."""
        return sum(file.rows for part, file in self.files.items() if part not in (STRINGS, REQUEST_IDS))

    def to_json(self) -> str:
        """Its text, with its format and checksum."""
        body = {
            **asdict(self),
            "actions": [[*p, offset] for p, offset in self.actions.items()],
            "dimensions": [[*p, offset] for p, offset in self.dimensions.items()],
            "newest": [[*p, time] for p, time in self.newest.items()],
        }
        return json.dumps({"format": FORMAT, "xxh3": _checksum(body), "snapshot": body}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The reverse.

        Raises:
            BadSnapshot: damaged, or of another format.
        """
        try:
            whole = json.loads(text)
            version, body = whole["format"], whole["snapshot"]
            if version != FORMAT:
                raise BadSnapshot("future", f"its format is {version}, this program knows {FORMAT}")
            if whole["xxh3"] != _checksum(body):
                raise BadSnapshot("damaged", "manifest.json has another checksum than it says")
            return cls(
                body["made_at"],
                body["identity"],
                {(topic, number): offset for topic, number, offset in body["actions"]},
                {(topic, number): offset for topic, number, offset in body["dimensions"]},
                {(topic, number): time for topic, number, time in body["newest"]},
                {part: File(**file) for part, file in body["files"].items()},
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadSnapshot("damaged", f"manifest.json: {error!r}") from None


def _checksum(body: object) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())


class SnapshotFolder:
    """The snapshots of one scorer.

    Args:
        keep: how many there are at most.

    Raises:
        ConfigError: it cannot be made.
        NoSpace: the disk is full. One that is there already can be used all the same.
        FolderTaken: another process has it; the message says which.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep = path, keep
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path / "lock")
            shutil.rmtree(path / ".writing", ignore_errors=True)
        except OSError as error:
            raise unusable("snapshots.folder", path, error) from error

    def names(self) -> list[str]:
        """The snapshots, newest first."""
        return [name for _, name in sorted(self._numbers("snapshot"), reverse=True)]

    def manifest(self, name: str) -> Manifest:
        """What a snapshot says of itself.

        Raises:
            BadSnapshot: see `Manifest.from_json`.
        """
        try:
            return Manifest.from_json((self.path / name / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadSnapshot("damaged", f"manifest.json cannot be read: {error}") from error

    def check(self, name: str, manifest: Manifest) -> None:
        """All files are there and as they were written.

        Raises:
            BadSnapshot: one is not; it is named.
        """
        for file in manifest.files.values():
            digest, size = xxhash.xxh3_128(), 0
            try:
                with (self.path / name / file.name).open("rb") as opened:
                    while chunk := opened.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
            except OSError as error:
                raise BadSnapshot("damaged", f"{file.name} cannot be read: {error.strerror}") from error
            if (size, digest.hexdigest()) != (file.bytes, file.xxh3):
                raise BadSnapshot(
                    "damaged",
                    f"{file.name} has {size} bytes with another checksum than its {file.bytes} bytes had when written",
                )

    def batches(self, name: str, manifest: Manifest) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Everything in it, the strings first.

        Raises:
            BadSnapshot: Arrow cannot read a file.
        """
        for part in sorted(manifest.files, key=lambda part: part != STRINGS):
            path = self.path / name / manifest.files[part].name
            try:
                with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
                    for number in range(reader.num_record_batches):
                        yield part, reader.get_batch(number)
            except (OSError, pa.ArrowException) as error:
                raise BadSnapshot("damaged", f"{path.name}: {error}") from error

    def set_aside(self, name: str, kind: str) -> Path:
        """Renames a snapshot so that it is not tried again; of those, `ASIDE_MAX` are kept."""
        target = self.path / f"{kind}-{name.rpartition('-')[2]}"
        shutil.rmtree(target, ignore_errors=True)
        (self.path / name).rename(target)
        for _, old in sorted(self._numbers("damaged", "foreign", "future"))[:-ASIDE_MAX]:
            shutil.rmtree(self.path / old, ignore_errors=True)
        return target

    def publish(self, writing: Path) -> str:
        """Makes a finished snapshot the newest, and removes the oldest. What is older than the newest is spare."""
        number = max((number for number, _ in self._numbers("snapshot", "damaged", "foreign", "future")), default=0) + 1
        name = f"snapshot-{number:06d}"
        writing.rename(self.path / name)
        _sync(self.path)
        for old in self.names()[self._keep :]:
            shutil.rmtree(self.path / old, ignore_errors=True)
        return name

    def close(self) -> None:
        """Lets another process have it."""
        self._lock.close()

    def _numbers(self, *kinds: str) -> list[tuple[int, str]]:
        found = [_NAME.fullmatch(name) for name in os.listdir(self.path)]
        return [(int(match[2]), match[0]) for match in found if match and match[1] in kinds]


class Writing:
    """A snapshot on its way to the disk; for one thread that only does that."""

    def __init__(self, folder: SnapshotFolder, schemas: Mapping[str, pa.Schema]) -> None:
        self._folder, self._path = folder, folder.path / ".writing"
        self._files: dict[str, pa.OSFile] = {}
        self._writers: dict[str, pa.ipc.RecordBatchFileWriter] = {}
        self._rows = dict.fromkeys(schemas, 0)
        self._schemas = schemas

    def open(self) -> None:
        """Begins the files.

        Raises:
            OSError: here and below: what the disk says.
        """
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir()
        options = pa.ipc.IpcWriteOptions(compression="lz4")  # less than half of the bytes, for no time to speak of
        for part, schema in self._schemas.items():
            self._files[part] = file = pa.OSFile(str(self._place(part)), "wb")
            self._writers[part] = pa.ipc.new_file(file, schema, options=options)

    def add(self, part: str, batch: pa.RecordBatch) -> None:
        """The next batch of a part."""
        self._writers[part].write_batch(batch)
        self._rows[part] += batch.num_rows

    def finish(self, manifest: Manifest) -> tuple[str, Manifest]:
        """Makes it last and visible: the snapshot's name and its whole manifest."""
        files = {}
        for part, writer in self._writers.items():
            writer.close()
            self._files[part].close()
            path = self._place(part)
            files[part] = File(path.name, *_sealed(path), self._rows[part])
        whole = Manifest(
            manifest.made_at, manifest.identity, manifest.actions, manifest.dimensions, manifest.newest, files
        )
        with (self._path / "manifest.json").open("w", encoding="utf-8") as opened:
            opened.write(whole.to_json())
            opened.flush()
            os.fsync(opened.fileno())
        _sync(self._path)
        return self._folder.publish(self._path), whole

    def abandon(self) -> None:
        """Removes what there is of it."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # closing may want to write
                file.close()
        shutil.rmtree(self._path, ignore_errors=True)

    def _place(self, part: str) -> Path:
        name = "strings" if part == STRINGS else quote(part, safe="")
        return self._path / f"{name}.arrow"


def _sealed(path: Path) -> tuple[int, str]:
    """Size and checksum of a file that was written, once it is on the disk.

    It is read again, from the cache, for its checksum: so Arrow writes without a word of Python, and this thread never
    has the interpreter's lock while the loop waits for it.
    """
    digest, size, chunk = xxhash.xxh3_128(), 0, memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
            size += count
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _lock(path: Path) -> IO[str]:
    """A lock that ends with the process, however it ends."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FolderTaken(
            f"snapshots.folder: {path.parent} is in use by {holder}: stop that one, or give each scorer its own "
            "kafka.instance_id"
        ) from None
    holder = f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime())}"
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), holder.encode())
    return file


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

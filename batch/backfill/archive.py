"""Records from an archive of events: JSON lines, parquet, or a topic from its beginning.

A line of JSON is an event, just as it was in the record. Or it is a record: an object of `value` (the event, or its
text) and, if they are known, `key` and `timestamp` (epoch ms); `topic`, `partition`, `offset` and `headers` may stand
there. Of a stream with a column `value` each line is an event.

A parquet file has a column `value` (texts or bytes), and may have `key` and `timestamp`; or it has the stream's
columns, of whatever types hold the same values (docs/reference/table-files.md), a NULL for a field that was not there.

A record without a key has the one that its event says; one without a timestamp was written at its event's time.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streaming.app.streams import Stream
from streaming.engine.sql.stream_syntax import StreamColumn
from streaming.engine.types import ARROW, Type
from streaming.files.tables import BadFile, files_of
from streaming.files.tables.convert import converted
from streaming.files.tables.errors import BadCell, listed

if TYPE_CHECKING:
    from streaming.config import Config

__all__ = ["BATCH", "ArchiveRecord", "records_of_files", "records_of_topic"]

BATCH = 8_192
"""Records that are decoded at once."""

_JSON = (".jsonl", ".ndjson", ".json")
_PARTITION_BITS = 40
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class ArchiveRecord:
    """A record as the decoder takes it.

    Attributes:
        place: `file:row` (lines from 1, rows of parquet from 0), or `topic[partition]@offset`.
        number: its place in the order of the stream's records.
        time_ms: when it was written, epoch ms; -1: not known.
    """

    place: str
    number: int
    key_: bytes | None
    value_: bytes | None
    time_ms: int = -1

    def topic(self) -> str:
        return self.place

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """A record as a line of JSON."""

    value: msgspec.Raw
    key: str | int | msgspec.UnsetType | None = msgspec.UNSET
    timestamp: int | None = None
    topic: Any = None
    partition: Any = None
    offset: Any = None
    headers: Any = None


_as_record = msgspec.json.Decoder(_Envelope).decode
_as_anything = msgspec.json.Decoder().decode
_as_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def records_of_files(stream: Stream, paths: Sequence[Path]) -> Iterator[list[ArchiveRecord]]:
    """The records of a stream's archive, file by file, in batches.

    Args:
        paths: files, or folders of files of one kind (what begins with `_` or `.` is none), by their names.

    Raises:
        BadFile: a file is missing, damaged, of another kind, or there twice; a path has no records; parquet lacks a
            column that is NOT NULL.
    """
    first = 0
    read: set[Path] = set()
    for path in paths:
        before = first
        for file in _files(path):
            if file.resolve() in read:
                raise BadFile(f"{file}: given twice for stream {stream.name}: each of its records would be there twice")
            read.add(file.resolve())
            batches = (
                _parquet(stream, file, first) if file.suffix.lower() == ".parquet" else _lines(stream, file, first)
            )
            for batch in batches:
                first += len(batch)
                yield batch
        if first == before:
            raise BadFile(f"{path}: no records in it")


def records_of_topic(topic: str, config: Config) -> Iterator[list[ArchiveRecord]]:
    """What is committed in a topic, by its name at the brokers, from its beginning up to where it ends now.

    Raises:
        ConfigError: there is no such topic. NotAllowed: it may not be read. BrokerUnavailable: Kafka does not answer.
    """
    import threading

    from streaming.kafka.connection import Connection
    from streaming.kafka.login import Login
    from streaming.kafka.reader import CommittedReader

    kafka = config.kafka
    connection = Connection(threading.Event(), login=Login(kafka))
    for records in CommittedReader(kafka, connection, topic, kafka.give_up_after_s).to_end():
        yield [
            ArchiveRecord(
                f"{record.topic()}[{record.partition()}]@{record.offset()}",
                (record.partition() << _PARTITION_BITS) + record.offset(),
                record.key(),
                record.value(),
                record.timestamp()[1],
            )
            for record in records
        ]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.suffix.lower() not in (*_JSON, ".parquet"):
            raise BadFile(f"{path}: an archive is JSON lines ({', '.join(_JSON)}) or .parquet")
        return files_of(path, "")
    kinds = sorted({entry.suffix.lower() for entry in path.iterdir() if not entry.name.startswith(("_", "."))})
    kind = next((kind for kind in kinds if kind in (*_JSON, ".parquet")), None)
    if kind is None:
        raise BadFile(f"{path}: no JSON lines ({', '.join(_JSON)}) and no .parquet in it")
    return files_of(path, kind[1:])


def _key_of(stream: Stream, value: bytes) -> bytes | None:
    """The key that a record of this value should have; None where its value says none."""
    if stream.key is None:
        return None
    try:
        event = _as_anything(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # refused for that
    key = event.get(stream.key) if isinstance(event, dict) else None
    return None if key is None else str(key).encode("utf-8", "surrogatepass")


# -- JSON lines --------------------------------------------------------------------------------------------------------


def _lines(stream: Stream, file: Path, first: int) -> Iterator[list[ArchiveRecord]]:
    may_be_records = all(column.name != "value" for column in stream.columns)
    batch: list[ArchiveRecord] = []
    try:
        with file.open("rb") as lines:
            for number, read in enumerate(lines, 1):
                line = (read.removeprefix(b"\xef\xbb\xbf") if number == 1 else read).strip()
                if line:
                    place = f"{file}:{number}"
                    found = _record(stream, line, place, first, may_be_records)
                    batch.append(found)
                    first += 1
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from None
    yield batch


def _record(stream: Stream, line: bytes, place: str, number: int, may_be_record: bool) -> ArchiveRecord:
    if may_be_record and b'"value"' in line:
        try:
            found = _as_record(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            value = _value_of(bytes(found.value))
            key: bytes | None
            if isinstance(found.key, msgspec.UnsetType):
                key = None if value is None else _key_of(stream, value)
            else:
                key = None if found.key is None else str(found.key).encode()
            return ArchiveRecord(place, number, key, value, -1 if found.timestamp is None else found.timestamp)
    return ArchiveRecord(place, number, _key_of(stream, line), line)


def _value_of(raw: bytes) -> bytes | None:
    """The bytes of a record's value: what a text says, or JSON as it stands."""
    if raw == b"null":
        return None
    if not raw.startswith(b'"'):
        return raw
    try:
        return _as_text(raw).encode()
    except (msgspec.DecodeError, UnicodeError):
        return raw


# -- parquet -----------------------------------------------------------------------------------------------------------


def _parquet(stream: Stream, file: Path, first: int) -> Iterator[list[ArchiveRecord]]:
    row = 0
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            own = {column.name: column for column in stream.columns}
            of_records = "value" in names and "value" not in own
            if not of_records:
                needed = [c.name for c in stream.columns if not c.nullable and c.default is None]
                missing = [name for name in needed if name not in names]
                if missing:
                    raise BadFile(f"{file}: no column {listed(missing)} of stream {stream.name}, and no column value")
            wanted = [name for name in (("value", "key", "timestamp") if of_records else own) if name in names]
            for batch in opened.iter_batches(BATCH, columns=wanted):
                if of_records:
                    yield _records(stream, file, batch, row, first + row)
                else:
                    values = _events(stream, own, batch)
                    yield [
                        ArchiveRecord(f"{file}:{row + i}", first + row + i, _key_of(stream, value), value)
                        for i, value in enumerate(values)
                    ]
                row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise BadFile(f"{file}: {' '.join(str(error).split())}") from None


def _records(stream: Stream, file: Path, batch: pa.RecordBatch, row: int, first: int) -> list[ArchiveRecord]:
    names = batch.schema.names
    values = _bytes(file, "value", batch.column("value"))
    keys = _bytes(file, "key", batch.column("key")) if "key" in names else None
    times = [-1] * len(values)
    if "timestamp" in names:
        try:
            whole = converted(batch.column("timestamp"), ARROW[Type.TIMESTAMP])
        except BadCell as error:
            raise BadFile(f"{file}: row {row + max(error.row, 0)}, column timestamp: {error}") from None
        times = [-1 if time is None else time for time in whole.cast(pa.int64()).to_pylist()]
    found = []
    for i, value in enumerate(values):
        key = keys[i] if keys is not None else None if value is None else _key_of(stream, value)
        found.append(ArchiveRecord(f"{file}:{row + i}", first + i, key, value, times[i]))
    return found


def _bytes(file: Path, name: str, array: pa.Array) -> list[bytes | None]:
    if name == "key" and pa.types.is_integer(array.type):
        array = array.cast(pa.string())
    try:
        found: list[bytes | None] = array.cast(pa.binary()).to_pylist()
    except pa.ArrowException:
        raise BadFile(f"{file}: column {name} is {array.type}, neither texts nor bytes") from None
    return found


def _events(stream: Stream, columns: dict[str, StreamColumn], batch: pa.RecordBatch) -> list[bytes]:
    """The rows as the JSON that a sender would have made of them."""
    fields = {
        name: _spelled(stream, columns[name], array)
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
    }
    rows = zip(*fields.values(), strict=True)
    return [
        _encode({name: value for name, value in zip(fields, row, strict=True) if value is not None}) for row in rows
    ]


def _spelled(stream: Stream, column: StreamColumn, array: pa.Array) -> list[Any]:
    """A column's values as JSON has them; what is of no fitting type stays as it is: its records are refused."""
    if column.type == Type.TIMESTAMP and not pa.types.is_timestamp(array.type):
        return _plain(array)
    try:
        array = converted(array, ARROW[column.type])
    except BadCell:
        return _plain(array)
    if column.type != Type.TIMESTAMP:
        return _plain(array)
    times: list[int | None] = array.cast(pa.int64()).to_pylist()
    if stream.timestamp_format == "epoch_ms":
        return times
    if stream.timestamp_format == "epoch_s":
        return [None if time is None else time // 1000 for time in times]
    return [
        None if time is None else (_EPOCH + datetime.timedelta(milliseconds=time)).isoformat(timespec="milliseconds")
        for time in times
    ]


def _plain(array: pa.Array) -> list[Any]:
    try:
        values: list[Any] = array.to_pylist()
    except (OverflowError, ValueError):  # a time that Python has none like: its number is refused as a time, too
        whole = pa.int32() if pa.types.is_date32(array.type) or pa.types.is_time32(array.type) else pa.int64()
        return list(array.cast(whole).to_pylist())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type) or pa.types.is_nested(array.type):
        return [None if value is None else repr(value) for value in values]
    return values

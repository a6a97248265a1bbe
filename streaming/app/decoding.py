"""Records of one stream → rows of its tables, a batch at a time; what is no row, and why.

A record is refused whole, for the first of these that holds:

1. it has no value, unless its stream says that such a record deletes; an empty one, too large a one, or one that is no
   JSON (`NullValue`, `EmptyValue`, `TooLarge`, `Malformed`);
2. a field of its JSON is missing, of another type or out of its range (`InvalidField`, the message names the field);
3. a CHECK is false of it (`InvalidField`, the message names the constraint; of a CHECK of one field alone it says with
   2. what the field must be); NULL is not false, as in SQL;
4. its time lies further ahead of the record's own than the limit (`TimeOutOfRange`);
5. its key is not the one in its value (`WrongKey`);
6. a row that it becomes has NULL, or a negative time, where its table takes none (`InvalidField`, as `table.column`).
"""

from __future__ import annotations

import contextlib
import re
import time
import zoneinfo
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.app.folder import App
from streaming.app.json_fields import JsonFields
from streaming.app.streams import Insert, Stream
from streaming.engine.projection import Projection
from streaming.engine.sql import syntax
from streaming.engine.storage.rows import schema_of
from streaming.engine.storage.table import Column
from streaming.engine.types import ARROW, FIRST_DATE, Type
from streaming.errors import BadEvent
from streaming.events.batch import EventBatch, Refusals, merged
from streaming.events.record import (
    TIME_MS_MAX,
    EmptyValue,
    InvalidField,
    Malformed,
    NullValue,
    Record,
    TimeOutOfRange,
    TooLarge,
    WrongKey,
)

__all__ = ["StreamDecoder"]

Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class StreamDecoder:
    """Decodes the records of one stream.

    Not for several threads at once: the texts of a batch are in one pool.

    Args:
        app: the application.
        stream: one of its streams.
        message_bytes_max: limit of a value's size; larger ones are refused unparsed.
        future_s_max: how far ahead of the record's time the event's may lie, in seconds. The record's time, unlike the
            wall clock, is the same when the topic is replayed; a record without one is held against the clock, once.
    """

    def __init__(self, app: App, stream: Stream, message_bytes_max: int, future_s_max: int) -> None:
        self._app = app
        self._stream = stream
        self._fields = JsonFields(stream, zoneinfo.ZoneInfo(app.settings.time_zone))
        self._bytes_max, self._future_ms = message_bytes_max, future_s_max * 1000
        self._inserts = [_TableRows(app, stream, insert) for insert in stream.inserts]
        expressions = [check.condition for check in self._fields.checks]
        for rows in self._inserts:
            rows.first = len(expressions)
            expressions += rows.expressions
        self._projection = Projection(stream.name, stream.table_columns, expressions, app.sources["events.sql"])

    @property
    def texts_held(self) -> int:
        """How many texts of former batches are held in memory; there is a limit."""
        return self._projection.texts_held

    def decode(self, records: Sequence[Record], *, replayed: bool = False) -> tuple[EventBatch, Refusals]:
        """A batch of records of the stream's topic: the events, and what is none, each in the order given.

        Args:
            replayed: they were committed before. One without a time was held against the clock then, and is taken
                whatever the clock says now; what was refused then is not among them
                (`streaming.kafka.refused_records`).
        """
        refused: dict[int, BadEvent] = {}
        events: list[Any] = []
        numbers: list[int] = []  # of the event's record, in `records`
        deleted: list[tuple[int, str | int]] = []  # of a record its number, and the key whose rows it deletes
        for number, record in enumerate(records):
            try:
                if record.value() is None and self._stream.deletes:
                    deleted.append((number, self._deleted_key(record)))
                else:
                    events.append(self._event(record.value()))
                    numbers.append(number)
            except BadEvent as why:
                refused[number] = why
        fields = self._fields.batch(events)
        values = self._projection(fields) if events else []
        good = np.ones(len(events), bool)

        def refuse(event: int, error: BadEvent) -> None:
            good[event] = False
            refused[numbers[event]] = error

        found = [records[number] for number in numbers]
        for event, error in self._violations(found, fields, values, good, replayed) if events else ():
            refuse(event, error)
        batch = self._batch(found, fields, values, good)
        if deleted:
            kept = [number for number, is_good in zip(numbers, good.tolist(), strict=True) if is_good]
            batch = self._with_deletes(batch, kept, records, deleted)
        return batch, [(records[i], refused[i]) for i in sorted(refused)]

    def _deleted_key(self, record: Record) -> str | int:
        """The key of a tombstone, as the tables hold it.

        Raises:
            WrongKey: it is none of the stream's.
        """
        key, text = record.key() or b"", ""
        with contextlib.suppress(UnicodeDecodeError):
            text = key.decode()
        if self._stream.column(self._stream.key or "").type == Type.STRING:
            if text:
                return text
        elif re.fullmatch(r"0|-?[1-9]\d{0,18}", text) and -(2**63) <= int(text) < 2**63:
            return int(text)
        raise WrongKey("validate", f"the value is null, and the key {record.key()!r} is no {self._stream.key}")

    def _with_deletes(
        self, batch: EventBatch, kept: list[int], records: Sequence[Record], deleted: list[tuple[int, str | int]]
    ) -> EventBatch:
        """The events and the tombstones among them, in the order of their records."""
        order = sorted([*kept, *(number for number, _ in deleted)])
        place = {number: at for at, number in enumerate(order)}
        tombstones = EventBatch(
            [records[number] for number, _ in deleted],
            np.array([records[number].timestamp()[1] for number, _ in deleted], np.int64),
            [None] * len(deleted),
            deletes=[(at, self._stream.deletes, key) for at, (_, key) in enumerate(deleted)],
        )
        return merged([(batch, [place[n] for n in kept]), (tombstones, [place[n] for n, _ in deleted])])

    def _event(self, value: bytes | None) -> Any:
        """One record's fields."""
        if value is None:
            raise NullValue("decode", "the value is null")
        if not value:
            raise EmptyValue("decode", "the value is empty")
        if len(value) > self._bytes_max:
            raise TooLarge("decode", f"the value has {len(value)} bytes; events.message_bytes_max is {self._bytes_max}")
        try:
            return self._fields.decode(value)
        except msgspec.ValidationError as error:
            raise InvalidField("validate", str(error)) from None
        except UnicodeDecodeError as error:
            raise Malformed("decode", f"not UTF-8: {error.reason}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise Malformed("decode", f"not JSON: {error}") from None

    def _violations(
        self, records: Sequence[Record], fields: pa.RecordBatch, values: Sequence[Any], good: Flags, replayed: bool
    ) -> Iterator[tuple[int, BadEvent]]:
        """(event, error) of each event that is refused: once, as the caller takes it out of `good` at once."""
        for check, value in zip(self._fields.checks, values, strict=False):
            for event in _which(_is_false(value) & good) if value.false_count else ():
                name = f"{check.name}: " if check.name else ""
                yield event, InvalidField("validate", f"{name}CHECK ({check.text}) is false")
        yield from self._ahead(records, fields, good, replayed)
        if self._stream.key is not None:
            keys = _texts(fields.column(self._stream.key))
            for event, (record, text) in enumerate(zip(records, keys, strict=True)):
                key = record.key()
                if (key is None or key != text.encode()) and good[event]:
                    shown = "null" if key is None else repr(key[:64])
                    given = fields.column(self._stream.key)[event].as_py()
                    yield event, WrongKey("validate", f"the key is {shown}, {self._stream.key} is {given!r}")
        for rows in self._inserts:
            for column, wrong, what in rows.violations(values):
                for event in _which(wrong & good):
                    yield event, InvalidField("validate", f"{rows.insert.table}.{column} would be {what}")

    def _ahead(
        self, records: Sequence[Record], fields: pa.RecordBatch, good: Flags, replayed: bool
    ) -> Iterator[tuple[int, BadEvent]]:
        written = np.fromiter((record.timestamp()[1] for record in records), np.int64, len(records))
        times = _numbers(fields.column(self._stream.event_time))
        if int(written.min()) >= 0 and int((times - written).max()) <= self._future_ms:
            return  # as nearly always
        timeless = written < 0  # its producer gave it none, and the topic does not either
        since = np.where(timeless, TIME_MS_MAX if replayed else int(time.time() * 1000), written)
        ahead = times - since
        for event in _which((ahead > self._future_ms) & good):
            # a replayed one is taken to be written at the end of time
            own = not timeless[event] or replayed
            when = "the record's own time" if own else "now (the record has no time of its own)"
            what = f"{self._stream.event_time} lies {ahead[event] // 1000} s after {when}"
            yield event, TimeOutOfRange("validate", f"{what}; events.future_s_max is {self._future_ms // 1000}")

    def _batch(self, records: list[Record], fields: pa.RecordBatch, values: Sequence[Any], good: Flags) -> EventBatch:
        rows: dict[str, pa.Table] = {}
        events_of: dict[str, Int64] = {}
        place = np.cumsum(good) - 1  # of an event among the good ones
        for made in self._inserts if good.any() else ():
            table, chosen = made.rows(values, good)
            if not table.num_rows:
                continue
            name, numbers = made.insert.table, place[chosen]
            if name in rows:  # two inserts into one table: an event's rows stand together, in order of the inserts
                numbers = np.concatenate([events_of[name], numbers])
                order = np.argsort(numbers, kind="stable")
                table, numbers = pa.concat_tables([rows[name], table]).take(pa.array(order)), numbers[order]
            rows[name], events_of[name] = table, numbers
        if not good.all():
            fields = fields.filter(pa.array(good))
            records = [record for record, taken in zip(records, good.tolist(), strict=True) if taken]
        named = self._stream.request_id
        sender_ids = [None] * len(records) if named is None else _texts(fields.column(named))
        times = _numbers(fields.column(self._stream.event_time))
        return EventBatch(records, times, sender_ids, rows, events_of)


class _TableRows:
    """What one INSERT makes of events.

    Attributes:
        expressions: what has to be computed of each event, the condition of WHERE last.
        first: the number of its first expression among those of the stream.
    """

    def __init__(self, app: App, stream: Stream, insert: Insert) -> None:
        self.insert = insert
        self.first = 0
        self.columns: Sequence[Column] = app.tables.columns[insert.table]
        self.expressions = [expr for _, expr in insert.columns]
        if insert.where is not None:
            self.expressions.append(insert.where)
        self._schema = schema_of(self.columns)
        self._places = {name: i for i, (name, _) in enumerate(insert.columns)}
        times = set(app.times(insert.table))
        required = {column.name for column in app.required(insert.table)}
        if insert.table == app.main:
            required.add(app.settings.request.id)
        self._dates = [
            column.name for column in self.columns if column.type == Type.DATE and column.name in self._places
        ]
        # What cannot be wrong is not looked at: a field that is NOT NULL; a timestamp of JSON is above 0.
        never_null = {c.name for c in stream.columns if not c.nullable}
        sure = {name for name, expr in insert.columns if isinstance(expr, syntax.Name) and expr.parts[-1] in never_null}
        self._required = [
            (column.name, column.name in times)
            for column in self.columns
            if column.name in required and not (column.name in sure and column.type != Type.BIGINT)
        ]

    def violations(self, values: Sequence[Any]) -> Iterator[tuple[str, Flags, str]]:
        """(column, of which events, what) of each column that would get what it does not take.

        That is a NULL, a negative time, or a date that tables have none of: date() of a time behind the year 9999.
        """
        inside = self._chosen(values)
        for name in self._dates:
            days = values[self.first + self._places[name]].cast(pa.int32())
            if days.null_count < len(days) and pc.min(days).as_py() < FIRST_DATE:
                early = pc.less(days, FIRST_DATE).fill_null(False).to_numpy(zero_copy_only=False)
                yield name, early if inside is None else early & inside, "a date before 1900"
        for name, is_time in self._required:
            place = self._places.get(name)
            if place is None:
                continue  # its default, which is checked when the application is read
            value = values[self.first + place]
            wrong: Flags | None = None
            if value.null_count:
                wrong = value.is_null().to_numpy(zero_copy_only=False)
            if is_time:
                negative = _numbers(value) < 0
                wrong = negative if wrong is None else wrong | negative
            if wrong is not None and wrong.any():
                yield name, wrong if inside is None else wrong & inside, "NULL, or no time"

    def rows(self, values: Sequence[Any], good: Flags) -> tuple[pa.Table, Flags]:
        """The rows of the events that are good, and which events they are of."""
        inside = self._chosen(values)
        chosen = good if inside is None else good & inside
        count = len(good)
        arrays: list[Any] = []
        for column in self.columns:
            place = self._places.get(column.name)
            if place is not None:
                arrays.append(values[self.first + place])
            elif column.default is None:
                arrays.append(pa.nulls(count, ARROW[column.type]))
            else:
                arrays.append(_repeated(column, count))
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        return (table if chosen.all() else table.filter(pa.array(chosen))), chosen

    def _chosen(self, values: Sequence[Any]) -> Flags | None:
        if self.insert.where is None:
            return None
        where = values[self.first + len(self.insert.columns)]
        flags: Flags = where.fill_null(False).to_numpy(zero_copy_only=False)
        return flags


def _repeated(column: Column, count: int) -> pa.Array:
    """A column's DEFAULT, `count` times."""
    default = column.default
    if column.type == Type.TIMESTAMP:
        return pa.array([default] * count, pa.int64()).view(ARROW[column.type])
    return pa.array([default] * count, ARROW[column.type])


def _which(flags: Flags) -> list[int]:
    found: list[int] = np.flatnonzero(flags).tolist()
    return found


def _is_false(value: pa.BooleanArray) -> Flags:
    flags: Flags = ~value.fill_null(True).to_numpy(zero_copy_only=False)
    return flags


def _numbers(value: pa.Array) -> Int64:
    """Timestamps (epoch ms) or bigints, NULLs as 0."""
    whole = value.view(pa.int64())
    numbers: Int64 = (whole.fill_null(0) if whole.null_count else whole).to_numpy()
    return numbers


def _texts(value: pa.Array) -> list[Any]:
    """Texts, or whole numbers as their decimal digits; NULL as None."""
    texts: list[Any] = (value if pa.types.is_string(value.type) else value.cast(pa.string())).to_pylist()
    return texts

"""A stream's columns as what JSON is decoded into, exactly typed, and the decoded values as Arrow's columns.

| type                 | JSON                                                                                  |
|----------------------|---------------------------------------------------------------------------------------|
| bool                 | true, false                                                                           |
| smallint int bigint  | a whole number that fits; every digit counts                                          |
| float double         | a number that fits                                                                    |
| string               | a text of at most n characters for VARCHAR(n), of 256 without                         |
| timestamp            | epoch milliseconds above 0, up to the year 9999; or as `timestamp_format` says:       |
|                      | `epoch_s` whole seconds, `iso-8601` a text, of the app's time zone if it names none   |
|                      | (of an hour that clocks show twice, the first)                                        |
| date                 | a text YYYY-MM-DD, from 1900 on                                                       |

Nothing is converted: a number in a text is refused, and a text where a number is due. Unknown fields are passed by.
A nullable column may be null or missing; one with a DEFAULT has that where it is missing.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa

from streaming.app.field_rules import FieldRule, field_rules
from streaming.app.streams import TEXT_LENGTH_MAX, Stream
from streaming.app.widths import whole_limits
from streaming.engine.sql.stream_syntax import StreamColumn
from streaming.engine.types import ARROW, Type
from streaming.events.record import TIME_MS_MAX

__all__ = ["JsonFields"]

DATE_YEAR_MIN = 1900  # OpenMLDB holds no earlier date
_FLOAT_MAX = 3.4028234663852886e38
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MILLISECOND = datetime.timedelta(milliseconds=1)


class JsonFields:
    """Decodes the JSON of a stream's records.

    Args:
        stream: whose columns they are.
        zone: of ISO texts that name none.

    Attributes:
        checks: the CHECKs of the stream that are no rule of one field, and left to the caller.
        decode: one value → an object for `batch`. Raises msgspec's errors, UnicodeDecodeError and RecursionError.
    """

    def __init__(self, stream: Stream, zone: zoneinfo.ZoneInfo) -> None:
        self._columns = stream.columns
        rules, self.checks = field_rules(stream.columns, stream.checks)
        self._format = stream.timestamp_format
        self._zone = zone
        # Fields get names of their own: a column's may be no name of Python's.
        names = {f"f{i}": column.name for i, column in enumerate(self._columns)}
        fields: list[Any] = [
            _field(f"f{i}", column, rules.get(column.name, FieldRule()), self._format, zone)
            for i, column in enumerate(self._columns)
        ]
        kind = msgspec.defstruct(stream.name, fields, kw_only=True, rename=names, gc=False)
        decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
        moments = (
            [(f"f{i}", c.name) for i, c in enumerate(self._columns) if c.type == Type.TIMESTAMP]
            if self._format == "iso-8601"
            else []
        )
        dates = [(f"f{i}", c.name) for i, c in enumerate(self._columns) if c.type == Type.DATE]

        def decode_in_range(value: bytes) -> Any:
            event = decode(value)
            for field, name in dates:
                day = getattr(event, field)
                if day is not None and day.year < DATE_YEAR_MIN:
                    raise msgspec.ValidationError(f"Expected a date from {DATE_YEAR_MIN} on - at `$.{name}`")
            for field, name in moments:
                ms = _epoch_ms(getattr(event, field), zone)
                if ms is not None and not 0 < ms <= TIME_MS_MAX:
                    raise msgspec.ValidationError(f"Expected a time after 1970 - at `$.{name}`")
            return event

        self.decode: Callable[[bytes], Any] = decode_in_range if moments or dates else decode
        self._values: Callable[[Any], Any] = attrgetter(*names)
        self._schema = pa.schema([(column.name, ARROW[column.type]) for column in self._columns])

    def batch(self, events: Sequence[Any]) -> pa.RecordBatch:
        """The columns of the stream, of decoded events in their order."""
        values: list[Sequence[Any]]
        if len(self._columns) == 1:
            values = [[self._values(event) for event in events]]
        else:
            values = list(zip(*map(self._values, events), strict=True)) or [()] * len(self._columns)
        arrays = [self._array(column, found) for column, found in zip(self._columns, values, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _array(self, column: StreamColumn, values: Sequence[Any]) -> pa.Array:
        if column.type != Type.TIMESTAMP:
            return pa.array(values, ARROW[column.type])
        if self._format == "iso-8601":
            values = [_epoch_ms(value, self._zone) for value in values]
        elif self._format == "epoch_s":
            values = [None if value is None else value * 1000 for value in values]
        return pa.array(values, pa.int64()).view(ARROW[Type.TIMESTAMP])


def _field(
    name: str, column: StreamColumn, rule: FieldRule, timestamp_format: str, zone: zoneinfo.ZoneInfo
) -> tuple[Any, ...]:
    """(name, type[, default]) of a struct's field."""
    kind = _json_type(column, rule, timestamp_format)
    if column.default is not None and column.default.value is not None:
        return name, kind if not column.nullable else kind | None, _default(column, timestamp_format, zone)
    return (name, kind) if not column.nullable else (name, kind | None, None)


def _json_type(column: StreamColumn, rule: FieldRule, timestamp_format: str) -> Any:
    match column.type:
        case Type.BOOL:
            return bool
        case Type.SMALLINT | Type.INT | Type.BIGINT:
            least, greatest = whole_limits(column.type)
            least = least if rule.least is None else max(least, int(rule.least))
            greatest = greatest if rule.greatest is None else min(greatest, int(rule.greatest))
            return Annotated[int, msgspec.Meta(ge=least, le=greatest)]
        case Type.FLOAT:
            return Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
        case Type.DOUBLE:
            return Annotated[float, msgspec.Meta(ge=rule.least, le=rule.greatest)]
        case Type.STRING:
            length_max = column.length_max or TEXT_LENGTH_MAX
            choices = [text for text in rule.choices or () if len(text) <= length_max]
            if choices:
                return Literal[tuple(choices)]
            return Annotated[str, msgspec.Meta(min_length=rule.length_min or None, max_length=length_max)]
        case Type.DATE:
            return datetime.date
        case _:
            if timestamp_format == "iso-8601":
                return datetime.datetime
            limit = TIME_MS_MAX // 1000 if timestamp_format == "epoch_s" else TIME_MS_MAX
            return Annotated[int, msgspec.Meta(gt=0, le=limit)]


def _default(column: StreamColumn, timestamp_format: str, zone: zoneinfo.ZoneInfo) -> object:
    """A DEFAULT as JSON would have brought it; of a timestamp it is epoch milliseconds, whatever the format."""
    value = None if column.default is None else column.default.value
    if column.type != Type.TIMESTAMP or not isinstance(value, int):
        return value
    if timestamp_format == "iso-8601":
        return (_EPOCH + value * _MILLISECOND).astimezone(zone)
    return value // 1000 if timestamp_format == "epoch_s" else value


def _epoch_ms(moment: datetime.datetime | None, zone: zoneinfo.ZoneInfo) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // _MILLISECOND

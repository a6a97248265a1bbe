"""Sample files of events, and what is known of each of their fields once every row has been seen.

A file is JSON lines, an object a line, or parquet, whose columns are the fields. What has a `value`, and beside it only
what a record has (`key`, `timestamp`, …), is a record with an event in it. Memory holds counts and bounds of a field,
and at most `DISTINCT_MAX` of its values' hashes.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streaming.errors import BadInput
from streaming.events.record import TIME_MS_MAX

__all__ = ["DISTINCT_MAX", "FEW", "Field", "Sample", "read_sample"]

DISTINCT_MAX = 200_000
FEW = 12
"""Up to so many texts of a field are kept as they are."""

JSON = (".jsonl", ".ndjson", ".json")
_RECORD = {"value", "key", "timestamp", "topic", "partition", "offset", "headers"}
_MILLISECOND = datetime.timedelta(milliseconds=1)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_anything = msgspec.json.Decoder().decode
_moment = msgspec.json.Decoder(datetime.datetime).decode
_date = msgspec.json.Decoder(datetime.date).decode
_encode = msgspec.json.Encoder().encode


@dataclass
class Field:
    """What all rows of a file say of one field.

    Attributes:
        name: in JSON.
        present: in how many rows it is there and not null.
        first: by kind of value (`bool`, `int`, `float`, `text`, `moment`: parquet's own times, `other`), the row where
            it was seen first.
        least, greatest: of whole numbers and parquet's times (epoch ms).
        length: characters of the longest text.
        all_moments, all_dates: whether every text is a time after 1970, or a date of 1900 to 9999.
        few: its texts and how often each was seen; None: there are more than `FEW`.
        seen: hashes of its values; there may be more once there are `DISTINCT_MAX`.
        repeated: whether a value was seen twice.
        is_key: whether it was the key of every record that had one, and there were some.
    """

    name: str
    present: int = 0
    first: dict[str, int] = field(default_factory=dict)
    least: int | None = None
    greatest: int | None = None
    length: int = 0
    all_moments: bool = True
    all_dates: bool = True
    few: dict[str, int] | None = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    repeated: bool = False
    keys: int = 0
    other_keys: int = 0

    @property
    def is_key(self) -> bool:
        return self.keys > 0 and self.other_keys == 0

    @property
    def distinct(self) -> int:
        return len(self.seen)

    @property
    def unique(self) -> bool:
        """Whether no value was seen twice."""
        return not self.repeated

    def add(self, value: Any, row: int) -> None:
        """Takes the value of a row."""
        if value is None:
            return
        self.present += 1
        if isinstance(value, bool):
            kind = "bool"
        elif isinstance(value, int):
            kind = "int"
            self._bound(value)
        elif isinstance(value, float):
            kind = "float"
        elif isinstance(value, str):
            kind = "text"
            self._text(value)
        elif isinstance(value, _Moment):
            kind, value = "moment", value.ms
            self._bound(value)
        else:
            kind = "other"
        self.first.setdefault(kind, row)
        if kind != "other":
            code = hash(value)
            if code in self.seen:
                self.repeated = True
            elif len(self.seen) < DISTINCT_MAX:
                self.seen.add(code)

    def add_key(self, value: Any, key: str) -> None:
        """Takes the key of a record in which the field had this value."""
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value) == key:
            self.keys += 1
        else:
            self.other_keys += 1

    def _bound(self, value: int) -> None:
        self.least = value if self.least is None else min(self.least, value)
        self.greatest = value if self.greatest is None else max(self.greatest, value)

    def _text(self, text: str) -> None:
        self.length = max(self.length, len(text))
        self.all_moments = self.all_moments and _is_moment(text)
        self.all_dates = self.all_dates and _is_date(text)
        if self.few is not None:
            self.few[text] = self.few.get(text, 0) + 1
            if len(self.few) > FEW:
                self.few = None


@dataclass(frozen=True)
class Sample:
    """A file, seen whole.

    Attributes:
        file: its path.
        name: its stem: the stream's, and the topic's.
        rows: how many; at least 1.
        fields: in the order in which they were seen first.
    """

    file: Path
    name: str
    rows: int
    fields: tuple[Field, ...]

    def required(self, field: Field) -> bool:
        """Whether every row has it."""
        return field.present == self.rows


@dataclass(frozen=True)
class _Moment:
    """A time of a parquet file, epoch ms."""

    ms: int


def read_sample(file: Path) -> Sample:
    """Reads a file whole.

    Raises:
        BadInput: it is missing, damaged, of another kind or without rows; a line is no JSON object.
    """
    suffix = file.suffix.lower()
    if suffix not in (*JSON, ".parquet"):
        raise BadInput(f"{file}: a sample is JSON lines ({', '.join(JSON)}) or .parquet")
    fields: dict[str, Field] = {}
    rows = 0
    try:
        for row, event, key in _parquet_rows(file) if suffix == ".parquet" else _lines(file):
            rows += 1
            for name, value in event.items():
                fields.setdefault(name, Field(name)).add(value, row)
            if key is not None:
                for name, one in fields.items():
                    one.add_key(event.get(name), key)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or ' '.join(str(error).split())}") from None
    except pa.ArrowException as error:
        raise BadInput(f"{file}: {' '.join(str(error).split())}") from None
    if not rows:
        raise BadInput(f"{file}: no rows in it")
    return Sample(file, file.stem, rows, tuple(fields.values()))


def _lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    with file.open("rb") as lines:
        for number, read in enumerate(lines, 1):
            line = (read.removeprefix(b"\xef\xbb\xbf") if number == 1 else read).strip()
            if line:
                yield from _event(file, number, _json(file, number, line))


def _event(file: Path, number: int, found: Any) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    """An event, or the one in a record, with the record's key; a record without a value says nothing."""
    event, key = found, None
    if _is_record(found):
        event, given = found["value"], found.get("key")
        if event is None:
            return
        key = given.decode(errors="replace") if isinstance(given, bytes) else None if given is None else str(given)
        if isinstance(event, (str, bytes)):
            event = _json(file, number, event)
    if not isinstance(event, dict):
        raise BadInput(f"{file}:{number}: no JSON object")
    yield number, event, key


def _is_record(found: Any) -> bool:
    """Whether it has an event as its value, and is not one whose own fields are called as a record's parts."""
    if not isinstance(found, dict) or "value" not in found or not found.keys() <= _RECORD:
        return False
    value = found["value"]
    if isinstance(value, str):
        return value.lstrip().startswith("{")
    return isinstance(value, (dict, bytes)) or (value is None and "key" in found)


def _json(file: Path, number: int, text: str | bytes) -> Any:
    try:
        return _anything(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{file}:{number}: not JSON: {error}") from None


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    row = 0
    with pq.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise BadInput(f"{file}: column {twice} is in it {names.count(twice)} times")
        for batch in opened.iter_batches(8_192):
            columns = [_python(array) for array in batch.columns]
            for values in zip(*columns, strict=True):
                yield from _event(file, row, dict(zip(names, values, strict=True)))
                row += 1


def _python(array: pa.Array) -> list[Any]:
    """A column's values as JSON has them; times as `_Moment`."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _python(array.dictionary_decode())
    if pa.types.is_timestamp(kind):
        per_ms = {"s": 1_000, "ms": 1, "us": -1_000, "ns": -1_000_000}[kind.unit]
        ticks = array.cast(pa.int64()).to_pylist()
        return [None if t is None else _Moment(t * per_ms if per_ms > 0 else t // -per_ms) for t in ticks]
    values: list[Any] = array.to_pylist()
    if pa.types.is_date(kind):
        return [None if value is None else value.isoformat() for value in values]
    if pa.types.is_decimal(kind):
        return [None if v is None else int(v) if kind.scale <= 0 else float(v) for v in values]
    if pa.types.is_floating(kind):
        return [None if value is None or math.isnan(value) else value for value in values]
    return values


def _is_moment(text: str) -> bool:
    try:
        moment = _moment(_encode(text))
    except msgspec.ValidationError:
        return False
    if moment.tzinfo is None:
        # Whatever zone is chosen for the application later: a day more, or less, is still a time.
        moment = moment.replace(tzinfo=datetime.timezone.utc)
        return 86_400_000 < (moment - _EPOCH) // _MILLISECOND <= TIME_MS_MAX - 86_400_000
    return 0 < (moment - _EPOCH) // _MILLISECOND <= TIME_MS_MAX


def _is_date(text: str) -> bool:
    try:
        return _date(_encode(text)).year >= 1900
    except msgspec.ValidationError:
        return False

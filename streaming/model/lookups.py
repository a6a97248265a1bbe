"""Columns of features → ids of one field (see `encoder`)."""

from __future__ import annotations

import datetime
import zoneinfo
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from streaming.errors import ArtifactMismatch
from streaming.model.fields import DAY_MS, HOUR_MS, NULL_ID, RARE_ID, SEED, Binned, canonical, value_id

__all__ = ["UTC8", "AsItComes", "BinLookup", "Clock", "Columns", "Ids", "ValueLookup", "is_time", "plain_values"]

Ids: TypeAlias = NDArray[np.int64]

UTC8 = "Asia/Shanghai"
"""Taken as UTC+8 at all times, as OpenMLDB takes its own clock."""

QUARTER_MS = HOUR_MS // 4  # every zone's clock is moved at a quarter of an hour
QUARTERS_MAX = 1 << 16  # whose distance to UTC is remembered
FEW_ROWS = 128  # a column of so many is not dictionary-encoded
CACHE_VALUES_MAX = 1 << 20  # of values per field; then it starts anew
# A day after the first year begins, and one before the year 9999 ends: what `datetime` has in any zone.
FIRST_S, LAST_S = -62_135_596_800 + 86_400, 253_402_300_799 - 86_400


class Columns:
    """The columns of one call; the distinct values of a column are found once, whoever reads it."""

    def __init__(self, features: pa.Table) -> None:
        self._features = features
        self._distinct: dict[tuple[str, bool], tuple[list[Any], NDArray[np.int32] | None]] = {}
        self._times: dict[str, tuple[Ids, NDArray[np.bool_] | None]] = {}

    def column(self, name: str, is_type: Callable[[pa.DataType], bool], wanted: str) -> pa.Array:
        at = self._features.schema.get_field_index(name)
        if at < 0:
            raise ArtifactMismatch(f"the encoder needs column {name}, the features do not have it")
        column = self._features.column(at)
        if wanted and not is_type(column.type):
            raise ArtifactMismatch(f"column {name}: the encoder needs {wanted}, the features have {column.type}")
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def distinct(self, name: str, *, whole: bool) -> tuple[list[Any], NDArray[np.int32] | None]:
        """Distinct values (None among them where there are NULLs) and each row's place among them.

        Of few rows each one's value, and no places: then it is quicker not to look for equal ones.

        Args:
            whole: of integers or bools; else of texts.
        """
        key = (name, whole)
        if key not in self._distinct:
            column = self.column(name, _is_whole, "an integer") if whole else self.column(name, _is_text, "a string")
            if len(column) <= FEW_ROWS:
                self._distinct[key] = (column.to_pylist(), None)
            else:
                encoded = column.dictionary_encode(null_encoding="encode")
                values = encoded.dictionary
                # An object array on the way: of many texts it is several times faster than to_pylist.
                found = values.to_pylist() if whole else values.to_numpy(zero_copy_only=False).tolist()
                self._distinct[key] = (found, encoded.indices.to_numpy())
        return self._distinct[key]

    def is_date(self, name: str) -> bool:
        """Whether a column's values are days, which no zone moves."""
        return bool(pa.types.is_date32(self._features.schema.field(name).type))

    def numbers(self, name: str, of: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Values, and which of them are NULL (None: none is). What stands in the place of a NULL means nothing."""
        if of == "integer":
            column = self.column(name, _is_whole, "an integer")
            column = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        elif of == "real":
            column = self.column(name, _is_number, "a real number")
            column = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        else:
            if name not in self._times:
                column = self.column(name, is_time, "a timestamp")
                self._times[name] = _values(_epoch_ms(column))
            return self._times[name]
        return _values(column)


def plain_values(rows: pa.RecordBatch, place: int, *, is_time: bool) -> list[Any]:
    """A column of few rows as Python's values: timestamps and dates as epoch milliseconds."""
    column = rows.column(place)
    values: list[Any] = (_epoch_ms(column) if is_time else column).to_pylist()
    return values


def _values(column: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    if not column.null_count:
        return column.to_numpy(), None
    return pc.fill_null(column, 0).to_numpy(), column.is_null().to_numpy(zero_copy_only=False)


def _epoch_ms(column: pa.Array) -> pa.Array:
    if pa.types.is_date32(column.type):
        return pc.multiply(column.cast(pa.int32()).cast(pa.int64()), DAY_MS)
    return (column if column.type.unit == "ms" else column.cast(pa.timestamp("ms"), safe=False)).view(pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return _is_whole(kind) or bool(pa.types.is_floating(kind))


def is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


class Clock:
    """Local time of a zone."""

    def __init__(self, zone: str) -> None:
        try:
            self._zone = zoneinfo.ZoneInfo(zone) if zone != UTC8 else None
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ArtifactMismatch(f"encoder: unknown time zone {zone!r}") from None
        self._offsets: dict[int, int] = {}  # quarter of an hour since 1970 → local time minus UTC, ms

    def local(self, epoch_ms: Ids) -> Ids:
        """What the zone's clocks show, as ms since they showed the beginning of 1970."""
        if self._zone is None:
            return epoch_ms + 8 * HOUR_MS
        quarters, at = np.unique(epoch_ms // QUARTER_MS, return_inverse=True)
        if len(self._offsets) > QUARTERS_MAX:
            self._offsets.clear()
        offsets = np.array([self._offset(quarter) for quarter in quarters.tolist()], np.int64)
        return epoch_ms + offsets[at]

    def local_one(self, epoch_ms: int) -> int:
        """`local` of one moment."""
        if self._zone is None:
            return epoch_ms + 8 * HOUR_MS
        return epoch_ms + self._offset(epoch_ms // QUARTER_MS)

    def _offset(self, quarter: int) -> int:
        known = self._offsets.get(quarter)
        if known is None:
            moment = max(FIRST_S, min(quarter * QUARTER_MS // 1000, LAST_S))  # beyond, as at the end
            found = datetime.datetime.fromtimestamp(moment, self._zone).utcoffset() or datetime.timedelta()
            known = self._offsets[quarter] = round(found.total_seconds() * 1000)
        return known


class ValueLookup:
    """Ids of a column's values: a hash per new distinct one, a dictionary look-up per known one."""

    def __init__(self, column: str, spell: Callable[[Any], bytes], known: Ids | None, *, whole: bool) -> None:
        self._column = column
        self._spell = spell
        self._known = known
        self._whole = whole
        self._cache: dict[Any, int] = {None: NULL_ID}

    def __call__(self, columns: Columns) -> Ids:
        values, rows = columns.distinct(self._column, whole=self._whole)
        ids = np.array(self._ids(values), np.int64)
        return ids if rows is None else ids[rows]

    def few(self, rows: Mapping[str, Sequence[Any]]) -> list[int]:
        """The same of few rows: by column their `plain_values`."""
        return self._ids(rows[self._column])

    def _ids(self, values: Sequence[Any]) -> list[int]:
        new = [value for value in values if value not in self._cache]  # NULL is in it from the start
        if new:
            if len(self._cache) + len(new) > CACHE_VALUES_MAX:
                # Anew with all of this call's values: the ones known before are needed now too.
                self._cache = {None: NULL_ID}
                new = [value for value in values if value is not None]
            self._learn(new)
        cache = self._cache
        return [cache[value] for value in values]

    def _learn(self, values: list[Any]) -> None:
        digest, spell = xxhash.xxh64_intdigest, self._spell
        ids = np.array([digest(spell(value), SEED) for value in values], np.uint64).view(np.int64)
        if self._known is not None:
            at = np.searchsorted(self._known, ids)
            at[at == len(self._known)] = 0
            kept = (self._known[at] == ids) | (ids == NULL_ID) if len(self._known) else ids == NULL_ID
            ids = np.where(kept, ids, RARE_ID)
        self._cache.update(zip(values, ids.tolist(), strict=True))


class BinLookup:
    """Ids of a number: a binary search over the bins, whose ids are known beforehand."""

    def __init__(self, field: Binned, clock: Clock) -> None:
        self._field = field
        self._clock = clock
        whole = field.of in {"integer", "hour", "weekday"}
        # Reals are compared as floats, so that a float and a double of one value share a bin.
        self._inner = np.array(field.starts[1:], np.int64 if whole else np.float32)
        self._ids = np.array(
            [value_id(canonical(int(start) if whole else start)) for start in field.starts] + [NULL_ID], np.int64
        )
        self._plain_inner, self._plain_ids = self._inner.tolist(), self._ids.tolist()
        self._is_date = False

    def __call__(self, columns: Columns) -> Ids:
        field = self._field
        values, missing = columns.numbers(field.column, field.of)
        if field.of == "hour":
            values = self._clock.local(values) // HOUR_MS % 24
        elif field.of == "weekday":
            local = values if columns.is_date(field.column) else self._clock.local(values)
            values = (local // DAY_MS + 4) % 7 + 1  # 1970 began on a Thursday
        elif field.of == "days_since":
            event, event_missing = columns.numbers(field.event_time, field.of)
            values = ((event - values) / DAY_MS).astype(np.float32)
            if event_missing is not None:
                missing = event_missing if missing is None else missing | event_missing
        elif field.of == "real":
            with np.errstate(over="ignore"):  # beyond a float: infinite
                values = values.astype(np.float32, copy=False)
            unknown = np.isnan(values)
            if unknown.any():
                missing = unknown if missing is None else missing | unknown
        bins = np.searchsorted(self._inner, values, side="right")
        if missing is not None:
            bins[missing] = len(self._ids) - 1
        return self._ids[bins]

    def few(self, rows: Mapping[str, Sequence[Any]]) -> list[int]:
        """The same of few rows: by column their `plain_values`; numpy is to ignore overflows."""
        field, ids, inner, local = self._field, self._plain_ids, self._plain_inner, self._clock.local_one
        values: Sequence[Any] = rows[field.column]
        if field.of == "hour":
            values = [None if value is None else local(value) // HOUR_MS % 24 for value in values]
        elif field.of == "weekday":
            days = [None if value is None else (value if self._is_date else local(value)) // DAY_MS for value in values]
            values = [None if day is None else (day + 4) % 7 + 1 for day in days]
        elif field.of == "days_since":
            pairs = zip(values, rows[field.event_time], strict=True)
            values = [None if a is None or b is None else float(np.float32((b - a) / DAY_MS)) for a, b in pairs]
        elif field.of == "real":
            values = [None if value is None else _single(value) for value in values]
        return [ids[-1] if value is None else ids[bisect_right(inner, value)] for value in values]

    def knows(self, columns: Columns) -> None:
        """The columns have been looked at: they are as this field needs them."""
        self._is_date = columns.is_date(self._field.column)


def _single(value: float) -> float | None:
    """As a float of 32 bits, an integer rounded once, as an array of them is; None: NaN, which is like NULL."""
    single = np.float32(np.int64(value) if isinstance(value, int) else value)
    return None if np.isnan(single) else float(single)


class AsItComes:
    """Ids of any column, each distinct value hashed."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, columns: Columns) -> Ids:
        column = columns.column(self._column, bool, "")
        if pa.types.is_timestamp(column.type):
            column = _epoch_ms(column)
        elif pa.types.is_date32(column.type):
            column = column.cast(pa.int32())
        encoded = column.dictionary_encode(null_encoding="encode")
        distinct = np.array([value_id(canonical(value)) for value in encoded.dictionary.to_pylist()], np.int64)
        ids: Ids = distinct[encoded.indices.to_numpy()]
        return ids

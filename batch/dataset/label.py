"""Labels, 0 or 1, as [label] of app.toml says: a column of the features, a row of another table, or a later event.

A later event: a row of a table, of the request's key, for which a condition holds, strictly later than the request and
within a horizon, both bounds to the millisecond: `request < event <= request + horizon`. An event that is the request's
own cause does not count.

Above 0 is 1. A label that is a number to be predicted is not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.features.data_layout import BadData
from batch.features.history import table_rows
from streaming.app.folder import App
from streaming.app.later_event import LaterRows, follows
from streaming.app.settings import JoinedLabel, LaterEvent
from streaming.errors import BadInput

__all__ = ["binary", "epoch_ms", "events_of", "joined", "later_event"]


def events_of(app: App, later: LaterEvent, data: Path) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The rows of a later event's table, its key and time; and of which the condition is true, bool [n].

    Raises:
        BadData: the data has no such table, or a file of it cannot be used.
    """
    rule = LaterRows(app, later)
    rows: list[pa.Table] = []
    true: list[NDArray[np.bool_]] = []
    for piece in table_rows(app, data, later.table, rule.columns):
        true.append(rule.true(piece))
        rows.append(piece.select([*later.key, *({later.time} - later.key.keys())]))
    return pa.concat_tables(rows), np.concatenate([np.empty(0, bool), *true])


def later_event(
    keys: Sequence[pa.ChunkedArray],
    time_ms: NDArray[np.int64],
    event_keys: Sequence[pa.ChunkedArray],
    event_ms: NDArray[np.int64],
    horizon: int,
) -> NDArray[np.int8]:
    """The label of each request, int8 [n]; NULL in a key matches nothing.

    Args:
        keys: of the requests, column by column.
        time_ms: of the requests, epoch ms.
        event_keys: of the events, the columns that must equal those of `keys`.
        event_ms: of the events, epoch ms.
        horizon: in ms.
    """
    codes = _codes([_together(*both) for both in zip(keys, event_keys, strict=True)])
    return follows(codes[: len(time_ms)], time_ms, codes[len(time_ms) :], event_ms, horizon)


def joined(app: App, label: JoinedLabel, keys: Sequence[pa.ChunkedArray], data: Path) -> pa.ChunkedArray:
    """The label column of each request's row of the label's table; of several the last, NULL where there is none.

    Args:
        keys: of the requests, in the order of the label's key.

    Raises:
        BadData: the data has no such table, or a file of it cannot be used.
    """
    rows = pa.concat_tables(table_rows(app, data, label.table, [*dict.fromkeys([*label.key, label.column])]))
    count = len(keys[0])
    codes = _codes([_together(key, rows[name]) for key, name in zip(keys, label.key, strict=True)])
    found, first_from_behind = np.unique(codes[count:][::-1], return_index=True)
    last = rows.num_rows - 1 - first_from_behind
    if not len(found):
        return pa.chunked_array([pa.nulls(count, rows.schema.field(label.column).type)])
    at = np.minimum(np.searchsorted(found, codes[:count]), len(found) - 1)
    missing = found[at] != codes[:count]
    return rows[label.column].take(pa.array(last[at], mask=missing))


def binary(values: pa.ChunkedArray, what: str) -> tuple[NDArray[np.int8], NDArray[np.bool_], int]:
    """Labels of numbers: (label int8 [n], known bool [n], how many are whole numbers above 1). NULL: no label.

    Args:
        what: whose values these are, for messages.

    Raises:
        BadData: one is negative, no whole number, or NaN.
    """
    known: NDArray[np.bool_] = pc.is_valid(values).to_numpy()
    numbers = pc.fill_null(values, False if pa.types.is_boolean(values.type) else 0).to_numpy().astype(np.float64)
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers == np.floor(numbers))))
    if len(wrong):
        raise BadData(
            f"{what} is {values[int(wrong[0])].as_py()} in row {wrong[0]} of the features: a label is 0 or 1 (a whole "
            "number above 0 counts as 1); a number to be predicted is not supported"
        )
    return (numbers > 0).astype(np.int8), known, int((numbers > 1).sum())


def epoch_ms(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times as epoch ms, int64 [n].

    Raises:
        BadInput: one is NULL.
    """
    if times.null_count:
        row = int(np.flatnonzero(pc.is_null(times).to_numpy())[0])
        raise BadInput(f"row {row}: no time, so no label")
    if pa.types.is_timestamp(times.type):
        times = pc.cast(times, pa.timestamp("ms"), safe=False)
    ms: NDArray[np.int64] = pc.cast(times, pa.int64()).to_numpy()
    return ms


def _together(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([*one.chunks, *other.cast(one.type).chunks], one.type)


def _codes(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """A number per distinct row of columns; a row with NULL in it matches none, so each gets a number of its own."""
    codes: NDArray[np.int64] = np.zeros(len(columns[0]), np.int64)
    missing = np.zeros(len(codes), bool)
    for column in columns:
        missing |= pc.is_null(column).to_numpy()
        encoded = pa.concat_arrays(column.chunks).dictionary_encode()
        values = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = np.unique(codes * (len(encoded.dictionary) + 1) + values, return_inverse=True)[1].astype(np.int64)
    codes[missing] = -1 - np.flatnonzero(missing)
    return codes

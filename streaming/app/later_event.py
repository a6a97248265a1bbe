"""[label.later_event] of app.toml, computed: which rows are such events, and which requests one of them follows.

The one rule of batch labels and of those that the board sees come: a row of the table, of the request's key, for which
the condition is true, with `request < row <= request + horizon`, both bounds to the millisecond.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streaming.app.folder import App
from streaming.app.settings import LaterEvent, horizon_ms
from streaming.app.wrong import AppFile
from streaming.engine.projection import Projection
from streaming.engine.sql.parse import parse_select
from streaming.errors import BadInput

__all__ = ["NEVER", "LaterRows", "follows", "horizon_of", "next_event"]

NEVER = np.iinfo(np.int64).min
"""Instead of a time: no event follows."""


def horizon_of(app: App) -> int:
    """How long after a request an event still makes its label, in milliseconds; 0: the label is no later event."""
    later = app.settings.label.later_event
    return 0 if later is None else horizon_ms(later, AppFile(app.folder / "app.toml", app.sources["app.toml"]))


class LaterRows:
    """Tells which rows of a later event's table are such events; not for several threads at once.

    Args:
        app: the application.
        later: its label.

    Attributes:
        columns: what it reads of a row: the condition's columns, key and time, in the table's order.
    """

    def __init__(self, app: App, later: LaterEvent) -> None:
        every = app.tables.columns[later.table]
        script = f"SELECT {later.condition} FROM {later.table}"
        condition = [parse_select(script).items[0].expr]
        read = Projection(later.table, every, condition, script).expressions[0].columns
        wanted = [column for column in every if column.name in {*read, *later.key, later.time}]
        self.columns = tuple(column.name for column in wanted)
        self._projection = Projection(later.table, wanted, condition, script)

    def true(self, rows: pa.Table) -> NDArray[np.bool_]:
        """For which rows the condition is true, neither false nor NULL: bool [n].

        Args:
            rows: `columns` and maybe others.
        """
        flags: list[NDArray[np.bool_]] = [np.empty(0, bool)]
        for batch in rows.select(self.columns).to_batches():
            (values,) = self._projection(batch)
            flags.append(_flags(values, batch.num_rows))
        return np.concatenate(flags)


def next_event(
    request_key: NDArray[np.int64],
    request_ms: NDArray[np.int64],
    event_key: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    horizon_ms: int,
) -> NDArray[np.int64]:
    """The time of the first event of each request's key in (request, request + horizon], epoch ms; else `NEVER`.

    Keys are any integers; times are epoch ms. One sort of the events, one binary search per request.

    Raises:
        BadInput: the times span more than can be real.
    """
    found_ms = np.full(len(request_key), NEVER, np.int64)
    if not len(event_key):
        return found_ms
    by_key_and_time = np.lexsort([event_ms, event_key])
    event_key, event_ms = event_key[by_key_and_time], event_ms[by_key_and_time]
    # The keys' numbers are made dense and put in front of the time, so that one sorted array of int64 is searched.
    keys, event_dense = np.unique(event_key, return_inverse=True)
    dense = np.searchsorted(keys, request_key)
    known = np.flatnonzero((dense < len(keys)) & (keys[np.minimum(dense, len(keys) - 1)] == request_key))
    if not len(known):
        return found_ms
    origin = min(int(event_ms.min()), int(request_ms[known].min()))
    span = max(int(event_ms.max()), int(request_ms[known].max())) - origin + 1
    if span * len(keys) >= 1 << 62:
        raise BadInput(f"times span {span} ms over {len(keys)} keys: too far apart to be real")
    sorted_events = event_dense * span + (event_ms - origin)
    after = np.searchsorted(sorted_events, dense[known] * span + (request_ms[known] - origin), side="right")
    at = np.minimum(after, len(sorted_events) - 1)
    found = (after < len(sorted_events)) & (event_dense[at] == dense[known])
    found &= event_ms[at] - request_ms[known] <= horizon_ms
    found_ms[known[found]] = event_ms[at[found]]
    return found_ms


def follows(
    request_key: NDArray[np.int64],
    request_ms: NDArray[np.int64],
    event_key: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    horizon_ms: int,
) -> NDArray[np.int8]:
    """1 where an event follows a request, else 0: int8 [n]; see `next_event`."""
    found = next_event(request_key, request_ms, event_key, event_ms, horizon_ms) != NEVER
    label: NDArray[np.int8] = found.astype(np.int8)
    return label


def _flags(values: pa.Array | pa.Scalar, count: int) -> NDArray[np.bool_]:
    """Which are true: neither false nor NULL."""
    if isinstance(values, pa.Scalar):
        return np.full(count, values.as_py() is True)
    flags: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return flags

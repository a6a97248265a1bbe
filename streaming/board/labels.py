"""How the labels of an application's scores are found on Kafka: in which topics, and of which requests they are.

A label by a later event is one where a stream fills the event's table. Its key and the request's time are columns of
the main table; a score tells them itself, or tells all that events.sql makes them of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.app.folder import App, names_in
from streaming.app.later_event import LaterRows, horizon_of
from streaming.app.settings import LaterEvent
from streaming.app.streams import Insert, Stream
from streaming.app.topics import TopicNames
from streaming.board.fields import ScoreFields
from streaming.engine.projection import Projection
from streaming.engine.sql import syntax
from streaming.engine.types import ARROW, Type, is_integer

__all__ = ["NO_KEY", "Labels", "NoLabels", "ScoreKeys", "find_labels"]

NO_KEY = -1
"""Of a score or an event whose key has NULL in it: it matches nothing."""

_KEYS = frozenset({Type.STRING, Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT, Type.TIMESTAMP})

Int64 = npt.NDArray[np.int64]


class NoLabels(Exception):
    """No labels can be followed; the message says why, in a few words."""


class ScoreKeys:
    """Scores → the keys by which their labels are found, as numbers. One thread at a time.

    Nothing is remembered: a pair's number lies beside its last score (`streaming.board.pairs`).

    Args:
        fields: of a score, whose values are given.
        columns: of the stream, which the values are of; empty: the values are the key itself.
        stream: that makes the key of its columns.
        expressions: of the key's columns.
        script: events.sql.
    """

    def __init__(
        self,
        fields: Sequence[str],
        columns: Sequence[str] = (),
        stream: Stream | None = None,
        expressions: Sequence[syntax.Expr] = (),
        script: str = "",
    ) -> None:
        self.fields = tuple(fields)
        self._columns = tuple(columns)
        self._stream = stream
        if stream is not None:
            self._projection = Projection(stream.name, stream.table_columns, expressions, script)

    def __call__(self, values: Sequence[tuple[Any, ...]]) -> Int64:
        """The keys' numbers, int64 [n].

        Args:
            values: of each score those of `fields`, as its JSON has them.
        """
        distinct = [*dict.fromkeys(values)]
        known = dict(zip(distinct, self._codes(distinct), strict=True))
        return np.array([known[value] for value in values], np.int64)

    def _codes(self, values: Sequence[tuple[Any, ...]]) -> list[int]:
        try:
            return code_of(self._made(values))
        except (pa.ArrowException, OverflowError):  # a score of another program: the others are good
            return [NO_KEY] if len(values) == 1 else [self._codes([value])[0] for value in values]

    def _made(self, values: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
        given = [*zip(*values, strict=True)]
        if self._stream is None:
            return given
        at = {column: place for place, column in enumerate(self._columns)}
        columns = []
        for column in self._stream.table_columns:
            if column.name in at:
                plain = pa.int64() if column.type == Type.TIMESTAMP else ARROW[column.type]
                columns.append(pa.array(given[at[column.name]], plain).cast(ARROW[column.type]))
            else:
                columns.append(pa.nulls(len(values), ARROW[column.type]))
        rows = pa.RecordBatch.from_arrays(columns, names=[column.name for column in self._stream.table_columns])
        return [_plain(made) for made in self._projection(rows)]


def code_of(columns: Sequence[Sequence[Any]]) -> list[int]:
    """A number of 63 bits for each row of columns, the same for the same values; NO_KEY where one is None.

    Of a million rows two get the same number with a chance of one in ten million.
    """
    return [
        NO_KEY
        if None in row
        else int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest(), "big") >> 1
        for row in zip(*columns, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Labels:
    """Where labels come from.

    Attributes:
        later: the application's label.
        horizon_ms: how long after a request an event makes its label.
        topics: at the brokers, in which such events are.
        keys: of scores.
    """

    later: LaterEvent
    horizon_ms: int
    topics: tuple[str, ...]
    keys: ScoreKeys
    _rows: LaterRows

    def events(self, rows: Mapping[str, pa.Table]) -> tuple[Int64, Int64]:
        """Among the rows that records became those that make labels: number of the key, time (epoch ms), each [n]."""
        found = rows.get(self.later.table)
        if found is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        found = found.filter(pa.array(self._rows.true(found)))
        times = found[self.later.time]
        if pa.types.is_timestamp(times.type):
            times = times.cast(pa.timestamp("ms"), safe=False)
        codes = np.array(code_of([_plain(found[name]) for name in self.later.key]), np.int64)
        good = (codes != NO_KEY) & times.is_valid().to_numpy()
        return codes[good], times.cast(pa.int64()).fill_null(0).to_numpy()[good]


def find_labels(app: App, topics: TopicNames, fields: ScoreFields) -> Labels:
    """How the labels of an application's scores are found.

    Raises:
        NoLabels: they are not on Kafka, or a score does not say enough.
    """
    label, main = app.settings.label, app.main
    fed = {insert.table for stream in app.streams for insert in stream.inserts}
    if label.column is not None:
        origins = {origin.name: set(origin.tables) for origin in app.query.contract.origins}
        if (origins.get(label.column, set()) - {main}) & fed:
            raise NoLabels(f"the label is the query's column {label.column}, which is not followed")
    if label.joined is not None and label.joined.table in fed:
        raise NoLabels(f"the label is a joined row of {label.joined.table}, which is not followed")
    later = label.later_event
    if later is None or later.table not in fed:
        raise NoLabels("labels are not on Kafka")
    kinds = {column.name: column.type for column in app.tables.columns[later.table]}
    for column in later.key:
        if kinds[column] not in _KEYS:
            raise NoLabels(f"labels are found by {column}, a {kinds[column]}, which is not followed")
    field_of = {column: field for field, column in reversed(app.settings.scores.fields.items())}
    inserts = [(stream, insert) for stream in app.scored for insert in stream.inserts if insert.table == main]
    told = _told(*inserts[0], field_of) if len(inserts) == 1 else {}
    _check_time(app, inserts, told, field_of, fields)
    of = tuple(
        name for name, stream in topics.streams.items() if any(insert.table == later.table for insert in stream.inserts)
    )
    keys = _keys(app, later, inserts, told, field_of)
    return Labels(later, horizon_of(app), of, keys, LaterRows(app, later))


def _keys(
    app: App,
    later: LaterEvent,
    inserts: Sequence[tuple[Stream, Insert]],
    told: Mapping[str, str],
    field_of: Mapping[str, str],
) -> ScoreKeys:
    columns = [*later.key.values()]
    if all(column in field_of for column in columns):
        return ScoreKeys([field_of[column] for column in columns])
    made = dict(inserts[0][1].columns) if len(inserts) == 1 else {}
    for column in columns:
        if column not in made or not names_in(made[column]) <= told.keys():
            raise NoLabels(f"scores do not tell {column}, by which labels are found")
    read = sorted({name for column in columns for name in names_in(made[column])})
    expressions = [made[column] for column in columns]
    return ScoreKeys([told[name] for name in read], read, inserts[0][0], expressions, app.sources["events.sql"])


def _told(stream: Stream, insert: Insert, field_of: Mapping[str, str]) -> dict[str, str]:
    """The columns of a stream that a score repeats, each with its field; a timestamp is told by its milliseconds."""
    found: dict[str, str] = {}
    for column, expr in insert.columns:
        if column in field_of:
            if isinstance(expr, syntax.Cast) and expr.type == Type.BIGINT and isinstance(expr.operand, syntax.Name):
                name = expr.operand.parts[-1]
                kind = stream.column(name).type
                if kind == Type.TIMESTAMP or is_integer(kind):
                    found.setdefault(name, field_of[column])
            elif isinstance(expr, syntax.Name):
                found.setdefault(expr.parts[-1], field_of[column])
    return {name: field for name, field in found.items() if stream.column(name).type in _KEYS}


def _check_time(
    app: App,
    inserts: Sequence[tuple[Stream, Insert]],
    told: Mapping[str, str],
    field_of: Mapping[str, str],
    fields: ScoreFields,
) -> None:
    """Whether the time of a score is the request's, from which its horizon counts.

    Raises:
        NoLabels: it is not.
    """
    time = app.request_time
    if time is not None and fields.time is not None:
        if field_of.get(time) == fields.time:
            return
        made = dict(inserts[0][1].columns).get(time) if len(inserts) == 1 else None
        if isinstance(made, syntax.Name) and told.get(made.parts[-1]) == fields.time:
            return
    raise NoLabels("scores do not tell the request's time, from which labels count")


def _plain(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    numbers = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
    plain: list[Any] = numbers.to_pylist()
    return plain

"""What dimension tables say of users and items: the newest row of each key, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa
import structlog

from streaming.board.fields import Join, ScoreFields
from streaming.board.pairs import Pairs
from streaming.board.rows import Key
from streaming.events.batch import EventBatch

__all__ = ["KEYS_MAX", "Attributes"]

KEYS_MAX = 1_000_000
"""Of a table: of keys beyond that nothing is said, nor are they filtered by."""

_log = structlog.stdlib.get_logger("streaming.board.attributes")


class Attributes:
    """The rows. One thread takes them, any may ask.

    Args:
        fields: of a score, with the tables that say more of them.
        first: columns to be shown first, in their order.
    """

    def __init__(self, fields: ScoreFields, first: Collection[str] = ()) -> None:
        self.joins = fields.joins
        self._at = {field: place for place, field in enumerate(fields.pair)}
        columns = [(join, at, column) for join in fields.joins for at, column in enumerate(join.columns)]
        every = [*self._at, *(column for *_, column in columns)]
        order = {column: place for place, column in enumerate(first)}
        columns.sort(key=lambda found: order.get(found[2], len(order)))
        self._columns = {
            f"{join.table}.{column}" if every.count(column) > 1 else column: (join, at) for join, at, column in columns
        }
        self._rows: dict[str, dict[Any, tuple[str | None, ...]]] = {join.table: {} for join in fields.joins}
        self._texts: dict[str, str] = {}  # each once: there are few of them, in many rows
        self._lock = threading.Lock()
        self._changed, self._full = False, set[str]()

    def names(self) -> tuple[str, ...]:
        """The columns by the names that people see: their own, or with the table's where two have one."""
        return tuple(self._columns)

    def take(self, table: str, rows: pa.Table) -> None:
        """Takes rows of a table, in their order."""
        for join in self.joins:
            if join.table == table:
                keys = rows.column(join.key).to_pylist()
                columns = [self._plain(rows.column(name)) for name in join.columns]
                with self._lock:
                    known = self._rows[table]
                    for key, row in zip(keys, zip(*columns, strict=True), strict=True):
                        if key in known or len(known) < KEYS_MAX:
                            known[key] = row
                        elif table not in self._full:
                            self._full.add(table)
                            _log.warning("more keys than are kept", table=table, kept=KEYS_MAX)
                    self._changed = True

    def take_events(self, events: EventBatch) -> None:
        """Takes the rows that records of dimension topics became; what they delete is forgotten."""
        for table, rows in events.rows.items():
            self.take(table, rows)
        for _, columns, key in events.deletes:
            with self._lock:
                for table in columns.keys() & self._rows.keys():
                    self._rows[table].pop(key, None)
                    self._changed = True

    def of(self, key: Key) -> dict[str, str]:
        """What is known of a pair, by the columns' names."""
        found = {}
        for name, (join, at) in self._columns.items():
            row = self._rows[join.table].get(key[self._at[join.field]])
            if row is not None and row[at] is not None:
                found[name] = str(row[at])
        return found

    def declare(self, pairs: Pairs) -> None:
        """Makes each column a filter of pairs; does nothing where no row has come since the last time."""
        with self._lock:
            changed, self._changed = self._changed, False
        if changed:
            for name, (join, at) in self._columns.items():
                pairs.declare(name, self._value_of(join, at))

    def _value_of(self, join: Join, at: int) -> Callable[[Key], str | None]:
        rows, place = self._rows[join.table], self._at[join.field]

        def value_of(key: Key) -> str | None:
            row = rows.get(key[place])
            return None if row is None else row[at]

        return value_of

    def _plain(self, column: pa.ChunkedArray) -> list[str | None]:
        return [None if value is None else self._text(value) for value in column.to_pylist()]

    def _text(self, value: Any) -> str:
        text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
        return self._texts.setdefault(text, text) if len(self._texts) < KEYS_MAX else text

"""The feature store in this process: the embedded engine, and the requests that it has seen.

Its state is a function of history and the input topics: it is rebuilt from them, and rolled back with an aborted
transaction.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from streaming.app.folder import App
from streaming.app.history import history_tables
from streaming.app.scripts import deploy_script, tables_script
from streaming.engine import Engine
from streaming.engine import Mark as EngineMark
from streaming.engine.storage.snapshot import Capture, Piece
from streaming.engine.types import ARROW, Type
from streaming.errors import ConfigError
from streaming.events.batch import EventBatch
from streaming.store.dedup import ENTRY_BYTES, REQUEST_IDS, SCHEMA, Partition, SeenRequests

__all__ = ["EmbeddedStore", "Moment", "StateCapture"]

_log = structlog.stdlib.get_logger("streaming.store.embedded")


@dataclass(frozen=True, eq=False)
class Moment:
    """A moment of the embedded state: its rows, and how many request ids each partition had accepted."""

    rows: EngineMark
    ids: Mapping[Partition, int]


class StateCapture:
    """What the embedded state held at a moment, bit by bit: see `streaming.engine.storage.snapshot.Capture`."""

    def __init__(self, rows: Capture, ids: Iterator[Piece] | None) -> None:
        self._rows, self._ids = rows, ids

    def schemas(self) -> dict[str, pa.Schema]:
        """The columns of each part."""
        return self._rows.schemas() | ({} if self._ids is None else {REQUEST_IDS: SCHEMA})

    def pieces(self) -> Iterator[tuple[str, Piece]]:
        """Strings, tables, request ids."""
        yield from self._rows.pieces()
        for piece in self._ids or ():
            yield REQUEST_IDS, piece

    def close(self) -> None:
        """Lets the engine free again."""
        self._rows.close()


class EmbeddedStore:
    """The embedded engine as a `FeatureStore` and a `BatchStore`.

    Args:
        app: whose tables and query they are.
        history: folder of files from before the topics begin, see `streaming.app.history`; "": none.
        horizon_ms: of `dedup`; 0: what repeats a request is a request of its own.

    Attributes:
        before_delete: called before rows are deleted while a capture is open: it must be closed then.
    """

    def __init__(self, app: App, history: str = "", horizon_ms: int = 0) -> None:
        self._app, self._history = app, history
        self._seen = SeenRequests(horizon_ms) if horizon_ms else None
        self._deployment = app.settings.deployment.name
        self._names = {table: f"{app.tables.database}.{table}".lstrip(".") for table in app.tables.columns}
        self._engine = Engine()
        self.before_delete: Callable[[], None] = lambda: None
        self._empty: EngineMark | None = None
        self._base: EngineMark | None = None  # with history and nothing else

    @property
    def engine(self) -> Engine:
        """The engine itself, for a server in front of it."""
        return self._engine

    def load(self) -> None:
        """See `FeatureStore.load`.

        Raises:
            ConfigError: a history file is missing or wrong.
        """
        self.define()
        self.load_history()

    def define(self) -> None:
        """Makes the tables and deploys the query: the first half of `load`."""
        self._engine.execute(tables_script(self._app))
        self._engine.execute(deploy_script(self._app))
        if self._history and not Path(self._history).is_dir():
            raise ConfigError(f"store.history: {self._history} is not a folder")
        self._empty = self._engine.mark()
        self._warm_up()

    def load_history(self) -> None:
        """The second half of `load`; left out where the rows come from a snapshot."""
        if self._history:
            there = {source.table: source for source in history_tables(self._app, Path(self._history), partial=True)}
            for table, name in self._names.items():
                if table not in there:
                    _log.info("history has no file of this table", table=table)
                    continue
                try:
                    self._engine.execute(there[table].load_data(name))
                except (ValueError, OSError, pa.ArrowException) as error:
                    raise ConfigError(f"store.history: {error}") from error
        self._base = self._engine.mark()

    def clear(self) -> None:
        """Forgets every row, history too."""
        self._back_to(self._empty)
        self._base = None

    def capture(self, mark: Moment) -> StateCapture:
        """What was there at a mark; see `streaming.engine.storage.snapshot`."""
        ids = None if self._seen is None else self._seen.capture(mark.ids)
        return StateCapture(self._engine.capture(mark.rows), ids)

    def restore_all(self, batches: Iterable[tuple[str, pa.RecordBatch]]) -> None:
        """Fills the tables, which must be empty, with what a capture gave; history is in it.

        Raises:
            BadRow: it is of other tables. What was inserted before stays: `clear`.
        """
        restore = self._engine.restore()
        for part, batch in batches:
            if part == REQUEST_IDS and self._seen is not None:
                self._seen.restore(batch)
            else:
                restore.add(part, batch)
        restore.finish()

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        return events if self._seen is None else self._seen.drop_repeats(events)

    def answer(self, events: EventBatch) -> pa.Table:
        if events.deletes:
            answers = [self._part(part) for part in events.parts()]
            return pa.concat_tables([answer for answer in answers if answer is not None])
        # Event p inserts its rows at 3p, asks at 3p + 1, and its request is itself inserted at 3p + 2.
        main = self._app.main
        requests, asked = events.rows[main], 3 * events.events_of[main]
        inserts = {self._names[table]: rows for table, rows in events.rows.items()}
        insert_at = {self._names[table]: 3 * of + 2 * (table == main) for table, of in events.events_of.items()}
        return self._engine.replay(self._deployment, requests, inserts, asked + 1, insert_at)

    def restore(self, events: EventBatch) -> None:
        if events.deletes:
            for part in events.parts():
                self._part(part, asks=False)
            return
        for table, rows in events.rows.items():
            self._engine.insert(self._names[table], rows)

    def _part(self, events: EventBatch, *, asks: bool = True) -> pa.Table | None:
        """Events that delete, or others: the answers to those that ask."""
        if events.deletes:
            if self._engine.captures:
                self.before_delete()
            for _, columns, key in events.deletes:
                for table, column in columns.items():
                    self._engine.delete(self._names[table], column, [key])
        elif asks and self._app.main in events.rows:
            return self.answer(events)
        else:
            self.restore(events)
        return None

    def request(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
        """Answers request rows without inserting anything, for `jd-intent-score serve`."""
        return self._engine.request(self._deployment, rows)

    def request_schema(self) -> pa.Schema:
        """The columns of a request."""
        return self._engine.request_schema(self._deployment)

    def mark(self) -> Moment:
        """The state as it is now, for `rollback`."""
        return Moment(self._engine.mark(), {} if self._seen is None else self._seen.mark())

    def rollback(self, mark: Moment) -> None:
        """Forgets every row that came after `mark`."""
        self._engine.rollback(mark.rows)
        if self._seen is not None:
            self._seen.rollback(mark.ids)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """See `BatchStore.attempt`."""
        mark = self.mark()
        try:
            yield
        except ValueError:
            self.rollback(mark)
            raise

    def reset(self) -> None:
        """Forgets every row but history."""
        if self._base is not None:
            self._back_to(self._base)
        else:  # the rows came from a snapshot
            self.clear()
            self.load_history()

    def reload(self) -> None:
        """Forgets every row and reads the history folder again: it may hold more by now."""
        self.clear()
        self.load_history()

    def schema(self) -> pa.Schema:
        return self._engine.schema(self._deployment)

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        stats = {**self._engine.stats(), "strings": self._engine.strings()}
        sizes = {table: (of.rows, of.bytes) for table, of in stats.items()}
        return sizes if self._seen is None else {**sizes, REQUEST_IDS: (len(self._seen), ENTRY_BYTES * len(self._seen))}

    def close(self) -> None:
        """Nothing: the tables go with the process."""

    def _back_to(self, mark: EngineMark | None) -> None:
        """Forgets every row behind a mark that is older than the first event."""
        if mark is None:
            raise RuntimeError("the tables are not made yet")
        self._engine.rollback(mark)
        if self._seen is not None:
            self._seen.clear()

    def _warm_up(self) -> None:
        """Compiles the engine's kernels before the first event has to wait for them."""
        requests = _two_rows(self._app)
        self._engine.replay(
            self._deployment,
            requests,
            {self._names[self._app.main]: requests},
            [1, 4],
            {self._names[self._app.main]: [2, 5]},
        )
        self._back_to(self._empty)


def _two_rows(app: App) -> pa.Table:
    """Two requests: nothing, empty texts and the first moment."""
    required = {column.name for column in app.required(app.main)}
    columns = [
        pa.nulls(2, field.type) if field.name not in required else pa.repeat(_NOTHING[field.type], 2)
        for field in app.query.requests
    ]
    return pa.Table.from_arrays(columns, schema=app.query.requests)


_NOTHING = {
    kind: pa.scalar("", kind) if pa.types.is_string(kind) else pa.scalar(1, pa.int64()).cast(kind)
    for kind in (ARROW[name] for name in Type if name is not Type.NULL)
    if not pa.types.is_date(kind)
} | {ARROW[Type.DATE]: pa.scalar(datetime.date(1970, 1, 1))}

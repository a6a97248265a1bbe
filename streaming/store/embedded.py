"""The feature store in this process: the embedded engine, and the requests that it has seen.

Its state is a function of history and the input topics: it is rebuilt from them, and rolled back with an aborted
transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import structlog

from streaming.config import Store
from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine import Mark as EngineMark
from streaming.engine.storage.snapshot import Capture, Piece
from streaming.errors import ConfigError
from streaming.events.decode import Action, Actions, Record, action_columns
from streaming.store.dedup import ENTRY_BYTES, REQUEST_IDS, SCHEMA, SeenRequests
from streaming.store.history_files import present
from streaming.store.protocol import ACTIONS, REQUESTS
from streaming.store.sql_scripts import read_script, within

__all__ = ["EmbeddedStore", "Moment", "StateCapture"]

_log = structlog.stdlib.get_logger("streaming.store.embedded")


@dataclass(frozen=True, eq=False)
class Moment:
    """A moment of the embedded state: its rows, and how many request ids each partition had accepted."""

    rows: EngineMark
    ids: Mapping[int, int]


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
        settings: table `[store]` of the configuration. `sql` holds create_tables.sql, deploy.sql with features.sql, and
            load_online.sql; paths in the scripts that begin with `history_prefix` are read from `history`.
        horizon_ms: of `dedup`; 0: what repeats a request is a request of its own.
    """

    def __init__(self, settings: Store, horizon_ms: int = 0) -> None:
        self._settings = settings
        self._seen = SeenRequests(horizon_ms) if horizon_ms else None
        self._deployment = settings.deployment
        self._database = settings.database
        self._engine = Engine(paths={settings.history_prefix: settings.history} if settings.history else {})
        self._empty: EngineMark | None = None
        self._base: EngineMark | None = None  # with history and nothing else

    @property
    def engine(self) -> Engine:
        """The engine itself, for a server in front of it."""
        return self._engine

    def load(self) -> None:
        """See `FeatureStore.load`.

        Raises:
            ConfigError: a script or a history file is missing or wrong.
            UnsupportedSQL: a script says what the engine cannot run; file, line and construct are named.
        """
        self.define()
        self.load_history()

    def define(self) -> None:
        """Makes the tables and deploys the query: the first half of `load`."""
        self._run("create_tables.sql")
        self._run("deploy.sql")
        try:
            self._engine.schema(self._deployment)
        except (KeyError, ValueError) as error:
            script = Path(self._settings.sql) / "deploy.sql"
            raise ConfigError(f"store.deployment: {script} does not deploy {self._deployment!r}: {error}") from error
        if self._settings.history and not Path(self._settings.history).is_dir():
            raise ConfigError(f"store.history: {self._settings.history} is not a folder")
        self._empty = self._engine.mark()
        self._warm_up()

    def load_history(self) -> None:
        """The second half of `load`; left out where the rows come from a snapshot."""
        if self._settings.history:
            self._run("load_online.sql", self._present)
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

    def drop_repeats(self, actions: Sequence[Action], records: Sequence[Record]) -> tuple[list[Action], list[Record]]:
        return (list(actions), list(records)) if self._seen is None else self._seen.drop_repeats(actions, records)

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        # Event p inserts its action at 3p, asks at 3p + 1, and is itself inserted at 3p + 2; dimension rows come first.
        position = 3 * np.arange(len(actions.times), dtype=np.int64)
        inserts = {self._table(table): rows for table, rows in dimensions.items()}
        insert_at = {table: np.full(rows.num_rows, -1, np.int64) for table, rows in inserts.items()}
        inserts |= {self._table(ACTIONS): actions.rows, self._table(REQUESTS): actions.requests}
        insert_at |= {self._table(ACTIONS): position, self._table(REQUESTS): position + 2}
        return self._engine.replay(self._deployment, actions.requests, inserts, position + 1, insert_at)

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        for table, rows in dimensions.items():
            self._engine.insert(self._table(table), rows)
        if actions is not None:
            self._engine.insert(self._table(ACTIONS), actions.rows)
            self._engine.insert(self._table(REQUESTS), actions.requests)

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

    def _table(self, name: str) -> str:
        return f"{self._database}.{name}"

    def _run(self, name: str, edit: Any = None) -> None:
        script = read_script(Path(self._settings.sql) / name, "store.sql")
        try:
            with within(script):
                self._engine.execute(edit(script.text) if edit else script.text)
        except UnsupportedSQL:
            raise
        except BadRow as error:
            raise ConfigError(str(error)) from error
        except (ValueError, OSError, pa.ArrowException) as error:
            raise ConfigError(f"{script.path}: {error}") from error

    def _present(self, script: str) -> str:
        """`script` without the LOADs of tables that history has no folder of; an empty one is an error."""
        script, left_out = present(script, {self._settings.history_prefix: self._settings.history})
        for load in left_out:
            _log.info("history has no file of this table", table=load.table[-1], path=load.path)
        return script

    def _warm_up(self) -> None:
        """Compiles the engine's kernels before the first event has to wait for them."""
        event = Action("warm-up", "warm-up", 1, "1", "", "", "")
        self.answer({}, action_columns([event, event]))
        self._back_to(self._empty)

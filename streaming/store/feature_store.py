"""The feature store: tables that take rows, and a deployment that answers requests.

`FeatureStore` is what the loop needs; `EmbeddedStore` is the embedded engine in this process, whose state is a function
of history and the input topics, and so is rebuilt from them and rolled back with an aborted transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import structlog

from streaming.config import Dedup, Store
from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine import Mark as EngineMark
from streaming.engine.storage.snapshot import Capture, Piece
from streaming.errors import ConfigError
from streaming.events.decode import Action, Actions, Record, action_columns
from streaming.store.dedup import ENTRY_BYTES, REQUEST_IDS, SCHEMA, SeenRequests
from streaming.store.history_files import present
from streaming.store.micro_batches import Places
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.rest import RestTransport
from streaming.store.openmldb.sdk import Client, connect_options
from streaming.store.sql_scripts import read_script, within

__all__ = ["EmbeddedStore", "FeatureStore", "StateCapture", "open_cluster", "open_store", "restore_singly"]

ACTIONS, REQUESTS = "bo_action", "flattenRequest"

_log = structlog.stdlib.get_logger("streaming.store.feature_store")


class FeatureStore(Protocol):
    """Tables and a deployment, as the loop uses them.

    `dimensions` are rows of bo_user, bo_product and bo_comment, by table; they are inserted before the actions.

    Attributes:
        durable: rows stay when the process goes (`streaming.store.openmldb.cluster`): the loop rolls nothing back and
            replays nothing, and an event that comes again changes nothing. Every method may raise `StoreUnavailable`
            then.
    """

    @property
    def durable(self) -> bool: ...

    def load(self) -> None:
        """Makes the tables, deploys the query, loads history. Everything after it is undone by `reset`."""

    def sift(self, actions: Sequence[Action], records: Sequence[Record]) -> tuple[list[Action], list[Record]]:
        """Those, of the records that they came in, that repeat no request; all of them where `dedup` is off.

        Those that are left count as accepted from now on: insert them, or `rollback`.
        """

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        """Inserts the rows, and answers each action's request as if it had come alone.

        Returns:
            The deployment's columns, a row per action, in order.

        Raises:
            ValueError: a row was refused (`BadRow`). What was inserted before it stays: `rollback`.
        """

    def accept(self, actions: Actions) -> None:
        """The scores of what was answered are committed. Inserts what a durable store has held back until now."""

    def waves(self, actions: Actions, lanes: Sequence[int] | None = None) -> list[Places]:
        """The events in waves of which each can be answered in one go; see `streaming.store.micro_batches.levels`."""

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        """Inserts rows that were answered already.

        Raises:
            ValueError: as `answer`.
        """

    def mark(self) -> Any:
        """The state as it is now, for `rollback`."""

    def rollback(self, mark: Any) -> None:
        """Forgets every row that came after `mark`."""

    def reset(self) -> None:
        """Forgets every row but history."""

    def reload(self) -> None:
        """Forgets every row and reads the history folder again: it may hold more by now."""

    def schema(self) -> pa.Schema:
        """The deployment's output columns."""

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Rows and bytes of each table that is held here, and of the texts that all of them share, as `strings`."""

    def close(self) -> None:
        """Gives back what it holds."""


def open_store(
    settings: Store, beat: Callable[[], None] = lambda: None, dedup: Dedup | None = None
) -> EmbeddedStore | ClusterStore:
    """The store of `store.kind`; `load` it.

    Args:
        dedup: none: off.
        beat: called at least once a second or two while a cluster is waited for.

    Raises:
        ConfigError: a setting or a script is missing or wrong.
        UnsupportedSQL: a script says what the engine cannot plan.
    """
    if settings.kind == "embedded":
        return EmbeddedStore(settings, dedup.horizon_ms if dedup else 0)
    if dedup and dedup.horizon_ms:
        kept = f"store.kind {settings.kind!r} keeps rows, but no request ids: a restart would forget them"
        raise ConfigError(f"dedup.horizon_s: {kept}; set it to 0")
    return ClusterStore(settings, open_cluster(settings, beat))


def open_cluster(settings: Store, beat: Callable[[], None] = lambda: None) -> Client | RestTransport:
    """The calls of the cluster of `store.kind`; nothing is connected yet.

    Raises:
        ConfigError: `store.kind` is "embedded", or a setting is missing or wrong.
    """
    match settings.kind:
        case "openmldb":
            return Client(connect_options(settings), settings.deployment, beat)
        case "openmldb-rest":
            return RestTransport(settings, beat)
    raise ConfigError('store.kind is "embedded", whose tables are made at every start: set "openmldb"')


def restore_singly(
    store: FeatureStore, dimensions: Mapping[str, pa.Table], actions: Sequence[Action], records: Sequence[Record]
) -> list[tuple[str, int, ValueError]]:
    """Inserts rows one by one, for a batch that the store has refused as a whole: all but those that it refuses alone.

    Args:
        actions, records: with those that repeat a request: whom they repeat may be refused.

    Returns:
        Of each refused row its table (of an action: bo_action), its number in it, and why.
    """
    refused: list[tuple[str, int, ValueError]] = []

    def insert(table: str, at: int, rows: Mapping[str, pa.Table], action: Sequence[Action]) -> None:
        mark = store.mark()
        kept, _ = store.sift(action, records[at : at + 1]) if action else ([], [])
        try:
            store.restore(rows, action_columns(kept) if kept else None)
        except ValueError as error:
            store.rollback(mark)
            refused.append((table, at, error))

    for table, rows in dimensions.items():
        for at in range(len(rows)):
            insert(table, at, {table: rows.slice(at, 1)}, ())
    for at, action in enumerate(actions):
        insert(ACTIONS, at, {}, (action,))
    return refused


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
    """The embedded engine as a `FeatureStore`.

    Args:
        settings: table `[store]` of the configuration. `sql` holds create_tables.sql, deploy.sql with features.sql, and
            load_online.sql; paths in the scripts that begin with `history_prefix` are read from `history`.
        horizon_ms: of `dedup`; 0: what repeats a request is a request of its own.
    """

    durable = False

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

    def sift(self, actions: Sequence[Action], records: Sequence[Record]) -> tuple[list[Action], list[Record]]:
        return (list(actions), list(records)) if self._seen is None else self._seen.sift(actions, records)

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        # Event p inserts its action at 3p, asks at 3p + 1, and is itself inserted at 3p + 2; dimension rows come first.
        position = 3 * np.arange(len(actions.times), dtype=np.int64)
        inserts = {self._table(table): rows for table, rows in dimensions.items()}
        insert_at = {table: np.full(rows.num_rows, -1, np.int64) for table, rows in inserts.items()}
        inserts |= {self._table(ACTIONS): actions.rows, self._table(REQUESTS): actions.requests}
        insert_at |= {self._table(ACTIONS): position, self._table(REQUESTS): position + 2}
        return self._engine.replay(self._deployment, actions.requests, inserts, position + 1, insert_at)

    def accept(self, actions: Actions) -> None:
        """Nothing: `answer` has inserted all."""

    def waves(self, actions: Actions, lanes: Sequence[int] | None = None) -> list[Places]:
        """One: `answer` keeps the order of the events by itself."""
        return [np.arange(len(actions.times), dtype=np.int64)]

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
        return Moment(self._engine.mark(), {} if self._seen is None else self._seen.mark())

    def rollback(self, mark: Moment) -> None:
        self._engine.rollback(mark.rows)
        if self._seen is not None:
            self._seen.rollback(mark.ids)

    def reset(self) -> None:
        if self._base is not None:
            self._back_to(self._base)
        else:  # the rows came from a snapshot
            self.clear()
            self.load_history()

    def reload(self) -> None:
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

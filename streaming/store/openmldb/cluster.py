"""An OpenMLDB cluster as a `FeatureStore`, whatever it is reached by (`Transport`).

Tables and deployment are there before (`jd-intent-score deploy`); rows stay when the scorer goes. A batch is cut into
micro-batches (`streaming.store.micro_batches`): the rows of one are inserted, its requests asked in as few calls as
possible.

Redelivery. Kafka hands an event out again when its transaction did not come to be, and the cluster is outside of that
transaction. Rows are inserted by INSERT OR IGNORE, so none counts twice; and an event's request row, which the
deployment counts by itself while it is asked, enters its table only after the transaction (`accept`). So a redelivered
event finds the state that it found before, and gets the same features. What died between commit and `accept` is
inserted by the next start, which calls `restore` for the last events before its offsets.

Two rows that are equal in every column are one row here. Requests differ by their id; of other tables an application
may have twins that nothing tells apart.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from streaming.app.folder import App
from streaming.engine import BadRow
from streaming.engine.deployment.contract import Contract
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.events.batch import EventBatch
from streaming.store.micro_batches import Backlog, Footprint
from streaming.store.openmldb.columns import differences, milliseconds
from streaming.store.openmldb.parts import Part, parts_of

__all__ = ["MICRO_BATCH_ROWS_MAX", "ClusterStore", "StatementRunner", "Transport", "times_checked"]

MICRO_BATCH_ROWS_MAX = 1000
"""Also how many events of a partition may be committed whose request rows are not in the cluster yet."""

PROBES = 64
"""Requests with as many keys ask each of the usual 8 partitions but once in 600 times."""

DATE_MIN = datetime.date(1900, 1, 1)
"""OpenMLDB holds no earlier date."""

_log = structlog.stdlib.get_logger("streaming.store.openmldb.cluster")


class StatementRunner(Protocol):
    """Runs statements: `streaming.store.openmldb.sdk.Client`, `streaming.store.openmldb.rest.RestTransport`."""

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        """The rows of one statement; raises `StoreUnavailable` with the server's message."""


class Transport(Protocol):
    """Calls of a cluster.

    Each raises `StoreUnavailable` when the cluster did not do it, and may do it later, also because a table or the
    deployment is not there now: somebody may be making it anew. `ArtifactMismatch` when it has something else than what
    is asked for; `BadRow` for a row that it takes never.
    """

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        """The columns of the deployment's requests and of its answers.

        Raises:
            ArtifactMismatch: there is no such deployment.
        """

    connections: int
    """How many parts may be inserted at a time; beside them one other call may be made."""

    part_rows_min: int
    """How many rows are worth a call of their own."""

    def insert(self, table: str, rows: pa.Table) -> None:
        """Inserts the rows that are not there as a whole already; after an error some may be in."""

    def insert_parts(self, parts: Sequence[Part]) -> None:
        """The same, of several tables or parts of tables, side by side; each part's rows in their order."""

    def request(self, rows: pa.Table) -> pa.Table:
        """The deployment's answers, a row per request row, in order; the requests do not see each other."""

    def close(self) -> None:
        """Ends the connection."""


class ClusterStore:
    """Tables and deployment of a cluster.

    Args:
        app: whose tables and query they are.
        transport: the calls of the cluster.

    Raises:
        ConfigError: the application deletes rows.
    """

    def __init__(self, app: App, transport: Transport) -> None:
        if deleting := [stream.name for stream in app.streams if stream.deletes]:
            raise ConfigError(
                f"{app.folder / 'events.sql'}: tombstones of {', '.join(deleting)} delete rows, which is for "
                "store.kind 'embedded' only: a cluster keeps its rows"
            )
        self._app, self._transport = app, transport
        self._main = app.main
        self._contract: Contract = app.query.contract
        self._request_schema, self._schema = app.query.requests, app.query.answers
        self._times = dict(self._contract.times)
        self._event_tables = {into.table for stream in (*app.scored, *app.partitioned) for into in stream.inserts}
        self._doubtful = False

    def load(self) -> None:
        """Checks that the cluster has the deployment, with the columns that the scripts give it.

        Raises:
            StoreUnavailable: the cluster does not answer.
            ArtifactMismatch: the deployment is missing or has other columns.
        """
        for what, expected, found in zip(
            ("requests", "answers"), (self._request_schema, self._schema), self._transport.schemas(), strict=True
        ):
            if wrong := differences(expected, found):
                raise ArtifactMismatch(
                    f"the cluster's deployment {self._app.tables.database}.{self._app.settings.deployment.name} is not "
                    f"that of {self._app.folder}: of its {what} {'; '.join(wrong[:5])}; "
                    "`jd-intent-score deploy --replace` makes it anew"
                )

    def answer(self, events: EventBatch, owed: EventBatch | None = None) -> pa.Table:
        """See `FeatureStore.answer`. Of the request rows only those are in afterwards that later events had to see.

        Args:
            owed: accepted, but not inserted yet (see `accept`): they go in beside the events' other rows.

        Raises:
            StoreUnavailable: nothing may be scored; call it again.
            BadRow: nothing was inserted.
        """
        self._check(events)
        # What comes before the first request is seen by all of them: it need not wait for its turn.
        first = int(events.events_of[self._main][0])
        number = np.arange(len(events))
        if first:
            self.insert(events.take(number < first), owed)
            events, owed = events.take(number >= first), None
        answers, asked, before = [], [], EventBatch()
        for micro_batch in self.micro_batches(events):
            chosen = np.zeros(len(events), np.bool_)
            chosen[micro_batch] = True
            part = events.take(chosen)
            self.accept(before)
            self.insert(part, owed)
            owed, before = None, part
            if self._main in part.rows:
                answers.append(self.ask(part))
                asked.append(np.flatnonzero(chosen)[part.events_of[self._main]])
        order = np.argsort(np.concatenate(asked))
        return pa.concat_tables(answers).take(order)

    def insert(self, events: EventBatch, owed: EventBatch | None = None) -> None:
        """The first half of `answer`, for events that touch none of each other's rows: all rows but the requests.

        Args:
            owed: see `answer`.
        """
        self._check(events)
        with self._trust():
            self._insert(events, owed)

    def insert_beside(self, events: EventBatch, owed: EventBatch | None = None) -> None:
        """`insert`, beside whatever else is asked meanwhile: tries once, and not at all after a failure.

        Raises:
            StoreUnavailable, BadRow: some rows may be in.
        """
        if self._doubtful:
            raise StoreUnavailable("the cluster has failed, and was not asked since")
        self._check(events)
        try:
            self._insert(events, owed)
        except StoreUnavailable:
            self._doubtful = True
            raise

    def ask(self, events: EventBatch) -> pa.Table:
        """The second half of `answer`: the answers to their requests, in order; all other rows are in."""
        requests = events.rows[self._main]
        with self._trust():
            return self._whole(requests, self._transport.request(requests))

    def accept(self, events: EventBatch) -> None:
        """The scores of what was answered are committed: inserts the request rows that were held back until now."""
        if self._main in events.rows:
            with self._trust():
                self._put({self._main: events.rows[self._main]})

    def restore(self, events: EventBatch) -> None:
        self._check(events)
        with self._trust():
            self._put(events.rows)

    def _insert(self, events: EventBatch, owed: EventBatch | None = None) -> None:
        """All rows but the requests; of what is owed those."""
        rows = {table: rows for table, rows in events.rows.items() if table != self._main}
        if owed is not None and self._main in owed.rows:
            rows[self._main] = owed.rows[self._main]
        self._put(rows)

    def _put(self, rows: Mapping[str, pa.Table]) -> None:
        transport = self._transport
        transport.insert_parts(parts_of(self._contract, rows, transport.connections, transport.part_rows_min))

    def request(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
        """Answers request rows without inserting anything.

        Raises:
            BadRow: a row has no time, or a value of another type.
        """
        if not isinstance(rows, pa.Table):
            try:
                rows = pa.Table.from_pylist(list(rows), self._request_schema)
            except (pa.ArrowException, TypeError, OverflowError) as error:
                raise BadRow(f"request of {self._app.settings.deployment.name}: {error}") from error
        times_checked(self._main, rows, self._times.get(self._main, ()))
        with self._trust():
            return self._whole(rows, self._transport.request(rows))

    def request_schema(self) -> pa.Schema:
        """The columns of a request."""
        return self._request_schema

    def micro_batches(self, events: EventBatch, partitions: Sequence[Hashable] | None = None) -> list[list[int]]:
        """The events, by number, in micro-batches that can be answered one after the other.

        Args:
            partitions: of each event that of Kafka's, in which nothing overtakes: a micro-batch is then a piece of each
                partition. None: each event is a partition of its own.
        """
        backlog: Backlog[int] = Backlog()
        for number, footprint in enumerate(self.footprints(events, partitions, events.rows)):
            backlog.add(number, footprint)
        turns = []
        while len(backlog):
            turns.append(backlog.ready(MICRO_BATCH_ROWS_MAX))
            backlog.done(turns[-1])
        return turns

    def footprints(
        self, events: EventBatch, lanes: Sequence[Hashable] | None = None, tables: Collection[str] | None = None
    ) -> list[Footprint]:
        """What each event touches.

        Args:
            lanes: of each event that in which it overtakes nobody.
            tables: only rows of these count; None: of those that more than dimension streams write.
        """
        tables = self._event_tables if tables is None else tables
        reads: list[list[Hashable]] = [[] for _ in range(len(events))]
        writes: list[list[Hashable]] = [[] for _ in range(len(events))]
        for number, read in enumerate(self._contract.reads):
            # Rows that are read by several keys are written under each: of one read only its own tells who waits.
            if read.table not in tables:
                continue
            if self._main in events.rows:
                for event, key in _keys(events, self._main, read.request):
                    reads[event].append((number, key))
            if read.table in events.rows:
                # Where the request does not tell which rows it reads, it may be any.
                for event, key in _keys(events, read.table, read.columns if read.request else ()):
                    writes[event].append((number, key))
        own = [()] * len(events) if lanes is None else [(lane,) for lane in lanes]
        return [Footprint(tuple(r), tuple(w), lane) for r, w, lane in zip(reads, writes, own, strict=True)]

    def schema(self) -> pa.Schema:
        return self._schema

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """None: the cluster tells them itself (SHOW TABLE STATUS)."""
        return {}

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _check(self, events: EventBatch) -> None:
        for table, rows in events.rows.items():
            times_checked(table, rows, self._times.get(table, ()))

    def _trust(self) -> _Trust:
        return _Trust(self)

    def _probe(self) -> None:
        """Asks requests that nobody has made, of keys in all partitions; they leave no trace.

        No number of the server proves that it serves: `Partition_unalive` counts dead replicas, also where others lead,
        and reads 0 while a partition has no leader. Inserts are their own probe: what one answers is what is in.
        """
        columns = [_probes(field.type) for field in self._request_schema]
        rows = pa.table(columns, schema=self._request_schema)
        try:
            self._whole(rows, self._transport.request(rows))
        except BadRow as error:
            _log.warning("the cluster does not take a probe", error=str(error))

    def _whole(self, requests: pa.Table, answers: pa.Table) -> pa.Table:
        """`answers`, if they are to these requests and nothing is missing in them.

        While a tablet is down a call can be answered by another one that has not all rows. What no request can make
        NULL is NULL then: such an answer is none.
        """
        same = answers.schema.equals(self._schema)
        if not same and (wrong := differences(self._schema, answers.schema)):
            raise ArtifactMismatch(f"the deployment was changed while the scorer ran: {'; '.join(wrong[:5])}")
        if answers.num_rows != requests.num_rows:
            raise StoreUnavailable(f"{answers.num_rows} answers to {requests.num_rows} requests")
        for output, column in self._contract.echoes:
            if pa.types.is_floating(answers[output].type):
                continue  # a NaN is not equal to itself
            if not _flat(answers[output]).equals(_flat(requests[column].cast(answers[output].type))):
                raise StoreUnavailable(f"an answer is not to its request: its {output} is not the request's {column}")
        for output in self._contract.never_null:
            if missing := answers[output].null_count:
                raise StoreUnavailable(
                    f"{missing} of {answers.num_rows} answers have no {output}, which is never NULL: a tablet is away"
                )
        return answers


class _Trust:
    """After a failure the cluster is probed before it is used again, and used as soon as it answers."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        if self._store._doubtful:
            try:
                self._store.load()
                self._store._probe()
            except ArtifactMismatch as error:  # a cluster that comes back, or is deployed to, may have it in a moment
                raise StoreUnavailable(str(error)) from error
            self._store._doubtful = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, StoreUnavailable):
            self._store._doubtful = True
        elif kind is not None and issubclass(kind, BadRow):
            self._store.load()  # is it the row, or has the deployment other columns now?


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _probes(kind: pa.DataType) -> pa.Array:
    """`PROBES` different values of a type, all of which an index takes."""
    if pa.types.is_string(kind):
        return pa.array([f"probe {number}" for number in range(PROBES)], kind)
    if pa.types.is_boolean(kind):
        return pa.array([number % 2 == 1 for number in range(PROBES)], kind)
    return (
        pa.array(range(PROBES), pa.int32()).cast(pa.int64() if pa.types.is_timestamp(kind) else pa.int32()).cast(kind)
    )


def times_checked(what: str, rows: pa.Table, times: Sequence[str], first: int = 0) -> pa.Table:
    """`rows`, if a server takes their times and dates.

    Args:
        what, first: name the table, and count its first row, in messages.
        times: columns that an index is ordered by. A NULL or negative one is refused by the SDK with a message that
            names another column, and kills the API server.

    Raises:
        BadRow: names table, row and column.
    """
    for name in times:
        wrong = pc.fill_null(pc.less(milliseconds(rows[name]), 0), True)
        _refuse(what, name, wrong, "is NULL or negative, and orders an index", first)
    for field in rows.schema:
        if pa.types.is_date(field.type):
            early = pc.less(rows[field.name], pa.scalar(DATE_MIN))
            why = f"is before {DATE_MIN}, the first that OpenMLDB holds"
            _refuse(what, field.name, pc.fill_null(early, False), why, first)
    return rows


def _refuse(what: str, name: str, wrong: pa.ChunkedArray, why: str, first: int) -> None:
    if pc.any(wrong).as_py():
        place = wrong.to_pylist().index(True)
        raise BadRow(f"{what} row {first + place}: {name} {why}")


def _keys(events: EventBatch, table: str, columns: Sequence[str]) -> Iterator[tuple[int, Hashable]]:
    """Of each row of a table the number of its event, and its key; the same for all without columns."""
    rows, of = events.rows[table], events.events_of[table].tolist()
    values = [rows[column].to_pylist() for column in columns]
    if not values:
        return zip(of, [()] * len(of), strict=True)
    return zip(of, values[0] if len(values) == 1 else list(zip(*values, strict=True)), strict=True)

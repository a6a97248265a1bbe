"""An OpenMLDB cluster as a `FeatureStore`, whatever it is reached by (`Transport`).

Tables and deployment are there before (`jd-intent-score deploy`); rows stay when the scorer goes. A batch is cut into
micro-batches (`streaming.store.micro_batches`): the actions of one are inserted, its requests asked in as few calls as
possible.

Redelivery. Kafka hands an event out again when its transaction did not come to be, and the cluster is outside of that
transaction. Rows are inserted by INSERT OR IGNORE, so none counts twice; and an action's request row, which the
deployment counts by itself while it is asked, enters its table only after the transaction (`accept`). So a redelivered
event finds the state that it found before, and gets the same features. What died between commit and `accept` is
inserted by the next start, which calls `restore` for the last events before its offsets.

Two rows that are equal in every column are one row here: the same user, product, type, … in the same millisecond.
Requests differ by their id; bo_action has nothing to tell such twins apart by.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from streaming.config import Store
from streaming.engine import BadRow, Engine
from streaming.engine.deployment.contract import Contract
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.events.decode import Actions
from streaming.store.micro_batches import ANY, Access, Indices, micro_batch_numbers, split
from streaming.store.openmldb.columns import differences, milliseconds
from streaming.store.protocol import ACTIONS, REQUESTS
from streaming.store.sql_scripts import read_script, within

__all__ = ["MICRO_BATCH_ROWS_MAX", "ClusterStore", "StatementRunner", "Transport", "times_checked"]

MICRO_BATCH_ROWS_MAX = 1000
"""Also how many events of a partition may be committed whose request rows are not in the cluster yet."""

DATE_MIN = datetime.date(1900, 1, 1)
"""OpenMLDB holds no earlier date."""

_log = structlog.stdlib.get_logger("streaming.store.openmldb.cluster")


class StatementRunner(Protocol):
    """Runs statements: `streaming.store.openmldb.sdk.Client`, `streaming.store.openmldb.rest.RestTransport`."""

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        """The rows of one statement; raises `StoreUnavailable` with the server's message."""


class Transport(Protocol):
    """Calls of a cluster.

    Each raises `StoreUnavailable` when the cluster did not do it, and may do it later; `ArtifactMismatch` when it has
    something else than what is asked for; `BadRow` for a row that it takes never.
    """

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        """The columns of the deployment's requests and of its answers.

        Raises:
            ArtifactMismatch: there is no such deployment.
        """

    def insert(self, table: str, rows: pa.Table) -> None:
        """Inserts the rows that are not there as a whole already; after an error some may be in."""

    def request(self, rows: pa.Table) -> pa.Table:
        """The deployment's answers, a row per request row, in order; the requests do not see each other."""

    def probe(self) -> None:
        """Raises `StoreUnavailable` unless every partition is served. Asked after a failure, before trusting again."""

    def close(self) -> None:
        """Ends the connection."""


class ClusterStore:
    """Tables and deployment of a cluster.

    Args:
        settings: `[store]`; `sql` holds the scripts that the cluster was made with.
        transport: the calls of the cluster.
    """

    def __init__(self, settings: Store, transport: Transport) -> None:
        self._settings, self._transport = settings, transport
        planned = _planned(settings)
        self._contract: Contract = planned.contract(settings.deployment)
        self._request_schema = planned.request_schema(settings.deployment)
        self._schema = planned.schema(settings.deployment)
        self._times = dict(self._contract.times)
        self._doubtful = False
        if self._contract.main != REQUESTS:
            raise ConfigError(f"store.deployment: {settings.deployment} asks {self._contract.main}, not {REQUESTS}")

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
                    f"the cluster's deployment {self._settings.database}.{self._settings.deployment} is not that of "
                    f"{Path(self._settings.sql) / 'deploy.sql'}: of its {what} {'; '.join(wrong[:5])}; "
                    "`jd-intent-score deploy --replace` makes it anew"
                )

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        """See `FeatureStore.answer`. Of the request rows only those are in afterwards that later events had to see.

        Raises:
            StoreUnavailable: nothing may be scored; call it again.
            BadRow: nothing was inserted.
        """
        self._check(dimensions, actions)
        with self._trust():
            for table, rows in dimensions.items():
                self._transport.insert(table, rows)
            micro_batches = self.micro_batches(actions)
            answers = []
            for number, micro_batch in enumerate(micro_batches, 1):
                self._transport.insert(ACTIONS, actions.rows.take(micro_batch))
                requests = actions.requests.take(micro_batch)
                answers.append(self._whole(requests, self._transport.request(requests)))
                if number < len(micro_batches):
                    self._transport.insert(REQUESTS, requests)
        order = np.argsort(np.concatenate(micro_batches))
        return pa.concat_tables(answers).take(order)

    def accept(self, actions: Actions) -> None:
        """The scores of what was answered are committed: inserts the request rows that were held back until now."""
        with self._trust():
            self._transport.insert(REQUESTS, actions.requests)

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        self._check(dimensions, actions)
        with self._trust():
            for table, rows in dimensions.items():
                self._transport.insert(table, rows)
            if actions is not None:
                self._transport.insert(ACTIONS, actions.rows)
                self._transport.insert(REQUESTS, actions.requests)

    def request(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
        """Answers request rows without inserting anything.

        Raises:
            BadRow: a row has no time, or a value of another type.
        """
        if not isinstance(rows, pa.Table):
            try:
                rows = pa.Table.from_pylist(list(rows), self._request_schema)
            except (pa.ArrowException, TypeError, OverflowError) as error:
                raise BadRow(f"request of {self._settings.deployment}: {error}") from error
        times_checked(REQUESTS, rows, self._times.get(REQUESTS, ()))
        with self._trust():
            return self._whole(rows, self._transport.request(rows))

    def request_schema(self) -> pa.Schema:
        """The columns of a request."""
        return self._request_schema

    def micro_batches(self, actions: Actions, partitions: Sequence[int] | None = None) -> list[Indices]:
        """The events in micro-batches that can be answered one after the other.

        Args:
            partitions: see `micro_batch_numbers`.
        """
        columns = {ACTIONS: actions.rows, REQUESTS: actions.requests}
        reads, writes = [], []
        for read in self._contract.reads:
            if read.table not in columns:
                continue  # dimension rows come before all actions
            reads.append(
                Access(read.table, read.columns, _keys(actions.requests, read.request) if read.request else ANY)
            )
            writes.append(Access(read.table, read.columns, _keys(columns[read.table], read.columns)))
        return split(micro_batch_numbers(len(actions.times), reads, writes, partitions), MICRO_BATCH_ROWS_MAX)

    def schema(self) -> pa.Schema:
        return self._schema

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """None: the cluster tells them itself (SHOW TABLE STATUS)."""
        return {}

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _check(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        own = {} if actions is None else {ACTIONS: actions.rows, REQUESTS: actions.requests}
        for table, rows in {**dimensions, **own}.items():
            times_checked(table, rows, self._times.get(table, ()))

    def _trust(self) -> _Trust:
        return _Trust(self)

    def _whole(self, requests: pa.Table, answers: pa.Table) -> pa.Table:
        """`answers`, if they are to these requests and nothing is missing in them.

        While a tablet is down a call can be answered by another one that has not all rows. What no request can make
        NULL is NULL then: such an answer is none.
        """
        if wrong := differences(self._schema, answers.schema):
            raise ArtifactMismatch(f"the deployment was changed while the scorer ran: {'; '.join(wrong[:5])}")
        if answers.num_rows != requests.num_rows:
            raise StoreUnavailable(f"{answers.num_rows} answers to {requests.num_rows} requests")
        for output, column in self._contract.echoes:
            if pa.types.is_floating(answers[output].type):
                continue  # a NaN is not equal to itself
            if (
                not answers[output]
                .combine_chunks()
                .equals(requests[column].cast(answers[output].type).combine_chunks())
            ):
                raise StoreUnavailable(f"an answer is not to its request: its {output} is not the request's {column}")
        for output in self._contract.never_null:
            if missing := answers[output].null_count:
                raise StoreUnavailable(
                    f"{missing} of {answers.num_rows} answers have no {output}, which is never NULL: a tablet is away"
                )
        return answers


class _Trust:
    """After a failure the cluster is probed before it is used again."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        if self._store._doubtful:
            self._store._transport.probe()
            try:
                self._store.load()
            except ArtifactMismatch as error:  # a cluster that comes back, or is deployed to, may have it in a moment
                raise StoreUnavailable(str(error)) from error
            self._store._doubtful = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, StoreUnavailable):
            self._store._doubtful = True


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


def _keys(rows: pa.Table, columns: Sequence[str]) -> list[Any]:
    values = [rows[column].to_pylist() for column in columns]
    return values[0] if len(values) == 1 else list(zip(*values, strict=True))


def _planned(settings: Store) -> Engine:
    """The scripts, planned by the embedded engine: it knows the deployment's columns, keys and times from its text."""
    engine = Engine()
    for name in ("create_tables.sql", "deploy.sql"):
        script = read_script(Path(settings.sql) / name, "store.sql")
        with within(script):
            engine.execute(script.text)
    try:
        engine.schema(settings.deployment)
    except KeyError as error:
        raise ConfigError(f"store.deployment: {script.path} does not deploy {settings.deployment!r}") from error
    return engine

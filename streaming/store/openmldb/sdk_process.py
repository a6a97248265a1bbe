"""The process that holds OpenMLDB's native client: it connects, inserts, asks and answers over a socket.

    python -m streaming.store.openmldb.sdk_process FD        (started by `streaming.store.openmldb.sdk`)

In a process of its own because the native client keeps the interpreter's lock for as long as a call takes, so that
one hung tablet would stop Kafka's callbacks, /healthz and SIGTERM; and because a call that does not return can only be
ended with its process. It must not be forked after it has connected: this one is not.

The SDK has traps, each kept to one place here: strings are measured in bytes (`_append`), NULL must be asked for before
a value (`_rows`), a statement without result must not be fetched (`execute`), a failed connect shows the password
(`Session.__init__`), a batch may share no columns (`_batch`).
"""

from __future__ import annotations

import importlib
import io
import pickle
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from streaming.store.openmldb.columns import backquoted, cells, rows_to_table, schema_of

__all__ = ["NATIVE", "CallFailed", "ConnectOptions", "RowRefused", "Sdk", "SdkRefused", "Session", "native", "send"]

NATIVE = "streaming.store.openmldb.sdk_process:native"
"""Where the SDK comes from: `module:function`, which returns an `Sdk`; tests name another."""

ROWS_PER_CALL_MIN, ROWS_PER_CALL_MAX = 100, 1000
"""Calls of 100 rows answer 8.2 k rows/s of a cluster, of 1000 rows 11.7 k, of 10 rows 3.2 k: smaller pieces cost more
than a second call under way gains."""


KINDS = {
    "Bool": ("bool", "AppendBool", "GetBoolUnsafe"),
    "Int16": ("int16", "AppendInt16", "GetInt16Unsafe"),
    "Int32": ("int32", "AppendInt32", "GetInt32Unsafe"),
    "Int64": ("int64", "AppendInt64", "GetInt64Unsafe"),
    "Float": ("float", "AppendFloat", "GetFloatUnsafe"),
    "Double": ("double", "AppendDouble", "GetDoubleUnsafe"),
    "String": ("string", "AppendString", "GetStringUnsafe"),
    "Date": ("date", "AppendDate", "GetAsStringUnsafe"),
    "Timestamp": ("timestamp", "AppendTimestamp", "GetTimeUnsafe"),
}
"""The SDK's types: its constant (kTypeBool, …), the type's name, a builder's method, a result's method."""


class CallFailed(Exception):
    """The cluster did not do it; maybe later."""


class SdkRefused(Exception):
    """It will not do it later either: other columns than ours, no SDK."""


class RowRefused(Exception):
    """The SDK does not take a row."""


@dataclass(frozen=True)
class ConnectOptions:
    """How to connect.

    Attributes:
        servers: keywords of `openmldb.dbapi.connect` that name them, without the password.
        password: theirs.
        database: in use.
        timeout_s: of a call.
        calls_in_flight: at a time.
        sdk: `module:function` that gives the SDK; tests give another.
        log_level: from which on the native client writes to standard error: 1 warnings, 3 next to nothing.
        connections: processes that insert side by side.
    """

    servers: dict[str, Any]
    password: str
    database: str
    timeout_s: float
    calls_in_flight: int
    sdk: str = NATIVE
    log_level: int = 3
    connections: int = 1

    def __repr__(self) -> str:
        """The servers in words; never the password."""
        if "zk" in self.servers:
            return f"OpenMLDB at ZooKeeper {self.servers['zk']}{self.servers['zkPath']}"
        return f"OpenMLDB at {self.servers['host']}:{self.servers['port']}"


@dataclass(frozen=True)
class Sdk:
    """The parts of the SDK that are used: `openmldb.dbapi.connect` and the module `openmldb.native.sql_router_sdk`."""

    connect: Callable[..., Any]
    native: Any


def native() -> Sdk:
    """The installed SDK.

    Raises:
        Refused: it is not installed.
    """
    try:
        dbapi = importlib.import_module("openmldb.dbapi")
        router = importlib.import_module("openmldb.native.sql_router_sdk")
    except ImportError as error:
        raise SdkRefused(f"OpenMLDB's SDK does not load: {error}; pip install openmldb==0.9.2") from error
    return Sdk(dbapi.connect, router)


class Session:
    """One connection.

    Raises:
        CallFailed: the cluster is not there.
    """

    def __init__(self, options: ConnectOptions) -> None:
        module, _, function = options.sdk.partition(":")
        sdk: Sdk = getattr(importlib.import_module(module), function)()
        self._k = sdk.native
        self._options = options
        self._timeout_ms = max(1, int(options.timeout_s * 1000))
        try:
            # Without `database`: it may not be there yet, and every call names it.
            self._connection = sdk.connect(
                **options.servers,
                password=options.password,
                requestTimeout=self._timeout_ms,
                glogLevel=options.log_level,
            )
        except Exception as error:  # the SDK raises Exception itself
            why = str(error)
            for told in (repr(options.password)[1:-1], options.password) if options.password else ():
                why = why.replace(told, "***")  # as a dictionary writes it, too
            raise CallFailed(f"{options} does not answer: {why}") from None  # the SDK's text shows the password
        self._router = self._connection._sdk.sdk
        kinds = {getattr(self._k, "kType" + kind): names for kind, names in KINDS.items()}
        self._types = {kind: name for kind, (name, _, _) in kinds.items()}
        self._append = {kind: append for kind, (_, append, _) in kinds.items()}
        self._get = {kind: get for kind, (_, _, get) in kinds.items()}

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs one statement; rows of a SELECT, SHOW or DESC, else none.

        Raises:
            CallFailed: with the server's message.
        """
        try:
            cursor = self._connection.cursor()
            cursor.execute(sql)
            # Fetching after DDL raises where nothing was fetched before, and repeats old rows where something was.
            return list(cursor.fetchall()) if re.match(r"\s*(select|show|desc)\b", sql, re.IGNORECASE) else []
        except Exception as error:
            raise CallFailed(str(error)) from error

    # ── rows in ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def insert(self, table: str, rows: pa.Table) -> None:
        """INSERT OR IGNORE: a row that is there as a whole already is not inserted again.

        Raises:
        """
        statement = f"insert or ignore into {backquoted(table)} values ({', '.join('?' * rows.num_columns)})"
        status = self._k.Status()
        builder = self._router.GetInsertRows(self._options.database, statement, status)
        if not status.IsOK() or builder is None:
            raise CallFailed(f"table {self._options.database}.{table}: {_message(status)}")
        schema = builder.GetSchema()
        self._check(schema, rows, f"table {table}")
        types = [schema.GetColumnType(i) for i in range(schema.GetColumnCnt())]
        for row in cells(rows):
            self._fill(builder.NewRow(), types, row, table)
        if not self._router.ExecuteInsert(self._options.database, statement, builder, status):
            raise CallFailed(f"INSERT OR IGNORE INTO {table}: {_message(status)}")

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def request(self, deployment: str, rows: pa.Table) -> pa.Table:
        """The deployment's answers, a row per request row, in order.

        Raises:
            CallFailed: no answer, or not to every row; there is no such deployment.
            Refused: the deployment's requests have other columns.
            RowRefused: a request cannot be asked.
        """
        if not rows.num_rows:
            raise ValueError("no request rows")
        in_flight = self._options.calls_in_flight
        size = min(ROWS_PER_CALL_MAX, max(ROWS_PER_CALL_MIN, -(-rows.num_rows // in_flight)))
        pieces = [rows.slice(at, size) for at in range(0, rows.num_rows, size)]
        answers: list[pa.Table] = []
        for at in range(0, len(pieces), in_flight):
            group = pieces[at : at + in_flight]
            calls = [self._call(deployment, piece) for piece in group]
            answers += [self._answer(call, piece.num_rows) for call, piece in zip(calls, group, strict=True)]
        return pa.concat_tables(answers)

    def _call(self, deployment: str, rows: pa.Table) -> Any:
        """Sends one batch; the future of its answer."""
        batch = self._batch(deployment, rows)
        status = self._k.Status()
        future = self._router.CallSQLBatchRequestProcedure(
            self._options.database, deployment, self._timeout_ms, batch, status
        )
        if not status.IsOK() or future is None:
            raise CallFailed(f"deployment {deployment}: {_message(status)}")
        return future

    def _batch(self, deployment: str, rows: pa.Table) -> Any:
        schema = self._request_row(deployment).GetSchema()
        self._check(schema, rows, f"deployment {deployment}")
        types = [schema.GetColumnType(i) for i in range(schema.GetColumnCnt())]
        # No common columns: with one the server answers garbage.
        batch = self._k.SQLRequestRowBatch(schema, self._k.ColumnIndicesSet(schema))
        for row in cells(rows):
            builder = self._request_row(deployment)
            self._fill(builder, types, row, deployment)
            batch.AddRow(builder)
        return batch

    def _answer(self, future: Any, count: int) -> pa.Table:
        status = self._k.Status()
        answer = future.GetResultSet(status)
        if not status.IsOK() or answer is None:
            raise CallFailed(f"request: {_message(status)}")
        schema = answer.GetSchema()
        table = rows_to_table(self._schema(schema), list(self._rows(answer, schema)))
        if table.num_rows != count:
            raise CallFailed(f"{table.num_rows} answers to {count} requests")
        return table

    def _rows(self, answer: Any, schema: Any) -> Iterator[list[Any]]:
        getters = [getattr(answer, self._get[schema.GetColumnType(i)]) for i in range(schema.GetColumnCnt())]
        while answer.Next():
            # The getters answer 0 and '' for NULL.
            yield [None if answer.IsNULL(i) else get(i) for i, get in enumerate(getters)]

    def _request_row(self, deployment: str) -> Any:
        status = self._k.Status()
        row = self._router.GetRequestRowByProcedure(self._options.database, deployment, status)
        if not status.IsOK() or row is None:
            raise CallFailed(f"deployment {self._options.database}.{deployment}: {_message(status)}")
        return row

    # ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, builder: Any, types: Sequence[int], row: Sequence[Any], what: str) -> None:
        """Appends a row's cells in order; the builder must be told the exact number of UTF-8 bytes before."""
        size = sum(len(cell.encode()) for cell in row if isinstance(cell, str))
        ok = builder.Init(size)
        for kind, cell in zip(types, row, strict=True):
            if cell is None:
                ok = ok and builder.AppendNULL()
            elif kind == self._k.kTypeDate:
                ok = ok and builder.AppendDate(cell.year, cell.month, cell.day)
            else:
                ok = ok and getattr(builder, self._append[kind])(cell)
        if not (ok and builder.Build()):
            raise RowRefused(f"{what}: the SDK does not take {row!r:.500}")

    def _schema(self, schema: Any) -> pa.Schema:
        return schema_of(
            [(schema.GetColumnName(i), self._types[schema.GetColumnType(i)]) for i in range(schema.GetColumnCnt())]
        )

    def _check(self, schema: Any, rows: pa.Table, what: str) -> None:
        names = [schema.GetColumnName(i) for i in range(schema.GetColumnCnt())]
        if names != rows.column_names:
            raise SdkRefused(f"{what} has the columns {', '.join(names)}, the rows {', '.join(rows.column_names)}")


def _message(status: Any) -> str:
    return f"[{status.code}] {status.msg}"


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Pickler(pickle.Pickler):
    """Writes tables as Arrow does: a tenth of the time that their own pickling takes with few rows."""

    def reducer_override(self, thing: object) -> Any:
        if not isinstance(thing, pa.Table):
            return NotImplemented
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, thing.schema) as writer:
            writer.write_table(thing)
        return _table, (sink.getvalue().to_pybytes(),)


def _table(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(stream).read_all()


def send(connection: Connection, message: object) -> None:
    """What `Connection.recv` reads at the other end."""
    packed = io.BytesIO()
    _Pickler(packed, pickle.HIGHEST_PROTOCOL).dump(message)
    connection.send_bytes(packed.getbuffer())


def serve(connection: Connection) -> None:
    """Connects as the first message says, then does what the others ask, until the other end is closed.

    A message is (name of a method of `Session`, arguments); the answer ("ok", value), or ("failed", "refused",
    "row" or "defect", text).
    """
    session: Session | None = None
    while True:
        try:
            name, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if session is None:
                session = Session(*arguments)
                answer: tuple[str, Any] = ("ok", None)
            else:
                answer = ("ok", getattr(session, name)(*arguments))
        except CallFailed as error:
            answer = ("failed", str(error))
        except SdkRefused as error:
            answer = ("refused", str(error))
        except RowRefused as error:
            answer = ("row", str(error))
        except Exception:
            answer = ("defect", traceback.format_exc())
        try:
            send(connection, answer)
        except OSError:  # the scorer was killed while it waited
            return


def main() -> None:
    # Both may reach the whole group. The scorer finishes its batch, then closes the socket, which ends this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    # The module by its own name: classes of `__main__` are others than those that messages and `Options.sdk` name.
    importlib.import_module("streaming.store.openmldb.sdk_process").main()

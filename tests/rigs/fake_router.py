"""What stands for the router of OpenMLDB's SDK in tests, strict as `OPENMLDB_SDK.md` tells it, traps included.

Only the router, which talks to servers, is replaced. Above it runs the SDK's own Python (`openmldb.dbapi`), and every
row is built by the SDK's own compiled builder: it measures strings in bytes, refuses what overflows, and fails in
`Build` when it was told another size. What the router's servers answer is a `Backend`'s: the recordings of a real
cluster (tests/cases/sdk_recordings.json), or the embedded engine (`rigs.fake_openmldb`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from streaming.engine.sql.names import quoted
from streaming.store.openmldb.sdk_process import KINDS

Columns = list[tuple[str, str]]
"""(name, the SDK's name of the type)."""


class ServerError(Exception):
    """A status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


NAME = r"(`[^`]+`|[^\s`();]+)"
"""One name in a statement."""


def name_of(text: str) -> str:
    """What a name means; bare, it must be none of the words that a server reads otherwise (C18)."""
    if text.startswith("`"):
        return text[1:-1]
    if quoted(text) != text:
        raise ServerError(1001, f"create logic plan tree failed--Syntax error: Unexpected keyword {text.upper()}")
    return text


def words_of(statement: str) -> list[str]:
    """The words of a statement, names in backquotes as one, without them."""
    return [word.replace("`", "") for word in re.findall(r"(?:`[^`]*`|[^\s`])+", statement)]


class Backend(Protocol):
    """The servers."""

    def connect(self, password: str) -> None: ...
    def execute(self, database: str, sql: str) -> tuple[Columns, list[tuple[Any, ...]]] | None: ...
    def columns(self, database: str, table: str) -> Columns: ...
    def indexed_times(self, database: str, table: str) -> list[str]: ...
    def insert(self, database: str, statement: str, rows: list[list[Any]]) -> None: ...
    def request_columns(self, database: str, deployment: str) -> Columns: ...
    def call(
        self, database: str, deployment: str, rows: list[list[Any]], timeout_ms: int
    ) -> tuple[Columns, list[tuple[Any, ...]]]: ...


def _real() -> Any:
    from openmldb.native import sql_router_sdk

    return sql_router_sdk


class Schema:
    def __init__(self, columns: Columns) -> None:
        k = _real()
        self._columns = columns
        constants = {name: getattr(k, "kType" + kind) for kind, (name, _, _) in KINDS.items()}
        self._kinds = [constants[kind] for _, kind in columns]

    def GetColumnCnt(self) -> int:
        return len(self._columns)

    def GetColumnName(self, i: int) -> str:
        return self._columns[i][0]

    def GetColumnType(self, i: int) -> int:
        return int(self._kinds[i])

    def IsColumnNotNull(self, i: int) -> bool:
        return False


class Row:
    """The SDK's compiled builder (C12), which also notes what it was given."""

    def __init__(self, columns: Columns, times: Sequence[str] = ()) -> None:
        k = _real()
        types = k.ColumnTypes()
        schema = Schema(columns)
        for i in range(len(columns)):
            types.AddColumnType(schema.GetColumnType(i))
        self.real = k.SQLRequestRow.CreateSQLRequestRowFromColumnTypes(types)
        self.cells: list[Any] = []
        self.built = False
        self._schema, self._columns, self._times = schema, columns, set(times)

    def GetSchema(self) -> Schema:
        return self._schema

    def Init(self, size: int) -> bool:
        self.cells, self.built = [], False
        return bool(self.real.Init(size))

    def Build(self) -> bool:
        self.built = bool(self.real.Build())
        return self.built

    def AppendNULL(self) -> bool:
        return not self._time() and self._note(self.real.AppendNULL(), None)

    def AppendTimestamp(self, value: int) -> bool:
        return not (self._time() and value < 0) and self._note(self.real.AppendTimestamp(value), value)

    def AppendDate(self, year: int, month: int, day: int) -> bool:
        return self._note(self.real.AppendDate(year, month, day), f"{year:04d}-{month:02d}-{day:02d}")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("Append"):
            raise AttributeError(name)
        return lambda value: self._note(getattr(self.real, name)(value), value)

    def _time(self) -> bool:
        return len(self.cells) < len(self._columns) and self._columns[len(self.cells)][0] in self._times

    def _note(self, done: bool, value: Any) -> bool:
        if done:
            self.cells.append(value)
        return done


class Rows:
    """What GetInsertRows gives."""

    def __init__(self, columns: Columns, times: Sequence[str]) -> None:
        self._columns, self._times = columns, times
        self.rows: list[Row] = []

    def GetSchema(self) -> Schema:
        return Schema(self._columns)

    def NewRow(self) -> Row:
        self.rows.append(Row(self._columns, self._times))
        return self.rows[-1]


class Batch:
    def __init__(self, schema: Schema, common: Common) -> None:
        self.rows: list[list[Any]] = []
        self.common = common

    def AddRow(self, row: Row) -> bool:
        assert row.built, "a row that was not built"
        self.rows.append(row.cells)
        return True


class Common:
    def __init__(self, schema: Schema) -> None:
        self.columns: list[int] = []

    def AddCommonColumnIdx(self, i: int) -> None:
        self.columns.append(i)


class Result:
    """A result set: its getters know no NULL (C13)."""

    def __init__(self, columns: Columns, rows: list[tuple[Any, ...]]) -> None:
        self._schema, self._columns, self._rows, self._at = Schema(columns), columns, rows, -1
        for kind, _, getter in KINDS.values():
            setattr(self, getter, lambda i, kind=kind: self._get(i, kind))

    def GetSchema(self) -> Schema:
        return self._schema

    def Size(self) -> int:
        return len(self._rows)

    def Next(self) -> bool:
        self._at += 1
        return self._at < len(self._rows)

    def IsNULL(self, i: int) -> bool:
        return self._rows[self._at][i] is None

    def _get(self, i: int, kind: str) -> Any:
        assert self._columns[i][1] == kind, f"{self._columns[i]} asked as {kind}"
        cell = self._rows[self._at][i]
        return {"string": "", "date": "NULL"}.get(kind, 0) if cell is None else cell


class Future:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def IsDone(self) -> bool:
        return True

    def GetResultSet(self, status: Any) -> Result | None:
        return _tried(status, self._answer)  # type: ignore[no-any-return]


def _tried(status: Any, call: Any) -> Any:
    try:
        return call()
    except ServerError as error:
        status.code, status.msg = error.code, error.message
        return None


class Router:
    """The native router over a backend; one per connection, with its own USE."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self._database = backend, ""

    def GetDatabase(self) -> str:
        return self._database

    def ExecuteSQL(self, database: str, sql: str, status: Any) -> Result | None:
        if used := re.fullmatch(rf"(?i)use {NAME}", sql.strip()):
            if (name_of(used[1]),) not in self._backend.execute("", "SHOW DATABASES")[1]:  # type: ignore[index]
                status.code, status.msg = 2000, "Use database failed for database not found"
                return None
            self._database = name_of(used[1])
            return Result([], [])
        answer = _tried(status, lambda: self._backend.execute(database, sql))
        return None if answer is None else Result(*answer)

    def GetInsertRows(self, database: str, sql: str, status: Any) -> Rows | None:
        found = re.fullmatch(rf"(?i)insert (?:or ignore )?into {NAME} values ?\(([?, ]+)\)", sql)
        assert found, f"not the form that was recorded: {sql}"

        def make() -> Rows:
            try:
                table = name_of(found[1])
            except ServerError:
                raise ServerError(-1, f"fail to get sql plan with sql {sql}") from None
            columns = self._backend.columns(database, table)
            if found[2].count("?") != len(columns):
                raise ServerError(2000, "Fail to get insert info--fail to parse row[0]: (?)")
            return Rows(columns, self._backend.indexed_times(database, table))

        return _tried(status, make)  # type: ignore[no-any-return]

    def ExecuteInsert(self, database: str, sql: str, rows: Rows, status: Any) -> bool:
        assert all(row.built for row in rows.rows), "a row that was not built"
        try:
            self._backend.insert(database, sql, [row.cells for row in rows.rows])
        except ServerError as error:
            status.code, status.msg = error.code, error.message
            return False  # also where the code is 0: a status alone would say that all is well
        return True

    def GetRequestRowByProcedure(self, database: str, name: str, status: Any) -> Row | None:
        columns = _tried(status, lambda: self._backend.request_columns(database, name))
        return None if columns is None else Row(columns)

    def CallSQLBatchRequestProcedure(self, *words: Any) -> Any:
        """(database, name, batch, status), or the one with a future: (database, name, timeout_ms, batch, status)."""
        database, name, *timeout, batch, status = words
        assert batch.common.columns == [], "C13: with common columns the answer is garbage memory"

        def call() -> Result:
            return Result(*self._backend.call(database, name, batch.rows, timeout[0] if timeout else 60_000))

        return Future(call) if timeout else _tried(status, call)


def connection(backend: Backend, **keywords: Any) -> Any:
    """What `openmldb.dbapi.connect` returns, with another router: the SDK's own cursor and SDK object."""
    from openmldb.dbapi import dbapi

    if "zkPath" in keywords and "zk" not in keywords:
        raise KeyError("zk")
    try:
        backend.connect(keywords.get("password", ""))
    except ServerError as error:
        cluster = "zkPath" in keywords
        if keywords.get("glogLevel", 0) <= 1:  # C7: only the native client's log says why
            os.write(2, f"W20261128 21:35:03.599941  2522 sql_cluster_router.cc:233] {error.message}\n".encode())
        raise Exception(  # noqa: TRY002 - as the SDK does
            # C16: the password is among the keywords
            f"fail to init OpenMLDB sdk with {keywords}, is cluster mode {cluster}"
        ) from None
    sdk = dbapi.sdk_module.OpenMLDBSdk(**keywords)
    sdk.sdk = Router(backend)
    made = dbapi.Connection.__new__(dbapi.Connection)
    made._sdk, made._connected = sdk, True
    return made


def fake_native() -> Any:
    """The SDK's native module, but for the parts that only take the router's own schemas."""
    k = _real()
    constants = {name: getattr(k, name) for name in dir(k) if name.startswith("kType")}
    return SimpleNamespace(Status=k.Status, SQLRequestRowBatch=Batch, ColumnIndicesSet=Common, **constants)

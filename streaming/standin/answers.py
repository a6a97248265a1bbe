"""OpenMLDB 0.9.2's REST interface, answered by an embedded engine: what a call returns, before it is HTTP.

Shapes, codes and messages are those of the API server, as recorded from a real one and read in its source. Otherwise
than there:

- A request or a row without a time, or with a negative one, is refused: the server answers the one by accident, and
  dies of the other, as of any value of a PUT that does not fit and is no text. So is a date that does not exist, which
  it takes for another.
- An INSERT of several rows inserts all of them or none; a call holds one statement (of several, the server runs the
  first).
- SELECT is answered at once, in every mode; LOAD DATA and INTO OUTFILE are done when the call returns, and are jobs
  that have ended already. Offline and online tables are the same. SELECT with parameters and procedures are refused.
- LOAD DATA and INTO OUTFILE touch only files below the engine's folders (`Engine.confine`), and are refused at once.
- Messages of refused SQL have the server's code and beginning, and then the engine's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse
from streaming.engine.storage.catalogue import DeploymentInfo, TableInfo
from streaming.engine.types import ARROW, Type
from streaming.standin.call_bodies import cell_of, query_request, request_row
from streaming.standin.cells import SPELLINGS, Unfit, json_rows, parse_json, shown
from streaming.standin.jobs import Jobs
from streaming.standin.refusals import CallRefused, insert_refusal, refusal
from streaming.standin.show import PARTITIONS, REPLICAS, show, words_of

__all__ = ["Answer", "Api"]

Answer = dict[str, Any]

ASYNCHRONOUS = ("offasync", "online")  # a job is answered with its row instead of waited for
_KINDS = {arrow: kind for kind, arrow in ARROW.items() if kind is not Type.NULL}


class Api:
    """The calls of the interface. An engine belongs to one thread: all calls must come from the same one.

    Args:
        engine: what answers. Its databases, tables and deployments are looked up at each call.
        clock: seconds since the epoch, for the names of indexes.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._stamp = int(clock())
        self._jobs = Jobs(clock)
        self._numbers: dict[tuple[str, str], int] = {}  # tables are numbered as they are seen

    def answer(self, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """The answer of one of the methods below, or the error that says why there is none."""
        try:
            return {"code": 0, "msg": "ok", **call(*arguments)}
        except CallRefused as error:
            return {"code": error.code, "msg": str(error)}

    def databases(self) -> Answer:
        """GET /dbs"""
        return {"dbs": self._engine.databases()}

    def tables(self, database: str) -> Answer:
        """GET /dbs/{database}/tables"""
        return {"tables": [self._table(info) for info in self._database(database)]}

    def table(self, database: str, name: str) -> Answer:
        """GET /dbs/{database}/tables/{name}"""
        for info in self._database(database):
            if info.name == name:
                return {"table": self._table(info)}
        raise CallRefused("Table not found")

    def refresh(self) -> Answer:
        """POST /refresh: nothing is cached here."""
        return {}

    def deployment(self, database: str, name: str) -> Answer:
        """GET /dbs/{database}/deployments/{name}"""
        info = self._deployment(database, name)
        return {
            "data": {
                "name": info.name,
                "procedure": info.sql,
                "input_schema": _schema([(column.name, column.type) for column in info.request]),
                "input_common_cols": [],
                "output_schema": _schema(info.answer),
                "output_common_cols": [],
                "dbs": [db for db, _ in info.tables],
                "tables": [table for _, table in info.tables],
            }
        }

    def procedure(self, database: str, name: str) -> Answer:
        """GET /dbs/{database}/procedures/{name}: a deployment is none."""
        self._deployment(database, name)
        raise CallRefused("procedure not found")

    def call(self, database: str, name: str, body: bytes, *, common: bool = False) -> Answer:
        """POST /dbs/{database}/deployments/{name}

        Args:
            common: called as a procedure, which may have common columns; a deployment has none.
        """
        try:
            request = parse_json(body)
        except ValueError:
            raise CallRefused("Request body json parse failed") from None
        columns = request.get("common_cols", []) if common and isinstance(request, dict) else []
        if not isinstance(columns, list):
            raise CallRefused("common_cols is not array")
        rows = request.get("input") if isinstance(request, dict) else None
        if not isinstance(rows, list) or not rows:
            raise CallRefused("Field input is invalid")
        info = self._deployment(database, name)
        if columns:
            raise CallRefused("Invalid common cols size")
        names = [column.name for column in info.request]
        checked = [dict(zip(names, request_row(info, row, place), strict=True)) for place, row in enumerate(rows)]
        try:
            answer = self._engine.request(f"{database}.{name}", checked)
        except BadRow as error:
            kind = "map" if isinstance(rows[max(error.row, 0)], dict) else "array"
            place = f" in {kind} row {error.row}" if error.row >= 0 else ""
            raise CallRefused(f"Translate to request row failed{place}, INVALID_ARGUMENT: {error}") from error
        data: dict[str, Any] = {}
        if request.get("need_schema") is True:
            data["schema"] = _schema(info.answer)
        lines: list[Any] = json_rows(answer, finite=request.get("write_nan_and_inf_null") is True)
        if isinstance(rows[0], dict):
            lines = [dict(zip(answer.column_names, line, strict=True)) for line in lines]
        return {"data": data | {"data": lines}}

    def put(self, database: str, table: str, body: bytes) -> Answer:
        """PUT /dbs/{database}/tables/{table}: one row, which may be there already."""
        try:
            request = parse_json(body)
        except ValueError as error:
            raise CallRefused(f"Json parse failed, {error}") from None
        rows = request.get("value") if isinstance(request, dict) else None
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], list):
            raise CallRefused("Invalid value in body, only support to put one row")
        row = rows[0]
        found = [info for info in self._engine.tables(database) if info.name == table]
        if not found:
            raise CallRefused(f"fail to get insert info--table with name {table} in db {database} does not exist", 2000)
        columns = found[0].columns
        if len(row) != len(columns):
            holes = ",".join("?" * len(row))
            why = f"get default value map of insert into {table} values({holes}); failed"
            raise CallRefused(f"fail to get insert info--{why}", 2000)
        for column, value in zip(columns, row, strict=True):
            if column.type == Type.STRING and not isinstance(value, (str, type(None))):
                raise CallRefused(f"value is not string for col {column.name}")
        values = {}
        for column, value in zip(columns, row, strict=True):
            try:
                values[column.name] = cell_of(column, value)
            except Unfit:
                number = SPELLINGS[column.type].number
                raise CallRefused(
                    f"convertion failed on col {column.name}[{number}] with value {shown(value)}"
                ) from None
        try:
            self._engine.insert(f"{database}.{table}", [values])
        except BadRow as error:
            raise CallRefused(f"insert failed--{error}", 2000) from error
        return {}

    def query(self, database: str, body: bytes) -> Answer:
        """POST /dbs/{database}: one statement of SQL."""
        sql, mode, finite = query_request(body)
        words = words_of(sql)
        try:
            jobs = self._jobs.show(words)
            answer = show(self._engine, database, words)
        except LookupError as error:
            raise CallRefused(str(error), 2000) from error
        if jobs is not None:
            return {"data": jobs}
        if answer is not None:
            return {"data": {"schema": answer[0], "data": answer[1]}}
        known = database in self._engine.databases()
        try:
            statements = parse(sql)
            if len(statements) != 1:
                raise CallRefused(f"expected one statement, found {len(statements)}", 1000)
            statement = statements[0]
            self._as_openmldb(statement, database)
            if known:
                self._engine.execute(f"USE `{database}`")
            elif not isinstance(statement, (syntax.CreateDatabase, syntax.Drop, syntax.Use, syntax.Set)):
                raise CallRefused(f"database {database} does not exist", 2000)
            if isinstance(statement, syntax.Select):
                return {"data": self._select(statement, sql, finite)}
            if isinstance(statement, (syntax.LoadData, syntax.Outfile)):
                self._engine.reach(statement)  # refused at once, not as a job that fails
            if isinstance(statement, (syntax.LoadData, syntax.Outfile)) and mode in ASYNCHRONOUS:
                online = "Online" if mode == "online" else "Offline"
                kind = f"Import{online}Data" if isinstance(statement, syntax.LoadData) else f"Export{online}Data"
                return {"data": self._jobs.run(kind, sql, lambda: self._engine.execute(sql))}
            self._engine.execute(sql)
        except UnsupportedSQL as error:
            if sql.lstrip().lower().startswith("insert"):
                raise insert_refusal(str(error), database, sql) from error
            raise refusal(str(error)) from error
        except BadRow as error:
            failed = f"insert values 1 failed, failed rows peek: {max(error.row, 0)}--{error}"
            raise CallRefused(failed, 2000) from error
        except (OSError, pa.ArrowException, ValueError) as error:
            if isinstance(error, CallRefused):
                raise
            raise CallRefused(str(error), 2000) from error
        return {}

    # -- parts -----------------------------------------------------------------------------------------------------

    def _database(self, name: str) -> list[TableInfo]:
        if name not in self._engine.databases():
            raise CallRefused("DB not found")
        return self._engine.tables(name)

    def _deployment(self, database: str, name: str) -> DeploymentInfo:
        for info in self._engine.deployments(database):
            if info.name == name:
                return info
        raise CallRefused(f"{name} does not exist in {database}")

    def _table(self, info: TableInfo) -> dict[str, Any]:
        number = self._numbers.setdefault((info.database, info.name), len(self._numbers) + 1)
        keys = []
        for place, index in enumerate(info.indexes):
            key: dict[str, Any] = {"index_name": f"INDEX_{place}_{self._stamp}", "col_name": list(index.key)}
            if index.ts is not None:
                key["ts_name"] = index.ts
            key["ttl"] = {"ttl_type": index.ttl_type, "abs_ttl": index.ttl_ms // 60_000, "lat_ttl": index.ttl_rows}
            keys.append(key)
        return {
            "name": info.name,
            "table_partition_size": PARTITIONS,
            "tid": number,
            "partition_num": PARTITIONS,
            "replica_num": REPLICAS,
            "compress_type": "nocompress",
            "column_desc": [
                {"name": column.name, "data_type": SPELLINGS[column.type].table, "not_null": not column.nullable}
                for column in info.columns
            ],
            "column_key": keys,
            "added_column_desc": [],
            "db": info.database,
            "partition_key": [],
            "schema_versions": [],
        }

    def _as_openmldb(self, statement: syntax.Statement, database: str) -> None:
        """Refuses what the engine takes and 0.9.2 does not: a script must not work here and fail there."""
        there = {info.name for info in self._engine.deployments(database)}
        if isinstance(statement, syntax.Deploy) and statement.if_not_exists and statement.name in there:
            raise refusal(f"deployment {statement.name} exists already")
        dropped = isinstance(statement, syntax.Drop) and statement.kind == "deployment" and statement.if_exists
        if dropped and isinstance(statement, syntax.Drop) and statement.name[-1] not in there:
            raise refusal(f"unknown deployment {statement.name[-1]}")

    def _select(self, statement: syntax.Select, sql: str, finite: bool) -> dict[str, Any]:
        """The rows of a SELECT. `count(*)` of a table is answered, too, without a row when it counts none."""
        first = statement.items[0]
        if len(statement.items) == 1 and _counts_rows(first.expr) and not statement.windows:
            rows = self._engine.query(sql[: first.at] + "1" + sql[first.at + len(first.text) :]).num_rows
            return {"schema": ["Int64"], "data": [[rows]] if rows else []}
        answer = self._engine.query(sql)
        return {
            "schema": [SPELLINGS[_KINDS[kind]].query for kind in answer.schema.types],
            "data": json_rows(answer, finite),
        }


def _schema(columns: Sequence[tuple[str, Type]]) -> list[dict[str, str]]:
    # a column that is NULL in every row is a bool in Arrow, too
    return [{"name": name, "type": SPELLINGS.get(kind, SPELLINGS[Type.BOOL]).deployment} for name, kind in columns]


def _counts_rows(expr: syntax.Expr) -> bool:
    return (
        isinstance(expr, syntax.Call)
        and expr.function == "count"
        and len(expr.arguments) == 1
        and isinstance(expr.arguments[0], syntax.Star)
    )

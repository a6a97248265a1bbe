"""OpenMLDB 0.9.2's REST interface, answered by an embedded engine: what a call returns, before it is HTTP.

Shapes, codes and messages are those of the API server, as recorded from a real one and read in its source. Otherwise
than there:

- A request or a row without a time, or with a negative one, is refused: the server answers the one by accident, and
  dies of the other. So is a date that does not exist, which it takes for another.
- An INSERT of several rows inserts all of them or none; a call holds one statement (of several, the server runs the
  first).
- SELECT is answered at once, in every mode; LOAD DATA and INTO OUTFILE are done when the call returns, and are jobs
  that have ended already. Offline and online tables are the same. SELECT with parameters and procedures are refused.
- LOAD DATA and INTO OUTFILE touch only files below the engine's folders (`Engine.confine`), and are refused at once.
- Messages of refused SQL have the server's code and beginning, and then the engine's own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse as parse_sql
from streaming.engine.storage.catalogue import DeploymentInfo, TableInfo
from streaming.engine.storage.table import Column
from streaming.engine.types import ARROW, Type
from streaming.standin.cells import SPELLINGS, Unfit, cell, json_rows, parse, shown
from streaming.standin.jobs import Jobs
from streaming.standin.show import PARTITIONS, REPLICAS, show

__all__ = ["Answer", "Api"]

Answer = dict[str, Any]

MODES = ("offsync", "offasync", "online", "onsync")
ASYNCHRONOUS = ("offasync", "online")  # a job is answered with its row instead of waited for
_KINDS = {arrow: kind for kind, arrow in ARROW.items() if kind is not Type.NULL}

_INSERT = re.compile(r"\s*insert\b", re.IGNORECASE)
_NS_FAILED = "ns create procedure failed--ReturnCode[-1]"
# What the engine says → the server's code and message; the first that matches. {} is all that the engine said.
_REFUSALS = (
    (r"syntax error", 1001, "create logic plan tree failed--{}"),
    (r"database .* exists already", 2000, "Create database failed for database already exists"),
    (r"database .* still has tables", 2000, "database not empty"),
    (r"unknown database", 2000, "database not found--{}"),
    (r"table .* exists already", 2000, "table already exists"),
    (r"table .* is used by deployment", 2000, "fail to drop, table has associated deployment: {}"),
    (r"deployment .* exists already", 2001, f"{_NS_FAILED}--store procedure already exists"),
    (r"unknown deployment", 2000, "deployment not found"),
    (r"unknown table", 1202, "{}"),
    (r"unknown column", 1204, "{}"),
)


class Refused(ValueError):
    """A call that is answered with an error.

    Args:
        code: the server's; -1 where it gives none of its own.
    """

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(message)
        self.code = code


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
        except Refused as error:
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
        raise Refused("Table not found")

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
        raise Refused("procedure not found")

    def call(self, database: str, name: str, body: bytes, *, common: bool = False) -> Answer:
        """POST /dbs/{database}/deployments/{name}

        Args:
            common: called as a procedure, which may have common columns; a deployment has none.
        """
        try:
            request = parse(body)
        except ValueError:
            raise Refused("Request body json parse failed") from None
        columns = request.get("common_cols", []) if common and isinstance(request, dict) else []
        if not isinstance(columns, list):
            raise Refused("common_cols is not array")
        rows = request.get("input") if isinstance(request, dict) else None
        if not isinstance(rows, list) or not rows:
            raise Refused("Field input is invalid")
        info = self._deployment(database, name)
        if columns:
            raise Refused("Invalid common cols size")
        names = [column.name for column in info.request]
        checked = [dict(zip(names, _request_row(info, row, place), strict=True)) for place, row in enumerate(rows)]
        try:
            answer = self._engine.request(f"{database}.{name}", checked)
        except BadRow as error:
            kind = "map" if isinstance(rows[max(error.row, 0)], dict) else "array"
            place = f" in {kind} row {error.row}" if error.row >= 0 else ""
            raise Refused(f"Translate to request row failed{place}, INVALID_ARGUMENT: {error}") from error
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
            request = parse(body)
        except ValueError as error:
            raise Refused(f"Json parse failed, {error}") from None
        rows = request.get("value") if isinstance(request, dict) else None
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], list):
            raise Refused("Invalid value in body, only support to put one row")
        row = rows[0]
        found = [info for info in self._engine.tables(database) if info.name == table]
        if not found:
            raise Refused(f"fail to get insert info--table with name {table} in db {database} does not exist", 2000)
        columns = found[0].columns
        if len(row) != len(columns):
            holes = ",".join("?" * len(row))
            why = f"get default value map of insert into {table} values({holes}); failed"
            raise Refused(f"fail to get insert info--{why}", 2000)
        for column, value in zip(columns, row, strict=True):
            if column.type == Type.STRING and not isinstance(value, (str, type(None))):
                raise Refused(f"value is not string for col {column.name}")
        values = {}
        for column, value in zip(columns, row, strict=True):
            try:
                values[column.name] = _checked(column, value)
            except Unfit:
                number = SPELLINGS[column.type].number
                raise Refused(f"convertion failed on col {column.name}[{number}] with value {shown(value)}") from None
        try:
            self._engine.insert(f"{database}.{table}", [values])
        except BadRow as error:
            raise Refused(f"insert failed--{error}", 2000) from error
        return {}

    def query(self, database: str, body: bytes) -> Answer:
        """POST /dbs/{database}: one statement of SQL."""
        sql, mode, finite = _query_request(body)
        try:
            jobs = self._jobs.show(sql)
            answer = show(self._engine, database, sql)
        except LookupError as error:
            raise Refused(str(error), 2000) from error
        if jobs is not None:
            return {"data": jobs}
        if answer is not None:
            return {"data": {"schema": answer[0], "data": answer[1]}}
        known = database in self._engine.databases()
        try:
            statements = parse_sql(sql)
            if len(statements) != 1:
                raise Refused(f"expected one statement, found {len(statements)}", 1000)
            statement = statements[0]
            self._as_openmldb(statement, database)
            if known:
                self._engine.execute(f"USE `{database}`")
            elif not isinstance(statement, (syntax.CreateDatabase, syntax.Drop, syntax.Use, syntax.Set)):
                raise Refused(f"database {database} does not exist", 2000)
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
            raise (
                _insert_refusal(str(error), database, sql) if _INSERT.match(sql) else _refusal(str(error))
            ) from error
        except BadRow as error:
            raise Refused(f"insert values 1 failed, failed rows peek: {max(error.row, 0)}--{error}", 2000) from error
        except (OSError, pa.ArrowException, ValueError) as error:
            if isinstance(error, Refused):
                raise
            raise Refused(str(error), 2000) from error
        return {}

    # -- parts -----------------------------------------------------------------------------------------------------

    def _database(self, name: str) -> list[TableInfo]:
        if name not in self._engine.databases():
            raise Refused("DB not found")
        return self._engine.tables(name)

    def _deployment(self, database: str, name: str) -> DeploymentInfo:
        for info in self._engine.deployments(database):
            if info.name == name:
                return info
        raise Refused(f"{name} does not exist in {database}")

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
            raise _refusal(f"deployment {statement.name} exists already")
        dropped = isinstance(statement, syntax.Drop) and statement.kind == "deployment" and statement.if_exists
        if dropped and isinstance(statement, syntax.Drop) and statement.name[-1] not in there:
            raise _refusal(f"unknown deployment {statement.name[-1]}")

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


def _checked(column: Column, value: Any) -> Any:
    if value is None and not column.nullable:
        raise Unfit
    return cell(value, column.type)


def _request_row(info: DeploymentInfo, row: Any, place: int) -> list[Any]:
    if isinstance(row, list):
        if len(row) != len(info.request):
            raise Refused(f"Invalid input data size in row {place}")
        given: Mapping[str, Any] = {column.name: value for column, value in zip(info.request, row, strict=True)}
        kind = "array"
    elif isinstance(row, dict):
        given, kind = row, "map"
        for column in sorted(info.request, key=lambda column: column.type != Type.STRING):  # it looks for these first
            if column.name not in row:
                what = "col " if column.type == Type.STRING else ""
                why = f"INVALID_ARGUMENT: can't find {what}{column.name}"
                raise Refused(f"Translate to request row failed in map row {place}, {why}")
    else:
        raise Refused(f"Must be array or map, row {place}")
    values = []
    for column in info.request:
        value = given[column.name]
        try:
            values.append(_checked(column, value))
        except Unfit:
            number = SPELLINGS[column.type].number
            why = f"INVALID_ARGUMENT: trans failed on {column.name}({number}): {shown(value)}"
            raise Refused(f"Translate to request row failed in {kind} row {place}, {why}") from None
    return values


def _query_request(body: bytes) -> tuple[str, str, bool]:
    """(SQL, mode, whether NaN and infinite numbers become null) of a request to run SQL."""

    def wrong(why: str) -> Refused:
        return Refused(f"Json parse failed, INVALID_ARGUMENT: {why}")

    try:
        request = parse(body)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise wrong("req is not object")
    mode, sql = request.get("mode"), request.get("sql")
    if not isinstance(mode, str):
        raise wrong("mode parse failed")
    if not isinstance(sql, str):
        raise wrong("sql parse failed")
    timeout = request.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool):
        raise wrong("timeout parse failed")
    parameters = _parameters(request, wrong)
    finite = request.get("write_nan_and_inf_null", False)
    if not isinstance(finite, bool):
        raise wrong("write_nan_and_inf_null parse failed")
    if mode.lower() not in MODES:
        raise Refused(f"Invalid mode {mode.lower()}")
    if parameters:
        raise Refused("parameters are not supported by this stand-in: write the values into the statement", 1000)
    return sql, mode.lower(), finite


def _parameters(request: Mapping[str, Any], wrong: Callable[[str], Refused]) -> list[Any]:
    if "input" not in request:
        return []
    given = request["input"]
    if not isinstance(given, dict):
        raise wrong("input is not object")
    schema, data = given.get("schema"), given.get("data")
    if schema is None or data is None:
        return []
    if not isinstance(schema, list) or not isinstance(data, list):
        raise wrong("input parse failed")
    if len(schema) != len(data):
        raise wrong(f"data size {len(data)} != schema size {len(schema)}")
    return data


def _refusal(message: str) -> Refused:
    for pattern, code, template in _REFUSALS:
        if re.search(pattern, message):
            return Refused(template.format(message), code)
    return Refused(message, 1000)


def _insert_refusal(message: str, database: str, sql: str) -> Refused:
    unknown = re.match(r"unknown (table|column) (\S+)(?: in (\S+))?", message)
    if unknown is None:
        why = f"fail to get sql plan with sql {sql}--" if "syntax error" in message else "fail to parse row--"
        why += message
    elif unknown[1] == "table":
        why = f"{database}-{unknown[2]} not exist"
    else:
        why = f"can't find column {unknown[2]} in table {unknown[3]}"
    return Refused(f"Fail to get insert info--{why}", 2000)


def _counts_rows(expr: syntax.Expr) -> bool:
    return (
        isinstance(expr, syntax.Call)
        and expr.function == "count"
        and len(expr.arguments) == 1
        and isinstance(expr.arguments[0], syntax.Star)
    )

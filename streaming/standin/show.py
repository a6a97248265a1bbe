"""SHOW statements, answered as OpenMLDB 0.9.2 does: some as rows, some as one text with tables drawn in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.storage.catalogue import DeploymentInfo, IndexInfo, TableInfo
from streaming.engine.types import Type
from streaming.standin.cells import SPELLINGS
from streaming.store.sql_scripts import statement_tokens

__all__ = ["PARTITIONS", "REPLICAS", "show", "words_of"]

PARTITIONS, REPLICAS = 8, 2
"""What a cluster of two tablets says of its tables."""

Rows = tuple[list[str], list[list[Any]]]  # the columns' types and the rows

_DDL_TYPES = {Type.SMALLINT: "smallInt", Type.BIGINT: "bigInt", Type.STRING: "varchar"}


def words_of(sql: str) -> list[str]:
    """The words of the one statement in `sql`, as they are written, without backquotes; none where it is no such."""
    try:
        statements = list(statement_tokens(sql))
    except UnsupportedSQL:
        return []
    return [token.text.strip("`") for token in statements[0]] if len(statements) == 1 else []


def show(engine: Engine, database: str, words: Sequence[str]) -> Rows | None:
    """The answer to a SHOW; None: it is none of those that are answered.

    Args:
        engine: what is asked.
        database: in use.
        words: of the statement (`words_of`).

    Raises:
        LookupError: there is no such table or deployment.
    """
    match [word.lower() for word in words]:
        case ["show", "table", "status"]:
            tables = enumerate(_all_tables(engine), 1)
            return ["String"] * 14, [_status(engine, info, number) for number, info in tables]
        case ["show", "databases" | "tables" | "deployments" as what]:
            return _names(engine, what, database)
        case ["show", "tables" | "deployments" as what, "from", _]:  # C2: FROM is not looked at
            return _names(engine, what, database)
        case ["show", "deployment", _] | ["show", "deployment", _, ".", _]:
            return _deployment(engine, words[2] if len(words) > 3 else database, words[-1])
        case ["show", "create", "table", _] | ["show", "create", "table", _, ".", _]:
            return _created(engine, words[3] if len(words) > 4 else database, words[-1])
    return None


def _deployment(engine: Engine, database: str, name: str) -> Rows:
    for deployment in engine.deployments(database):
        if deployment.name == name:
            return ["String"], [[_deployment_text(deployment)]]
    raise LookupError("not found")


def _created(engine: Engine, database: str, name: str) -> Rows:
    for table in engine.tables(database):
        if table.name == name:
            return ["String", "String"], [[name, _ddl(table)]]
    raise LookupError(f"table {name} does not exist in {database}")


def _names(engine: Engine, what: str, database: str) -> Rows:
    match what:
        case "databases":
            return ["String"], [[name] for name in engine.databases()]
        case "tables":
            return ["String"], [[table.name] for table in engine.tables(database)]
    return ["String", "String"], [[database, deployment.name] for deployment in engine.deployments(database)]


def _all_tables(engine: Engine) -> list[TableInfo]:
    return [table for database in engine.databases() for table in engine.tables(database)]


def _status(engine: Engine, table: TableInfo, number: int) -> list[str]:
    size = engine.stats()[table.full_name]
    return [
        str(number),
        table.name,
        table.database,
        "memory",
        str(size.rows),
        str(size.bytes),
        "0",
        str(PARTITIONS),
        "0",
        str(REPLICAS),
        "NULL",
        "NULL",
        "NULL",
        "",
    ]


def _ddl(table: TableInfo) -> str:
    lines = []
    for column in table.columns:
        line = f"`{column.name}` {_DDL_TYPES.get(column.type, str(column.type))}"
        line += "" if column.nullable else " NOT NULL"
        lines.append(line if column.default is None else f"{line} DEFAULT '{column.default}'")
    lines += [_index(index) for index in table.indexes]
    options = f"PARTITIONNUM={PARTITIONS}, REPLICANUM={REPLICAS}, STORAGE_MODE='Memory', COMPRESS_TYPE='NoCompress'"
    body = ",\n".join(lines)
    return f"CREATE TABLE `{table.name}` (\n{body}\n) OPTIONS ({options});"


def _index(index: IndexInfo) -> str:
    key = f"`{index.key[0]}`" if len(index.key) == 1 else f"({','.join(f'`{column}`' for column in index.key)})"
    minutes = f"{index.ttl_ms // 60_000}m"
    ttl = {"absolute": minutes, "latest": str(index.ttl_rows)}.get(index.ttl_type, f"({minutes}, {index.ttl_rows})")
    ts = "" if index.ts is None else f"TS=`{index.ts}`, "
    return f"INDEX (KEY={key}, {ts}TTL_TYPE={index.ttl_type.upper()}, TTL={ttl})"


def _deployment_text(info: DeploymentInfo) -> str:
    text = _drawn(["DB", "Deployment"], [[info.database, info.name]]) + "1 row in set\n"
    text += _drawn(["SQL"], [[line] for line in [*info.sql.splitlines(), ";"]]) + "1 row in set\n"
    for what, columns in (("Input", [(column.name, column.type) for column in info.request]), ("Output", info.answer)):
        rows = [[str(place), name, _shown_type(kind), "NO"] for place, (name, kind) in enumerate(columns, 1)]
        text += f"# {what} Schema\n{_drawn(['#', 'Field', 'Type', 'IsConstant'], rows)}\n"
    return text


def _shown_type(kind: Type) -> str:
    return "Varchar" if kind == Type.STRING else SPELLINGS.get(kind, SPELLINGS[Type.BOOL]).query


def _drawn(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in [head, *rows]) for place in range(len(head))]
    rule = " " + " ".join("-" * (width + 2) for width in widths) + " \n"
    lines = ["".join(f"  {cell:<{width}} " for cell, width in zip(line, widths, strict=True)) for line in [head, *rows]]
    return rule + f"{lines[0]} \n" + rule + "".join(f"{line} \n" for line in lines[1:]) + rule

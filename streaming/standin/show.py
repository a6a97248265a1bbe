"""SHOW statements, answered as OpenMLDB 0.9.2 does: some as rows, some as one text with tables drawn in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from streaming.engine import Engine
from streaming.engine.storage.catalogue import DeploymentInfo, IndexInfo, TableInfo
from streaming.engine.types import Type
from streaming.standin.cells import SPELLINGS

__all__ = ["PARTITIONS", "REPLICAS", "show"]

PARTITIONS, REPLICAS = 8, 2
"""What a cluster of two tablets says of its tables."""

Rows = tuple[list[str], list[list[Any]]]  # the columns' types and the rows

_SHOW = re.compile(
    r"""\s*show\s+(?:
        (?P<plain>databases|tables|deployments) (?:\s+from\s+(?P<source>\w+))?
      | (?P<status>table\s+status)
      | (?P<what>create\s+table|deployment)\s+ `?(?:(?P<db>\w+)`?\.`?)? (?P<name>\w+)`?
    )\s*;?\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_DDL_TYPES = {Type.SMALLINT: "smallInt", Type.BIGINT: "bigInt", Type.STRING: "varchar"}


def show(engine: Engine, database: str, sql: str) -> Rows | None:
    """The answer to a SHOW; None: `sql` is none of those that are answered.

    Raises:
        LookupError: there is no such table or deployment.
    """
    asked = _SHOW.fullmatch(sql)
    if asked is None:
        return None
    if asked["status"]:
        return ["String"] * 14, [_status(engine, info, number) for number, info in enumerate(_all_tables(engine), 1)]
    if asked["plain"]:
        return _names(engine, asked["plain"].lower(), asked["source"] or database)
    place, name = asked["db"] or database, asked["name"]
    if asked["what"].lower() == "deployment":
        for deployment in engine.deployments(place):
            if deployment.name == name:
                return ["String"], [[_deployment_text(deployment)]]
        raise LookupError("not found")
    for table in engine.tables(place):
        if table.name == name:
            return ["String", "String"], [[name, _ddl(table)]]
    raise LookupError(f"table {name} does not exist in {place}")


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

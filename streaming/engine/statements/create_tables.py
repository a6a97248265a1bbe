"""CREATE TABLE and CREATE INDEX: tables and their indexes as a script declares them."""

from __future__ import annotations

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax
from streaming.engine.statements.insert_values import column_value
from streaming.engine.storage.retention import require_all_rows
from streaming.engine.storage.table import Column, Table
from streaming.engine.types import Type

__all__ = ["add_index", "new_table"]


def new_table(statement: syntax.CreateTable, database: str, script: str) -> Table:
    """The table of a CREATE TABLE.

    Args:
        statement: its tree.
        database: where it will be found.
        script: the text that the statement is from, for messages.

    Raises:
        UnsupportedSQL: names the place of what is wrong.
    """
    columns, seen = [], set()
    for definition in statement.columns:
        if definition.name in seen:
            raise error_at(script, definition.at, f"column {definition.name} is there twice")
        seen.add(definition.name)
        default = None
        if definition.default is not None and definition.default.value is not None:
            default = column_value(definition.default.value, definition.type, script, definition.at)
        columns.append(Column(definition.name, definition.type, definition.nullable, default))
    if not columns:
        raise error_at(script, statement.at, "a table without columns")
    table = Table(database, statement.name[-1], columns)
    for index in statement.indexes:
        add_index(table, index, script)
    if not statement.indexes:
        table.declared.append(((0,), -1))  # OpenMLDB's default: the first column, no time
    return table


def add_index(table: Table, index: syntax.IndexDef, script: str) -> None:
    """Adds an index that a script declares.

    Args:
        table: whose rows it finds.
        index: its tree.
        script: the text that this is from, for messages.

    Raises:
        UnsupportedSQL: names the place of what is wrong.
    """
    names = [*index.key, *([index.ts] if index.ts else [])]
    for name in names:
        if name not in table.positions:
            raise error_at(script, index.at, f"unknown column {name} in an index of {table.name}")
    if not index.key:
        raise error_at(script, index.at, "an index without KEY")
    ts = -1
    if index.ts is not None:
        ts = table.positions[index.ts]
        if table.columns[ts].type not in (Type.TIMESTAMP, Type.BIGINT):
            raise error_at(script, index.at, f"TS={index.ts} is neither a timestamp nor a bigint")
    key = tuple(table.positions[name] for name in index.key)
    for c in key:
        if table.columns[c].type in (Type.FLOAT, Type.DOUBLE):
            raise error_at(script, index.at, f"unsupported: KEY={table.columns[c].name}, a {table.columns[c].type}")
    absolute, latest = index.ttl
    require_all_rows(table, key, ts, script, index.at)
    table.declared.append((key, ts))
    if absolute and ts < 0:
        raise error_at(script, index.at, "unsupported: a TTL in time of an index without TS")
    if ts >= 0 or latest:  # from now on, rows without a time are refused
        made = table.index(tuple(sorted(key)), ts)
        if absolute or latest:
            made.ttl = (absolute, latest, index.ttl_type == "absandlat")
            made.version += 1
    table.keeps |= not (absolute or latest)

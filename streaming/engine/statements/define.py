"""Tables, their indexes and rows, as CREATE TABLE, CREATE INDEX and INSERT say them."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.engine.errors import point
from streaming.engine.plan.select import constant
from streaming.engine.sql import syntax as s
from streaming.engine.storage.strings import Pool
from streaming.engine.storage.table import Column, Table
from streaming.engine.types import Type, to_word

__all__ = ["declare", "new_table", "values", "whole"]


def new_table(statement: s.CreateTable, database: str, script: str) -> Table:
    """The table of a CREATE TABLE."""
    columns, seen = [], set()
    for definition in statement.columns:
        if definition.name in seen:
            raise point(script, definition.at, f"column {definition.name} is there twice")
        seen.add(definition.name)
        default = None
        if definition.default is not None and definition.default.value is not None:
            default = _value(definition.default.value, definition.type, script, definition.at)
        columns.append(Column(definition.name, definition.type, definition.nullable, default))
    if not columns:
        raise point(script, statement.at, "a table without columns")
    table = Table(database, statement.name[-1], columns)
    for index in statement.indexes:
        declare(table, index, script)
    if not statement.indexes:
        table.declared.append(((0,), -1))  # OpenMLDB's default: the first column, no time
    return table


def declare(table: Table, index: s.IndexDef, script: str) -> None:
    """Adds an index that the script declares."""
    names = [*index.key, *([index.ts] if index.ts else [])]
    for name in names:
        if name not in table.positions:
            raise point(script, index.at, f"unknown column {name} in an index of {table.name}")
    if not index.key:
        raise point(script, index.at, "an index without KEY")
    ts = -1
    if index.ts is not None:
        ts = table.positions[index.ts]
        if table.columns[ts].type not in (Type.TIMESTAMP, Type.BIGINT):
            raise point(script, index.at, f"TS={index.ts} is neither a timestamp nor a bigint")
    key = tuple(table.positions[name] for name in index.key)
    for c in key:
        if table.columns[c].type in (Type.FLOAT, Type.DOUBLE):
            raise point(script, index.at, f"unsupported: KEY={table.columns[c].name}, a {table.columns[c].type}")
    absolute, latest = index.ttl
    whole(table, key, ts, script, index.at)
    table.declared.append((key, ts))
    if absolute and ts < 0:
        raise point(script, index.at, "unsupported: a TTL in time of an index without TS")
    if ts >= 0 or latest:  # from now on, rows without a time are refused
        made = table.index(tuple(sorted(key)), ts)
        if absolute or latest:
            made.ttl = (absolute, latest, index.ttl_type == "absandlat")
            made.version += 1
    table.keeps |= not (absolute or latest)


def whole(table: Table, key: Sequence[int], ts: int, script: str, at: int) -> None:
    """Refuses a new index over rows of which some have left."""
    if table.freed:
        names = ", ".join(table.columns[c].name for c in (*key, *([ts] if ts >= 0 else [])))
        raise point(
            script,
            at,
            f"{table.name}: {table.freed} rows whose time to live was over are gone, a new or longer "
            f"index ({names}) would miss them: make it before rows come",
        )


def values(statement: s.Insert, table: Table, script: str, pool: Pool) -> list[dict[str, object]]:
    """The rows of an INSERT … VALUES, by column."""
    names = statement.columns or tuple(column.name for column in table.columns)
    for name in names:
        if name not in table.positions:
            raise point(script, statement.at, f"unknown column {name} in {table.name}")
    rows: list[dict[str, object]] = []
    for values in statement.rows:
        if len(values) != len(names):
            raise point(script, values[0].at, f"{len(values)} values for {len(names)} columns")
        row: dict[str, object] = {}
        for name, expr in zip(names, values, strict=True):
            if not isinstance(expr, s.Literal):
                constant(expr, script, pool)
                raise TypeError("unreachable")
            row[name] = _value(expr.value, table.columns[table.positions[name]].type, script, expr.at)
        rows.append(row)
    return rows


def _value(value: object, kind: Type, script: str, at: int) -> object:
    """A literal of INSERT or DEFAULT as a value of the column's type."""
    if value is None or kind == Type.STRING:
        if value is not None and not isinstance(value, str):
            raise point(script, at, f"{value!r} is not a string")
        return value
    if kind in (Type.FLOAT, Type.DOUBLE) and isinstance(value, (int, float)):
        return float(value)
    if kind == Type.BOOL and isinstance(value, int) and value in (0, 1):
        return bool(value)
    try:
        to_word(kind, value)
    except (TypeError, OverflowError) as error:
        raise point(script, at, str(error)) from None
    return value

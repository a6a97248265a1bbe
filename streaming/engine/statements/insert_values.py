"""INSERT … VALUES: the constants of a script as values of a table's columns."""

from __future__ import annotations

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax
from streaming.engine.storage.table import Table
from streaming.engine.types import Type, to_word

__all__ = ["column_value", "rows_of"]


def rows_of(statement: syntax.Insert, table: Table, script: str) -> list[dict[str, object]]:
    """The rows of an INSERT … VALUES, each a dict by column.

    Args:
        statement: its tree.
        table: where they go.
        script: the text that the statement is from, for messages.

    Raises:
        UnsupportedSQL: names the place of what is wrong.
    """
    names = statement.columns or tuple(column.name for column in table.columns)
    for name in names:
        if name not in table.positions:
            raise error_at(script, statement.at, f"unknown column {name} in {table.name}")
    rows: list[dict[str, object]] = []
    for values in statement.rows:
        if len(values) != len(names):
            raise error_at(script, values[0].at, f"{len(values)} values for {len(names)} columns")
        row: dict[str, object] = {}
        for name, expr in zip(names, values, strict=True):
            if not isinstance(expr, syntax.Literal):
                raise error_at(script, expr.at, "unsupported: a value that is not a constant")
            row[name] = column_value(expr.value, table.columns[table.positions[name]].type, script, expr.at)
        rows.append(row)
    return rows


def column_value(value: object, kind: Type, script: str, at: int) -> object:
    """A constant of INSERT or DEFAULT as a value of a column's type.

    Args:
        value: the constant.
        kind: the column's type.
        script, at: the text that it is from, and its offset there, for messages.

    Raises:
        UnsupportedSQL: the column cannot take it.
    """
    if value is None or kind == Type.STRING:
        if value is not None and not isinstance(value, str):
            raise error_at(script, at, f"{value!r} is not a string")
        return value
    if kind in (Type.FLOAT, Type.DOUBLE) and isinstance(value, (int, float)):
        return float(value)
    if kind == Type.BOOL and isinstance(value, int) and value in (0, 1):
        return bool(value)
    try:
        to_word(kind, value)
    except (TypeError, OverflowError) as error:
        raise error_at(script, at, str(error)) from None
    return value

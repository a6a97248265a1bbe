"""DEPLOY … OPTIONS(long_windows='w:1d'): windows of which OpenMLDB keeps aggregates per span beside the rows.

The embedded engine answers them from the rows, like any other window. What OpenMLDB cannot keep aggregates of it
refuses, too, so that a script which runs here runs there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.plan.scope import children
from streaming.engine.sql import syntax
from streaming.engine.storage.table import Table
from streaming.engine.types import Type

__all__ = ["check_long_windows"]

_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_KEPT = ("sum", "min", "max", "count", "avg")
_BUCKET = re.compile(r"\d+|\d+\s*[smhdSMHD]")


def check_long_windows(statement: syntax.Deploy, tables: Collection[Table], script: str) -> None:
    """Refuses what OpenMLDB rejects in a deployment with long windows.

    Args:
        statement: the DEPLOY.
        tables: that it reads, the requests' among them.
        script: the text that it is from.

    Raises:
        UnsupportedSQL: names the place.
    """
    option = statement.options.get("long_windows", "")
    if not option:
        return

    def refuse(what: str, at: int) -> UnsupportedSQL:
        return error_at(script, at, f"unsupported: {what}")

    buckets: dict[str, str] = {}
    for one in str(option).split(","):
        name, *bucket = one.split(":")
        if len(bucket) > 1 or not _BUCKET.fullmatch(bucket[0] if bucket else "1d"):
            raise refuse(
                f"LONG_WINDOWS {one!r}: neither a window, nor one with a bucket as w:1d or w:1000", statement.at
            )
        buckets[name] = bucket[0] if bucket else "1d"
    if len(set(tables)) != 1 or _joins(statement.select):
        raise refuse("LONG_WINDOWS in a query of several tables", statement.at)
    used: set[str] = set()
    for expr in _with_windows(statement.select):
        if not isinstance(expr, syntax.Over) or not isinstance(expr.operand, syntax.Call):
            raise refuse("beside LONG_WINDOWS an item that is more than one aggregate", expr.at)
        window, call = expr.window, expr.operand
        if isinstance(window, str) and window in buckets:
            used.add(window)
            _check_call(call, window, buckets[window], next(iter(tables)), script)
    if used != set(buckets):
        raise refuse(f"LONG_WINDOWS {', '.join(sorted(set(buckets) - used))}: no aggregate is over it", statement.at)


def _joins(select: syntax.Select) -> bool:
    """Whether a query joins anything, also what none of its items needs."""
    inner = select.source
    return bool(select.joins) or (isinstance(inner, syntax.SubSelect) and _joins(inner.select))


def _with_windows(select: syntax.Select) -> Iterator[syntax.Expr]:
    """The items with a window, of sub-queries, too."""
    for item in select.items:
        waiting: list[syntax.Expr] = [item.expr]
        while waiting:
            expr = waiting.pop()
            if isinstance(expr, syntax.Over):
                yield item.expr
                break
            waiting += children(expr)
    if isinstance(select.source, syntax.SubSelect):
        yield from _with_windows(select.source.select)


def _check_call(call: syntax.Call, window: str, bucket: str, table: Table, script: str) -> None:
    """Refuses an aggregate that OpenMLDB keeps none of."""

    def refuse(what: str, at: int) -> UnsupportedSQL:
        return error_at(script, at, f"unsupported: in long window {window} {what}")

    name, where = call.function.removesuffix("_where"), call.function.endswith("_where")
    if name not in _KEPT:
        raise refuse(f"{call.function}(), of which OpenMLDB keeps no aggregates", call.at)
    if not isinstance(call.arguments[0], (syntax.Name, syntax.Star)):
        raise refuse("an aggregate of something that is not a column", call.arguments[0].at)
    if where and len(call.arguments) > 1:
        condition = call.arguments[1]
        column = _compared(condition)
        if column is None:
            raise refuse("a condition that does not compare a column with a constant", condition.at)
        if bucket.isdigit():
            raise refuse(f"{call.function}() with a bucket of rows", call.at)
        position = table.positions.get(column.parts[-1])
        if position is not None and table.columns[position].type in (Type.DATE, Type.TIMESTAMP):
            raise refuse(f"a condition on a {table.columns[position].type}", condition.at)


def _compared(condition: syntax.Expr) -> syntax.Name | None:
    """The column that a condition compares with a constant."""
    if isinstance(condition, syntax.Binary) and condition.operator in _COMPARISONS:
        for column, constant in ((condition.left, condition.right), (condition.right, condition.left)):
            if isinstance(column, syntax.Name) and isinstance(constant, syntax.Literal):
                return column
    return None

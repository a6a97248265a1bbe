"""DEPLOY … OPTIONS (long_windows='w:1d'): windows of which OpenMLDB keeps aggregates per span beside the rows.

The embedded engine answers them from the rows, like any other window. What OpenMLDB cannot keep aggregates of it
refuses, too, so that a script which runs here runs there.
"""

from __future__ import annotations

from streaming.engine.errors import error_at
from streaming.engine.plan.scope import children
from streaming.engine.sql import syntax

__all__ = ["check_long_windows"]

_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")


def check_long_windows(statement: syntax.Deploy, script: str) -> None:
    """Refuses conditions of `…_where` over a long window that do not compare a column with a constant.

    Raises:
        UnsupportedSQL: names the condition's place.
    """
    windows = {one.partition(":")[0].strip() for one in str(statement.options.get("long_windows", "")).split(",")}
    waiting: list[syntax.Expr] = [item.expr for item in statement.select.items]
    while waiting:
        expr = waiting.pop()
        waiting += children(expr)
        if not isinstance(expr, syntax.Over) or expr.window not in windows or not isinstance(expr.operand, syntax.Call):
            continue
        call = expr.operand
        if call.function.endswith("_where") and len(call.arguments) > 1 and not _simple(call.arguments[1]):
            raise error_at(
                script,
                call.arguments[1].at,
                f"unsupported: in long window {expr.window} a condition that does not compare a column with a constant",
            )


def _simple(condition: syntax.Expr) -> bool:
    if not isinstance(condition, syntax.Binary) or condition.operator not in _COMPARISONS:
        return False
    sides = (condition.left, condition.right)
    return any(isinstance(a, syntax.Name) and isinstance(b, syntax.Literal) for a, b in (sides, sides[::-1]))

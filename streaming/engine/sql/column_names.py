"""The name of a column that has no alias: its expression as OpenMLDB writes it, quotes and parentheses left out."""

from __future__ import annotations

from streaming.engine.sql import syntax
from streaming.engine.types import Type

__all__ = ["default_name"]

_TYPES = {Type.SMALLINT: "INT16", Type.INT: "INT32", Type.BIGINT: "INT64"}


def default_name(expr: syntax.Expr) -> str:
    """The name of `expr` where it is selected without one."""
    if isinstance(expr, syntax.Name):
        return expr.parts[-1]
    return _text(expr)


def _text(expr: syntax.Expr) -> str:
    if isinstance(expr, syntax.Literal):
        if isinstance(expr.value, bool) or expr.value is None:
            return "null" if expr.value is None else str(expr.value).lower()
        return f"{expr.value:f}" if isinstance(expr.value, float) else str(expr.value)
    if isinstance(expr, syntax.Name):
        return ".".join(expr.parts)
    if isinstance(expr, syntax.Star):
        return "*" if expr.table is None else f"{expr.table}.*"
    if isinstance(expr, syntax.Unary):
        return f"{expr.operator.upper()} {_text(expr.operand)}"
    if isinstance(expr, syntax.Binary):
        return f"{_text(expr.left)} {expr.operator.upper()} {_text(expr.right)}"
    if isinstance(expr, syntax.Call):
        return f"{expr.function}({_list(expr.arguments, ', ')})"
    if isinstance(expr, syntax.Cast):
        return f"{_TYPES.get(expr.type, str(expr.type).upper())}({_text(expr.operand)})"
    if isinstance(expr, syntax.Over):
        return f"{_text(expr.operand)}over {expr.window if isinstance(expr.window, str) else 'ANONYMOUS_WINDOW '}"
    if isinstance(expr, syntax.In):
        return f"{_text(expr.operand)} {'not ' if expr.negated else ''}in ({_list(expr.choices, ',')})"
    if isinstance(expr, syntax.Between):
        word = "not  between" if expr.negated else "between"
        return f"{_text(expr.operand)} {word} {_text(expr.low)} and {_text(expr.high)}"
    if isinstance(expr, syntax.Like):
        escape = "" if expr.escape is None else f" ESCAPE {_text(expr.escape)}"
        found = f"{_text(expr.operand)} {expr.kind.upper()} {_text(expr.pattern)}{escape}"
        return f"NOT {found}" if expr.negated else found
    if isinstance(expr, syntax.IsNull):
        return f"{_text(expr.operand)} IS {'NOT ' if expr.negated else ''}NULL"
    subject = "" if expr.operand is None else f"{_text(expr.operand)} = "
    whens = ",".join(f"when {subject}{_text(when)} then {_text(then)}" for when, then in expr.whens)
    return f"case ({whens}) else {'null' if expr.otherwise is None else _text(expr.otherwise)}"


def _list(exprs: tuple[syntax.Expr, ...], separator: str) -> str:
    return separator.join(map(_text, exprs))

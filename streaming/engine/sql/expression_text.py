"""An expression as SQL for people, without its OVERs and without the tables of its columns."""

from __future__ import annotations

from streaming.engine.sql import syntax

__all__ = ["expression_text"]

_SIMPLE = (syntax.Literal, syntax.Name, syntax.Star, syntax.Call, syntax.Cast, syntax.Case)


def expression_text(expr: syntax.Expr) -> str:
    """One line of SQL. What is computed is in it; over which window, and of which table, is not."""
    if isinstance(expr, syntax.Literal):
        return _literal(expr.value)
    if isinstance(expr, syntax.Name):
        return expr.parts[-1]
    if isinstance(expr, syntax.Star):
        return "*"
    if isinstance(expr, syntax.Over):
        return expression_text(expr.operand)
    if isinstance(expr, syntax.Call):
        return f"{expr.function}({_list(expr.arguments)})"
    if isinstance(expr, syntax.Cast):
        return f"cast({expression_text(expr.operand)} as {expr.type})"
    if isinstance(expr, syntax.Unary):
        word = expr.operator.upper()
        return f"{word}{' ' if word.isalpha() else ''}{_part(expr.operand)}"
    if isinstance(expr, syntax.Binary):
        return f"{_part(expr.left)} {expr.operator.upper()} {_part(expr.right)}"
    if isinstance(expr, syntax.Case):
        return _case(expr)
    if isinstance(expr, syntax.IsNull):
        return f"{_part(expr.operand)} IS {'NOT ' if expr.negated else ''}NULL"
    negated = "NOT " if expr.negated else ""
    if isinstance(expr, syntax.In):
        return f"{_part(expr.operand)} {negated}IN ({_list(expr.choices)})"
    if isinstance(expr, syntax.Between):
        return f"{_part(expr.operand)} {negated}BETWEEN {_part(expr.low)} AND {_part(expr.high)}"
    escape = "" if expr.escape is None else f" ESCAPE {_part(expr.escape)}"
    return f"{_part(expr.operand)} {negated}{expr.kind.upper()} {_part(expr.pattern)}{escape}"


def _case(expr: syntax.Case) -> str:
    subject = "" if expr.operand is None else f" {expression_text(expr.operand)}"
    whens = "".join(f" WHEN {expression_text(when)} THEN {expression_text(then)}" for when, then in expr.whens)
    otherwise = "" if expr.otherwise is None else f" ELSE {expression_text(expr.otherwise)}"
    return f"CASE{subject}{whens}{otherwise} END"


def _part(expr: syntax.Expr) -> str:
    """As an operand of another: in parentheses where it has an operator of its own."""
    inner = expr
    while isinstance(inner, syntax.Over):
        inner = inner.operand
    text = expression_text(inner)
    return text if isinstance(inner, _SIMPLE) else f"({text})"


def _list(exprs: tuple[syntax.Expr, ...]) -> str:
    return ", ".join(map(expression_text, exprs))


def _literal(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).upper()
    return repr(value) if isinstance(value, str) else str(value)  # of which all can be printed

"""Whether any record can keep CHECKs: tried out with the values at which comparisons with constants change.

Only conditions that compare one column with constants, or with itself, are looked at: of these few values tell all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from streaming.engine.plan.scope import conjuncts
from streaming.engine.sql import syntax
from streaming.engine.sql.stream_syntax import Check, StreamColumn
from streaming.engine.types import Type, is_integer

__all__ = ["contradiction"]

_EQUAL = frozenset({"=", "!=", "and", "or", "xor"})
_ORDER = frozenset({"<", "<=", ">", ">="})

Tried = Callable[[Sequence[syntax.Expr], str, Sequence[object]], Sequence[Sequence[object]]]
"""Conditions, a column and values of it → for each condition, what it is of each value: True, False or None."""


def contradiction(
    columns: Sequence[StreamColumn],
    checks: Sequence[Check],
    limits: Callable[[StreamColumn], tuple[int, int]],
    tried: Tried,
) -> Check | None:
    """The first CHECK that, with those before it, is false of every value of a column; None: there is none.

    Args:
        columns: of the stream.
        checks: its CHECKs.
        limits: the least and the greatest number of a whole column; the least and the greatest length of a text one.
        tried: computes conditions.
    """
    by_name = {column.name: column for column in columns}
    parts = [(check, part, _column(part)) for check in checks for part in conjuncts(check.condition)]
    for column in by_name.values():
        about = [(check, part) for check, part, name in parts if name == column.name and _is_plain(part, column.type)]
        values = _values(column.type, [value for _, part in about for value in _constants(part)], limits(column))
        if not about or not values:
            continue
        left = set(range(len(values)))
        for (check, _), answers in zip(about, tried([part for _, part in about], column.name, values), strict=True):
            left -= {at for at, answer in enumerate(answers) if answer is False}
            if not left:
                return check
    return None


def _parts(expr: syntax.Expr) -> tuple[syntax.Expr, ...] | None:
    """What a comparison, or a joint of some, is made of; None: it is another expression."""
    if isinstance(expr, syntax.Binary) and expr.operator in _EQUAL | _ORDER:
        return expr.left, expr.right
    if isinstance(expr, syntax.Unary) and expr.operator in ("not", "!", "-"):
        return (expr.operand,)
    if isinstance(expr, syntax.IsNull):
        return (expr.operand,)
    if isinstance(expr, syntax.Call) and expr.function in ("isnull", "is_null", "not"):
        return expr.arguments
    if isinstance(expr, syntax.In):
        return expr.operand, *expr.choices
    if isinstance(expr, syntax.Between):
        return expr.operand, expr.low, expr.high
    return () if isinstance(expr, (syntax.Name, syntax.Literal)) else None


def _column(expr: syntax.Expr) -> str | None:
    """The one column that an expression reads; None: it reads none, or several."""
    names = {one.parts[-1] for one in _all(expr) if isinstance(one, syntax.Name)}
    return names.pop() if len(names) == 1 else None


def _all(expr: syntax.Expr) -> Iterator[syntax.Expr]:
    yield expr
    for part in _parts(expr) or ():
        yield from _all(part)


def _is_plain(expr: syntax.Expr, kind: Type) -> bool:
    """Whether an expression is made of comparisons with constants alone; of texts: whether they are equal."""
    for one in _all(expr):
        if _parts(one) is None:
            return False
        ordered = isinstance(one, syntax.Between) or (isinstance(one, syntax.Binary) and one.operator in _ORDER)
        if ordered and kind == Type.STRING:
            return False
        if isinstance(one, syntax.Literal) and kind == Type.STRING and not isinstance(one.value, str):
            return False
        if isinstance(one, syntax.Unary) and one.operator == "-" and not isinstance(one.operand, syntax.Literal):
            return False
    return True


def _constants(expr: syntax.Expr) -> Iterator[object]:
    for one in _all(expr):
        if isinstance(one, syntax.Literal):
            yield one.value
            if isinstance(one.value, (int, float)):
                yield -one.value


def _values(kind: Type, constants: Sequence[object], limits: tuple[int, int]) -> list[object]:
    """Values of a type, of each two of which some comparison with the constants differs; []: the type is not tried."""
    if kind == Type.BOOL:
        return [False, True]
    if kind == Type.STRING:
        texts = [one for one in constants if isinstance(one, str)]
        other = next(text for text in (chr(ord("a") + at) for at in range(len(texts) + 1)) if text not in texts)
        return _within(limits, {text: len(text) for text in ("", other, *texts)})
    numbers = [one for one in constants if isinstance(one, (int, float)) and math.isfinite(one)]
    if is_integer(kind):
        near = {round(one) + step for one in numbers for step in (-2, -1, 0, 1, 2)} | {0, *limits}
        return _within(limits, {number: number for number in near})
    if kind == Type.DOUBLE:
        reals = [float(one) for one in numbers if abs(one) < 1e300]
        return list({0.0, *reals, *(_next_to(one, sign) for one in reals for sign in (-1, 1))})
    return []


def _within(limits: tuple[int, int], sizes: Mapping[str, int] | Mapping[int, int]) -> list[object]:
    return [value for value, size in sizes.items() if limits[0] <= size <= limits[1]]


def _next_to(number: float, sign: int) -> float:
    """The next greater number, or the next less."""
    return float(np.nextafter(number, sign * np.inf))

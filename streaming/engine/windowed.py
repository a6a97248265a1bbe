"""The aggregates: their names, argument types, results, and the kernel or Python function of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streaming.engine.functions import Mismatch, bits, condition
from streaming.engine.machine import Op
from streaming.engine.nodes import Aggregate, Const, Group, HostAggregate, Node
from streaming.engine.types import Type, is_integer, is_number

__all__ = ["AGGREGATES", "canonical"]

# the spellings of OpenMLDB before 0.5
_OLD_NAMES = {"fz_top1_ratio": "top1_ratio", "fz_topn_frequency": "topn_frequency"}

Builder = Callable[[Group, int, Sequence[Node]], Node]


def canonical(name: str) -> str:
    """The name of today for an older one."""
    return _OLD_NAMES.get(name, name)


def _arity(arguments: Sequence[Node], n: int) -> None:
    if len(arguments) != n:
        raise Mismatch(f"{len(arguments)} arguments instead of {n}")


def _constant(node: Node, low: int) -> int:
    if not isinstance(node, Const) or not is_integer(node.type) or node.null or node.word < low:
        raise Mismatch(f"a number that is not a constant of {low} or more")
    return node.word


def _count(group: Group, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    return Aggregate(Type.BIGINT, Op.COUNT, group, frame, arguments[0], condition)


def _sum(group: Group, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    kind = arguments[0].type
    if not is_number(kind):
        raise Mismatch(f"a {kind}")
    op = Op.SUM if is_integer(kind) else Op.FSUM
    return Aggregate(kind, op, group, frame, arguments[0], condition, bits=bits(kind))


def _avg(group: Group, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    kind = arguments[0].type
    if not is_number(kind):
        raise Mismatch(f"a {kind}")
    op = Op.AVG if is_integer(kind) else Op.FAVG
    return Aggregate(Type.DOUBLE, op, group, frame, arguments[0], condition)


def _extreme(whole: Op, real: Op, text: Op) -> Callable[[Group, int, Sequence[Node], Node | None], Node]:
    def build(group: Group, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
        kind = arguments[0].type
        if is_integer(kind) or kind in (Type.TIMESTAMP, Type.DATE):
            op = whole
        elif is_number(kind):
            op = real
        elif kind == Type.STRING:
            op = text
        else:
            raise Mismatch(f"a {kind}")
        return Aggregate(kind, op, group, frame, arguments[0], condition)

    return build


_FOLDS: dict[str, Callable[[Group, int, Sequence[Node], Node | None], Node]] = {
    "count": _count,
    "sum": _sum,
    "avg": _avg,
    "min": _extreme(Op.MIN, Op.FMIN, Op.SMIN),
    "max": _extreme(Op.MAX, Op.FMAX, Op.SMAX),
}


def _plain(name: str) -> Builder:
    def build(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 1)
        return _FOLDS[name](group, frame, arguments, None)

    return build


def _where(name: str) -> Builder:
    def build(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2)
        return _FOLDS[name](group, frame, arguments[:1], condition(arguments[1]))

    return build


def _frequency(kind: str, result: Type) -> Builder:
    def build(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2 if kind == "topn_frequency" else 1)
        value, number = arguments[0], 0
        if value.type in (Type.NULL, Type.BOOL):
            raise Mismatch(f"a {value.type}")
        if kind == "topn_frequency":
            number = _constant(arguments[1], 1)
            if value.type in (Type.FLOAT, Type.DOUBLE):
                return HostAggregate(result, _TopFloats(number), group, frame, (value,))
            if not is_integer(value.type) and value.type != Type.STRING:
                raise Mismatch(f"a {value.type}")
        return Aggregate(result, kind, group, frame, value, None, number)

    return build


class _TopFloats:
    """topn_frequency of floats, whose text C++ makes by %f."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, rows: list[tuple[float | None, ...]]) -> str:
        counts: dict[float, int] = {}
        for (value,) in rows:
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        best = sorted(counts, key=lambda value: (-counts[value], value))[: self.number]
        return ",".join([f"{value:f}" for value in best] + ["NULL"] * (self.number - len(best)))


def _place(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
    _arity(arguments, 2)
    return Aggregate(arguments[0].type, Op.AT, group, frame, arguments[0], None, _constant(arguments[1], 0))


def _newest(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
    _arity(arguments, 1)
    return Aggregate(arguments[0].type, Op.AT, group, frame, arguments[0], None)


def _oldest(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
    _arity(arguments, 1)
    return Aggregate(arguments[0].type, Op.OLDEST, group, frame, arguments[0], None)


class _ByCategory:
    """`k1:v1,k2:v2`: an aggregate of each category's values, in order of the categories.

    Rows whose value, category or condition is NULL, or whose condition is false, do not count.

    Args:
        name: count, sum, min or max.
        width: bits of the values' type, at which sums wrap.
        where: whether a condition stands between value and category.
        number: only so many categories, the greatest first; 0: all, the smallest first.
    """

    def __init__(self, name: str, width: int, where: bool, number: int) -> None:
        self.name, self.width, self.where, self.number = name, width, where, number

    def __call__(self, rows: list[tuple[Any, ...]]) -> str:
        groups: dict[Any, list[int]] = {}
        for row in rows:
            if None not in row and (not self.where or row[1]):
                groups.setdefault(row[-1], []).append(row[0])
        keys = sorted(groups, key=lambda key: key.encode() if isinstance(key, str) else key, reverse=self.number > 0)
        if self.number:
            keys = keys[: self.number]
        return ",".join(f"{key}:{self.value(groups[key])}" for key in keys)

    def value(self, values: list[int]) -> int:
        """The aggregate of one category."""
        if self.name == "sum":
            half = 1 << (self.width - 1)
            return (sum(values) + half) % (2 * half) - half
        if self.name == "count":
            return len(values)
        return min(values) if self.name == "min" else max(values)


def _by_category(name: str, where: bool, top: bool) -> Builder:
    def build(group: Group, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2 + where + top)
        value, category = arguments[0], arguments[1 + where]
        if not is_integer(value.type) or not (is_integer(category.type) or category.type == Type.STRING):
            raise Mismatch(f"a {value.type} by a {category.type}")
        used = [value, *([condition(arguments[1])] if where else []), category]
        function = _ByCategory(name, bits(value.type), where, _constant(arguments[3], 1) if top else 0)
        return HostAggregate(Type.STRING, function, group, frame, tuple(used))

    return build


AGGREGATES: dict[str, Builder] = {
    **{f"{name}_cate": _by_category(name, where=False, top=False) for name in _FOLDS if name != "avg"},
    **{f"{name}_cate_where": _by_category(name, where=True, top=False) for name in _FOLDS if name != "avg"},
    **{f"top_n_key_{name}_cate_where": _by_category(name, where=True, top=True) for name in _FOLDS if name != "avg"},
    **{name: _plain(name) for name in _FOLDS},
    **{f"{name}_where": _where(name) for name in _FOLDS},
    "distinct_count": _frequency("distinct_count", Type.BIGINT),
    "top1_ratio": _frequency("top1_ratio", Type.DOUBLE),
    "topn_frequency": _frequency("topn_frequency", Type.STRING),
    "at": _place,
    "lag": _place,
    "first_value": _oldest,
    "last_value": _newest,
}

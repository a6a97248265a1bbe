"""The aggregates: their names, argument types, results, and the kernel or Python function of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streaming.engine.kernels.instructions import FrequencyKind, Op
from streaming.engine.library.by_category import ByCategory
from streaming.engine.library.overload import INTEGERS, NUMBERS
from streaming.engine.library.statistics import (
    average_weighted,
    drawdown,
    entropy,
    first_known,
    greatest,
    last_known,
    median,
    nth_where,
    spread,
    top_floats,
)
from streaming.engine.plan.casts import Mismatch, bits, cast
from streaming.engine.plan.functions import choose, compare, condition, logic
from streaming.engine.plan.nodes import Aggregate, Const, Node, PythonAggregate, WindowColumn, WindowGroup
from streaming.engine.plan.stray_bits import check_bool, check_null, never_null
from streaming.engine.types import Type, is_integer, is_number

__all__ = ["AGGREGATES", "canonical"]

# what OpenMLDB before 0.5 spelled with fz_ before it
_OLD_NAMES = {
    f"fz_{name}": name
    for name in (
        "top1_ratio",
        "topn_frequency",
        "join",
        "split",
        "split_by_key",
        "split_by_value",
        "window_split",
        "window_split_by_key",
        "window_split_by_value",
    )
}

Builder = Callable[[WindowGroup, int, Sequence[Node]], Node]


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


_ANY = tuple(kind for kind in Type if kind != Type.NULL)
_ORDERED = tuple(kind for kind in _ANY if kind != Type.BOOL)
_CATEGORIES = (*INTEGERS, Type.TIMESTAMP, Type.DATE, Type.STRING)
_COUNTS = (Type.INT, Type.BIGINT)


def _one_of(node: Node, kinds: Sequence[Type]) -> None:
    if node.type not in kinds:
        raise Mismatch(f"a {node.type}")


def _count(group: WindowGroup, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    _one_of(arguments[0], _ANY)
    return Aggregate(Type.BIGINT, Op.COUNT, group, frame, arguments[0], condition)


def _sum(group: WindowGroup, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    kind = arguments[0].type
    if not is_number(kind) and (kind != Type.TIMESTAMP or condition is not None):
        raise Mismatch(f"a {kind}")
    op = Op.FSUM if kind in (Type.FLOAT, Type.DOUBLE) else Op.SUM
    return Aggregate(kind, op, group, frame, arguments[0], condition, bits=bits(kind))


def _avg(group: WindowGroup, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
    kind = arguments[0].type
    if not is_number(kind):
        raise Mismatch(f"a {kind}")
    op = Op.AVG if is_integer(kind) else Op.FAVG
    return Aggregate(Type.DOUBLE, op, group, frame, arguments[0], condition)


def _extreme(whole: Op, real: Op, text: Op) -> Callable[[WindowGroup, int, Sequence[Node], Node | None], Node]:
    def build(group: WindowGroup, frame: int, arguments: Sequence[Node], condition: Node | None) -> Node:
        kind = arguments[0].type
        if condition is not None:
            _one_of(arguments[0], NUMBERS)
        if is_integer(kind) or kind in (Type.TIMESTAMP, Type.DATE):
            op = whole
        elif is_number(kind):
            op = real
        elif kind == Type.STRING:
            op = text
        else:
            raise Mismatch(f"a {kind}")
        node = Aggregate(kind, op, group, frame, arguments[0], condition, bits=bits(kind))
        if kind == Type.TIMESTAMP and op == Op.MAX:  # OpenMLDB begins with 1970
            return choose(compare("<", node, Const(kind, 0)), Const(kind, 0), node)
        return node

    return build


_FOLDS: dict[str, Callable[[WindowGroup, int, Sequence[Node], Node | None], Node]] = {
    "count": _count,
    "sum": _sum,
    "avg": _avg,
    "min": _extreme(Op.MIN, Op.FMIN, Op.SMIN),
    "max": _extreme(Op.MAX, Op.FMAX, Op.SMAX),
}


def _plain(name: str) -> Builder:
    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 1)
        return _FOLDS[name](group, frame, arguments, None)

    return build


def _where(name: str) -> Builder:
    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2)
        test = condition(arguments[1])
        if name in ("sum", "avg") and is_number(arguments[0].type):
            test = logic("and", cast(arguments[0], Type.BOOL), test)  # to OpenMLDB a value of 0 is a false one
        return _FOLDS[name](group, frame, arguments[:1], test)

    return build


def _frequency(kind: FrequencyKind, result: Type) -> Builder:
    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2 if kind == FrequencyKind.TOPN_FREQUENCY else 1)
        value, number = arguments[0], 0
        _one_of(value, _ANY if kind == FrequencyKind.DISTINCT_COUNT else _ORDERED)
        if kind == FrequencyKind.DISTINCT_COUNT:
            check_bool(value)
            if not isinstance(value, WindowColumn) and not never_null(value):
                raise Mismatch(
                    "what may be NULL and is not a column, of which OpenMLDB counts what lies in its memory: "
                    "if_null(x, …) says what a NULL counts as"
                )
        else:
            check_null(value)
        if kind == FrequencyKind.TOPN_FREQUENCY:
            if arguments[1].type != Type.INT:
                raise Mismatch(f"a number of type {arguments[1].type}")
            number = _constant(arguments[1], 1)
            if not is_integer(value.type) and value.type != Type.STRING:
                return PythonAggregate(result, top_floats(number, value.type), group, frame, (value,))
        return Aggregate(result, kind, group, frame, value, None, number)

    return build


def _place(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
    _arity(arguments, 2)
    return Aggregate(arguments[0].type, Op.AT, group, frame, arguments[0], None, _constant(arguments[1], 0))


def _end(op: Op, known: Callable[[list[tuple[Any, ...]]], Any]) -> Builder:
    """The value of the newest or the oldest row; with `true` behind it, of those where it is not NULL."""

    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        if not arguments:
            raise Mismatch("no arguments")
        if len(arguments) > 1:
            _arity(arguments, 2)
            skip = arguments[1]
            if not isinstance(skip, Const) or skip.type != Type.BOOL:
                raise Mismatch("a second argument that is not true or false")
            if skip.word:
                return PythonAggregate(arguments[0].type, known, group, frame, (arguments[0],))
        return Aggregate(arguments[0].type, op, group, frame, arguments[0], None)

    return build


def _in_python(
    function: Callable[[list[tuple[Any, ...]]], Any], kinds: Sequence[Type], *more: Sequence[Type], same: bool = False
) -> Builder:
    """An aggregate of values of `kinds`, a double, or, with `same`, of its first argument's type.

    Args:
        more: the types that each further argument may have.
    """

    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 1 + len(more))
        for argument, allowed in zip(arguments, (kinds, *more), strict=True):
            _one_of(argument, allowed)
        for argument in arguments[same:]:  # what is only passed on may have any bits
            check_bool(argument)
            check_null(argument)
        result = arguments[0].type if same else Type.DOUBLE
        return PythonAggregate(result, function, group, frame, tuple(arguments))

    return build


def _by_type(function: Callable[[Type], Callable[[list[tuple[Any, ...]]], float | None]]) -> Builder:
    """An aggregate in Python of numbers, a double, whose steps have the width of their type."""

    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 1)
        _one_of(arguments[0], NUMBERS)
        check_null(arguments[0])
        return PythonAggregate(Type.DOUBLE, function(arguments[0].type), group, frame, (arguments[0],))

    return build


def _top(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
    _arity(arguments, 2)
    _one_of(arguments[0], _ORDERED)
    _one_of(arguments[1], _COUNTS)
    check_null(arguments[0])
    function = greatest(arguments[0].type, _constant(arguments[1], 1))
    return PythonAggregate(Type.STRING, function, group, frame, (arguments[0],))


def _by_category(name: str, where: bool, top: str | None = None) -> Builder:
    def build(group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
        _arity(arguments, 2 + where + (top is not None))
        value, category = arguments[0], arguments[1 + where]
        _one_of(value, _ANY if name in ("count", "ratio") else NUMBERS)
        _one_of(category, _CATEGORIES)
        number = 0
        if top is not None:
            _one_of(arguments[3], _COUNTS)
            number = _constant(arguments[3], -(1 << 31))
        check_null(category)
        if category.type != Type.STRING:  # beside a text OpenMLDB's functions look at the lowest bit of the others
            check_null(value)
            if where:
                check_null(arguments[1])
                check_bool(arguments[1])
        used = (value, *([condition(arguments[1])] if where else []), category)
        function = ByCategory(name, value.type, category.type, where, top, number)
        return PythonAggregate(Type.STRING, function, group, frame, used)

    return build


_SAMPLE_DEVIATION = _in_python(spread(sample=True, root=True), NUMBERS)
_SAMPLE_VARIANCE = _in_python(spread(sample=True, root=False), NUMBERS)

AGGREGATES: dict[str, Builder] = {
    **{name: _plain(name) for name in _FOLDS},
    **{f"{name}_where": _where(name) for name in _FOLDS},
    **{f"{name}_cate": _by_category(name, where=False) for name in _FOLDS},
    **{f"{name}_cate_where": _by_category(name, where=True) for name in _FOLDS},
    **{f"top_n_{top}_{name}_cate_where": _by_category(name, True, top) for name in _FOLDS for top in ("key", "value")},
    **{f"top_n_{top}_ratio_cate": _by_category("ratio", True, top) for top in ("key", "value")},
    "at": _place,
    "distinct_count": _frequency(FrequencyKind.DISTINCT_COUNT, Type.BIGINT),
    "drawdown": _by_type(drawdown),
    "entropy": _in_python(entropy, _ANY),
    "ew_avg": _in_python(average_weighted, NUMBERS, (Type.DOUBLE,)),
    "first_value": _end(Op.OLDEST, first_known),
    "lag": _place,
    "last_value": _end(Op.AT, last_known),
    "median": _by_type(median),
    "nth_value_where": _in_python(nth_where, _ANY, INTEGERS, (Type.BOOL,), same=True),
    "std": _SAMPLE_DEVIATION,
    "stddev": _SAMPLE_DEVIATION,
    "stddev_pop": _in_python(spread(sample=False, root=True), NUMBERS),
    "stddev_samp": _SAMPLE_DEVIATION,
    "top": _top,
    "top1_ratio": _frequency(FrequencyKind.TOP1_RATIO, Type.DOUBLE),
    "topn_frequency": _frequency(FrequencyKind.TOPN_FREQUENCY, Type.STRING),
    "var_pop": _in_python(spread(sample=False, root=False), NUMBERS),
    "var_samp": _SAMPLE_VARIANCE,
    "variance": _SAMPLE_VARIANCE,
}

"""Casts: a node as another type, as CAST does it, and where operands of several types meet."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable

from streaming.engine.kernels.instructions import FLOAT32, Op
from streaming.engine.library import CASTS
from streaming.engine.plan.nodes import Apply, Const, Node, PythonCall
from streaming.engine.types import Type, is_integer, is_number

__all__ = ["Mismatch", "bits", "cast", "is_numeric", "null", "promote"]


class Mismatch(Exception):
    """A function does not take these types; becomes UnsupportedSQL where the place in the script is known."""


_BITS = {Type.SMALLINT: 16, Type.INT: 32, Type.BIGINT: 64, Type.TIMESTAMP: 64, Type.FLOAT: FLOAT32}


def bits(kind: Type) -> int:
    """The `bits` of an instruction whose result is a `kind`."""
    return _BITS.get(kind, 64)


def _float_word(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def cast(node: Node, target: Type) -> Node:
    """`node` as a `target`, as CAST does it."""
    source = node.type
    if source == target:
        return node
    if source == Type.NULL:
        return null(target)
    if isinstance(node, Const) and is_integer(source) and not node.null:
        if is_integer(target) and -(1 << bits(target) - 1) <= node.word < 1 << bits(target) - 1:
            return Const(target, node.word)
        if target in (Type.FLOAT, Type.DOUBLE):
            value = float(node.word)
            return Const(target, _float_word(_float32(value) if target == Type.FLOAT else value))
    if isinstance(node, Const) and source == Type.DOUBLE and target == Type.FLOAT and not node.null:
        return Const(target, _float_word(_float32(struct.unpack("<d", struct.pack("<q", node.word))[0])))
    if source == Type.DATE and (target == Type.BOOL or is_number(target)):
        return null(target)  # OpenMLDB compiles it, and answers so
    whole = is_integer(source) or source in (Type.BOOL, Type.TIMESTAMP)
    if target == Type.BOOL:
        if whole or source == Type.BOOL:
            return Apply(target, Op.TRUTH, (node,))
        if is_number(source):
            return Apply(target, Op.FTRUTH, (node,))
    elif is_integer(target) or target == Type.TIMESTAMP:
        if target == Type.TIMESTAMP and source == Type.DATE:
            return Apply(target, Op.TIMESTAMP_OF, (node,))
        converted: Node | None = None
        if whole:
            converted = Apply(target, Op.WRAP, (node,), bits(target))
        elif source in (Type.FLOAT, Type.DOUBLE):
            _check_fits(node, target)
            converted = Apply(target, Op.TO_INT, (node,), bits(target))
        if converted is not None:
            if target == Type.TIMESTAMP:  # a negative number is no timestamp
                limits = (Const(Type.BIGINT, 0), Const(Type.BIGINT, (1 << 63) - 1))
                return Apply(target, Op.IN_RANGE, (converted, *limits))
            return converted
    elif target in (Type.FLOAT, Type.DOUBLE):
        if whole:
            return Apply(target, Op.TO_FLOAT, (node,), bits(target))
        if source == Type.FLOAT:
            return Apply(target, Op.COPY, (node,))
        if source == Type.DOUBLE:
            return Apply(target, Op.ROUND32, (node,))
    elif target == Type.DATE and source == Type.TIMESTAMP:
        return Apply(target, Op.DATE_OF, (node,))
    function = CASTS.get((source, target))
    if function is None:
        raise Mismatch(f"a {source} as a {target}")
    return PythonCall(target, function, (node,))


def _check_fits(node: Node, target: Type) -> None:
    """A constant beyond an integer's range is nothing to OpenMLDB's compiler, which folds it, and all that is made of
    it, into what happens to lie in a register: now 0, now an address."""
    value, half = _number(node), 1 << bits(target) - 1
    if value is not None and not -half - 1 < value < half:
        raise Mismatch(f"the constant {value:g}, which does not fit {target}: OpenMLDB's answer is undefined")


def _number(node: Node) -> float | None:
    """The value of a constant, also of one that is computed; None: it is none."""
    if isinstance(node, Const):
        is_float = node.type in (Type.FLOAT, Type.DOUBLE) and not node.null
        return float(struct.unpack("<d", struct.pack("<q", node.word))[0]) if is_float else None
    if not (isinstance(node, Apply) and node.op in _FOLDED):
        return None
    operands = [_number(argument) for argument in node.arguments]
    known = [operand for operand in operands if operand is not None]
    return _FOLDED[node.op](*known) if len(known) == len(operands) else None


_FOLDED: dict[Op, Callable[..., float]] = {
    Op.FNEG: operator.neg,
    Op.FADD: operator.add,
    Op.FSUB: operator.sub,
    Op.FMUL: operator.mul,
}


def null(kind: Type) -> Const:
    """NULL, typed."""
    return Const(kind, 0, True)


def is_numeric(kind: Type) -> bool:
    """Whether arithmetic and comparison take it as a number: a bool is 0 or 1."""
    return Type.BOOL <= kind <= Type.DOUBLE


def promote(a: Node, b: Node) -> tuple[Node, Node, Type]:
    """Both numbers as the wider of their types."""
    target = max(a.type, b.type)
    return cast(a, target), cast(b, target), target

"""What each operator and function means: argument types, result type, and the instruction or Python function.

To add a scalar function, write it for Python values in `library` and register it there; to add an aggregate, register
it in `windowed`. Kernels are for what is called often.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from streaming.engine.library import ALIASES, CASTS, FUNCTIONS, NULL_AWARE, VARIADIC
from streaming.engine.machine import Op
from streaming.engine.nodes import Apply, Const, Host, Node
from streaming.engine.types import Type, is_integer, is_number

__all__ = ["Mismatch", "arithmetic", "cast", "compare", "logic", "negate", "same_type", "scalar"]


class Mismatch(Exception):
    """A function does not take these types; becomes UnsupportedSQL where the place in the script is known."""


_BITS = {Type.SMALLINT: 16, Type.INT: 32, Type.BIGINT: 64, Type.TIMESTAMP: 64, Type.FLOAT: 1}


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
        return Const(target, 0, True)
    if isinstance(node, Const) and is_integer(source) and not node.null:
        if is_integer(target) and -(1 << bits(target) - 1) <= node.word < 1 << bits(target) - 1:
            return Const(target, node.word)
        if target in (Type.FLOAT, Type.DOUBLE):
            value = float(node.word)
            return Const(target, _float_word(_float32(value) if target == Type.FLOAT else value))
    if isinstance(node, Const) and source == Type.DOUBLE and target == Type.FLOAT and not node.null:
        return Const(target, _float_word(_float32(struct.unpack("<d", struct.pack("<q", node.word))[0])))
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
    return Host(target, function, (node,))


def _numeric(kind: Type) -> bool:
    """Whether arithmetic and comparison take it as a number: a bool is 0 or 1."""
    return Type.BOOL <= kind <= Type.DOUBLE


def promote(a: Node, b: Node) -> tuple[Node, Node, Type]:
    """Both numbers as the wider of their types."""
    target = max(a.type, b.type)
    return cast(a, target), cast(b, target), target


_INTEGER_OPS = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL}
_FLOAT_OPS = {"+": Op.FADD, "-": Op.FSUB, "*": Op.FMUL, "%": Op.FMOD}
_BIT_OPS = {"&": Op.BIT_AND, "|": Op.BIT_OR, "^": Op.BIT_XOR}


def arithmetic(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for + - * / div % & | ^."""
    if a.type == Type.NULL and b.type != Type.NULL:
        a = cast(a, b.type)
    elif b.type == Type.NULL and a.type != Type.NULL:
        b = cast(b, a.type)
    moment = {a.type, b.type} & {Type.TIMESTAMP}
    if (moment and operator == "+") or (operator == "-" and a.type == Type.TIMESTAMP and b.type != Type.TIMESTAMP):
        if any(node.type not in _MOMENTS for node in (a, b)):
            raise Mismatch(f"{a.type} {operator} {b.type}")
        total = Apply(Type.BIGINT, _INTEGER_OPS[operator], (a, b), 64)
        return cast(total, Type.TIMESTAMP)
    if not (_numeric(a.type) and _numeric(b.type)):
        raise Mismatch(f"{a.type} {operator} {b.type}")
    if operator == "/":
        return Apply(Type.DOUBLE, Op.FDIV, (cast(a, Type.DOUBLE), cast(b, Type.DOUBLE)))
    if operator in _BIT_OPS and not (is_integer(a.type) and is_integer(b.type)):
        raise Mismatch(f"{a.type} {operator} {b.type}")
    a, b, target = promote(a, b)
    if target in (Type.FLOAT, Type.DOUBLE):
        if operator == "div":
            raise Mismatch(f"{a.type} div {b.type}")
        return Apply(target, _FLOAT_OPS[operator], (a, b), bits(target))
    op = {"div": Op.IDIV, "%": Op.MOD, **_BIT_OPS, **_INTEGER_OPS}[operator]
    if target == Type.BOOL:
        return Apply(Type.BOOL, Op.TRUTH, (Apply(Type.INT, op, (a, b), 32),))
    return Apply(target, op, (a, b), bits(target))


_MOMENTS = (Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT, Type.TIMESTAMP)


def negate(node: Node) -> Node:
    """`-node`."""
    if node.type in (Type.BOOL, Type.NULL):
        return node
    if is_integer(node.type):
        return Apply(node.type, Op.NEG, (node,), bits(node.type))
    if is_number(node.type):
        return Apply(node.type, Op.FNEG, (node,), bits(node.type))
    raise Mismatch(f"-{node.type}")


def compare(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for = != < <= > >=."""
    if operator in (">", ">="):
        return compare("<" if operator == ">" else "<=", b, a)
    if Type.NULL in (a.type, b.type):
        return Const(Type.BOOL, 0, True)
    if a.type != b.type:
        if Type.STRING in (a.type, b.type):  # the other side is compared as its text
            a, b = cast(a, Type.STRING), cast(b, Type.STRING)
        elif _numeric(a.type) and _numeric(b.type):
            a, b, _ = promote(a, b)  # as C++ does it: a bigint against a float is compared as a float
        else:
            raise Mismatch(f"{a.type} {operator} {b.type}")
    if a.type in (Type.FLOAT, Type.DOUBLE):
        op = {"=": Op.FEQ, "!=": Op.FNE, "<": Op.FLT, "<=": Op.FLE}[operator]
    elif a.type == Type.STRING:
        op = {"=": Op.EQ, "!=": Op.NE, "<": Op.SLT, "<=": Op.SLE}[operator]
    else:
        op = {"=": Op.EQ, "!=": Op.NE, "<": Op.LT, "<=": Op.LE}[operator]
    return Apply(Type.BOOL, op, (a, b))


def truth(node: Node) -> Node:
    """`node` as a condition."""
    if node.type == Type.BOOL:
        return node
    if node.type == Type.NULL or is_number(node.type):
        return cast(node, Type.BOOL)
    raise Mismatch(f"a {node.type} as a condition")


def logic(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for and, or, xor."""
    op = {"and": Op.AND, "or": Op.OR, "xor": Op.XOR}[operator]
    return Apply(Type.BOOL, op, (truth(a), truth(b)))


def invert(node: Node) -> Node:
    """`not node`."""
    return Apply(Type.BOOL, Op.NOT, (truth(node),))


def same_type(nodes: list[Node]) -> list[Node]:
    """The branches of a CASE, IFNULL … as one type: all the same, NULLs apart, or numbers, which are widened."""
    kinds = {node.type for node in nodes} - {Type.NULL}
    if not kinds:
        return nodes
    if len(kinds) == 1 or all(is_number(kind) for kind in kinds):
        target = max(kinds)
        return [cast(node, target) for node in nodes]
    raise Mismatch("branches of the types " + ", ".join(sorted(str(kind) for kind in kinds)))


def choose(condition: Node, yes: Node, no: Node) -> Node:
    """`if(condition, yes, no)`."""
    yes, no = same_type([yes, no])
    return Apply(yes.type, Op.SELECT, (truth(condition), yes, no))


def is_null(node: Node) -> Node:
    """`node is null`."""
    return Apply(Type.BOOL, Op.IS_NULL, (node,))


def if_null(node: Node, otherwise: Node) -> Node:
    """`ifnull(node, otherwise)`."""
    node, otherwise = same_type([node, otherwise])
    return Apply(node.type, Op.IF_NULL, (node, otherwise))


def _time_field(op: Op) -> Callable[[Node], Node]:
    def field(node: Node) -> Node:
        if is_integer(node.type):
            node = cast(node, Type.TIMESTAMP)
        if node.type == Type.DATE and op == Op.DAY_OF_WEEK:
            node = Apply(Type.TIMESTAMP, Op.TIMESTAMP_OF, (node,))
        if node.type != Type.TIMESTAMP:
            raise Mismatch(f"a {node.type}")
        return Apply(Type.INT, op, (node,))

    return field


SCALARS: dict[str, Callable[..., Node]] = {
    "identity": lambda node: node,
    "isnull": is_null,
    "is_null": is_null,
    "ifnull": if_null,
    "if_null": if_null,
    "nvl": if_null,
    "nvl2": lambda a, b, c: choose(is_null(a), c, b),
    "if": choose,
    "dayofweek": _time_field(Op.DAY_OF_WEEK),
    "hour": _time_field(Op.HOUR),
    "minute": _time_field(Op.MINUTE),
    "second": _time_field(Op.SECOND),
}


def _library(name: str, arguments: list[Node]) -> Node | None:
    name = ALIASES.get(name, name)
    if name in ("concat", "concat_ws"):
        if not arguments:
            raise Mismatch("no arguments")
        return Host(Type.STRING, VARIADIC[name], tuple(cast(node, Type.STRING) for node in arguments))
    overloads = FUNCTIONS.get(name)
    if overloads is None:
        return None
    for kinds, result, function in overloads:
        if len(kinds) == len(arguments) and all(
            node.type in (kind, Type.NULL) or (kind == Type.BIGINT and is_integer(node.type))
            for kind, node in zip(kinds, arguments, strict=True)
        ):
            typed = tuple(cast(node, kind) for kind, node in zip(kinds, arguments, strict=True))
            return Host(result, function, typed, name in NULL_AWARE)
    raise Mismatch(", ".join(str(node.type) for node in arguments) or "no arguments")


def scalar(name: str, arguments: list[Node]) -> Node | None:
    """The call of a scalar function; None where there is no such function.

    Raises:
        Mismatch: it does not take these arguments.
    """
    function: Any = SCALARS.get(name)
    if function is None:
        return _library(name, arguments)
    try:
        result: Node = function(*arguments)
    except TypeError:
        raise Mismatch(f"{len(arguments)} arguments") from None
    return result


def complement(node: Node) -> Node:
    """`~node`."""
    if not is_integer(node.type):
        raise Mismatch(f"~{node.type}")
    return Apply(node.type, Op.BIT_NOT, (node,), bits(node.type))

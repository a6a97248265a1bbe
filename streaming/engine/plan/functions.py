"""What each operator and function means: argument types, result type, and the instruction or Python function.

The rules of types are OpenMLDB's own, as its compiler applies them (`tests/cases/signatures.jsonl` has its verdicts).
To add a scalar function, write it for Python values in a module of `library` and register it there; to add an
aggregate, register it in `plan.aggregates`. Kernels are for what is called often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streaming.engine.kernels.instructions import Op
from streaming.engine.library import ALIASES, FUNCTIONS, VARIADIC, earth_distance
from streaming.engine.plan.casts import Mismatch, bits, cast, is_numeric, null, promote
from streaming.engine.plan.nodes import Apply, Const, Node, PythonCall
from streaming.engine.plan.stray_bits import check_bool, check_null
from streaming.engine.storage.strings import EMPTY
from streaming.engine.types import ZERO_DATE, Type, is_integer, is_number

__all__ = [
    "SCALARS",
    "arithmetic",
    "branches_of",
    "choose",
    "common_type",
    "compare",
    "complement",
    "condition",
    "conjunction",
    "if_null",
    "invert",
    "is_null",
    "logic",
    "negate",
    "same_type",
    "scalar",
    "truth",
]


_INTEGER_OPS = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "div": Op.IDIV, "%": Op.MOD}
_FLOAT_OPS = {"+": Op.FADD, "-": Op.FSUB, "*": Op.FMUL, "%": Op.FMOD}
_BIT_OPS = {"&": Op.BIT_AND, "|": Op.BIT_OR, "^": Op.BIT_XOR}
# of one bit: a sum and a difference are an exclusive or
_BOOL_OPS = {"+": Op.XOR, "-": Op.XOR, "*": Op.BIT_AND, "div": Op.IDIV, "%": Op.MOD}


def _arithmetic_of_null(operator: str, a: Node, b: Node) -> Node:
    """One side is the word NULL: the result is NULL, of the type that the other side gives it."""
    other = b.type if a.type == Type.NULL else a.type
    takes = is_integer(other) if operator in _BIT_OPS else is_numeric(other)
    if operator in ("+", "-"):
        takes = takes or other == Type.TIMESTAMP
    if operator == "/" and (takes or a.type == Type.TIMESTAMP):
        return null(Type.DOUBLE)
    if other == Type.NULL and operator != "/":
        return null(Type.BOOL)
    if not takes or (operator == "div" and other in (Type.FLOAT, Type.DOUBLE)):
        raise Mismatch(f"{a.type} {operator} {b.type}")
    return null(other)


def arithmetic(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for + - * / div % & | ^."""
    if operator not in _BIT_OPS and operator not in _INTEGER_OPS and operator != "/":
        raise Mismatch(f"operator {operator}")
    if Type.NULL in (a.type, b.type):
        return _arithmetic_of_null(operator, a, b)
    moment = {a.type, b.type} & {Type.TIMESTAMP}
    if (moment and operator == "+") or (operator == "-" and a.type == Type.TIMESTAMP and b.type != Type.TIMESTAMP):
        if any(node.type not in _MOMENTS for node in (a, b)):
            raise Mismatch(f"{a.type} {operator} {b.type}")
        if operator == "-" and b.type != Type.BOOL:
            b = negate(b)  # in its own width: the least int stays what it is
            operator = "+"
        return Apply(Type.TIMESTAMP, _INTEGER_OPS[operator], (a, b), 64)
    if not (is_numeric(a.type) and is_numeric(b.type)):
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
    if target == Type.BOOL:
        return Apply(Type.BOOL, _BOOL_OPS[operator], (a, b))
    return Apply(target, {**_BIT_OPS, **_INTEGER_OPS}[operator], (a, b), bits(target))


_MOMENTS = (Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT, Type.TIMESTAMP)


def negate(node: Node) -> Node:
    """`-node`."""
    if node.type in (Type.BOOL, Type.NULL):
        return node
    if is_integer(node.type):
        return Apply(node.type, Op.NEG, (node,), bits(node.type))
    if is_number(node.type):  # of 0.0 it is 0.0
        return Apply(node.type, Op.FSUB, (Const(node.type, 0), node), bits(node.type))
    raise Mismatch(f"-{node.type}")


def compare(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for = != < <= > >=."""
    if operator in (">", ">="):
        return compare("<" if operator == ">" else "<=", b, a)
    if Type.NULL in (a.type, b.type):
        return null(Type.BOOL)
    if a.type != b.type:
        if Type.STRING in (a.type, b.type):  # the other side is compared as its text
            a, b = cast(a, Type.STRING), cast(b, Type.STRING)
        elif is_numeric(a.type) and is_numeric(b.type):
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
    """`node` as an operand of and, or, xor, not."""
    if node.type == Type.BOOL:
        return node
    if node.type == Type.STRING:  # every text but the empty one, even 'false'
        return compare("!=", node, Const(Type.STRING, EMPTY))
    if node.type == Type.DATE:
        return Apply(Type.BOOL, Op.SAME_NULL, (Const(Type.BOOL, 1), node))
    if node.type == Type.TIMESTAMP or is_number(node.type):
        return cast(node, Type.BOOL)
    raise Mismatch(f"a {node.type} as a condition")


def condition(node: Node) -> Node:
    """`node` where only a bool may stand: WHERE, ON, CASE WHEN, the condition of an aggregate."""
    if node.type != Type.BOOL:
        raise Mismatch(f"a {node.type} as a condition")
    return node


def logic(operator: str, a: Node, b: Node) -> Node:
    """`a operator b` for and, or, xor of bools."""
    return Apply(Type.BOOL, {"and": Op.AND, "or": Op.OR, "xor": Op.XOR}[operator], (a, b))


def conjunction(a: Node | None, b: Node) -> Node:
    """The conjunction of two conditions, of which the first may be missing."""
    return b if a is None else logic("and", a, b)


def invert(node: Node) -> Node:
    """`not node` of a bool."""
    return Apply(Type.BOOL, Op.NOT, (node,))


def common_type(kinds: set[Type]) -> Type:
    """The type of CASE, IFNULL … whose branches have these types.

    Raises:
        Mismatch: all are the word NULL.
    """
    kinds = kinds - {Type.NULL}
    if not kinds:
        raise Mismatch("nothing but NULL")
    target = max(kinds)
    if len(kinds) == 1:
        return target
    if all(is_numeric(kind) for kind in kinds):
        return Type.DOUBLE if target == Type.FLOAT and Type.BIGINT in kinds else target
    if all(kind in _MOMENTS for kind in kinds):
        return Type.TIMESTAMP
    return Type.STRING


def same_type(nodes: list[Node]) -> list[Node]:
    """The branches of a CASE, IFNULL … as one type; what has none in common becomes text.

    They are joined two by two from the last, as the CASE is nested.
    """
    target = nodes[-1].type
    for node in reversed(nodes[:-1]):
        target = common_type({target, node.type})
    return [cast(node, target) for node in nodes]


def choose(test: Node, yes: Node, no: Node) -> Node:
    """`case when test then yes else no end`."""
    yes, no = same_type([yes, no])
    return Apply(yes.type, Op.SELECT, (condition(test), yes, no))


def is_null(node: Node) -> Node:
    """`node is null`."""
    return Apply(Type.BOOL, Op.IS_NULL, (node,))


def if_null(node: Node, otherwise: Node) -> Node:
    """`ifnull(node, otherwise)`; a value that is none of the common type is NULL and stays so."""
    value, otherwise = same_type([node, otherwise])
    if value is node:
        return Apply(value.type, Op.IF_NULL, (value, otherwise))
    return choose(is_null(node), otherwise, value)


def _extreme(operator: str) -> Callable[[Node, Node], Node]:
    """minimum() and maximum(): of two equal ones, and where one is NULL, the second."""

    def build(a: Node, b: Node) -> Node:
        return choose(compare(operator, a, b), a, b)

    return build


def _logarithm(base: Node, x: Node | None = None) -> Node:
    """log(x), and log(base, x) of whatever can be a double."""
    if x is None:
        return scalar("ln", [base])  # type: ignore[return-value]
    if not is_numeric(base.type):
        raise Mismatch(f"{base.type}, {x.type}")
    below, above = (scalar("ln", [cast(node, Type.DOUBLE)]) for node in (base, x))
    return arithmetic("/", above, below)  # type: ignore[arg-type]


def _positive_remainder(a: Node, b: Node) -> Node:
    """pmod(): the remainder, with the divisor added where it is negative."""
    remainder = arithmetic("%", a, b)
    if Type.NULL in (a.type, b.type):
        if a.type == b.type:
            raise Mismatch("NULL, NULL")
        return remainder
    negative = compare("<", remainder, Const(Type.INT, 0))
    return choose(negative, arithmetic("%", arithmetic("+", remainder, b), b), remainder)


def _time_field(op: Op) -> Callable[[Node], Node]:
    def field(node: Node) -> Node:
        if node.type == Type.BIGINT:
            node = Apply(Type.TIMESTAMP, Op.COPY, (node,))  # negative ones, too, which a cast would make NULL
        if node.type == Type.DATE and op == Op.DAY_OF_WEEK:
            time = Apply(Type.TIMESTAMP, Op.TIMESTAMP_OF, (node,))
            zero = compare("=", node, Const(Type.DATE, ZERO_DATE))
            return choose(zero, Const(Type.INT, 0), Apply(Type.INT, op, (time,)))
        if node.type != Type.TIMESTAMP:
            raise Mismatch(f"a {node.type}")
        return Apply(Type.INT, op, (node,))

    return field


def _doubles(a: Node, b: Node, c: Node, d: Node) -> tuple[Node, ...]:
    return tuple(cast(node, Type.DOUBLE) for node in (a, b, c, d))


SCALARS: dict[str, Callable[..., Node]] = {
    "add": lambda a, b: arithmetic("+", a, b),
    "identity": lambda node: node,
    "earth_distance": lambda *degrees: PythonCall(Type.DOUBLE, earth_distance, _doubles(*degrees)),
    "is_null": is_null,
    "if_null": if_null,
    "log": _logarithm,
    "pmod": _positive_remainder,
    "nvl2": lambda a, b, c: choose(is_null(a), c, b),
    "minimum": _extreme("<"),
    "maximum": _extreme(">"),
    "dayofweek": _time_field(Op.DAY_OF_WEEK),
    "hour": _time_field(Op.HOUR),
    "minute": _time_field(Op.MINUTE),
    "second": _time_field(Op.SECOND),
}


def _concat(name: str, arguments: list[Node]) -> Node:
    """concat and concat_ws take values of every type, as their texts; NULL only as a separator."""
    values = arguments[name == "concat_ws" :]
    if not values or any(node.type == Type.NULL for node in values):
        raise Mismatch("NULL" if values else "no values")
    return PythonCall(Type.STRING, VARIADIC[name], tuple(cast(node, Type.STRING) for node in arguments))


def _library(name: str, arguments: list[Node]) -> Node | None:
    overloads = FUNCTIONS.get(name)
    if overloads is None:
        return None
    kinds = tuple(node.type for node in arguments)
    for overload in overloads:
        if overload.kinds == kinds:
            for argument in arguments:
                if name == "hash64":
                    check_bool(argument)
                elif name == "add_months":  # it is told what is NULL; others are not called then
                    check_null(argument)
            return PythonCall(overload.result, overload.function, tuple(arguments))
    raise Mismatch(", ".join(map(str, kinds)) or "no arguments")


def scalar(name: str, arguments: list[Node]) -> Node | None:
    """The call of a scalar function; None where there is no such function.

    Raises:
        Mismatch: it does not take these arguments.
    """
    name = ALIASES.get(name, name)
    if name in VARIADIC:
        return _concat(name, arguments)
    function: Any = SCALARS.get(name)
    if function is None:
        return _library(name, arguments)
    try:
        result: Node = function(*arguments)
    except TypeError:
        raise Mismatch(f"{len(arguments)} arguments") from None
    return result


def branches_of(name: str, arguments: Sequence[Node]) -> tuple[Node, Node] | None:
    """The branches of a function that is a CASE over whether its first argument is NULL; None: it is none."""
    name = ALIASES.get(name, name)
    if name == "if_null":
        return arguments[1], arguments[0]
    return (arguments[2], arguments[1]) if name == "nvl2" else None


def complement(node: Node) -> Node:
    """`~node`."""
    if node.type == Type.NULL:
        return null(Type.BOOL)
    if not is_integer(node.type):
        raise Mismatch(f"~{node.type}")
    return Apply(node.type, Op.BIT_NOT, (node,), bits(node.type))

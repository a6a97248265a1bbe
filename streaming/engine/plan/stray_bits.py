"""Where OpenMLDB hands a function in C++ a bool whose byte has stray bits: the function then takes it for true.

OpenMLDB's compiled code looks at the lowest bit of a bool's byte, functions in C++ at all eight. NOT turns all of them:
of true, that is 1, it makes 254. A comparison's opposite is another comparison, and clean; that of a bool which lies in
a byte (a column, what a function such as LIKE answered, an AND) is not, nor what is made of it. Whether a value is NULL
is such a bool, too: of a CASE without an ELSE it is NOT of its condition.

What its optimizer makes of an expression is not to be foretold in full: where in doubt, bits count as stray.
"""

from __future__ import annotations

from streaming.engine.kernels.instructions import Op
from streaming.engine.plan.casts import Mismatch
from streaming.engine.plan.nodes import Aggregate, Apply, Const, Node, PythonAggregate, PythonCall
from streaming.engine.types import Type

__all__ = ["check_bool", "check_null", "never_null"]

_COMPARISONS = (Op.EQ, Op.NE, Op.LT, Op.LE, Op.SLT, Op.SLE, Op.FEQ, Op.FNE, Op.FLT, Op.FLE)
_ARITHMETIC = (Op.ADD, Op.SUB, Op.MUL, Op.NEG, Op.FADD, Op.FSUB, Op.FMUL, Op.FNEG)
_CASTS = (Op.WRAP, Op.TO_FLOAT, Op.COPY, Op.ROUND32, Op.TRUTH, Op.FTRUTH)
_IN_MEMORY = (Type.STRING, Type.DATE, Type.TIMESTAMP)


def check_bool(node: Node) -> None:
    """Of a bool that a function in C++ takes.

    Raises:
        Mismatch: its bits may be stray.
    """
    if node.type == Type.BOOL and _stray(node):
        raise Mismatch(
            "the opposite of a bool, also of a LIKE or of a function, which OpenMLDB takes as true in each row: "
            "compare its text, string(x) = 'false'"
        )


def check_null(node: Node) -> None:
    """Of a value that a function in C++ takes, and looks whether it is NULL.

    Raises:
        Mismatch: the bits of that may be stray.
    """
    if _stray_null(node):
        raise Mismatch(
            "a CASE whose ELSE is NULL, or missing, which OpenMLDB takes as NULL in each row: "
            "give it an ELSE, or turn it round, WHEN … THEN NULL ELSE …"
        )


def never_null(node: Node) -> bool:
    """Whether `node` can be known to be no NULL."""
    if isinstance(node, Const):
        return not node.null
    if not isinstance(node, Apply):
        return False
    if node.op == Op.IS_NULL:
        return True
    if node.op == Op.IF_NULL:
        return never_null(node.arguments[1])
    if node.op == Op.SELECT:
        return all(map(never_null, node.arguments[1:]))
    return node.op in (*_ARITHMETIC, *_CASTS) and all(map(never_null, node.arguments))


def _stray(node: Node) -> bool:
    """Whether the byte of a bool may have stray bits."""
    if not isinstance(node, Apply):
        return False
    if node.op == Op.NOT:
        return _in_byte(node.arguments[0])
    if node.op == Op.IS_NULL:
        return _stray_null(node.arguments[0])
    if node.op in (Op.TRUTH, Op.FTRUTH):
        return _of_bools(node.arguments[0])
    if node.op in _COMPARISONS or node.op == Op.XOR:
        return _compares_bools(node)
    found = [_stray(part) for part in node.arguments if part.type == Type.BOOL and not isinstance(part, Const)]
    if node.op == Op.AND:  # the bits of a clean one clear the other's
        return bool(found) and all(found)
    if node.op == Op.SELECT and _is_true(node.arguments[2]) and _in_byte(node.arguments[0]):
        return True  # NOT of the test, or what is true
    return any(found)


def _in_byte(node: Node) -> bool:
    """Whether a bool lies in a byte, so that NOT turns all of its bits, and not that of a comparison."""
    if not isinstance(node, Apply):
        return not isinstance(node, Const)
    if node.op in (Op.TRUTH, Op.FTRUTH):
        return _of_bools(node.arguments[0])
    return node.op not in _COMPARISONS or any(map(_of_bools, node.arguments))


def _compares_bools(node: Apply) -> bool:
    """Whether a comparison, or XOR, of bools, also of numbers that are made of bools, may come out as a NOT."""
    left, right = node.arguments
    if not (_of_bools(left) or _of_bools(right)):
        return False
    if left.type == right.type == Type.BOOL:
        if node.op in (Op.EQ, Op.NE, Op.XOR) and (isinstance(left, Const) or isinstance(right, Const)):
            constant, other = (left, right) if isinstance(left, Const) else (right, left)
            itself = _is_true(constant) == (node.op == Op.EQ)
            return _stray(other) if itself else _in_byte(other)
        if node.op in (Op.NE, Op.XOR):
            return _stray(left) or _stray(right)
        if node.op == Op.EQ:
            return _in_byte(left) and _in_byte(right)
        if node.op == Op.LT:  # left is false, and right is true
            return _stray(right) or (_is_true(right) and _in_byte(left))
        if node.op == Op.LE:  # left is false, or right is true
            return _in_byte(left) or _stray(right)
    return True


def _of_bools(node: Node) -> bool:
    """Whether it is a bool, or a number that OpenMLDB's optimizer may turn into one."""
    if node.type == Type.BOOL:
        return True
    if not isinstance(node, Apply):
        return False
    if node.op == Op.SELECT:
        return all(isinstance(part, Const) or _of_bools(part) for part in node.arguments[1:])
    return node.op in (*_ARITHMETIC, *_CASTS) and any(map(_of_bools, node.arguments))


def _stray_null(node: Node) -> bool:
    """Whether what says that a value is NULL may have stray bits."""
    if isinstance(node, (PythonCall, Aggregate, PythonAggregate)):
        below = node.arguments if isinstance(node, PythonCall) else ()
        return any(_stray_null(part) or _ends_in_null(part) for part in below)
    if not isinstance(node, Apply) or node.op == Op.IS_NULL:
        return False
    if node.op == Op.IF_NULL:
        return _stray_null(node.arguments[1])
    if node.op == Op.SELECT:
        test, yes, no = node.arguments
        if _is_null(no):
            return yes.type in _IN_MEMORY or _in_byte(test) or _stray(test) or _stray_null(yes)
        return (_is_null(yes) and _stray(test)) or _stray_null(yes) or _stray_null(no)
    clean = node.op in (*_ARITHMETIC, *_CASTS)
    return any(_stray_null(part) or (not clean and _ends_in_null(part)) for part in node.arguments)


def _ends_in_null(node: Node) -> bool:
    """Whether it is a CASE without an ELSE, or a sum of one: under a function its mark may be stray in any case."""
    if not isinstance(node, Apply):
        return False
    if node.op == Op.SELECT:
        return _is_null(node.arguments[2]) or any(map(_ends_in_null, node.arguments[1:]))
    return node.op in (*_ARITHMETIC, *_CASTS) and any(map(_ends_in_null, node.arguments))


def _is_null(node: Node) -> bool:
    return isinstance(node, Const) and node.null


def _is_true(node: Node) -> bool:
    return isinstance(node, Const) and node.type == Type.BOOL and not node.null and node.word != 0

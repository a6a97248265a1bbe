"""Feature signatures: a row as a line of training data, `gcformat(…)`, `csv(…)` or `libsvm(…)` of marked values.

    csv(binary_label(bought), continuous(price), discrete(brand, 100))

A mark says what a value is to the model: `binary_label`, `multiclass_label` and `regression_label` the answer,
`continuous` a number, `discrete` the hash of anything, in as many buckets as its second argument says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from streaming.engine.library import FUNCTIONS
from streaming.engine.library.float_texts import fixed_text
from streaming.engine.plan.casts import Mismatch, cast
from streaming.engine.plan.functions import if_null, scalar
from streaming.engine.plan.nodes import Const, Node, PythonCall
from streaming.engine.storage.strings import EMPTY
from streaming.engine.types import Type

__all__ = ["FORMATS", "MARKS", "training_line"]

_WHOLE = (Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT)
_REAL = (Type.FLOAT, Type.DOUBLE)
MARKS: dict[str, tuple[Type, ...]] = {
    "binary_label": (Type.BOOL,),
    "multiclass_label": _WHOLE,
    "regression_label": (*_WHOLE, *_REAL),
    "continuous": (*_WHOLE, *_REAL),
    "discrete": (*_WHOLE, Type.DATE, Type.TIMESTAMP, Type.STRING),
}
"""The marks, and the types of the values that they take."""

_hash_of_slot = next(hashes.function for hashes in FUNCTIONS["hash64"] if hashes.kinds == (Type.BIGINT,))
_BUCKETS = (Type.INT, Type.BIGINT)


def _bucket(hashed: int, buckets: int) -> int | None:
    return (hashed & (1 << 64) - 1) % buckets if buckets > 0 else None


def _text(value: float) -> str:
    return fixed_text(value) if isinstance(value, float) else str(int(value))


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _csv(kinds: tuple[str, ...]) -> Callable[..., str]:
    return lambda *texts: ",".join(texts)


def _gcformat(kinds: tuple[str, ...]) -> Callable[..., str]:
    """`label | slot:hash slot:hash of slot:number …`: each feature has a slot, those that are NULL are left out."""

    def written(*texts: str) -> str:
        label, slot, found = "", 0, []
        for kind, text in zip(kinds, texts, strict=True):
            if kind.endswith("_label"):
                label = text
                continue
            slot += 1
            if text:
                found.append(f"{slot}:{f'{_hash_of_slot(slot)}:' if kind == 'continuous' else ''}{text}")
        return f"{label} | {' '.join(found)}"

    return written


def _libsvm(kinds: tuple[str, ...]) -> Callable[..., str]:
    """`label index:number index:1 …`; a discrete value behind all indexes before it, or, without buckets, as it is.

    The texts of values with buckets begin with their number: `100 42`, or `100 ` of NULL.
    """

    def written(*texts: str) -> str:
        label, first, found = "", 1, []
        for kind, text in zip(kinds, texts, strict=True):
            if kind.endswith("_label"):
                label = text
            elif kind == "continuous":
                if text:
                    found.append(f"{first & (1 << 64) - 1}:{text}")
                first += 1
            elif kind == "discrete":
                if text:
                    found.append(f"{text}:1")
            else:
                buckets, _, bucket = text.partition(" ")
                if bucket:
                    found.append(f"{_signed(first + int(bucket))}:1")
                first += max(0, int(buckets or 0))
        return " ".join([label, *found] if label else found)

    return written


FORMATS: dict[str, Callable[[tuple[str, ...]], Callable[..., str]]] = {
    "gcformat": functools.cache(_gcformat),
    "csv": functools.cache(_csv),
    "libsvm": functools.cache(_libsvm),
}
"""Kinds of values → the function of their texts, which are empty for NULL."""


def training_line(name: str, marked: list[tuple[str, list[Node]]]) -> Node:
    """The call of a format.

    Args:
        marked: of each argument the mark, and what the mark is called with.

    Raises:
        Mismatch: a mark does not take these arguments.
    """
    kinds: list[str] = []
    texts: list[Node] = []
    for mark, arguments in marked:
        buckets = mark == "discrete" and len(arguments) == 2 and arguments[1].type in _BUCKETS
        if len(arguments) != 1 + buckets or arguments[0].type not in MARKS[mark]:
            raise Mismatch(f"{mark}({', '.join(str(node.type) for node in arguments)})")
        value = arguments[0]
        kind = mark
        if mark == "discrete":
            hashed = scalar("hash64", [value])
            assert hashed is not None  # of the library
            value = PythonCall(Type.BIGINT, _bucket, (hashed, cast(arguments[1], Type.BIGINT))) if buckets else hashed
        text: Node = if_null(PythonCall(Type.STRING, _text, (value,)), Const(Type.STRING, EMPTY))
        if buckets and name == "libsvm":
            kind = "bucket"
            number = if_null(cast(arguments[1], Type.BIGINT), Const(Type.BIGINT, 0))
            text = PythonCall(Type.STRING, _with_buckets, (number, text))
        kinds.append(kind)
        texts.append(text)
    if not marked:  # a function in Python has an argument
        kinds, texts = ["binary_label"], [Const(Type.STRING, EMPTY)]
    return PythonCall(Type.STRING, FORMATS[name](tuple(kinds)), tuple(texts))


def _with_buckets(buckets: int, bucket: str) -> str:
    return f"{buckets} {bucket}"

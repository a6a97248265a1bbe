"""Functions in Python: those called too rarely, or too much about text, to be kernels.

Each works on Python values that are not NULL (dates are days since 1970) and may answer None, which is NULL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from streaming.engine.functions import Mismatch, cast
from streaming.engine.nodes import Host, Node
from streaming.engine.types import Type

__all__ = ["CASTS", "TO_TEXT", "call"]


def _shortest(value: float, single: bool) -> str:
    """A number as OpenMLDB writes it: shortest text that reads back the same."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    import numpy as np

    text = str(np.float32(value)) if single else repr(value)
    return text.removesuffix(".0")


def _integer(low: int, high: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        try:
            value = int(text.strip(), 10) if "_" not in text else None
        except ValueError:
            return None
        return value if value is not None and low <= value <= high else None

    return read


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


CASTS: dict[tuple[Type, Type], Callable[[Any], Any]] = {
    (Type.STRING, Type.SMALLINT): _integer(-(1 << 15), (1 << 15) - 1),
    (Type.STRING, Type.INT): _integer(-(1 << 31), (1 << 31) - 1),
    (Type.STRING, Type.BIGINT): _integer(-(1 << 63), (1 << 63) - 1),
    (Type.STRING, Type.FLOAT): _number,
    (Type.STRING, Type.DOUBLE): _number,
}

TO_TEXT: dict[Type, Callable[[Any], str]] = {
    Type.BOOL: lambda value: "true" if value else "false",
    Type.SMALLINT: str,
    Type.INT: str,
    Type.BIGINT: str,
    Type.FLOAT: lambda value: _shortest(value, True),
    Type.DOUBLE: lambda value: _shortest(value, False),
}

_TEXT = {**TO_TEXT, Type.STRING: lambda value: value}


def _concat(*texts: str) -> str:
    return "".join(texts)


def _substring(text: str, position: int, length: int | None = None) -> bytes | None:
    """Bytes from `position`, counted from 1, or from the end where it is negative."""
    data = text.encode()
    if position == 0 or (length is not None and length <= 0) or abs(position) > len(data):
        return b""
    start = position - 1 if position > 0 else len(data) + position
    return data[start:] if length is None else data[start : start + length]


def _ascii(change: Callable[[bytes], bytes]) -> Callable[[str], bytes]:
    return lambda text: change(text.encode())


def _compare(a: str, b: str) -> int:
    left, right = a.encode(), b.encode()
    return (left > right) - (left < right)


def _like(fold: bool) -> Callable[..., bool | None]:
    def match(text: str | None, pattern: str | None, escape: str | None = "\\") -> bool | None:
        if text is None or pattern is None:
            return None
        escape = escape or ""
        if len(escape.encode()) > 1:
            return None
        expression, i = "", 0
        while i < len(pattern):
            c = pattern[i]
            if escape and c == escape:
                if i + 1 == len(pattern):
                    return None if text is None else False
                i += 1
                expression += re.escape(pattern[i])
            elif c == "%":
                expression += ".*"
            else:
                expression += "." if c == "_" else re.escape(c)
            i += 1
        flags = re.DOTALL | (re.IGNORECASE | re.ASCII if fold else 0)
        return re.fullmatch(expression, text, flags) is not None

    return match


# name -> the overloads: (argument types, result, function); `takes_null` functions are in NULL_AWARE
FUNCTIONS: dict[str, list[tuple[tuple[Type, ...], Type, Callable[..., Any]]]] = {
    "upper": [((Type.STRING,), Type.STRING, _ascii(bytes.upper))],
    "lower": [((Type.STRING,), Type.STRING, _ascii(bytes.lower))],
    "substring": [
        ((Type.STRING, Type.INT), Type.STRING, _substring),
        ((Type.STRING, Type.INT, Type.INT), Type.STRING, _substring),
    ],
    "char_length": [((Type.STRING,), Type.INT, lambda text: len(text.encode()))],
    "strcmp": [((Type.STRING, Type.STRING), Type.INT, _compare)],
    "like_match": [
        ((Type.STRING, Type.STRING), Type.BOOL, _like(False)),
        ((Type.STRING, Type.STRING, Type.STRING), Type.BOOL, _like(False)),
    ],
    "ilike_match": [
        ((Type.STRING, Type.STRING), Type.BOOL, _like(True)),
        ((Type.STRING, Type.STRING, Type.STRING), Type.BOOL, _like(True)),
    ],
}
_ALIASES = {"ucase": "upper", "lcase": "lower", "substr": "substring", "character_length": "char_length"}
NULL_AWARE = frozenset({"like_match", "ilike_match"})


def call(name: str, arguments: list[Node]) -> Node | None:
    """The call of a function of this file; None where there is no such function.

    Raises:
        Mismatch: it does not take these arguments.
    """
    name = _ALIASES.get(name, name)
    if name == "concat":
        return Host(Type.STRING, _concat, tuple(cast(node, Type.STRING) for node in arguments))
    overloads = FUNCTIONS.get(name)
    if overloads is None:
        return None
    for kinds, result, function in overloads:
        if len(kinds) == len(arguments) and all(
            node.type in (kind, Type.NULL) for kind, node in zip(kinds, arguments, strict=True)
        ):
            typed = tuple(cast(node, kind) for kind, node in zip(kinds, arguments, strict=True))
            return Host(result, function, typed, name in NULL_AWARE)
    raise Mismatch(", ".join(str(node.type) for node in arguments) or "no arguments")

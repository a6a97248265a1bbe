"""Functions in Python: those called too rarely, or too much about text, to be kernels.

Each works on Python values that are not NULL (a timestamp is epoch milliseconds, a date days since 1970) and may answer
None, which is NULL, or bytes, where it cuts strings as OpenMLDB does: by bytes. Dates and times of day are UTC+8's.
To add one, write it and register it in `FUNCTIONS`.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Any

from streaming.engine.types import Type

__all__ = ["ALIASES", "CASTS", "FUNCTIONS", "NULL_AWARE", "VARIADIC"]

_ZONE = datetime.timezone(datetime.timedelta(hours=8))
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DAY = datetime.date(1970, 1, 1)


def _moment(ms: int) -> datetime.datetime:
    return (_EPOCH + datetime.timedelta(milliseconds=ms)).astimezone(_ZONE)


def _date(days: int) -> datetime.date:
    return _DAY + datetime.timedelta(days=days)


# -- casts -------------------------------------------------------------------------------------------------------------


def _general(value: float) -> str:
    """A float as a C++ stream writes it: six significant digits."""
    return f"{value:g}"


def _integer(low: int, high: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        if not re.fullmatch(r"\s*[+-]?\d+", text, re.ASCII):
            return None
        value = int(text)
        return value if low <= value <= high else None

    return read


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _to_date(text: str) -> int | None:
    found = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})(?: \d{2}:\d{2}:\d{2})?", text, re.ASCII)
    if found is None:
        return None
    try:
        return (datetime.date(int(found[1]), int(found[2]), int(found[3])) - _DAY).days
    except ValueError:
        return None


def _to_timestamp(text: str) -> int | None:
    days = _to_date(text)
    if days is None:
        return None
    seconds = 0
    if ":" in text:
        hour, minute, second = (int(part) for part in text[-8:].split(":"))
        if hour > 23 or minute > 59 or second > 59:
            return None
        seconds = hour * 3600 + minute * 60 + second
    ms = (days * 86_400 + seconds - 8 * 3600) * 1000
    return ms if ms >= 0 else None


_TRUTHS = {"t": True, "true": True, "y": True, "yes": True, "1": True}
_TRUTHS.update({"f": False, "false": False, "n": False, "no": False, "0": False})

CASTS: dict[tuple[Type, Type], Callable[[Any], Any]] = {
    (Type.STRING, Type.BOOL): lambda text: _TRUTHS.get(text.lower()),
    (Type.STRING, Type.SMALLINT): _integer(-(1 << 15), (1 << 15) - 1),
    (Type.STRING, Type.INT): _integer(-(1 << 31), (1 << 31) - 1),
    (Type.STRING, Type.BIGINT): _integer(-(1 << 63), (1 << 63) - 1),
    (Type.STRING, Type.FLOAT): _number,
    (Type.STRING, Type.DOUBLE): _number,
    (Type.STRING, Type.DATE): _to_date,
    (Type.STRING, Type.TIMESTAMP): _to_timestamp,
    (Type.BOOL, Type.STRING): lambda value: "true" if value else "false",
    (Type.SMALLINT, Type.STRING): str,
    (Type.INT, Type.STRING): str,
    (Type.BIGINT, Type.STRING): str,
    (Type.FLOAT, Type.STRING): _general,
    (Type.DOUBLE, Type.STRING): _general,
    (Type.TIMESTAMP, Type.STRING): lambda ms: _moment(ms).strftime("%Y-%m-%d %H:%M:%S"),
    (Type.DATE, Type.STRING): lambda days: _date(days).isoformat(),
}

# -- strings -----------------------------------------------------------------------------------------------------------


def _substring(text: str, position: int, length: int | None = None) -> bytes:
    """Bytes from `position`, counted from 1, or from the end where it is negative."""
    data = text.encode()
    if position == 0 or (length is not None and length <= 0) or abs(position) > len(data):
        return b""
    start = position - 1 if position > 0 else len(data) + position
    return data[start:] if length is None else data[start : start + length]


def _compare(a: str, b: str) -> int:
    left, right = a.encode(), b.encode()
    return (left > right) - (left < right)


def _like(fold: bool) -> Callable[..., bool | None]:
    def match(text: str | None, pattern: str | None, escape: str | None = "\\") -> bool | None:
        if text is None or pattern is None:
            return None
        escape = escape or ""
        if len(escape) > 1:
            return None
        expression, i = "", 0
        while i < len(pattern):
            c = pattern[i]
            if escape and c == escape:
                i += 1
                if i == len(pattern):
                    return False
                expression += re.escape(pattern[i])
            elif c == "%":
                expression += ".*"
            else:
                expression += "." if c == "_" else re.escape(c)
            i += 1
        flags = re.DOTALL | (re.IGNORECASE | re.ASCII if fold else 0)
        return re.fullmatch(expression, text, flags) is not None

    return match


def _concat(*texts: str) -> str:
    return "".join(texts)


def _concat_ws(separator: str, *texts: str) -> str:
    return separator.join(texts)


# -- numbers -----------------------------------------------------------------------------------------------------------


def _guarded(function: Callable[[float], float], outside: float) -> Callable[[float], float]:
    """A function of C's math library, which answers NaN or infinity where Python raises."""

    def call(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return -math.inf if x == 0 else outside

    return call


def _power(x: float, y: float) -> float:
    try:
        result = x**y
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return math.inf
    return math.nan if isinstance(result, complex) else result


def _unary(name: str, function: Callable[[float], float]) -> dict[str, list[Overload]]:
    call = _guarded(function, math.nan)
    return {name: [((kind,), Type.DOUBLE, call) for kind in (Type.DOUBLE, Type.BIGINT)]}


Overload = tuple[tuple[Type, ...], Type, Callable[..., Any]]


def _parts() -> dict[str, list[Overload]]:
    fields: dict[str, Callable[[datetime.date], int]] = {
        "year": lambda d: d.year,
        "month": lambda d: d.month,
        "dayofmonth": lambda d: d.day,
        "dayofyear": lambda d: d.timetuple().tm_yday,
        "weekofyear": lambda d: d.isocalendar()[1],
    }

    def part(field: Callable[[datetime.date], int]) -> list[Overload]:
        return [
            ((Type.TIMESTAMP,), Type.INT, lambda ms: field(_moment(ms))),
            ((Type.BIGINT,), Type.INT, lambda ms: field(_moment(ms)) if ms >= 0 else None),
            ((Type.DATE,), Type.INT, lambda days: field(_date(days))),
        ]

    return {name: part(field) for name, field in fields.items()}


# name -> its overloads: argument types, result, function. A bigint argument takes every integer.
FUNCTIONS: dict[str, list[Overload]] = {
    "upper": [((Type.STRING,), Type.STRING, lambda text: text.encode().upper())],
    "lower": [((Type.STRING,), Type.STRING, lambda text: text.encode().lower())],
    "substring": [
        ((Type.STRING, Type.INT), Type.STRING, _substring),
        ((Type.STRING, Type.INT, Type.INT), Type.STRING, _substring),
    ],
    "char_length": [((Type.STRING,), Type.INT, lambda text: len(text.encode()))],
    "strcmp": [((Type.STRING, Type.STRING), Type.INT, _compare)],
    "reverse": [((Type.STRING,), Type.STRING, lambda text: text.encode()[::-1])],
    "like_match": [
        ((Type.STRING, Type.STRING), Type.BOOL, _like(False)),
        ((Type.STRING, Type.STRING, Type.STRING), Type.BOOL, _like(False)),
    ],
    "ilike_match": [
        ((Type.STRING, Type.STRING), Type.BOOL, _like(True)),
        ((Type.STRING, Type.STRING, Type.STRING), Type.BOOL, _like(True)),
    ],
    **_parts(),
    **_unary("sqrt", math.sqrt),
    **_unary("exp", math.exp),
    **_unary("ln", math.log),
    **_unary("log2", math.log2),
    **_unary("log10", math.log10),
    **_unary("sin", math.sin),
    **_unary("cos", math.cos),
    **_unary("tan", math.tan),
    "abs": [((Type.INT,), Type.INT, abs), ((Type.DOUBLE,), Type.DOUBLE, abs)],
    "floor": [((Type.DOUBLE,), Type.DOUBLE, lambda x: float(math.floor(x)) if math.isfinite(x) else x)],
    "ceil": [((Type.DOUBLE,), Type.DOUBLE, lambda x: float(math.ceil(x)) if math.isfinite(x) else x)],
    "power": [((a, b), Type.DOUBLE, _power) for a in (Type.DOUBLE, Type.BIGINT) for b in (Type.DOUBLE, Type.BIGINT)],
}
ALIASES = {
    "ceiling": "ceil",
    "log": "ln",
    "ucase": "upper",
    "lcase": "lower",
    "substr": "substring",
    "character_length": "char_length",
    "day": "dayofmonth",
    "week": "weekofyear",
    "pow": "power",
}
VARIADIC: dict[str, Callable[..., str]] = {"concat": _concat, "concat_ws": _concat_ws}
NULL_AWARE = frozenset({"like_match", "ilike_match"})

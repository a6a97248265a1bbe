"""Aggregates in Python: functions of a window's rows, newest first, each row a tuple of the arguments."""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from streaming.engine.library.by_category import text_of
from streaming.engine.library.heaps import two_heaps
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import Type

__all__ = [
    "average_weighted",
    "drawdown",
    "entropy",
    "first_known",
    "greatest",
    "last_known",
    "median",
    "nth_where",
    "spread",
    "top_floats",
]

Rows = list[tuple[Any, ...]]


def _known(rows: Rows) -> list[Any]:
    return [row[0] for row in rows if row[0] is not None]


def _counts(values: list[Any]) -> dict[Any, int]:
    """How often each value is there, as C++'s map counts, to which NaN is like every value that it meets.

    A NaN counts as the smallest value so far; where it is the first value, all that follow count as NaN.
    """
    counts: dict[Any, int] = {}
    for value in values:
        key = value
        if value != value:  # noqa: PLR0124 - only NaN is not itself
            if not counts:
                return {value: len(values)}
            key = min(counts)
        counts[key] = counts.get(key, 0) + 1
    return counts


@functools.cache
def median(kind: Type) -> Callable[[Rows], float | None]:
    """The middle value, or the mean of the two in the middle, whose sum has the width of their type (int or more)."""
    span = 1 << (64 if kind == Type.BIGINT else 32)

    def total(a: Any, b: Any) -> float:
        if kind == Type.DOUBLE:
            return float(a + b)
        if kind == Type.FLOAT:
            with np.errstate(over="ignore"):
                return float(np.float32(a) + np.float32(b))
        return float((a + b + span // 2) % span - span // 2)

    def middle(rows: Rows) -> float | None:
        values = _known(rows)
        if not values:
            return None
        if kind in (Type.FLOAT, Type.DOUBLE) and any(value != value or value == 0.0 for value in values):  # noqa: PLR0124
            below, above = two_heaps(values)
            return total(above[0], below[0]) / 2.0 if len(below) == len(above) else float(below[0])
        values.sort()
        half = len(values) // 2
        return float(values[half]) if len(values) % 2 else total(values[half - 1], values[half]) / 2.0

    return middle


def spread(sample: bool, root: bool) -> Callable[[Rows], float | None]:
    """Variance (of a sample: n - 1), or its root; summed from the newest value on."""

    def call(rows: Rows) -> float | None:
        values = _known(rows)
        divisor = len(values) - sample
        if divisor < 1:
            return None
        total = 0.0
        for value in values:
            total += value
        mean = total / len(values)
        squares = 0.0
        for value in values:
            squares += (value - mean) * (value - mean)
        return math.sqrt(squares / divisor) if root else squares / divisor

    return call


def entropy(rows: Rows) -> float | None:
    """Shannon's, in bits, summed in order of the values."""
    counts = _counts(_known(rows))
    if not counts:
        return None
    total = float(sum(counts.values()))
    bits = 0.0
    for value in sorted(counts, key=lambda v: text_bytes(v) if isinstance(v, str) else v):
        share = counts[value] / total
        bits -= share * math.log2(share)
    return bits


def average_weighted(rows: Rows) -> float | None:
    """ew_avg(x, alpha): the newest value weighs 1, each older one (1 - alpha) times the one before."""
    weight, weights, total = 1.0, 0.0, 0.0
    for value, alpha in rows:
        if value is not None:
            total += value * weight
            weights += weight
            weight *= 1.0 - (0.0 if alpha is None else alpha)
    return total / weights if weights else None


@functools.cache
def drawdown(kind: Type) -> Callable[[Rows], float | None]:
    """The greatest fall from a value to a later, smaller one, as a share of the former; without the negative values.

    A fall between floats is a float, the share a double.
    """

    def fall(value: Any, valley: Any) -> float:
        if kind != Type.FLOAT:
            return float(value - valley)
        with np.errstate(invalid="ignore"):
            return float(np.float32(value) - np.float32(valley))

    def greatest_fall(rows: Rows) -> float | None:
        valley = _GREATEST[kind]
        worst = -1.0
        for value in _known(rows):
            if value < 0:
                continue
            share = 0.0
            if valley < value:
                share = fall(value, valley) / float(value)
            else:
                valley = value
            worst = share if worst < share else worst  # not max(): NaN, as of an infinite fall, is no greater
        return None if worst < 0 else worst

    return greatest_fall


_GREATEST: dict[Type, float] = {
    Type.SMALLINT: (1 << 15) - 1,
    Type.INT: (1 << 31) - 1,
    Type.BIGINT: (1 << 63) - 1,
    Type.FLOAT: float(np.finfo(np.float32).max),
    Type.DOUBLE: float(np.finfo(np.float64).max),
}


def nth_where(rows: Rows) -> Any:
    """nth_value_where(x, n, condition): the n-th row for which it is true, from the oldest, or from the newest back."""
    number, chosen = 0, []
    for value, wanted, holds in rows:
        if wanted:
            number = number or wanted  # the newest row's counts
            if holds:
                chosen.append(value)
    if not number or abs(number) > len(chosen):
        return None
    return chosen[-number] if number > 0 else chosen[-number - 1]


def first_known(rows: Rows) -> Any:
    """The oldest value that is not NULL."""
    return next((row[0] for row in reversed(rows) if row[0] is not None), None)


def last_known(rows: Rows) -> Any:
    """The newest value that is not NULL."""
    return next((row[0] for row in rows if row[0] is not None), None)


def greatest(kind: Type, number: int) -> Callable[[Rows], str]:
    """top(x, n): the n greatest values, equal ones each, descending."""
    of_value = text_of(kind)

    def call(rows: Rows) -> str:
        best = (
            _greatest_floats(_known(rows), number)
            if kind in (Type.FLOAT, Type.DOUBLE)
            else heapq.nlargest(number, _known(rows), key=lambda v: text_bytes(v) if isinstance(v, str) else v)
        )
        return ",".join(map(of_value, best))

    return call


def _greatest_floats(values: list[float], number: int) -> list[float]:
    """The greatest ones as C++'s map keeps them: see `_counts`; of 0.0 and -0.0 the newest stands for both."""
    if values and math.isnan(values[0]):
        return [values[0]] * min(number, len(values))
    counts: dict[float, int] = {}
    for n, value in enumerate(values):
        key = min(counts) if math.isnan(value) else value
        counts[key] = counts.get(key, 0) + 1
        if n >= number:
            least = min(counts)
            counts[least] -= 1
            if not counts[least]:
                del counts[least]
    return [value for value in sorted(counts, reverse=True) for _ in range(counts[value])]


def top_floats(number: int, kind: Type) -> Callable[[Rows], str]:
    """topn_frequency of values whose text no kernel makes."""
    of_value = text_of(kind)

    def call(rows: Rows) -> str:
        if not rows:
            return ""
        counts = _counts(_known(rows))
        best = sorted(counts, key=lambda value: (-counts[value], value))[:number]
        return ",".join([*map(of_value, best), *["NULL"] * (number - len(best))])

    return call

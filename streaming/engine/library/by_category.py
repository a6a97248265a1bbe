"""`k1:v1,k2:v2`: an aggregate of each category's values, the categories in order, as OpenMLDB writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streaming.engine.library.float_texts import fixed_text
from streaming.engine.library.moments import date_text, time_text
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import Type

__all__ = ["ByCategory", "text_of"]

_TIME_LENGTH = 19  # for a year of five digits, OpenMLDB's buffer ends before the last digit of the second
_BYTES_MAX = 4096  # OpenMLDB's limit on the text: an entry that would pass it, and all behind it, are left out


def text_of(kind: Type) -> Callable[[Any], str]:
    """How a value becomes part of a text: floats by C's %f, moments in UTC+8."""
    if kind in (Type.FLOAT, Type.DOUBLE):
        return fixed_text
    if kind == Type.TIMESTAMP:
        return lambda value: time_text(value)[:_TIME_LENGTH]
    if kind == Type.DATE:
        return date_text
    return str


def _sum(kind: Type, values: Sequence[Any]) -> Any:
    if kind == Type.FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.float32(values[0])  # not 0, which would make a sum of -0.0 positive
            for value in values[1:]:
                total += np.float32(value)
        return float(total)
    if kind == Type.DOUBLE:
        return _total(values)
    half = 1 << ({Type.SMALLINT: 16, Type.INT: 32}.get(kind, 64) - 1)
    return (sum(values) + half) % (2 * half) - half


def _total(values: Sequence[Any]) -> float:
    total = float(values[0])
    for value in values[1:]:
        total += float(value)
    return total


def _average(values: Sequence[Any]) -> float:
    return _total(values) / len(values)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _comparable(results: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Results, by ascending category, as OpenMLDB's ordered set takes them in one by one: a NaN is neither less
    nor greater than any other, so it counts as the same. The first stays, and where that is a NaN, alone."""
    if results and results[0][1] != results[0][1]:
        return results[:1]
    return [item for item in results if item[1] == item[1]]


@dataclass(frozen=True)
class ByCategory:
    """The function of a window's rows, newest first: (value, [condition,] category) each.

    Rows whose value or category is NULL do not count, nor do those whose condition is NULL or false; of `ratio`, which
    is the share of rows whose condition is true, the latter count as others.

    Attributes:
        name: count, sum, min, max, avg or ratio.
        value, category: their types.
        where: whether there is a condition.
        top: None: every category, ascending; 'key': the n greatest, descending; 'value': the n with the greatest
            results, descending, of equal ones the greater category first.
        number: n; negative: all.
    """

    name: str
    value: Type
    category: Type
    where: bool
    top: str | None = None
    number: int = 0

    def __call__(self, rows: list[tuple[Any, ...]]) -> str:
        groups: dict[Any, list[Any]] = {}
        for row in rows:
            value, category = row[0], row[-1]
            if value is None or category is None or (self.where and self.name != "ratio" and not row[1]):
                continue
            groups.setdefault(category, []).append(bool(row[1]) if self.name == "ratio" else value)
        results = [(key, self.result(values)) for key, values in groups.items()]
        results.sort(key=lambda item: self.order(item[0]), reverse=self.top == "key")
        if self.top == "value":
            results = _comparable(results)
            results.sort(key=lambda item: (item[1], self.order(item[0])), reverse=True)
        if self.top is not None and self.number >= 0:
            results = results[: self.number]
        return self.text(results)

    def order(self, key: Any) -> Any:
        """What categories are ordered by: strings by their bytes."""
        return text_bytes(key) if isinstance(key, str) else key

    def result(self, values: list[Any]) -> Any:
        """The aggregate of one category's values, newest first."""
        if self.name == "sum":
            return _sum(self.value, values)
        functions: dict[str, Callable[[list[Any]], Any]] = {
            "count": len,
            "min": min,
            "max": max,
            "avg": _average,
            "ratio": _share,
        }
        return functions[self.name](values)

    def text(self, results: list[tuple[Any, Any]]) -> str:
        """The categories and their results, as far as they fit."""
        kind = Type.BIGINT if self.name == "count" else Type.DOUBLE if self.name in ("avg", "ratio") else self.value
        of_key, of_value = text_of(self.category), text_of(kind)
        parts: list[str] = []
        length = 0
        for key, value in results:
            part = f"{of_key(key)}:{of_value(value)}"
            length += len(text_bytes(part)) + 1
            if length > _BYTES_MAX:
                break
            parts.append(part)
        return ",".join(parts)

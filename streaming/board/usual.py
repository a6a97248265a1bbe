"""What is usual of a feature: of a sample of recent requests, or, as long as there are too few, in training."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streaming.model.fields import Binned, Field, ListTop, speller

__all__ = ["ENOUGH", "Usual", "UsualValues", "Value", "shown"]

ENOUGH = 20
"""Requests from which on something is said of what is usual."""

KEPT = 300
RARE = 0.05  # a value that so few requests have is unusual
NAMES = 0.1  # where even the commonest value is rarer, the values are names

Value = bool | int | float | str | None


def shown(field: Field, value: Value) -> Value:
    """What a field reads of its column's value: of a list the entry, where it reads one."""
    return speller(field)(value).decode() if isinstance(field, ListTop) and isinstance(value, str) else value


@dataclass(frozen=True)
class Usual:
    """What values a feature has.

    Attributes:
        low, high: of numbers: 5% lie below, 5% above; of training: where the outermost bins begin.
        value, share: of others: the commonest value, and the share of requests that have it.
        unusual: the value asked about is outside, or rare.
        of: `recent` requests, or `training`.
    """

    of: str
    low: float | None = None
    high: float | None = None
    value: Value = None
    share: float | None = None
    unusual: bool = False


class UsualValues:
    """A sample of requests: their features and ids. One thread adds, any may ask."""

    def __init__(self) -> None:
        self._features: deque[Mapping[str, Value]] = deque(maxlen=KEPT)
        self._ids: deque[Sequence[int]] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._features)

    def add(self, features: Mapping[str, Value], ids: Sequence[int]) -> None:
        """A request more."""
        self._features.append(features)
        self._ids.append(ids)

    def commonest_ids(self) -> list[int] | None:
        """Of each field the id that most requests have; None: there are too few."""
        ids = list(self._ids)
        if len(ids) < ENOUGH:
            return None
        return [Counter(column).most_common(1)[0][0] for column in zip(*ids, strict=True)]

    def of(self, field: Field, value: Value, *, is_number: bool) -> Usual | None:
        """What is usual of a field; None: nothing is known, or its values are names.

        Args:
            value: of the request that is looked at, as `shown`.
            is_number: it is one that can be more or less.
        """
        rows = list(self._features)
        if len(rows) < ENOUGH:
            if not isinstance(field, Binned) or field.of not in ("integer", "real") or len(field.starts) < 3:
                return None
            low, high = field.starts[1], field.starts[-1]
            return Usual("training", low, high, unusual=_is_outside(value, low, high))
        values = [shown(field, row.get(field.column)) for row in rows]
        if is_number:
            numbers = [float(v) for v in values if isinstance(v, int | float)]
            if not numbers:
                return Usual("recent", value=None, share=1.0, unusual=value is not None)
            low, high = (float(end) for end in np.percentile(numbers, [5, 95]))
            return Usual("recent", low, high, unusual=_is_outside(value, low, high))
        (commonest, count), *_ = Counter(values).most_common(1)
        if count / len(values) < NAMES:
            return None
        return Usual(
            "recent", value=commonest, share=count / len(values), unusual=values.count(value) / len(values) < RARE
        )


def _is_outside(value: Value, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not low <= value <= high

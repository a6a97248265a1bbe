"""Axes: where a value lies, and where the marks are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Axis", "Scale", "spanning"]

_PROBABILITIES = (1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999, 0.9999)
_PERCENTILES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
_TINY = 1e-12  # what a logarithm takes instead of nothing
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Scale(Enum):
    """How values are spread over an axis: evenly, by their logarithm, probabilities by their log odds, percentiles by
    the logarithm of what is above them (90, 99, 99.9 are as far apart)."""

    LINEAR = "linear"
    LOG = "log"
    LOG_ODDS = "log odds"
    PERCENTILE = "percentile"


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit, its ends in the unit of the values, its scale."""

    label: str
    low: float = 0.0
    high: float = 1.0
    scale: Scale = Scale.LINEAR

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        low, high = self._spread(self.low), self._spread(self.high)
        return min(1.0, max(0.0, (self._spread(value) - low) / (high - low))) if high > low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Where to mark the axis, and with what."""
        match self.scale:
            case Scale.LOG_ODDS:
                return [(share, f"{share:g}") for share in _PROBABILITIES if self.low <= share <= self.high]
            case Scale.PERCENTILE:
                return [(share, f"{share:g}%") for share in _PERCENTILES if self.low <= share <= self.high]
            case Scale.LOG:
                return [(tick, _short(tick)) for tick in self._decades()]
        return [(tick, _short(tick)) for tick in self._round_numbers()]

    def _spread(self, value: float) -> float:
        match self.scale:
            case Scale.LOG:
                return math.log10(max(value, _TINY))
            case Scale.LOG_ODDS:
                inside = min(1 - _TINY, max(_TINY, value))
                return math.log(inside / (1 - inside))
            case Scale.PERCENTILE:
                return -math.log10(max(1 - value / 100, _TINY))
        return value

    def _round_numbers(self) -> list[float]:
        """Five or so between the ends."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [at * step for at in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self) -> list[float]:
        """Powers of ten, every other where they are many, with 2 and 5 of each where they are few."""
        first, last = math.floor(self._spread(self.low)), math.ceil(self._spread(self.high))
        times, every = (1, 2, 5) if last - first <= 3 else (1,), max(1, math.ceil((last - first) / 6))
        found = [by * 10.0**power for power in range(first, last + 1, every) for by in times]
        return [tick for tick in found if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def spanning(label: str, values: Iterable[float], scale: Scale = Scale.LINEAR, *, zero: bool = True) -> Axis:
    """An axis that has all values that are numbers, and some room above them; with `zero` it begins there.

    A logarithmic one has those above 0, and ends at multiples by 1, 2 or 5 of a power of ten.
    """
    known = [value for value in values if math.isfinite(value)]
    if scale is Scale.LOG:
        known = [value for value in known if value > 0] or [1.0]
        return Axis(label, _round_down(min(known)), _round_up(max(known)), scale)
    low, high = min(known, default=0.0), max(known, default=1.0)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return Axis(label, low if zero and low == 0 else low - room, high + room, scale)


def _round_down(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * max(times for times in (1, 2, 5) if decade * times <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * min(times for times in (1, 2, 5, 10) if decade * times >= value * (1 - 1e-9))


def _short(value: float) -> str:
    """A mark of few letters: 2k, 1.5M, 0.25."""
    for size, letter in _LARGE:
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:g}{letter}"
    return f"{value:g}"

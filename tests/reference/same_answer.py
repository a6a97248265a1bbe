"""When two engines have answered the same."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["ROUNDED", "same"]

ROUNDED = re.compile(r"\b(exp|ln|log|log2|log10|pow|power|sin|cos|tan|sqrt)\(")
"""Calls of the C library, whose last bits are its own."""


def same(left: Any, right: Any, rounded: bool) -> bool:
    """Equal, NULL, NaN and the sign of a zero included; the results of transcendental functions but for rounding."""
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        if left == right:
            return math.copysign(1, left) == math.copysign(1, right)
        return rounded and math.isclose(left, right, rel_tol=1e-6)
    return type(left) is type(right) and bool(left == right)

"""Floats as texts, as printf and streams write them: a NaN has a sign, that of infinity - infinity is `-nan`."""

from __future__ import annotations

import math

__all__ = ["fixed_text", "float_text"]


def float_text(value: float) -> str:
    """Six significant digits, as `%g` and a C++ stream."""
    return _nan(value) if math.isnan(value) else f"{value:g}"


def fixed_text(value: float) -> str:
    """Six decimals, as `%f`."""
    return _nan(value) if math.isnan(value) else f"{value:f}"


def _nan(value: float) -> str:
    return "-nan" if math.copysign(1.0, value) < 0 else "nan"

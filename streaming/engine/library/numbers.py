"""Functions of numbers: C's math library, called as it is, and OpenMLDB's own rounding."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import sys
from collections.abc import Callable

import numpy as np

from streaming.engine.library.overload import INTEGERS, NUMBERS, Overload, overloads_of
from streaming.engine.types import Type

__all__ = ["FUNCTIONS", "earth_distance", "round_half_away"]

# Python's math raises where C answers NaN or infinity, and has no functions of floats, which differ in the last bit
_LIBRARY = ctypes.CDLL(ctypes.util.find_library("m"))
_WIDTHS = tuple(zip(INTEGERS, (16, 32, 64), strict=True))
_OF_REALS = (Type.BOOL, Type.FLOAT, Type.DOUBLE)


def _c(name: str, arguments: int = 1) -> tuple[Callable[..., float], Callable[..., float]]:
    """C's function of doubles, and that of floats."""
    of_doubles, of_floats = getattr(_LIBRARY, name), getattr(_LIBRARY, name + "f")
    of_doubles.argtypes, of_doubles.restype = [ctypes.c_double] * arguments, ctypes.c_double
    of_floats.argtypes, of_floats.restype = [ctypes.c_float] * arguments, ctypes.c_float
    return lambda *x: float(of_doubles(*x)), lambda *x: float(of_floats(*x))  # nodes compare and hash functions


def _real(name: str, *, of_bool: bool = False) -> list[Overload]:
    """C's function: a float of a float, a double of every other number; `of_bool`: of a bool, too."""
    of_doubles, of_floats = _c(name)
    others = (*INTEGERS, Type.DOUBLE, *([Type.BOOL] if of_bool else []))
    return [*overloads_of(others, Type.DOUBLE, of_doubles), *overloads_of([Type.FLOAT], Type.FLOAT, of_floats)]


def _logarithm(name: str) -> list[Overload]:
    """C's logarithm; of negative numbers it is a NaN without a sign, which some C libraries give one."""
    of_doubles, of_floats = _c(name)

    def unsigned(function: Callable[..., float]) -> Callable[[float], float]:
        return lambda x: math.nan if x < 0 else function(x)

    others = (*INTEGERS, Type.DOUBLE, Type.BOOL)
    return [
        *overloads_of(others, Type.DOUBLE, unsigned(of_doubles)),
        *overloads_of([Type.FLOAT], Type.FLOAT, unsigned(of_floats)),
    ]


def _pair(name: str) -> list[Overload]:
    """C's function of two: a float of two floats, a double of any other two numbers."""
    of_doubles, of_floats = _c(name, 2)
    kinds = (Type.BOOL, *NUMBERS)
    return [
        Overload((a, b), Type.FLOAT, of_floats) if a == b == Type.FLOAT else Overload((a, b), Type.DOUBLE, of_doubles)
        for a in kinds
        for b in kinds
    ]


_COS, _COSF = _c("cos")
_SIN, _SINF = _c("sin")
_ASIN, _ = _c("asin")


def _cotangent(x: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.float64(_COS(x)) / np.float64(_SIN(x)))


def _cotangent_of_float(x: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.float32(_COSF(x)) / np.float32(_SINF(x)))


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """floor, ceil or trunc of a double, which may be infinite or NaN, and keeps the sign of a zero."""
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def round_half_away(x: float) -> float:
    """The nearest whole number, halves away from zero."""
    if not math.isfinite(x):
        return x
    whole = math.trunc(x)
    if abs(x - whole) >= 0.5:
        whole += 1 if x > 0 else -1
    return math.copysign(float(whole), x)


def _decimals(digits: float) -> int:
    """A number of decimals as an int: of an integer the lower 32 bits, of a real that does not fit the least one."""
    if isinstance(digits, int):
        return _wrap(32, digits)
    return int(digits) if -(2.0**31) <= digits < 2.0**31 else -(1 << 31)


def _round_real(x: float, digits: float) -> float:
    """To so many decimals, by scaling up and down again; of a negative number of decimals: to tens, hundreds …

    NaN, as x86 has it, with a sign, where a double does not hold the scale.
    """
    decimals = _decimals(digits)
    scale = math.inf if decimals > sys.float_info.max_10_exp else 10.0**decimals
    if scale in (0.0, math.inf):
        return x if math.isnan(x) else -math.nan
    return round_half_away(x * scale) / scale


def _round_integer(bits: int) -> Callable[[int, float], int]:
    """To tens, hundreds …, by way of a double, scaled down and up again; decimals of an integer say nothing.

    What does not fit is the least number of 32 or 64 bits, as x86 converts it.
    """
    edge = 63 if bits == 64 else 31

    def call(x: int, digits: float) -> int:
        decimals = _decimals(digits)
        if decimals >= 0:
            return x
        scale = math.nan if -decimals > sys.float_info.max_10_exp else 10.0**-decimals
        rounded = round_half_away(x / scale) * scale
        fits = -(2.0**edge) <= rounded < 2.0**edge
        return _wrap(bits, int(rounded) if fits else -(1 << edge))

    return call


def _by_double(x: int) -> int:
    """A whole number as a double gives it back: above 2^53 not every one; 2^63 is the least one, as x86 converts it."""
    near = int(float(x))
    return near if near < 1 << 63 else -(1 << 63)


def _wrap(bits: int, value: int) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def _rounds() -> list[Overload]:
    found = []
    for digits in (Type.BOOL, *NUMBERS):
        found += [Overload((kind, digits), kind, _round_integer(bits)) for kind, bits in _WIDTHS]
        found += [Overload((kind, digits), kind, _round_real) for kind in (Type.FLOAT, Type.DOUBLE)]
    return found


_EARTH_KM = 6372.8  # its radius, as OpenMLDB has it


def earth_distance(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float | None:
    """Kilometres between two places given in degrees, by the haversine; NULL where there is no such place."""
    if not (abs(latitude) <= 90 and abs(other_latitude) <= 90):
        return None
    if not (abs(longitude) <= 180 and abs(other_longitude) <= 180):
        return None
    a, b, c, d = (degrees * math.pi / 180 for degrees in (latitude, longitude, other_latitude, other_longitude))
    north, east = math.sin((c - a) / 2), math.sin((d - b) / 2)
    return 2 * _EARTH_KM * _ASIN(math.sqrt(north * north + math.cos(a) * math.cos(c) * east * east))


def _increment(bits: int) -> Callable[[int], int]:
    return lambda x: _wrap(bits, x + 1)


FUNCTIONS: dict[str, list[Overload]] = {
    "abs": [
        *overloads_of([Type.SMALLINT], Type.INT, abs),
        *overloads_of([Type.INT], Type.INT, lambda x: _wrap(32, abs(x))),
        *overloads_of([Type.BIGINT], Type.BIGINT, lambda x: _wrap(64, abs(x))),
        *overloads_of(_OF_REALS, Type.DOUBLE, lambda x: abs(float(x))),
    ],
    "floor": [
        *overloads_of(INTEGERS, Type.BIGINT, _by_double),
        *overloads_of(_OF_REALS, Type.DOUBLE, _whole(math.floor)),
    ],
    "ceil": [
        *overloads_of(INTEGERS, Type.BIGINT, _by_double),
        *overloads_of(_OF_REALS, Type.DOUBLE, _whole(math.ceil)),
    ],
    "truncate": [
        *overloads_of([Type.SMALLINT, Type.INT], Type.INT, int),
        *overloads_of([Type.BIGINT], Type.BIGINT, _by_double),
        *overloads_of(_OF_REALS, Type.DOUBLE, _whole(math.trunc)),
    ],
    "round": [
        *(Overload((kind,), kind, int) for kind in INTEGERS),
        *(Overload((kind,), kind, round_half_away) for kind in (Type.FLOAT, Type.DOUBLE)),
        *_rounds(),
    ],
    "inc": [
        *(Overload((kind,), kind, _increment(bits)) for kind, bits in _WIDTHS),
        *(Overload((kind,), kind, lambda x: x + 1) for kind in (Type.FLOAT, Type.DOUBLE)),
    ],
    "sqrt": _real("sqrt"),
    "exp": _real("exp"),
    "ln": _logarithm("log"),
    "log2": _logarithm("log2"),
    "log10": _real("log10", of_bool=True),
    "sin": _real("sin"),
    "cos": _real("cos"),
    "tan": _real("tan"),
    "cot": [
        *overloads_of((*INTEGERS, Type.DOUBLE), Type.DOUBLE, _cotangent),
        *overloads_of([Type.FLOAT], Type.FLOAT, _cotangent_of_float),
    ],
    "asin": _real("asin"),
    "acos": _real("acos"),
    "atan": [*_real("atan"), *_pair("atan2")],
    "atan2": _pair("atan2"),
    "power": _pair("pow"),
    "degrees": overloads_of([Type.DOUBLE], Type.DOUBLE, lambda x: x * (180 / math.pi)),
    "radians": overloads_of(NUMBERS, Type.DOUBLE, lambda x: x / 180 * math.pi),
}

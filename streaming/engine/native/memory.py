"""Arrays and numbers at an address, for kernels: text eight bytes at a time, tables, and buffers that Arrow owns.

In a kernel each of these is one or two instructions (`object_code` says which); the bodies here say what they mean.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

__all__ = [
    "address",
    "bytes_at",
    "copy",
    "floats_at",
    "int64s_at",
    "load8",
    "load16",
    "load32",
    "load64",
    "load_float32",
    "load_float64",
    "rows_at",
    "store16",
    "store32",
    "store64",
    "store_float32",
    "store_float64",
    "word",
]

Int64 = npt.NDArray[np.int64]


def load8(at: int) -> int:
    """The signed byte at an address."""
    return ctypes.c_int8.from_address(at).value


def load16(at: int) -> int:
    """The int16 at an address; as all that follow, it need not be aligned."""
    return ctypes.c_int16.from_address(at).value


def load32(at: int) -> int:
    """The int32 at an address."""
    return ctypes.c_int32.from_address(at).value


def load64(at: int) -> int:
    """The int64 at an address."""
    return ctypes.c_int64.from_address(at).value


def load_float32(at: int) -> float:
    """The float at an address."""
    return ctypes.c_float.from_address(at).value


def load_float64(at: int) -> float:
    """The double at an address."""
    return ctypes.c_double.from_address(at).value


def store16(at: int, value: int) -> None:
    """Writes the low 16 bits of a number to an address."""
    ctypes.c_int16.from_address(at).value = value


def store32(at: int, value: int) -> None:
    """Writes the low 32 bits of a number to an address."""
    ctypes.c_int32.from_address(at).value = value


def store64(at: int, value: int) -> None:
    """Writes a number to an address."""
    ctypes.c_int64.from_address(at).value = value


def store_float64(at: int, value: float) -> None:
    """Writes a number to an address."""
    ctypes.c_double.from_address(at).value = value


def store_float32(at: int, value: float) -> None:
    """Writes a number, rounded to a float, to an address."""
    ctypes.c_float.from_address(at).value = value


def copy(to: int, at: int, n: int) -> None:
    """Copies n bytes from one address to another; the two do not overlap."""
    ctypes.memmove(to, at, n)


def word(value: int) -> int:
    """The number itself, as an int64: a function that is given a constant is not compiled anew for it."""
    return value


def address(array: npt.NDArray[np.int64] | npt.NDArray[np.uint8]) -> int:
    """Where the first element of an array lies."""
    return int(array.ctypes.data)


def int64s_at(at: int, n: int) -> Int64:
    """The n int64 from an address on."""
    return np.ctypeslib.as_array((ctypes.c_int64 * n).from_address(at))


def rows_at(at: int, n: int, width: int) -> Int64:
    """The int64[n, width] at an address."""
    return int64s_at(at, n * width).reshape(n, width)


def bytes_at(at: int, n: int) -> npt.NDArray[np.uint8]:
    """The n bytes from an address on."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * n).from_address(at))


def floats_at(at: int, n: int) -> npt.NDArray[np.float64]:
    """The n doubles from an address on."""
    return np.ctypeslib.as_array((ctypes.c_double * n).from_address(at))

"""Hashes: FarmHash's fingerprint of a value's bytes, which is the same on every machine and in every version."""

from __future__ import annotations

import struct
from collections.abc import Callable

from farmhash import Fingerprint64  # of the package cityhash: FarmHash as Google wrote it

from streaming.engine.library.moments import date_of
from streaming.engine.library.overload import Overload
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import ZERO_DATE, Type

__all__ = ["FUNCTIONS"]


def _fingerprint(data: bytes) -> int:
    found = int(Fingerprint64(data))
    return found - (1 << 64) if found >> 63 else found


def _packed(code: str) -> Callable[[float], int]:
    """Of a number as it lies in memory."""
    layout = struct.Struct("<" + code)
    return lambda value: _fingerprint(layout.pack(value))


def _of_date(days: int) -> int:
    if days == ZERO_DATE:
        return _fingerprint(bytes(4))
    day = date_of(days)
    return _fingerprint(struct.pack("<i", day.year - 1900 << 16 | day.month - 1 << 8 | day.day))


_LAYOUTS = {
    Type.BOOL: "?",
    Type.SMALLINT: "h",
    Type.INT: "i",
    Type.BIGINT: "q",
    Type.FLOAT: "f",
    Type.DOUBLE: "d",
    Type.TIMESTAMP: "q",
}

FUNCTIONS: dict[str, list[Overload]] = {
    "hash64": [
        *(Overload((kind,), Type.BIGINT, _packed(code)) for kind, code in _LAYOUTS.items()),
        Overload((Type.DATE,), Type.BIGINT, _of_date),
        Overload((Type.STRING,), Type.BIGINT, lambda text: _fingerprint(text_bytes(text))),
    ]
}

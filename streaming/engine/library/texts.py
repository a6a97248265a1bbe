"""Functions of text. OpenMLDB cuts, turns and measures it by bytes, and folds the case of ASCII only."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from streaming.engine.library.numbers import round_half_away
from streaming.engine.library.overload import INTEGERS, REALS, Overload, each
from streaming.engine.types import Type

__all__ = ["FUNCTIONS", "VARIADIC"]

_TEXT = Type.STRING


def _substring(text: str, position: int, length: int | None = None) -> bytes:
    """Bytes from `position`, counted from 1, or from the end where it is negative."""
    data = text.encode()
    if position == 0 or (length is not None and length <= 0) or abs(position) > len(data):
        return b""
    start = position - 1 if position > 0 else len(data) + position
    return data[start:] if length is None else data[start : start + length]


def _compare(a: str, b: str) -> int:
    """The difference of the first bytes that differ; where one text begins with the other: which one is longer."""
    left, right = a.encode(), b.encode()
    for x, y in zip(left, right, strict=False):
        if x != y:
            return x - y
    return (len(left) > len(right)) - (len(left) < len(right))


def _like(fold: bool) -> Callable[..., bool]:
    """LIKE by bytes: `_` is one byte, `%` any number; an escape of another length than 1 switches it off, or fails."""

    def match(text: str, pattern: str, escape: str = "\\") -> bool:
        mark, data = escape.encode(), pattern.encode()
        if len(mark) > 1:
            return False
        expression, i = b"", 0
        while i < len(data):
            c = data[i : i + 1]
            if mark and c == mark:
                i += 1
                if i == len(data):
                    return False
                expression += re.escape(data[i : i + 1])
            elif c == b"%":
                expression += b".*"
            else:
                expression += b"." if c == b"_" else re.escape(c)
            i += 1
        flags = re.DOTALL | (re.IGNORECASE if fold else 0)
        return re.fullmatch(expression, text.encode(), flags) is not None

    return match


def _regular(text: str, pattern: str, flags: str = "") -> bool | None:
    """RLIKE: whether the whole text matches, by RE2, which Arrow has; NULL where the pattern is none."""
    inner = "".join(flag for flag in "ims" if flag in flags)
    whole = f"(?{inner})" if inner else ""
    try:
        found: bool = pc.match_substring_regex(pa.scalar(text), rf"\A(?:{whole}{pattern})\z").as_py()
    except pa.ArrowInvalid:
        return None
    return found


def _replace(text: str, search: str, replacement: str = "") -> str:
    return text.replace(search, replacement) if search else text


def _hex_of_integer(bits: int) -> Callable[[int], str]:
    return lambda value: f"{value & ((1 << bits) - 1):X}"


def _hex_of_text(text: str) -> str:
    # each byte as a signed char that printf widens to an int
    return "".join(f"{byte:X}" if byte < 128 else f"FFFFFF{byte:X}" for byte in text.encode())


def _hex_of_real(value: float) -> str:
    rounded = round_half_away(value)
    fits = -(2.0**63) <= rounded < 2.0**63  # NaN does not
    return f"{int(rounded) & ((1 << 64) - 1):X}" if fits else "8000000000000000"


def _character(code: int) -> bytes:
    return bytes([code & 0xFF])


def _concat(*texts: str) -> str:
    return "".join(texts)


def _concat_ws(separator: str, *texts: str) -> str:
    return separator.join(texts)


# takes values of every type, as their texts
VARIADIC: dict[str, Callable[..., str]] = {"concat": _concat, "concat_ws": _concat_ws}

FUNCTIONS: dict[str, list[Overload]] = {
    "ucase": each([_TEXT], _TEXT, lambda text: text.encode().upper()),
    "lcase": each([_TEXT], _TEXT, lambda text: text.encode().lower()),
    "reverse": each([_TEXT], _TEXT, lambda text: text.encode()[::-1]),
    "char_length": each([_TEXT], Type.INT, lambda text: len(text.encode())),
    "char": each([Type.INT], _TEXT, _character),
    "strcmp": each([_TEXT], Type.INT, _compare, _TEXT),
    "substring": [
        *each([_TEXT], _TEXT, _substring, Type.INT),
        *each([_TEXT], _TEXT, _substring, Type.INT, Type.INT),
    ],
    "replace": [*each([_TEXT], _TEXT, _replace, _TEXT), *each([_TEXT], _TEXT, _replace, _TEXT, _TEXT)],
    "like_match": [
        *each([_TEXT], Type.BOOL, _like(False), _TEXT),
        *each([_TEXT], Type.BOOL, _like(False), _TEXT, _TEXT),
    ],
    "ilike_match": [
        *each([_TEXT], Type.BOOL, _like(True), _TEXT),
        *each([_TEXT], Type.BOOL, _like(True), _TEXT, _TEXT),
    ],
    "regexp_like": [*each([_TEXT], Type.BOOL, _regular, _TEXT), *each([_TEXT], Type.BOOL, _regular, _TEXT, _TEXT)],
    "hex": [
        *(Overload((kind,), _TEXT, _hex_of_integer(bits)) for kind, bits in zip(INTEGERS, (16, 32, 64), strict=True)),
        *each(REALS, _TEXT, _hex_of_real),
        *each([_TEXT], _TEXT, _hex_of_text),
    ],
}

"""Functions of text. OpenMLDB cuts, turns and measures it by bytes, and folds the case of ASCII only."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import re2

from streaming.engine.library.numbers import round_half_away
from streaming.engine.library.overload import INTEGERS, REALS, Overload, overloads_of
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import Type

__all__ = ["CUTTING", "FUNCTIONS", "VARIADIC"]

_TEXT = Type.STRING


def _substring(text: str, position: int, length: int | None = None) -> bytes:
    """Bytes from `position`, counted from 1, or from the end where it is negative."""
    data = text_bytes(text)
    if position == 0 or (length is not None and length <= 0) or abs(position) > len(data):
        return b""
    start = position - 1 if position > 0 else len(data) + position
    return data[start:] if length is None else data[start : start + length]


def _reverse(text: str) -> bytes:
    return text_bytes(text)[::-1]


def _compare(a: str, b: str) -> int:
    """The difference of the first bytes that differ; where one text begins with the other: which one is longer."""
    left, right = text_bytes(a), text_bytes(b)
    for x, y in zip(left, right, strict=False):
        if x != y:
            return x - y
    return (len(left) > len(right)) - (len(left) < len(right))


def _like(fold: bool) -> Callable[..., bool]:
    """LIKE by bytes: `_` is one byte, `%` any number; an escape of another length than 1 switches it off, or fails."""

    def match(text: str, pattern: str, escape: str = "\\") -> bool:
        mark, data = text_bytes(escape), text_bytes(pattern)
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
        return re.fullmatch(expression, text_bytes(text), flags) is not None

    return match


@functools.lru_cache(4096)
def _pattern(pattern: bytes, flags: str) -> Any:
    """None: it is none, or has what POSIX has not, as `\\d`."""
    options = re2.Options()
    options.posix_syntax, options.longest_match, options.one_line = True, True, True
    options.log_errors = False
    for flag in flags:  # of two that contradict each other the last one counts; others mean nothing
        if flag in "ci":
            options.case_sensitive = flag == "c"
        elif flag == "m":
            options.one_line = False
        elif flag == "s":
            options.dot_nl = True
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _regular(text: str, pattern: str, flags: str = "") -> bool | None:
    """RLIKE: whether the whole text matches, by RE2 as OpenMLDB uses it; NULL where the pattern is none."""
    compiled = _pattern(text_bytes(pattern), flags)
    return None if compiled is None else compiled.fullmatch(text_bytes(text)) is not None


def _replace(text: str, search: str, replacement: str = "") -> bytes:
    return text_bytes(text).replace(text_bytes(search), text_bytes(replacement)) if search else text_bytes(text)


def _hex_of_integer(bits: int) -> Callable[[int], str]:
    return lambda value: f"{value & ((1 << bits) - 1):X}"


def _hex_of_text(text: str) -> str:
    # each byte as a signed char that printf widens to an int
    return "".join(f"{byte:X}" if byte < 128 else f"FFFFFF{byte:X}" for byte in text_bytes(text))


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


CUTTING: frozenset[object] = frozenset({_substring, _reverse, _character, _replace})
"""The functions whose results may be pieces of letters."""

# takes values of every type, as their texts
VARIADIC: dict[str, Callable[..., str]] = {"concat": _concat, "concat_ws": _concat_ws}

FUNCTIONS: dict[str, list[Overload]] = {
    "ucase": overloads_of([_TEXT], _TEXT, lambda text: text_bytes(text).upper()),
    "lcase": overloads_of([_TEXT], _TEXT, lambda text: text_bytes(text).lower()),
    "reverse": overloads_of([_TEXT], _TEXT, _reverse),
    "char_length": overloads_of([_TEXT], Type.INT, lambda text: len(text_bytes(text))),
    "char": overloads_of([Type.INT], _TEXT, _character),
    "strcmp": overloads_of([_TEXT], Type.INT, _compare, _TEXT),
    "substring": [
        *overloads_of([_TEXT], _TEXT, _substring, Type.INT),
        *overloads_of([_TEXT], _TEXT, _substring, Type.INT, Type.INT),
    ],
    "replace": [*overloads_of([_TEXT], _TEXT, _replace, _TEXT), *overloads_of([_TEXT], _TEXT, _replace, _TEXT, _TEXT)],
    "like_match": [
        *overloads_of([_TEXT], Type.BOOL, _like(False), _TEXT),
        *overloads_of([_TEXT], Type.BOOL, _like(False), _TEXT, _TEXT),
    ],
    "ilike_match": [
        *overloads_of([_TEXT], Type.BOOL, _like(True), _TEXT),
        *overloads_of([_TEXT], Type.BOOL, _like(True), _TEXT, _TEXT),
    ],
    "regexp_like": [
        *overloads_of([_TEXT], Type.BOOL, _regular, _TEXT),
        *overloads_of([_TEXT], Type.BOOL, _regular, _TEXT, _TEXT),
    ],
    "hex": [
        *(Overload((kind,), _TEXT, _hex_of_integer(bits)) for kind, bits in zip(INTEGERS, (16, 32, 64), strict=True)),
        *overloads_of(REALS, _TEXT, _hex_of_real),
        *overloads_of([_TEXT], _TEXT, _hex_of_text),
    ],
}

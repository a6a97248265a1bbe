"""Casts from and to text, as C's strtol, strtod and strptime read, and as C++ streams and printf write."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from streaming.engine.library.float_texts import float_text
from streaming.engine.library.moments import date_text, days_of, time_text
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import FIRST_DATE, Type

__all__ = ["CASTS"]

_SPACES = " \t\n\v\f\r"


def _integer(low: int, high: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        text = text.strip(_SPACES)
        hexadecimal = re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]+", text)
        if not hexadecimal and not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
            return None
        value = int(text, 16 if hexadecimal else 10)
        return value if low <= value <= high else None

    return read


def _number(text: str) -> float | None:
    text = text.lstrip(_SPACES)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", text, re.ASCII | re.IGNORECASE):
        return float(text)
    if re.fullmatch(r"[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[+-]?\d+)?", text, re.ASCII | re.IGNORECASE):
        try:
            return float.fromhex(text)
        except OverflowError:
            return float("-inf") if text.startswith("-") else float("inf")
    return None


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _days(text: str) -> int | None:
    """Of `2020-05-22` (10 characters, `/` for `-`, a month's English name for its number) or `20200522`."""
    found = re.fullmatch(r"(\d{4})(?:([-/.,])(\d{2})[-/.,](\d{2})|(\d{2})(\d{2}))", text, re.ASCII)
    if found is None:
        return None
    try:
        return days_of(datetime.date(int(found[1]), int(found[3] or found[5]), int(found[4] or found[6])))
    except ValueError:
        return None


def _seconds(text: str) -> int | None:
    """Seconds since 1970 of `2020-05-22 10:43:40`; a day beyond its month's last runs into the next one."""
    found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2}) (\d{2}):(\d{2}):(\d{2})", text, re.ASCII)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= 31 or hour > 23 or minute > 59 or second > 61:
        return None
    days = days_of(datetime.date(year, month, 1)) + day - 1
    return days * 86_400 + hour * 3600 + minute * 60 + second


def _to_date(text: str) -> int | None:
    if len(text_bytes(text)) == 19:
        seconds = _seconds(text)
        days = None if seconds is None else seconds // 86_400
    else:
        days = _days(text)
    return days if days is not None and days >= FIRST_DATE else None


def _to_timestamp(text: str) -> int | None:
    if len(text_bytes(text)) == 19:
        seconds = _seconds(text)
    else:
        days = _days(text)
        seconds = None if days is None else days * 86_400
    if seconds is None or seconds < FIRST_DATE * 86_400:
        return None
    return (seconds - 8 * 3600) * 1000


_TRUTHS = {"t": True, "true": True, "y": True, "yes": True, "1": True}
_TRUTHS.update({"f": False, "false": False, "n": False, "no": False, "0": False})

CASTS: dict[tuple[Type, Type], Callable[[Any], Any]] = {
    (Type.STRING, Type.BOOL): lambda text: _TRUTHS.get(text.lower()),
    (Type.STRING, Type.SMALLINT): _integer(-(1 << 15), (1 << 15) - 1),
    (Type.STRING, Type.INT): _integer(-(1 << 31), (1 << 31) - 1),
    (Type.STRING, Type.BIGINT): _integer(-(1 << 63), (1 << 63) - 1),
    (Type.STRING, Type.FLOAT): _number,
    (Type.STRING, Type.DOUBLE): _number,
    (Type.STRING, Type.DATE): _to_date,
    (Type.STRING, Type.TIMESTAMP): _to_timestamp,
    (Type.BOOL, Type.STRING): lambda value: "true" if value else "false",
    (Type.SMALLINT, Type.STRING): str,
    (Type.INT, Type.STRING): str,
    (Type.BIGINT, Type.STRING): str,
    (Type.FLOAT, Type.STRING): float_text,
    (Type.DOUBLE, Type.STRING): float_text,
    (Type.TIMESTAMP, Type.STRING): time_text,
    (Type.DATE, Type.STRING): date_text,
}

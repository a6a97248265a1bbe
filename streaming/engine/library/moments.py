"""Dates and times of day of timestamps and dates, in UTC+8 and of any year, and their texts by C's strftime.

OpenMLDB cuts a timestamp to whole seconds towards 0, so before 1970 upwards.
"""

from __future__ import annotations

import ctypes
import datetime
from dataclasses import dataclass

from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import ZERO_DATE

__all__ = ["Moment", "date_of", "date_text", "days_of", "format_date", "format_time", "moment_of", "time_text"]

_DAY = datetime.date(1970, 1, 1)
_ZONE_MS = 8 * 3_600_000
_TEXT_MAX = 80  # bytes of OpenMLDB's buffer: a text that does not fit with its end is empty


def date_of(days: int) -> datetime.date:
    """A date from days since 1970."""
    return _DAY + datetime.timedelta(days=days)


def days_of(date: datetime.date) -> int:
    """Days since 1970 of a date."""
    return (date - _DAY).days


_2000 = days_of(datetime.date(2000, 1, 1))
_DAYS_OF_400_YEARS = 146_097  # after which the calendar, weekdays and all, repeats


@dataclass(frozen=True)
class Moment:
    """A timestamp in UTC+8, of any year.

    Attributes:
        like: the date of the years 2000 to 2399 that has its month, day and weekday.
        later: how many years after `like` it is.
        second: of its day.
    """

    like: datetime.date
    later: int
    second: int

    @property
    def year(self) -> int:
        return self.like.year + self.later


def moment_of(ms: int, *, wraps: bool = True) -> Moment:
    """The moment of epoch milliseconds.

    Args:
        wraps: whether their sum with eight hours wraps, as of most of OpenMLDB's functions.
    """
    local = (ms + _ZONE_MS + (1 << 63)) % (1 << 64) - (1 << 63) if wraps else ms + _ZONE_MS
    days, second = divmod(local // 1000 if local >= 0 else -(-local // 1000), 86_400)
    times, days = divmod(days - _2000, _DAYS_OF_400_YEARS)
    return Moment(date_of(_2000 + days), 400 * times, second)


class _Tm(ctypes.Structure):
    """C's struct tm."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("sec", "min", "hour", "mday", "mon", "year", "wday", "yday", "isdst")),
        ("gmtoff", ctypes.c_long),
        ("zone", ctypes.c_char_p),
    )


_strftime = ctypes.CDLL(None).strftime
_strftime.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Tm))
_strftime.restype = ctypes.c_size_t


def _format(moment: Moment, pattern: str, dst: int, zone: bytes | None) -> str:
    date, second = moment.like, moment.second
    given = _Tm(
        *(second % 60, second // 60 % 60, second // 3600),
        *(date.day, date.month - 1, moment.year - 1900, date.isoweekday() % 7, date.timetuple().tm_yday - 1),
        *(dst, 0, zone),
    )
    buffer = ctypes.create_string_buffer(_TEXT_MAX)
    written = _strftime(buffer, _TEXT_MAX, text_bytes(pattern).partition(b"\0")[0], ctypes.byref(given))
    return buffer.raw[:written].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def format_time(ms: int, pattern: str) -> str:
    """A timestamp by strftime in the C locale; its zone is called GMT, as OpenMLDB has it."""
    return _format(moment_of(ms), pattern, 0, b"GMT")


def format_date(days: int, pattern: str) -> str:
    """A date by strftime in the C locale, at midnight, of no zone."""
    if days == ZERO_DATE:
        return ""
    return _format(Moment(date_of(days), 0, 0), pattern, -1, None)


def time_text(ms: int) -> str:
    """`2020-05-29 15:56:30`."""
    moment = moment_of(ms)
    if not 1000 <= moment.year <= 9999:
        return format_time(ms, "%Y-%m-%d %H:%M:%S")
    date, second = moment.like, moment.second
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{moment.year}-{date.month:02}-{date.day:02} {clock}"


def date_text(days: int) -> str:
    """`2020-05-29`."""
    return "" if days == ZERO_DATE else date_of(days).isoformat()

"""Functions of dates and timestamps, which are those of UTC+8."""

from __future__ import annotations

import calendar
import datetime
import time
from collections.abc import Callable

from streaming.engine.library.casts import CASTS, date_and_time, date_of, days_of
from streaming.engine.library.overload import Overload
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.types import Type

__all__ = ["FUNCTIONS"]

_to_date, _to_timestamp = CASTS[Type.STRING, Type.DATE], CASTS[Type.STRING, Type.TIMESTAMP]


_2000 = days_of(datetime.date(2000, 1, 1))
_DAYS_OF_400_YEARS = 146_097  # after which the calendar, weekdays and all, repeats


def _date(ms: int) -> tuple[datetime.date, int]:
    """The date of a timestamp of any year: its like in the years 2000 to 2399, and how many years before it that is."""
    local = (ms + 8 * 3_600_000 + (1 << 63)) % (1 << 64) - (1 << 63)  # wraps as OpenMLDB's sum does
    times, days = divmod(local // 86_400_000 - _2000, _DAYS_OF_400_YEARS)
    return date_of(_2000 + days), 400 * times


def _part(field: Callable[[datetime.date, int], int], *, negative: bool = True) -> list[Overload]:
    """A field of the date of a timestamp, of epoch milliseconds, of a date.

    Args:
        field: of a date whose year is so many years later.
        negative: of times before 1970, too.
    """

    def of_time(ms: int) -> int | None:
        return field(*_date(ms)) if ms >= 0 or negative else None

    return [
        Overload((Type.TIMESTAMP,), Type.INT, of_time),
        Overload((Type.BIGINT,), Type.INT, of_time),
        Overload((Type.DATE,), Type.INT, lambda days: field(date_of(days), 0)),
    ]


def _week(date: datetime.date, later: int) -> int:
    return date.isocalendar()[1] if 1400 <= date.year + later <= 9999 else 0  # boost's calendar


def _last_day(date: datetime.date) -> int:
    return days_of(datetime.date(date.year, date.month, calendar.monthrange(date.year, date.month)[1]))


def _last_day_of_time(ms: int) -> int | None:
    return _last_day(date_and_time(ms)) if ms >= 0 else None


def _add_months(days: int, months: int) -> int | None:
    """The same day of another month, or that month's last."""
    date = date_of(days)
    years, month = divmod(date.month - 1 + months, 12)
    year = date.year + years
    if not 1900 <= year <= 9999:
        return None
    return days_of(datetime.date(year, month + 1, min(date.day, calendar.monthrange(year, month + 1)[1])))


def _format(at: datetime.datetime, pattern: str) -> str:
    """strftime in the C locale, cut where OpenMLDB's buffer of 80 bytes ends: then it is empty."""
    text = at.strftime(pattern)
    return text if len(text_bytes(text)) < 80 else ""


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def _seconds_of_text(text: str) -> int | None:
    if not text:
        return int(time.time())
    return _seconds(_to_timestamp(text))


def _difference(left: Type, right: Type) -> Callable[[int | str, int | str], int | None]:
    def call(a: int | str, b: int | str) -> int | None:
        first = _to_date(a) if left == Type.STRING else a
        second = _to_date(b) if right == Type.STRING else b
        return None if first is None or second is None else int(first) - int(second)

    return call


_DATES = (Type.DATE, Type.STRING)

FUNCTIONS: dict[str, list[Overload]] = {
    "year": _part(lambda d, later: d.year + later),
    "month": _part(lambda d, _: d.month),
    "dayofmonth": _part(lambda d, _: d.day),
    "dayofyear": _part(lambda d, _: d.timetuple().tm_yday, negative=False),
    "weekofyear": _part(_week),
    "last_day": [
        Overload((Type.TIMESTAMP,), Type.DATE, _last_day_of_time),
        Overload((Type.BIGINT,), Type.DATE, _last_day_of_time),
        Overload((Type.DATE,), Type.DATE, lambda days: _last_day(date_of(days))),
    ],
    "add_months": [
        Overload((Type.DATE, kind), Type.DATE, _add_months) for kind in (Type.SMALLINT, Type.INT, Type.BIGINT)
    ],
    "datediff": [Overload((a, b), Type.INT, _difference(a, b)) for a in _DATES for b in _DATES],
    "date_format": [
        Overload((Type.TIMESTAMP, Type.STRING), Type.STRING, lambda ms, text: _format(date_and_time(ms), text)),
        Overload(
            (Type.DATE, Type.STRING),
            Type.STRING,
            lambda days, text: _format(datetime.datetime.combine(date_of(days), datetime.time()), text),
        ),
    ],
    "unix_timestamp": [
        Overload((Type.STRING,), Type.BIGINT, _seconds_of_text),
        Overload((Type.DATE,), Type.BIGINT, lambda days: days * 86_400 - 8 * 3600),
    ],
}

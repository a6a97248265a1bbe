"""Functions of dates and timestamps, which are those of UTC+8."""

from __future__ import annotations

import calendar
import datetime
import time
from collections.abc import Callable

from streaming.engine.library.casts import CASTS
from streaming.engine.library.moments import date_of, days_of, format_date, format_time, moment_of
from streaming.engine.library.overload import Overload
from streaming.engine.types import ZERO_DATE, Type

__all__ = ["FUNCTIONS"]

_to_date, _to_timestamp = CASTS[Type.STRING, Type.DATE], CASTS[Type.STRING, Type.TIMESTAMP]


def _part(field: Callable[[datetime.date, int], int], zero: int | None, *, negative: bool = True) -> list[Overload]:
    """A field of the date of a timestamp, of epoch milliseconds, of a date.

    Args:
        field: of a date whose year is so many years later.
        zero: that of ZERO_DATE.
        negative: of times before 1970, too.
    """

    def of_time(ms: int) -> int | None:
        if ms < 0 and not negative:
            return None
        # where OpenMLDB asks for a negative one first, its compiler takes the sum for one that has no sign
        moment = moment_of(ms, wraps=negative)
        return field(moment.like, moment.later)

    return [
        Overload((Type.TIMESTAMP,), Type.INT, of_time),
        Overload((Type.BIGINT,), Type.INT, of_time),
        Overload((Type.DATE,), Type.INT, lambda days: zero if days == ZERO_DATE else field(date_of(days), 0)),
    ]


def _week(date: datetime.date, later: int) -> int:
    return date.isocalendar()[1] if 1400 <= date.year + later <= 9999 else 0  # boost's calendar


def _last_of_month(date: datetime.date) -> int:
    return days_of(date.replace(day=calendar.monthrange(date.year, date.month)[1]))


def _last_day(days: int) -> int | None:
    return None if days == ZERO_DATE else _last_of_month(date_of(days))


def _last_day_of_time(ms: int) -> int | None:
    if ms < 0:
        return None
    moment = moment_of(ms)
    if not 1900 <= moment.year <= 9999:  # a time near the greatest wraps to one before 1970
        return ZERO_DATE
    return _last_of_month(moment.like.replace(year=moment.year))


def _add_months(days: int, months: int) -> int | None:
    """The same day of another month, or that month's last."""
    if days == ZERO_DATE:
        return None
    date = date_of(days)
    years, month = divmod(date.month - 1 + months, 12)
    year = date.year + years
    if not 1900 <= year <= 9999:
        return ZERO_DATE
    return days_of(datetime.date(year, month + 1, min(date.day, calendar.monthrange(year, month + 1)[1])))


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def _seconds_of_text(text: str) -> int | None:
    if not text:
        return int(time.time())
    return _seconds(_to_timestamp(text))


def _seconds_of_date(days: int) -> int | None:
    return None if days == ZERO_DATE else days * 86_400 - 8 * 3600


def _difference(left: Type, right: Type) -> Callable[[int | str, int | str], int | None]:
    def call(a: int | str, b: int | str) -> int | None:
        first = _to_date(a) if left == Type.STRING else a
        second = _to_date(b) if right == Type.STRING else b
        if first is None or second is None or (left == right and ZERO_DATE in (first, second)):
            return None
        return int(first) - int(second)

    return call


_DATES = (Type.DATE, Type.STRING)

FUNCTIONS: dict[str, list[Overload]] = {
    "year": _part(lambda d, later: d.year + later, 1900),
    "month": _part(lambda d, _: d.month, 1),
    "dayofmonth": _part(lambda d, _: d.day, 0),
    "dayofyear": _part(lambda d, _: d.timetuple().tm_yday, None, negative=False),
    "weekofyear": _part(_week, 0),
    "last_day": [
        Overload((Type.TIMESTAMP,), Type.DATE, _last_day_of_time),
        Overload((Type.BIGINT,), Type.DATE, _last_day_of_time),
        Overload((Type.DATE,), Type.DATE, _last_day),
    ],
    "add_months": [
        Overload((Type.DATE, kind), Type.DATE, _add_months) for kind in (Type.SMALLINT, Type.INT, Type.BIGINT)
    ],
    "datediff": [Overload((a, b), Type.INT, _difference(a, b)) for a in _DATES for b in _DATES],
    "date_format": [
        Overload((Type.TIMESTAMP, Type.STRING), Type.STRING, format_time),
        Overload((Type.DATE, Type.STRING), Type.STRING, format_date),
    ],
    "unix_timestamp": [
        Overload((Type.STRING,), Type.BIGINT, _seconds_of_text),
        Overload((Type.DATE,), Type.BIGINT, _seconds_of_date),
    ],
}

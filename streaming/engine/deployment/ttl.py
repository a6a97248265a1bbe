"""The times to live of the indexes that a DEPLOY needs: from its windows and its options RANGE_BIAS and ROWS_BIAS."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import reduce

from streaming.engine.program.program import Program
from streaming.engine.storage.table import NO_TTL

__all__ = ["Ttl", "derive_ttls", "merge_ttls"]

_MINUTE_MS = 60_000

Ttl = tuple[int, int, bool]  # see `table.Index.ttl`


def _plain(ttl: Ttl) -> Ttl:
    """The same time to live without a limit that means nothing."""
    absolute, latest, both = ttl
    return NO_TTL if both and not (absolute and latest) else ttl


def _longer(a: int, b: int) -> int:
    return 0 if not (a and b) else max(a, b)


def merge_ttls(a: Ttl, b: Ttl) -> Ttl:
    """The time to live that OpenMLDB makes of two: every row lives that `a` or `b` keeps."""
    a, b = _plain(a), _plain(b)
    if NO_TTL in (a, b):
        return NO_TTL
    either = [bool(ttl[0] and ttl[1]) and not ttl[2] for ttl in (a, b)]
    if a[2] or b[2]:  # a simple one says nothing of the other limit
        limits = [_longer(x, y) if x and y else x or y for x, y in ((a[0], b[0]), (a[1], b[1]))]
        return limits[0], limits[1], True
    if any(either):
        if all(either):
            return max(a[0], b[0]), max(a[1], b[1]), False
        simple, other = (b, a) if either[0] else (a, b)
        return (max(simple[0], other[0]), 0, False) if simple[0] else (0, max(simple[1], other[1]), False)
    return max(a[0], b[0]), max(a[1], b[1]), bool(a[0]) != bool(b[0])


def derive_ttls(program: Program, options: Mapping[str, object], *, declared: bool = False) -> list[Ttl]:
    """The time to live of each of the program's indexes.

    A frame of n rows needs the n + ROWS_BIAS newest rows of a key, one of a time span those not older than span +
    RANGE_BIAS, in minutes, begun ones as whole ones. A row goes when no frame needs it. Without these options, or with
    'inf', rows stay for ever, and so do those that joins look for, and those of windows that belong to joined rows,
    however old these are.

    Args:
        declared: what an index needs that a script has declared: as in OpenMLDB, biases are 0 where there are no
            options, and a LAST JOIN needs the newest row of its key.

    Raises:
        ValueError: a bias that is no number, span or 'inf'; names the option.
    """
    default: object = 0 if declared else "inf"
    range_bias = _range_bias(options.get("range_bias", default))
    rows_bias = _rows_bias(options.get("rows_bias", default))
    wanted: list[list[Ttl]] = [[] for _ in program.indexes]
    for group, indexes in program.sources:
        skips = not declared and (group.exclude_time or any(source.where is not None for source in group.sources))
        for rows, start, _, _ in group.frames:
            bias = rows_bias if rows else range_bias
            if start < 0 or bias is None or group.of is not None or (rows and skips):
                ttl = NO_TTL
            else:
                ttl = (0, max(1, start) + bias, False) if rows else (max(_MINUTE_MS, _minutes(start)) + bias, 0, False)
            for index in indexes:
                wanted[index].append(ttl)
    for use, ttls in zip(program.indexes, wanted, strict=True):
        if not use.windows or not ttls:
            ttls.append((0, 1 + rows_bias, False) if declared and rows_bias is not None else NO_TTL)
    return [reduce(merge_ttls, ttls) for ttls in wanted]


def _minutes(span_ms: int) -> int:
    """A span in whole minutes, the begun one too, in milliseconds."""
    return -(-span_ms // _MINUTE_MS) * _MINUTE_MS


def _range_bias(value: object) -> int | None:
    """Milliseconds; None: 'inf'."""
    if isinstance(value, str) and value.lower() == "inf":
        return None
    if isinstance(value, datetime.timedelta):
        return _minutes(value // datetime.timedelta(milliseconds=1))
    if isinstance(value, int) and not isinstance(value, bool):
        return _minutes(value)
    raise ValueError(f"RANGE_BIAS {value!r}: neither milliseconds, nor a span as 7d (without quotes), nor 'inf'")


def _rows_bias(value: object) -> int | None:
    if isinstance(value, str) and value.lower() == "inf":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"ROWS_BIAS {value!r}: neither a number of rows nor 'inf'")

"""The times to live of the indexes that a DEPLOY makes: from its windows and its options RANGE_BIAS and ROWS_BIAS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce

from streaming.engine.program.program import Program
from streaming.engine.storage.table import NO_TTL

__all__ = ["Ttl", "derive_ttls", "merge_ttls"]

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Ttl = tuple[int, int, bool]  # see `table.Index.ttl`


def merge_ttls(a: Ttl, b: Ttl) -> Ttl:
    """The shortest time to live that keeps every row that `a` or `b` keeps."""
    if NO_TTL in (a, b):
        return NO_TTL
    mixed = a[2] or b[2] or bool(a[0]) != bool(b[0])
    return max(a[0], b[0]), max(a[1], b[1]), mixed


def derive_ttls(program: Program, options: Mapping[str, object]) -> list[Ttl]:
    """The time to live of each of the program's indexes.

    A frame of n rows needs the n + ROWS_BIAS newest rows of a key, one of a time span those not older than span +
    RANGE_BIAS. A row goes when no frame needs it. Without these options, or with 'inf', rows stay for ever, and so do
    those that joins look for, and those of windows that belong to joined rows, however old these are.

    Raises:
        ValueError: a bias that is no number, span or 'inf'; names the option.
    """
    range_bias = _range_bias(options.get("range_bias", "inf"))
    rows_bias = _rows_bias(options.get("rows_bias", "inf"))
    wanted: list[list[Ttl]] = [[] for _ in program.indexes]
    for group, indexes in program.sources:
        skips = group.exclude_time or any(source.where is not None for source in group.sources)
        for rows, start, _, _ in group.frames:
            bias = rows_bias if rows else range_bias
            if start < 0 or bias is None or group.of is not None or (rows and skips):
                ttl = NO_TTL
            else:
                ttl = (0, max(1, start + bias), False) if rows else (max(1, start + bias), 0, False)
            for index in indexes:
                wanted[index].append(ttl)
    return [
        NO_TTL if not rows.windows or not ttls else reduce(merge_ttls, ttls)
        for rows, ttls in zip(program.indexes, wanted, strict=True)
    ]


def _range_bias(value: object) -> int | None:
    """Milliseconds; a number counts minutes."""
    if value == "inf":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value * 60_000
    found = re.fullmatch(r"(\d+)([smhd])", str(value).strip().lower())
    if found is None:
        raise ValueError(f"RANGE_BIAS {value!r}: neither minutes, nor a span as '7d', nor 'inf'")
    return int(found[1]) * _UNITS[found[2]]


def _rows_bias(value: object) -> int | None:
    if value == "inf":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"ROWS_BIAS {value!r}: neither a number of rows nor 'inf'")

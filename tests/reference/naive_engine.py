"""What the windows and joins of OpenMLDB mean, as loops over lists: no numba, no indexes, no code of the engine.

A table is a list of rows (dicts) in order of insertion; a row of a window is a dict, too. Everything here follows
`docs/reference/sql` word by word, and nothing is fast.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """A window over `t` by `key` in order of `ts`.

    Attributes:
        rows: whether its frame counts rows; else milliseconds.
        start, end: how far the frame reaches back, and where it ends; None: without bound.
        maxsize: at most so many rows, the newest; 0: all.
        union: whether the rows of `u` are in, too.
        instance_not_in_window: whether those of `t` are out, but for the request's.
        exclude_row, exclude_time: whether the request's row, or others of its time, are out.
        ordered: whether there is an ORDER BY.
        where: whether of `u` only the rows with i > 0 are in.
        listed: whether the UNION's sub-select lists its columns.
    """

    rows: bool
    start: int | None
    end: int
    maxsize: int = 0
    union: bool = False
    instance_not_in_window: bool = False
    exclude_row: bool = False
    exclude_time: bool = False
    key: tuple[str, ...] = ("k",)
    ordered: bool = True
    where: bool = False
    listed: bool = False

    def sql(self) -> str:
        """The window's specification."""
        unit = "" if self.rows else "s"
        scale = 1 if self.rows else 1000
        start = "unbounded preceding" if self.start is None else f"{self.start // scale}{unit} preceding"
        return (
            f"({self.sql_of_union() if self.union else ''}partition by {', '.join(self.key)} "
            f"{'order by ts ' if self.ordered else ''}"
            f"{'rows' if self.rows else 'rows_range'} between {start} and {self.end // scale}{unit} preceding"
            f"{f' maxsize {self.maxsize}' if self.maxsize else ''}"
            f"{' exclude current_row' if self.exclude_row else ''}"
            f"{' exclude current_time' if self.exclude_time else ''}"
            f"{' instance_not_in_window' if self.instance_not_in_window else ''})"
        )

    def sql_of_union(self) -> str:
        """UNION and its source."""
        columns = "id, k, j, ts, i, b, f, d, s" if self.listed else "*"
        if self.where:
            return f"union (select {columns} from u where i > 0) "
        return f"union (select {columns} from u) " if self.listed else "union u "

    def back(self, n: int) -> Window:
        """The window of at(x, n) and lag(x, n): the n rows before the request, and itself."""
        return replace(self, rows=True, start=n, end=0, maxsize=0, exclude_row=False)

    def contents(self, request: Row, t: list[Row], u: list[Row]) -> list[Row]:
        """The window's rows for `request`, newest first."""
        if self.where:
            u = [row for row in u if row["i"] is not None and row["i"] > 0]
        sources = [[] if self.instance_not_in_window else t, u if self.union else []]
        found = []
        for source, table in enumerate(sources):
            for place, row in enumerate(table):
                if any(row[k] != request[k] for k in self.key) or (self.ordered and row["ts"] > request["ts"]):
                    continue
                if self.exclude_time and (self.rows or self.end == 0) and row["ts"] == request["ts"]:
                    continue
                found.append((-row["ts"] if self.ordered else 0, source, -place, row))
        stored = [row for *_, row in sorted(found, key=lambda item: item[:3])]
        if self.rows:
            ordered = [request, *stored]
            last = len(ordered) if self.start is None else self.start + 1
            return ordered[max(self.end, 1) if self.exclude_row else self.end : last]
        bound = request["ts"] - self.end
        near = [row for row in stored if row["ts"] <= max(bound, 0)]  # no bound lies before 1970
        if not self.exclude_row if self.end == 0 else request["ts"] <= max(bound, 0):
            near = [request, *near]
        inside = [row for row in near if self.start is None or row["ts"] >= request["ts"] - self.start]
        # beside a UNION the request, in a frame that ends before it, takes no place
        free = self.union and self.end > 0 and any(row is request for row in near)
        return inside[: self.maxsize + free] if self.maxsize else inside

    def contents_of_joined(self, row: Row, table: list[Row]) -> list[Row]:
        """The rows of a window in a joined sub-query over `table`, for a row of that table, newest first.

        A frame that ends at that row begins with the newest of its time, whichever that is.
        """
        found = [(-other["ts"], -n, other) for n, other in enumerate(table) if other["ts"] <= row["ts"]]
        stored = [other for *_, other in sorted(found, key=lambda item: item[:2])]
        stored = [other for other in stored if all(other[k] == row[k] for k in self.key)]
        if self.rows:
            last = len(stored) if self.start is None else self.start + 1
            return stored[max(self.end, 1) if self.exclude_row else self.end : last]
        stored = stored[1:] if self.exclude_row else stored
        inside = [other for other in stored if self.start is None or other["ts"] >= row["ts"] - self.start]
        return inside[: self.maxsize] if self.maxsize else inside


NUMBER: dict[str, Any] = {"i": np.int32, "b": np.int64, "f": np.float32, "d": np.float64}
ZERO: dict[str, Any] = {"i": 0, "b": 0, "f": 0.0, "d": 0.0, "s": ""}


def by_category(name: str, rows: list[Row], number: int) -> str:
    """`count_cate` … and `top_n_key_…`, `top_n_value_…` of the values of `i` by the keys of `s`; with i > 1, if any."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        if row["i"] is not None and row["s"] is not None and ("_where" not in name or row["i"] > 1):
            groups.setdefault(row["s"], []).append(row["i"])
    results = {
        key: {"count": len(v), "max": max(v), "min": min(v), "avg": sum(map(float, v)) / len(v)}[
            name.split("_cate", maxsplit=1)[0].rsplit("_", maxsplit=1)[-1]
        ]
        for key, v in groups.items()
    }
    keys = sorted(results, key=lambda key: key.encode())
    if "_key_" in name:
        keys = keys[::-1][:number]
    if "_value_" in name:
        keys = sorted(keys, key=lambda key: (results[key], key.encode()), reverse=True)[:number]
    return ",".join(f"{key}:{results[key]:f}" if "avg" in name else f"{key}:{results[key]}" for key in keys)


def spread(name: str, known: list[Any]) -> float | None:
    """Variances and deviations, of a sample but for the `pop` ones."""
    divisor = len(known) - (0 if "pop" in name else 1)
    if divisor < 1:
        return None
    total = 0.0
    for value in known:
        total += float(value)
    squares = 0.0
    for value in known:
        squares += (value - total / len(known)) ** 2
    return math.sqrt(squares / divisor) if "std" in name else squares / divisor


def aggregate(name: str, column: str, rows: list[Row], number: int = 0) -> Any:
    """An aggregate of one column; `*_where` ones count rows with i > 1."""
    if "_cate" in name:
        return by_category(name, rows, number)
    if name == "nth_value_where":
        chosen = [row[column] for row in reversed(rows) if row["i"] is not None and row["i"] > 1]
        return chosen[number - 1] if 0 < number <= len(chosen) else None
    if name.endswith("_where"):
        rows = [row for row in rows if row["i"] is not None and row["i"] > 1]
        if name in ("sum_where", "avg_where"):  # to OpenMLDB a value of 0 is a false one
            rows = [row for row in rows if row[column] != 0]
        return aggregate(name.removesuffix("_where"), column, rows, number)
    values = [row[column] for row in rows]
    known = [value for value in values if value is not None]
    if name == "count":
        return len(known)
    if name == "distinct_count":
        return len({ZERO[column] if value is None else value for value in values})
    if name == "first_value":
        return values[-1] if values else None
    if name in ("at", "lag"):
        return values[number] if number < len(values) else None
    if name == "last_value":
        return values[0] if values else None
    if name == "first_known":
        return known[-1] if known else None
    if name == "median":
        if not known:
            return None
        with np.errstate(over="ignore"):  # two in the middle: their sum keeps the column's width, and wraps
            middle = [NUMBER[column](value) for value in (statistics.median_low(known), statistics.median_high(known))]
            return float(middle[0] + middle[1]) / 2 if len(known) % 2 == 0 else float(middle[0])
    if name.startswith(("std", "var")):
        return spread(name, known)
    counts = {value: known.count(value) for value in known}
    if name == "entropy":
        return -sum(n / len(known) * math.log2(n / len(known)) for n in counts.values()) if known else None
    if name == "top":
        best = sorted(known, key=lambda v: v.encode() if column == "s" else v, reverse=True)[:number]
        return ",".join(map(str, best))
    if name == "top1_ratio":
        return max(counts.values()) / len(known) if known else 0.0
    if name == "topn_frequency":
        if not rows:
            return ""
        best = sorted(counts, key=lambda v: (-counts[v], v.encode() if column == "s" else v))[:number]
        return ",".join([*map(str, best), *["NULL"] * (number - len(best))])
    if not known:
        return None
    if name == "sum":
        kind = NUMBER[column]
        total = kind(0)
        with np.errstate(over="ignore"):
            for value in known:
                total = kind(total + kind(value))
        return total.item()
    if name == "avg":
        sum_of = 0.0
        for value in known:
            sum_of += float(value)
        return sum_of / len(known)
    if column == "s":
        known.sort(key=lambda v: v.encode())
        return known[0] if name == "min" else known[-1]
    return min(known) if name == "min" else max(known)


def last_join(request: Row, u: list[Row], key: str, ordered: bool, bound: bool) -> Row | None:
    """The row of `u` that LAST JOIN finds: the last inserted, or the latest; `bound`: not later than the request."""
    best: Row | None = None
    for row in u:
        if row[key] != request[key] or (bound and row["ts"] > request["ts"]):
            continue
        if best is None or not ordered or row["ts"] >= best["ts"]:
            best = row
    return best

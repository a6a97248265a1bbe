"""What each row of an offline query may see: the rows of its windows as of its own time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.engine.plan.nodes import Column as ColumnNode
from streaming.engine.program.compiler import Program, Rows
from streaming.engine.program.runner import Deployment
from streaming.engine.storage.table import NO_TTL, Index, check_times

__all__ = ["as_of"]

Int64 = npt.NDArray[np.int64]


def as_of(deployment: Deployment) -> tuple[Int64, Int64]:
    """The order in which an offline query visits its rows, and what each may see of each index.

    The indexes are the query's own and are linked in order of time as the visit goes on.
    """
    table, program = deployment.table, deployment.program
    n = table.count
    order: Int64 = np.arange(n)
    if deployment.times:
        order = np.argsort(table.rows[:n, deployment.times[0]], kind="stable")
    limits = np.empty((n, len(program.indexes)), np.int64)
    for i, rows in enumerate(program.indexes):
        source = rows.table
        if not rows.windows:
            limits[:, i] = source.count
            deployment.indexes.append(_temporary(rows))
            continue
        times = source.rows[: source.count, rows.ts]
        check_times(source.name, source.columns, source.rows[: source.count], [rows.ts], "a window's time")
        by_time = np.argsort(times, kind="stable")
        deployment.indexes.append(Index(source, rows.key, rows.ts, by_time))
        if source is table and rows.ts in deployment.times:
            place = np.empty(n, np.int64)
            place[by_time] = np.arange(n)
            limits[:, i] = place[order]
        else:
            main_time = _main_time(program, i)
            limits[:, i] = np.searchsorted(times[by_time], table.rows[order, main_time], "right")
    return order, limits


def _main_time(program: Program, index: int) -> int:
    """The request's column that bounds the rows of a window's index."""
    for group, numbers in program.sources:
        if index in numbers and group.time is not None:
            node = group.own[group.time]
            if isinstance(node, ColumnNode):
                return node.position
    raise TypeError("an index of no window")


def _temporary(rows: Rows) -> Index:
    existing = rows.table.indexes.get((rows.key, rows.ts))
    if existing is not None and existing.ttl == NO_TTL:  # offline, nothing expires
        return existing
    if rows.ts >= 0:
        table = rows.table
        check_times(table.name, table.columns, table.rows[: table.count], [rows.ts], "a join's order")
    return Index(rows.table, rows.key, rows.ts)

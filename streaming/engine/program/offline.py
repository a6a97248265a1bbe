"""A SELECT answered offline: a row per row of its main table, each by what was there at its own time."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.plan.nodes import ColumnNode, QueryTable
from streaming.engine.plan.select import Query
from streaming.engine.program.compiled_query import CompiledQuery, compile_query
from streaming.engine.program.program import IndexUse, Program
from streaming.engine.program.runner import Runner
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import NO_TTL, Column, Index, Table, check_times
from streaming.engine.types import Type

__all__ = ["answer_offline"]

Int64 = npt.NDArray[np.int64]


def answer_offline(query: Query, select: syntax.Select, script: str, pool: StringPool, runner: Runner) -> pa.Table:
    """The answer of a SELECT.

    Args:
        query: its plan.
        select, script: its tree, and the text that this is from, for messages.
        pool: the strings of the engine; those of the answer are taken out again.
        runner: runs the query.

    Raises:
        UnsupportedSQL: a construct that only a request may have, or a table that has lost rows.
        BadRow: a window's time is NULL or negative.
    """
    if query.online_only:
        what, at = query.online_only[0]
        raise error_at(script, at, f"unsupported: offline, {what}")
    if query.main is None:  # no FROM: one row
        one = Table("", "", [Column("", Type.BOOL)])
        one.append(np.zeros((1, one.width), np.int64))
        query = dataclasses.replace(query, main=QueryTable(one))
    texts = pool.count
    compiled = compile_query("query", query, strict=True)
    if any(group.time is None for group in compiled.program.groups):
        at = next((window.at for _, window in select.windows if window.order is None), select.at)
        raise error_at(script, at, "unsupported: offline, a window without ORDER BY")
    table = compiled.table
    for source in [table, *compiled.program.tables, *(use.table for use in compiled.program.indexes)]:
        if source.freed:
            raise UnsupportedSQL(
                f"{source.name}: {source.freed} rows whose time to live was over are gone, and offline nothing "
                "expires: query an engine without the deployment that let them go"
            )
    try:
        check_times(table.name, table.columns, table.rows[: table.count], compiled.times, "a window's time")
        order, limits = _visits(compiled)
        answer = runner.answer(compiled, table.rows, limits, order)
    finally:
        pool.truncate(texts)
    if (np.diff(order) < 0).any():
        answer = answer.take(pa.array(np.argsort(order, kind="stable")))
    return answer if query.limit is None else answer.slice(0, query.limit)


def _visits(compiled: CompiledQuery) -> tuple[Int64, Int64]:
    """The order in which an offline query visits its rows, and what each may see of each index.

    The indexes are the query's own and are linked in order of time as the visit goes on.
    """
    table, program = compiled.table, compiled.program
    n = table.count
    order: Int64 = np.arange(n)
    if compiled.times:
        order = np.argsort(table.rows[:n, compiled.times[0]], kind="stable")
    limits = np.empty((n, len(program.indexes)), np.int64)
    for i, use in enumerate(program.indexes):
        source = use.table
        if not use.windows:
            limits[:, i] = source.count
            compiled.indexes.append(_offline_index(use))
            continue
        times = source.rows[: source.count, use.ts]
        check_times(source.name, source.columns, source.rows[: source.count], [use.ts], "a window's time")
        by_time = np.argsort(times, kind="stable")
        compiled.indexes.append(Index(source, use.key, use.ts, by_time))
        if source is table and use.ts in compiled.times:
            place = np.empty(n, np.int64)
            place[by_time] = np.arange(n)
            limits[:, i] = place[order]
        else:
            main_time = _main_time_column(program, i)
            limits[:, i] = np.searchsorted(times[by_time], table.rows[order, main_time], "right")
    return order, limits


def _main_time_column(program: Program, index: int) -> int:
    """The request's column that bounds the rows of a window's index."""
    for group, numbers in program.sources:
        if index in numbers and group.time is not None:
            node = group.own[group.time]
            if isinstance(node, ColumnNode):
                return node.position
    raise TypeError("an index of no window")


def _offline_index(use: IndexUse) -> Index:
    existing = use.table.indexes.get((use.key, use.ts))
    if existing is not None and existing.ttl == NO_TTL:  # offline, nothing expires
        return existing
    if use.ts >= 0:
        table = use.table
        check_times(table.name, table.columns, table.rows[: table.count], [use.ts], "a join's order")
    return Index(use.table, use.key, use.ts)

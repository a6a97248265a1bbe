"""A SELECT answered offline: a row per row of its main table, each by what was there at its own time.

The rows are visited in order of time and handed out in the order of the main table. An answer that goes to a file is
never in memory as a whole: rows that are not in that order already lie on disk in between.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.plan.nodes import ColumnNode, QueryTable
from streaming.engine.plan.select import Query
from streaming.engine.program.compiled_query import CompiledQuery, compile_query
from streaming.engine.program.program import IndexUse, Program
from streaming.engine.program.runner import BATCH, Runner
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import NO_TTL, Column, Index, Table, check_times
from streaming.engine.types import Type

__all__ = ["OfflineAnswer", "Progress", "answer_offline"]

Int64 = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]
"""Told the rows that are done, and all of them."""

ROWS_PER_PART = 1 << 14
"""Rows of an answer that are in memory at once."""


@dataclasses.dataclass(frozen=True)
class OfflineAnswer:
    """The answer of a SELECT, not yet computed: it is read once, and the engine is asked nothing until that is done.

    Attributes:
        schema: of its rows.
        visited: batches in order of time, each with the places of its rows in the main table.
        in_order: whether those places only ascend.
        limit: the most rows; None: all.
    """

    schema: pa.Schema
    visited: Iterator[tuple[pa.RecordBatch, Int64]]
    in_order: bool
    limit: int | None

    def table(self) -> pa.Table:
        """All rows, in the order of the main table.

        Raises:
            BadRow: the computed time of a window is NULL or negative.
        """
        batches: list[pa.RecordBatch] = []
        places: list[Int64] = [np.empty(0, np.int64)]
        for batch, at in self.visited:
            batches.append(batch)
            places.append(at)
        answer = pa.Table.from_batches(batches, self.schema)
        if not self.in_order:
            answer = answer.take(pa.array(np.argsort(np.concatenate(places), kind="stable")))
        return answer if self.limit is None else answer.slice(0, self.limit)

    def parts(self, folder: Path) -> Iterator[pa.Table]:
        """The same rows, at most ROWS_PER_PART at once.

        Args:
            folder: where rows lie in between, in a file that is gone at the end.

        Raises:
            BadRow: as `table`.
        """
        left = self.limit
        for part in (part for part, _ in self._gathered()) if self.in_order else self._sorted(folder):
            if left is None:
                yield part
                continue
            yield part.slice(0, left)
            left -= min(left, part.num_rows)
            if not left:
                return

    def _gathered(self) -> Iterator[tuple[pa.Table, Int64]]:
        """The batches put together."""
        batches: list[pa.RecordBatch] = []
        places: list[Int64] = []
        rows = 0
        for batch, at in self.visited:
            if rows + len(at) > ROWS_PER_PART and batches:
                yield pa.Table.from_batches(batches, self.schema), np.concatenate(places)
                batches, places, rows = [], [], 0
            batches.append(batch)
            places.append(at)
            rows += len(at)
        if batches:
            yield pa.Table.from_batches(batches, self.schema), np.concatenate(places)

    def _sorted(self, folder: Path) -> Iterator[pa.Table]:
        """Sorted on disk: each part of the visit is cut by the parts of the answer that its rows belong to."""
        pieces: dict[int, list[tuple[int, Int64]]] = {}
        written = itertools.count()
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as file:
            with pa.ipc.new_file(file, self.schema) as writer:
                for visited, places in self._gathered():
                    order = np.argsort(places, kind="stable")
                    rows, at = visited.take(pa.array(order)).combine_chunks(), places[order]
                    for here in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at // ROWS_PER_PART)) + 1):
                        if len(here):
                            for batch in rows.slice(int(here[0]), len(here)).to_batches():
                                writer.write_batch(batch)
                            pieces.setdefault(int(at[here[0]]) // ROWS_PER_PART, []).append((next(written), at[here]))
            file.flush()
            with pa.OSFile(file.name) as source:
                reader = pa.ipc.open_file(source)
                for _, own in sorted(pieces.items()):
                    part = pa.Table.from_batches([reader.get_batch(number) for number, _ in own], self.schema)
                    yield part.take(pa.array(np.argsort(np.concatenate([at for _, at in own]), kind="stable")))


def answer_offline(
    query: Query, select: syntax.Select, script: str, pool: StringPool, runner: Runner, progress: Progress | None = None
) -> OfflineAnswer:
    """The answer of a SELECT, checked and ready to be read.

    Args:
        query: its plan.
        select, script: its tree, and the text that this is from, for messages.
        pool: the strings of the engine; those of the answer are taken out again.
        runner: runs the query.
        progress: told after each batch.

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
    except BaseException:
        pool.truncate(texts)
        raise

    def visited() -> Iterator[tuple[pa.RecordBatch, Int64]]:
        try:
            visits = runner.batches(compiled, table.rows, limits, order)
            for done, visit in enumerate(visits, 1):
                yield visit
                if progress is not None:
                    progress(min(done * BATCH, len(order)), len(order))
        finally:
            pool.truncate(texts)

    return OfflineAnswer(compiled.assembler.schema, visited(), not (np.diff(order) < 0).any(), query.limit)


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

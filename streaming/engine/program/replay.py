"""Requests answered as if they and inserts had come one by one, in order of their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.program.compiled_query import CompiledQuery
from streaming.engine.program.runner import Runner
from streaming.engine.storage.table import Table

__all__ = ["Insertion", "answer_replay", "in_order_of_position"]

Int64 = npt.NDArray[np.int64]


class Insertion(NamedTuple):
    """Rows to be inserted into one table.

    Attributes:
        table: the table.
        words: int64[n, width], the rows, laid out as the table's.
        positions: int64[n], when each comes, ascending.
    """

    table: Table
    words: Int64
    positions: Int64


def in_order_of_position(name: str, table: Table, words: Int64, positions: npt.ArrayLike) -> Insertion:
    """The insertion of rows that may come in any order; of equal positions the earlier row first.

    Args:
        name: what the caller calls the table.
        table: where they go.
        words: int64[n, width].
        positions: int64[n].

    Raises:
        ValueError: there are more or less positions than rows.
    """
    at = np.asarray(positions, np.int64)
    if len(at) != len(words):
        raise ValueError(f"{len(at)} positions for {len(words)} rows of {name}")
    if len(at) > 1 and (np.diff(at) < 0).any():
        order = np.argsort(at, kind="stable")
        at, words = at[order], words[order]
    return Insertion(table, words, at)


def answer_replay(
    compiled: CompiledQuery, requests: Int64, request_at: Int64, insertions: Sequence[Insertion], runner: Runner
) -> pa.Table:
    """Inserts all rows, and answers each request by those that come before it. Where it raises, some are inserted.

    Args:
        compiled: the query, which has no WHERE.
        requests: int64[n, width], the words of the requests.
        request_at: int64[n], their positions: a request sees the insertions of a lesser one.
        insertions: the rows, one insertion for a table.
        runner: runs the query.

    Returns:
        A row per request, in order.
    """
    limits = np.empty((len(request_at), len(compiled.indexes)), np.int64)
    before = {id(table): table.count for table, _, _ in insertions}
    for table, words, _ in insertions:
        table.append(words, link=False)
    for i, index in enumerate(compiled.indexes):
        limits[:, i] = index.table.count
        for table, _, positions in insertions:
            if table is index.table:
                limits[:, i] = before[id(table)] + np.searchsorted(positions, request_at, "left")
    order = np.argsort(request_at, kind="stable")
    answer = runner.answer(compiled, requests[order], limits[order])
    for table, _, _ in insertions:
        table.link()
    if len(order) > 1 and (np.diff(order) < 0).any():
        answer = answer.take(pa.array(np.argsort(order, kind="stable")))
    return answer

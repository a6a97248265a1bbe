"""Rows in parts that may be inserted side by side, over several connections.

A connection takes one row after the other: what makes inserts fast is several. Of rows with the same key and time the
last one inserted is the newest, so rows of one key stay together and in order; a table that is read by more than one
key is one part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.deployment.contract import Contract

__all__ = ["Part", "parts_of"]

Part = tuple[str, pa.Table]
"""A table's name, and rows of it in their order."""


def parts_of(contract: Contract, rows: Mapping[str, pa.Table], connections: int, rows_min: int) -> list[Part]:
    """The rows of all tables, in parts of which none has to wait for another.

    Args:
        contract: knows by which keys the tables are read.
        rows: by table.
        connections: at most so many parts of each table.
        rows_min: a smaller part is not worth a call of its own.
    """
    return [
        part
        for table, some in rows.items()
        if some.num_rows
        for part in _of_table(contract, table, some, min(connections, some.num_rows // rows_min))
    ]


def _of_table(contract: Contract, table: str, rows: pa.Table, count: int) -> list[Part]:
    keys = {read.columns for read in contract.reads if read.table == table}
    if count < 2 or len(keys) > 1 or keys == {()}:
        return [(table, rows)]
    numbers = np.arange(rows.num_rows) if not keys else _hashes(rows, next(iter(keys)))
    lanes = numbers % count
    return [(table, rows.filter(pa.array(lanes == lane))) for lane in range(count) if (lanes == lane).any()]


def _hashes(rows: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    values = zip(*(rows[column].to_pylist() for column in columns), strict=True)
    return np.fromiter((hash(key) for key in values), np.int64, rows.num_rows)

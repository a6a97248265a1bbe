"""INSERT OR IGNORE: which rows a table does not hold yet.

OpenMLDB ignores a row only when the whole row is there already; one that differs in a single value is another row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.engine.storage.table import Table
from streaming.engine.types import NULLS_PER_WORD

__all__ = ["without_duplicates"]

Int64 = npt.NDArray[np.int64]


def without_duplicates(table: Table, rows: Int64) -> Int64:
    """Those of `rows` (int64[n, width], laid out as the table's) that the table does not hold, each once, in order.

    The table is read once per call: give it many rows.
    """
    rows = _plain(table, rows)
    hashes = _hashes(rows)
    stored = _hashes(_plain(table, table.rows[: table.count]))
    candidates = np.flatnonzero(np.isin(stored, hashes))
    seen = {row.tobytes() for row in _plain(table, table.rows[candidates])}
    fresh = []
    for number, row in enumerate(rows):
        words = row.tobytes()
        if words not in seen:
            seen.add(words)
            fresh.append(number)
    return rows[fresh]


def _plain(table: Table, rows: Int64) -> Int64:
    """`rows` with one word for all NULLs: what stands beside the flag means nothing."""
    missing = rows[:, len(table.columns) :]
    if not missing.any():
        return rows
    plain = rows.copy()
    for c in range(len(table.columns)):
        flags = (missing[:, c // NULLS_PER_WORD] >> (c % NULLS_PER_WORD)) & 1
        plain[flags != 0, c] = 0
    return plain


def _hashes(rows: Int64) -> npt.NDArray[np.uint64]:
    hashes: npt.NDArray[np.uint64] = np.full(len(rows), 0x9E3779B97F4A7C15, np.uint64)
    for c in range(rows.shape[1]):
        hashes = (hashes ^ rows[:, c].astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(31)
    return hashes

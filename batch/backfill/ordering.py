"""Rows of one table, in any order in, by time out: sorted in memory a run at a time, the runs merged from disk.

The order is by the events' time, then by stream in the order of events.sql, then by record. Memory holds a run
(`RUN_ROWS` rows), and while runs are merged `BLOCK_ROWS` of each.
The disk holds the table twice for as long as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["BLOCK_ROWS", "RUN_ROWS", "SortedRows"]

Int64 = npt.NDArray[np.int64]

RUN_ROWS = 1 << 19
BLOCK_ROWS = 1 << 15


class SortedRows:
    """Takes the rows of one table, and writes them in order.

    Args:
        folder: for the runs; it exists, and is this table's alone.
        schema: the table's.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        # Behind the table's columns, whatever these are called; no name of SQL's has a blank.
        self._keys = ["order: time", "order: stream", "order: record"]
        self._wide = pa.schema([*schema, *((name, pa.int64()) for name in self._keys)])
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._runs: list[Path] = []
        self.rows = 0

    def add(self, rows: pa.Table, times: Int64, stream: int, records: Int64) -> None:
        """Takes rows.

        Args:
            rows: n rows of the table; those of one record stand together, in their order.
            times: int64 [n], epoch ms.
            stream: its place in events.sql.
            records: int64 [n], the number of each row's record in its stream.
        """
        arrays = [*rows.columns, pa.array(times), pa.repeat(stream, rows.num_rows).cast(pa.int64()), pa.array(records)]
        self._waiting.append(pa.Table.from_arrays(arrays, schema=self._wide))
        self._count += rows.num_rows
        self.rows += rows.num_rows
        if self._count >= RUN_ROWS:
            self._write_run()

    def write(self, file: Path) -> None:
        """Writes all rows to a parquet file, in order."""
        with pq.ParquetWriter(file, self._schema) as out:
            for rows in self._in_order():
                out.write_table(rows.select(range(len(self._schema))), row_group_size=BLOCK_ROWS * 4)

    def _in_order(self) -> Iterator[pa.Table]:
        if not self._runs:
            if self._waiting:
                yield self._sorted(pa.concat_tables(self._waiting))
            return
        if self._waiting:
            self._write_run()
        yield from self._merged()

    def _write_run(self) -> None:
        run = self._folder / f"run-{len(self._runs):05d}.arrow"
        with pa.OSFile(str(run), "wb") as file, pa.ipc.new_file(file, self._wide) as out:
            out.write_table(self._sorted(pa.concat_tables(self._waiting)), BLOCK_ROWS)
        self._runs.append(run)
        self._waiting, self._count = [], 0

    def _merged(self) -> Iterator[pa.Table]:
        """Of what is at hand of each run, all that comes no later than the first end among them, again and again."""
        runs = [_blocks(run) for run in self._runs]
        heads = [next(run, None) for run in runs]
        while open_runs := [i for i, head in enumerate(heads) if head is not None]:
            at_hand = [(i, head) for i in open_runs if (head := heads[i]) is not None]
            limit = min(self._key(head, head.num_rows - 1) for _, head in at_hand)
            taken = []
            for i, head in at_hand:
                count = self._until(head, limit)
                taken.append(head.slice(0, count))
                heads[i] = head.slice(count) if count < head.num_rows else next(runs[i], None)
            yield self._sorted(pa.concat_tables(taken))

    def _key(self, rows: pa.Table, row: int) -> tuple[int, ...]:
        return tuple(rows.column(name)[row].as_py() for name in self._keys)

    def _until(self, rows: pa.Table, limit: tuple[int, ...]) -> int:
        """How many of the rows, which are in order, come no later than `limit`."""
        low, high = 0, rows.num_rows
        while low < high:
            middle = (low + high) // 2
            if self._key(rows, middle) <= limit:
                low = middle + 1
            else:
                high = middle
        return low

    def _sorted(self, rows: pa.Table) -> pa.Table:
        time, stream, record = (rows.column(name).to_numpy() for name in self._keys)
        order = np.lexsort((record, stream, time))  # is stable
        if np.array_equal(order, np.arange(len(order))):
            return rows
        return rows.take(pa.array(order))


def _blocks(run: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(run), "rb") as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])

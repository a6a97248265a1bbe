"""A parquet file's rows as its table's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.files.tables.convert import converted
from streaming.files.tables.errors import BadCell, BadFile

__all__ = ["BATCH_ROWS", "batches", "schema_of"]

BATCH_ROWS = 1 << 18


def schema_of(file: Path) -> pa.Schema:
    """The columns as they stand in the file.

    Raises:
        BadFile: it is no parquet file.
    """
    with _opened(file) as parquet:
        return parquet.schema_arrow


def batches(file: Path, schema: pa.Schema, names: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """The number of the first row, and rows in `schema`.

    Args:
        names: the file's columns, in the order of `schema`.

    Raises:
        BadFile: the file is damaged, or a value is none of its column's.
    """
    with _opened(file) as parquet:
        at = 0
        rows = parquet.iter_batches(BATCH_ROWS, columns=names)
        while True:
            try:
                batch = next(rows, None)
            except (pa.ArrowException, OSError) as error:
                raise BadFile(f"{file}: not a readable parquet file: {error}") from error
            if batch is None:
                return
            yield at, _converted(file, at, batch, schema, names)
            at += batch.num_rows


def _converted(file: Path, at: int, batch: pa.RecordBatch, schema: pa.Schema, names: list[str]) -> pa.Table:
    columns = []
    for field, name in zip(schema, names, strict=True):
        try:
            columns.append(converted(batch.column(name), field.type))
        except BadCell as error:
            place = f"row {at + error.row}, column {name}:" if error.row >= 0 else f"column {name}"
            raise BadFile(f"{file}: {place} {error}") from None
        except pa.ArrowException as error:
            raise BadFile(f"{file}: column {name}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _opened(file: Path) -> pq.ParquetFile:
    try:
        if not file.stat().st_size:
            raise BadFile(f"{file}: the file is empty (0 bytes)")
        # INT96 in milliseconds: in Arrow's nanoseconds the years before 1678 and after 2261 wrap around.
        return pq.ParquetFile(file, coerce_int96_timestamp_unit="ms")
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"{file}: not a readable parquet file: {error}") from error

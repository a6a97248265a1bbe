"""The files that Spark gets: those of the data folder, and copies of those in which it would read something else.

Spark takes the types of all files from one, a bigint for seconds since 1970, NaN for a number, and knows neither the
reals that stand for integers nor the decimals and bytes that `streaming.files.tables` takes. What it reads as we do is
handed on as it is; of the rest it gets parquet files in the table's own types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.files.tables import Options, read_file
from streaming.files.tables.parquetfile import schema_of

__all__ = ["for_spark"]


def for_spark(files: Sequence[Path], schema: pa.Schema, options: Options, copies: Path) -> list[Path]:
    """Files with the same rows as `files`, in order, from which Spark makes what `streaming.files.tables` makes.

    Args:
        files: of one table, found good by `batch.features.history.check_data`.
        copies: a folder for copies, which need not be there.
    """
    if options.format == "parquet":
        stored = [_types(file, schema) for file in files]
        places = [file.resolve() for file in files]
        if all(map(_plain, places)) and all(types == stored[0] and _alike(types, schema) for types in stored):
            return places
    copies.mkdir(parents=True, exist_ok=True)
    made = []
    for number, file in enumerate(files):
        made.append(copies / f"{number:05d}.parquet")
        with pq.ParquetWriter(made[-1], schema) as writer:
            for piece in read_file(file, schema, options):
                writer.write_table(piece.rows)
    return made


def _plain(place: Path) -> bool:
    """Whether Spark takes the path for itself: not for a pattern, nor an escape of a URI for its letters."""
    return re.fullmatch(r"[\w./=+@~-]+", str(place), re.ASCII) is not None


def _types(file: Path, schema: pa.Schema) -> list[pa.DataType | None]:
    """The types that the file has for the table's columns; None: a column has not quite that name."""
    there = schema_of(file)
    return [there.field(name).type if name in there.names else None for name in schema.names]


def _alike(types: Sequence[pa.DataType | None], schema: pa.Schema) -> bool:
    return all(given is not None and _same(given, field.type) for given, field in zip(types, schema, strict=True))


def _same(given: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(given):
        given = given.value_type
    for column, kinds in _SAME.items():
        if column(wanted):
            return any(kind(given) for kind in kinds)
    return bool(given == wanted)


_SAME = {
    pa.types.is_string: (pa.types.is_string, pa.types.is_large_string),
    pa.types.is_integer: (pa.types.is_signed_integer,),
    pa.types.is_floating: (pa.types.is_float32, pa.types.is_float64),
    pa.types.is_timestamp: (pa.types.is_timestamp,),
}

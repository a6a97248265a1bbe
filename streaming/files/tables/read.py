"""A table's files, one after the other, as rows of the table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from streaming.files.tables import csvin, parquetfile
from streaming.files.tables.errors import BadFile, listed
from streaming.files.tables.find import files_of
from streaming.files.tables.options import Options

__all__ = ["Piece", "check_columns", "ordered", "read", "read_file"]

PARQUET = Options(format="parquet")

_log = logging.getLogger("streaming.files.tables")


@dataclass(frozen=True)
class Piece:
    """Rows of a file: `rows` in the table's schema, the first of which has number `first` in `file`."""

    file: Path
    first: int
    rows: pa.Table


def read(path: str | Path, schema: pa.Schema, options: Options = PARQUET) -> Iterator[Piece]:
    """The rows of all files that `path` means (see `files_of`), in order; at least one piece for each file.

    Args:
        schema: the table's columns, of the types in `convert.SQL_NAMES`. They are found by their names, wherever they
            stand in the file, but in a csv without header; columns of other names are left out, which is logged once.

    Raises:
        BadFile: a file is missing, damaged, of other columns, or has a value that its column does not take.
    """
    told = False
    for file in files_of(path, options.format):
        there = _columns(file, schema, options)
        names = _names(file, there, schema)
        more = [name for name in there if name not in names]
        if more and not told:
            told = True
            _log.warning("%s: columns that the table does not have are left out: %s", file, listed(more))
        yield from _pieces(file, schema, options, there, names)


def read_file(file: Path, schema: pa.Schema, options: Options = PARQUET) -> Iterator[Piece]:
    """See `read`; nothing is logged."""
    there = _columns(file, schema, options)
    yield from _pieces(file, schema, options, there, _names(file, there, schema))


def _pieces(file: Path, schema: pa.Schema, options: Options, there: list[str], names: list[str]) -> Iterator[Piece]:
    if options.format == "parquet":
        found = parquetfile.batches(file, schema, names)
    else:
        found = csvin.batches(file, schema, options, [there.index(name) for name in names], len(there))
    empty = True
    for first, rows in found:
        empty = False
        yield Piece(file, first, rows)
    if empty:
        yield Piece(file, 0, schema.empty_table())


def check_columns(path: str | Path, schema: pa.Schema, options: Options = PARQUET) -> list[Path]:
    """The files that `path` means, each of which can be opened and has the schema's columns. No value is read.

    Raises:
        BadFile: see `read`.
    """
    found = files_of(path, options.format)
    for file in found:
        _names(file, _columns(file, schema, options), schema)
    return found


def ordered(piece: Piece, columns: Sequence[str]) -> Piece:
    """The piece, if each of `columns` has a time that orders rows in every row.

    Raises:
        BadFile: a time is NULL or before 1970.
    """
    for column in columns:
        times = piece.rows[column].cast(pa.int64())
        for what, wrong in (("NULL", pc.is_null(times)), ("before 1970", pc.less(times, 0))):
            row = pc.index(wrong, True).as_py()
            if row >= 0:
                raise BadFile(f"{piece.file}: row {piece.first + row}, column {column}: the time is {what}")
    return piece


def _columns(file: Path, schema: pa.Schema, options: Options) -> list[str]:
    if options.format == "parquet":
        return list(parquetfile.schema_of(file).names)
    return csvin.header_of(file, options) if options.header else list(schema.names)


def _names(file: Path, there: list[str], schema: pa.Schema) -> list[str]:
    """The file's names of the schema's columns: the same, or with spaces around them, as in a header `c1, c2`."""
    found, missing = [], []
    for name in schema.names:
        same = [one for one in there if one == name] or [one for one in there if one.strip() == name]
        if not same:
            missing.append(name)
            continue
        if len(same) > 1:
            raise BadFile(f"{file}: column {name} is in it {len(same)} times")
        alike = [one for one in there if one.lower() == same[0].lower() and one != same[0]]
        if alike:
            raise BadFile(f"{file}: columns {same[0]} and {alike[0]} differ in case only, which Spark does not see")
        found += same
    if missing:
        raise BadFile(f"{file}: no column {listed(missing)}; it has {listed(there)}")
    return found

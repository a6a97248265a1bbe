"""LOAD DATA INFILE and SELECT … INTO OUTFILE: parquet and csv, in folders that may stand for others."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from streaming.engine.errors import BadRow
from streaming.errors import OutputRefused
from streaming.output_folder import appending, replacing

__all__ = ["read", "resolve", "write"]


def resolve(path: str, prefixes: Mapping[str, str]) -> str:
    """`path`, with its longest prefix that stands for a folder replaced; `file://` is left out."""
    path = path.removeprefix("file://")
    for prefix in sorted(prefixes, key=len, reverse=True):
        if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
            return str(prefixes[prefix]).rstrip("/") + path[len(prefix.rstrip("/")) :]
    return path


def read(path: str, columns: Sequence[str], options: Mapping[str, object]) -> Iterator[tuple[str, pa.Table]]:
    """The tables of the files that `path` (a file, a folder or a pattern) names, in order of their names.

    Raises:
        BadRow: no file, an unreadable file, or one without one of `columns`.
    """
    kind = str(options.get("format", "csv")).lower()
    if kind not in ("parquet", "csv"):
        raise BadRow(f"{path}: format {kind!r} is neither 'parquet' nor 'csv'")
    names = sorted(glob.glob(os.path.join(path, f"*.{kind}") if os.path.isdir(path) else path))
    if not names:
        raise BadRow(f"{path}: no such file")
    for name in names:
        try:
            if kind == "parquet":
                file = pyarrow.parquet.ParquetFile(name)
                missing = [column for column in columns if column not in file.schema_arrow.names]
                if missing:
                    raise BadRow(f"{name}: column {missing[0]} is missing")
                for batch in file.iter_batches(1 << 18, columns=list(columns)):
                    yield name, pa.Table.from_batches([batch])
            else:
                yield name, _csv(name, columns, options)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadRow(f"{name}: {error}") from None


def _csv(name: str, columns: Sequence[str], options: Mapping[str, object]) -> pa.Table:
    header = bool(options.get("header", True))
    delimiter = str(options.get("delimiter", ","))
    reading = pyarrow.csv.ReadOptions(column_names=None if header else list(columns))
    null = str(options.get("null_value", "null"))
    converting = pyarrow.csv.ConvertOptions(null_values=[null], strings_can_be_null=True)
    table = pyarrow.csv.read_csv(name, reading, pyarrow.csv.ParseOptions(delimiter=delimiter), converting)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise BadRow(f"{name}: column {missing[0]} is missing")
    return table.select(list(columns))


def write(table: pa.Table, folder: str, options: Mapping[str, object]) -> None:
    """Writes one file into `folder`, which appears whole or not at all.

    `mode`: 'error_if_exists' (the default); 'overwrite', which replaces only what INTO OUTFILE wrote, or an empty
    folder; 'append', which adds a file to whatever folder and changes nothing in it.

    Raises:
        BadRow: the folder is there already, or holds something else; an option is unknown.
    """
    kind = str(options.get("format", "csv")).lower()
    mode = str(options.get("mode", "error_if_exists")).lower()
    if kind not in ("parquet", "csv") or mode not in ("error_if_exists", "overwrite", "append"):
        raise BadRow(f"{folder}: format={kind!r}, mode={mode!r} is not supported")
    target = Path(folder)
    if target.exists() and mode == "error_if_exists":
        raise BadRow(f"{folder} exists already (mode='error_if_exists')")
    more = mode == "append" and target.exists()
    taken = {file.name for file in target.glob(f"part-*.{kind}")} if more else ()
    name = next(name for n in itertools.count() if (name := f"part-{n:05d}.{kind}") not in taken)
    try:
        with appending(target, "outfile") if more else replacing(target, "outfile") as building:
            _write_part(table, building, name, kind, options)
    except OutputRefused as error:
        raise BadRow(str(error)) from None


def _write_part(table: pa.Table, building: Path, name: str, kind: str, options: Mapping[str, object]) -> None:
    if kind == "parquet":
        pyarrow.parquet.write_table(table, building / name)
    else:
        delimiter = str(options.get("delimiter", ","))
        header = bool(options.get("header", True))
        pyarrow.csv.write_csv(
            table, building / name, pyarrow.csv.WriteOptions(include_header=header, delimiter=delimiter)
        )  # fmt: skip

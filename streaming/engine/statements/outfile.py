"""SELECT … INTO OUTFILE: parquet and csv, in folders that may stand for others; `streaming.files.tables` reads them."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet

from streaming.engine.errors import BadRow
from streaming.engine.program.offline import OfflineAnswer
from streaming.errors import OutputRefused
from streaming.files.output_folder import appending, replacing
from streaming.files.tables import outfile_options, write_csv

__all__ = ["resolve", "write"]


def resolve(path: str, prefixes: Mapping[str, str]) -> str:
    """`path`, with its longest prefix that stands for a folder replaced; `file://` is left out.

    In a pattern the folder is escaped: its own brackets are no wildcards.
    """
    path = path.removeprefix("file://")
    for prefix in sorted(prefixes, key=len, reverse=True):
        if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
            folder, rest = str(prefixes[prefix]).rstrip("/"), path[len(prefix.rstrip("/")) :]
            return (glob.escape(folder) if glob.has_magic(rest) else folder) + rest
    return path


def write(answer: OfflineAnswer, folder: str, options: Mapping[str, object]) -> None:
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
            _write_part(answer, building, name, kind, options)
    except OutputRefused as error:
        raise BadRow(str(error)) from None


def _write_part(answer: OfflineAnswer, building: Path, name: str, kind: str, options: Mapping[str, object]) -> None:
    if kind == "parquet":  # a group of rows as it comes: the answer may be larger than memory
        with pyarrow.parquet.ParquetWriter(building / name, answer.schema) as writer:
            for part in answer.parts(building.parent):
                writer.write_table(part)
    else:
        with (building / name).open("xb") as out:
            write_csv(answer.table(), out, outfile_options(options))

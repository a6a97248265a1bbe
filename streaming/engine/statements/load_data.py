"""LOAD DATA: the rows of a table's files into the table, all of them or none."""

from __future__ import annotations

from streaming.engine.errors import BadRow
from streaming.engine.storage.duplicates import without_duplicates
from streaming.engine.storage.rows import encode, schema_of
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Table
from streaming.files import tables as tablefile

__all__ = ["load"]


def load(table: Table, path: str, options: tablefile.Options, pool: StringPool) -> int:
    """Adds the rows of the files that `path` means; returns how many words of rows left the table.

    Raises:
        BadRow: a file, or a row in it, cannot be taken; it is named, and the table is as it was.
    """
    before, freed, gone = table.count, table.freed, None
    if options.mode == "overwrite":
        gone = table.words(0, before).copy()
        table.truncate(0)
    try:
        for piece in tablefile.read(path, schema_of(table.columns), options):
            rows = encode(table.name, table.columns, piece.rows, pool)
            table.check(rows, f"{piece.file}: {table.name}", piece.first)
            table.append(without_duplicates(table, rows) if options.put_if_absent else rows)
    except (tablefile.BadFile, BadRow) as error:
        table.truncate(before if gone is None else 0)
        if gone is not None:
            table.append(gone)
            table.freed = freed
        raise BadRow(str(error)) from None
    return 0 if gone is None else gone.size

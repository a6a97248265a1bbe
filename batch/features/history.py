"""A data folder's rows by table, and whether its files can be used: what LOAD DATA of an application will find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from batch.features.data_layout import BadData
from streaming.app.folder import App
from streaming.app.history import HistoryTable, history_folder, history_table, history_tables
from streaming.files.tables import BadFile, Piece, files_of, ordered, read, read_file

__all__ = ["check_data", "table_rows", "tables_of"]


def tables_of(app: App, data: Path) -> list[HistoryTable]:
    """See `streaming.app.history.history_tables`.

    Raises:
        BadData: a folder is missing, or has files of two kinds.
    """
    try:
        return history_tables(app, data)
    except BadFile as error:
        raise BadData(str(error)) from None


def check_data(data: Path, app: App) -> dict[str, int]:
    """Reads every file of a data folder as LOAD DATA will; returns the rows per folder of a table.

    Raises:
        BadData: a folder or file is missing, empty or damaged; a column is missing or of another type; a value is none
            of its column's; a time that orders rows is NULL or negative; a value is NULL where its column takes none.
    """
    rows: dict[str, int] = {}
    for source in tables_of(app, data):
        times = list(app.times(source.table))
        required = [column.name for column in app.required(source.table) if column.name not in times]
        count = 0
        try:
            for piece in read(source.path, source.schema, source.options):
                _never_null(ordered(piece, times), required)
                count += piece.rows.num_rows
        except BadFile as error:
            raise BadData(str(error)) from None
        if not count:
            raise BadData(f"{source.folder}: its files have no rows")
        rows[source.folder.name] = count
    return rows


def table_rows(app: App, data: Path, table: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The rows of a table, from its files, in order; all columns, or those named.

    Raises:
        BadData: the data has no such table, or see `check_data`.
    """
    try:
        source = history_table(app, data, table)
        if source is None:
            raise BadData(f"{data / history_folder(app, table)}: there is no such folder")
        schema = pa.schema([source.schema.field(name) for name in columns]) if columns else source.schema
        for file in files_of(source.path, source.options.format):
            for piece in read_file(file, schema, source.options):  # says nothing of columns that are not asked for
                yield piece.rows
    except BadFile as error:
        raise BadData(str(error)) from None


def _never_null(piece: Piece, columns: Sequence[str]) -> None:
    for column in columns:
        if piece.rows[column].null_count:
            row = pc.index(pc.is_null(piece.rows[column]), True).as_py()
            raise BadFile(f"{piece.file}: row {piece.first + row}, column {column}: NULL, and it is NOT NULL")

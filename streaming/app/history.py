"""Which files of a data folder are a table's: `DATA/<folder>/*.parquet` or `*.csv`.

A table's folder has its name, or the one that [history.folders] of app.toml gives it. A table that no feature reads
(the label aside) may be absent: rows of labels are known later than the rest, or not at all.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from streaming.app.folder import App
from streaming.engine.storage.rows import schema_of
from streaming.files.tables import BadFile, Options, is_there

__all__ = ["HistoryTable", "history_folder", "history_table", "history_tables", "may_be_absent"]

_FORMATS = ("parquet", "csv")


@dataclass(frozen=True)
class HistoryTable:
    """A table's files.

    Attributes:
        table: its name.
        folder: where they lie.
        path: a pattern that means them, as `streaming.files.tables.read` takes it.
        schema: the table's columns.
        options: how the files are laid out.
    """

    table: str
    folder: Path
    path: str
    schema: pa.Schema
    options: Options

    def load_data(self, name: str) -> str:
        """LOAD DATA of these files into an online table.

        Args:
            name: the table's, with its database.
        """
        path = self.path.replace("\\", "\\\\").replace("'", "\\'")
        kind = self.options.format
        return f"LOAD DATA INFILE '{path}' INTO TABLE {name} OPTIONS(format='{kind}', header=true, mode='append')"


def history_folder(app: App, table: str) -> str:
    """The name of a table's folder in a data folder."""
    return app.settings.history.folders.get(table, table)


def may_be_absent(app: App) -> frozenset[str]:
    """The tables without which features can be computed all the same: only the label reads them, or nothing does."""
    needed = {app.main}
    for origin in app.query.contract.origins:
        if origin.name != app.settings.label.column:
            needed |= set(origin.tables)
    return frozenset(app.tables.columns) - needed


def history_tables(app: App, data: Path, *, partial: bool = False) -> list[HistoryTable]:
    """The tables that a data folder has, in the order of tables.sql.

    Args:
        partial: any table may be absent.

    Raises:
        BadFile: there is no such folder, or a table is missing that features are made of; a table's folder has files of
            both kinds, or is none.
    """
    if not data.is_dir():
        raise BadFile(f"{data}: there is no such folder")
    absent = may_be_absent(app)
    found = []
    for table in app.tables.columns:
        source = history_table(app, data, table)
        if source is not None:
            found.append(source)
        elif not partial and table not in absent:
            folder = data / history_folder(app, table)
            raise BadFile(f"{folder}: there is no such folder, and the features are made of table {table}")
    return found


def history_table(app: App, data: Path, table: str) -> HistoryTable | None:
    """One table of a data folder; None: it has no such folder.

    Raises:
        BadFile: see `history_tables`.
    """
    folder = data / history_folder(app, table)
    if not folder.exists() and not folder.is_symlink():
        return None
    patterns = {kind: f"{glob.escape(str(folder))}/*.{kind}" for kind in _FORMATS}
    kinds = [kind for kind in _FORMATS if any(_files(folder, kind))]
    if len(kinds) > 1:
        raise BadFile(f"{folder}: it has *.parquet and *.csv files: a table's are of one kind")
    kind = kinds[0] if kinds else _FORMATS[0]
    if not kinds and not is_there(patterns[kind]):
        raise BadFile(f"{folder}: neither a folder nor a link to one")
    return HistoryTable(table, folder, patterns[kind], schema_of(app.tables.columns[table]), Options(format=kind))


def _files(folder: Path, kind: str) -> list[Path]:
    return [file for file in folder.glob(f"*.{kind}") if not file.name.startswith(("_", "."))]

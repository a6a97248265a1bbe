"""What the scripts load: the tables of `create_tables.sql`, from the files that `load_offline.sql` names; and whether
these files can be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch.features.data_layout import DATA_PREFIX, SCRIPTS, BadData
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse
from streaming.engine.statements.outfile import resolve
from streaming.engine.types import ARROW
from streaming.files.tables import BadFile, Options, load_options, ordered, read, write_csv
from streaming.shipped_files import SQL_FOLDER
from streaming.store.sql_scripts import Script, read_script, within

__all__ = ["OPTIONAL", "LoadedTable", "check_data", "folder_of", "loaded_tables", "script_files", "write_no_rows"]

OPTIONAL = {"action"}
# Columns that order a window: without a valid time a row cannot take part.
ORDERING = {"flattenRequest_clean": "eventTime", "bo_action": "ingestionTime", "bo_comment": "ingestionTime"}


@dataclass(frozen=True)
class LoadedTable:
    """A LOAD DATA of the scripts.

    Attributes:
        table: its name.
        folder: the part of the data folder that it reads.
        path: what it reads, the data folder in the place of DATA_PREFIX.
        schema: the table's columns.
        options: how the files are laid out.
    """

    table: str
    folder: str
    path: str
    schema: pa.Schema
    options: Options


def check_data(data: Path, sql: Path = SQL_FOLDER) -> dict[str, int]:
    """Reads every file of a data folder as LOAD DATA will; returns the rows per folder of a table.

    Args:
        sql: the folder of the scripts, which say what is a table's file and how it is laid out.

    Raises:
        BadData: a folder or file is missing, empty or damaged; a column is missing or of another type; a value is none
            of its column's; a time that orders rows is NULL or negative.
        ConfigError: a script is missing. UnsupportedSQL: one cannot be parsed.
    """
    if not data.is_dir():
        raise BadData(f"{data}: there is no such folder")
    rows: dict[str, int] = {}
    try:
        for source in loaded_tables(sql, data):
            folder = data / source.folder
            if source.folder in OPTIONAL and not folder.exists():
                continue
            if not folder.exists():
                raise BadData(f"{folder}: there is no such folder")
            ordering = ORDERING.get(source.folder, "")
            columns = [ordering] if ordering in source.schema.names else []
            pieces = (ordered(piece, columns) for piece in read(source.path, source.schema, source.options))
            count = sum(piece.rows.num_rows for piece in pieces)
            if not count:
                raise BadData(f"{folder}: its files have no rows")
            rows[source.folder] = rows.get(source.folder, 0) + count
    except BadFile as error:
        raise BadData(str(error)) from None
    if not rows:
        raise BadData(f"{sql / SCRIPTS[1]}: it loads no table")
    return rows


def script_files(scripts: Iterable[Script]) -> list[Path]:
    """The files that the scripts are made of: none of them may be written over."""
    return list(dict.fromkeys(path for script in scripts for path in script.files))


def loaded_tables(sql: Path, data: Path) -> list[LoadedTable]:
    """What `load_offline.sql` of the folder `sql` loads into the tables of its `create_tables.sql`, in its order.

    Raises:
        ConfigError: a script cannot be read.
        BadFile: a table is not made, or an option of LOAD DATA is wrong. UnsupportedSQL: a statement is wrong.
    """
    create, load = (read_script(sql / name) for name in SCRIPTS[:2])
    with within(create):
        statements = parse(create.text)
    schemas = {
        made.name[-1]: pa.schema([(column.name, ARROW[column.type]) for column in made.columns])
        for made in statements
        if isinstance(made, syntax.CreateTable)
    }
    with within(load):
        statements = parse(load.text)
    found = []
    for statement in statements:
        if isinstance(statement, syntax.LoadData):
            table = statement.table[-1]
            if table not in schemas:
                raise BadFile(f"{load.path}: LOAD DATA INTO TABLE {table}: no script makes the table")
            try:
                options = load_options(statement.options)
            except BadFile as error:
                raise BadFile(f"{load.path}: LOAD DATA INTO TABLE {table}: {error}") from None
            path = resolve(statement.path, {DATA_PREFIX: str(data)})
            found.append(LoadedTable(table, folder_of(statement.path), path, schemas[table], options))
    return found


def folder_of(path: str) -> str:
    """The part of the data folder in which a path of the scripts lies."""
    return path.removeprefix("file://").removeprefix(DATA_PREFIX).strip("/").split("/")[0]


def write_no_rows(source: LoadedTable, folder: Path) -> None:
    """A file without rows in `folder`, which then stands for the source's, where a dataset has none."""
    folder.mkdir()
    file = folder / f"none.{source.options.format}"
    if source.options.format == "parquet":
        pq.write_table(source.schema.empty_table(), file)
        return
    with file.open("xb") as out:
        write_csv(source.schema.empty_table(), out, source.options)

"""What the scripts load: the tables of `create_tables.sql`, from the files that `load_offline.sql` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch.features.extract import DATA_PREFIX, SCRIPTS
from streaming.engine.sql import syntax as s
from streaming.engine.sql.parse import parse
from streaming.engine.statements.outfile import resolve
from streaming.engine.types import ARROW
from streaming.files.tables import BadFile, Options, load_options, write_csv
from streaming.store.sql_scripts import script_text, within

__all__ = ["Source", "folder_of", "sources", "write_no_rows"]


@dataclass(frozen=True)
class Source:
    """A LOAD DATA of the scripts.

    Attributes:
        folder: the part of the data folder that it reads.
        path: what it reads, the data folder in the place of DATA_PREFIX.
    """

    table: str
    folder: str
    path: str
    schema: pa.Schema
    options: Options


def sources(sql: Path, data: Path) -> list[Source]:
    """What `load_offline.sql` of the folder `sql` loads into the tables of its `create_tables.sql`, in its order.

    Raises:
        ConfigError: a script cannot be read.
        BadFile: a table is not made, or an option of LOAD DATA is wrong. UnsupportedSQL: a statement is wrong.
    """
    create, load = (sql / name for name in SCRIPTS[:2])
    with within(create):
        statements = parse(script_text(create))
    schemas = {
        made.name[-1]: pa.schema([(column.name, ARROW[column.type]) for column in made.columns])
        for made in statements
        if isinstance(made, s.CreateTable)
    }
    with within(load):
        statements = parse(script_text(load))
    found = []
    for statement in statements:
        if isinstance(statement, s.LoadData):
            table = statement.table[-1]
            if table not in schemas:
                raise BadFile(f"{load}: LOAD DATA INTO TABLE {table}: no script makes the table")
            try:
                options = load_options(statement.options)
            except BadFile as error:
                raise BadFile(f"{load}: LOAD DATA INTO TABLE {table}: {error}") from None
            path = resolve(statement.path, {DATA_PREFIX: str(data)})
            found.append(Source(table, folder_of(statement.path), path, schemas[table], options))
    return found


def folder_of(path: str) -> str:
    """The part of the data folder in which a path of the scripts lies."""
    return path.removeprefix("file://").removeprefix(DATA_PREFIX).strip("/").split("/")[0]


def write_no_rows(source: Source, folder: Path) -> None:
    """A file without rows in `folder`, which then stands for the source's, where a dataset has none."""
    folder.mkdir()
    file = folder / f"none.{source.options.format}"
    if source.options.format == "parquet":
        pq.write_table(source.schema.empty_table(), file)
        return
    with file.open("xb") as out:
        write_csv(source.schema.empty_table(), out, source.options)

"""The data folder: its tables, their files, and whether they can be used.

What is a table's file, and how it is laid out, is said by the scripts that load it (`create_tables.sql` and
`load_offline.sql`); their paths begin with DATA_PREFIX, for which the folder stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.columns import schema_of
from streaming.tablefile import BadFile, Options, load_options, ordered, read, write_csv

__all__ = [
    "DATA_PREFIX", "OPTIONAL", "SQL_FOLDER", "TABLES", "BadData", "Source", "check", "parquet_files", "script_text",
    "sources", "table_rows", "write_no_rows",
]  # fmt: skip

SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql"
DATA_PREFIX = "/root/project/data/JD_data"

# Folder → column → SQL's type, as in sql/create_tables.sql. `action` may be absent: then orders make the labels.
TABLES: dict[str, dict[str, str]] = {
    "action": {"reqId": "string", "eventTime": "timestamp", "ingestionTime": "timestamp", "actionValue": "int"},
    "flattenRequest_clean": {
        "reqId": "string",
        "eventTime": "timestamp",
        "main_id": "string",
        "pair_id": "string",
        "user_id": "string",
        "sku_id": "string",
        "time": "bigint",
        "split_id": "int",
        "time1": "string",
    },
    "bo_user": {
        "ingestionTime": "timestamp",
        "user_id": "string",
        "age": "string",
        "sex": "string",
        "user_lv_cd": "string",
        "user_reg_tm": "bigint",
    },
    "bo_action": {
        "ingestionTime": "timestamp",
        "pair_id": "string",
        "time": "bigint",
        "model_id": "string",
        "type": "string",
        "cate": "string",
        "br": "string",
    },
    "bo_product": {
        "ingestionTime": "timestamp",
        "sku_id": "string",
        "a1": "string",
        "a2": "string",
        "a3": "string",
        "cate": "string",
        "br": "string",
    },
    "bo_comment": {
        "ingestionTime": "timestamp",
        "dt": "bigint",
        "sku_id": "string",
        "comment_num": "int",
        "has_bad_comment": "string",
        "bad_comment_rate": "float",
    },
}
OPTIONAL = {"action"}
# Columns that order a window: without a valid time a row cannot take part.
ORDERING = {"flattenRequest_clean": "eventTime", "bo_action": "ingestionTime", "bo_comment": "ingestionTime"}


class BadData(ValueError):
    """The input cannot be used; the message names file, column and, where it applies, row."""


@dataclass(frozen=True)
class Source:
    """A LOAD DATA of the scripts.

    Attributes:
        folder: the part of the data folder that it reads.
        path: what it reads, `data` in the place of DATA_PREFIX.
        written: the path as the script has it.
    """

    table: str
    folder: str
    path: str
    written: str
    schema: pa.Schema
    options: Options


def script_text(path: Path) -> str:
    """The text of a script.

    Raises:
        BadData: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadData(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def sources(data: Path, sql: Path = SQL_FOLDER) -> list[Source]:
    """What `load_offline.sql` loads into the tables of `create_tables.sql`.

    Raises:
        BadData: a script is missing, or an option of LOAD DATA is wrong. UnsupportedSQL: a statement is wrong.
    """
    from streaming.engine import syntax as s  # noqa: PLC0415 - the engine takes long to import, and labels need none
    from streaming.engine.files import resolve  # noqa: PLC0415
    from streaming.engine.parse import parse  # noqa: PLC0415
    from streaming.engine.types import ARROW  # noqa: PLC0415

    schemas = {
        made.name[-1]: pa.schema([(column.name, ARROW[column.type]) for column in made.columns])
        for made in parse(script_text(sql / "create_tables.sql"))
        if isinstance(made, s.CreateTable)
    }
    found = []
    for load in parse(script_text(sql / "load_offline.sql")):
        if isinstance(load, s.LoadData):
            table = load.table[-1]
            if table not in schemas:
                raise BadData(f"{sql / 'load_offline.sql'}: {table} is not made by create_tables.sql")
            try:
                options = load_options(load.options)
            except BadFile as error:
                raise BadData(f"{sql / 'load_offline.sql'}: {table}: {error}") from None
            inside = load.path.removeprefix("file://").removeprefix(DATA_PREFIX).strip("/")
            path = resolve(load.path, {DATA_PREFIX: str(data)})
            found.append(Source(table, inside.split("/")[0], path, load.path, schemas[table], options))
    return found


def check(data: Path, sql: Path = SQL_FOLDER) -> dict[str, int]:
    """Reads every file of a data folder as LOAD DATA will; returns the rows per folder of a table.

    Raises:
        BadData: a folder or file is missing, empty or damaged; a column is missing or of another type; a value is none
            of its column's; a time that orders rows is NULL or negative. See `sources`, too.
    """
    if not data.is_dir():
        raise BadData(f"{data}: there is no such folder")
    rows: dict[str, int] = {}
    for source in sources(data, sql):
        folder = data / source.folder
        if source.folder in OPTIONAL and not folder.exists():
            continue
        if not folder.exists():
            raise BadData(f"{folder}: there is no such folder")
        count = 0
        ordering = [ORDERING[source.folder]] if source.folder in ORDERING else []
        columns = [column for column in ordering if column in source.schema.names]
        try:
            for piece in read(source.path, source.schema, source.options):
                count += ordered(piece, columns).rows.num_rows
        except BadFile as error:
            raise BadData(str(error)) from None
        if not count:
            raise BadData(f"{folder}: its files have no rows")
        rows[source.folder] = rows.get(source.folder, 0) + count
    return rows


def table_rows(data: Path, folder: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The rows of a table of the tutorial's layout, from its parquet files, in order; all columns, or those named.

    Raises:
        BadData: see `check`.
    """
    kinds = TABLES[folder]
    schema = schema_of([(name, kinds[name]) for name in columns or kinds])
    try:
        for piece in read(data / folder, schema):
            yield piece.rows
    except BadFile as error:
        raise BadData(str(error)) from None


def write_no_rows(source: Source, folder: Path) -> None:
    """A file without rows in `folder`, which then stands for the source's, where a dataset has none."""
    folder.mkdir()
    file = folder / f"none.{source.options.format}"
    if source.options.format == "parquet":
        pq.write_table(source.schema.empty_table(), file)
        return
    with file.open("xb") as out:
        write_csv(source.schema.empty_table(), out, source.options)


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder that a command wrote, by name.

    Raises:
        BadData: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: there is no such folder")
    files = sorted(file for file in folder.glob("*.parquet") if not file.name.startswith(("_", ".")))
    if not files:
        raise BadData(f"{folder}: no *.parquet file in it")
    return files

"""Offline features: the feature query over every request as of its own time, run by the embedded engine.

    jd-intent-batch extract --data DIR --out DIR

runs `sql/create_tables.sql`, `sql/load_offline.sql` and `sql/select_into_outfile.sql`, the tutorial's scripts, their
paths mapped to `--data` and `--out`. The files are looked at first (`check`), so that a wrong one is named, with its
column and row, before anything is computed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streaming.errors import BadInput
from streaming.files.output_folder import Say, replacing
from streaming.files.tables import BadFile, ordered, read
from streaming.shipped_files import SQL_FOLDER
from streaming.store.openmldb.columns import schema_of

__all__ = [
    "DATA_PREFIX",
    "OUT_PREFIX",
    "SCRIPTS",
    "SQL_FOLDER",
    "TABLES",
    "BadData",
    "Extracted",
    "check",
    "counted",
    "extract",
    "parquet_files",
    "table_rows",
]

DATA_PREFIX = "/root/project/data/JD_data"
OUT_PREFIX = "/root/project/out/1"
SCRIPTS = ("create_tables.sql", "load_offline.sql", "select_into_outfile.sql")

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


class BadData(BadInput):
    """The input cannot be used; the message names file, column and, where it applies, row."""


class Extracted(msgspec.Struct, frozen=True):
    """What `extract` did: rows read per table, feature rows and columns written, and the time it took."""

    rows: dict[str, int]
    features: int
    columns: int
    check_s: float
    run_s: float


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


def check(data: Path, sql: Path = SQL_FOLDER) -> dict[str, int]:
    """Reads every file of a data folder as LOAD DATA will; returns the rows per folder of a table.

    Args:
        sql: the folder of the scripts, which say what is a table's file and how it is laid out.

    Raises:
        BadData: a folder or file is missing, empty or damaged; a column is missing or of another type; a value is none
            of its column's; a time that orders rows is NULL or negative.
        ConfigError: a script is missing. UnsupportedSQL: one cannot be parsed.
    """
    from batch.features.inputs import sources

    if not data.is_dir():
        raise BadData(f"{data}: there is no such folder")
    rows: dict[str, int] = {}
    try:
        for source in sources(sql, data):
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


def extract(data: Path, out: Path, sql: Path = SQL_FOLDER, *, force: Say | None = None) -> Extracted:
    """Writes the features of every request of `data` to `out` (parquet, the query's 42 columns).

    Args:
        data: the tutorial's layout; `action/` may be absent. out: a folder; older features are replaced as a whole.
        sql: the folder of the three scripts. force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadData: see `check`. ConfigError: a script is missing. UnsupportedSQL: the engine cannot run a script.
        OutputRefused: `out` holds something else, or touches an input.
    """
    from batch.features.inputs import sources, write_no_rows
    from streaming.engine import Engine
    from streaming.store.sql_scripts import script_text, within

    started = time.monotonic()
    scripts = [script_text(sql / name) for name in SCRIPTS]
    rows = check(data, sql)
    checked = time.monotonic()
    inputs = [data, *(sql / name for name in SCRIPTS)]
    with replacing(out, "features", inputs=inputs, force=force) as fresh, tempfile.TemporaryDirectory() as staging:
        paths = {DATA_PREFIX: str(data.resolve()), OUT_PREFIX: str(fresh)}
        for source in sources(sql, data):
            if source.folder not in rows:  # an optional table: the scripts run unchanged where a dataset has none
                write_no_rows(source, Path(staging) / source.folder)
                paths[f"{DATA_PREFIX}/{source.folder}"] = f"{staging}/{source.folder}"
        engine = Engine(paths=paths)
        for name, script in zip(SCRIPTS, scripts, strict=True):
            with within(sql / name):
                engine.execute(script)
        if not any(fresh.glob("*.parquet")):
            raise BadData(f"{sql / SCRIPTS[-1]}: it wrote no features to {out}")
        features, columns = counted(fresh)
    return Extracted(
        rows=rows, features=features, columns=columns, check_s=checked - started, run_s=time.monotonic() - checked
    )


def counted(folder: Path) -> tuple[int, int]:
    """Rows and columns of the features in a folder."""
    files = [pq.read_metadata(file) for file in parquet_files(folder)]
    return sum(file.num_rows for file in files), files[0].num_columns

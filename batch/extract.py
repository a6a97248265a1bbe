"""Offline features: the feature query over every request as of its own time, run by the embedded engine.

    jd-intent-batch extract --data DIR --out DIR

runs `sql/create_tables.sql`, `sql/load_offline.sql` and `sql/select_into_outfile.sql`, the tutorial's scripts, their
paths mapped to `--data` and `--out`. The files are looked at first (`check`), so that a wrong one is named, with its
column and row, before anything is computed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streaming.errors import BadInput

__all__ = [
    "DATA_PREFIX", "OUT_PREFIX", "SCRIPTS", "SQL_FOLDER", "TABLES", "BadData", "Extracted", "check", "extract",
    "parquet_files",
]  # fmt: skip

SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql"
DATA_PREFIX = "/root/project/data/JD_data"
OUT_PREFIX = "/root/project/out/1"
SCRIPTS = ("create_tables.sql", "load_offline.sql", "select_into_outfile.sql")

Kind = Callable[[pa.DataType], bool]


def _text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


# SQL's type → what it is called, and the Arrow types that it takes.
_KINDS: dict[str, tuple[str, Kind]] = {
    "string": ("string", _text),
    "timestamp": ("timestamp", pa.types.is_timestamp),
    "int": ("int (up to 32 bits)", lambda kind: pa.types.is_integer(kind) and kind.bit_width <= 32),
    "bigint": ("bigint (an integer)", pa.types.is_integer),
    "float": ("float (a real number)", pa.types.is_floating),
}
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
    """The parquet files of a table's folder, by name.

    Raises:
        BadData: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: there is no such folder")
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise BadData(f"{folder}: no *.parquet file in it")
    return files


def check(data: Path) -> dict[str, int]:
    """Looks at every file of a data folder in the tutorial's layout; returns the rows per table.

    Raises:
        BadData: a folder or file is missing, empty or unreadable; a column is missing or of another type; a time that
            orders rows is NULL or negative.
    """
    if not data.is_dir():
        raise BadData(f"{data}: there is no such folder")
    rows: dict[str, int] = {}
    for table, columns in TABLES.items():
        if table in OPTIONAL and not (data / table).exists():
            continue
        rows[table] = 0
        for file in parquet_files(data / table):
            rows[table] += _check_file(file, columns, ORDERING.get(table))
        if not rows[table]:
            raise BadData(f"{data / table}: its files have no rows")
    return rows


def _check_file(file: Path, columns: dict[str, str], ordering: str | None) -> int:
    if not file.stat().st_size:
        raise BadData(f"{file}: the file is empty (0 bytes)")
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            for column, sql_type in columns.items():
                at = schema.get_field_index(column)
                if at < 0:
                    raise BadData(f"{file}: no column {column}; it has {', '.join(schema.names)}")
                wanted, is_kind = _KINDS[sql_type]
                if not is_kind(schema.field(at).type):
                    raise BadData(f"{file}: column {column} is {schema.field(at).type}, it must be {wanted}")
            if ordering is not None:
                _check_times(file, parquet, ordering)
            return int(parquet.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise BadData(f"{file}: not a readable parquet file: {error}") from error


def _check_times(file: Path, parquet: pq.ParquetFile, column: str) -> None:
    """Refuses NULL and negative times, as the engine would, but with the row's number in the file (from 0)."""
    first = 0
    for batch in parquet.iter_batches(1 << 18, columns=[column]):
        times = pc.cast(batch.column(0), pa.int64())
        for what, wrong in (("NULL", pc.is_null(times)), ("before 1970", pc.less(times, 0))):
            row = pc.index(wrong, True).as_py()
            if row >= 0:
                raise BadData(f"{file}: row {first + row}, column {column}: the time is {what}")
        first += batch.num_rows


def extract(data: Path, out: Path, sql: Path = SQL_FOLDER) -> Extracted:
    """Writes the features of every request of `data` to `out` (parquet, the query's 42 columns).

    Args:
        data: the tutorial's layout; `action/` may be absent. out: a folder; older feature files in it are replaced.
        sql: the folder of the three scripts.

    Raises:
        BadData: see `check`. ConfigError: a script is missing. UnsupportedSQL: the engine cannot run a script.
    """
    from streaming.engine import Engine  # noqa: PLC0415 - compiles; only this command needs it
    from streaming.scripts import script_text, within  # noqa: PLC0415

    started = time.monotonic()
    scripts = [script_text(sql / name) for name in SCRIPTS]
    rows = check(data)
    checked = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as staging:
        for table in TABLES:
            if table in rows:
                (Path(staging) / table).symlink_to((data / table).resolve(), target_is_directory=True)
        if "action" not in rows:
            _write_no_action(Path(staging) / "action")
        engine = Engine(paths={DATA_PREFIX: staging, OUT_PREFIX: str(out.resolve())})
        for name, script in zip(SCRIPTS, scripts, strict=True):
            with within(sql / name):
                engine.execute(script)
    if not any(out.glob("*.parquet")):
        raise BadData(f"{sql / SCRIPTS[-1]}: it wrote no features to {out}")
    written = [pq.ParquetFile(file) for file in parquet_files(out)]
    return Extracted(
        rows=rows,
        features=sum(file.metadata.num_rows for file in written),
        columns=written[0].metadata.num_columns,
        check_s=checked - started,
        run_s=time.monotonic() - checked,
    )


def _write_no_action(folder: Path) -> None:
    """An `action` table without rows, so that the scripts run unchanged where a dataset has none."""
    folder.mkdir()
    types = {"string": pa.string(), "timestamp": pa.timestamp("us"), "int": pa.int32()}
    schema = pa.schema({column: types[sql_type] for column, sql_type in TABLES["action"].items()})
    pq.write_table(schema.empty_table(), folder / "none.parquet")

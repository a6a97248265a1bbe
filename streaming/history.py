"""`jd-intent-score load`: history from parquet files into a cluster's online tables, by INSERT OR IGNORE.

LOAD DATA does the same where the cluster has a TaskManager that sees the files (`jd-intent-batch load-online`).
"""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from streaming.cluster import times_checked
from streaming.config import Config
from streaming.deploy_sql import Scripts
from streaming.errors import ConfigError, StoreUnavailable
from streaming.openmldb import Client
from streaming.rest import RestTransport
from streaming.store import open_cluster

__all__ = ["FOLDERS", "load", "main"]

FOLDERS = {
    "action": "action", "bo_user": "bo_user", "bo_product": "bo_product", "bo_comment": "bo_comment",
    "bo_action": "bo_action", "flattenRequest": "flattenRequest_clean",
}  # fmt: skip
"""Table → folder, as in sql/load_online.sql."""

CHUNK_ROWS = 10_000

_log = structlog.stdlib.get_logger("streaming.history")


def main(config: Config, folder: Path) -> None:
    """The command; says how many rows each table has then.

    Raises:
        ConfigError: the folder or `store.kind` is wrong; a file has other columns than its table.
        StoreUnavailable: the cluster does not answer, or has fewer rows afterwards than it was given.
    """
    with open_cluster(config.store) as client:
        for table, (given, there) in load(client, Scripts.read(config.store), folder).items():
            print(f"{table}: {given:,} rows read, {there:,} in the table")


def load(client: Client | RestTransport, scripts: Scripts, folder: Path) -> dict[str, tuple[int, int]]:
    """Inserts every file; of each table the distinct rows in the files, and the rows that the table has then.

    Raises:
        See `main`.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    found: dict[str, tuple[int, int]] = {}
    times = dict(scripts.engine.shape(scripts.name).times)
    client.execute(f"USE {scripts.database}")
    for table, name in FOLDERS.items():
        files = sorted((folder / name).glob("*.parquet"))
        if not files:
            continue
        started, given = time.monotonic(), 0
        distinct: set[int] = set()
        for file in files:
            rows = _rows(file, scripts.engine.table_schema(f"{scripts.database}.{table}"))
            times_checked(f"{file}: {table}", rows, times.get(table, ()))
            for at in range(0, rows.num_rows, CHUNK_ROWS):
                chunk = rows.slice(at, CHUNK_ROWS)
                client.insert(table, chunk)
                given += chunk.num_rows
                distinct.update(map(hash, zip(*(column.to_pylist() for column in chunk.columns), strict=True)))
                _log.info("loading", table=table, rows=given, per_s=round(given / (time.monotonic() - started)))
        # Of an empty table count(*) answers no row. Reads by key are not to be trusted on every index; full counts are.
        there = sum(int(row[0]) for row in client.execute(f"SELECT count(*) FROM {table}"))
        if there < len(distinct):
            raise StoreUnavailable(
                f"{table} has {there} rows, of the {len(distinct)} different ones that were inserted"
            )
        found[table] = len(distinct), there
    return found


def _rows(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        rows = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{file} is not a readable parquet file: {error}") from error
    if missing := [name for name in schema.names if name not in rows.column_names]:
        raise ConfigError(f"{file} has no column {', '.join(missing)}")
    try:
        return rows.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise ConfigError(f"{file}: {error}") from error

"""`jd-intent-score load`: the files that load_online.sql names into a cluster's online tables, by INSERT OR IGNORE.

LOAD DATA does the same where the cluster has a TaskManager that sees the files (`jd-intent-batch load-online`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from streaming.cli.deploy_sql import Scripts
from streaming.config import Config, Store
from streaming.engine.sql.parse import parse
from streaming.engine.sql.syntax import LoadData
from streaming.engine.statements.outfile import resolve
from streaming.errors import ConfigError, StoreUnavailable
from streaming.files.tables import BadFile, Options, Piece, is_there, load_options, read
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import times_checked
from streaming.store.openmldb.rest import RestTransport
from streaming.store.openmldb.sdk import Client
from streaming.store.sql_scripts import read_script, within

__all__ = ["load", "run_load"]

CHUNK_ROWS = 10_000

_log = structlog.stdlib.get_logger("streaming.cli.load_history")


def run_load(config: Config, folder: Path) -> None:
    """The command; says how many rows each table has then.

    Raises:
        ConfigError: the folder, a script or `store.kind` is wrong; a file cannot be taken (row and column are named).
        BadRow: a time that orders an index is NULL or negative, or a date is none of OpenMLDB's.
        StoreUnavailable: the cluster does not answer, or has fewer rows afterwards than it was given.
    """
    with open_cluster(config.store) as client:
        scripts = Scripts.read(config.store)
        for table, (given, there) in load(client, scripts, folder, config.store.history_prefix).items():
            print(f"{table}: {given:,} rows read, {there:,} in the table")


def load(
    client: Client | RestTransport, scripts: Scripts, folder: Path, prefix: str = Store().history_prefix
) -> dict[str, tuple[int, int]]:
    """Inserts every file; of each table the distinct rows in the files, and the rows that the table has then.

    Args:
        prefix: of the paths in load_online.sql: `folder` stands for it.

    Raises:
        See `main`.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    found: dict[str, tuple[int, int]] = {}
    times = dict(scripts.engine.contract(scripts.name).times)
    client.execute(f"USE {scripts.database}")
    for table, path, options in _loads(scripts, folder, prefix):
        if not is_there(path):
            _log.info("history has no file of this table", table=table, path=path)
            continue
        started, given = time.monotonic(), 0
        distinct: set[int] = set()
        for piece in _pieces(path, options, scripts, table):
            times_checked(f"{piece.file}: {table}", piece.rows, times.get(table, ()), piece.first)
            for at in range(0, piece.rows.num_rows, CHUNK_ROWS):
                chunk = piece.rows.slice(at, CHUNK_ROWS)
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


def _loads(scripts: Scripts, folder: Path, prefix: str) -> Iterator[tuple[str, str, Options]]:
    """The tables of load_online.sql, with the files of each and how they are laid out."""
    script = read_script(scripts.path.with_name("load_online.sql"), "store.sql")
    with within(script):
        statements = parse(script.text)
    for statement in statements:
        if isinstance(statement, LoadData):
            try:
                options = load_options(statement.options)
            except BadFile as error:
                raise ConfigError(f"{script.path}: {statement.table[-1]}: {error}") from None
            yield statement.table[-1], resolve(statement.path, {prefix: str(folder)}), options


def _pieces(path: str, options: Options, scripts: Scripts, table: str) -> Iterator[Piece]:
    try:
        yield from read(path, scripts.engine.table_schema(f"{scripts.database}.{table}"), options)
    except BadFile as error:
        raise ConfigError(str(error)) from None

"""`jd-intent-score load`: a folder of history into a cluster's online tables, by INSERT OR IGNORE.

LOAD DATA does the same where the cluster has a TaskManager that sees the files (`jd-intent-batch load-online`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from streaming.app.configured import configured_app
from streaming.app.folder import App
from streaming.app.history import HistoryTable, history_tables
from streaming.config import Config
from streaming.errors import ConfigError, StoreUnavailable
from streaming.files.tables import BadFile, Piece, read
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import times_checked
from streaming.store.openmldb.columns import backquoted
from streaming.store.openmldb.parts import parts_of
from streaming.store.openmldb.rest import RestTransport
from streaming.store.openmldb.sdk import Client

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
    app = configured_app(config)
    with open_cluster(config.store, app) as client:
        for table, (given, there) in load(client, app, folder).items():
            print(f"{table}: {given:,} rows read, {there:,} in the table")


def load(client: Client | RestTransport, app: App, folder: Path) -> dict[str, tuple[int, int]]:
    """Inserts every file; of each table the distinct rows in the files, and the rows that the table has then.

    Raises:
        See `run_load`.
    """
    try:
        sources = {source.table: source for source in history_tables(app, folder, partial=True)}
    except BadFile as error:
        raise ConfigError(str(error)) from None
    found: dict[str, tuple[int, int]] = {}
    client.execute(f"USE {backquoted(app.tables.database)}")
    for table in app.tables.columns:
        if table not in sources:
            _log.info("history has no file of this table", table=table)
            continue
        started, given = time.monotonic(), 0
        distinct: set[int] = set()
        for piece in _pieces(sources[table]):
            times_checked(f"{piece.file}: {table}", piece.rows, app.times(table), piece.first)
            for at in range(0, piece.rows.num_rows, CHUNK_ROWS):
                chunk = piece.rows.slice(at, CHUNK_ROWS)
                client.insert_parts(
                    parts_of(app.query.contract, {table: chunk}, client.connections, client.part_rows_min)
                )
                given += chunk.num_rows
                distinct.update(map(hash, zip(*(column.to_pylist() for column in chunk.columns), strict=True)))
                _log.info("loading", table=table, rows=given, per_s=round(given / (time.monotonic() - started)))
        # Of an empty table count(*) answers no row. Reads by key are not to be trusted on every index; full counts are.
        there = sum(int(row[0]) for row in client.execute(f"SELECT count(*) FROM {backquoted(table)}"))
        if there < len(distinct):
            raise StoreUnavailable(
                f"{table} has {there} rows, of the {len(distinct)} different ones that were inserted"
            )
        found[table] = len(distinct), there
    return found


def _pieces(source: HistoryTable) -> Iterator[Piece]:
    try:
        yield from read(source.path, source.schema, source.options)
    except BadFile as error:
        raise ConfigError(str(error)) from None

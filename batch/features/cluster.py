"""The offline steps on an OpenMLDB cluster: tables, LOAD DATA, SELECT … INTO OUTFILE; and its online load.

    jd-intent-batch extract --engine openmldb --config scorer.toml --data DATA --out OUT [--app FOLDER]
    jd-intent-batch load-online --config scorer.toml --data DATA [--app FOLDER]

The scripts of the application run (`streaming.app.scripts`), with DATA and OUT in them, which are paths or URIs as the
cluster's TaskManager sees them; and jobs are followed instead of waited for in silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch.features.cluster_jobs import ClusterJob, run_job
from batch.features.cluster_paths import cluster_path
from batch.features.data_layout import BadData
from batch.features.extract import app_files, counted
from batch.features.history import check_data, tables_of
from streaming.app.folder import App, load_app
from streaming.app.history import may_be_absent
from streaming.app.scripts import extract_script, load_script, tables_script
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse, statement_text
from streaming.errors import BadInput, OutputRefused
from streaming.files.output_folder import Say, mark, refuse_new
from streaming.files.output_folder import check as check_output
from streaming.shipped_files import app_folder
from streaming.store.openmldb.cluster import StatementRunner

__all__ = ["Written", "extract_on_cluster", "load_online_tables"]

JOB_S = 4 * 3600.0

SPARKS = ("part-*", "_SUCCESS", ".part-*.crc", "._SUCCESS.crc")
"""What INTO OUTFILE's files are called."""


class Written(msgspec.Struct, frozen=True):
    """What a cluster's extraction wrote.

    Attributes:
        jobs: that it took.
        features, columns: rows and columns of the features; None where the files are not seen here.
        seconds: that all of it took.
    """

    jobs: int
    features: int | None
    columns: int | None
    seconds: float


def extract_on_cluster(
    cluster: StatementRunner,
    data: str,
    out: str,
    app: App | None = None,
    *,
    without: Collection[str] = (),
    timeout_s: float = JOB_S,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    force: Say | None = None,
) -> Written:
    """Makes the tables, loads `data` offline and writes the features of every request to `out`.

    What lies in `out` is replaced where it is seen here and is all of an older INTO OUTFILE's, or with `force`. Else
    the cluster is told to write into a new folder only. It is looked at first, and again when the features' turn comes.

    Args:
        data, out: as the TaskManager sees them: `/path`, `file:/path`, `file:///path`, `hdfs://…`.
        app: None: the tutorial's shop.
        without: tables that `data` lacks; where it is a folder here, it is looked up, as is whether files are csv.
        timeout_s: for each job.

    Raises:
        BadData: see `batch.features.history.check_data`, where `data` is a folder here, too.
        BadInput: a path is relative, or cannot stand in SQL; a table of `without` that features are made of.
        OutputRefused: `out` holds something else, as far as it is seen here, or touches an input; `force`, and it is
            not seen.
        JobFailed, StoreUnavailable: see `batch.features.cluster_jobs.run_job`.
    """
    started = time.monotonic()
    app = app or load_app(app_folder())
    source, target = cluster_path(data), cluster_path(out)
    if (folder := source.here) and folder.is_dir():
        check_data(folder, app)
    told = _refuse_output(data, out, app, force)
    tables = _loaded(app, data, without)
    load = load_script(app, "offline", data.rstrip("/"), tables.formats, tables.without)
    extract_script(app, out.rstrip("/"))  # before anything is sent: can the path stand in SQL?
    written = target.here

    def overwrite() -> bool:
        """Whether what lies there, which is seen and of an older run, or was told, may go."""
        if written is None or not written.exists():
            return False
        refuse_new(written, "outfile", told)
        return True

    following = _Following(timeout_s, say, sleep)
    for table in tables.without:
        say(f"{table}: not loaded, the data has none")
    jobs = len(_run(cluster, tables_script(app), following)) + len(_run(cluster, load, following))
    jobs += len(_run(cluster, extract_script(app, out.rstrip("/"), overwrite=overwrite()), following))
    if written is None or not written.is_dir():
        return Written(jobs, None, None, time.monotonic() - started)
    try:
        mark(written, "outfile", names=SPARKS)
    except OSError as error:
        say(f"{out}: no marker can be written there ({error.strerror}): the next extract into it needs --force")
    return Written(jobs, *counted(written), time.monotonic() - started)


def _refuse_output(data: str, out: str, app: App, force: Say | None) -> set[str]:
    """By name in any case, and by the files where they are seen; what `force` was told will go."""
    source, target = cluster_path(data), cluster_path(out)
    if source.touches(target):
        raise OutputRefused(
            f"{out} is, holds or lies within an input, {data}, by its path (hosts and schemes do not count): results "
            "go to another folder"
        )
    if target.here is not None:
        inputs = [Path(source.path)] if source.local else []
        return check_output(target.here, "outfile", inputs=[*inputs, *app_files(app)], force=force)
    if force is not None:
        raise OutputRefused(
            f"{out} is not seen from here: --force cannot say what it would remove; name a new folder, without --force"
        )
    return set()


def load_online_tables(
    cluster: StatementRunner,
    data: str,
    app: App | None = None,
    *,
    append: bool = False,
    without: Collection[str] = (),
    timeout_s: float = JOB_S,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Loads `data` into the online tables; returns the rows that each table has then.

    Args:
        app, without: see `extract_on_cluster`.
        append: also into tables that have rows: LOAD DATA inserts what is there already once more.

    Raises:
        BadData: a table has rows.
        BadInput: see `extract_on_cluster`.
        JobFailed, StoreUnavailable: see `batch.features.cluster_jobs.run_job`.
    """
    app = app or load_app(app_folder())
    tables = _loaded(app, data, without)
    script = load_script(app, "online", data.rstrip("/"), tables.formats, tables.without)
    for statement in parse(script):
        if isinstance(statement, (syntax.Use, syntax.Set)):
            cluster.execute(statement_text(script, statement.at))
    filled = {table: rows for table in app.tables.columns if (rows := _count(cluster, table))}
    if filled and not append:
        found = ", ".join(f"{table} {rows:,}" for table, rows in filled.items())
        raise BadData(f"there are rows already ({found}), which LOAD DATA would double: --append loads all the same")
    for table in tables.without:
        say(f"{table}: not loaded, the data has none")
    _run(cluster, script, _Following(timeout_s, say, sleep))
    return {table: _count(cluster, table) for table in app.tables.columns}


class _Loaded(NamedTuple):
    """What is loaded.

    Attributes:
        formats: of the tables' files, where they are seen here.
        without: tables that are not loaded: OpenMLDB takes a table that was never loaded for an empty one.
    """

    formats: dict[str, str]
    without: tuple[str, ...]


class _Following(NamedTuple):
    """How jobs are followed; see `cluster_jobs.run_job`."""

    timeout_s: float
    say: Callable[[str], None]
    sleep: Callable[[float], None]


def _loaded(app: App, data: str, without: Collection[str]) -> _Loaded:
    for table in without:
        if table not in app.tables.columns:
            raise BadInput(f"--without {table}: the application has no such table")
        if table not in may_be_absent(app):
            raise BadInput(f"--without {table}: the features are made of it")
    folder = cluster_path(data).here
    if folder is None or not folder.is_dir():
        return _Loaded({}, tuple(table for table in app.tables.columns if table in without))
    formats = {source.table: source.options.format for source in tables_of(app, folder)}
    return _Loaded(formats, tuple(table for table in app.tables.columns if table not in formats))


def _run(cluster: StatementRunner, script: str, following: _Following) -> list[ClusterJob]:
    """Runs a script, one statement after the other; its jobs."""
    jobs = []
    cluster.execute("SET @@sync_job=false")
    for statement in parse(script):
        text = statement_text(script, statement.at)
        if isinstance(statement, syntax.Set) and statement.name == "sync_job":
            continue
        if isinstance(statement, (syntax.LoadData, syntax.Outfile)):
            if isinstance(statement, syntax.LoadData):
                following.say(f"LOAD DATA: {statement.table[-1]}")
            else:
                following.say(f"INTO OUTFILE: {statement.path}")
            jobs.append(run_job(cluster, text, following.timeout_s, following.say, sleep=following.sleep))
        else:
            cluster.execute(text)
    return jobs


def _count(cluster: StatementRunner, table: str) -> int:
    """Rows of a table; of none, count(*) gives no row."""
    rows = cluster.execute(f"SELECT count(*) FROM {table}")
    return int(rows[0][0]) if rows else 0

"""The tutorial's offline steps on an OpenMLDB cluster: tables, LOAD DATA, SELECT … INTO OUTFILE; and its online load.

    jd-intent-batch extract --engine openmldb --config scorer.toml --data DATA --out OUT
    jd-intent-batch load-online --config scorer.toml --data DATA

The scripts of sql/ run as they stand, but for two things: their paths become DATA and OUT, which are paths or URIs as
the cluster's TaskManager sees them, and jobs are followed instead of waited for in silence.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch.extract import DATA_PREFIX, OUT_PREFIX, SCRIPTS, SQL_FOLDER, BadData, check, counted
from batch.jobs import Cluster, Job, run
from streaming.engine import syntax as s
from streaming.engine.parse import parse, statement_text
from streaming.errors import OutputRefused
from streaming.output_folder import Say, mark
from streaming.output_folder import check as check_output
from streaming.scripts import script_text, within

__all__ = ["Written", "extract", "load_online"]

JOB_S = 4 * 3600.0


class Written(msgspec.Struct, frozen=True):
    """What a cluster's extraction wrote: jobs it took, and feature rows and columns, where the files are seen here."""

    jobs: int
    features: int | None
    columns: int | None
    seconds: float


def extract(
    cluster: Cluster,
    data: str,
    out: str,
    sql: Path = SQL_FOLDER,
    *,
    action: bool = True,
    timeout_s: float = JOB_S,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    force: Say | None = None,
) -> Written:
    """Makes the tables, loads `data` offline and writes the features of every request to `out`.

    What lies in `out` is replaced where it is seen here and is all of an older INTO OUTFILE's, or with `force`. Else
    the cluster is told to write into a new folder only.

    Args:
        data, out: as the TaskManager sees them: `/path`, `file:///path`, `hdfs://…`.
        action: whether `data` has the table `action`; where it is a folder here, it is looked up.
        timeout_s: for each job.

    Raises:
        BadData: see `batch.extract.check`, where `data` is a folder here, too.
        OutputRefused: `out` holds something else, as far as it is seen here, or touches an input.
        JobFailed, StoreUnavailable: see `batch.jobs.run`.
    """
    started = time.monotonic()
    if _local(data).is_dir():
        check(_local(data), sql)
    _refuse_output(data, out, sql, force)
    overwrite = force is not None or _local(out).exists()
    places = {DATA_PREFIX: data, OUT_PREFIX: out}
    following, jobs = _Following(timeout_s, say, sleep, _without(data, action), overwrite), 0
    for name in SCRIPTS:
        jobs += len(_run(cluster, sql / name, places, following))
    written = _local(out)
    if not written.is_dir():
        return Written(jobs, None, None, time.monotonic() - started)
    try:
        mark(written, "outfile")
    except OSError as error:
        say(f"{out}: no marker can be written there ({error.strerror}): the next extract into it needs --force")
    return Written(jobs, *counted(written), time.monotonic() - started)


def _refuse_output(data: str, out: str, sql: Path, force: Say | None) -> None:
    """By the files, where paths are none of another system; by name in any case."""
    source, target = (posixpath.normpath(path.removeprefix("file://")) + "/" for path in (data, out))
    if source.startswith(target) or target.startswith(source):
        raise OutputRefused(f"{out} is, holds or lies within an input, {data}: results go to another folder")
    if "://" not in out.removeprefix("file://"):
        check_output(_local(out), "outfile", inputs=[_local(data), *(sql / name for name in SCRIPTS)], force=force)


def load_online(
    cluster: Cluster,
    data: str,
    sql: Path = SQL_FOLDER,
    *,
    append: bool = False,
    action: bool = True,
    timeout_s: float = JOB_S,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Loads `data` into the online tables; returns the rows that each table has then.

    Args:
        append: also into tables that have rows: LOAD DATA inserts what is there already once more.
        action: see `extract`.

    Raises:
        BadData: a table has rows.
        JobFailed, StoreUnavailable: see `batch.jobs.run`.
    """
    path = sql / "load_online.sql"
    with within(path):
        tables = [statement.table[-1] for statement in parse(script_text(path)) if isinstance(statement, s.LoadData)]
    _begin(cluster, path)
    filled = {table: rows for table in tables if (rows := _count(cluster, table))}
    if filled and not append:
        found = ", ".join(f"{table} {rows:,}" for table, rows in filled.items())
        raise BadData(f"there are rows already ({found}), which LOAD DATA would double: --append loads all the same")
    _run(cluster, path, {DATA_PREFIX: data}, _Following(timeout_s, say, sleep, _without(data, action)))
    return {table: _count(cluster, table) for table in tables}


class _Following(NamedTuple):
    """How jobs are followed, see `batch.jobs.run`; tables that are not loaded; whether INTO OUTFILE may overwrite."""

    timeout_s: float
    say: Callable[[str], None]
    sleep: Callable[[float], None]
    without: tuple[str, ...]
    overwrite: bool = False


def _run(cluster: Cluster, path: Path, places: dict[str, str], following: _Following) -> list[Job]:
    """Runs a script, one statement after the other; its jobs."""
    script = script_text(path)
    jobs = []
    cluster.execute("SET @@sync_job=false")
    for statement in parse(script):
        text = statement_text(script, statement.at)
        if isinstance(statement, s.Set) and statement.name == "sync_job":
            continue
        if isinstance(statement, s.LoadData) and statement.table[-1] in following.without:
            following.say(f"{path.name}: {statement.table[-1]}: not loaded, the data has none")
        elif isinstance(statement, (s.LoadData, s.Outfile)):
            moved = _moved(statement.path, places)
            target = statement.table[-1] if isinstance(statement, s.LoadData) else moved
            following.say(f"{path.name}: {target}")
            text = text.replace(f"'{statement.path}'", f"'{moved}'")
            if isinstance(statement, s.Outfile) and not following.overwrite:
                select, path_, options = text.rpartition(f"'{moved}'")
                text = select + path_ + re.sub(r"(?i)(mode\s*=\s*)'overwrite'", r"\1'error_if_exists'", options)
            jobs.append(run(cluster, text, following.timeout_s, following.say, sleep=following.sleep))
        else:
            cluster.execute(text)
    return jobs


def _local(path: str) -> Path:
    return Path(path.removeprefix("file://"))


def _without(data: str, action: bool) -> tuple[str, ...]:
    """The optional tables that `data` lacks: OpenMLDB takes a table that was never loaded for an empty one."""
    there = (_local(data) / "action").is_dir() if _local(data).is_dir() else action
    return () if there else ("action",)


def _begin(cluster: Cluster, path: Path) -> None:
    """The script's USE and SET statements, for what is asked before it runs."""
    script = script_text(path)
    for statement in parse(script):
        if isinstance(statement, (s.Use, s.Set)):
            cluster.execute(statement_text(script, statement.at))


def _moved(path: str, places: dict[str, str]) -> str:
    for prefix, place in places.items():
        if path == prefix or path.startswith(prefix + "/"):
            if "'" in place or "\\" in place:
                raise BadData(f"{place}: a quote or backslash cannot stand in a path of SQL")
            return place.rstrip("/") + path[len(prefix) :]
    return path


def _count(cluster: Cluster, table: str) -> int:
    """Rows of a table; of none, count(*) gives no row."""
    rows = cluster.execute(f"SELECT count(*) FROM {table}")
    return int(rows[0][0]) if rows else 0

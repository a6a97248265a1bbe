"""The tutorial's offline steps on an OpenMLDB cluster: tables, LOAD DATA, SELECT … INTO OUTFILE; and its online load.

    jd-intent-batch extract --engine openmldb --config scorer.toml --data DATA --out OUT
    jd-intent-batch load-online --config scorer.toml --data DATA

The scripts of sql/ run as they stand, but for two things: their paths become DATA and OUT, which are paths or URIs as
the cluster's TaskManager sees them, and jobs are followed instead of waited for in silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch.features.cluster_jobs import ClusterJob, run_job
from batch.features.cluster_paths import ClusterPath, cluster_path, quoted
from batch.features.data_layout import DATA_PREFIX, OUT_PREFIX, SCRIPTS, BadData
from batch.features.extract import counted
from batch.features.inputs import check_data, script_files
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse, statement_text
from streaming.engine.sql.tokens import Token, tokens_of
from streaming.errors import ConfigError, OutputRefused
from streaming.files.output_folder import Say, mark, refuse_new
from streaming.files.output_folder import check as check_output
from streaming.shipped_files import SQL_FOLDER
from streaming.store.openmldb.cluster import StatementRunner
from streaming.store.sql_scripts import Script, read_script, within

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
    the cluster is told to write into a new folder only. It is looked at first, and again when the features' turn comes.

    Args:
        data, out: as the TaskManager sees them: `/path`, `file:/path`, `file:///path`, `hdfs://…`.
        action: whether `data` has the table `action`; where it is a folder here, it is looked up.
        timeout_s: for each job.

    Raises:
        BadData: see `batch.features.inputs.check_data`, where `data` is a folder here, too.
        BadInput: a path is relative, or cannot stand in SQL.
        ConfigError: a script's path is not in the folder that `data` or `out` stands for.
        OutputRefused: `out` holds something else, as far as it is seen here, or touches an input; `force`, and it is
            not seen.
        JobFailed, StoreUnavailable: see `batch.features.cluster_jobs.run_job`.
    """
    started = time.monotonic()
    source, target = cluster_path(data), cluster_path(out)
    if (folder := source.here) and folder.is_dir():
        check_data(folder, sql)
    scripts = [read_script(sql / name) for name in SCRIPTS]
    told = _refuse_output(data, out, scripts, force)
    for script in scripts:
        _refuse_script(script, data, out)
    written = target.here

    def overwrite() -> bool:
        """Whether what lies there, which is seen and of an older run, or was told, may go."""
        if written is None or not written.exists():
            return False
        refuse_new(written, "outfile", told)
        return True

    following, jobs = _Following(timeout_s, say, sleep, _without(source, action), overwrite), 0
    for script in scripts:
        jobs += len(_run(cluster, script, data, out, following))
    if written is None or not written.is_dir():
        return Written(jobs, None, None, time.monotonic() - started)
    try:
        mark(written, "outfile", names=SPARKS)
    except OSError as error:
        say(f"{out}: no marker can be written there ({error.strerror}): the next extract into it needs --force")
    return Written(jobs, *counted(written), time.monotonic() - started)


def _refuse_output(data: str, out: str, scripts: Sequence[Script], force: Say | None) -> set[str]:
    """By name in any case, and by the files where they are seen; what `force` was told will go."""
    source, target = cluster_path(data), cluster_path(out)
    if source.touches(target):
        raise OutputRefused(
            f"{out} is, holds or lies within an input, {data}, by its path (hosts and schemes do not count): results "
            "go to another folder"
        )
    if target.here is not None:
        inputs = [Path(source.path)] if source.local else []
        return check_output(target.here, "outfile", inputs=[*inputs, *script_files(scripts)], force=force)
    if force is not None:
        raise OutputRefused(
            f"{out} is not seen from here: --force cannot say what it would remove; name a new folder, without --force"
        )
    return set()


def _refuse_script(script: Script, data: str, out: str | None) -> None:
    """Before anything is sent: can every path of a script be replaced?"""
    with within(script):
        statements = parse(script.text)
    for statement in statements:
        if isinstance(statement, (syntax.LoadData, syntax.Outfile)):
            _rewritten(script, statement, data, out, overwrite=False)


def load_online_tables(
    cluster: StatementRunner,
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
        action: see `extract_on_cluster`.

    Raises:
        BadData: a table has rows.
        JobFailed, StoreUnavailable: see `batch.features.cluster_jobs.run_job`.
    """
    script, source = read_script(sql / "load_online.sql"), cluster_path(data)
    _refuse_script(script, data, None)
    with within(script):
        tables = [statement.table[-1] for statement in parse(script.text) if isinstance(statement, syntax.LoadData)]
    _begin(cluster, script)
    filled = {table: rows for table in tables if (rows := _count(cluster, table))}
    if filled and not append:
        found = ", ".join(f"{table} {rows:,}" for table, rows in filled.items())
        raise BadData(f"there are rows already ({found}), which LOAD DATA would double: --append loads all the same")
    _run(cluster, script, data, None, _Following(timeout_s, say, sleep, _without(source, action), lambda: False))
    return {table: _count(cluster, table) for table in tables}


class _Following(NamedTuple):
    """How a script is run.

    Attributes:
        timeout_s, say, sleep: see `cluster_jobs.run_job`.
        without: tables that are not loaded.
        overwrite: may INTO OUTFILE replace what is there?
    """

    timeout_s: float
    say: Callable[[str], None]
    sleep: Callable[[float], None]
    without: tuple[str, ...]
    overwrite: Callable[[], bool]


def _run(
    cluster: StatementRunner, script: Script, data: str, out: str | None, following: _Following
) -> list[ClusterJob]:
    """Runs a script, one statement after the other; its jobs."""
    jobs = []
    cluster.execute("SET @@sync_job=false")
    for statement in parse(script.text):
        text = statement_text(script.text, statement.at)
        if isinstance(statement, syntax.Set) and statement.name == "sync_job":
            continue
        if isinstance(statement, syntax.LoadData) and statement.table[-1] in following.without:
            following.say(f"{script.path.name}: {statement.table[-1]}: not loaded, the data has none")
        elif isinstance(statement, (syntax.LoadData, syntax.Outfile)):
            following.say(
                f"{script.path.name}: {statement.table[-1] if isinstance(statement, syntax.LoadData) else out}"
            )
            overwrite = isinstance(statement, syntax.Outfile) and following.overwrite()
            text = _rewritten(script, statement, data, out, overwrite=overwrite)
            jobs.append(run_job(cluster, text, following.timeout_s, following.say, sleep=following.sleep))
        else:
            cluster.execute(text)
    return jobs


def _without(source: ClusterPath, action: bool) -> tuple[str, ...]:
    """The optional tables that the data lacks: OpenMLDB takes a table that was never loaded for an empty one."""
    folder = source.here
    there = (folder / "action").is_dir() if folder is not None and folder.is_dir() else action
    return () if there else ("action",)


def _begin(cluster: StatementRunner, script: Script) -> None:
    """The script's USE and SET statements, for what is asked before it runs."""
    for statement in parse(script.text):
        if isinstance(statement, (syntax.Use, syntax.Set)):
            cluster.execute(statement_text(script.text, statement.at))


def _rewritten(
    script: Script, statement: syntax.LoadData | syntax.Outfile, data: str, out: str | None, *, overwrite: bool
) -> str:
    """The statement as it is written, with the path moved; of INTO OUTFILE the options are written anew."""
    text = statement_text(script.text, statement.at)
    tokens = tokens_of(text)
    load = isinstance(statement, syntax.LoadData)
    words, prefix, place = (("data", "infile"), DATA_PREFIX, data) if load else (("into", "outfile"), OUT_PREFIX, out)
    at = next(i for i in range(2, len(tokens)) if tuple(token.lower for token in tokens[i - 2 : i]) == words)
    path = cluster_path(statement.path)
    if place is None or not (path.local and (path.path == prefix or path.path.startswith(prefix + "/"))):
        option = "--data" if load else "--out"
        raise ConfigError(
            f"{script.path}: {words[1].upper()} {tokens[at].text} is not in {prefix}, for which {option} stands"
        )
    moved = text[: tokens[at].at] + quoted(place.rstrip("/") + path.path[len(prefix) :])
    if load:
        return moved + text[tokens[at].at + len(tokens[at].text) :]
    options = _options(tokens[at + 1 :])
    if not overwrite and str(statement.options.get("mode", "append")).lower() != "append":
        options["mode"] = "'error_if_exists'"
    return f"{moved} OPTIONS({', '.join(f'{key}={value}' for key, value in options.items())})" if options else moved


def _options(tokens: Sequence[Token]) -> dict[str, str]:
    """The values as they are written in OPTIONS( … ), which the parser has taken already; of two for a key the last."""
    found: dict[str, str] = {}
    at = 2
    while at < len(tokens) and tokens[at].text != ")":
        if tokens[at].text == ",":
            at += 1
            continue
        key, begin, depth = tokens[at].lower.strip("'\"`"), at + 2, 0  # behind key and `=`
        at = begin
        while at == begin or depth:
            depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(tokens[at].text, 0)
            at += 1
        found[key] = "".join(token.text for token in tokens[begin:at])
    return found


def _count(cluster: StatementRunner, table: str) -> int:
    """Rows of a table; of none, count(*) gives no row."""
    rows = cluster.execute(f"SELECT count(*) FROM {table}")
    return int(rows[0][0]) if rows else 0

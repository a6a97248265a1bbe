"""Offline features by OpenMLDB's own batch engine on Apache Spark, without a cluster of OpenMLDB.

    jd-intent-batch extract --engine spark --data DIR --out DIR [--master local[2]]

runs the query that the embedded engine runs. Spark lives in an environment of its own (`make spark-environment`), in
a process of its own: this side reads the application, writes down what to do (`SparkJob`), and turns the files that
come back into the features' Arrow types; `spark_job.py` does it. docs/reference/sql/offline-differences.md says where
Spark's answers differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batch.features.data_layout import BadData, parquet_files
from batch.features.extract import Extracted, app_files
from batch.features.history import check_data, tables_of
from batch.features.spark_files import for_spark
from streaming.app.folder import App, load_app
from streaming.app.scripts import query_text
from streaming.errors import ScorerError
from streaming.files.output_folder import Say, replacing
from streaming.files.tables import BadFile, Options, files_of
from streaming.ops.environment import interpreter
from streaming.shipped_files import app_folder
from streaming.store.openmldb.columns import schema_of

__all__ = ["MASTER", "SparkFailed", "SparkJob", "SparkTable", "extract_on_spark", "spark_tables"]

MASTER = "local[2]"
JAR = "openmldb-spark.jar"  # deploy/environments.py puts it there
WORK_PREFIX = "jd-intent-spark-"
# Spark and the JVM end by themselves when the driver's input ends; this is for one that hangs.
STOP_TIMEOUT_S = 20.0
DATABASE = "application"  # of one that names none: Spark's session wants a name


class SparkFailed(ScorerError):
    """Spark is not there, refused the query or died; the message says which and what to do."""


class SparkTable(msgspec.Struct):
    """A table of the job.

    Attributes:
        database, name: where it is.
        columns: name → SQL type.
        files: of its rows, in order: paths; in the job of the other process, URIs of parquet files.
        options: how the files are laid out.
    """

    database: str
    name: str
    columns: dict[str, str]
    files: list[str] = []
    options: Options = Options("parquet")


class SparkJob(msgspec.Struct):
    """All that the Spark side has to know; it stands in a file between the two processes.

    Attributes:
        tables: that the query reads.
        database: in use.
        query: the SELECT.
        out: a folder for Spark's files, which must not exist.
        master: Spark's master URL.
        conf: options of Spark.
    """

    tables: list[SparkTable]
    database: str
    query: str
    out: str
    master: str
    conf: dict[str, str]


def extract_on_spark(
    data: Path,
    out: Path,
    app: App | None = None,
    master: str = MASTER,
    conf: Mapping[str, str] | None = None,
    *,
    force: Say | None = None,
) -> Extracted:
    """As `batch.features.extract.extract_features`, by Spark: the rows come in no particular order, in as many files as
    Spark makes.

    Args:
        data, out: on a real cluster every executor must see both under the same path.
        app: None: the tutorial's shop.
        master: Spark's master URL.
        conf: options for Spark, over those that the job sets itself.

    Raises:
        BadData: see `batch.features.history.check_data`.
        SparkFailed: Spark is not there, refuses the query, or died.
        OutputRefused: `out` holds something else, or touches an input.
    """
    started = time.monotonic()
    app = app or load_app(app_folder())
    python, jar = _environment()
    rows = check_data(data, app)
    tables, database = spark_tables(app, data), app.tables.database or DATABASE
    checked = time.monotonic()
    with (
        replacing(out, "features", inputs=[data, *app_files(app)], force=force) as fresh,
        _work_folder() as (work, lock),
    ):
        staging, copies = fresh.parent / "spark", fresh.parent / "tables"
        tables = [_handed_over(table, copies) for table in tables]
        options = {
            "spark.jars": str(jar),
            "spark.local.dir": str(work),
            "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={work}",
            **(conf or {}),
        }
        _run(python, SparkJob(tables, database, query_text(app), staging.as_uri(), master, options), work, lock)
        features, columns = 0, 0
        for number, file in enumerate(parquet_files(staging)):
            written = _as_features(file, fresh / f"part-{number:05d}.parquet")
            features, columns = features + written[0], written[1]
        for folder in (staging, copies):
            shutil.rmtree(folder, ignore_errors=True)
    return Extracted(
        rows=rows, features=features, columns=columns, check_s=checked - started, run_s=time.monotonic() - checked
    )


def spark_tables(app: App, data: Path) -> list[SparkTable]:
    """The tables of the application, each with its files in the data folder; one that may be absent has none.

    Raises:
        BadData: see `batch.features.history`.
    """
    sources = {source.table: source for source in tables_of(app, data)}
    tables = []
    for name, columns in app.tables.columns.items():
        kinds = {column.name: str(column.type) for column in columns}
        table = SparkTable(app.tables.database or DATABASE, name, kinds)
        if name in sources:
            table.options = sources[name].options
            try:
                table.files = [str(file) for file in files_of(sources[name].path, table.options.format)]
            except BadFile as error:
                raise BadData(str(error)) from None
        tables.append(table)
    return tables


def _handed_over(table: SparkTable, copies: Path) -> SparkTable:
    """The table with URIs of files in which Spark reads what we do."""
    schema = schema_of([*table.columns.items()])
    files = for_spark([Path(file) for file in table.files], schema, table.options, copies / table.name)
    return SparkTable(table.database, table.name, table.columns, [file.as_uri() for file in files])


# -- the other process -----------------------------------------------------------------------------------------------


def _environment() -> tuple[Path, Path]:
    """Spark's Python and OpenMLDB's jar."""
    python = interpreter("spark")
    jar = python.parents[1] / JAR
    for path in (python, jar):
        if not path.exists():
            raise SparkFailed(f"{path} is not there: run `make spark-environment`")
    if shutil.which("java") is None and not Path(os.environ.get("JAVA_HOME", "/nowhere"), "bin", "java").exists():
        raise SparkFailed("Java is neither on PATH nor in JAVA_HOME: apt-get install openjdk-17-jre-headless")
    return python, jar


@contextlib.contextmanager
def _work_folder() -> Iterator[tuple[Path, int]]:
    """A folder for all that Spark leaves lying about, and a lock that its processes hold as long as one of them lives.

    A JVM that is killed leaves OpenMLDB's library and its shuffle files behind: the next run takes them away.
    """
    for stale in Path(tempfile.gettempdir()).glob(f"{WORK_PREFIX}*"):
        with contextlib.suppress(OSError), (stale / "lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX))
    try:
        with (work / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield work, lock.fileno()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(python: Path, job: SparkJob, work: Path, lock: int) -> None:
    """Runs the job in Spark's environment, in a process group that ends with this call, however it ends."""
    plan, log = work / "job.json", work / "spark.log"
    plan.write_bytes(msgspec.json.encode(job))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("spark_job.py")), str(plan)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
        )
    try:
        status = process.wait()
    finally:
        _end(process)
    if status == 0:
        return
    failed = work / "failed.json"
    if failed.exists():
        what = json.loads(failed.read_text())
        raise SparkFailed(f"{what['stage']}: {what['message']}")
    end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise SparkFailed(f"Spark ended with status {status} (master {job.master}); the end of its log:\n{end}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()  # the driver waits for this end
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# -- what comes back -------------------------------------------------------------------------------------------------


def _as_features(source: Path, target: Path) -> tuple[int, int]:
    """Writes Spark's file with the embedded engine's Arrow types; returns its rows and columns.

    Spark marks timestamps as UTC; here they are what they are in the tables, milliseconds without a zone.
    """
    with pq.ParquetFile(source) as file:
        fields = []
        for field in file.schema_arrow:
            kind = pa.timestamp("ms") if pa.types.is_timestamp(field.type) else field.type
            fields.append(pa.field(field.name, kind))
        schema = pa.schema(fields)
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(1 << 17):
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
        return int(file.metadata.num_rows), len(schema)

"""What runs in Spark's environment: python spark_job.py JOB.json (see `batch.features.spark`, which starts it).

Reads the tables, hands them and the query to OpenMLDB's session, writes its answer. Needs PySpark and nothing of this
project. What the user can mend goes to failed.json beside the job; all else is in the log.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

# OpenMLDB's names → Spark's, where they differ.
TYPES = {"bool": "boolean"}
OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    # Timestamps without a zone are instants in OpenMLDB; those of nanoseconds (pandas') Spark reads as numbers only.
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # The library's name inside the jar; without it OpenMLDB looks for its taskmanager's files.
    "spark.openmldb.jsdk.library.path": "libhybridse_jsdk_core.so",
    # OpenMLDB's patched Spark has a LAST JOIN of its own, Apache's has none.
    "spark.openmldb.enable.native.last.join": "false",
}
# One machine: no reason for 200 partitions, nor to be reachable from outside.
LOCAL_OPTIONS = {
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


class StageFailed(Exception):
    """Ends the job with a message for the user."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


def main() -> None:
    plan = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run(json.loads(plan.read_text()))
    except StageFailed as error:
        plan.with_name("failed.json").write_text(json.dumps({"stage": error.stage, "message": str(error)}))
        raise


def _end_with_parent() -> None:
    """The parent holds the other end of the input: when it is gone, this process goes, and the JVM with it."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: no lock is held when the interpreter ends
    os._exit(1)


def run(job: dict[str, Any]) -> None:
    """Does the job; raises `StageFailed` for what its user can mend."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName("jd-intent extract").master(job["master"])
    local = LOCAL_OPTIONS if job["master"].startswith("local") else {}
    options = {**OPTIONS, **local, "spark.openmldb.default.db": job["database"], **job["conf"]}
    for key, value in options.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    try:
        session = _session(spark)
        for table in job["tables"]:
            frame = _frame(spark, table)
            session.registerTable(table["database"], table["name"], frame._jdf)
        answer = DataFrame(_ask(session, job["query"]), spark)
        try:
            answer.write.parquet(job["out"])
        except Py4JJavaError as error:
            raise StageFailed("running the query on Spark", _reason(error)) from error
    finally:
        spark.stop()


def _session(spark: SparkSession) -> Any:
    try:
        return spark._jvm.com._4paradigm.openmldb.batch.api.OpenmldbSession(spark._jsparkSession)
    except TypeError as error:  # py4j: a package is no class
        raise StageFailed("starting OpenMLDB", f"its classes are not in spark.jars: {error}") from error
    except Py4JJavaError as error:
        raise StageFailed("starting OpenMLDB", _reason(error)) from error


def _frame(spark: SparkSession, table: dict[str, Any]) -> DataFrame:
    """The table's rows, its columns in order and of its types."""
    columns = table["columns"]
    if not table["files"]:
        empty = (f"cast(null as {TYPES.get(kind, kind)}) as `{name}`" for name, kind in columns.items())
        return spark.range(0).selectExpr(*empty)
    try:
        frame = spark.read.parquet(*table["files"])
    except Exception as error:
        raise StageFailed(f"reading {table['name']}", _reason(error)) from error
    kinds = dict(frame.dtypes)
    return frame.select([_column(name, kind, kinds[name]) for name, kind in columns.items()])


def _column(name: str, kind: str, stored: str) -> Column:
    """The column as its type in SQL; times in whole milliseconds, as OpenMLDB's tables hold them."""
    if kind != "timestamp":
        value = f.col(f"`{name}`").cast(TYPES.get(kind, kind))
    elif stored == "bigint":  # nanoseconds, see OPTIONS
        value = f.expr(f"timestamp_millis(`{name}` div 1000000)")
    else:
        value = f.date_trunc("millisecond", f"`{name}`")
    return value.alias(name)


def _ask(session: Any, query: str) -> Any:
    try:
        return session.sql(query).getSparkDf()
    except Py4JJavaError as error:
        raise StageFailed("OpenMLDB refuses the query", _reason(error)) from error


def _reason(error: BaseException) -> str:
    """The exception's own words, without Java's frames and the places in OpenMLDB's sources."""
    java = getattr(error, "java_exception", None)
    text = str(error if java is None else java.getMessage() or java.toString())
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\(At |at )", line) and line.strip()]
    return "\n".join(lines[:20])


if __name__ == "__main__":
    main()

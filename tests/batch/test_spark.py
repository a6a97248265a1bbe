"""Offline features by OpenMLDB's engine on Spark: the application's tables, and, marked slow, the real thing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fixtures.applications import make
from fixtures.spark import fake_spark
from places import SQL
from rigs.odd_files import odd_but_good

from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.features.spark import SparkFailed, extract_on_spark, spark_tables
from batch.world.generate import generate_world
from deploy import environments
from deploy.process import Process, free_ports
from streaming.app.folder import load_app
from streaming.app.scripts import query_text
from streaming.files.output_folder import mark

JD = load_app(SQL / "jd")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spark") / "world"
    generate_world(out, users=25, seed=5, days=30)
    return out


def test_the_tables_have_their_files_and_one_that_may_be_absent_has_none(world: Path) -> None:
    tables = spark_tables(JD, world)
    assert {table.database for table in tables} == {"JD_db"}
    assert {t.name: len(t.files) for t in tables} == {
        "action": 0,
        "flattenRequest": 1,
        "bo_user": 1,
        "bo_action": 1,
        "bo_product": 1,
        "bo_comment": 1,
    }
    assert tables[0].columns == {
        "reqId": "string",
        "eventTime": "timestamp",
        "ingestionTime": "timestamp",
        "actionValue": "int",
    }
    assert query_text(JD).endswith("on out0.reqId_1 = out3.reqId_17")


def test_tables_of_no_database_get_one_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    bank = load_app(make(tmp_path / "bank"))
    for table in ("payments", "cards"):
        (tmp_path / "data" / table).mkdir(parents=True)
        (tmp_path / "data" / table / "b.csv").touch()
    assert [(t.database, t.name, t.options.format) for t in spark_tables(bank, tmp_path / "data")] == [
        ("application", "payments", "csv"),
        ("application", "cards", "csv"),
    ]
    shutil.rmtree(tmp_path / "data" / "cards")
    with pytest.raises(BadData, match="data/cards: there is no such folder"):
        spark_tables(bank, tmp_path / "data")


def test_what_the_machine_lacks_is_named(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JD_ENVS", str(tmp_path))
    with pytest.raises(SparkFailed, match=r"spark/bin/python is not there: run `make spark-environment`"):
        extract_on_spark(world, tmp_path / "out")
    fake_spark(tmp_path, "exit 0")
    (tmp_path / "spark" / "openmldb-spark.jar").unlink()
    with pytest.raises(SparkFailed, match=r"openmldb-spark\.jar is not there"):
        extract_on_spark(world, tmp_path / "out")
    fake_spark(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SparkFailed, match=r"Java is neither on PATH nor in JAVA_HOME: apt-get"):
        extract_on_spark(world, tmp_path / "out")


def test_a_spark_that_dies_leaves_the_older_features_and_no_litter(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JD_ENVS", str(tmp_path / "envs"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    stale = tmp_path / "tmp" / "jd-intent-spark-dead"
    stale.mkdir()
    (stale / "lock").touch()
    (stale / "libhybridse_jsdk_core.so").touch()
    fake_spark(tmp_path / "envs", "echo no space left; exit 7")
    out = tmp_path / "out"
    out.mkdir()
    (out / "older.parquet").touch()
    mark(out, "features")
    with pytest.raises(SparkFailed, match=r"(?s)status 7 .*no space left"):
        extract_on_spark(world, out)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert sorted(path.name for path in out.iterdir()) == [".jd-intent", "older.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envs", "out", "tmp"]


# -- the real thing --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark() -> Path:
    """The Spark environment; skips where it was not made."""
    home = environments.folder() / "spark"
    if not (home / environments.SPARK_JAR).exists():
        pytest.skip(f"there is no Spark environment at {home}: run `make spark-environment`")
    return home


def same(ours: Path, theirs: Path) -> None:
    """Equal cell by cell, types and names too, with the rows by request id."""
    left, right = (pq.read_table(folder) for folder in (ours, theirs))
    assert left.schema.remove_metadata().equals(right.schema.remove_metadata())
    left, right = (table.take(pc.sort_indices(table["reqId_1"])).combine_chunks() for table in (left, right))
    wrong = [name for name in left.column_names if not left[name].equals(right[name])]
    assert wrong == []
    assert left.num_rows == right.num_rows > 0


@pytest.mark.slow
def test_the_public_sample_is_equal_to_the_embedded_engines(jd: Path, spark: Path, tmp_path: Path) -> None:
    extract_features(jd, tmp_path / "embedded")
    done = extract_on_spark(jd, tmp_path / "spark")
    assert (done.features, done.columns) == (13_916, 42)
    same(tmp_path / "embedded", tmp_path / "spark")


@pytest.mark.slow
def test_files_of_other_types_are_read_as_the_embedded_engine_reads_them(
    world: Path, spark: Path, tmp_path: Path
) -> None:
    shutil.copytree(world, tmp_path / "data")
    odd_but_good(tmp_path / "data")
    extract_features(world, tmp_path / "embedded")
    extract_on_spark(tmp_path / "data", tmp_path / "spark")
    same(tmp_path / "embedded", tmp_path / "spark")


@pytest.mark.slow
def test_a_spark_cluster_gives_the_same_and_nanoseconds_are_read(world: Path, spark: Path, tmp_path: Path) -> None:
    for file in (world / "bo_user").glob("*.parquet"):
        table = pq.read_table(file)
        at = table.schema.get_field_index("ingestionTime")
        nanoseconds = table["ingestionTime"].cast(pa.timestamp("ns"))
        pq.write_table(table.set_column(at, "ingestionTime", nanoseconds), file, version="2.6")
    port, page, page2 = free_ports(3)
    start = [str(next(spark.glob("lib/python*/site-packages/pyspark/bin/spark-class")))]
    master = f"spark://127.0.0.1:{port}"
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(tmp_path / "worker")}
    name = "org.apache.spark.deploy.master.Master"
    flags = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
    with Process("Spark's master", [*start, name, *flags], tmp_path / "master.log", env) as head:
        head.wait_ready(lambda: b"I have been elected leader" in head.log.read_bytes(), 120)
        name = "org.apache.spark.deploy.worker.Worker"
        flags = ["--host", "127.0.0.1", "--cores", "2", "--memory", "2g", "--webui-port", str(page2), master]
        with Process("Spark's worker", [*start, name, *flags], tmp_path / "worker.log", env) as worker:
            worker.wait_ready(lambda: b"Successfully registered" in worker.log.read_bytes(), 120)
            conf = {"spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "4"}
            extract_on_spark(world, tmp_path / "cluster", master=master, conf=conf)
            assert b"Registered app" in head.log.read_bytes()
    extract_features(world, tmp_path / "embedded")
    same(tmp_path / "embedded", tmp_path / "cluster")


@pytest.mark.slow
def test_a_killed_command_takes_spark_with_it_and_the_next_cleans_up(world: Path, spark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    env = {**os.environ, "TMPDIR": str(folder)}
    argv = [sys.executable, "-m", "batch", "extract", "--engine", "spark", "--data", str(world), "--out"]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        first = subprocess.Popen([*argv, str(tmp_path / "first")], env=env, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + 240
        while not list(folder.glob("jd-intent-spark-*/*libhybridse*")):
            assert first.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "Spark did not get so far as to unpack OpenMLDB's library"
            time.sleep(0.1)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = subprocess.run([*argv, str(tmp_path / "second")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == []
    assert pq.read_table(tmp_path / "second").num_columns == 42

"""Every command that writes a folder, in every way that could cost a user a file: what was there is there after it.

The commands run in process and on a small world; training and evaluation end where OneFlow is missing, which is their
failure half-way (their whole way: test_deepfm.py, test_demo.py).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
from fixtures.folders import contents
from fixtures.reports import write_sample_report
from fixtures.spark import fake_spark
from places import REPOSITORY
from typer.testing import CliRunner

import batch.cli.commands
from batch.backfill.archive import records_of_files
from batch.backfill.tables import backfill
from batch.dataset.folder_hash import digest
from batch.dataset.write import encode_later_requests, prepare_dataset
from batch.features.cluster import extract_on_cluster
from batch.features.extract import extract_features
from batch.features.spark import SparkFailed, extract_on_spark
from batch.match import Rule, match_day
from batch.report.comparison import compare_reports
from batch.report.probability_metrics import measure
from batch.train.checkpoint import ModelShape
from batch.train.evaluation import evaluate_checkpoint
from batch.train.export import export_artifact
from batch.train.options import TrainOptions
from batch.train.training import train_model
from batch.train.verdict import Evaluated, write_evaluated
from batch.train.vocabulary import Vocabulary
from batch.world.ad_clicks import generate_ad_clicks
from batch.world.generate import generate_world
from deploy import environments
from deploy.demo.run import demo
from deploy.demo.steps import DemoOptions
from deploy.process import ProcessFailed
from deploy.triton.server import Triton
from streaming.app.folder import load_app
from streaming.engine import BadRow, Engine
from streaming.errors import OutputRefused
from streaming.files import output_folder
from streaming.files.output_folder import MARKER, Say, mark
from streaming.shipped_files import SQL_FOLDER


@dataclass(frozen=True)
class Writer:
    """A command: what it makes, the inputs that it reads, and how it is run into a folder."""

    kind: str
    inputs: tuple[str, ...]
    run: Callable[[dict[str, Path], Path, Say | None], Any]
    refusal: type[Exception] = OutputRefused


class NoCluster:
    """Answers nothing: an extraction on it fails at its first statement."""

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        raise ConnectionError(sql)


def outfile(_: dict[str, Path], out: Path, __: Say | None) -> None:
    engine = Engine()
    engine.execute("CREATE DATABASE d; USE d; CREATE TABLE t(a string); INSERT INTO t VALUES ('x');")
    engine.execute(f"SELECT a FROM t INTO OUTFILE '{out}' OPTIONS(mode='overwrite');")


def run_demo(paths: dict[str, Path], out: Path, force: Say | None) -> None:
    import contextlib

    with contextlib.ExitStack() as stack:
        demo(DemoOptions("sql/jd", paths["data"], 1, 1, False, out, force is not None, "", ""), stack)


OPTIONS = TrainOptions()


def run_backfill(paths: dict[str, Path], out: Path, force: Say | None) -> None:
    app = load_app(paths["app"])
    records = records_of_files(app.streams[0], [paths["archive"]])
    backfill(app, {"ad_clicks": records}, out, inputs=[paths["archive"]], force=force)


WRITERS = {
    "generate": Writer("world", (), lambda p, out, force: generate_world(out, 1, 1, 6, force=force)),
    "generate ad clicks": Writer("world", (), lambda p, out, force: generate_ad_clicks(out, 1, 1, 1, force=force)),
    "backfill": Writer("history", ("app", "archive"), run_backfill),
    "extract": Writer("features", ("data",), lambda p, out, force: extract_features(p["data"], out, force=force)),
    "extract on Spark": Writer(
        "features", ("data",), lambda p, out, force: extract_on_spark(p["data"], out, force=force)
    ),
    "extract on a cluster": Writer(
        "outfile",
        ("data",),
        lambda p, out, force: extract_on_cluster(NoCluster(), str(p["data"]), str(out), force=force),
    ),
    "prepare": Writer(
        "dataset",
        ("features", "data"),
        lambda p, out, force: prepare_dataset(p["features"], p["data"], out, force=force),
    ),
    "encode": Writer(
        "dataset",
        ("features", "data", "encoder"),
        lambda p, out, force: encode_later_requests(
            p["features"], p["data"], out, p["encoder"], since_ms=0, force=force
        ),
    ),
    "train": Writer(
        "checkpoint", ("dataset",), lambda p, out, force: train_model(p["dataset"], out, OPTIONS, force=force)
    ),
    "evaluate": Writer(
        "evaluation",
        ("dataset", "checkpoint"),
        lambda p, out, force: evaluate_checkpoint(p["dataset"], p["checkpoint"], out, force=force),
    ),
    "report": Writer(
        "comparison", ("one", "other"), lambda p, out, force: compare_reports(p["one"], p["other"], out, force=force)
    ),
    "match": Writer(
        "matches",
        ("features", "data", "one"),
        lambda p, out, force: match_day(
            load_app(SQL_FOLDER / "jd"), p["features"], p["data"], p["one"], out, date(2016, 2, 24), Rule(), force=force
        ),
    ),
    "export": Writer(
        "artifact",
        ("dataset", "checkpoint"),
        lambda p, out, force: export_artifact(p["dataset"], p["checkpoint"], out, force=force),
    ),
    "INTO OUTFILE": Writer("outfile", (), outfile, BadRow),
    "demo": Writer("demo", ("data",), run_demo),
    "Triton's backend": Writer(
        "backend", (), lambda p, out, force: Triton(p["sql"], out.parents[1])._prepare(), ProcessFailed
    ),
}
FORCELESS = {"INTO OUTFILE", "Triton's backend"}
every_writer = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Inputs of all commands; at the end they are as they were."""
    work = tmp_path_factory.mktemp("inputs")
    paths = {name: work / name for name in ("data", "features", "dataset", "checkpoint")}
    paths |= {"app": shutil.copytree(SQL_FOLDER / "talkingdata", work / "app"), "archive": work / "archive"}
    generate_ad_clicks(work / "clicks", 3, 1, 1)
    shutil.copytree(work / "clicks" / "events", paths["archive"])
    generate_world(paths["data"], 30, 5, 30)
    extract_features(paths["data"], paths["features"])
    prepared = prepare_dataset(paths["features"], paths["data"], paths["dataset"])
    paths |= {"encoder": paths["dataset"] / "encoder", "sql": SQL_FOLDER / "features.sql"}
    (paths["checkpoint"] / "model").mkdir(parents=True)
    (paths["checkpoint"] / "model" / "weights").write_text("1")
    labels = np.repeat([1.0, 0.0], 50)
    judged = measure(labels, np.where(np.arange(100) % 10 == 0, 0.5, 0.1 + 0.8 * labels), 0.1)
    write_evaluated(paths["checkpoint"], Evaluated(digest(paths["checkpoint"] / "model"), test=judged))
    hashes = {name: getattr(prepared, name) for name in ("data_sha256", "sql_sha256", "encoder_sha256")}
    shape = ModelShape(41, 42, 0.1, {}, prepared.table_size_array, **hashes)
    (paths["checkpoint"] / "config.json").write_bytes(msgspec.json.encode(shape))
    Vocabulary.fit(np.zeros((1, 41), np.int64), 1).save(paths["checkpoint"] / "vocabulary.npz")
    paths |= {name: write_sample_report(work / name, 1) for name in ("one", "other")}
    test = pq.read_table(paths["dataset"] / "test.parquet")
    predicted = {"part": ["test"] * len(test), "request_id": test["request_id"], "label": test["label"]}
    half = pa.array(np.full(len(test), 0.5), pa.float32())
    pq.write_table(pa.table(predicted | {"probability": half}), paths["one"] / "predictions.parquet")
    write_evaluated(paths["one"], Evaluated("sha256:w", test=judged))
    before = contents(work)
    yield paths
    assert contents(work) == before


@pytest.fixture(autouse=True)
def no_spark(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Spark that fails, which is the only one of these environments that is looked for."""
    made = tmp_path_factory.mktemp("environments")
    fake_spark(made, "exit 7")
    for name in ("scorer", "model"):
        (made / name).symlink_to(environments.folder() / name)
    monkeypatch.setenv("JD_ENVS", str(made))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "backends" / "python"  # where Triton's copy goes: it has no choice


def refused(name: str, paths: dict[str, Path], out: Path, why: str, force: Say | None = None) -> None:
    writer = WRITERS[name]
    with pytest.raises(writer.refusal, match=why) as error:
        writer.run(paths, out, force)
    assert str(out) in str(error.value)


def an_older_one(writer: Writer, out: Path) -> None:
    """A folder of that kind: with a name that each of them takes for its own."""
    out.mkdir(parents=True)
    (out / "older").write_text("older")
    mark(out, writer.kind, ("older",))


@every_writer
def test_foreign_files_stay(name: str, paths: dict[str, Path], out: Path, tmp_path: Path) -> None:
    an_older_one(WRITERS[name], out)
    (out / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    refused(name, paths, out, r"notes\.txt")
    mark(out, "environment")
    refused(name, paths, out, "was made by `make environments`")
    (out / MARKER).unlink()
    refused(name, paths, out, rf"holds notes\.txt and no {MARKER}")
    del before[f"backends/python/{MARKER}"]
    assert contents(tmp_path) == before


@every_writer
def test_a_file_is_no_folder(name: str, paths: dict[str, Path], out: Path, tmp_path: Path) -> None:
    out.parent.mkdir()
    out.write_text("mine")
    before = contents(tmp_path)
    for force in (None, print):
        refused(name, paths, out, "is a file, not a folder", force)
    assert contents(tmp_path) == before


@every_writer
def test_inputs_stay(
    name: str, paths: dict[str, Path], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is told: --force is about what lies in the output."""
    writer = WRITERS[name]
    inputs = {given: shutil.copytree(paths[given], out / "older" / given) for given in writer.inputs}
    out.mkdir(parents=True, exist_ok=True)
    mark(out, writer.kind, ("older",))
    before = contents(tmp_path)
    for force in (None, print):
        monkeypatch.chdir(tmp_path)
        for given, path in inputs.items():
            moved = paths | {given: path}
            way = tmp_path / "way"
            way.symlink_to(path)
            refused(name, moved, path, "is,? (?:an input|holds or lies)", force)
            refused(name, moved, way, "is an input", force)
            refused(name, moved, path / "new", "lies within an input", force)
            refused(name, moved, out, "holds an input|holds or lies within", force)
            way.unlink()
        monkeypatch.chdir(out)
        refused(name, paths, out, "is the working folder", force)
    assert contents(tmp_path) == before


@every_writer
def test_an_older_folder_survives_a_failure(
    name: str, paths: dict[str, Path], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last moment; Spark, OneFlow and the cluster are away before it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_folder, "put", full)
    an_older_one(WRITERS[name], out)
    before = contents(tmp_path)
    with pytest.raises((OSError, ImportError, SparkFailed)):
        WRITERS[name].run(paths, out, None)
    assert contents(tmp_path) == before
    shutil.rmtree(out)
    with pytest.raises((OSError, ImportError, SparkFailed)):
        WRITERS[name].run(paths, out, None)
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize(
    "name", ["generate", "backfill", "extract", "prepare", "encode", "report", "match", "export", "INTO OUTFILE"]
)
def test_older_ones_are_replaced_and_foreign_ones_when_told(
    name: str, paths: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    writer = WRITERS[name]
    an_older_one(writer, out)
    for _ in range(2):
        writer.run(paths, out, None)
    assert not (out / "older").exists()
    made = contents(out)
    if name in FORCELESS:
        return
    (out / "notes.txt").write_text("mine")
    told = list[str]()
    writer.run(paths, out, told.append)
    assert told == [f"--force removes 1 file (4 bytes) from {out}: notes.txt"]
    if name != "export":  # which adds a version each time
        assert {**contents(out), MARKER: b""} == {**made, MARKER: b""}  # it holds times
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_every_command_with_an_output_takes_part() -> None:
    commands = typer.main.get_command(batch.cli.commands.app).commands  # type: ignore[attr-defined]
    writing = {name for name, command in commands.items() if any("--out" in p.opts for p in command.params)}
    assert (
        writing
        == {"generate", "backfill", "extract", "prepare", "encode", "train", "evaluate", "report", "match", "export"}
        <= WRITERS.keys()
    )
    assert all(any("--force" in p.opts for p in commands[name].params) for name in writing)


def test_a_refusal_ends_with_status_2_and_force_is_told_before(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    words = ["generate", "--users", "1", "--days", "6", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["jd-intent-batch", *words])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the command's own process sets it
    with pytest.raises(SystemExit) as end:
        batch.cli.commands.main()
    assert end.value.code == 2
    assert f": {tmp_path} holds notes.txt and no {MARKER}" in "".join(capsys.readouterr())
    done = CliRunner().invoke(batch.cli.commands.app, [*words, "--force"])
    assert done.exit_code == 0
    assert done.output.startswith(f"--force removes 1 file (4 bytes) from {tmp_path}: notes.txt\n")
    assert not (tmp_path / "notes.txt").exists()
    words = ["evaluate", "--dataset", str(tmp_path), "--checkpoint", str(tmp_path), "--force"]
    assert CliRunner().invoke(batch.cli.commands.app, words).exit_code == 2


def test_a_command_that_is_stopped_leaves_nothing_and_what_a_killed_one_left_goes_with_the_next(tmp_path: Path) -> None:
    for number, status, left in ((signal.SIGTERM, 143, 0), (signal.SIGKILL, -9, 1)):
        argv = [sys.executable, "-m", "batch", "generate", "--users", "1000000", "--out", str(tmp_path / "out")]
        with subprocess.Popen(argv, cwd=REPOSITORY) as running:
            while not list(tmp_path.glob(f".out{MARKER}.work-*/lock")):
                assert running.poll() is None
                time.sleep(0.01)
            running.send_signal(number)
            assert running.wait(30) == status
        assert len(list(tmp_path.iterdir())) == left
    generate_world(tmp_path / "out", 1, 1, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_metrics_come_to_a_checkpoint_and_to_no_other_folder(paths: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = shutil.copytree(paths["checkpoint"], tmp_path / "checkpoint")
    before = contents(tmp_path)
    with pytest.raises(OutputRefused, match=f"holds config.json and no {MARKER}"):
        evaluate_checkpoint(paths["dataset"], checkpoint)
    mark(checkpoint, "checkpoint")
    with pytest.raises(ImportError):  # OneFlow: what is in a checkpoint stays
        evaluate_checkpoint(paths["dataset"], checkpoint)
    (checkpoint / MARKER).unlink()
    assert contents(tmp_path) == before


def test_parts_of_jd_envs_that_nobody_here_made_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JD_ENVS", str(tmp_path))
    monkeypatch.setattr(environments, "_maven", lambda: "/bin/false")
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(SystemExit, match=r"kafka holds notes\.txt and no .* with JD_ENVS"):
        environments._make_kafka()
    assert contents(tmp_path) == before
    (tmp_path / "kafka.stamp").write_text("of an older release")
    with pytest.raises(SystemExit, match="fetching Kafka's jars failed"):
        environments._make_kafka()
    assert contents(tmp_path).keys() == {"kafka/", f"kafka/{MARKER}"}

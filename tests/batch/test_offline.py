"""Offline steps on a cluster: jobs followed to their end; the tutorial's scripts over HTTP against the stand-in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.apiserver import ApiServer
from fixtures.applications import make
from typer.testing import CliRunner

from batch.cli.commands import app
from batch.features import cluster_jobs
from batch.features.cluster import extract_on_cluster
from batch.features.cluster_jobs import JobFailed
from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.config import Rest, Store
from streaming.errors import BadInput, ConfigError, OutputRefused, StoreUnavailable
from streaming.files.output_folder import made
from streaming.shipped_files import SQL_FOLDER
from streaming.store.openmldb.rest import RestTransport

# A row of SHOW JOB, as recorded (SHOW JOBS has these 14 columns) and as OpenMLDB's documentation shows a TaskManager's.
ROW = (
    7,
    "ImportOfflineData",
    "Submitted",
    1685447653000,
    None,
    "/tmp/sql-1",
    "local[*]",
    "",
    "",
    None,
    None,
    None,
    None,
    "TaskManager",
)
LOAD = "LOAD DATA INFILE '/d/t/*.parquet' INTO TABLE t OPTIONS(format='parquet', mode='overwrite')"


def row(state: str, error: str = "") -> tuple[Any, ...]:
    return (*ROW[:2], state, *ROW[3:8], error, *ROW[9:])


class TaskManager:
    """A cluster whose one job goes through the given states; an exception among them is raised once.

    Args:
        hands_on: whether the client gives the job's row when it was submitted.
    """

    def __init__(self, *states: str | Exception, log: str = "", hands_on: bool = True, error: str = "") -> None:
        self.states, self.log, self.hands_on, self.error = list(states), log, hands_on, error
        self.statements: list[str] = []
        self.submitted = False

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        self.statements.append(sql)
        if sql == "SHOW JOBS":
            return [row("Submitted")] if self.submitted else []
        if sql == "SHOW JOB 7":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if isinstance(state, Exception):
                raise state
            return [row(state, self.error if state.upper() == "FAILED" else "")]
        if sql == "SHOW JOBLOG 7":
            return [(self.log,)]
        self.submitted = True
        return [row("Submitted")] if self.hands_on else []


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.sleeps = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def follow(cluster: TaskManager, timeout_s: float = 3600.0) -> tuple[cluster_jobs.ClusterJob, list[str], Clock]:
    said, clock = list[str](), Clock()
    return cluster_jobs.run_job(cluster, LOAD, timeout_s, said.append, sleep=clock.sleep, clock=clock), said, clock


@pytest.mark.parametrize("hands_on", [True, False])
def test_a_job_is_followed_until_it_has_finished(hands_on: bool) -> None:
    cluster = TaskManager("Submitted", *["Running"] * 9, "FINISHED", hands_on=hands_on)
    job, said, clock = follow(cluster)
    assert (job.id, job.state) == (7, "FINISHED")
    assert cluster.statements[1] == LOAD
    assert said[0] == "job 7 ImportOfflineData: Submitted"
    assert said[1].startswith("job 7 ImportOfflineData: Running, ")
    assert len(said) > 3, "a job that goes on is said to go on"
    assert said[-1].startswith("job 7 ImportOfflineData: FINISHED, ")
    assert clock.sleeps == sorted(clock.sleeps)
    assert max(clock.sleeps) == cluster_jobs.POLL_S_MAX


@pytest.mark.parametrize("state", ["FAILED", "Killed", "LOST"])
def test_a_job_that_fails_shows_why_and_its_log(state: str) -> None:
    log = "\n".join(f"line {number}" for number in range(500)) + "\nCaused by: no such file"
    with pytest.raises(JobFailed) as error:
        follow(TaskManager("Running", state, log=log, error="exit code 1"))
    text = str(error.value)
    assert text.startswith(f"job 7 ImportOfflineData: {state}")
    assert ("exit code 1" in text) == (state == "FAILED")
    assert text.endswith("Caused by: no such file")
    assert "line 100\n" not in text
    assert "461 lines before, see SHOW JOBLOG 7" in text


def test_a_taskmanager_that_is_away_for_a_while_is_asked_again() -> None:
    lost = [StoreUnavailable("[1501] Fail to get TaskManager client")] * cluster_jobs.POLLS_LOST_MAX
    job, _, _ = follow(TaskManager("Running", *lost, "FINISHED"))
    assert job.state == "FINISHED"
    with pytest.raises(StoreUnavailable, match=r"job 7 was last Running; now SHOW JOB fails: \[1501\]"):
        follow(TaskManager("Running", *lost, lost[0], "FINISHED"))


def test_a_job_that_takes_too_long_goes_on_and_is_named() -> None:
    with pytest.raises(StoreUnavailable, match=r"job 7 is still Running after 60 s .* STOP JOB 7"):
        follow(TaskManager("Running"), timeout_s=60)


def test_a_statement_that_starts_no_job_is_refused() -> None:
    class Silent(TaskManager):
        def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
            return []

    with pytest.raises(StoreUnavailable, match="0 new jobs in SHOW JOBS after: LOAD DATA"):
        follow(Silent("Running"))


# ---- the whole way, over HTTP


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "data"
    generate_world(folder, 60, 3, 70)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    files = str(tmp_path_factory.getbasetemp())
    with ApiServer(tmp_path_factory.mktemp("offline"), "--empty", "--files", files) as server:
        yield server


@pytest.fixture
def config(cluster: ApiServer, tmp_path: Path) -> Path:
    file = tmp_path / "scorer.toml"
    file.write_text(f'[store]\nkind = "openmldb-rest"\n[store.rest]\nurl = "{cluster.url}"\n')
    return file


def command(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def test_features_of_the_cluster_are_those_of_the_embedded_engine(world: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    text = command("extract", "--engine", "openmldb", "--config", str(config), "--data", str(world), "--out", str(out))
    extract_features(world, tmp_path / "embedded")
    found, expected = pq.read_table(out), pq.read_table(tmp_path / "embedded")
    assert found.num_rows > 500
    assert found.equals(expected)
    assert f"{found.num_rows:,} requests x 42 columns" in text.replace("\n", " ")
    assert re.search(r"6 jobs, [0-9.]+ s$", text.strip())
    assert "action: not loaded, the data has none" in text
    assert "LOAD DATA: flattenRequest" in text
    assert re.search(r"job \d+ ImportOfflineData: FINISHED, \d+ s", text)
    assert re.search(r"job \d+ ExportOfflineData: FINISHED, \d+ s", text)


def test_a_cluster_replaces_what_it_wrote_and_nothing_else(world: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    words = ["extract", "--engine", "openmldb", "--config", str(config), "--data", str(world), "--out", str(out)]
    first, second = command(*words), command(*words)
    assert first.splitlines()[-1].partition(":")[0] == second.splitlines()[-1].partition(":")[0]
    (out / "notes.txt").write_text("mine")
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, OutputRefused)
    assert f"{out} holds notes.txt" in str(done.exception)
    assert sorted(path.name for path in out.iterdir()) == [".jd-intent", "notes.txt", "part-00000.parquet"]


@pytest.mark.parametrize(
    "out",
    [
        "hdfs://host/features",
        "hdfs:///features",
        "file:///nowhere/features",
        "file:/nowhere/features",
        "/nowhere/out",
        "file://other/features",
        "S3A://bucket/features",
    ],
)
def test_where_the_output_is_not_seen_the_cluster_is_told_to_replace_nothing(out: str) -> None:
    cluster = TaskManager("FINISHED")
    done = extract_on_cluster(cluster, "/nowhere/data", out, sleep=Clock().sleep)
    (written,) = [sql for sql in cluster.statements if "OUTFILE" in sql]
    assert written.endswith(f"INTO OUTFILE '{out}' OPTIONS(format='parquet', mode='error_if_exists')")
    assert (done.jobs, done.features) == (7, None)
    cluster = TaskManager("FINISHED")
    with pytest.raises(OutputRefused, match="is not seen from here: --force cannot say"):
        extract_on_cluster(cluster, "/nowhere/data", out, force=print)
    assert cluster.statements == []


def test_the_scripts_go_to_the_cluster_with_its_paths(tmp_path: Path) -> None:
    bank = load_app(make(tmp_path / "bank"))
    cluster = TaskManager("FINISHED")
    done = extract_on_cluster(cluster, "hdfs://nn/data/", "hdfs://nn/out/", bank, sleep=Clock().sleep)
    loads = [sql for sql in cluster.statements if "INFILE" in sql]
    assert [sql.split()[3] for sql in loads] == [
        "'hdfs://nn/data/payments/*.parquet'",
        "'hdfs://nn/data/cards/*.parquet'",
    ]
    (select,) = [sql for sql in cluster.statements if "OUTFILE" in sql]
    assert select.startswith("SELECT id, amount")
    assert select.endswith("INTO OUTFILE 'hdfs://nn/out' OPTIONS(format='parquet', mode='error_if_exists')")
    assert done.jobs == 3


def test_tables_that_the_data_lacks_are_named_and_may_be_absent_only() -> None:
    cluster = TaskManager("FINISHED")
    done = extract_on_cluster(cluster, "/nowhere/data", "/nowhere/out", without=["action"], sleep=Clock().sleep)
    assert done.jobs == 6
    for table, why in (("bo_user", "the features are made of it"), ("b", "no such table")):
        with pytest.raises(BadInput, match=f"--without {table}: .*{why}"):
            extract_on_cluster(TaskManager("FINISHED"), "/nowhere/data", "/nowhere/out", without=[table])


class Writing(TaskManager):
    """Runs `then` when a statement with `word` comes."""

    def __init__(self, word: str, then: Callable[[], object]) -> None:
        super().__init__("FINISHED")
        self.word, self.then = word, then

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        if self.word in sql:
            self.then()
        return super().execute(sql, timeout_s)


def test_what_came_while_jobs_ran_is_neither_overwritten_nor_taken_for_the_clusters(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    cluster = Writing("INFILE", lambda: (out / "mine.txt").write_text("mine"))
    with pytest.raises(OutputRefused, match=r"holds mine\.txt"):
        extract_on_cluster(cluster, "/nowhere/data", f"file:{out}", force=print, sleep=Clock().sleep)
    assert [sql for sql in cluster.statements if "OUTFILE" in sql] == []
    (out / "mine.txt").unlink()

    def written() -> None:
        for name in ("part-0.parquet", ".part-0.parquet.crc"):
            pq.write_table(pa.table({"a": [1]}), out / name)
        (out / "_SUCCESS").touch()
        (out / "later.txt").write_text("mine")

    cluster = Writing("OUTFILE", written)
    done = extract_on_cluster(cluster, "/nowhere/data", f"file://localhost{out}", sleep=Clock().sleep)
    assert done.features == 1
    assert sum("mode='overwrite'" in sql for sql in cluster.statements if "OUTFILE" in sql) == 1
    assert made(out) == [".part-0.parquet.crc", "_SUCCESS", "part-0.parquet"]
    with pytest.raises(OutputRefused, match=r"holds later\.txt"):
        extract_on_cluster(TaskManager("FINISHED"), "/nowhere/data", str(out))


@pytest.mark.parametrize("out", ["out", "file:out", "//host/out", "hdfs:out", ""])
def test_a_path_that_the_cluster_takes_for_another_is_refused(out: str) -> None:
    with pytest.raises(BadInput):
        extract_on_cluster(TaskManager("FINISHED"), "/nowhere/data", out)


@pytest.mark.parametrize(
    ("data", "out"),
    [
        ("hdfs://host/data", "hdfs://host/data/features"),
        ("hdfs://host/data/jd", "hdfs://host/data/"),
        ("/nowhere/data", "file:///nowhere/./data"),
        ("file:/nowhere/data", "/nowhere/data"),
        ("FILE://localhost/nowhere/data", "/nowhere//data/x"),
        ("hdfs://nn/data", "hdfs://nn:8020/data"),
        ("hdfs:///data", "hdfs://nn/data/x"),
        ("hdfs://nn/data/../a", "HDFS://nn/a"),
        ("/nowhere/data", "hdfs://nn/"),
    ],
)
def test_inputs_that_are_not_seen_are_not_written_either(data: str, out: str) -> None:
    cluster = TaskManager("FINISHED")
    with pytest.raises(OutputRefused, match="is, holds or lies within an input"):
        extract_on_cluster(cluster, data, out, force=print)
    assert cluster.statements == []


def test_the_online_load_refuses_to_double_rows(world: Path, config: Path, cluster: ApiServer) -> None:
    words = ("load-online", "--config", str(config), "--data", str(world))
    for table in ("action", "flattenRequest", "bo_user", "bo_action", "bo_product", "bo_comment"):
        cluster.sql("JD_db", f"DROP TABLE {table}")
    script = (SQL_FOLDER / "jd" / "tables.sql").read_text()
    for statement in re.findall(r"CREATE [^;]*", script):
        cluster.run("JD_db", statement)
    rows = pq.read_table(world / "bo_action").num_rows
    assert f"bo_action {rows:,}" in command(*words).replace("\n", " ")
    done = CliRunner().invoke(app, list(words))
    assert isinstance(done.exception, BadData)
    assert f"bo_action {rows:,}" in str(done.exception)
    assert f"bo_action {2 * rows:,}" in command(*words, "--append").replace("\n", " ")


def test_a_wrong_file_fails_its_job_and_is_named(cluster: ApiServer, world: Path, tmp_path: Path) -> None:
    settings = Store(kind="openmldb-rest", rest=Rest(url=cluster.url))
    nowhere = str(tmp_path / "nowhere")
    with RestTransport(settings.rest, "JD_db", "demo") as transport:
        why = r"ImportOfflineData: FAILED (.|\n)*/nowhere/%s/\*\.parquet: no such file"
        with pytest.raises(JobFailed, match=why % "action"):
            extract_on_cluster(transport, nowhere, str(tmp_path / "out"))
        with pytest.raises(JobFailed, match=why % "flattenRequest_clean"):
            extract_on_cluster(transport, nowhere, str(tmp_path / "out"), without=["action"])
        with pytest.raises(BadInput, match="a quote, a backslash"):
            extract_on_cluster(transport, "/it's", str(tmp_path / "out"))
        (tmp_path / "half").mkdir()
        with pytest.raises(BadData, match="there is no such folder"):
            extract_on_cluster(transport, str(tmp_path / "half"), str(tmp_path / "out"))


def test_the_embedded_store_has_no_jobs() -> None:
    done = CliRunner().invoke(app, ["load-online", "--data", "/d"])
    assert isinstance(done.exception, ConfigError)


@pytest.mark.parametrize(
    ("statements", "mode"),
    [
        ((), "online"),
        (("SET @@execute_mode='offline';",), "offasync"),
        (("SET @@execute_mode='offline'", "set @@sync_job=true"), "offsync"),
        (("SET @@sync_job = true", "SET @@execute_mode = 'online'"), "onsync"),
    ],
)
def test_session_variables_go_with_each_call(statements: tuple[str, ...], mode: str) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.read().decode())
        return httpx.Response(200, json={"code": 0, "msg": "ok"})

    with RestTransport(Rest(), "JD_db", "demo", transport=httpx.MockTransport(handle)) as transport:
        for statement in statements:
            transport.execute(statement)
        transport.execute("SHOW JOBS")
    assert [f'"mode": "{mode}"' in text for text in seen] == [True]

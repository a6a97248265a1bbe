"""`deploy` and `load` on a cluster: what is made, found, refused and replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.applications import make
from fixtures.jd import jd
from fixtures.scorer import START_MS, Stage
from places import SQL
from rigs.fake_openmldb import Cluster, running_cluster

from deploy.demo.cluster import DemoCluster
from streaming.app.configured import configured_app
from streaming.app.folder import FILES, App, load_app
from streaming.app.scripts import deploy_script, extract_script, load_script
from streaming.app.wrong import WrongApp
from streaming.cli import load_history
from streaming.cli.deploy_sql import DEPLOY_TRIES, DEPLOY_WAIT_S, Scripts, deploy
from streaming.config import load
from streaming.engine import UnsupportedSQL
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.store.openmldb.sdk import Client, connect_options
from streaming.store.sql_scripts import statement_texts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests."""
    with running_cluster(tmp_path_factory.mktemp("openmldb")) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: Cluster) -> Cluster:
    """Without any database."""
    made.wipe()
    return made


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A fresh one: a session in which somebody has said USE before hides what a connection needs."""
    with new_client() as made:
        yield made


def new_client() -> Client:
    options = connect_options(Stage.store_settings(), "JD_db", "rigs.fake_openmldb:cluster_sdk")
    return Client(options, "demo")


def scripts(app: App | None = None, **biases: str) -> Scripts:
    return Scripts.made(app or jd(), **biases)


def changed(folder: Path, **changes: tuple[str, str]) -> App:
    """The tutorial's application with one text of a file (`tables`, `features`, …) replaced by another."""
    for name in FILES:
        text = (SQL / "jd" / name).read_text()
        old, new = changes.get(name.partition(".")[0], ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    return load_app(folder)


def test_everything_is_made_once_and_found_again(client: Client, cluster: Cluster) -> None:
    said: list[str] = []
    deploy(client, scripts(), say=said.append)
    assert cluster.databases == ["JD_db"]
    assert {table for _, table in cluster.tables} == {
        "action",
        "flattenRequest",
        "bo_user",
        "bo_action",
        "bo_product",
        "bo_comment",
    }
    assert list(cluster.deployments) == [("JD_db", "demo")]
    assert said[:1] == ["database JD_db: made"]
    assert "table bo_action: made" in said
    assert "deployment demo: made" in said
    assert "# Output Schema" in said[-1]  # SHOW DEPLOYMENT
    before = dict(cluster.deployments)
    said.clear()
    deploy(client, scripts(), say=said.append)
    assert [line for line in said if "made" in line or "dropped" in line] == []
    assert "deployment demo: is there" in said
    assert cluster.deployments == before


def test_a_fresh_client_finds_the_deployment_and_says_use_itself(client: Client, cluster: Cluster) -> None:
    with new_client() as other:
        deploy(other, scripts())
        other.execute("CREATE DATABASE t1")
    for statement in ("SHOW DEPLOYMENTS", "SHOW DEPLOYMENTS FROM JD_db", "SHOW TABLES"):
        with pytest.raises(StoreUnavailable, match=r"\[2000\] please enter database first"):
            client.execute(statement)
    with pytest.raises(StoreUnavailable, match=r"\[2000\] *$"):
        client.execute("SHOW CREATE TABLE bo_user")
    assert len(client.schemas()[1]) == 42
    client.execute("USE t1")
    assert client.execute("SHOW DEPLOYMENTS FROM JD_db") == [], "FROM is not looked at"
    assert len(client.schemas()[1]) == 42, "whatever was in use before"


def test_a_client_made_anew_uses_the_same_database(client: Client, cluster: Cluster) -> None:
    deploy(client, scripts())
    assert client.pid is not None
    os.kill(client.pid, 9)
    with pytest.raises(StoreUnavailable, match="died"):
        client.execute("SHOW TABLES")
    assert client.execute("SHOW DEPLOYMENTS") == [("JD_db", "demo")]


def test_another_deployment_is_refused_and_replaced_when_told(client: Client, cluster: Cluster, tmp_path: Path) -> None:
    deploy(client, scripts())
    other = scripts(changed(tmp_path, features=("MAXSIZE 200", "MAXSIZE 20")))
    with pytest.raises(
        ArtifactMismatch, match=r"deployment demo: … .* maxsize 200 .* instead of .* maxsize 20 .*--replace"
    ):
        deploy(client, other)
    assert "MAXSIZE 200" in cluster.deployments["JD_db", "demo"]
    said: list[str] = []
    deploy(client, other, replace=True, say=said.append)
    assert "MAXSIZE 20)" in cluster.deployments["JD_db", "demo"]
    assert "deployment demo: dropped" in said
    assert not any(re.fullmatch(r"table .*dropped.*", line) for line in said)


def test_a_table_with_other_columns_is_refused_and_its_rows_go_only_when_told(
    client: Client, cluster: Cluster, tmp_path: Path
) -> None:
    deploy(client, scripts())
    row = pa.table(
        {
            "ingestionTime": pa.array([5], pa.timestamp("ms")),
            "user_id": ["u"],
            "age": ["岁"],
            "sex": ["1"],
            "user_lv_cd": ["2"],
            "user_reg_tm": [7],
        }
    )
    client.insert("bo_user", row)
    other = scripts(changed(tmp_path, tables=("user_reg_tm bigint", "user_reg_tm bigint, vip bool")))
    with pytest.raises(ArtifactMismatch, match=r"table bo_user: vip is missing\. .*drops the rows of these tables"):
        deploy(client, other)
    assert cluster.rows("bo_user") == 1
    said: list[str] = []
    deploy(client, other, replace=True, say=said.append)
    assert cluster.rows("bo_user") == 0
    assert {"deployment demo: dropped", "table bo_user: dropped, with its rows", "table bo_action: is there"} <= set(
        said
    )
    assert cluster.engine.table_schema("JD_db.bo_user").names[-1] == "vip"


def test_a_deployment_over_filled_tables_waits_until_their_rows_are_counted(client: Client, cluster: Cluster) -> None:
    deploy(client, scripts())
    client.execute("USE JD_db")
    client.execute("DROP DEPLOYMENT demo")
    time = pa.array([5], pa.timestamp("ms"))
    row = pa.table({"reqId": ["r"], "eventTime": time, "ingestionTime": time, "actionValue": pa.array([1], pa.int32())})
    client.insert("action", row)
    slept: list[float] = []
    deploy(client, scripts(), sleep=slept.append)
    assert slept == [5.0]


def test_a_deploy_whose_indexes_no_tablet_has_seen_yet_is_tried_again(client: Client, cluster: Cluster) -> None:
    cluster.faults.unseen_indexes = 3
    slept: list[float] = []
    deploy(client, scripts(), sleep=slept.append)
    assert list(cluster.deployments) == [("JD_db", "demo")]
    assert slept == [DEPLOY_WAIT_S] * 3
    client.execute("DROP DEPLOYMENT demo")
    cluster.faults.unseen_indexes = DEPLOY_TRIES
    with pytest.raises(StoreUnavailable, match="Isn't partition provider"):
        deploy(client, scripts(), sleep=slept.append)
    assert len(slept) == 3 + DEPLOY_TRIES - 1


def test_biases_stand_for_those_of_the_script(client: Client, cluster: Cluster) -> None:
    deploy(client, scripts(range_bias="7d"))
    assert "OPTIONS(RANGE_BIAS=7d, ROWS_BIAS='inf')" in cluster.deployments["JD_db", "demo"]
    with pytest.raises(ArtifactMismatch, match="RANGE_BIAS is 7d, not inf"):
        deploy(client, scripts())
    for rows_bias in ("many", "7d"):
        with pytest.raises(ConfigError, match="a bias is 'inf' or a number"):
            scripts(rows_bias=rows_bias)


def test_an_application_goes_to_the_database_and_by_the_name_that_are_configured(
    client: Client, cluster: Cluster
) -> None:
    said: list[str] = []
    deploy(client, scripts(jd().deployed_as("elsewhere", "other")), say=said.append)
    assert cluster.databases == ["elsewhere"]
    assert {database for database, _ in cluster.tables} == {"elsewhere"}
    assert list(cluster.deployments) == [("elsewhere", "other")]
    assert said[0] == "database elsewhere: made"
    assert "deployment other: made" in said


def test_an_application_that_no_cluster_takes_is_refused(tmp_path: Path) -> None:
    app = load_app(make(tmp_path / "app"))
    with pytest.raises(ConfigError, match=r"tables\.sql: no CREATE DATABASE and USE: set store\.database"):
        scripts(app)
    assert scripts(app.deployed_as("bank")).database == "bank"
    embedded = make(
        tmp_path / "embedded",
        features=(
            "LAST JOIN cards ORDER BY cards.since ON",
            "LAST JOIN (SELECT card, country, card + 1 AS n FROM cards) cards ON",
        ),
    )
    with pytest.raises(
        UnsupportedSQL, match=r"features\.sql: unsupported by OpenMLDB: a sub-query that computes"
    ) as told:
        scripts(load_app(embedded).deployed_as("bank"))
    assert "\n" not in str(told.value).splitlines()[0]


def test_an_error_in_a_query_has_the_place_in_its_file(tmp_path: Path) -> None:
    with pytest.raises(WrongApp, match=r"features\.sql:12:5: ") as told:
        changed(tmp_path, features=("distinct_count(`pair_id`)", "no_such(`pair_id`)"))
    assert "\n" not in str(told.value)
    (tmp_path / "tables.sql").unlink()
    with pytest.raises(WrongApp, match=r"tables\.sql"):
        load_app(tmp_path)


def test_a_script_is_cut_into_its_statements() -> None:
    script = "-- a; b\nUSE x; /* ; */ SELECT ';', \"a;\" -- end\n FROM t;\n\n; INSERT INTO t VALUES ('it\\'s;')"
    assert list(statement_texts(script)) == [
        "USE x",
        "SELECT ';', \"a;\" \n FROM t",
        "INSERT INTO t VALUES ('it\\'s;')",
    ]
    made = (deploy_script(jd()), extract_script(jd()), load_script(jd(), "online"), load_script(jd(), "offline"))
    for text in (*made, *(file.read_text() for file in (SQL / "jd").glob("*.sql") if file.name != "events.sql")):
        found = list(statement_texts(text))
        assert found
        assert all(";" not in re.sub(r"'[^']*'", "", s) and "--" not in s for s in found)


def test_the_demo_has_a_database_of_its_own_and_drops_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "deploy.demo.cluster.open_cluster",
        lambda settings, app: Client(connect_options(settings, app.tables.database, "rigs.fake_openmldb:cluster_sdk")),
    )
    demo = DemoCluster.prepared("zk:2181", "/openmldb", SQL / "jd")
    file = tmp_path / "scorer.toml"
    file.write_text(demo.table())
    config = load(file)
    settings = config.store
    assert (settings.kind, settings.database, settings.openmldb.zk) == ("openmldb", demo.database, "zk:2181")
    with Client(connect_options(settings, demo.database, "rigs.fake_openmldb:cluster_sdk"), "demo") as client:
        deploy(client, Scripts.made(configured_app(config)))
    cluster.execute("", "CREATE DATABASE other")
    assert (demo.database, "bo_action") in cluster.tables
    said: list[str] = []
    demo.drop(said.append)
    assert cluster.databases == ["other"]
    assert said == [f"database {demo.database} of zk:2181 is dropped"]
    demo.drop(said.append)
    assert len(said) == 1


def history_folder(folder: Path, users: list[dict[str, Any]]) -> Path:
    (folder / "bo_user").mkdir(parents=True)
    schema = pa.schema(
        [
            ("ingestionTime", pa.timestamp("us")),
            ("user_id", pa.string()),
            ("age", pa.string()),
            ("sex", pa.string()),
            ("user_lv_cd", pa.string()),
            ("user_reg_tm", pa.int64()),
        ]
    )
    rows = [{**user, "ingestionTime": user["ingestionTime"] * 1000} for user in users]
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "bo_user" / "0.parquet")
    return folder


def user(n: int, **changes: Any) -> dict[str, Any]:
    values = {
        "ingestionTime": START_MS + n,
        "user_id": str(n),
        "age": "26-35岁",
        "sex": None,
        "user_lv_cd": "",
        "user_reg_tm": n,
    }
    return {**values, **changes}


def test_history_is_inserted_once_and_counted(client: Client, cluster: Cluster, tmp_path: Path) -> None:
    deploy(client, scripts())
    folder = history_folder(tmp_path / "history", [*(user(n) for n in range(450)), user(3)])
    assert load_history.load(client, jd(), folder) == {"bo_user": (450, 450)}
    assert load_history.load(client, jd(), folder) == {"bo_user": (450, 450)}  # again, after an interruption
    assert cluster.rows("bo_user") == 450


def test_history_that_does_not_arrive_or_does_not_fit_is_told(
    client: Client, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(client, scripts())
    folder = history_folder(tmp_path / "history", [user(n) for n in range(5)])
    monkeypatch.setattr(Cluster, "rows", lambda *_: 3)
    with pytest.raises(StoreUnavailable, match="bo_user has 3 rows, of the 5 different ones"):
        load_history.load(client, jd(), folder)
    pq.write_table(pa.table({"user_id": ["x"]}), folder / "bo_user" / "1.parquet")
    with pytest.raises(ConfigError, match=r"1\.parquet: no column ingestionTime, age, .*; it has user_id"):
        load_history.load(client, jd(), folder)
    with pytest.raises(ConfigError, match="there is no such folder"):
        load_history.load(client, jd(), tmp_path / "none")

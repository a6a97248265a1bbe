"""`jd-intent-score doctor`: what is well, what is wrong and how to mend it; and that it changes nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from fixtures.jd import jd, jd_topics
from fixtures.scorer import Shop, Stage, running
from fixtures.secured import ANY, PASSWORD, Secured
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_INT32, TYPE_INT64, ModelConfig, ModelInput, ModelOutput
from typer.testing import CliRunner

from batch.world.tutorial_tables import TABLES
from streaming.app.configured import application
from streaming.app.topics import TopicNames
from streaming.cli.commands import app
from streaming.config import Config, Kafka
from streaming.doctor.command import check_all, check_file
from streaming.doctor.findings import Finding
from streaming.doctor.kafka import admin_of, check_clock, check_rights, check_transactional_id, judge_settings
from streaming.doctor.parts import check_folders, check_history, check_port, check_store, unfit
from streaming.errors import ConfigError
from streaming.kafka.rights import Right, of_run
from streaming.model.encoder import Encoder
from streaming.ops import log
from streaming.state.snapshot_folder import SnapshotFolder
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.columns import schema_of

EVERY_ACL = AclBindingFilter(
    ResourceType.ANY, ANY, ResourcePatternType.ANY, ANY, ANY, AclOperation.ANY, AclPermissionType.ANY
)


BO_USER = schema_of(list(TABLES["bo_user"].items())).empty_table()


def levels(found: list[Finding]) -> dict[str, set[str]]:
    """Level → what was looked at."""
    return {level: {one.about for one in found if one.level == level} for level in ("ok", "warning", "wrong")}


def rights_of(kafka: Kafka) -> list[Right]:
    topics = TopicNames.of(jd(), kafka.topics)
    told = [Right("DescribeConfigs", "topic", name) for name in (topics.scores, topics.dead_letters)]
    return [
        *of_run(kafka, topics),
        Right("Write", "transactional id", kafka.transactional_id_prefix, prefixed=True),
        *told,
    ]


@pytest.fixture
def well(secured: Secured, stage: Stage, tmp_path: Path) -> Config:
    """Everything is there, and a user who has the rights that are needed."""
    made = Stage(secured.broker.bootstrap, stage.artifact, stage.triton)
    made.create_topics(secured.broker)
    own = {key: made.values["kafka"][key] for key in ("group_id", "transactional_id_prefix", "topics", "instance_id")}
    user = secured.user(rights_of(Kafka(**own)))
    kafka = json.loads(secured.kafka("BOTH", user, **own).model_dump_json()) | {"sasl_password": PASSWORD}
    (tmp_path / "history" / "bo_user").mkdir(parents=True)
    pq.write_table(BO_USER, tmp_path / "history" / "bo_user" / "a.parquet")
    folders = {"history": str(tmp_path / "history")}
    return made.config(kafka=kafka, store=folders, snapshots={"folder": str(tmp_path / "state")})


def world(secured: Secured, config: Config, folder: Path) -> Any:
    """All that could have been changed: topics with their ends, groups, rights, files."""
    admin: Any = AdminClient({"bootstrap.servers": secured.broker.bootstrap})
    groups = admin.list_consumer_groups().result().valid
    topics = {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=10).topics.items()}
    settings = {name: {key: value for key, value in topics.items() if not key.startswith("__")} for name in ("topics",)}
    return settings, sorted(g.group_id for g in groups), sorted(map(str, folder.rglob("*")))


def test_all_is_well_and_nothing_is_changed(
    secured: Secured, well: Config, scorer_encoder: Encoder, shop: Shop, tmp_path: Path
) -> None:
    before = world(secured, well, tmp_path)
    found = list(check_all(well))
    told = levels(found)
    assert told["wrong"] == set(), [one.line() for one in found if one.level == "wrong"]
    names = application(well)[1].keys
    assert len(names) == 6
    assert told["ok"] >= {
        f"Kafka at {well.kafka.bootstrap_servers}",
        "rights",
        f"transactional id '{well.kafka.transactional_id_prefix}-one'",
        f"transactional id '{well.kafka.transactional_id_prefix}-one:2'",
        *(f"topic {name!r}" for name in names),
        "subscribers",
        "clock",
        "SQL",
        "SQL and model",
        "SQL and encoder",
        "encoder",
        "model 'embedding'",
        "history",
        "snapshots.folder",
        "http port 0",
    }
    assert world(secured, well, tmp_path) == before


def test_it_disturbs_no_scorer_that_runs(
    secured: Secured, well: Config, scorer_encoder: Encoder, shop: Shop, stage: Stage
) -> None:
    """Its question after the transactional id fences nobody: the scorer goes on with the one that it has."""
    running_stage = Stage(secured.broker.bootstrap, stage.artifact, stage.triton)
    running_stage.topics = dict(well.kafka.topics)
    first, second = shop.actions[:5], shop.actions[5:10]
    config = well.model_copy(update={"snapshots": well.snapshots.model_copy(update={"folder": ""})})
    with running(config, scorer_encoder):
        running_stage.send_shop(Shop(first, shop.users, shop.products, shop.comments))
        running_stage.collect(5)
        assert levels(list(check_all(config)))["wrong"] == set()
        running_stage.send_actions(second)
        assert running_stage.collect(10).doubled == []


def test_each_right_that_lacks_is_named_with_its_command(secured: Secured) -> None:
    kafka = secured.kafka("LOGIN")
    for lacking in rights_of(kafka):
        user = secured.user([right for right in rights_of(kafka) if right != lacking])
        config = Config(kafka=secured.kafka("LOGIN", user, instance_id="one"))
        admin = admin_of(config)
        topics = jd_topics()
        found = [*check_rights(config, topics, admin), *check_transactional_id(config, topics, admin)]
        lines = [one for one in found if one.level != "ok"]
        assert len(lines) == 1, lines
        line = lines[0]
        assert line.level == ("warning" if lacking.operation == "DescribeConfigs" else "wrong")
        assert f"principal {user!r} may not {lacking.operation}" in line.text
        assert f"--add --allow-principal 'User:{user}' --operation {lacking.operation} --" in line.fix
        assert f"'{lacking.name}'" in line.fix


def test_all_checks_run_whatever_is_wrong(secured: Secured, tmp_path: Path) -> None:
    """Nothing is there; and the reason of each is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(
            kafka=secured.kafka("LOGIN", sasl_password="wrong"),
            app=str(tmp_path / "app"),
            store={"history": str(tmp_path / "history")},
            model={"url": "127.0.0.1:1", "artifact": str(tmp_path / "artifact")},
            snapshots={"folder": str(tmp_path / "file" / "state")},
            http={"port": taken.getsockname()[1]},
        )
        (tmp_path / "file").write_text("no folder")
        found = list(check_all(config))
    told = levels(found)
    assert told["ok"] == set()
    assert told["wrong"] == {
        f"Kafka at {config.kafka.bootstrap_servers}",
        "application",
        "encoder",
        "model 'embedding'",
        "snapshots.folder",
    }
    assert told["warning"] == {f"http port {config.http.port}"}
    assert [one for one in found if one.level == "wrong" and not one.fix] == []
    assert [one for one in found if "\n" in one.line()] == []
    text = " ".join(one.line() for one in found)
    assert "SASL authentication error" in text
    assert "Connection refused" in text
    assert f"{tmp_path / 'file'} is not a folder" in text


@pytest.mark.parametrize("table", ["common", "consumer", "producer"])
def test_a_setting_that_librdkafka_does_not_know_is_named(table: str) -> None:
    kafka = Kafka(bootstrap_servers="127.0.0.1:1", librdkafka={table: {"no.such.key": 1}})
    found = check_all(Config(kafka=kafka))
    assert (next(found).about, (line := next(found)).level) == ("application", "wrong")
    assert "no.such.key" in line.text


def test_the_application_s_own_checks_run_where_it_is_one(tmp_path: Path) -> None:
    config = Config(
        kafka={"bootstrap_servers": "127.0.0.1:1"},
        store={"history": str(tmp_path / "history")},
        model={"url": "127.0.0.1:1", "artifact": str(tmp_path / "artifact")},
    )
    found = {one.about: one for one in check_all(config) if one.level == "wrong"}
    assert {"SQL", "SQL and model", "history"} <= found.keys()
    assert "application" not in found
    assert all(one.fix for one in found.values())


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"kafka": {"topics": {"clicks": "x"}}}, "kafka.topics.clicks: application jd has actions, users"),
        ({"kafka": {"topics": {"users": "user-actions"}}}, "kafka.topics.users: topic 'user-actions' is "),
        ({"app": "nowhere"}, "nowhere: there is no such folder"),
    ],
)
def test_an_application_that_does_not_fit_is_one_finding(tables: dict[str, Any], words: str) -> None:
    kafka = {"bootstrap_servers": "127.0.0.1:1", **tables.pop("kafka", {})}
    (line,) = [one for one in check_all(Config(kafka=kafka, **tables)) if one.about == "application"]
    assert line.level == "wrong"
    assert words in line.text
    assert line.fix


def test_topics_that_are_missing_are_no_right_that_lacks(secured: Secured) -> None:
    config = Config(kafka=secured.kafka("PLAIN", topics={"scores": "nowhere"}))
    found = list(check_all(config))
    (line,) = [one for one in found if one.about == "topic 'nowhere'"]
    assert (line.level, line.text) == ("wrong", "kafka.topics.scores: it does not exist")
    assert line.fix.endswith("--create --topic nowhere")
    assert not [one for one in found if one.about == "rights" and one.level == "wrong"]


DAY = 86_400_000
HISTORY = {"history": "h"}
WELL: dict[str, dict[str, str]] = {
    "user-actions": {"retention.ms": "-1", "max.message.bytes": "1000"},
    "users": {"retention.ms": "-1"},
    "purchase-scores": {"min.insync.replicas": "2"},
    "user-actions.dlq": {"retention.ms": "-1", "max.message.bytes": "2000"},
}
SETTINGS: list[tuple[str, dict[str, str], dict[str, Any], str, str]] = [
    # topic, changed settings, changed configuration, level, words
    ("users", {"cleanup.policy": "compact"}, {}, "wrong", "it is compacted"),
    ("user-actions", {"cleanup.policy": "compact,delete"}, {}, "wrong", "it is compacted"),
    ("user-actions.dlq", {"cleanup.policy": "compact"}, {}, "wrong", "it is compacted"),
    ("purchase-scores", {"min.insync.replicas": "1"}, {}, "warning", "min.insync.replicas is 1"),
    ("user-actions", {"retention.ms": str(7 * DAY)}, {}, "warning", "keeps 7.0 days"),
    ("user-actions", {"retention.ms": str(7 * DAY)}, {"store": HISTORY}, "", ""),
    ("user-actions", {"retention.ms": str(7 * DAY)}, {"snapshots": {"folder": "s"}}, "", ""),
    ("users", {"retention.bytes": "5"}, {}, "warning", "keeps retention.bytes"),
    (
        "user-actions",
        {"retention.ms": "1000"},
        {"store": {"history": "h"}, "dedup": {"horizon_s": 5}},
        "wrong",
        "horizon_s",
    ),
    ("user-actions.dlq", {"max.message.bytes": "1000"}, {}, "warning", "larger letters are cut"),
    ("user-actions.dlq", {"retention.ms": str(3 * DAY)}, {}, "warning", "keeps 3.0 days, less than an input topic"),
    ("purchase-scores", {"retention.ms": "5"}, {}, "", ""),
]


@pytest.mark.parametrize("case", SETTINGS, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def test_settings_of_topics_are_judged(case: tuple[str, dict[str, str], dict[str, Any], str, str]) -> None:
    topic, changes, tables, level, words = case
    assert list(judge_settings(Config(), jd_topics(), WELL)) == []
    settings: Mapping[str, Mapping[str, str]] = {**WELL, topic: {**WELL[topic], **changes}}
    found = list(judge_settings(Config(**tables), jd_topics(), settings))
    assert all(one.about == f"topic {topic!r}" for one in found)
    assert [one.level for one in found] == ([level] if level else [])
    assert all(words in one.text and one.fix for one in found)


def served(**changes: Any) -> ModelConfig:
    """What Triton says of a model that fits, but for the changes."""
    made = ModelConfig(max_batch_size=10_000)
    made.input.append(ModelInput(name="INPUT_0", data_type=TYPE_INT64, dims=[41]))
    made.output.append(ModelOutput(name="OUTPUT_0", data_type=TYPE_FP32, dims=[1]))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def without_output(config: ModelConfig) -> None:
    del config.output[:]


def of_other_type(config: ModelConfig) -> None:
    config.input[0].data_type = TYPE_INT32


def renamed(config: ModelConfig) -> None:
    config.input[0].name = "ids"


def narrow(config: ModelConfig) -> None:
    config.input[0].dims[0] = 3


def small(config: ModelConfig) -> None:
    config.max_batch_size = 8


def of_other_encoder(config: ModelConfig) -> None:
    config.parameters["encoder_sha256"].string_value = "another"


UNFIT: dict[Callable[[ModelConfig], None], str] = {
    without_output: "it has nothing in the place of OUTPUT_0",
    of_other_type: "INPUT_0 TYPE_INT32 [41] in the place of",
    renamed: "ids TYPE_INT64 [41] in the place of",
    small: "max_batch_size is 8, batch.messages_max 2048",
    of_other_encoder: "it was trained with encoder another",
    narrow: "is [3], the encoder makes 41 ids",
}


@pytest.mark.parametrize("change", UNFIT, ids=lambda change: change.__name__)
def test_a_model_that_does_not_fit_is_told(
    change: Callable[[ModelConfig], None], scorer_artifact: Path, scorer_encoder: Encoder
) -> None:
    config, model = Config(model={"artifact": str(scorer_artifact)}), served()
    model.parameters["encoder_sha256"].string_value = scorer_encoder.digest
    model.input[0].dims[0] = len(scorer_encoder.fields)
    assert list(unfit(model, config)) == []
    change(model)
    words = UNFIT[change].replace("41", str(len(scorer_encoder.fields)))
    (line,) = unfit(model, config)
    assert line.level == "wrong"
    assert words in line.text
    assert line.fix


def test_a_cluster_that_is_away_is_told() -> None:
    store = {"kind": "openmldb-rest", "rest": {"url": "http://127.0.0.1:1"}}
    line = next(check_store(Config(store=store), jd()))
    assert line.level == "wrong"
    assert "Connection refused" in line.text
    assert line.fix == "start the cluster, or set [store.rest]"


def test_folders_and_history(tmp_path: Path) -> None:
    config = Config(kafka={"instance_id": "one"}, snapshots={"folder": str(tmp_path)}, store={"history": str(tmp_path)})
    assert [one.level for one in check_folders(config)] == ["ok"]
    lock = SnapshotFolder(tmp_path / "one", 2)
    (line,) = [one for one in check_folders(config) if one.level != "ok"]
    assert line.level == "warning"
    assert "one is in use by pid " in line.text
    lock.close()
    assert [one.level for one in check_folders(config)] == ["ok"]
    bare = [one.about for one in check_folders(Config()) if one.level == "warning"]
    assert bare == ["snapshots.folder", "poison.folder"]


@pytest.mark.parametrize(
    ("file", "content", "level", "words"),
    [
        ("other/a.parquet", b"PAR1", "wrong", "has none of the tables action, flattenRequest, bo_user"),
        ("bo_user/a.parquet", b"PAR1", "wrong", "a.parquet: not a readable parquet file"),
        ("bo_user/a.parquet", pa.table({"a": [1]}), "wrong", "a.parquet: no column ingestionTime"),
        ("bo_user/notes.txt", b"mine", "wrong", "bo_user: no *.parquet file in it, but notes.txt"),
        ("bo_user/a.parquet", BO_USER, "ok", "by table: bo_user 1"),
        ("bo_user/.a.parquet", BO_USER, "wrong", "no *.parquet file in it"),
        ("bo_user/a.csv", b"sku_id,user_lv_cd,sex,age,user_id,user_reg_tm,ingestionTime\n", "ok", "bo_user 1"),
        ("bo_user/a.csv", b"sku_id,age\n", "wrong", "a.csv: no column "),
    ],
)
def test_history_is_checked_as_it_is_loaded(
    file: str, content: bytes | pa.Table, level: str, words: str, tmp_path: Path
) -> None:
    history = tmp_path / "history"
    (history / file).parent.mkdir(parents=True)
    if isinstance(content, bytes):
        (history / file).write_bytes(content)
    else:
        pq.write_table(content, history / file)
    (found,) = check_history(Config(store={"history": str(history)}), jd())
    assert (found.level, words in found.text) == (level, True), found
    store = EmbeddedStore(jd(), str(history))
    store.define()
    if level == "ok":
        store.load_history()
    elif "none of the tables" not in words:
        with pytest.raises(ConfigError):
            store.load_history()


def test_what_is_logged_is_no_part_of_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Of commands whose stdout is read by programs: `doctor --json`, `dlq list --json`, `send`."""
    structlog.reset_defaults()
    log.to_stderr()
    structlog.get_logger().warning("kafka does not answer yet")
    structlog.reset_defaults()
    told = capsys.readouterr()
    assert told.out == ""
    assert "kafka does not answer yet" in told.err


def test_a_port_that_is_free_stays_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        assert [one.level for one in check_port(Config(http={"port": port}))] == ["ok"]


def test_records_of_the_future_tell_of_clocks(stage: Stage) -> None:
    config = stage.config()
    producer = Producer({"bootstrap.servers": stage.bootstrap})
    admin = admin_of(config)
    _, topics = application(config)
    assert [one.text for one in check_clock(config, topics, admin)] == ["no record to compare it with"]
    for ahead_s, level in ((-60, "ok"), (600, "warning")):
        producer.produce(stage.topics["users"], b"{}", timestamp=int((time.time() + ahead_s) * 1000))
        assert producer.flush(30) == 0
        (line,) = check_clock(config, topics, admin)
        assert line.level == level
        assert stage.topics["users"] in line.text


def test_the_command(stage: Stage, tmp_path: Path, scorer_encoder: Encoder) -> None:
    """Its lines, its JSON and its exit status."""
    file = str(stage.file(tmp_path))
    run = CliRunner()
    lines = run.invoke(app, ["doctor", "-c", file])
    assert lines.exit_code == 0, lines.output
    assert {line.split()[0] for line in lines.stdout.splitlines()} <= {"ok", "warning"}
    told = run.invoke(app, ["doctor", "-c", file, "--json"])
    assert [json.loads(line).keys() for line in told.stdout.splitlines()] == [{"level", "about", "text", "fix"}] * len(
        lines.stdout.splitlines()
    )
    other = tmp_path / "other"
    other.mkdir()
    wrong = run.invoke(app, ["doctor", "-c", str(stage.file(other, model={"artifact": str(other)}))])
    assert wrong.exit_code == 2
    assert "wrong    encoder: " in wrong.output
    (tmp_path / "typo.toml").write_text("[kafka]\nbootstrap_server = 'x'\n")
    typo = run.invoke(app, ["doctor", "-c", str(tmp_path / "typo.toml")])
    assert typo.exit_code == 2
    assert "did you mean 'bootstrap_servers'" in typo.output
    assert [one.level for one in check_file(tmp_path / "typo.toml")] == ["wrong"]

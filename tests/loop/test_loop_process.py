"""The scorer as a process of its own: killed anywhere, its servers killed, told to stop, started wrong."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.artifact import save_sql
from fixtures.asking import get, members
from fixtures.scorer import PARTITIONS, Shop, Stage, check, running, wait_until
from places import REPOSITORY, SQL
from prometheus_client import generate_latest

from deploy.kafka.broker import Broker
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.engine import UnsupportedSQL
from streaming.errors import ArtifactMismatch, ConfigError, ModelUnavailable
from streaming.loop.run import run
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder

# The same as `jd-intent-score run`, but SIGKILL comes after the n-th time of a step.
DYING = """
import os, signal, sys, threading
from pathlib import Path
from streaming.ops import log
from streaming.config import load
from streaming.loop.run import run

file, step, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
left = [count]

def die(name):
    if name == step:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

config = load(file)
log.configure(config.log)
run(config, threading.Event(), die)
"""

STEPS = ("decode", "features", "encode", "submit", "begin", "scores", "dead letters", "offsets", "commit")


def start(file: Path, folder: Path) -> Process:
    """`jd-intent-score run --config FILE`."""
    return Process(
        "scorer", [sys.executable, "-m", "streaming", "run", "-c", str(file)], folder / "scorer.log", cwd=REPOSITORY
    )


def shown(scorer: Scorer) -> str:
    """Its /metrics."""
    return generate_latest(scorer.metrics.registry).decode()


def test_killed_after_any_step_each_event_is_scored_once_from_the_right_state(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    # Static membership: a restart need not wait until the group misses the dead.
    static = {"static_membership": True}
    file = stage.file(tmp_path, batch={"messages_max": 20}, kafka=static)
    stage.send_shop(shop)
    stage.send([("actions", b"x", b"{"), ("comments", b"x", b"{")])
    for step in STEPS:
        argv = [sys.executable, "-c", DYING, str(file), step, "3"]
        with Process(f"dying after {step}", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
            assert process.popen.wait(60) == -signal.SIGKILL, process.tail()
    between = stage.committed()
    assert 0 < sum(between) < sum(stage.ends())
    with running(stage.config(kafka=static), scorer_encoder):
        found = stage.collect(len(shop.actions), 2)
    check(found, truth)
    assert len(found.dead) == 2


def test_killed_mid_stream_and_told_to_stop(stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path) -> None:
    port = free_ports(1)[0]
    file = stage.file(tmp_path, batch={"messages_max": 10}, http={"port": port}, log={"format": "json"})
    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    with start(file, tmp_path) as process:
        wait_until(lambda: sum(stage.committed()) > 20, "first commits")
        process.kill()
    stage.send_actions(shop.actions[third:])
    with start(file, tmp_path) as process:
        process.wait_ready(lambda: get(port, "/readyz")[0] == 200, 60)
        assert json.loads(get(port, "/healthz")[1])["alive"] is True
        assert "jd_intent_stage_seconds_bucket" in get(port, "/metrics")[1]
        assert get(port, "/elsewhere")[0] == 404
        wait_until(lambda: sum(stage.committed()) > third, "commits after the restart")
        assert members(stage)
        assert process.stop(20) == 0, process.tail()
        assert members(stage) == []  # it has left: nobody waits for its session to time out
    with start(file, tmp_path) as process:
        found = stage.collect(len(shop.actions))
        process.wait_ready(lambda: get(port, "/readyz")[0] == 200, 60)
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(20) == 0, process.tail()
    check(found, truth)
    log = (tmp_path / "scorer.log").read_text().splitlines()
    lines = [json.loads(line) for line in log if line.startswith("{")]  # gRPC's own core writes plain text
    assert {"starting", "state is ready", "told to stop", "stopped"} <= {line["event"] for line in lines}
    assert all({"timestamp", "level"} <= line.keys() for line in lines)


def test_triton_killed_and_back(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    half = len(shop.actions) // 2
    with Triton(stage.artifact / "triton", tmp_path / "triton") as triton:
        stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
        with running(stage.config(model={"url": triton.grpc_url, "timeout_s": 2.0}), scorer_encoder) as scorer:
            stage.collect(half)
            triton.kill()
            stage.send_actions(shop.actions[half:])
            wait_until(lambda: "model" in scorer.health.missing(), "not ready")
            before = scorer.metrics.model_retries._value.get()
            wait_until(lambda: scorer.metrics.model_retries._value.get() > before + 2, "retries")
            assert len(scorer.source.positions) == PARTITIONS
            assert scorer.health.alive()
            assert "jd_intent_ready 0.0" in shown(scorer)
            reported = scorer.reporting.reported
            wait_until(lambda: scorer.reporting.reported > reported, "lag and sizes are brought up to date")
            triton.start()
            found = stage.collect(len(shop.actions))
            wait_until(lambda: not scorer.health.missing(), "ready again")
            assert "jd_intent_ready 1.0" in shown(scorer)
    check(found, truth)


def test_stopped_while_the_model_is_away_nothing_is_lost(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    stage.send_shop(shop)
    nowhere = {"url": f"127.0.0.1:{free_ports(1)[0]}", "timeout_s": 1.0}
    with running(stage.config(model=nowhere), scorer_encoder) as scorer:
        wait_until(lambda: "model" in scorer.health.missing(), "not ready")
    impatient = stage.config(model={**nowhere, "give_up_after_s": 1.0})
    with pytest.raises(ModelUnavailable, match="gave up after 1 s"), running(impatient, scorer_encoder) as scorer:
        wait_until(scorer.stop.is_set, "the scorer gives up")
    assert sum(stage.committed()) == 0
    with running(stage.config(), scorer_encoder):
        check(stage.collect(len(shop.actions)), truth)


def test_the_broker_killed_and_back(stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path) -> None:
    half = len(shop.actions) // 2
    with Broker(tmp_path / "kafka") as broker:
        stage = Stage(broker.bootstrap, stage.artifact, stage.triton)  # another broker than the session's
        stage.create_topics(broker)
        stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
        file = stage.file(tmp_path, batch={"messages_max": 20})
        with contextlib.ExitStack() as stack:
            scorers = [stack.enter_context(start(file, tmp_path))]
            wait_until(lambda: sum(stage.committed()) > 40, "first commits")
            broker.kill()
            broker.start()
            stage.send_actions(shop.actions[half:])

            def done() -> bool:
                # Mostly the scorer survives. Where librdkafka declares its producer lost, it exits for its supervisor.
                if not scorers[-1].running():
                    assert scorers[-1].popen.returncode in (4, 5), scorers[-1].tail()
                    scorers.append(stack.enter_context(start(file, tmp_path)))
                return stage.committed() == stage.ends()

            wait_until(done, "everything is committed")
            assert scorers[-1].stop() == 0, scorers[-1].tail()
        found = stage.collect(len(shop.actions))
    check(found, truth)


# `jd-intent-score run`, whose imports do not come to an end.
IMPORTING = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name == "streaming.loop.run":
            print("importing", flush=True)
            try:
                time.sleep(3600)
            except BaseException:
                pass

sys.meta_path.insert(0, Slow())
sys.argv = ["jd-intent-score", *sys.argv[1:]]
from streaming.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_is_imported_it_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", IMPORTING, "run"]
    with Process("importing", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        wait_until(lambda: "importing" in (tmp_path / "scorer.log").read_text(), "it imports")
        process.popen.send_signal(number)
        assert process.popen.wait(30) == 0, process.tail()


def test_told_to_stop_while_no_broker_answers(stage: Stage, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    nowhere = {"bootstrap_servers": f"127.0.0.1:{free_ports(1)[0]}", "give_up_after_s": 600.0}
    file = stage.file(tmp_path, kafka=nowhere, http={"port": port}, log={"format": "json"})
    with start(file, tmp_path) as process:
        process.wait_ready(lambda: get(port, "/healthz")[0] == 200, 60)
        wait_until(lambda: "kafka does not answer yet" in (tmp_path / "scorer.log").read_text(), "it waits")
        assert process.stop(60) == 0, process.tail()
    assert '"event":"stopped"' in process.tail(1).replace(": ", ":")


def test_told_to_stop_while_the_broker_is_away(stage: Stage, shop: Shop, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with Broker(tmp_path / "kafka") as broker:
        stage = Stage(broker.bootstrap, stage.artifact, stage.triton)  # another broker than the session's
        stage.create_topics(broker)
        stage.send_shop(shop)
        file = stage.file(
            tmp_path,
            kafka={"give_up_after_s": 600.0},
            batch={"messages_max": 5},
            http={"port": port},
            log={"format": "json"},
        )
        with start(file, tmp_path) as process:
            wait_until(lambda: sum(stage.committed()) > 20, "first commits")  # and more are under way
            broker.kill()
            assert process.stop(90) == 0, process.tail()


def refused(config: Any) -> str:
    """The message of a start that fails."""
    with pytest.raises((ConfigError, ArtifactMismatch, UnsupportedSQL)) as caught:
        run(config, threading.Event())
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_wrong_start_is_refused_clearly(stage: Stage, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(stage.config(http={"port": port})) == (
            f"ConfigError: http: cannot listen on 127.0.0.1 port {port}: Address already in use"
        )
    topics = {**stage.topics, "users": "nobody", "scores": "nothing"}
    assert "has no topic 'nobody' (kafka.topics.users), 'nothing' (kafka.topics.scores)" in refused(
        stage.config(kafka={"topics": topics})
    )
    assert refused(stage.config(model={"artifact": str(tmp_path)})).startswith("ArtifactMismatch: ")
    assert "store.history: /nowhere is not a folder" in refused(stage.config(store={"history": "/nowhere"}))
    raw = {"common": {"no.such.key": 1}}
    assert 'No such configuration property: "no.such.key"' in refused(stage.config(kafka={"librdkafka": raw}))


def app_with(folder: Path, name: str, edit: Callable[[str], str]) -> Path:
    """A copy of sql/jd with one file changed."""
    shutil.copytree(SQL / "jd", folder)
    (folder / name).write_text(edit((folder / name).read_text()))
    return folder


def test_a_wrong_application_is_refused_by_file_and_place(stage: Stage, tmp_path: Path) -> None:
    typing_error = app_with(
        tmp_path / "a", "tables.sql", lambda text: text.replace("pair_id string,", "pair_id strin,", 1)
    )
    assert re.match(r"WrongApp: .*/a/tables\.sql:\d+:\d+: ", refused(stage.config(typing_error)))
    unknown = app_with(
        tmp_path / "b", "features.sql", lambda text: text.replace("distinct_count(", "distinct_cuont(", 1)
    )
    assert re.match(r"WrongApp: .*/b/features\.sql:\d+:\d+: .*distinct_cuont", refused(stage.config(unknown)))
    column = "as flattenRequest_pair_id_window_unique_count_27"
    lacking = app_with(tmp_path / "d", "features.sql", lambda text: text.replace(column, "as renamed", 1))
    assert "features.sql" in refused(stage.config(lacking)), "the model was trained on another query"
    assert "kafka.topics.customers: application jd has actions, users," in refused(
        stage.config(kafka={"topics": {"customers": "x"}})
    )
    assert "there is no such folder" in refused(stage.config(tmp_path / "nowhere"))


def test_a_model_of_another_encoder_is_refused(stage: Stage, shop_answers: Any, tmp_path: Path) -> None:
    from batch.dataset.fit_encoder import fit

    fit(shop_answers).save(tmp_path / "encoder")
    save_sql(tmp_path)
    message = refused(stage.config(model={"artifact": str(tmp_path)}))
    assert message.startswith("ArtifactMismatch: model 'embedding' at")
    assert message.count("sha256:") == 2


def test_the_command_says_in_one_line_why_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[kafka]\nbootstrap_server = 'x'\n")
    with start(file, tmp_path) as process:
        assert process.popen.wait(60) == 2
    why = "kafka.bootstrap_server: unknown key (did you mean 'bootstrap_servers'?)"
    assert (tmp_path / "scorer.log").read_text() == f"jd-intent-score: {file}: {why}\n"

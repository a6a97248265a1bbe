"""The predict server beside a real Kafka and a real Triton: it follows the topics, and leaves no trace."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from fixtures.artifact import probabilities
from fixtures.jd import actions_of, dimensions_of
from fixtures.scorer import Shop, Stage, loaded_store, poison, wait_until
from fixtures.serve import EXAMPLE, command, holding, row_of
from places import REPOSITORY

from deploy.process import Process, free_ports
from deploy.triton.server import Ports, Triton
from streaming.app.configured import application as application_of
from streaming.errors import ConfigError, StoreUnavailable
from streaming.events.batch import EventBatch
from streaming.model.encoder import Encoder
from streaming.predict.server import run
from streaming.predict.state_replica import Follower
from streaming.store.embedded import EmbeddedStore
from streaming.web.listen import Listen


def answers_as(client: httpx.Client, store: EmbeddedStore, encoder: Encoder, action: dict[str, Any]) -> bool:
    """Does the server answer as a store with the same rows does?"""
    row = row_of(action)
    response = client.post("/predict", json=row)
    assert response.status_code == 200, response.text
    return bool(response.json()["probability"] == float(probabilities(encoder.encode(store.request([row])))[0]))


def test_the_server_follows_the_topics_and_leaves_no_trace(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, scorer_artifact: Path, tmp_path: Path
) -> None:
    half = len(shop.actions) // 2
    # Comments and a quarter of the actions are history, the rest comes through Kafka, poison in between.
    before = actions_of(shop.actions[: half // 2]).rows
    for table, rows in {
        "bo_comment": dimensions_of(shop).rows["bo_comment"],
        "bo_action": before["bo_action"],
        "flattenRequest_clean": before["flattenRequest"],
    }.items():
        (tmp_path / "history" / table).mkdir(parents=True)
        pq.write_table(rows, tmp_path / "history" / table / "part.parquet")
    stage.send_shop(Shop(shop.actions[half // 2 : half], shop.users, shop.products, []))
    stage.send([("actions", key, value) for key, value, _ in poison(shop.actions[0]).values()])

    ports = Ports.free()
    (port,) = free_ports(1)
    triton = Triton(scorer_artifact / "triton", tmp_path / "triton", ports).start()
    file = stage.file(
        tmp_path,
        store={"history": str(tmp_path / "history")},
        model={"url": triton.grpc_url, "artifact": str(scorer_artifact)},
    )
    server = Process(
        "serve", command("serve", "--config", file, "--port", port), tmp_path / "serve.log", cwd=REPOSITORY
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            server.wait_ready(lambda: is_ready(client), 120)
            at_half = holding(shop, shop.actions[:half])
            for action in shop.actions[:half:20]:
                assert answers_as(client, at_half, scorer_encoder, action)

            last = shop.actions[-1]
            after = holding(shop, shop.actions)
            assert not answers_as(client, after, scorer_encoder, last)
            stage.send_actions(shop.actions[half:])
            wait_until(lambda: answers_as(client, after, scorer_encoder, last), "the new actions are in the windows")

            asked = [command("predict", "--url", url, json.dumps(row)) for row in (row_of(last), {})]
            good, bad = (subprocess.run(a, capture_output=True, text=True, check=False, cwd=REPOSITORY) for a in asked)
            assert good.returncode == 0, good.stderr
            expected = float(probabilities(scorer_encoder.encode(after.request([row_of(last)])))[0])
            assert f"purchase probability  {expected:.6f}" in good.stdout
            assert (bad.returncode != 0, bad.stdout) == (True, "")
            assert "eventTime: Field required" in bad.stderr

            triton.kill()
            away = client.post("/predict", json=row_of(last))
            assert (away.status_code, "retry-after" in away.headers) == (503, True)
            assert client.get("/readyz").status_code == 503
            triton.start()
            wait_until(lambda: is_ready(client), "Triton is back")
            assert answers_as(client, after, scorer_encoder, last)
        assert server.stop() == 0, server.tail()
    finally:
        server.kill()
        triton.kill()
    assert not any(offset > 0 for offset in stage.committed()), "the predict server committed offsets"
    assert stage.ends("scores") == [0, 0]


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def follow_to_the_end(stage: Stage, store: EmbeddedStore) -> None:
    """Fills a store with what is in the topics, as a predict server does."""
    config = stage.config()
    follower = Follower(config, *application_of(config), store)
    follower.start()
    try:
        wait_until(lambda: follower.missing() is None, "the state is there")
    finally:
        follower.stop()


def test_a_row_that_the_tables_refuse_is_skipped_alone(
    stage: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.send_shop(shop)
    refused = shop.actions[7]["request_id"]
    store = loaded_store()
    restore = store.restore

    def picky(events: EventBatch) -> None:
        restore(events)
        if refused in events.sender_ids:
            raise ValueError(f"row of {refused}")

    monkeypatch.setattr(store, "restore", picky)
    follow_to_the_end(stage, store)
    assert store.sizes()["JD_db.flattenRequest"][0] == len(shop.actions) - 1
    assert store.sizes()["JD_db.bo_comment"][0] == len(shop.comments)


def test_an_aborted_transaction_at_the_end_of_a_topic_is_no_backlog(stage: Stage, shop: Shop) -> None:
    producer = Producer({"bootstrap.servers": stage.bootstrap, "transactional.id": f"shop-{stage.name}"})
    producer.init_transactions(30)
    for actions, end in ((shop.actions[:10], "commit"), (shop.actions[10:15], "abort")):
        producer.begin_transaction()
        for action in actions:
            producer.produce(stage.topics["actions"], json.dumps(action).encode(), action["user_id"].encode())
        producer.flush(30)
        getattr(producer, f"{end}_transaction")(30)
    store = loaded_store()
    follow_to_the_end(stage, store)
    assert store.sizes()["JD_db.bo_action"][0] == 10


def test_a_state_that_cannot_be_followed_does_not_answer(
    stage: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.send_actions(shop.actions)
    store = loaded_store()

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(store, "restore", broken)
    config = stage.config()
    follower = Follower(config, *application_of(config), store)
    with pytest.raises(StoreUnavailable, match="being rebuilt"):
        follower.request([EXAMPLE])
    follower.start()
    assert follower.ended.wait(60)
    assert isinstance(follower.failure, MemoryError)
    with pytest.raises(StoreUnavailable, match="following the topics failed: no room"):
        follower.request([EXAMPLE])


def test_a_taken_port_and_a_missing_topic_are_named(stage: Stage) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1 port {taken.getsockname()[1]}: .*in use"),
    ):
        run(stage.config(), Listen("127.0.0.1", taken.getsockname()[1]))
    topics = {**stage.topics, "products": f"nowhere-{stage.name}"}
    with pytest.raises(ConfigError, match=rf"'nowhere-{stage.name}' \(kafka\.topics\.products\)"):
        run(stage.config(kafka={"topics": topics}), Listen("127.0.0.1", 0))

"""`jd-intent-score send` on a real broker, beside a real scorer: one event in, its score or its dead letter out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from fixtures.scorer import PARTITIONS, Shop, Stage, running

from streaming.cli.send import send_and_wait
from streaming.config import Config
from streaming.errors import BadEvent, ConfigError
from streaming.model.encoder import Encoder


def partition_of(stage: Stage) -> dict[bytes, set[int]]:
    """Key → the partitions of the actions' topic that hold it."""
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(stage.topics["actions"], number, 0) for number in range(PARTITIONS)])
    found: dict[bytes, set[int]] = {}
    remaining = sum(stage.ends())
    while remaining:
        for record in consumer.consume(remaining, 10):
            assert record.error() is None
            remaining -= 1
            found.setdefault(record.key(), set()).add(record.partition())  # type: ignore[arg-type]
    consumer.close()
    return found


def test_an_event_gets_its_score_and_lies_with_its_users_others(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    stage.send_shop(shop)  # with the partitioner of Java's clients
    actions: dict[str, dict[str, Any]] = {}
    for action in shop.actions:
        actions.setdefault(action["user_id"], action)
    with running(stage.config(), scorer_encoder):
        stage.collect(len(shop.actions))
        for action in list(actions.values())[:8]:
            score = send_and_wait(
                stage.config(), json.dumps(action | {"request_id": None, "time": shop.actions[-1]["time"]})
            )
            assert score.keys() == {
                "request_id",
                "user_id",
                "sku_id",
                "event_time",
                "purchase_probability",
                "model_version",
            }
            assert (score["user_id"], score["sku_id"]) == (action["user_id"], action["sku_id"])
            assert score["request_id"] not in truth
            assert len(score["request_id"]) == 36
        named = send_and_wait(stage.config(), json.dumps(shop.actions[-1] | {"request_id": "mine"}))
        assert named["request_id"] == "mine"
        assert named["event_time"] == shop.actions[-1]["time"]
        without = {key: value for key, value in shop.actions[0].items() if key not in {"time", "request_id"}}
        assert send_and_wait(stage.config(), json.dumps(without))["event_time"] > named["event_time"]
    assert [key for key, partitions in partition_of(stage).items() if len(partitions) > 1] == []


def test_a_dead_letter_is_told_with_its_reason(stage: Stage, shop: Shop, scorer_encoder: Encoder) -> None:
    with running(stage.config(), scorer_encoder):
        with pytest.raises(BadEvent, match="type") as caught:
            send_and_wait(stage.config(), json.dumps(shop.actions[0] | {"type": "9"}))
        assert caught.value.stage in {"decode", "validate"}
        assert send_and_wait(stage.config(), json.dumps(shop.actions[0]))["request_id"] == shop.actions[0]["request_id"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"user_id": 1}', '{"user_id": null}', "null"])
def test_what_names_no_user_is_refused_before_kafka_is_asked(text: str) -> None:
    with pytest.raises(BadEvent, match="not a JSON object with a text user_id"):
        send_and_wait(Config(), text)


def test_missing_topics_are_named(stage: Stage, shop: Shop) -> None:
    topics = {**stage.topics, "scores": f"nowhere-{stage.name}"}
    with pytest.raises(ConfigError, match=rf"no topic 'nowhere-{stage.name}' \(kafka\.topics\.scores\)"):
        send_and_wait(stage.config(kafka={"topics": topics}), json.dumps(shop.actions[0]))

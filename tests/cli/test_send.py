"""`jd-intent-score send` on a real broker, beside a real scorer: one event in, its score or its dead letter out."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures.applications import make
from fixtures.scorer import PARTITIONS, Shop, Stage, running

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.app.scores import score_encoder
from streaming.app.topics import TopicNames
from streaming.cli.send import send_and_wait
from streaming.config import CloudEvents, Config, Events
from streaming.errors import BadEvent, ConfigError
from streaming.events.batch import EventBatch
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a JSON object with user_id: "),
        ("[]", "not a JSON object with user_id"),
        ("{}", "not a JSON object with user_id"),
        ("null", "not a JSON object with user_id"),
        ("[" * 100_000, "not a JSON object with user_id: "),
        ('{"user_id": 1}', "user_id is 1, not a string"),
        ('{"user_id": null}', "user_id is null, not a string"),
    ],
)
def test_what_names_no_user_is_refused_before_kafka_is_asked(text: str, why: str) -> None:
    with pytest.raises(BadEvent) as told:
        send_and_wait(Config(), text)
    assert str(told.value).startswith(why)


@pytest.mark.parametrize("value", ['"5"', "true", "1.5", "null", "[]"])
def test_a_key_that_is_a_number_is_no_text(value: str, tmp_path: Path) -> None:
    config = Config(app=str(make(tmp_path / "app")))
    with pytest.raises(BadEvent, match=f"number is {re.escape(value)}, not a bigint"):
        send_and_wait(config, f'{{"number": {value}}}')


@pytest.mark.parametrize("stream", ["card_rows", "users", "paid "])
def test_a_stream_that_asks_nothing_has_no_score_to_wait_for(stream: str, tmp_path: Path) -> None:
    config = Config(app=str(make(tmp_path / "app")))
    with pytest.raises(ConfigError, match=rf"--stream {stream}: the streams that are scored are paid"):
        send_and_wait(config, "{}", stream=stream)


STREAMS = """CREATE TABLE paid (number bigint NOT NULL, moment timestamp NOT NULL, cents int, reference string NOT NULL)
WITH (key = 'number', event_time = 'moment', request_id = 'reference', timestamp_format = 'epoch_s');
INSERT INTO payments SELECT reference AS id, number AS card, moment AS at FROM paid;
CREATE TABLE refunded (card string NOT NULL, moment timestamp NOT NULL, name string NOT NULL)
WITH (key = 'card', event_time = 'moment', request_id = 'name', timestamp_format = 'iso-8601');
INSERT INTO payments SELECT name AS id, bigint(card) AS card, moment AS at FROM refunded;
CREATE TABLE asked (card bigint NOT NULL, moment timestamp NOT NULL, number bigint)
WITH (key = 'card', event_time = 'moment', request_id = 'number', timestamp_format = 'epoch_ms');
INSERT INTO payments SELECT string(ifnull(number, card)) AS id, card, moment AS at FROM asked;
"""


class Scorer(threading.Thread):
    """Answers the first record of a topic with a score that repeats what the decoder makes of it."""

    def __init__(self, bootstrap: str, app: App, topics: TopicNames, topic: str, form: CloudEvents = "binary") -> None:
        super().__init__()
        self._form = form
        self._brokers, self._app, self._topics, self._topic = bootstrap, app, topics, topic
        self.events = EventBatch()
        self.value: dict[str, Any] = {}

    def run(self) -> None:
        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": "none", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self._topic, 0, 0)])
        record: Any = consumer.poll(30)
        consumer.close()
        assert record is not None
        self.value = json.loads(record.value() or b"")
        self.events, refused = InputDecoder(self._app, Events(), self._topics).decode([record])
        assert refused == [], refused[0][1]
        ((key, value, headers),) = score_encoder(self._app, self._form)(self.events, np.array([0.5], np.float32), "1")
        producer = Producer({"bootstrap.servers": self._brokers})
        producer.produce(self._topics.scores, value, key, headers=headers)  # type: ignore[arg-type]  # list is invariant
        assert producer.flush(30) == 0


@pytest.mark.parametrize(
    ("stream", "event", "given"),
    [
        ("paid", {"number": 17}, {}),
        ("paid", {"number": 17}, {"moment": 1_459_419_080, "reference": "mine"}),
        ("refunded", {"card": "17"}, {}),
        ("refunded", {"card": "17"}, {"moment": "2016-03-31T18:11:20+08:00", "name": "mine"}),
        ("asked", {"card": 17}, {}),
        ("asked", {"card": 17}, {"moment": 1_459_419_080_000, "number": 5}),
    ],
)
def test_an_event_of_any_stream_gets_the_time_that_its_stream_spells(
    stage: Stage, broker: Broker, tmp_path: Path, stream: str, event: dict[str, Any], given: dict[str, Any]
) -> None:
    folder = make(tmp_path / "app")
    (folder / "events.sql").write_text(STREAMS)
    names = {key: f"{key}-{stage.name}" for key in ("paid", "refunded", "asked", "scores", "dead_letters")}
    broker.create_topics(dict.fromkeys(names.values(), 1))
    config = Config(app=str(folder), kafka={"bootstrap_servers": stage.bootstrap, "topics": names})
    app, topics = application(config)
    scorer = Scorer(stage.bootstrap, app, topics, names[stream], "structured" if given else "binary")
    scorer.start()
    before = time.time()
    try:
        score = send_and_wait(config, json.dumps(event | given), 60.0, "" if stream == "paid" else stream)
    finally:
        scorer.join(60)
    (moment_ms,) = scorer.events.times.tolist()
    if given:
        assert moment_ms == 1_459_419_080_000
        assert score["payment"] == str(next(value for name, value in given.items() if name != "moment"))
    else:
        assert int(before) <= moment_ms / 1000 <= time.time()
        assert isinstance(scorer.value["moment"], str if stream == "refunded" else int)
        assert score["payment"] == "17" if stream == "asked" else len(score["payment"]) == 36
    assert score["risk"] == 0.5


def test_where_no_score_says_of_which_event_it_is_none_is_waited_for(stage: Stage, shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r'kafka\.cloudevents = "none"'):
        send_and_wait(stage.config(kafka={"cloudevents": "none"}), json.dumps(shop.actions[0]))


def test_missing_topics_are_named(stage: Stage, shop: Shop) -> None:
    topics = {**stage.topics, "scores": f"nowhere-{stage.name}"}
    with pytest.raises(ConfigError, match=rf"no topic 'nowhere-{stage.name}' \(kafka\.topics\.scores\)"):
        send_and_wait(stage.config(kafka={"topics": topics}), json.dumps(shop.actions[0]))

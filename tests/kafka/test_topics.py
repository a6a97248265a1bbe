"""What the broker is asked about topics and the group."""

from __future__ import annotations

import threading
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from fixtures.scorer import Stage

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.kafka.connection import Connection
from streaming.kafka.topics import Span, Topics

ASKED_AFTER_S = 30.0


def test_all_is_told_again_after_the_broker_has_died(tmp_path: Path) -> None:
    """A client of librdkafka's that has lived through that is told nothing of the group, and of no partition's end."""
    with Broker(tmp_path / "kafka") as broker:
        stage = Stage(broker.bootstrap, tmp_path, "127.0.0.1:1")
        stage.create_topics(broker)
        actions = stage.topics["actions"]
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": f"group-{stage.name}"})
        consumer.commit(offsets=[TopicPartition(actions, 0, 7, "noted")], asynchronous=False)
        consumer.close()
        config = stage.config(kafka={"give_up_after_s": ASKED_AFTER_S})
        topics = Topics(config.kafka, application(config)[1], Connection(threading.Event()))
        partitions = [(actions, 0), (actions, 1)]
        assert topics.notes() == {(actions, 0): (7, "noted")}
        assert topics.spans(partitions) == dict.fromkeys(partitions, Span(0, 0))
        asked = topics.ask()
        broker.kill()
        broker.start()
        assert topics.notes() == {(actions, 0): (7, "noted")}
        assert topics.spans(partitions) == dict.fromkeys(partitions, Span(0, 0))
        asked.check()
        topics.check()

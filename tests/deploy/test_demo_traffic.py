"""What the demo sends beside its events."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from fixtures.cards import CARDS

from batch.replay import Message, Replay
from deploy.demo.run import stream
from deploy.demo.screen import Step
from deploy.demo.shop import Shop
from deploy.demo.traffic import POISON, EventSender
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, ProcessFailed, free_ports
from streaming.app.folder import load_app


def test_poison_is_written_at_the_time_of_the_events_around_it(broker: Broker) -> None:
    """A record of now would be later than all events of the past, which then overtake those behind it."""
    broker.create_topics({"network.authorizations": 2})
    event = {"txn": "t", "pan": 10**17, "ts": 1_700_000_000, "cents": 5, "mcc": 1, "mode": 0}
    good = Message("network.authorizations", b"1" + b"0" * 17, json.dumps(event).encode(), 1_700_000_000_000, "t")
    sender = EventSender(broker.bootstrap, timed=True)
    (stream,) = load_app(CARDS).scored
    sender.send_poison(stream, good)
    options = {"bootstrap.servers": broker.bootstrap, "group.id": "poison", "auto.offset.reset": "earliest"}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(good.topic, number, 0) for number in (0, 1)])
    found: list[int] = []
    while len(found) < POISON and (record := consumer.poll(20)) is not None:
        found.append(record.timestamp()[1])
    consumer.close()
    assert found == [good.time] * POISON


def test_a_broker_that_is_gone_writes_nothing_on_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends it before the shop."""
    (port,) = free_ports(1)
    sender = EventSender(f"127.0.0.1:{port}")
    sender._producer.produce("topic", b"value")
    time.sleep(1)  # it fails to connect at once
    sender._producer.purge()
    del sender
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sent", [True, False], ids=["scores are waited for", "events are sent"])
def test_a_broker_that_dies_under_the_stream_ends_it_at_once(tmp_path: Path, sent: bool) -> None:
    """As on a full disk; nobody scores here, so the stream would be waited for."""
    shop = Shop.of("sql/jd")
    (topic,) = shop.topics.events
    value = json.dumps({"user_id": "1", "time": 1_700_000_000_000}).encode()
    replay = Replay([], [Message(topic, b"1", value, 1_700_000_000_000, f"r{n}") for n in range(20)])
    argv = [sys.executable, "-c", "import time; time.sleep(300)"]
    with (
        Broker(tmp_path / "kafka") as broker,
        Process("the scorer", argv, tmp_path / "log") as scorer,
        ThreadPoolExecutor() as pool,
    ):
        broker.create_topics(topics_of(shop.topics))
        if not sent:
            broker.kill()
        going = pool.submit(stream, broker, shop, replay, scorer, Step(8, "stream"))
        time.sleep(2)
        broker.kill()
        with pytest.raises(ProcessFailed, match="kafka exited with -9"):
            going.result(30)

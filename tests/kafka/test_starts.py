"""Where new partitions start: asked beside the flow of those that a scorer has already."""

from __future__ import annotations

import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from fixtures.scorer import Shop, Stage, check, running, wait_until

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable
from streaming.kafka import start_offsets as starts
from streaming.kafka.connection import REQUEST_TIMEOUT_S, Connection
from streaming.kafka.lineage import Lineages
from streaming.model.encoder import Encoder
from streaming.ops.clock import Clock


def test_partitions_flow_while_those_of_a_dead_peer_wait_for_its_transaction(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    first, second = shop.actions[:400], shop.actions[400:]
    stage.send_shop(Shop(first, shop.users, shop.products, shop.comments))
    config, peer = stage.config(), stage.config(kafka={"instance_id": "two"})
    topic = stage.topics["actions"]
    with running(config, scorer_encoder) as scorer:
        stage.collect(len(first))
        with running(peer, scorer_encoder) as dying:
            wait_until(lambda: len(scorer.source.positions) == len(dying.source.positions) == 1, "one each")
            ((_, number),) = dying.source.positions
            offset = dying.source.positions[topic, number]
            dead = Producer({"bootstrap.servers": stage.bootstrap, "transactional.id": f"{stage.name}-dead"})
            dead.init_transactions(30)
            dead.begin_transaction()
            dead.produce(stage.topics["dead_letters"], b"of a transaction that comes to nothing")
            group = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": f"group-{stage.name}"})
            dead.send_offsets_to_transaction(
                [TopicPartition(topic, number, offset)], group.consumer_group_metadata(), 30
            )
            group.close()
        wait_until(lambda: "assignment" in scorer.health.missing(), "it says what it waits for")
        assert f"{topic}[{number}]" in scorer.health.missing()["assignment"]
        before = stage.ends()
        stage.send_actions(second)
        flowing = sum(end - was for n, (end, was) in enumerate(zip(stage.ends(), before, strict=True)) if n != number)
        assert 0 < flowing < len(second)
        stage.collect(len(first) + flowing)
        assert scorer.health.missing().keys() == {"assignment"}
        dead.abort_transaction(30)
        found = stage.collect(len(shop.actions))
        wait_until(lambda: not scorer.health.missing(), "all is there")
    check(found, truth)


class Hanging:
    """The outcome of a call that never returns."""

    def result(self, timeout: float | None = None) -> None:
        raise FutureTimeoutError


def test_a_question_that_hangs_in_librdkafka_is_given_up() -> None:
    now = [1000.0]
    kafka = Kafka(transaction_timeout_s=30, give_up_after_s=60)
    asked = starts.Inquiry(
        kafka,
        Connection(threading.Event(), clock=Clock(monotonic=lambda: now[0])),
        cast(Lineages, None),
        [("actions", 3)],
        lambda _: Hanging(),
    )
    now[0] += 90
    assert asked.answer() is None
    now[0] += 2 * REQUEST_TIMEOUT_S + 1
    with pytest.raises(BrokerUnavailable, match=r"does not tell where actions\[3\] start"):
        asked.answer()


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION])
def test_an_unknown_partition_passes_or_is_given_up(code: int) -> None:
    now = [1000.0]
    stop = cast(threading.Event, SimpleNamespace(is_set=lambda: False, wait=lambda seconds: None))
    connection = Connection(stop, clock=Clock(monotonic=lambda: now[0]))
    asked: list[float] = []

    def ask() -> str:
        asked.append(now[0])
        now[0] += 5.0
        if now[0] < known_at:
            raise KafkaException(KafkaError(code, "unknown", retriable=False))
        return "known"

    known_at = now[0] + 20.0
    assert connection.retry(ask, 300.0) == "known"
    known_at = now[0] + 1000.0
    asked.clear()
    with pytest.raises(KafkaException, match="unknown"):
        connection.retry(ask, 300.0)
    assert 30.0 <= now[0] - asked[0] <= 40.0

"""One event of your own: sends it to the actions topic and shows what became of it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streaming.config import Config
from streaming.deadletter import ERRORS
from streaming.errors import BadEvent, BrokerUnavailable, ScorerError, Unavailable
from streaming.reader import check_topics

__all__ = ["send"]

METADATA_TIMEOUT_S = 10.0


def send(config: Config, text: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """Sends one action and waits for its score as a `read_committed` subscriber does.

    Args:
        config: says where Kafka is and how the topics are called.
        text: the action as JSON; without `time` it happens now, without `request_id` (or with null) it gets a new one.

    Returns:
        The score's fields.

    Raises:
        BadEvent: the text is no JSON object with a user_id, or the scorer made a dead letter of it.
        ConfigError: a topic does not exist.
        ScorerError: no answer within `timeout_s` seconds, or Kafka cannot be reached.
    """
    try:
        event = json.loads(text)
        key = event["user_id"].encode()
    except (ValueError, RecursionError) as error:
        raise BadEvent("decode", f"not a JSON object with a text user_id: {error}") from error
    except (TypeError, KeyError, AttributeError) as error:
        raise BadEvent("decode", "not a JSON object with a text user_id") from error
    event.setdefault("time", int(time.time() * 1000))
    if event.get("request_id") is None:  # null is what the scorer takes for none
        event["request_id"] = f"{uuid.uuid4()}"
    request_id = event["request_id"]
    topics = config.kafka.topics
    client = config.kafka.client()
    consumer = Consumer({**client, "group.id": f"send-{uuid.uuid4()}", "isolation.level": "read_committed"})
    try:
        check_topics(config.kafka, patience_s=METADATA_TIMEOUT_S)
        there = consumer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        # The ends of today: the answer can only come after them.
        consumer.assign(
            [
                TopicPartition(topic, partition, consumer.get_watermark_offsets(TopicPartition(topic, partition))[1])
                for topic in (topics.scores, topics.dead_letters)
                for partition in there[topic].partitions
            ]
        )
        # The partitioner of Java's clients: a user's events are in one partition whoever sends them.
        producer = Producer({**client, "partitioner": "murmur2_random"})
        value = json.dumps(event, ensure_ascii=False).encode()
        sent: list[tuple[str, str, str]] = []

        def delivered(error: KafkaError | None, record: Message) -> None:
            if error is None:
                sent.append((record.topic() or "", str(record.partition()), str(record.offset())))

        producer.produce(topics.actions, value, key, on_delivery=delivered)
        producer.flush(timeout_s)
        if not sent:
            raise BrokerUnavailable(f"{topics.actions}: the broker did not take the event in {timeout_s:.0f} s")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            record = consumer.poll(0.1)
            if record is not None and (score := _answer(record, topics.scores, request_id, sent[0])) is not None:
                return score
    except KafkaException as error:
        raise ScorerError(f"Kafka at {config.kafka.bootstrap_servers}: {error}") from error
    finally:
        consumer.close()
    raise Unavailable(f"no score for request {request_id} in {timeout_s:.0f} s: is the scorer running?")


def _answer(record: Message, scores: str, request_id: str, sent: tuple[str, str, str]) -> dict[str, Any] | None:
    """The score of the request, where `record` is it.

    Raises:
        BadEvent: `record` is the dead letter of what was sent (its topic, partition and offset), whole or cut.
    """
    error = record.error()
    if error is not None:
        raise KafkaException(error)
    if record.topic() == scores:
        score: dict[str, Any] = json.loads(record.value() or b"")
        return score if score["request_id"] == request_id else None
    headers: dict[str, Any] = dict(record.headers() or [])
    if tuple(headers.get(ERRORS + part, b"").decode() for part in ("topic", "partition", "offset")) == sent:
        raise BadEvent(
            headers[f"{ERRORS}stage"].decode(), headers[f"{ERRORS}exception.message"].decode(errors="replace")
        )
    return None

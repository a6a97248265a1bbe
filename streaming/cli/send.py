"""One event of your own: sends it to the actions topic and shows what became of it."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streaming.config import Config, Kafka
from streaming.errors import BadEvent, BrokerUnavailable, ScorerError, Unavailable
from streaming.events.dead_letter import ERRORS
from streaming.events.record import Record
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.reader import TopicReader
from streaming.kafka.rights import check_topics, named, of_send

__all__ = ["send_and_wait"]

METADATA_TIMEOUT_S = 10.0


def send_and_wait(config: Config, text: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """Sends one action and waits for its score as a `read_committed` subscriber does.

    Args:
        config: says where Kafka is and how the topics are called.
        text: the action as JSON; without `time` it happens now, without `request_id` (or with null) it gets a new one.

    Returns:
        The score's fields.

    Raises:
        BadEvent: the text is no JSON object with a user_id, or the scorer made a dead letter of it.
        ConfigError: a topic does not exist, or Kafka refuses the login.
        NotAllowed: a topic may not be read or written.
        Unavailable: no answer within `timeout_s` seconds, or Kafka cannot be reached.
        ScorerError: Kafka refuses something.
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
    kafka = config.kafka.model_copy(update={"give_up_after_s": METADATA_TIMEOUT_S})
    topics, rights = kafka.topics, of_send(kafka)
    connection = Connection(threading.Event(), login=Login(kafka))
    reader: TopicReader | None = None
    try:
        with named(kafka, rights):
            check_topics(kafka, rights, connection)
            reader = TopicReader(kafka, connection, "read_committed")
            # The ends of today: the answer can only come after them.
            outputs = reader.partitions((topics.scores, topics.dead_letters))
            reader.assign({partition: reader.watermarks(partition)[1] for partition in outputs})
            sent = _produce(kafka, key, json.dumps(event, ensure_ascii=False).encode(), timeout_s)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                for record in reader.read(100, 0.05):
                    if (score := _answer(record, topics.scores, request_id, sent)) is not None:
                        return score
    except KafkaException as error:
        raise ScorerError(f"Kafka at {kafka.bootstrap_servers}: {error.args[0].str()}") from error
    finally:
        if reader is not None:
            reader.close()
    raise Unavailable(f"no score for request {request_id} in {timeout_s:.0f} s: is the scorer running?")


def _produce(kafka: Kafka, key: bytes, value: bytes, timeout_s: float) -> tuple[str, str, str]:
    """Topic, partition and offset of the event that was sent.

    Raises:
        KafkaException: the broker refuses it.
        BrokerUnavailable: it does not answer.
    """
    told: list[tuple[KafkaError | None, Message]] = []
    # The partitioner of Java's clients: a user's events are in one partition whoever sends them.
    producer = Producer({**kafka.client(), "partitioner": "murmur2_random"}, logger=logging.getLogger("librdkafka"))
    producer.produce(kafka.topics.actions, value, key, on_delivery=lambda *what: told.append(what))
    producer.flush(timeout_s)
    if not told:
        raise BrokerUnavailable(f"{kafka.topics.actions}: the broker did not take the event in {timeout_s:.0f} s")
    error, record = told[0]
    if error is not None:
        raise KafkaException(error)
    return record.topic() or "", str(record.partition()), str(record.offset())


def _answer(record: Record, scores: str, request_id: str, sent: tuple[str, str, str]) -> dict[str, Any] | None:
    """The score of the request, where `record` is it.

    Raises:
        BadEvent: `record` is the dead letter of what was sent (its topic, partition and offset), whole or cut.
    """
    if record.topic() == scores:
        score: dict[str, Any] = json.loads(record.value() or b"")
        return score if score["request_id"] == request_id else None
    headers: dict[str, Any] = dict(record.headers() or [])
    if tuple(headers.get(ERRORS + part, b"").decode() for part in ("topic", "partition", "offset")) == sent:
        raise BadEvent(
            headers[f"{ERRORS}stage"].decode(), headers[f"{ERRORS}exception.message"].decode(errors="replace")
        )
    return None

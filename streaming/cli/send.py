"""One event of your own: sends it to the topic of its stream and shows what became of it."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streaming.app.configured import application
from streaming.app.streams import Stream, spell_time
from streaming.app.topics import TopicNames
from streaming.config import Config, Kafka
from streaming.engine.types import Type
from streaming.errors import BadEvent, BrokerUnavailable, ConfigError, ScorerError, Unavailable
from streaming.events.dead_letter import ERRORS
from streaming.events.record import Record
from streaming.events.scores import event_place, score_json
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.reader import TopicReader
from streaming.kafka.rights import check_topics, named, of_send
from streaming.ops.log import place

__all__ = ["send_and_wait"]

METADATA_TIMEOUT_S = 10.0


def send_and_wait(config: Config, text: str, timeout_s: float = 30.0, stream: str = "") -> dict[str, Any]:
    """Sends one event and waits for its score as a `read_committed` subscriber does.

    Args:
        config: says where Kafka is, which application it is, and how the topics are called.
        text: the event as JSON; without its event time it happens now, without a name of the request (or with null) it
            gets a new one, where its stream has a column for that.
        stream: the event's; "": the first that is scored.

    Returns:
        The score's fields.

    Raises:
        BadEvent: the text is no JSON object with the stream's key, or the scorer made a dead letter of it.
        ConfigError: a topic or the stream does not exist, Kafka refuses the login, or scores carry no id.
        NotAllowed: a topic may not be read or written.
        Unavailable: no answer within `timeout_s` seconds, or Kafka cannot be reached.
        ScorerError: Kafka refuses something.
    """
    if config.kafka.cloudevents == "none":
        raise ConfigError('kafka.cloudevents = "none": no score says which event it is of, so none can be waited for')
    _, topics = application(config)
    topic = _topic(topics, stream)
    key, event = _completed(topics.streams[topic], text)
    kafka = config.kafka.model_copy(update={"give_up_after_s": METADATA_TIMEOUT_S})
    rights = of_send(topics)
    connection = Connection(threading.Event(), login=Login(kafka))
    reader: TopicReader | None = None
    try:
        with named(kafka, rights):
            check_topics(kafka, rights, connection, keys=topics.keys)
            reader = TopicReader(kafka, connection, "read_committed")
            # The ends of today: the answer can only come after them.
            outputs = reader.partitions((topics.scores, topics.dead_letters))
            reader.assign({partition: reader.watermarks(partition)[1] for partition in outputs})
            sent = _produce(kafka, topic, key, json.dumps(event, ensure_ascii=False).encode(), timeout_s)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                for record in reader.read(100, 0.05):
                    if (score := _answer(record, topics.scores, sent)) is not None:
                        return score
    except KafkaException as error:
        raise ScorerError(f"Kafka at {kafka.bootstrap_servers}: {error.args[0].str()}") from error
    finally:
        if reader is not None:
            reader.close()
    raise Unavailable(
        f"no score for {place(sent[0], int(sent[1]), int(sent[2]))} in {timeout_s:.0f} s: is the scorer running?"
    )


def _topic(topics: TopicNames, stream: str) -> str:
    scored = {topics.streams[topic].name: topic for topic in topics.scored}
    if stream and stream not in scored:
        raise ConfigError(f"--stream {stream}: the streams that are scored are {', '.join(scored)}")
    return scored[stream] if stream else topics.scored[0]


def _completed(stream: Stream, text: str) -> tuple[bytes, dict[str, Any]]:
    """The record's key, and the event with a time and a name."""
    key_column = stream.key or ""
    try:
        event = json.loads(text)
        key = event[key_column]
    except (ValueError, RecursionError) as error:
        raise BadEvent("decode", f"not a JSON object with {key_column}: {error}") from error
    except (TypeError, KeyError) as error:
        raise BadEvent("decode", f"not a JSON object with {key_column}") from error
    if isinstance(key, bool) or not isinstance(key, str if stream.column(key_column).type == Type.STRING else int):
        raise BadEvent("decode", f"{key_column} is {json.dumps(key)}, not a {stream.column(key_column).type}")
    event.setdefault(stream.event_time, spell_time(int(time.time() * 1000), stream.timestamp_format))
    named = stream.request_id
    # null is what the scorer takes for none
    if named is not None and stream.column(named).type == Type.STRING and event.get(named) is None:
        event[named] = f"{uuid.uuid4()}"
    return str(key).encode(), event


def _produce(kafka: Kafka, topic: str, key: bytes, value: bytes, timeout_s: float) -> tuple[str, str, str]:
    """Topic, partition and offset of the event that was sent.

    Raises:
        KafkaException: the broker refuses it.
        BrokerUnavailable: it does not answer.
    """
    told: list[tuple[KafkaError | None, Message]] = []
    # The partitioner of Java's clients: a key's events are in one partition whoever sends them.
    producer = Producer({**kafka.client(), "partitioner": "murmur2_random"}, logger=logging.getLogger("librdkafka"))
    producer.produce(topic, value, key, on_delivery=lambda *what: told.append(what))
    producer.flush(timeout_s)
    if not told:
        raise BrokerUnavailable(f"{topic}: the broker did not take the event in {timeout_s:.0f} s")
    error, record = told[0]
    if error is not None:
        raise KafkaException(error)
    return record.topic() or "", str(record.partition()), str(record.offset())


def _answer(record: Record, scores: str, sent: tuple[str, str, str]) -> dict[str, Any] | None:
    """The score of what was sent (its topic, partition and offset), where `record` is it.

    Raises:
        BadEvent: `record` is the dead letter of what was sent, whole or cut.
    """
    if record.topic() == scores:
        mine = event_place(record) == place(sent[0], int(sent[1]), int(sent[2]))
        score: dict[str, Any] | None = json.loads(score_json(record) or b"") if mine else None
        return score
    headers: dict[str, Any] = dict(record.headers() or [])
    if tuple(headers.get(ERRORS + part, b"").decode() for part in ("topic", "partition", "offset")) == sent:
        raise BadEvent(
            headers[f"{ERRORS}stage"].decode(), headers[f"{ERRORS}exception.message"].decode(errors="replace")
        )
    return None

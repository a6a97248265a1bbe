"""Where scores and dead letters go, by `kafka.delivery`."""

from __future__ import annotations

from streaming.app.topics import TopicNames
from streaming.config import Kafka
from streaming.kafka.at_least_once import AtLeastOnce
from streaming.kafka.connection import Connection
from streaming.kafka.producer import Publisher
from streaming.kafka.publishers import Publishers

__all__ = ["open_output"]


def open_output(kafka: Kafka, topics: TopicNames, connection: Connection) -> Publishers | AtLeastOnce:
    """The producers; `start` them before the group is joined.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    if kafka.delivery == "at_least_once":
        return AtLeastOnce(kafka, topics, connection)
    return Publishers(Publisher(kafka, topics, connection))

"""Kafka's clients, handed in: librdkafka's (confluent_kafka) in the process, others in the simulator of the tests.

A client is made of librdkafka's settings. `consumer_settings` are those that every consumer here has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streaming.config import Kafka
from streaming.errors import ConfigError
from streaming.ops.log import Seldom

__all__ = ["LIBRDKAFKA", "KafkaClients", "Librdkafka", "committed_offsets", "consumer_settings", "group_settings"]

_librdkafka = logging.getLogger("librdkafka")  # handled by structlog, see `streaming.ops.log`
_librdkafka.addFilter(Seldom())


class KafkaClients(Protocol):
    """Makes clients.

    Each raises `ConfigError` where a setting is refused.
    """

    def consumer(self, settings: Mapping[str, Any]) -> Consumer: ...
    def producer(self, settings: Mapping[str, Any]) -> Producer: ...
    def admin(self, settings: Mapping[str, Any]) -> AdminClient: ...


class _Admin(AdminClient):
    def list_offsets(self, *arguments: Any, **options: Any) -> Any:
        """As AdminClient's; one that knows no leaders yet may look for them once more after 3 s only (librdkafka).

        Raises:
            KafkaException: no broker tells the topics.
        """
        self.list_topics(timeout=options.get("request_timeout", 5.0))
        return super().list_offsets(*arguments, **options)


class Librdkafka:
    """The real ones, which log through structlog."""

    def consumer(self, settings: Mapping[str, Any]) -> Consumer:
        try:
            return Consumer(dict(settings), logger=_librdkafka)
        except KafkaException as error:
            raise ConfigError(f"kafka: librdkafka refuses the consumer's settings: {error.args[0].str()}") from error

    def producer(self, settings: Mapping[str, Any]) -> Producer:
        try:
            return Producer(dict(settings), logger=_librdkafka)
        except KafkaException as error:
            raise ConfigError(f"kafka: librdkafka refuses the producer's settings: {error.args[0].str()}") from error

    def admin(self, settings: Mapping[str, Any]) -> AdminClient:
        try:
            return _Admin(dict(settings), logger=_librdkafka)
        except KafkaException as error:
            raise ConfigError(f"kafka: librdkafka refuses the settings: {error.args[0].str()}") from error


LIBRDKAFKA = Librdkafka()


def committed_offsets(consumer: Consumer, wanted: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """What the consumer's group has committed of the partitions, one by one as they are wanted.

    Raises:
        KafkaException: the broker does not tell, also where it tells of some partitions only.
    """
    found: list[TopicPartition] = consumer.committed(wanted, timeout=timeout_s)
    for partition in found:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return found


def consumer_settings(kafka: Kafka) -> dict[str, Any]:
    """librdkafka's settings of every consumer here."""
    return {
        **kafka.client(),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Offsets are always given; one that the topic does not hold must be an error, never a silent jump.
        "auto.offset.reset": "error",
        "isolation.level": kafka.isolation_level,
        # An event waits for a fetch at most this long (librdkafka: 500); the broker answers at once when there is data.
        "fetch.wait.max.ms": 100,
        **kafka.librdkafka.consumer,
    }


def group_settings(kafka: Kafka, *, merged: bool) -> dict[str, Any]:
    """librdkafka's settings of a member of the scorers' group.

    Args:
        merged: it reads several topics in the order of their times: partitions of one number go to one member.
    """
    settings = {**consumer_settings(kafka), "enable.partition.eof": True, "group.protocol": kafka.group_protocol}
    if kafka.group_protocol == "consumer" and merged:
        settings["group.remote.assignor"] = "range"
    if kafka.group_protocol == "classic":
        settings["partition.assignment.strategy"] = "range" if merged else kafka.assignor
        settings["session.timeout.ms"] = int(kafka.session_timeout_s * 1000)
        # A member learns by its heartbeat that the others wait for it in a rebalance (librdkafka: each 3 s).
        settings.setdefault("heartbeat.interval.ms", int(min(1.0, kafka.session_timeout_s / 3) * 1000))
    if kafka.static_membership:
        settings["group.instance.id"] = kafka.instance
    return settings

"""Kafka's clients in memory: the calls, callbacks and errors are those that librdkafka has.

`SimulatedClients` is handed to the scorer instead of `streaming.kafka.clients.LIBRDKAFKA`. Errors are drawn by the
schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import confluent_kafka
from confluent_kafka.admin import AdminClient

from simulation.broker import Broker
from simulation.consumer import Admin, Consumer
from simulation.producer import PlainProducer, Producer

__all__ = ["SimulatedClients"]


class SimulatedClients:
    """Makes clients of a broker in memory (`streaming.kafka.clients.KafkaClients`)."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def consumer(self, settings: Mapping[str, Any]) -> confluent_kafka.Consumer:
        return cast(confluent_kafka.Consumer, Consumer(self._broker, settings))

    def producer(self, settings: Mapping[str, Any]) -> confluent_kafka.Producer:
        kind = Producer if "transactional.id" in settings else PlainProducer
        return cast(confluent_kafka.Producer, kind(self._broker, settings))

    def admin(self, settings: Mapping[str, Any]) -> AdminClient:
        return cast(AdminClient, Admin(self._broker))

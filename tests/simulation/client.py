"""What all of Kafka's clients in memory share."""

from __future__ import annotations

from typing import NoReturn

from confluent_kafka import KafkaError, KafkaException

from simulation.broker import Broker
from simulation.world import Process

__all__ = ["Client", "fail"]


class Client:
    """What all kinds share: the process that they belong to."""

    def __init__(self, broker: Broker) -> None:
        self.world, self.broker = broker.world, broker
        self.process: Process = broker.world.process()

    def call(self, name: str) -> None:
        """Anything may happen now: others run, time passes, this process dies or freezes."""
        self.world.point(name)
        self.broker.expire()


def fail(code: int, reason: str, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> NoReturn:
    """Raises what librdkafka would."""
    raise KafkaException(KafkaError(code, reason, fatal=fatal, retriable=retriable, txn_requires_abort=abort))

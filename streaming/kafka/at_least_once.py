"""Scores and dead letters → Kafka without transactions: visible at once, and now and then twice.

`AtLeastOnce` stands where the transactional `Publishers` stand (`kafka.delivery`). What it sends can be read as soon as
the brokers have it; the group's offsets are committed behind it by the consumer (`EventSource.commit`). Whoever dies in
between, or loses a partition, has its last events scored again: the same score under the same `ce_id`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from streaming.app.topics import TopicNames
from streaming.config import Kafka
from streaming.errors import Aborted, BrokerUnavailable, Stopped
from streaming.kafka.connection import Connection
from streaming.kafka.producer import BATCH_BYTES, CLOSE_S, STOP_S, Message, message_bytes_max, produce_all
from streaming.kafka.rights import AUTHORIZATION, Right, denied
from streaming.ops.waiting import Waiting, steady

__all__ = ["AtLeastOnce"]

POLL_S = 0.001  # between two looks whether all was taken
LOOK_S = 0.5  # how often the process counts as alive meanwhile

_log = structlog.stdlib.get_logger("streaming.kafka.at_least_once")


class AtLeastOnce:
    """An idempotent producer: in a partition records keep their order, and none of a batch is lost.

    Args:
        kafka: `[kafka]`.
        topics: of scores and dead letters.
        connection: makes the producer; once its `stop` is set, the brokers are waited for `STOP_S` at most, and its
            `beat` is called while they are.

    Attributes:
        dead_letter_bytes_max: the largest record that the dead-letter topic takes.
    """

    transactional = False

    def __init__(self, kafka: Kafka, topics: TopicNames, connection: Connection) -> None:
        self._kafka, self._connection, self._clock = kafka, connection, connection.clock
        self._scores, self._dead_letters = topics.scores, topics.dead_letters
        written = (self._scores, self._dead_letters)
        limits = message_bytes_max(kafka, connection.admin(kafka), written)
        self.dead_letter_bytes_max = limits[self._dead_letters]
        self._rights = [Right("Write", "topic", topic) for topic in written]
        self._settings = {
            **kafka.client(),
            "enable.idempotence": True,
            # A record that is given up takes all behind it along: else they would be there before it.
            "enable.gapless.guarantee": True,
            "message.max.bytes": max(*limits.values(), 1_000_000),
            # A batch of several records is refused as a whole when it is larger than its topic takes one.
            "batch.size": min(*limits.values(), BATCH_BYTES),
            "linger.ms": 0,
            "message.timeout.ms": int(kafka.give_up_after_s * 1000),
            "delivery.report.only.error": True,
            # Java's partitioner, so that a user has the same partition here as with any Java producer.
            "partitioner": "murmur2_random",
            **kafka.librdkafka.producer,
            "error_cb": connection.heard,
            "on_delivery": self._on_delivery,
        }
        self._failed: KafkaError | None = None
        self._producer = self._open()

    def start(self) -> None:
        """Nothing is left open that would have to be ended."""

    def begin(self) -> None:
        """A batch begins; what became of the last one is known."""

    def scores(self, messages: Sequence[Message]) -> None:
        """Sends scores (key, value, headers)."""
        self._produce(self._scores, messages)

    def dead_letters(self, messages: Sequence[Message]) -> None:
        """Sends dead letters (key, value, headers)."""
        self._produce(self._dead_letters, messages)

    def offsets(
        self, positions: Mapping[tuple[str, int], int], group_metadata: Any, note: Callable[[tuple[str, int]], str]
    ) -> None:
        """Nothing: the consumer commits them, see `EventSource.commit`."""

    def commit(self) -> None:
        """Waits until the brokers have all of it.

        Raises:
            Aborted: they have not, and perhaps a part of it; it is to be sent again.
            BrokerUnavailable: they do not answer for `give_up_after_s`.
            NotAllowed: a right is lacking.
            Stopped: told to stop while they are away.
        """
        waiting = Waiting(self._kafka.give_up_after_s, steady(0.0, 0.0), clock=self._clock)
        leaving = False
        looked = self._clock.monotonic()
        while len(self._producer):
            self._producer.poll(POLL_S)  # `flush` looks each 10 ms only
            if self._clock.monotonic() - looked < LOOK_S:
                continue
            looked = self._clock.monotonic()
            self._connection.beat()
            self._connection.ask_login()
            if self._connection.stop.is_set() and not leaving:
                leaving = True
                waiting.shorten(STOP_S)
            if waiting.is_over:
                self._drop()
                why = "the brokers do not take what was sent"
                if leaving:
                    raise Stopped(why)
                raise BrokerUnavailable(f"{why} for {self._kafka.give_up_after_s:.0f} s")
        if self._failed is not None:
            error = self._failed
            self._drop()
            if error.code() in AUTHORIZATION:
                raise denied(self._kafka, error, self._rights)
            raise Aborted(f"the brokers did not take a record: {error.str()}")

    def hung(self) -> None:
        """No call here waits without an end."""

    def replacement(self) -> None:
        """None is needed."""

    def close(self) -> None:
        """Drops what was not sent."""
        with contextlib.suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(CLOSE_S)

    def _produce(self, topic: str, messages: Sequence[Message]) -> None:
        try:
            produce_all(self._producer, topic, messages, self._connection.beat)
        except KafkaException as error:
            self._drop()
            raise Aborted(f"produce to {topic}: {error.args[0].str()}") from error

    def _on_delivery(self, error: KafkaError | None, _: Any) -> None:
        self._failed = self._failed or error

    def _open(self) -> Producer:
        return self._connection.clients.producer(self._settings)

    def _drop(self) -> None:
        """A new producer, without anything of the batch: an idempotent one that has lost a record may go on no more."""
        _log.warning("the producer is made anew")
        self.close()
        self._failed = None
        self._producer = self._open()

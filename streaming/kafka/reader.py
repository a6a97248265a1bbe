"""How topics are read by consumers without a group; and the errors among what a poll gives, those that pass or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable, OffsetOutOfRange
from streaming.events.record import Record
from streaming.kafka.clients import committed_offsets, consumer_settings
from streaming.kafka.connection import REQUEST_TIMEOUT_S, Connection
from streaming.kafka.rights import Right, check_topics

__all__ = ["REPLAY_CHUNK", "CommittedReader", "Positions", "TopicReader", "records_of"]

Positions = dict[tuple[str, int], int]
"""(topic, partition) → offset of the next record."""

CHUNK = 1000  # records of a topic that is read whole, at once
REPLAY_CHUNK = 10_000  # records that a replay hands out at once: large enough to be fast, small enough to keep polling

_log = structlog.stdlib.get_logger("streaming.kafka.reader")


class TopicReader:
    """A consumer that joins no group, for whole topics.

    Args:
        kafka: `[kafka]`.
        connection: see `Connection`.
        isolation: instead of `kafka.isolation_level`.

    Attributes:
        ends: of the partitions whose end was seen since `assign`, where that was.
        positions: the next record of each partition, as far as it was read.
    """

    def __init__(self, kafka: Kafka, connection: Connection, isolation: str = "") -> None:
        self._connection = connection
        self._patience_s = kafka.give_up_after_s
        settings = {**consumer_settings(kafka), "enable.partition.eof": True}
        if isolation:
            settings["isolation.level"] = isolation
        self._kafka = kafka
        self._consumer = connection.consumer(settings)
        self.ends: Positions = {}
        self.positions: Positions = {}

    def partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        """All partitions of the topics.

        Raises:
            ConfigError: a topic does not exist.
            NotAllowed: it may not be read.
        """
        there = self._connection.retry(
            lambda: self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S), self._patience_s
        ).topics
        if any(topic not in there for topic in topics):
            needs = [Right("Read", "topic", topic) for topic in topics]
            check_topics(self._kafka, needs, self._connection, self._patience_s)
            raise BrokerUnavailable(f"Kafka has {', '.join(topics)}, but does not list all of them yet")
        return [(topic, partition) for topic in topics for partition in there[topic].partitions]

    def watermarks(self, partition: tuple[str, int]) -> tuple[int, int]:
        """The first offset that a partition holds, and the next that it will."""
        target = TopicPartition(*partition)
        low, high = self._connection.retry(
            lambda: self._consumer.get_watermark_offsets(target, timeout=REQUEST_TIMEOUT_S), self._patience_s
        )
        return low, high

    def offsets_at(self, partitions: Sequence[tuple[str, int]], time_ms: int) -> Positions:
        """Of each partition the first record that was written at a time or later; negative: there is none."""
        wanted = [TopicPartition(*partition, time_ms) for partition in partitions]
        found = self._connection.retry(
            lambda: self._consumer.offsets_for_times(wanted, timeout=REQUEST_TIMEOUT_S), self._patience_s
        )
        return {(p.topic, p.partition): p.offset for p in found}

    def committed(self, partitions: Sequence[tuple[str, int]]) -> Positions:
        """What the group `kafka.group_id` has committed; negative where it has nothing.

        Kafka tells it once no transaction is open that changes it.

        Raises:
            KafkaException: the broker does not tell it of a partition.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]
        found = self._connection.retry(
            lambda: committed_offsets(self._consumer, wanted, REQUEST_TIMEOUT_S), self._patience_s
        )
        return {(p.topic, p.partition): p.offset for p in found}

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Reads on from `positions`."""
        self.ends = {}
        self.positions = dict(positions)
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in positions.items()])

    def read(self, count: int, wait_s: float) -> list[Record]:
        """Up to `count` records: waits `wait_s` for the first, and takes what else is there."""
        self._connection.listen()
        messages = self._consumer.consume(1, wait_s)
        if messages and count > 1:
            messages += self._consumer.consume(count - 1, 0.0)
        records = records_of(messages, self.ends, alone=True)
        for record in records:
            self.positions[record.topic(), record.partition()] = record.offset() + 1
        return records

    def close(self) -> None:
        self._consumer.close()


class CommittedReader:
    """What is committed in a topic, up to where it ends at the time of asking.

    A `read_committed` consumer is told the end before the first open transaction, and the markers of one that was
    committed may be written later than the group's offsets of it become visible. So the end is asked for as a
    `read_uncommitted` one, and transactions open before it are waited for.

    Args:
        kafka: `[kafka]`.
        connection: see `Connection`.
        topic: its name.
        patience_s: how long nothing may come.

    Attributes:
        positions: up to where each partition was read.
    """

    def __init__(self, kafka: Kafka, connection: Connection, topic: str, patience_s: float) -> None:
        self.positions: Positions = {}
        self._kafka, self._connection, self._topic, self._patience_s = kafka, connection, topic, patience_s

    def to_end(self) -> Iterator[list[Record]]:
        """The records that came since the last call, in chunks in partition order; empty ones while it waits.

        Raises:
            ConfigError: the topic does not exist.
            BrokerUnavailable: nothing came for `patience_s`.
        """
        spans = self._spans()
        # A topic that ends before where it was read was made anew.
        read_to = self.positions
        starts = {p: max(low, at) if (at := read_to.get(p, 0)) <= high else low for p, (low, high) in spans.items()}
        self.positions |= starts
        left = {p: high for p, (_, high) in spans.items() if starts[p] < high}
        if not left:
            return
        reader = TopicReader(self._kafka, self._connection, "read_committed")
        try:
            reader.assign({p: starts[p] for p in left})
            deadline = self._connection.clock.monotonic() + self._patience_s
            while left:
                records = [r for r in reader.read(CHUNK, 0.1) if r.offset() < spans[r.topic(), r.partition()][1]]
                yield records
                if records:
                    deadline = self._connection.clock.monotonic() + self._patience_s
                for partition, high in list(left.items()):
                    self.positions[partition] = min(
                        max(reader.positions[partition], reader.ends.get(partition, 0)), high
                    )
                    if self.positions[partition] == high:
                        del left[partition]
                if self._connection.clock.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._topic}: nothing came for {self._patience_s:.0f} s, but partitions "
                        f"{sorted(number for _, number in left)} have more: the broker is away, or a transaction is "
                        "open there"
                    )
        finally:
            reader.close()

    def wait_until_closed(self, reader: TopicReader) -> None:
        """Waits until no transaction is open any more of those that were when it was asked; reads nothing.

        Args:
            reader: one that reads what is committed.

        Raises:
            ConfigError: the topic does not exist.
            BrokerUnavailable: one stays open for `patience_s`.
        """
        ends = {partition: high for partition, (_, high) in self._spans().items()}
        deadline = self._connection.clock.monotonic() + self._patience_s
        for partition, end in ends.items():
            while reader.watermarks(partition)[1] < end:
                if self._connection.clock.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._topic}: a transaction was still open in partition {partition[1]} after "
                        f"{self._patience_s:.0f} s"
                    )
                self._connection.rest(f"while a transaction is open in {self._topic}")

    def _spans(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Of each partition the first offset, and the end, committed or not."""
        asking = TopicReader(self._kafka, self._connection, "read_uncommitted")
        try:
            return {partition: asking.watermarks(partition) for partition in asking.partitions([self._topic])}
        finally:
            asking.close()


def records_of(messages: Sequence[Any], ended: Positions | None = None, *, alone: bool = False) -> list[Record]:
    """The records among what a poll gave; ends of partitions go to `ended`, errors that pass are logged.

    Args:
        alone: read in no group: librdkafka looks for the group's coordinator all the same, which may be forbidden.

    Raises:
        OffsetOutOfRange, KafkaException: an error that does not pass.
    """
    records: list[Record] = []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(cast(Record, message))  # without an error, all its parts are there
        elif error.code() == KafkaError._PARTITION_EOF:
            if ended is not None:
                ended[message.topic(), message.partition()] = message.offset()
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise OffsetOutOfRange(f"{message.topic()}[{message.partition()}]: {error.str()}")
        elif alone and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            continue
        elif error.fatal() or error.code() in _NOT_PASSING:
            raise KafkaException(error)
        else:
            _log.warning("kafka", error=error.str(), code=error.name())
    return records


_NOT_PASSING = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._FATAL}

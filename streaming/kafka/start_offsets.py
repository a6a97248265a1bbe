"""Where new partitions start: asked beside the flow, because the answer may take as long as another's transaction.

Kafka does not tell the group's offset of a partition while a transaction that changes it is open. A scorer that died
before it could commit leaves one open until the broker ends it, after `transaction_timeout_s`. Whoever gets its
partitions waits for that; the partitions that it has already must not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable
from streaming.kafka.connection import REQUEST_TIMEOUT_S, Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.reader import CommittedReader, TopicReader
from streaming.kafka.topics import Span
from streaming.ops.background import Start

__all__ = ["Inquiry", "PartitionStart"]

Partition = tuple[str, int]


@dataclass(frozen=True)
class PartitionStart:
    """What Kafka says of a partition.

    Attributes:
        committed: the group's offset; negative: it has none.
        span: what the topic holds.
    """

    committed: int
    span: Span


class Inquiry:
    """One question to Kafka: from where on are these partitions not scored?

    Once it is answered, no transaction of a former owner is open any more that holds an offset of them, has dead
    letters in it or, for who gets partition 0, an offset of a dimension topic: whoever asks for those afterwards does
    not wait long.

    Args:
        kafka: `[kafka]`.
        connection: see `Connection`.
        lineages: read what the group has noted.
        start: does the asking beside the loop.

    Attributes:
        partitions: who gives one up takes it out: its answer is stale once it comes again.
    """

    def __init__(
        self, kafka: Kafka, connection: Connection, lineages: Lineages, partitions: Collection[Partition], start: Start
    ) -> None:
        self.partitions = set(partitions)
        self._kafka, self._connection, self._lineages = kafka, connection.beside(), lineages
        self._asked = sorted(partitions)
        self._starts: dict[Partition, PartitionStart] = {}
        patience_s = kafka.transaction_timeout_s + kafka.give_up_after_s
        self._long_waiting = kafka.model_copy(update={"give_up_after_s": patience_s})
        # Each step below gives up by itself; a call that hangs in librdkafka does not.
        self._until = self._connection.clock.monotonic() + patience_s + 2 * REQUEST_TIMEOUT_S
        self._outcome = start(self._ask)

    def answer(self) -> Mapping[Partition, PartitionStart] | None:
        """What was told; None: nothing yet.

        Raises:
            BrokerUnavailable: nothing for longer than the configuration waits.
            KafkaException: Kafka refuses to tell.
            LogNotWhole: see `Lineages.read_notes`.
            Stopped: told to stop meanwhile.
        """
        try:
            self._outcome.result(0)
        except FutureTimeoutError:
            if self._connection.clock.monotonic() > self._until:
                names = ", ".join(f"{topic}[{number}]" for topic, number in self._asked)
                raise BrokerUnavailable(f"Kafka does not tell where {names} start") from None
            return None
        return self._starts

    def _ask(self) -> None:
        reader = TopicReader(self._long_waiting, self._connection, "read_committed")
        try:
            committed = reader.committed(self._asked)
            if any(number == 0 for _, number in self._asked):
                reader.committed(reader.partitions(self._lineages.topics.names.dimensions))
            letters = CommittedReader(
                self._long_waiting,
                self._connection,
                self._lineages.topics.names.dead_letters,
                self._long_waiting.give_up_after_s,
            )
            letters.wait_until_closed(reader)
            self._lineages.read_notes(self._connection)
            spans = self._lineages.topics.spans(self._asked, self._connection)
            self._starts.update({p: PartitionStart(committed[p], spans[p]) for p in self._asked})
        finally:
            reader.close()

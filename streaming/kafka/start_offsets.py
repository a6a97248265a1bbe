"""Where new partitions start: asked beside the flow, because the answer may take as long as another's transaction.

Kafka does not tell the group's offset of a partition while a transaction that changes it is open. A scorer that died
before it could commit leaves one open until the broker ends it, after `transaction_timeout_s`. Whoever gets its
partitions waits for that; the partitions that it has already must not.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import structlog

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable, OffsetOutOfRange
from streaming.kafka.connection import REQUEST_TIMEOUT_S, Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.reader import CommittedReader, Positions, TopicReader
from streaming.kafka.topics import Span
from streaming.ops.background import Start
from streaming.ops.log import place

__all__ = ["Inquiry"]

Partition = tuple[str, int]

_log = structlog.stdlib.get_logger("streaming.kafka.start_offsets")


@dataclass(frozen=True)
class _Told:
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
        self._told: dict[Partition, _Told] = {}
        patience_s = kafka.transaction_timeout_s + kafka.give_up_after_s
        self._long_waiting = kafka.model_copy(update={"give_up_after_s": patience_s})
        # Each step below gives up by itself; a call that hangs in librdkafka does not.
        self._until = self._connection.clock.monotonic() + patience_s + 2 * REQUEST_TIMEOUT_S
        self._outcome = start(self._ask)

    def answer(self) -> Positions | None:
        """The offsets to go on from, of those `partitions` that have not been given up; None: nothing was told yet.

        Raises:
            BrokerUnavailable: nothing for longer than the configuration waits.
            KafkaException: Kafka refuses to tell.
            LogNotWhole: a topic does not hold what is committed, or is another one; see `Lineages.read_notes`.
            Stopped: told to stop meanwhile.
        """
        try:
            self._outcome.result(0)
        except FutureTimeoutError:
            if self._connection.clock.monotonic() > self._until:
                names = ", ".join(f"{topic}[{number}]" for topic, number in self._asked)
                raise BrokerUnavailable(f"Kafka does not tell where {names} start") from None
            return None
        return {partition: self._start_of(partition) for partition in sorted(self.partitions)}

    def end(self, partition: Partition) -> int:
        """Where a partition ended when it was asked, once there is an `answer`."""
        return self._told[partition].span.end

    def _start_of(self, partition: Partition) -> int:
        """The offset to go on from.

        Raises:
            OffsetOutOfRange: the topic does not hold what is committed.
        """
        committed, span = self._told[partition].committed, self._told[partition].span
        if committed >= 0 and self._lineages.is_of_former_topic(partition):
            return span.low  # as `Lineages.read_notes` has allowed
        if committed < 0:
            return span.low if self._kafka.start == "earliest" else span.end
        if not (lack := span.lacks(committed)):
            return committed
        self._lineages.topics.check()  # if it was made anew meanwhile, that is what has to be said
        why = f"group {self._kafka.group_id!r} has committed {place(*partition, committed)}, but {lack}"
        if not self._kafka.begin_anew:
            raise OffsetOutOfRange(
                f"{why}: records that were not scored are gone; kafka.begin_anew = true for one start: go on with what "
                "the topic holds, or reset the group's offsets (kafka-consumer-groups.sh --reset-offsets)"
            )
        _log.warning("records are gone: begins anew with what the topic holds", why=why)
        return span.low

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
            self._told.update({p: _Told(committed[p], spans[p]) for p in self._asked})
        finally:
            reader.close()

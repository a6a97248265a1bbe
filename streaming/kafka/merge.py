"""Records of topics that are partitioned alike, in the order of their times: partition 3 of each with one another.

An event shall see what happened before it, in whatever topic. So of the partitions of one number the record that was
written first comes first; of equal times, that of the topic that is named first; a partition's own order is kept. Who
has nothing to offer is waited for: `LAGGING_S` while its partition has more records, `wait_s` once its end is reached
(as Kafka Streams does). What comes later than that is taken when it comes. Time in which nobody read is no waiting: a
process that stood still for a second has not asked anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from streaming.events.record import Record
from streaming.ops.clock import Clock

__all__ = ["LAGGING_S", "TimeMerge"]

LAGGING_S = 5.0

READS_MIN = 3
"""So often was read since a record came before it goes ahead of a silent partition."""

Partition = tuple[str, int]


class _Held(NamedTuple):
    """A record that waits for its turn.

    Attributes:
        came, read: when it was read, and the number of that read.
        time_ms: when it was written, not after that.
    """

    record: Record
    came: float
    read: int
    time_ms: int


class TimeMerge:
    """What was read and not handed out yet.

    Args:
        topics: in their order.
        wait_s: for how long a partition that is read to its end is waited for.
        room: a partition with so many records here need not be read on.
        clock: counts what is waited.
        lagging_s: for how long a partition that has more records is waited for.
    """

    def __init__(
        self, topics: Sequence[str], wait_s: float, room: int, clock: Clock, *, lagging_s: float = LAGGING_S
    ) -> None:
        self._topics, self._wait_s, self._room, self._clock = tuple(topics), wait_s, room, clock
        self._lagging_s = lagging_s
        # Of each record the moment when it came, and its time: no clock of a producer that is ahead holds up the rest.
        self._queues: dict[Partition, deque[_Held]] = {}
        self._reads = 0

    def add(self, records: Sequence[Record]) -> None:
        """Takes in what a read gave, nothing too; each partition's records in its order."""
        self._reads += 1
        now, wall_ms = self._clock.monotonic(), int(self._clock.wall() * 1000)
        for record in records:
            held = _Held(record, now, self._reads, min(record.timestamp()[1], wall_ms))
            self._queues.setdefault((record.topic(), record.partition()), deque()).append(held)

    def take(self, count: int, assigned: Collection[Partition], at_end: Callable[[Partition], bool]) -> list[Record]:
        """Up to `count` records whose turn it is.

        Args:
            assigned: the partitions that are read; others are not waited for.
            at_end: whether a partition is read to its end.
        """
        taken: list[Record] = []
        for number in sorted({number for (_, number), queue in self._queues.items() if queue}):
            together = [(topic, number) for topic in self._topics if (topic, number) in assigned]
            while len(taken) < count and (record := self._next(together, at_end)) is not None:
                taken.append(record)
        return taken

    def next_offset(self, partition: Partition, otherwise: int) -> int:
        """The offset behind the last record that is held of a partition."""
        queue = self._queues.get(partition)
        return queue[-1].record.offset() + 1 if queue else otherwise

    def holds(self, partition: Partition) -> bool:
        """Whether records of a partition wait here."""
        return bool(self._queues.get(partition))

    def drop(self, partition: Partition) -> None:
        """Forgets what is held of a partition: it is read again, or by somebody else."""
        self._queues.pop(partition, None)

    def crowded(self) -> set[Partition]:
        """The partitions that need not be read on for now."""
        return {partition for partition, queue in self._queues.items() if len(queue) >= self._room}

    def _next(self, together: Sequence[Partition], at_end: Callable[[Partition], bool]) -> Record | None:
        """The record whose turn it is among partitions of one number; None: one is waited for, or none has any."""
        first: deque[_Held] | None = None
        silent: list[Partition] = []
        for partition in together:
            queue = self._queues.get(partition)
            if not queue:
                silent.append(partition)
            elif first is None or queue[0].time_ms < first[0].time_ms:
                first = queue
        if first is None:
            return None
        if silent and self._reads - first[0].read < READS_MIN:
            return None
        waited = self._clock.monotonic() - first[0].came
        if any(waited < (self._wait_s if at_end(partition) else self._lagging_s) for partition in silent):
            return None
        return first.popleft().record

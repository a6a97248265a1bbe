"""The dimension topics: every scorer reads each of them whole.

Like those of `streaming.kafka.event_source`, positions are kept here, and offsets travel in the scores' transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streaming.config import Kafka
from streaming.errors import OffsetOutOfRange
from streaming.events.record import Record
from streaming.kafka.connection import Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.reader import REPLAY_CHUNK, Positions, TopicReader
from streaming.kafka.topics import Span

__all__ = ["DimensionSource"]


class DimensionSource:
    """The dimension topics: every scorer reads each of them whole.

    Args:
        kafka: `[kafka]`.
        connection: see `Connection`.
        lineages: what the topics hold, and what the group's state is made of.

    Attributes:
        positions: the next record of each partition.
        committed: up to where the group has published the dead letters of these topics.
    """

    def __init__(self, kafka: Kafka, connection: Connection, lineages: Lineages) -> None:
        self._logs, self._lineages = lineages.topics, lineages
        self.topics = lineages.topics.names.dimensions
        self.positions: Positions = {}
        self.committed: Positions = {}
        self._kafka, self._connection = kafka, connection
        self._reader: TopicReader | None = None
        self._told_ends: Positions = {}  # where partitions ended when it was last asked, until `look_again`

    def restart(self, held: Mapping[tuple[str, int], int]) -> None:
        """Reads everything: from what is `held` in the tables, or from where their lineage begins.

        Args:
            held: of some partitions; of the others nothing is in the tables but history.

        Raises:
            LogNotWhole: records are gone that the tables need.
        """
        self.close()
        self._reader = reader = TopicReader(self._kafka, self._connection)
        spans = self._logs.spans(reader.partitions(self.topics))
        for partition, offset in held.items():
            if lack := spans.get(partition, Span(0, 0)).lacks(offset):
                raise OffsetOutOfRange(
                    f"the state of {partition[0]}[{partition[1]}] stands at offset {offset}, but {lack}"
                )
        self.positions = {
            p: held[p] if p in held else self._lineages.first_offset(p, span) for p, span in spans.items()
        }
        self._told_ends = {partition: span.end for partition, span in spans.items()}
        self.ask_committed()
        reader.assign(self.positions)

    def follow(self, tail: int = 0) -> None:
        """Reads on from what the group has committed: a store that keeps its rows has those before.

        Args:
            tail: from so many offsets before it.

        Raises:
            LogNotWhole: records are gone that were never inserted.
        """
        self.close()
        self._reader = reader = TopicReader(self._kafka, self._connection)
        spans = self._logs.spans(reader.partitions(self.topics))
        self.positions = {partition: span.low for partition, span in spans.items()}
        self.ask_committed()
        for partition, committed in self.committed.items():
            lack = spans[partition].lacks(committed, only_before=True) if committed > 0 else ""
            if lack and not self._kafka.begin_anew:
                raise OffsetOutOfRange(
                    f"group {self._kafka.group_id!r} has inserted {partition[0]}[{partition[1]}] up to offset "
                    f"{committed}, but {lack}: the rows between are in no table; "
                    "load them (`jd-intent-score load`), then set kafka.begin_anew = true for one start"
                )
        self.positions = {p: max(low, self.committed.get(p, 0) - tail) for p, low in self.positions.items()}
        self._told_ends = {partition: span.end for partition, span in spans.items()}
        reader.assign(self.positions)

    def look_again(self) -> None:
        """Is not `caught_up` until the ends are seen again: rows may have come while nobody read."""
        self._told_ends = {}
        if self._reader is not None:
            self._reader.assign(self.positions)

    def ask_committed(self) -> None:
        """Asks the group how far the dead letters of these topics are published."""
        if self._reader is not None:
            committed = self._reader.committed(list(self.positions))
            # What was committed of a topic that was made anew since says nothing of the one that is there.
            self.committed = {
                p: 0 if self._lineages.is_of_former_topic(p) else max(offset, 0) for p, offset in committed.items()
            }

    def unpublished(self) -> Iterator[list[Record]]:
        """The records before `positions` that the group has not committed: their dead letters may be missing."""
        reader = TopicReader(self._kafka, self._connection)
        try:
            targets = {p: offset for p, offset in self.positions.items() if self.committed.get(p, 0) < offset}
            # What retention has deleted can be read by nobody: its dead letters are lost with it.
            starts = {p: max(self.committed.get(p, 0), reader.watermarks(p)[0]) for p in targets}
            reader.assign(starts)
            while any(reader.positions[p] < targets[p] and p not in reader.ends for p in targets):
                records = reader.read(REPLAY_CHUNK, 0.1)
                yield [r for r in records if r.offset() < targets[r.topic(), r.partition()]]
        finally:
            reader.close()

    @property
    def caught_up(self) -> bool:
        """Each partition was read to its end of the time of `restart` or `look_again`, or a later one.

        An end is seen when the broker has waited for more in vain, which takes a while; one that was told is reached
        by the last record before it.
        """
        if self._reader is None:
            return False
        told, seen = self._told_ends, self._reader.ends
        return all(p in seen or (p in told and at >= told[p]) for p, at in self.positions.items())

    def poll(self, count: int, wait_s: float = 0.0) -> list[Record]:
        """Up to `count` records, in partition order."""
        if self._reader is None:
            return []
        records = self._reader.read(count, wait_s)
        for record in records:
            self.positions[record.topic(), record.partition()] = record.offset() + 1
        # Markers of transactions, and aborted records, are offsets that nobody ever gets.
        for partition, end in self._reader.ends.items():
            self.positions[partition] = max(self.positions[partition], end)
        return records

    def rewind(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Reads again from `positions`."""
        if self._reader is not None and positions != self.positions:
            self.positions = dict(positions)
            self._reader.assign(self.positions)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

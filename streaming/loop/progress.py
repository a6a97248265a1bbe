"""How far the loop has come: the offsets that are read, the batch in flight, and the offsets that a batch commits.

Every scorer reads the dimension topics whole; the one that has partition 0 of the events publishes their dead letters
and commits their offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streaming.events.batch import Refusals
from streaming.events.record import Record
from streaming.kafka.dimension_source import DimensionSource
from streaming.kafka.event_source import EventSource
from streaming.kafka.reader import Positions
from streaming.loop.batch import Batch
from streaming.ops.clock import SYSTEM_CLOCK, Clock
from streaming.state.snapshots import Standing

__all__ = ["Progress"]

Partition = tuple[str, int]
"""Topic and number."""

RENEW_S = 3600.0  # how often the offsets of the dimension topics are committed again


class Progress:
    """The positions of both sources, and what is under way.

    Args:
        source, dimensions: where records are read.
        mark: names the store's rows as they are now; None where a store takes no rows back.
        newest: per partition of the events the greatest event time of a snapshot's, epoch milliseconds.
        clock: counts when offsets are renewed.

    Attributes:
        in_flight: the batch that the model works on; none: it was forgotten, or there is none.
        following: the batch that was read behind it while it is waited for.
        open: partitions of which records were read that no batch has yet.
        newest: per partition of the events the greatest event time that was scored, epoch milliseconds.
    """

    def __init__(
        self,
        source: EventSource,
        dimensions: DimensionSource,
        mark: Callable[[], Any],
        newest: Mapping[Partition, int] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.source, self.dimensions = source, dimensions
        self.in_flight: Batch | None = None
        self.following: Batch | None = None
        self.open: set[Partition] = set()
        self.newest: dict[Partition, int] = dict(newest or {})
        self._mark, self._clock = mark, clock
        self._renewed = clock.monotonic()

    def batch(self) -> Batch:
        """An empty batch at the present positions."""
        return Batch(self._mark(), dict(self.source.positions), dict(self.dimensions.positions))

    def standing(self) -> Standing:
        """The state as it is now."""
        return Standing(self._mark(), self.source.standing(), dict(self.dimensions.positions), self.newest)

    def rewind(self, batch: Batch) -> None:
        """Reads a batch again, and all that was read after it; none is in flight any more."""
        self.in_flight = None
        self.source.rewind(batch.starts)
        self.dimensions.rewind(batch.dimension_starts)

    def owns_dimensions(self) -> bool:
        """Does this scorer publish the dead letters of the dimension topics?"""
        return (self.source.topics[0], 0) in self.source.positions

    def offsets_behind(self, records: Sequence[Record]) -> Positions:
        """The offsets to commit with a batch of these events' records."""
        touched = {(record.topic(), record.partition()) for record in records}
        return {partition: self.source.positions[partition] for partition in sorted(touched)} | self.dimension_offsets()

    def dimension_offsets(self) -> Positions:
        """The offsets of the dimension topics to commit with a batch, by the scorer that publishes their dead letters.

        The group is not subscribed to these topics, so Kafka forgets their offsets `offsets.retention.minutes` (7 days)
        after they were committed last, whoever is alive: they are committed again every `RENEW_S`, moved or not.
        """
        if not self.owns_dimensions():
            return {}
        due = self._clock.monotonic() - self._renewed > RENEW_S
        committed = self.dimensions.committed
        # Only forward: while a rebuild reads these topics anew, it is behind what the group has published already.
        moved = {p: o for p, o in self.dimensions.positions.items() if o > committed.get(p, 0)}
        if not due:
            return moved
        self._renewed = self._clock.monotonic()
        return {p: committed.get(p, 0) for p in self.dimensions.positions} | moved

    def note_committed(self, offsets: Positions) -> None:
        """These are committed."""
        self.source.note_committed(offsets)
        if self.owns_dimensions():
            topics = self.dimensions.topics
            self.dimensions.committed.update({p: offset for p, offset in offsets.items() if p[0] in topics})

    def ours_to_publish(self, refused: Refusals) -> Refusals:
        """Those dead letters of dimension topics that are this scorer's to publish, and were not published yet."""
        if not self.owns_dimensions():
            return []
        committed = self.dimensions.committed
        return [(r, why) for r, why in refused if r.offset() >= committed.get((r.topic(), r.partition()), 0)]

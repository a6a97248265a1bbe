"""Reads the topics in which labels are, from the first event on that a kept score is of.

Up to which event time labels are known: a partition that is read to its end holds nothing back; one that is not yet
does as far as it was read. So the clock is that of the events: old data that is replayed matures as it did then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from confluent_kafka import KafkaException

from streaming.app.inputs import InputDecoder
from streaming.board.events import EventGone, origin_of
from streaming.board.outcomes import Outcomes
from streaming.events.batch import EventBatch
from streaming.events.record import Record
from streaming.kafka.reader import Positions, TopicReader

__all__ = ["LabelFollower", "Reached"]

REST, REST_IN_BURST = 0.25, 4.0  # times as long as a batch has taken
BATCH = 500  # records that are decoded at once: a burst of them keeps no click waiting
WAIT_S = 0.1
FIRST_S = 3.0  # for the first record of a partition that has one
LAG_MS = 3_600_000  # of a scorer, where a score does not say which event it is of
PARTITIONS_S = 30.0  # between two looks at whether a topic has more of them

Place = tuple[str, int]


class Reached:
    """Up to which event time the partitions of some topics have been read."""

    def __init__(self) -> None:
        self._times: dict[Place, int] = {}

    def see(self, events: EventBatch) -> None:
        """Takes the times of events that were read."""
        for record, time_ms in zip(events.records, events.times.tolist(), strict=True):
            place = (record.topic(), record.partition())
            self._times[place] = max(time_ms, self._times.get(place, time_ms))

    def until(self, behind: Collection[Place]) -> int | None:
        """Up to when all is known, epoch ms; None: no event has been read, or none of a partition that has some.

        Args:
            behind: the partitions that have not been read to their end.
        """
        if not behind:
            return max(self._times.values(), default=None)
        times = [self._times.get(place) for place in behind]
        known = [time_ms for time_ms in times if time_ms is not None]
        return min(known) if len(known) == len(times) else None


class LabelFollower:
    """See `follow`.

    Args:
        new_reader: makes a reader of topics.
        starts: when the look-back of the scores begins, epoch ms, and where in each of their partitions.
        decoder: of this thread alone.
        outcomes: what it fills; it has labels.
        stop: ends it.
    """

    def __init__(
        self,
        new_reader: Callable[[], TopicReader],
        starts: Callable[[TopicReader], tuple[int, Positions]],
        decoder: InputDecoder,
        outcomes: Outcomes,
        stop: threading.Event,
    ) -> None:
        if outcomes.labels is None:
            raise ValueError("there are no labels to follow")
        self._topics = outcomes.labels.topics
        self._new_reader, self._starts, self._decoder = new_reader, starts, decoder
        self._outcomes, self._stop = outcomes, stop

    def follow(self, positions: Positions) -> None:
        """Reads until it is told to stop, or a topic has more partitions.

        Args:
            positions: where it goes on, which is kept up to date; empty: at the first event that is needed.
        """
        reader = self._new_reader()
        try:
            partitions = reader.partitions(self._topics)
            cut = self._begin(reader, positions, partitions)
            positions |= {place: 0 for place in partitions if place not in positions}  # made since
            reader.assign(positions)
            reached, looked = Reached(), time.monotonic()
            while not self._stop.is_set():
                records = reader.read(BATCH, WAIT_S)
                began = time.monotonic()
                self._take(records, cut, reached)
                positions |= reader.positions
                behind = [place for place in partitions if reader.ends.get(place, -1) < positions[place]]
                self._outcomes.reach(reached.until(behind), loaded=not behind)
                # Labels can wait, scores and clicks cannot.
                if records:
                    self._stop.wait((time.monotonic() - began) * (REST_IN_BURST if self._outcomes.in_burst() else REST))
                if time.monotonic() - looked > PARTITIONS_S:
                    looked = time.monotonic()
                    if len(reader.partitions(self._topics)) > len(partitions):
                        return
        finally:
            reader.close()

    def _take(self, records: list[Record], cut: set[Place], reached: Reached) -> None:
        if not records:
            return
        events, _ = self._decoder.decode(records, replayed=True)
        reached.see(events)
        for record, time_ms in zip(events.records, events.times.tolist(), strict=True) if cut else ():
            place = (record.topic(), record.partition())
            if place in cut:
                cut.remove(place)
                self._outcomes.begins(time_ms)
        self._outcomes.take(events)

    def _begin(self, reader: TopicReader, positions: Positions, partitions: list[Place]) -> set[Place]:
        """Sets where reading begins, where nothing has been read yet; the partitions that lack records of before."""
        if positions:
            return set()
        since = self._first_event_ms(reader)
        at = reader.offsets_at(partitions, since)
        cut = set()
        for place in partitions:
            low, high = reader.watermarks(place)
            positions[place] = max(low, high if at[place] < 0 else at[place])
            if positions[place] == low > 0:
                cut.add(place)
        return cut

    def _first_event_ms(self, reader: TopicReader) -> int:
        """When the first of the events was written that the scores of the look-back are of; 0: that one is gone."""
        since, starts = self._starts(reader)
        found = [since]
        for place, start in starts.items():
            score = self._first(reader, place, start)
            if score is None:
                continue
            try:
                topic, partition, offset = origin_of(score)
                low, high = reader.watermarks((topic, partition))
            except (EventGone, KafkaException):  # another program's score
                found.append(score.timestamp()[1] - LAG_MS)
                continue
            event = self._first(reader, (topic, partition), offset) if low <= offset < high else None
            found.append(0 if event is None else event.timestamp()[1])
        return max(0, min(found))

    def _first(self, reader: TopicReader, place: Place, offset: int) -> Record | None:
        """The first record of a partition from an offset on; None: there is none."""
        reader.assign({place: offset})
        until = time.monotonic() + FIRST_S
        while place not in reader.ends and time.monotonic() < until and not self._stop.is_set():
            for record in reader.read(1, WAIT_S):
                if (record.topic(), record.partition()) == place and record.offset() >= offset:
                    return record
        return None

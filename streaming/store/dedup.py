"""Events that come again: one that repeats a `request_id` within the horizon is neither scored nor inserted.

A producer that lost an answer sends once more, a shop's gateway replays: the same request id, the same user, hence the
same partition. Who repeats whom is a function of the log alone, record by record in the order of the partition, so that
the loop, a rebuild and the predict server's copy agree, however records are cut into batches:

    a record repeats if an earlier one of its partition was accepted under the same id, at most `horizon` before.

Accepted are records that are scored: dead letters are not, so that an id may come again after a refusal. Only an id
that the message carries counts: the default one repeats within a second by right. "Before" is measured on the
partition's clock, the greatest timestamp of its accepted records, which never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streaming.engine.errors import BadRow
from streaming.engine.storage.snapshot import Piece
from streaming.events.batch import EventBatch

__all__ = ["REQUEST_IDS", "SeenRequests"]

REQUEST_IDS = "request ids"
"""The name of the index among a snapshot's parts, and among the sizes of the state."""

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), False),
        pa.field("partition", pa.int32(), False),
        pa.field("id", pa.string(), False),
        pa.field("time", pa.int64(), False),
    ]
)
CHUNK = 8_192  # entries that are forgotten, and written to a snapshot, at a time: a millisecond or two
UNDONE_MAX = 4 * CHUNK  # as many of a partition can be rolled back: three batches are under way, of 10,000 at most
ENTRY_BYTES = 300  # of one entry: the text, an entry of a dict, a tuple

Partition = tuple[str, int]
"""Topic and number."""

Mark = Mapping[Partition, int]
"""How many ids each partition had accepted."""


class Entry(NamedTuple):
    """An accepted id; `time`: the partition's clock, epoch ms; `before`: when the same id was accepted last."""

    id: str
    time: int
    before: int | None


class SeenRequests:
    """The request ids that were accepted, by partition, as far back as the horizon (and a little: whole chunks go).

    Args:
        horizon_ms: how long an id is remembered, by the partition's clock.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._partitions: dict[Partition, _Partition] = {}

    def __len__(self) -> int:
        return sum(partition.count - partition.gone for partition in self._partitions.values())

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        """Those that repeat none before them; they are accepted.

        Args:
            events: in the order of each partition.
        """
        kept = np.ones(len(events), np.bool_)
        for number, (name, record) in enumerate(zip(events.sender_ids, events.records, strict=True)):
            if name is None:
                continue
            place = (record.topic(), record.partition())
            partition = self._partitions.get(place)
            if partition is None:
                partition = self._partitions[place] = _Partition(self._horizon_ms)
            kept[number] = partition.accept(name, record.timestamp()[1])
        return events.take(kept)

    def mark(self) -> Mark:
        """This moment, for `rollback` and `capture`."""
        return {place: partition.count for place, partition in self._partitions.items()}

    def rollback(self, mark: Mark) -> None:
        """Forgets what was accepted since `mark`.

        Raises:
            RuntimeError: ids of a partition were forgotten since, and it is more than `UNDONE_MAX` back.
        """
        for place, partition in self._partitions.items():
            partition.undo(partition.count - mark.get(place, 0))

    def clear(self) -> None:
        """Forgets everything."""
        self._partitions.clear()

    def capture(self, mark: Mark) -> Iterator[Piece]:
        """What was accepted at a mark, bit by bit, while more is accepted; it must never be rolled back behind."""
        parts = [
            (place, list(partition.chunks), max(0, mark.get(place, 0) - partition.gone))
            for place, partition in self._partitions.items()
        ]
        return _pieces(parts)

    def restore(self, batch: pa.RecordBatch) -> None:
        """Puts in what a capture gave, batch by batch in its order.

        Raises:
            BadRow: it is no part of a capture.
        """
        if not batch.schema.equals(SCHEMA):
            raise BadRow(f"{REQUEST_IDS}: other columns")
        for topic, number, text, time in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            partition = self._partitions.get((topic, number))
            if partition is None:
                partition = self._partitions[topic, number] = _Partition(self._horizon_ms)
            if time < partition.clock:
                raise BadRow(f"{REQUEST_IDS}: the clock of {topic}[{number}] goes back to {time}")
            partition.add(text, time)


class _Partition:
    """The ids of one partition.

    Attributes:
        chunks: entries in the order in which they were accepted; all chunks but the last one are full.
        count, gone: how many entries there ever were, and how many of them, the oldest, are forgotten.
        clock: the time of the entry that was accepted last, epoch ms.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self.chunks: deque[list[Entry]] = deque([[]])
        self.count = self.gone = self.clock = 0
        self._floor = 0  # to how few entries it can be rolled back
        self._times: dict[str, int] = {}

    def accept(self, text: str, written_ms: int) -> bool:
        """Takes an id in, unless it repeats one."""
        time = max(self.clock, written_ms)
        before = self._times.get(text)
        if before is not None and time - before <= self._horizon_ms:
            return False
        self.add(text, time)
        return True

    def add(self, text: str, time: int) -> None:
        self.chunks[-1].append(Entry(text, time, self._times.get(text)))
        self._times[text] = self.clock = time
        self.count += 1
        if len(self.chunks[-1]) == CHUNK:
            self.chunks.append([])
            self._forget()

    def undo(self, count: int) -> None:
        """Takes the newest entries out."""
        if count <= 0:
            return
        if self.count - count < self._floor:
            raise RuntimeError(f"{count} request ids are to be forgotten: what the oldest of them pushed out is gone")
        for _ in range(count):
            if not self.chunks[-1]:
                self.chunks.pop()
            text, _, before = self.chunks[-1].pop()
            # An entry before it that is forgotten was over by the clock to which this goes back, too.
            if before is not None and self.chunks[0] and before >= self.chunks[0][0].time:
                self._times[text] = before
            else:
                del self._times[text]
        self.count -= count
        newest = next((chunk[-1] for chunk in islice(reversed(self.chunks), 2) if chunk), None)
        self.clock = newest.time if newest else 0

    def _forget(self) -> None:
        """Drops chunks whose last entry is over, and stays so when `UNDONE_MAX` entries are rolled back."""
        kept = UNDONE_MAX // CHUNK + 1  # full chunks, beside the one that was just begun
        while len(self.chunks) > kept + 1:
            oldest = self.chunks[0]
            if oldest[-1].time >= self.chunks[-kept - 1][0].time - self._horizon_ms:
                return
            self.chunks.popleft()
            self.gone += len(oldest)
            self._floor = self.count - UNDONE_MAX
            for text, time, _ in oldest:
                if self._times.get(text) == time:
                    del self._times[text]


def _pieces(parts: Sequence[tuple[Partition, list[list[Entry]], int]]) -> Iterator[Piece]:
    for place, chunks, count in parts:
        for first, chunk in zip(range(0, count, CHUNK), chunks, strict=False):
            yield partial(_batch, place, chunk[: count - first])


def _batch(place: Partition, entries: list[Entry]) -> pa.RecordBatch:
    topic, number = place
    columns = [
        [topic] * len(entries),
        [number] * len(entries),
        [entry.id for entry in entries],
        [entry.time for entry in entries],
    ]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)

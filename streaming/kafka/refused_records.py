"""Which records are among the dead letters already: whoever could read them now, they are done.

The state is a function of the records that were scored. A scorer that was mended, or configured anew, may take records
that its predecessor has refused: inserted when the log is read again, they would change windows whose scores are
published. So they are left out, wherever records are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from streaming.config import Kafka
from streaming.events.dead_letter import ERRORS, FINGERPRINT, GROUP, fingerprint, origin_headers
from streaming.events.record import Record
from streaming.kafka.connection import Connection
from streaming.kafka.reader import CommittedReader
from streaming.kafka.topics import topic_id

__all__ = ["Refused"]

Partition = tuple[str, int]


class Refused:
    """The records that committed dead letters of this group name as their origin.

    16 bytes for each dead letter that the topic holds. A letter names topic, partition and offset, and the record's
    fingerprint: another record at that place, in a topic that was made anew, is not the one.

    Args:
        kafka: `[kafka]`.
        topic: of the dead letters.
        connection: see `Connection`.
    """

    def __init__(self, kafka: Kafka, topic: str, connection: Connection) -> None:
        self._group = kafka.group_id
        # A dead scorer's transaction is open until the broker ends it.
        patience_s = kafka.transaction_timeout_s + kafka.give_up_after_s
        self._reader = CommittedReader(kafka, connection, topic, patience_s)
        self._kafka, self._topic, self._connection = kafka, topic, connection
        self._topic_id = ""
        self._known: dict[Partition, _Known] = {}

    def update(self) -> Iterator[int]:
        """Reads what has come into the dead-letter topic since the last call, up to its present end.

        Whoever asks after a partition's committed offset was told finds every record before it that was refused.

        Yields:
            How many letters each chunk had; 0 while an open transaction is waited for.

        Raises:
            ConfigError: the topic does not exist.
            BrokerUnavailable: Kafka is away, or a transaction stays open, for longer than the configuration waits.
        """
        found: dict[Partition, list[tuple[int, int]]] = {}
        now = topic_id(self._kafka, self._connection, self._topic)
        if now != self._topic_id:  # the first time, or the topic was made anew: all that is in it is new
            self._topic_id = now
            self._reader.positions.clear()
        try:
            for letters in self._reader.to_end():
                for letter in letters:
                    _, why = origin_headers(letter)
                    try:
                        partition = why[f"{ERRORS}topic"], int(why[f"{ERRORS}partition"])
                        origin = int(why[f"{ERRORS}offset"]), int(why[FINGERPRINT], 16)
                    except (KeyError, ValueError):
                        continue  # another program's
                    if why.get(GROUP) == self._group:
                        found.setdefault(partition, []).append(origin)
                yield len(letters)
        finally:  # what was read is not read again, even when the caller has left
            for partition, origins in found.items():
                self._known.setdefault(partition, _Known()).add(origins)

    def reaches(self, partition: Partition, offset: int) -> bool:
        """Was a record of the partition refused that lies at the offset or behind it?"""
        return partition in self._known and self._known[partition].last >= offset

    def drop(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records without those that were refused."""
        if not self._known:
            return records
        numbers: dict[Partition, list[int]] = {}
        for number, record in enumerate(records):
            numbers.setdefault((record.topic(), record.partition()), []).append(number)
        gone: set[int] = set()
        for partition, mine in numbers.items():
            if known := self._known.get(partition):
                hits = known.at(np.array([records[number].offset() for number in mine], np.int64))
                gone.update(mine[n] for n in hits.tolist() if known.names(records[mine[n]]))
        return [record for number, record in enumerate(records) if number not in gone] if gone else records


class _Known:
    """Of one partition: the offsets, sorted, and beside each a fingerprint."""

    def __init__(self) -> None:
        self._offsets: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._prints: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    @property
    def last(self) -> int:
        return int(self._offsets[-1])

    def add(self, origins: Sequence[tuple[int, int]]) -> None:
        offsets = np.concatenate([self._offsets, np.array([offset for offset, _ in origins], np.int64)])
        prints = np.concatenate([self._prints, np.array([mark for _, mark in origins], np.uint64)])
        order = np.argsort(offsets, kind="stable")
        self._offsets, self._prints = offsets[order], prints[order]

    def at(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which of `offsets` are known."""
        places = np.minimum(np.searchsorted(self._offsets, offsets), len(self._offsets) - 1)
        found: npt.NDArray[np.int64] = np.flatnonzero(self._offsets[places] == offsets)
        return found

    def names(self, record: Record) -> bool:
        first, end = np.searchsorted(self._offsets, [record.offset(), record.offset() + 1])
        return np.uint64(int(fingerprint(record), 16)) in self._prints[first:end]

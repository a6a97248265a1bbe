"""The group's offsets, committed beside the loop, which need not wait: for who publishes without transactions.

What fails is tried again, as long as its partition stays and nothing newer of it was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streaming.kafka.reader import Positions
from streaming.ops.clock import Clock
from streaming.ops.log import place

__all__ = ["OffsetCommits"]

AGAIN_S = 1.0  # between two tries of what has failed

_log = structlog.stdlib.get_logger("streaming.kafka.offset_commits")


class OffsetCommits:
    """What was sent, what of it failed, and what the group has.

    Args:
        send: the consumer's commit, which does not wait: `on_commit` is told how it went.
        clock: of the tries.
    """

    def __init__(self, send: Callable[[list[TopicPartition]], None], clock: Clock) -> None:
        self._send, self._clock = send, clock
        self._sent: dict[tuple[str, int], TopicPartition] = {}  # the newest of each partition since it came
        self._failed: set[tuple[str, int]] = set()
        self._acknowledged: Positions = {}
        self._tried = 0.0

    def commit(self, positions: Positions, note: Callable[[tuple[str, int]], str]) -> None:
        """Commits without waiting: `commit_again` does what fails.

        May be called from another thread than the others, but `commit_again`.

        Args:
            note: what is written beside the offset of a partition.
        """
        offsets = [TopicPartition(*p, offset, metadata=note(p)) for p, offset in positions.items()]
        self._sent.update({(of.topic, of.partition): of for of in offsets})
        self._try(offsets)

    def commit_again(self) -> None:
        """What could not be committed, once a second, of the partitions that have stayed since. Not beside `commit`: an
        older offset must not overtake a newer one."""
        now = self._clock.monotonic()
        if not self._failed or now - self._tried < AGAIN_S:
            return
        self._tried = now
        offsets = [self._sent[partition] for partition in sorted(self._failed & self._sent.keys())]
        self._failed.clear()
        if offsets:
            self._try(offsets)

    def acknowledged(self, positions: Positions) -> bool:
        """Has the group told that it has these offsets, which were given to `commit`?"""
        return all(self._acknowledged.get(partition, -1) >= offset for partition, offset in positions.items())

    def forget(self, partition: tuple[str, int]) -> None:
        """A partition has gone: what of it has failed is another's to commit."""
        self._sent.pop(partition, None)

    def forget_all_but(self, topics: Collection[str]) -> None:
        """The same of all partitions of other topics."""
        self._sent = {of: sent for of, sent in self._sent.items() if of[0] in topics}

    def on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """How a commit went."""
        for of in offsets:
            partition, why = (of.topic, of.partition), of.error or error
            if why is None:
                self._acknowledged[partition] = max(of.offset, self._acknowledged.get(partition, 0))
            if partition not in self._sent or self._sent[partition].offset != of.offset:
                continue  # a later one is under way, or done; or the partition has gone
            if why is None:
                self._failed.discard(partition)
            else:
                _log.warning("offsets are not committed yet", at=place(*partition, of.offset), error=why.str())
                self._failed.add(partition)

    def _try(self, offsets: list[TopicPartition]) -> None:
        try:
            self._send(offsets)
        except KafkaException as error:
            self.on_commit(error.args[0], offsets)

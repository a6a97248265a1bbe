"""The topics of events through the consumer group.

Offsets travel in the scores' transaction (`streaming.kafka.producer`), or are committed beside the loop
(`streaming.kafka.offset_commits`). Positions are kept here, advance when a poll hands records out, and go back with
`rewind` when a batch is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming.config import Kafka
from streaming.errors import LogNotWhole, OffsetOutOfRange
from streaming.events.record import Record
from streaming.kafka.clients import group_settings
from streaming.kafka.connection import Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.merge import TimeMerge
from streaming.kafka.offset_commits import OffsetCommits
from streaming.kafka.reader import REPLAY_CHUNK, Positions, TopicReader, records_of
from streaming.kafka.refused_records import Refused
from streaming.kafka.start_offsets import Inquiry
from streaming.kafka.topics import Span
from streaming.ops.background import Start, in_thread
from streaming.ops.log import place

__all__ = ["EventSource"]

MERGE_POLL_S = 0.005  # how long a poll waits for records while a silent topic is waited for
MERGE_ROOM = 20_000  # records of a partition that wait for those of another topic
# How long a poll waits for records while the group, or where partitions start, is waited for: that does not end it. A
# share of the time that was waited already, so that the news is taken up late by such a share only.
NEWS_POLL_S, NEWS_POLL_MAX_S, NEWS_POLL_SHARE = 0.005, 0.05, 0.1

_log = structlog.stdlib.get_logger("streaming.kafka.event_source")


class EventSource:
    """The topics of events through a consumer group.

    When partitions come, Kafka is asked beside the flow where they start (`streaming.kafka.start_offsets`). Once
    `learn` has the answer they are `pending`: the loop brings their rows into the tables (`streaming.loop.rebuild`),
    then calls `accept`, and they are fetched.

    Args:
        kafka: `[kafka]`.
        settle: called before partitions are given up, to commit what is in flight.
        forget: called when partitions were lost already, to drop what is in flight.
        connection: see `Connection`.
        lineages: what the topics hold, and what the group's state is made of.
        start: does the asking beside the loop.

    Attributes:
        topics: their names; the first one is scored.
        positions: the assigned partitions whose start is known.
        pending: those of them that came since the last `accept`.
        state_offsets: of partitions that do not flow, because they are pending or were given up, the offset that the
            rows in the tables stand for. A partition that comes back goes on from there.
        joined: the group has given an assignment, maybe an empty one.
        generation: changes whenever partitions come, are known or go.
        commits: of the group's offsets beside the loop, for who publishes without transactions.
        refused: the records that are dead letters already: neither `poll` nor `replay` gives them out.
    """

    def __init__(
        self,
        kafka: Kafka,
        connection: Connection,
        lineages: Lineages,
        settle: Callable[[], None],
        forget: Callable[[], None],
        *,
        start: Start = in_thread,
    ) -> None:
        self.topics = lineages.topics.names.events
        self.positions: Positions = {}
        self.pending: set[tuple[str, int]] = set()
        self._assigned: set[tuple[str, int]] = set()  # to librdkafka's consumer: those of `positions` that are fetched
        self.state_offsets: Positions = {}
        self.refused = Refused(kafka, lineages.topics.names.dead_letters, connection)
        self._drops_refused = False  # offsets were reset to before records that were refused
        self._dropped: Positions = {}  # of those the last one of each partition, until a later offset is committed
        self.joined = False
        self._kafka, self._connection = kafka, connection
        self._log, self._lineages = lineages.topics, lineages
        self._settle, self._forget, self._start = settle, forget, start
        self._inquiries: list[Inquiry] = []
        self._incremental = kafka.group_protocol == "consumer" or kafka.assignor == "cooperative-sticky"
        self._rewind: Positions = {}
        self._first_ends: Positions = {}  # where partitions ended when it was told where they start
        self.commits = OffsetCommits(self._send_commit, connection.clock)
        self.generation = 0
        self._news = connection.clock.monotonic()  # when the group told something last, or was joined
        self._failure: BaseException | None = None
        self._ended: Positions = {}  # where partitions ended when they were last read to their ends
        self._merge: TimeMerge | None = None
        if len(self.topics) > 1:
            lineages.topics.check_alike()
            self._incremental = kafka.group_protocol == "consumer"
            self._merge = TimeMerge(self.topics, kafka.merge_wait_ms / 1000, MERGE_ROOM, connection.clock)
        settings = group_settings(kafka, merged=self._merge is not None)
        settings["on_commit"] = self.commits.on_commit
        self._consumer = connection.consumer(settings)

    def subscribe(self) -> None:
        """Joins the group; partitions come during a later `poll`."""
        self._news = self._connection.clock.monotonic()
        self._consumer.subscribe(
            list(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, count: int, wait_s: float) -> Sequence[Record]:
        """Up to `count` records in partition order: waits `wait_s` for the first, and takes what else is there.

        Raises:
            OffsetOutOfRange, KafkaException, and whatever `settle` or `forget` raise: they run in here.
        """
        self._seek()
        generation = self.generation
        if self._inquiries or not self.joined:
            waited_s = self._connection.clock.monotonic() - self._news
            wait_s = min(wait_s, max(NEWS_POLL_S, min(NEWS_POLL_SHARE * waited_s, NEWS_POLL_MAX_S)))
        records = self._read(count, wait_s) if self._merge is None else self._merged(count, wait_s)
        if generation != self.generation or self._rewind:
            # Partitions came or went, or a batch was forgotten meanwhile: what was read may be another scorer's by now,
            # or come again.
            self.rewind(self.positions)
            return []
        positions = self.positions
        for record in records:
            partition, offset = (record.topic(), record.partition()), record.offset()
            if offset < positions[partition]:
                raise RuntimeError(f"{place(*partition, offset)} came again: the next offset is {positions[partition]}")
            positions[partition] = offset + 1
        if not self._drops_refused:
            return records
        kept = self.refused.drop(records)
        if len(kept) < len(records):
            there = set(map(id, kept))
            self._dropped.update({(r.topic(), r.partition()): r.offset() for r in records if id(r) not in there})
        return kept

    def _read(self, count: int, wait_s: float) -> list[Record]:
        records = self._consume(1, wait_s)
        if records and count > 1:
            records += self._consume(count - 1, 0.0)
        return records

    def _merged(self, count: int, wait_s: float) -> list[Record]:
        """The same in the order of their times, see `streaming.kafka.merge`."""
        merge, clock = self._merge, self._connection.clock
        if merge is None:
            raise RuntimeError("one topic is not merged")
        until = clock.monotonic() + wait_s
        generation = self.generation
        while True:
            left_s = max(0.0, until - clock.monotonic())
            merge.add(self._read(count, min(left_s, MERGE_POLL_S)))
            if generation != self.generation:
                return []
            flowing = self.positions.keys() - self.pending
            if full := [TopicPartition(*partition) for partition in merge.crowded()]:
                self._consumer.pause(full)
            records = merge.take(count, flowing, self._is_at_end)
            emptied = [TopicPartition(p.topic, p.partition) for p in full if not merge.holds((p.topic, p.partition))]
            if emptied:
                self._consumer.resume(emptied)
            if records or left_s <= 0:
                return records

    def _is_at_end(self, partition: tuple[str, int]) -> bool:
        """Whether nothing more was there when a partition was read last, or has come to this process since."""
        read_to = (
            self.positions[partition]
            if self._merge is None
            else self._merge.next_offset(partition, self.positions[partition])
        )
        ended = self._ended.get(partition, -1)
        if ended < read_to:
            return False
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return high <= ended

    def keep_alive(self, wait_s: float = 0.0) -> None:
        """Polls while paused, so that the group keeps this member; rebalances happen in here as in `poll`."""
        if self._consume(1, wait_s):
            self.rewind(self.positions)

    def pause(self) -> None:
        """No records until `resume`."""
        if self._assigned:
            self._consumer.pause([TopicPartition(*partition) for partition in sorted(self._assigned)])

    def resume(self) -> None:
        """Records flow again, but for those partitions that wait for `accept`."""
        flowing = [TopicPartition(*partition) for partition in sorted(self._assigned - self.pending)]
        if flowing:
            self._consumer.resume(flowing)

    def unknown(self) -> str:
        """The assigned partitions of which it is not known yet where they start, for messages; "": none."""
        unknown = {partition for inquiry in self._inquiries for partition in inquiry.partitions}
        return ", ".join(f"{topic}[{number}]" for topic, number in sorted(unknown))

    def learn(self) -> None:
        """Takes up the partitions of which it is known by now where they start: they are `pending`.

        Raises:
            LogNotWhole: a committed offset lies outside of its topic, or is of another one.
            BrokerUnavailable, KafkaException, Stopped: Kafka does not tell, see `Inquiry.answer`.
        """
        self._inquiries = [inquiry for inquiry in self._inquiries if inquiry.partitions]
        for inquiry in list(self._inquiries):
            if (starts := inquiry.answer()) is None:
                continue
            self._inquiries.remove(inquiry)
            self.generation += 1
            self.positions.update(starts)
            self.pending |= starts.keys()
            self._first_ends.update({partition: inquiry.end(partition) for partition in starts})
            _log.info("partitions start", partitions=[place(*p, offset) for p, offset in starts.items()])

    def accept(self) -> None:
        """The tables stand for `positions`: all records flow."""
        new = sorted(self.positions.keys() - self._assigned)
        self._assign([TopicPartition(*partition, self.positions[partition]) for partition in new])
        self.pending.clear()
        for partition in self.positions:
            self.state_offsets.pop(partition, None)
        self._drops_refused = any(self.refused.reaches(*at) for at in self.positions.items())
        self.resume()

    def standing(self) -> Positions:
        """The offsets that the rows in the tables stand for, of all partitions that have some."""
        return self.state_offsets | {p: offset for p, offset in self.positions.items() if p not in self.pending}

    def rewind(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Reads again from `positions`; of partitions that are not assigned any more nothing."""
        for partition, offset in positions.items():
            if partition in self.positions:
                self.positions[partition] = offset
                if partition in self._assigned:
                    self._rewind[partition] = offset
                self._ended.pop(partition, None)
                if self._merge is not None:
                    self._merge.drop(partition)

    def group_metadata(self) -> Any:
        """What fences a zombie: member id and generation, for the producer's transaction."""
        return self._consumer.consumer_group_metadata()

    def lag(self) -> dict[tuple[str, int], int]:
        """Records between position and end, per partition, as far as the last fetch knew; before the first one, as was
        told with the start.

        An end that was reached counts as read up to there: markers of transactions, and records of those that were
        aborted, are offsets that nobody ever gets.
        """
        lags = {}
        for partition, position in self.positions.items():
            high = -1
            if partition in self._assigned:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
            if high < 0:
                high = self._first_ends.get(partition, -1)
            if high >= 0:
                ended = 0 if self._holds(partition) else self._ended.get(partition, 0)
                lags[partition] = max(0, high - max(position, ended))
        return lags

    def markers(self) -> Positions:
        """Of the partitions that were read to their ends and hold offsets behind the last record that nobody ever gets
        (see `lag`), or a last record that is a dead letter already, those ends."""
        behind_dropped = {
            partition: position
            for partition, position in self.positions.items()
            if self._dropped.get(partition) == position - 1 and partition not in self.pending
        }
        return behind_dropped | {
            partition: self._ended[partition]
            for partition, position in self.positions.items()
            if partition not in self.pending and not self._holds(partition) and self._ended.get(partition, 0) > position
        }

    def note_committed(self, offsets: Positions) -> None:
        """These are committed."""
        for partition in self._dropped.keys() & offsets.keys():
            if self._dropped[partition] < offsets[partition]:
                del self._dropped[partition]

    def _holds(self, partition: tuple[str, int]) -> bool:
        """Whether records of a partition were read, and not handed out yet."""
        return self._merge is not None and self._merge.holds(partition)

    def replay(self, tail: int | None = None) -> Iterator[tuple[Sequence[Record], int]]:
        """What the tables lack of the pending partitions, in chunks, each with the number of records still to come.

        A partition of which nothing is held is read from where its lineage begins; with `tail`, each from so many
        offsets before its position, whatever is held. `state_offsets` moves on when the next chunk is asked for. Ends
        early when partitions come or go meanwhile: call it again.

        Raises:
            LogNotWhole: records are gone that the tables need.
        """
        generation = self.generation
        targets = {partition: self.positions[partition] for partition in self.pending}
        reader = TopicReader(self._kafka, self._connection)
        try:
            spans = self._log.spans(targets)
            starts = {p: self._replay_from(p, target, spans[p], tail) for p, target in targets.items()}
            left = {partition: targets[partition] - start for partition, start in starts.items()}
            reader.assign({partition: start for partition, start in starts.items() if left[partition] > 0})
            # In the order in which they were scored, as far as the records tell: rows of one moment are in it, too.
            merge = None
            if self._merge is not None:
                merge = TimeMerge(self.topics, 0.0, MERGE_ROOM, self._connection.clock, lagging_s=math.inf)
            while generation == self.generation:
                for partition in list(left):
                    # Behind the last record there may be markers: then the end is seen, and no record. An end before
                    # the target is that of an open transaction of the shop's, which is waited for.
                    at = max(reader.positions.get(partition, 0), reader.ends.get(partition, 0))
                    if left[partition] <= 0 or at >= targets[partition]:
                        del left[partition]
                for partition in targets.keys() - left.keys():
                    if merge is None or not merge.holds(partition):
                        self.state_offsets[partition] = targets.pop(partition)
                if not targets:
                    return
                records = []
                for record in reader.read(REPLAY_CHUNK, 0.1) if left else ():
                    partition = (record.topic(), record.partition())
                    if partition in left and record.offset() < targets[partition]:
                        records.append(record)
                        left[partition] = targets[partition] - record.offset() - 1
                if merge is not None:
                    merge.add(records)
                    records = merge.take(REPLAY_CHUNK, targets.keys(), lambda partition: partition not in left)
                yield self.refused.drop(records), sum(left.values())
                for record in records:
                    self.state_offsets[record.topic(), record.partition()] = record.offset() + 1
                self.keep_alive()
        finally:
            reader.close()

    def tail(self, count: int) -> Iterator[Sequence[Record]]:
        """The records of the last `count` offsets before each partition's position, in chunks; of pending ones nothing.

        Ends early when partitions come or go meanwhile. The source is to be paused.
        """
        generation = self.generation
        targets = {partition: offset for partition, offset in self.positions.items() if partition not in self.pending}
        reader = TopicReader(self._kafka, self._connection)
        try:
            spans = self._log.spans(targets)
            starts = {partition: max(spans[partition].low, target - count) for partition, target in targets.items()}
            left = {partition for partition, target in targets.items() if starts[partition] < target}
            reader.assign({partition: starts[partition] for partition in sorted(left)})
            while left and generation == self.generation:
                records = [r for r in reader.read(REPLAY_CHUNK, 0.1) if r.offset() < targets[r.topic(), r.partition()]]
                yield self.refused.drop(records)
                for partition in list(left):
                    at = max(reader.positions.get(partition, 0), reader.ends.get(partition, 0))
                    if at >= targets[partition]:
                        left.remove(partition)
                self.keep_alive()
        finally:
            reader.close()

    def _replay_from(self, partition: tuple[str, int], target: int, span: Span, tail: int | None) -> int:
        """The offset from which a partition has to be replayed."""
        if tail is not None:
            self.state_offsets[partition] = max(span.low, target - tail)
        held = self.state_offsets.get(partition)
        if lack := span.lacks(target, only_before=True):
            at = place(*partition, target)
            raise OffsetOutOfRange(f"{at} is to be scored next, but {lack}: the records between are gone")
        if held is None:
            try:
                held = self._lineages.first_offset(partition, span)
            except LogNotWhole:
                self._log.check()  # if the topic was made anew meanwhile, that is what has to be said
                raise
            if held > target:
                self._log.check()
                raise LogNotWhole(
                    f"history reaches to {place(*partition, held)}, but records from {target} on are not scored yet: "
                    "they would be in their own windows; give a history that ends before them"
                )
            self.state_offsets[partition] = held
        elif lack := span.lacks(held, only_before=True):
            if not self._lineages.allows_gap(partition, held, span.low):
                stands = f"the state of {partition[0]}[{partition[1]}] stands at offset {held}"
                raise OffsetOutOfRange(f"{stands}, but {lack}: the records between are gone")
            self.state_offsets[partition] = held = span.low
        return held

    def close(self) -> None:
        """Leaves the group; `settle` runs first for what is in flight."""
        self._consumer.close()

    def _consume(self, count: int, wait_s: float) -> list[Record]:
        self._connection.listen()
        messages = self._consumer.consume(count, wait_s)
        if self._failure is not None:
            raise self._failure
        return records_of(messages, self._ended)

    def _send_commit(self, offsets: list[TopicPartition]) -> None:
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def _seek(self) -> None:
        rewind, self._rewind = self._rewind, {}
        for partition, offset in rewind.items():
            try:
                self._consumer.seek(TopicPartition(*partition, offset))
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise
                self._rewind[partition] = offset  # it was assigned just now: again with the next poll

    def _assign(self, new: list[TopicPartition]) -> None:
        """Has the records of partitions fetched from given offsets on.

        Not before they are wanted: the thread that fetches sleeps for up to a second where all is paused, and a resume
        does not wake it (librdkafka 2.16).
        """
        if not new:
            return
        if self._incremental:
            self._consumer.incremental_assign(new)
        else:  # then all partitions have come at once
            self._consumer.assign(new)
        self._assigned |= {(partition.topic, partition.partition) for partition in new}

    # What a callback raises must not cross librdkafka: it is kept, and raised by the poll that the callback ran in.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined, self._news = True, self._connection.clock.monotonic()
        self.generation += bool(partitions)
        # Nothing is asked in here, because the loop stands still; and nothing is assigned of which it is not known
        # where it starts: what librdkafka finds out about a provisional offset may overtake a seek, and records are
        # skipped.
        if self._incremental:
            consumer.incremental_assign([])
        else:
            consumer.assign([])
        if partitions:
            new = [(given.topic, given.partition) for given in partitions]
            self._inquiries.append(Inquiry(self._kafka, self._connection, self._lineages, new, self._start))
        _log.info("partitions assigned", partitions=[f"{p.topic}[{p.partition}]" for p in partitions])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, self._settle)
        _log.info("partitions revoked", partitions=[f"{p.topic}[{p.partition}]" for p in partitions])

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, self._forget)
        _log.warning("partitions lost", partitions=[f"{p.topic}[{p.partition}]" for p in partitions])

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition], end: Callable[[], None]) -> None:
        self.generation += bool(partitions)
        try:
            end()
        except Exception as error:  # see above: raised by the poll
            self._failure = error
        assigned = [given for given in partitions if (given.topic, given.partition) in self._assigned]
        self._assigned -= {(given.topic, given.partition) for given in assigned}
        for given in partitions:
            partition = (given.topic, given.partition)
            self.commits.forget(partition)
            self._dropped.pop(partition, None)
            if partition == (self.topics[0], 0):  # who has it commits the offsets of the dimension topics
                self.commits.forget_all_but(self.topics)
            for known in (self._rewind, self._ended, self._first_ends):
                known.pop(partition, None)
            for inquiry in self._inquiries:
                inquiry.partitions.discard(partition)
            position = self.positions.pop(partition, None)
            if self._merge is not None:
                self._merge.drop(partition)
            if partition in self.pending:
                self.pending.remove(partition)  # `state_offsets` says how far it had come
            elif position is not None:
                self.state_offsets[partition] = position
        if self._incremental:
            consumer.incremental_unassign(assigned)
        else:
            self.joined = False
            self._assigned.clear()
            consumer.unassign()

"""Reads scores, labels, dead letters and dimension topics from Kafka, outside of any group: the scorers notice nothing.

A thread for the scores, one for the labels, one for the rest, one that asks whether Kafka is there. While it is away
they try again, for as long as it takes; a page that says so is better than none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka import KafkaError, KafkaException

from streaming.app.folder import App
from streaming.app.history import history_table
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.board.attributes import Attributes
from streaming.board.decoding import Raw
from streaming.board.label_follower import LabelFollower
from streaming.board.letters import Letters
from streaming.board.outcomes import Outcomes
from streaming.board.pairs import Pairs
from streaming.config import Config
from streaming.errors import BrokerUnavailable, OffsetOutOfRange, ScorerError, Stopped
from streaming.events.record import Record
from streaming.events.scores import score_json
from streaming.files.tables.read import read
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.reader import Positions, TopicReader
from streaming.kafka.rights import check_topics, of_board

__all__ = ["Followers", "KafkaState"]

BATCH = 5000  # records that are taken at once
WAIT_S = 0.1  # for so many: what a score waits here at most
QUEUE_KB = 16_384  # of a burst, that librdkafka holds (its own: 64 MB for each partition)
PATIENCE_S = 5.0  # for one answer of Kafka's; then the page says that it is away, and it is asked again
AGAIN_S = 1.0
PING_S = 2.0
DECLARE_S = 2.0  # between two looks at what filters there are
LETTERS_MAX = 20_000  # that are read when it starts: the newest
STOP_S = 5.0

_log = structlog.stdlib.get_logger("streaming.board.followers")


@dataclass
class KafkaState:
    """What the threads know.

    Attributes:
        away: why Kafka is not there; "": it is, or it was not asked yet.
        gone: Kafka is there, and the scores' topic is not any more.
        loaded: all that was there at the start has been read.
        failure: what ended a thread, if anything did: the process should go.
        ended: set then.
    """

    away: str = ""
    loaded: bool = False
    gone: bool = False
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.ended = threading.Event()

    def raise_failure(self) -> None:
        """Raises what ended a thread.

        Raises:
            ScorerError: anything did.
        """
        if isinstance(self.failure, ScorerError):
            raise self.failure
        if self.failure is not None:
            raise ScorerError(f"following the topics failed: {self.failure}") from self.failure


class Followers:
    """The threads.

    Args:
        config: `[kafka]`, `[events]` and `store.history` are read.
        app: whose scores they are.
        topics: how its topics are called.
        pairs, letters, attributes, outcomes: what they fill.
        look_back_s: how old the scores are that are read at the start; at most as many as `pairs` keeps.
    """

    def __init__(
        self,
        config: Config,
        app: App,
        topics: TopicNames,
        pairs: Pairs,
        letters: Letters,
        attributes: Attributes,
        look_back_s: float,
        outcomes: Outcomes,
    ) -> None:
        self.state = KafkaState()
        raw = config.kafka.librdkafka
        bounded = raw.model_copy(update={"consumer": {"queued.max.messages.kbytes": QUEUE_KB, **raw.consumer}})
        self._kafka = config.kafka.model_copy(
            update={"give_up_after_s": PATIENCE_S, "isolation_level": "read_committed", "librdkafka": bounded}
        )
        self._app, self._topics, self._history = app, topics, config.store.history
        self._pairs, self._letters, self._attributes = pairs, letters, attributes
        self._look_back_s, self._outcomes = look_back_s, outcomes
        self._decoder = InputDecoder(app, config.events, topics)
        self._stop = threading.Event()
        self._connection = Connection(self._stop, login=Login(self._kafka))
        self._rights = of_board(topics)
        self._partitions = 0  # of the scores' topic, as they are read
        self._again = threading.Event()  # they have become more
        works = {"scores": self._scores, "letters": self._others, "ping": self._ping}
        if outcomes.labels is not None:
            decoder = InputDecoder(app, config.events, topics)
            works["labels"] = LabelFollower(self._new_reader, self._scores_starts, decoder, outcomes, self._stop).follow
        self._threads = [
            threading.Thread(target=self._run, args=[work], name=name, daemon=True) for name, work in works.items()
        ]

    def start(self) -> None:
        """Begins to read."""
        self._read_history()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; one that waits for a broker is left behind."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_S)
        self.state.ended.set()

    def _run(self, work: Callable[[Positions], None]) -> None:
        """Does one thread's work, again after whatever passes.

        What it has read stays read: it goes on behind that.
        """
        positions: Positions = {}
        checked = False
        while not self._stop.is_set():
            try:
                if not checked:
                    check_topics(self._kafka, self._rights, self._connection, keys=self._topics.keys)
                    checked = True
                work(positions)
            except Stopped:
                return
            except OffsetOutOfRange as error:  # retention was faster, or the topic was made anew
                _log.warning("reads on from what the topic holds now", why=str(error))
                positions.clear()
            except (BrokerUnavailable, KafkaException) as error:
                self._away(error.args[0].str() if isinstance(error, KafkaException) else str(error))
                self._stop.wait(AGAIN_S)
            except BaseException as error:
                self.state.failure = error
                self.state.ended.set()
                return

    def _away(self, why: str) -> None:
        if not self.state.away:
            _log.warning("Kafka is away", why=why)
        self.state.away = why

    def _ping(self, _: Positions) -> None:
        admin = self._connection.admin(self._kafka)
        while not self._stop.wait(PING_S if not self.state.away else AGAIN_S):
            there = admin.list_topics(self._topics.scores, timeout=PING_S).topics[self._topics.scores]
            if self.state.away:
                _log.info("Kafka is there")
            self.state.away = ""
            gone = there.error is not None and there.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if gone != self.state.gone:
                _log.warning("the scores' topic is gone" if gone else "the scores' topic is there", topic=there.topic)
            self.state.gone = gone
            if self._partitions and len(there.partitions) > self._partitions:
                self._again.set()

    def _scores(self, positions: Positions) -> None:
        reader = self._new_reader()
        try:
            partitions = reader.partitions([self._topics.scores])
            new = [partition for partition in partitions if partition not in positions]
            if new:
                positions |= self._starts(reader, new)
            self._partitions = len(partitions)
            self._again.clear()
            reader.assign(positions)
            while not self._stop.is_set() and not self._again.is_set():
                records = reader.read(BATCH, WAIT_S)
                self._pairs.add(
                    [
                        Raw(value, record.timestamp()[1], record.partition(), record.offset())
                        for record in records
                        if (value := score_json(record)) is not None
                    ],
                    live=self.state.loaded,
                )
                positions |= reader.positions
                if not self.state.loaded and len(reader.ends) == len(partitions):
                    self.state.loaded, self.state.away = True, ""
                    _log.info("the scores of the look-back are there", scores=self._pairs.received)
        finally:
            reader.close()

    def _new_reader(self) -> TopicReader:
        return TopicReader(self._kafka, self._connection)

    def _scores_starts(self, reader: TopicReader) -> tuple[int, Positions]:
        """When the look-back begins, epoch ms, and where it does in each partition of the scores."""
        since = int((time.time() - self._look_back_s) * 1000)
        return since, self._starts(reader, reader.partitions([self._topics.scores]))

    def _starts(self, reader: TopicReader, partitions: Sequence[tuple[str, int]]) -> Positions:
        """Where the look-back begins, or so far back as scores are kept."""
        since = int((time.time() - self._look_back_s) * 1000)
        at = reader.offsets_at(partitions, since)
        starts = {}
        for partition in partitions:
            low, high = reader.watermarks(partition)
            starts[partition] = max(low, high - self._pairs.scores_max, high if at[partition] < 0 else at[partition])
        return starts

    def _others(self, positions: Positions) -> None:
        """Dead letters and dimension topics: both few."""
        letters = self._topics.dead_letters
        of_joins = {join.table for join in self._attributes.joins}
        dimensions = [
            topic
            for topic in self._topics.dimensions
            if of_joins & {insert.table for insert in self._topics.streams[topic].inserts}
        ]
        reader = self._new_reader()
        try:
            for partition in reader.partitions([letters, *dimensions]):
                if partition not in positions:
                    low, high = reader.watermarks(partition)
                    positions[partition] = max(low, high - LETTERS_MAX) if partition[0] == letters else low
            reader.assign(positions)
            declared = 0.0
            while not self._stop.is_set():
                records = reader.read(BATCH, WAIT_S)
                self._letters.take([record for record in records if record.topic() == letters])
                self._take_dimensions([record for record in records if record.topic() != letters])
                positions |= reader.positions
                if time.monotonic() - declared > DECLARE_S:
                    self._attributes.declare(self._pairs)
                    declared = time.monotonic()
        finally:
            reader.close()

    def _take_dimensions(self, records: Sequence[Record]) -> None:
        if records:
            events, _ = self._decoder.decode(records, replayed=True)
            self._attributes.take_events(events)

    def _read_history(self) -> None:
        """Dimension rows from before the topics begin."""
        if not self._history:
            return
        for join in self._attributes.joins:
            source = history_table(self._app, Path(self._history), join.table)
            if source is not None:
                for piece in read(source.path, source.schema, source.options):
                    self._attributes.take(join.table, piece.rows)
        self._attributes.declare(self._pairs)

"""A read-only copy of the scorer's state, for answering requests beside it.

State = f(history, log): the same history is loaded, then the input topics are read from their beginning to the end and
followed from there, outside of any consumer group: nothing is committed or published, the scorer is not disturbed.
Records that the scorer would make dead letters of, or leave out because they repeat a request, are skipped, by the same
rules; so are those that are dead letters already, when it starts. Request rows are never inserted.

Rows of one partition keep its order, and rows of one key lie in one partition: windows stand as they do in the scorer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import structlog
from confluent_kafka import KafkaError, KafkaException

from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.errors import Stopped, StoreUnavailable
from streaming.events.record import Record
from streaming.kafka.connection import Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.login import Login
from streaming.kafka.reader import TopicReader
from streaming.kafka.refused_records import Refused
from streaming.kafka.rights import check_topics, named, of_serve
from streaming.kafka.topics import Topics
from streaming.ops.log import place
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.protocol import restore_good

__all__ = ["Direct", "Follower", "State"]

STOP_TIMEOUT_S = 10.0
ASK_S = 1.0  # how often it asks whether the topics are still the same

_log = structlog.stdlib.get_logger("streaming.predict.state_replica")


class State(Protocol):
    """What answers requests for the predict server.

    Attributes:
        failure: what ended it, if anything did.
        ended: set when it will answer no more.
    """

    failure: BaseException | None
    ended: threading.Event

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def missing(self) -> str | None: ...
    def request(self, rows: list[dict[str, Any]]) -> pa.Table: ...


class Direct:
    """A cluster answers by itself, with the rows that the scorer inserts: nothing is followed.

    Args:
        store: loaded already.
    """

    def __init__(self, store: ClusterStore) -> None:
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._store = store
        self._turn = threading.Lock()
        self._away: str | None = None

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        self.ended.set()
        self._store.close()

    def missing(self) -> str | None:
        """Why it did not answer the last time it was asked."""
        return self._away

    def request(self, rows: list[dict[str, Any]]) -> pa.Table:
        """The deployment's answer; see `Follower.request`."""
        with self._turn:
            try:
                answer = self._store.request(rows)
            except StoreUnavailable as error:
                self._away = str(error)
                raise
            self._away = None
            return answer


class Follower:
    """Follows the input topics from a thread of its own; `request` may be called from any thread.

    Args:
        config: `[kafka]`, `[batch]` and `[events]` are read.
        app: whose events it follows.
        topics: how its topics are called.
        store: loaded already.

    Attributes:
        failure: what ended the thread, if anything did: the state stands still from then on, and the process should go.
    """

    def __init__(self, config: Config, app: App, topics: TopicNames, store: EmbeddedStore) -> None:
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._config, self._topics = config, topics
        self._store = store
        # The engine is for one thread at a time: the follower's inserts and the requests take turns.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._caught_up = False
        self._records_left: int | None = None
        self._skipped = 0
        self._decoder = InputDecoder(app, config.events, topics)
        self._connection = Connection(self._stop, login=Login(config.kafka))
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begins to read.

        Raises:
            ConfigError: a topic does not exist, or Kafka refuses the login.
            NotAllowed: a topic may not be read.
            BrokerUnavailable: no broker answers.
        """
        check_topics(self._config.kafka, of_serve(self._topics), self._connection, keys=self._topics.keys)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; one that waits for a broker is left behind."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        self.ended.set()

    def missing(self) -> str | None:
        """Why the state cannot answer yet; None when it can."""
        if self.failure is not None:
            return f"following the topics failed: {self.failure}"
        if not self._caught_up:
            left = (
                "the topics' ends are not known yet"
                if self._records_left is None
                else f"{self._records_left} records to go"
            )
            return f"the state is being rebuilt: {left}"
        return None

    def request(self, rows: list[dict[str, Any]]) -> pa.Table:
        """The deployment's answer, a row per request row; see `Engine.request`.

        Raises:
            StoreUnavailable: the state is not there (yet).
            BadRow: the deployment refuses a row.
        """
        missing = self.missing()
        if missing is not None:
            raise StoreUnavailable(missing)
        with self._turn:
            return self._store.request(rows)

    def _run(self) -> None:
        try:
            with named(self._config.kafka, of_serve(self._topics)):
                self._follow()
        except Stopped as why:
            _log.info("stopped while Kafka is away", why=str(why))
        except BaseException as error:
            self.failure = error
            _log.exception("following the topics failed")
        finally:
            self.ended.set()

    def _follow(self) -> None:
        kafka, batch = self._config.kafka, self._config.batch
        topics = Topics(kafka, self._topics, self._connection)
        lineages = Lineages(self._config, topics)
        self._read_notes(lineages)
        reader = TopicReader(kafka, self._connection)
        try:
            partitions = reader.partitions(self._topics.inputs)
            starts = {
                partition: lineages.first_offset(partition, span)
                for partition, span in topics.spans(partitions).items()
            }
            marks = {partition: reader.watermarks(partition) for partition in partitions}
            refused = Refused(kafka, self._topics.dead_letters, self._connection)
            for _ in refused.update():
                if self._stop.is_set():
                    return
            reader.assign(starts)
            question, asked_at = topics.ask(), time.monotonic()
            while not self._stop.is_set():
                records = refused.drop(reader.read(batch.messages_max, batch.poll_ms / 1000))
                if records:
                    self._apply(records)
                # While Kafka is away it goes on with what it has: nothing is waited for here.
                if time.monotonic() - asked_at > ASK_S and question.is_answered():
                    question, asked_at = topics.ask(), time.monotonic()
                if not self._caught_up:
                    # Up to where the log went at the start; a tail of transaction markers shows as an end only.
                    self._records_left = sum(
                        max(0, marks[p][1] - reader.positions[p]) for p in marks.keys() - reader.ends.keys()
                    )
                    if self._records_left == 0:
                        topics.check()  # all of it was of these topics
                    self._caught_up = self._records_left == 0
                    if self._caught_up:
                        _log.info("the state is there", skipped=self._skipped, tables=dict(self._store.sizes()))
        finally:
            reader.close()

    def _read_notes(self, lineages: Lineages) -> None:
        """Reads what the group has noted; where this principal may not, the log is judged by itself."""
        try:
            lineages.read_notes()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise
            _log.info("the group's notes are not read", why=error.args[0].str())

    def _apply(self, records: Sequence[Record]) -> None:
        """Inserts what the scorer would insert of these records; dimension rows first, as it does."""
        of_dimensions = [record for record in records if self._decoder.of_dimensions(record)]
        others = [record for record in records if not self._decoder.of_dimensions(record)]
        events, refused = self._decoder.decode([*of_dimensions, *others])
        with self._turn:
            refusals: list[tuple[Record, Exception]] = list(refused)
            refusals += [(events.records[number], error) for number, error in restore_good(self._store, events)]
        for record, why in refusals:
            self._skipped += 1
            at = place(record.topic(), record.partition(), record.offset())
            _log.debug("skipped: a dead letter of the scorer's", at=at, why=str(why))

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
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import structlog
from confluent_kafka import KafkaError, KafkaException

from streaming.config import Config
from streaming.errors import Stopped, StoreUnavailable
from streaming.events.decode import (
    Decoder,
    Event,
    Record,
    action_columns,
    action_decoder,
    dimension_columns,
    dimension_decoders,
)
from streaming.kafka.lineage import Lineages
from streaming.kafka.login import Login
from streaming.kafka.reader import TopicReader, Waiting, check_topics
from streaming.kafka.refused_records import Refused
from streaming.kafka.rights import named, of_serve
from streaming.kafka.topics import Topics
from streaming.ops.log import place
from streaming.store.feature_store import EmbeddedStore, restore_singly
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["Direct", "Follower", "State"]

E = TypeVar("E", bound=Event)

STOP_TIMEOUT_S = 10.0
LOOK_S = 1.0  # how often it asks whether the topics are still the same

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
        store: loaded already.

    Attributes:
        failure: what ended the thread, if anything did: the state stands still from then on, and the process should go.
    """

    def __init__(self, config: Config, store: EmbeddedStore) -> None:
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._config = config
        self._store = store
        # The engine is for one thread at a time: the follower's inserts and the requests take turns.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._caught_up = False
        self._left: int | None = None
        self._skipped = 0
        topics = config.kafka.topics
        self._tables = {topics.users: "bo_user", topics.products: "bo_product", topics.comments: "bo_comment"}
        limits = (config.events.message_bytes_max, config.events.future_s_max)
        self._actions = action_decoder(*limits)
        self._dimensions = dimension_decoders(*limits)
        self._waiting = Waiting(self._stop, login=Login(config.kafka))
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begins to read.

        Raises:
            ConfigError: a topic does not exist, or Kafka refuses the login.
            NotAllowed: a topic may not be read.
            BrokerUnavailable: no broker answers.
        """
        check_topics(self._config.kafka, of_serve(self._config.kafka), self._waiting)
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
            left = "the topics' ends are not known yet" if self._left is None else f"{self._left} records to go"
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
            with named(self._config.kafka, of_serve(self._config.kafka)):
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
        topics = Topics(kafka, self._waiting)
        lineages = Lineages(self._config, topics)
        self._look(lineages)
        reader = TopicReader(kafka, self._waiting)
        try:
            partitions = reader.partitions((*self._tables, kafka.topics.actions))
            starts = {
                partition: lineages.begin(partition, span) for partition, span in topics.spans(partitions).items()
            }
            marks = {partition: reader.watermarks(partition) for partition in partitions}
            refused = Refused(kafka, self._waiting)
            for _ in refused.update():
                if self._stop.is_set():
                    return
            reader.assign(starts)
            asked, looked = topics.ask(), time.monotonic()
            while not self._stop.is_set():
                records = refused.drop(reader.read(batch.messages_max, batch.poll_ms / 1000))
                if records:
                    self._apply(records)
                # While Kafka is away it goes on with what it has: nothing is waited for here.
                if time.monotonic() - looked > LOOK_S and asked.look():
                    asked, looked = topics.ask(), time.monotonic()
                if not self._caught_up:
                    # Up to where the log went at the start; a tail of transaction markers shows as an end only.
                    self._left = sum(max(0, marks[p][1] - reader.at[p]) for p in marks.keys() - reader.ended.keys())
                    if self._left == 0:
                        topics.check()  # all of it was of these topics
                    self._caught_up = self._left == 0
                    if self._caught_up:
                        _log.info("the state is there", skipped=self._skipped, tables=dict(self._store.sizes()))
        finally:
            reader.close()

    def _look(self, lineages: Lineages) -> None:
        """Reads what the group has noted; where this principal may not, the log is judged by itself."""
        try:
            lineages.look()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise
            _log.info("the group's notes are not read", why=error.args[0].str())

    def _apply(self, records: Sequence[Record]) -> None:
        """Inserts what the scorer would insert of these records; dimension rows first, as it does."""
        dimensions: dict[str, pa.Table] = {}
        for topic, table in self._tables.items():
            rows, _ = self._decode(self._dimensions[table], [record for record in records if record.topic() == topic])
            if rows:
                dimensions[table] = dimension_columns(table, rows)
        topic = self._config.kafka.topics.actions
        actions, good = self._decode(self._actions, [record for record in records if record.topic() == topic])
        with self._turn:
            mark = self._store.mark()
            kept, _ = self._store.sift(actions, good)
            try:
                self._store.restore(dimensions, action_columns(kept) if kept else None)
            except ValueError:  # the tables refuse a row (seldom: the decoder checks what they check): find it
                self._store.rollback(mark)
                for table, _, error in restore_singly(self._store, dimensions, actions, good):
                    self._skip(f"{table}: {error}")

    def _decode(self, decoder: Decoder[E], records: Sequence[Record]) -> tuple[list[E], list[Record]]:
        events, good, bad = decoder.decode_all(records)
        for record, error in bad:
            self._skip(f"{place(record.topic(), record.partition(), record.offset())}: {error}")
        return events, good

    def _skip(self, why: str) -> None:
        self._skipped += 1
        _log.debug("skipped: a dead letter of the scorer's", why=why)

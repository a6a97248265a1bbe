"""How topics are read: consumers without a group, a broker that is away, errors that pass and those that do not."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable, ConfigError, NotAllowed, OffsetOutOfRange, Stopped
from streaming.events.decode import Record
from streaming.kafka.login import Login
from streaming.kafka.rights import Right, find, sentence

__all__ = [
    "REQUEST_TIMEOUT_S",
    "CommittedReader",
    "Positions",
    "TopicReader",
    "Waiting",
    "check_topics",
    "consumer_settings",
    "open_admin",
    "open_consumer",
    "records_of",
]

Positions = dict[tuple[str, int], int]
"""(topic, partition) → offset of the next record."""

CHUNK = 1000  # records of a topic that is read whole, at once
REQUEST_TIMEOUT_S = 5.0  # one request to the broker; retried until `give_up_after_s`, so signals are served in between

UNKNOWN_S = 30.0  # a broker that has just started does not know its partitions yet; one that is gone stays unknown

_log = structlog.stdlib.get_logger("streaming.kafka.reader")
_librdkafka = logging.getLogger("librdkafka")


class Waiting:
    """How the broker is waited for.

    Args:
        stop: once it is set, nothing is called again.
        beat: called before each attempt, so that the process counts as alive.
        login: asked why, where calls fail; none: a broker that refuses the login counts as away.
    """

    def __init__(
        self, stop: threading.Event, beat: Callable[[], None] = lambda: None, login: Login | None = None
    ) -> None:
        self._stop, self._beat, self._login = stop, beat, login

    def beside(self) -> Waiting:
        """The same for work beside the loop, which must not say that the loop is alive."""
        return Waiting(self._stop, login=self._login)

    def rest(self, why: str) -> None:
        """A moment before something is looked at again.

        Raises:
            Stopped: told to stop; `why` says while what.
        """
        self._beat()
        if self._stop.wait(random.uniform(0.1, 0.3)):
            raise Stopped(why)

    def retry(self, call: Callable[[], Any], patience_s: float) -> Any:
        """What `call` returns; it is called again while the broker is away or not ready.

        Raises:
            BrokerUnavailable: for longer than `patience_s`.
            LoginRefused, NotAllowed: see `Login`.
            Stopped: told to stop meanwhile.
            KafkaException: an error that does not pass; a partition that stays unknown for `UNKNOWN_S`.
        """
        began = time.monotonic()
        deadline = began + patience_s
        if self._login is not None:
            self._login.first()
        while True:
            self._beat()
            try:
                return call()
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal() or not (error.retriable() or error.code() in _PASSING | _UNKNOWN):
                    raise
                if error.code() in _UNKNOWN and time.monotonic() > began + UNKNOWN_S:
                    raise
                if self._stop.is_set():
                    raise Stopped(f"Kafka does not answer: {error.str()}") from raised
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"Kafka did not answer for {patience_s:.0f} s: {error.str()}") from raised
                _log.warning("kafka does not answer yet", error=error.str())
                if self._login is not None:
                    self._login.again()
                self._stop.wait(random.uniform(0.1, 0.3))

    def listen(self) -> None:
        """In every round of who waits for records: a login that is refused shows as silence.

        Raises:
            LoginRefused, NotAllowed: see `Login`.
        """
        if self._login is not None:
            self._login.listen()

    def heard(self, error: KafkaError) -> None:
        """The `error_cb` of clients."""
        if self._login is not None:
            self._login.heard(error)


class TopicReader:
    """A consumer that joins no group, for whole topics.

    Args:
        waiting: see `Waiting`.
        isolation: instead of `kafka.isolation_level`.

    Attributes:
        ended: of the partitions whose end was seen since `assign`, where that was.
        at: the next record of each partition, as far as it was read.
    """

    def __init__(self, kafka: Kafka, waiting: Waiting, isolation: str = "") -> None:
        self._waiting = waiting
        self._patience_s = kafka.give_up_after_s
        settings = {**consumer_settings(kafka), "enable.partition.eof": True}
        if isolation:
            settings["isolation.level"] = isolation
        self._kafka = kafka
        self._consumer = open_consumer(settings, waiting)
        self.ended: Positions = {}
        self.at: Positions = {}

    def partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        """All partitions of the topics.

        Raises:
            ConfigError: a topic does not exist.
            NotAllowed: it may not be read.
        """
        there = self._waiting.retry(
            lambda: self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S), self._patience_s
        ).topics
        if any(topic not in there for topic in topics):
            needs = [Right("Read", "topic", topic) for topic in topics]
            check_topics(self._kafka, needs, self._waiting, self._patience_s)
            raise BrokerUnavailable(f"Kafka has {', '.join(topics)}, but does not list all of them yet")
        return [(topic, partition) for topic in topics for partition in there[topic].partitions]

    def watermarks(self, partition: tuple[str, int]) -> tuple[int, int]:
        """The first offset that a partition holds, and the next that it will."""
        target = TopicPartition(*partition)
        low, high = self._waiting.retry(
            lambda: self._consumer.get_watermark_offsets(target, timeout=REQUEST_TIMEOUT_S), self._patience_s
        )
        return low, high

    def committed(self, partitions: Sequence[tuple[str, int]]) -> Positions:
        """What the group `kafka.group_id` has committed; negative where it has nothing.

        Kafka tells it once no transaction is open that changes it.

        Raises:
            KafkaException: the broker does not tell it of a partition.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]

        def ask() -> list[TopicPartition]:
            found = self._consumer.committed(wanted, timeout=REQUEST_TIMEOUT_S)
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
            return found

        found = self._waiting.retry(ask, self._patience_s)
        return {(p.topic, p.partition): p.offset for p in found}

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Reads on from `positions`."""
        self.ended = {}
        self.at = dict(positions)
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in positions.items()])

    def read(self, count: int, wait_s: float) -> list[Record]:
        """Up to `count` records; returns when they are there or `wait_s` is over."""
        self._waiting.listen()
        records = records_of(self._consumer.consume(count, wait_s), self.ended, alone=True)
        for record in records:
            self.at[record.topic(), record.partition()] = record.offset() + 1
        return records

    def close(self) -> None:
        self._consumer.close()


class CommittedReader:
    """What is committed in a topic, up to where it ends at the time of asking.

    A `read_committed` consumer is told the end before the first open transaction, and the markers of one that was
    committed may be written later than the group's offsets of it become visible. So the end is asked for as a
    `read_uncommitted` one, and transactions open before it are waited for.

    Args:
        waiting: see `Waiting`.
        patience_s: how long nothing may come.

    Attributes:
        at: up to where each partition was read.
    """

    def __init__(self, kafka: Kafka, waiting: Waiting, topic: str, patience_s: float) -> None:
        self.at: Positions = {}
        self._kafka, self._waiting, self._topic, self._patience_s = kafka, waiting, topic, patience_s

    def to_end(self) -> Iterator[list[Record]]:
        """The records that came since the last call, in chunks in partition order; empty ones while it waits.

        Raises:
            ConfigError: the topic does not exist.
            BrokerUnavailable: nothing came for `patience_s`.
        """
        spans = self._spans()
        # A topic that ends before where it was read was made anew.
        starts = {p: max(low, at) if (at := self.at.get(p, 0)) <= high else low for p, (low, high) in spans.items()}
        self.at |= starts
        left = {p: high for p, (_, high) in spans.items() if starts[p] < high}
        if not left:
            return
        reader = TopicReader(self._kafka, self._waiting, "read_committed")
        try:
            reader.assign({p: starts[p] for p in left})
            deadline = time.monotonic() + self._patience_s
            while left:
                records = [r for r in reader.read(CHUNK, 0.1) if r.offset() < spans[r.topic(), r.partition()][1]]
                yield records
                if records:
                    deadline = time.monotonic() + self._patience_s
                for partition, high in list(left.items()):
                    self.at[partition] = min(max(reader.at[partition], reader.ended.get(partition, 0)), high)
                    if self.at[partition] == high:
                        del left[partition]
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._topic}: nothing came for {self._patience_s:.0f} s, but partitions "
                        f"{sorted(number for _, number in left)} have more: the broker is away, or a transaction is "
                        "open there"
                    )
        finally:
            reader.close()

    def wait_until_closed(self, reader: TopicReader) -> None:
        """Waits until no transaction is open any more of those that were when it was asked; reads nothing.

        Args:
            reader: one that reads what is committed.

        Raises:
            ConfigError: the topic does not exist.
            BrokerUnavailable: one stays open for `patience_s`.
        """
        ends = {partition: high for partition, (_, high) in self._spans().items()}
        deadline = time.monotonic() + self._patience_s
        for partition, end in ends.items():
            while reader.watermarks(partition)[1] < end:
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._topic}: a transaction was still open in partition {partition[1]} after "
                        f"{self._patience_s:.0f} s"
                    )
                self._waiting.rest(f"while a transaction is open in {self._topic}")

    def _spans(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Of each partition the first offset, and the end, committed or not."""
        asking = TopicReader(self._kafka, self._waiting, "read_uncommitted")
        try:
            return {partition: asking.watermarks(partition) for partition in asking.partitions([self._topic])}
        finally:
            asking.close()


def check_topics(
    kafka: Kafka, needs: Sequence[Right], waiting: Waiting | None = None, patience_s: float | None = None
) -> None:
    """The login is taken, and all topics exist and may be used as needed.

    Args:
        needs: of topics, and of groups; see `streaming.kafka.rights`.
        patience_s: for how long the broker is waited for; default: `kafka.give_up_after_s`.

    Raises:
        ConfigError: names the missing topics and their keys.
        LoginRefused: with librdkafka's words.
        NotAllowed: names operation, resource and principal of all that is not allowed.
        BrokerUnavailable: no broker answers.
        Stopped: told to stop before one did.
    """
    waiting = waiting or Waiting(threading.Event(), login=Login(kafka))
    patience_s = kafka.give_up_after_s if patience_s is None else patience_s
    admin = open_admin(kafka, waiting)
    found = waiting.retry(lambda: find(admin, needs), patience_s)
    keys = {name: f" (kafka.topics.{key})" for key, name in kafka.topics.model_dump().items()}
    missing = [f"{name!r}{keys.get(name, '')}" for name in found.absent]
    if missing:
        raise ConfigError(f"Kafka at {kafka.bootstrap_servers} has no topic {', '.join(missing)}: create it first")
    if found.lacking:
        raise NotAllowed(f"Kafka at {kafka.bootstrap_servers}: {sentence(kafka, found.lacking)}")


def consumer_settings(kafka: Kafka) -> dict[str, Any]:
    """librdkafka's settings of every consumer here."""
    return {
        **kafka.client(),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Offsets are always given; one that the topic does not hold must be an error, never a silent jump.
        "auto.offset.reset": "error",
        "isolation.level": kafka.isolation_level,
        # An event waits for a fetch at most this long (librdkafka: 500); the broker answers at once when there is data.
        "fetch.wait.max.ms": 100,
        **kafka.librdkafka.consumer,
    }


def open_consumer(settings: dict[str, Any], waiting: Waiting) -> Consumer:
    """A consumer that logs through structlog, and tells `waiting` what happens to its connections.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    try:
        return Consumer({**settings, "error_cb": waiting.heard}, logger=_librdkafka)
    except KafkaException as error:
        raise ConfigError(f"kafka: librdkafka refuses the consumer's settings: {error.args[0].str()}") from error


def open_admin(kafka: Kafka, waiting: Waiting) -> AdminClient:
    """The same for a client that asks about topics and groups.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    settings: dict[str, Any] = {**kafka.client(), "error_cb": waiting.heard}
    try:
        return AdminClient(settings, logger=_librdkafka)
    except KafkaException as error:
        raise ConfigError(f"kafka: librdkafka refuses the settings: {error.args[0].str()}") from error


def records_of(messages: Sequence[Any], ended: Positions | None = None, *, alone: bool = False) -> list[Record]:
    """The records among what a poll gave; ends of partitions go to `ended`, errors that pass are logged.

    Args:
        alone: read in no group: librdkafka looks for the group's coordinator all the same, which may be forbidden.

    Raises:
        OffsetOutOfRange, KafkaException: an error that does not pass.
    """
    records: list[Record] = []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(cast(Record, message))  # without an error, all its parts are there
        elif error.code() == KafkaError._PARTITION_EOF:
            if ended is not None:
                ended[message.topic(), message.partition()] = message.offset()
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise OffsetOutOfRange(f"{message.topic()}[{message.partition()}]: {error.str()}")
        elif alone and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            continue
        elif error.fatal() or error.code() in _NOT_PASSING:
            raise KafkaException(error)
        else:
            _log.warning("kafka", error=error.str(), code=error.name())
    return records


_NOT_PASSING = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._FATAL}


_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError._RESOLVE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}

_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}

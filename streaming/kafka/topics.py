"""What the broker says of the topics that are read: their ids, their partitions, and where each log begins and ends.

Clients fetch by name and offset. A topic that is deleted and made anew under its name has another id (KIP-516), and
what lies at an offset of it is another record. An id never comes back: so whoever relies on records asks, after they
were fetched, whether the ids are still those that were there before, and then knows which log they are of. Likewise
partitions: a producer that knows of new ones sends a user's events elsewhere, and it knows only what the broker tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streaming.app.topics import TopicNames
from streaming.config import Kafka
from streaming.errors import ConfigError, LogNotWhole
from streaming.kafka.clients import committed_offsets, consumer_settings
from streaming.kafka.connection import REQUEST_TIMEOUT_S, Connection
from streaming.ops.waiting import Waiting, steady

__all__ = ["Span", "Topic", "Topics", "TopicsQuestion", "topic_id"]

GONE_S = 10.0  # a topic that does not exist for so long was deleted; for less, brokers only did not know it yet


@dataclass(frozen=True)
class Topic:
    """One topic: its id and how many partitions it has."""

    id: str
    partitions: int


@dataclass(frozen=True)
class Span:
    """What a partition holds: its first offset, and the next that will be written, committed or not."""

    low: int
    end: int

    def lacks(self, offset: int, *, only_before: bool = False) -> str:
        """Why nobody can go on from an offset, for messages; "": the partition holds what lies behind it.

        Args:
            only_before: an offset behind the end is none of the caller's concern.
        """
        if self.low <= offset and (only_before or offset <= self.end):
            return ""
        return f"the topic begins at {self.low}" if only_before else f"the topic holds {self.low} to {self.end}"


class Topics:
    """The input topics, as they were when this process first asked.

    Args:
        kafka: `[kafka]`.
        names: the application's topics.
        connection: how the broker is waited for.

    Attributes:
        names: the same.
        known: by name, as first described; `LogNotWhole` says when that holds no more.
        cluster_id: the Kafka cluster's.
    """

    def __init__(self, kafka: Kafka, names: TopicNames, connection: Connection) -> None:
        self.names = names
        self._kafka, self._connection = kafka, connection
        self._unknown_since: float | None = None
        self._admin = self._client()
        self.known = self._described()
        self.cluster_id = str(self._retry(lambda: self._admin.list_topics(timeout=REQUEST_TIMEOUT_S)).cluster_id)

    def ask(self) -> TopicsQuestion:
        """Asks whether the topics are still the same, without waiting: `TopicsQuestion.check` does."""
        return TopicsQuestion(self, self._ask())

    def check(self) -> None:
        """What was fetched before this call is of the topics that are `known`.

        Raises:
            LogNotWhole: one was made anew, deleted, or got partitions.
            BrokerUnavailable, Stopped, KafkaException: the broker does not tell.
        """
        self.compare(self._described())

    def compare(self, now: Mapping[str, Topic]) -> None:
        """Are they as they were?

        Raises:
            LogNotWhole: see `check`.
        """
        for name, was in self.known.items():
            if now[name].id != was.id:
                raise LogNotWhole(
                    f"topic {name!r} was deleted and made anew while it was read (its id was {was.id} and is "
                    f"{now[name].id}): what was read at an offset is not what lies there now"
                )
            if name in self.names.events and now[name].partitions != was.partitions:
                raise LogNotWhole(
                    f"topic {name!r} had {was.partitions} partitions and has {now[name].partitions}: producers send "
                    "keys elsewhere than their former events"
                )

    def check_alike(self) -> None:
        """Events of one key lie in partitions of one number in all topics.

        Raises:
            ConfigError: a topic of events has another number of partitions than the first.
        """
        first, *others = self.names.events
        for name in others:
            if self.known[name].partitions != self.known[first].partitions:
                raise ConfigError(
                    f"topic {name!r} has {self.known[name].partitions} partitions, {first!r} has "
                    f"{self.known[first].partitions}: topics whose events see one another need as many"
                )

    def missed(self, error: KafkaError | None) -> None:
        """Takes note of what came of a question that nobody waited for.

        Raises:
            LogNotWhole: a topic is unknown for `GONE_S` already.
        """
        if error is None or error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._unknown_since = None
            return
        self._unknown_since = self._unknown_since or self._connection.clock.monotonic()
        if self._connection.clock.monotonic() - self._unknown_since > GONE_S:
            raise LogNotWhole(f"one of the topics {', '.join(self.names.inputs)} was deleted")

    def spans(
        self, partitions: Iterable[tuple[str, int]], connection: Connection | None = None
    ) -> dict[tuple[str, int], Span]:
        """What each partition holds, up to its end also for who reads only what is committed.

        Args:
            connection: of whoever asks beside the loop.

        Raises:
            BrokerUnavailable, Stopped, KafkaException: the broker does not tell.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]
        low, end = (
            self._retry(lambda at=at: self._offsets(self._client(), wanted, at), connection) if wanted else {}
            for at in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        return {partition: Span(low[partition], end[partition]) for partition in low}

    def notes(self, connection: Connection | None = None) -> dict[tuple[str, int], tuple[int, str]]:
        """What the group has committed of every partition, and the note beside it, open transactions aside.

        A consumer asks, which joins no group by that. The call of the admin client for it brings the process down where
        the group's coordinator is moving or loading: librdkafka 2.16 then looks for the consumer group of a client that
        has none (`rd_kafka_handle_OffsetFetch`).

        Raises:
            BrokerUnavailable, Stopped, KafkaException: the broker does not tell.
        """
        partitions = [
            TopicPartition(name, number) for name, topic in self.known.items() for number in range(topic.partitions)
        ]
        # Offsets of an open transaction are waited for by who reads only what is committed.
        settings = {**consumer_settings(self._kafka), "isolation.level": "read_uncommitted"}

        def ask() -> list[TopicPartition]:
            self._check_group()
            consumer = (connection or self._connection).consumer(settings)
            try:
                return committed_offsets(consumer, partitions, REQUEST_TIMEOUT_S)
            finally:
                consumer.close()

        found = self._retry(ask, connection)
        return {(p.topic, p.partition): (p.offset, p.metadata or "") for p in found if p.offset >= 0}

    def _check_group(self) -> None:
        """May this principal ask about the group? A consumer that may not waits for its coordinator in vain.

        Raises:
            KafkaException: the broker refuses, or does not tell.
        """
        group = self._kafka.group_id
        admin = self._client()  # it must outlive the future
        asked = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)
        try:
            _result(asked[group])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:  # one that has committed nothing yet
                raise

    def _client(self) -> AdminClient:
        """One that has lived through its broker's death asks the leader of a partition with the former one's epoch, for
        ever (librdkafka 2.16): it is asked by a new one.
        """
        return self._connection.admin(self._kafka)

    @staticmethod
    def _offsets(admin: AdminClient, wanted: list[TopicPartition], at: OffsetSpec) -> dict[tuple[str, int], int]:
        asked = admin.list_offsets(
            dict.fromkeys(wanted, at),
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        return {(partition.topic, partition.partition): _result(told).offset for partition, told in asked.items()}

    def _ask(self) -> Mapping[str, Any]:
        asked: Mapping[str, Any] = self._admin.describe_topics(
            TopicCollection(list(self.names.inputs)), request_timeout=REQUEST_TIMEOUT_S
        )
        return asked

    def _described(self) -> dict[str, Topic]:
        waiting = Waiting(GONE_S, steady(0.2, 0.2), clock=self._connection.clock)
        while True:
            try:
                return self._retry(lambda: described(self._ask()))  # type: ignore[no-any-return]
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
                if waiting.is_over:
                    raise LogNotWhole(f"one of the topics {', '.join(self.names.inputs)} was deleted") from error
                waiting.rest()

    def _retry(self, call: Any, connection: Connection | None = None) -> Any:
        return (connection or self._connection).retry(call, self._kafka.give_up_after_s)


class TopicsQuestion:
    """A question to the broker that is under way: are the topics still the same?

    Args:
        topics: as they were.
        asked: what `AdminClient.describe_topics` has given, by name.
    """

    def __init__(self, topics: Topics, asked: Mapping[str, Any]) -> None:
        self._topics, self._asked = topics, asked

    def is_answered(self) -> bool:
        """Compares without waiting; False: nothing is told yet, ask again later.

        Raises:
            LogNotWhole: see `Topics.check`.
        """
        if not all(told.done() for told in self._asked.values()):
            return False
        try:
            self._topics.compare(described(self._asked))
        except KafkaException as error:  # away: the next question may be answered
            self._topics.missed(error.args[0])
        else:
            self._topics.missed(None)
        return True

    def check(self) -> None:
        """See `Topics.check`: of what was fetched before it was asked."""
        try:
            now = described(self._asked)
        except KafkaException:  # away, or about to be gone: asked again, and waited for
            self._topics.check()
        else:
            self._topics.compare(now)


def topic_id(kafka: Kafka, connection: Connection, name: str) -> str:
    """The id of any topic.

    Raises:
        BrokerUnavailable, Stopped, KafkaException: the broker does not tell.
    """
    admin = connection.admin(kafka)

    def ask() -> str:
        return described(admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_S))[name].id

    return str(connection.retry(ask, kafka.give_up_after_s))


def described(asked: Mapping[str, Any]) -> dict[str, Topic]:
    """The answers to `AdminClient.describe_topics`."""
    found = {name: _result(told) for name, told in asked.items()}
    return {name: Topic(str(told.topic_id), len(told.partitions)) for name, told in found.items()}


def _result(future: Any) -> Any:
    try:
        return future.result(REQUEST_TIMEOUT_S + 1)
    except FutureTimeoutError:  # librdkafka's own limit did not come
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True)) from None

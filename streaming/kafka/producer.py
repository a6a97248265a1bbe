"""Scores, dead letters and offsets → one Kafka transaction per batch.

`Publisher` is a transactional producer whose errors are sorted into three: what passes is retried in here, what costs
the transaction becomes `Aborted` (already aborted: the batch can be done again), what costs the producer becomes
`TransactionFatal` (the process has to go: another process took its transactional.id, or it is lost). A broker that has
forgotten the transactional.id while nobody sent, and one that has lost a transaction as it died, costs one transaction:
the producer is made anew. So does a call that hangs in librdkafka: a `replacement` goes on, the old one is left behind.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from streaming.app.topics import TopicNames
from streaming.config import Kafka
from streaming.errors import Aborted, BrokerUnavailable, Stopped, TransactionFatal
from streaming.events.scores import Headers
from streaming.kafka.connection import Connection
from streaming.kafka.rights import AUTHORIZATION, Right, denied, sentence
from streaming.ops.waiting import Waiting, steady

__all__ = ["BATCH_BYTES", "CLOSE_S", "STOP_S", "Message", "Publisher", "message_bytes_max", "produce_all"]

CALL_TIMEOUT_S = 5.0  # one attempt of a transactional call; it is repeated until `give_up_after_s`
# Of `send_offsets_to_transaction`, which is not repeated but costs the transaction. It takes milliseconds, and is the
# call that hangs after a broker was killed: what comes first here is what such a scorer waits for before it goes on.
OFFSETS_TIMEOUT_S = 3.0
INIT_TURN_S = 1.0
AGAIN_MIN_S, AGAIN_MAX_S = 0.05, 0.15  # between two attempts
CLOSE_S = 1.0  # what was not sent is dropped: there is little to wait for
STOP_S = 3.0  # for how long a call is repeated once the process is told to stop
HUNG_S = 2.0  # a call that runs for so long beyond its timeout will not return; a busy machine may need a second
STEP_S = 2.0  # more than this between two looks at a call, and the process itself was stopped
# A broker writes a transaction's markers after it has answered the commit, and refuses the next transaction meanwhile.
# librdkafka then waits 20 ms: a rest as long as the markers usually take is shorter.
MARKERS_S = 0.006
BATCH_BYTES = 1_000_000  # librdkafka's own batch.size
MESSAGE_BYTES_FALLBACK = 1_000_000  # where the broker does not tell a topic's limit: Kafka's default is 1,048,588

Message = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""

_log = structlog.stdlib.get_logger("streaming.kafka.producer")


@dataclass
class _Running:
    """A call under way: its timeout, when it was looked at last, and for how long it runs as far as looks tell."""

    step: str
    timeout_s: float
    looked: float
    seconds: float = 0.0


class Publisher:
    """A transactional producer.

    Args:
        kafka: `[kafka]`.
        topics: of scores and dead letters.
        connection: makes the producer; once its `stop` is set, a call is repeated for `STOP_S` at most, and its `beat`
            is called while one is.
        transactional_id: instead of the scorer's own.
        others: topics that are written to besides.

    Attributes:
        dead_letter_bytes_max: the largest record that the dead-letter topic takes.
        on_lost: called after the broker did not know this producer.
    """

    def __init__(
        self,
        kafka: Kafka,
        topics: TopicNames,
        connection: Connection,
        transactional_id: str = "",
        others: Sequence[str] = (),
    ) -> None:
        self._kafka, self._connection, self._clock = kafka, connection, connection.clock
        self._scores, self._dead_letters = topics.scores, topics.dead_letters
        self._patience_s, self._timeout_s = kafka.give_up_after_s, kafka.transaction_timeout_s
        self._running: _Running | None = None
        self._turn = threading.Lock()  # of who begins a call, and who gives the producer up
        self._given_up = False
        self._stale = False  # it has seen its broker go
        self.on_lost: Callable[[], None] = lambda: None
        common = kafka.client()
        written = (self._scores, self._dead_letters, *others)
        limits = message_bytes_max(kafka, connection.admin(kafka), written)
        self.dead_letter_bytes_max = limits[self._dead_letters]
        self._committed = 0.0
        self.transactional_id = transactional_id or f"{kafka.transactional_id_prefix}-{kafka.instance}"
        self._rights = [
            *(Right("Write", "topic", topic) for topic in written),
            Right("Read", "group", kafka.group_id),
            Right("Write", "transactional id", self.transactional_id),
        ]
        self._settings = {
            **common,
            "transactional.id": self.transactional_id,
            "transaction.timeout.ms": int(kafka.transaction_timeout_s * 1000),
            "message.max.bytes": max(*limits.values(), 1_000_000),
            # A batch of several records is refused as a whole when it is larger than its topic takes one.
            "batch.size": min(*limits.values(), BATCH_BYTES),
            # A batch is flushed by the commit, which does not wait for the linger: this only lets records gather.
            "linger.ms": 5,
            # While the broker still writes the last transaction's markers (milliseconds), it refuses the first request
            # of the next one with CONCURRENT_TRANSACTIONS. With librdkafka's 100 ms before a retry every batch would
            # wait that long. Retries back off exponentially: a broker that is away is not hammered.
            "retry.backoff.ms": 2,
            # Java's partitioner, so that a user has the same partition here as with any Java producer.
            "partitioner": "murmur2_random",
            **kafka.librdkafka.producer,
            "error_cb": self._on_error,
        }
        self._producer = self._open()

    def start(self) -> None:
        """Takes the transactional.id: fences a former holder and ends the transaction that it left open."""
        # In short turns, because a signal to stop is noticed in between; librdkafka goes on where it was.
        self._call("init_transactions", self._producer.init_transactions, INIT_TURN_S)
        self._stale = False

    def mistrust(self) -> None:
        """The broker may not know this producer any more: it is made anew before the next transaction."""
        self._stale = True

    def begin(self) -> None:
        """Opens the transaction, once the broker has had time to write the last one's markers.

        After an outage with another producer: one that has lived through it mostly hangs in its next
        `send_offsets_to_transaction`.
        """
        self._producer.poll(0)  # serves `_on_error`
        if self._stale:
            _log.info("the broker was away, or may not know this producer: it is made anew")
            self._renew()
        self._clock.sleep(max(0.0, self._committed + MARKERS_S - self._clock.monotonic()))
        self._call("begin_transaction", self._producer.begin_transaction)

    def scores(self, messages: Sequence[Message]) -> None:
        """Adds scores (key, value, headers) to the transaction."""
        self._produce(self._scores, messages)

    def dead_letters(self, messages: Sequence[Message]) -> None:
        """Adds dead letters (key, value, headers) to the transaction."""
        self._produce(self._dead_letters, messages)

    def records(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Adds records of any topic to the transaction."""
        self._produce(topic, messages, partition=partition)

    def offsets(
        self, positions: Mapping[tuple[str, int], int], group_metadata: Any, note: Callable[[tuple[str, int]], str]
    ) -> None:
        """Adds the consumer group's new offsets to the transaction.

        Args:
            note: what is written beside the offset of a partition.
        """
        offsets = [TopicPartition(*p, offset, metadata=note(p)) for p, offset in positions.items()]
        self._call(
            "send_offsets_to_transaction",
            self._producer.send_offsets_to_transaction,
            offsets,
            group_metadata,
            OFFSETS_TIMEOUT_S,
            repeat=False,
        )

    def commit(self) -> None:
        """Makes all of it visible at once."""
        self._call("commit_transaction", self._producer.commit_transaction, CALL_TIMEOUT_S)
        self._committed = self._clock.monotonic()

    def hung(self) -> str | None:
        """The call that should have timed out long ago, if there is one; to be asked about once a second.

        librdkafka 2.16 may block in `send_offsets_to_transaction` for ever, whatever its timeout, when the broker was
        killed and came back. Time in which this process was stopped (SIGSTOP, a suspended machine) does not count.
        """
        running, now = self._running, self._clock.monotonic()
        if running is None:
            return None
        running.seconds += min(now - running.looked, STEP_S)
        running.looked = now
        return running.step if running.seconds > running.timeout_s + HUNG_S else None

    def replacement(self) -> Publisher | None:
        """Another one for the same transactional.id, once a call here hangs; its `start` ends this one's transaction.

        Whoever hangs here calls librdkafka no more, should he ever come back: nothing is committed from now on.

        Returns:
            None: the call that hangs is the commit, of which nobody knows what became, or `start` itself.
        """
        with self._turn:
            if self._running is not None and self._running.step in ("commit_transaction", "init_transactions"):
                return None
            self._given_up = True
        return self.twin(self.transactional_id)

    def twin(self, transactional_id: str) -> Publisher:
        """Another one, not started, that writes the same topics."""
        other = copy.copy(self)
        other._turn, other._given_up, other._running, other._committed = threading.Lock(), False, None, 0.0
        other.transactional_id = transactional_id
        others = (right for right in self._rights if right.kind != "transactional id")
        other._rights = [*others, Right("Write", "transactional id", transactional_id)]
        other._settings = {**self._settings, "transactional.id": transactional_id, "error_cb": other._on_error}
        other._producer = other._open()
        return other

    def close(self) -> None:
        """Drops what was not sent. An open transaction is ended by the next `start`, or by the broker."""
        with contextlib.suppress(KafkaException):  # of a producer that is spent already
            self._producer.purge()
            self._producer.flush(CLOSE_S)

    def _produce(self, topic: str, messages: Sequence[Message], **where: int) -> None:
        try:
            produce_all(self._producer, topic, messages, self._connection.beat, **where)
        except KafkaException as error:
            # Refused before it was sent, or the transaction failed in the background: either way it is lost.
            self._abort()
            raise Aborted(f"produce to {topic}: {error.args[0].str()}") from error

    def _on_error(self, error: KafkaError) -> None:
        self._stale |= error.code() == KafkaError._ALL_BROKERS_DOWN

    def _open(self) -> Producer:
        self._stale = False
        return self._connection.clients.producer(self._settings)

    def _renew(self) -> None:
        """A new producer under the same transactional.id; what the old one has not committed never will be.

        librdkafka asks for a new producer id when the broker refuses a topic for a transaction, but not when it
        refuses the group's offsets: then each further transaction fails in the same way.
        """
        self.close()
        self._producer = self._open()
        self.start()

    def _abort(self) -> None:
        self._call("abort_transaction", self._producer.abort_transaction, CALL_TIMEOUT_S)

    def _call(self, step: str, call: Callable[..., Any], *arguments: Any, repeat: bool = True) -> None:
        """Sorts what a transactional call raises.

        Args:
            arguments: of the call; the last is its timeout in seconds.
            repeat: call again while the broker is away.

        Raises:
            NotAllowed: a right is lacking. No other try would do.
            Stopped: told to stop while the broker is away. The next `start` ends the transaction.
        """
        waiting = Waiting(self._patience_s, steady(AGAIN_MIN_S, AGAIN_MAX_S), clock=self._clock)
        leaving = False
        while True:
            timeout_s = arguments[-1] if arguments else 0.0
            with self._turn:
                if self._given_up:
                    raise TransactionFatal(f"{step}: this producer was given up")
                self._running = _Running(step, timeout_s, self._clock.monotonic())
            try:
                call(*arguments)
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                # Of a commit that fails otherwise nobody knows what became: the next start asks the group.
                if error.code() in _LOST and (step != "commit_transaction" or error.txn_requires_abort()):
                    _log.warning("the broker does not know this producer: it is made anew", error=error.str())
                    self._renew()
                    self.on_lost()
                    raise Aborted(f"{step}: {error.str()}") from raised
                if error.code() in AUTHORIZATION:
                    raise denied(self._kafka, error, self._rights) from raised
                if error.txn_requires_abort() or (error.retriable() and not repeat and not error.fatal()):
                    self._abort()
                    raise Aborted(f"{step}: {error.str()}") from raised
                if error.fatal() or not error.retriable():
                    raise TransactionFatal(self._why_fatal(step, error)) from raised
                if self._connection.stop.is_set() and not leaving:
                    leaving = True
                    waiting.shorten(STOP_S)
                if waiting.is_over:
                    if leaving:
                        raise Stopped(f"{step}: {error.str()}") from raised
                    silence = f"{step}: no answer for {self._patience_s:.0f} s"
                    raise BrokerUnavailable(f"{silence}: {error.str()}") from raised
                self._stale = True
                _log.warning("transaction call is repeated", step=step, error=error.str())
                self._connection.ask_login()
                self._connection.beat()
                waiting.rest()
            else:
                return
            finally:
                self._running = None

    def _why_fatal(self, step: str, error: KafkaError) -> str:
        told = f"{step}: {error.str()} ({error.name()})"
        if error.code() not in _FENCED:
            return told
        return (
            f"{told}: either another process has begun with transactional.id {self.transactional_id!r} (each scorer "
            "needs its own kafka.instance_id), or the broker has ended a transaction of this one that was open for "
            f"longer than kafka.transaction_timeout_s = {self._timeout_s:g}, as after a pause of the process"
        )


def produce_all(
    producer: Producer, topic: str, messages: Sequence[Message], beat: Callable[[], None], **where: int
) -> None:
    """Hands messages to a producer; where its queue is full it is waited for, and `beat` called.

    Args:
        where: `partition`, else it is the key's.

    Raises:
        KafkaException: one is refused.
    """
    produce = producer.produce
    for key, value, headers in messages:
        while True:
            try:
                produce(topic, value, key, headers=headers, **where)  # type: ignore[arg-type]  # list is invariant
                break
            except BufferError:
                beat()
                producer.poll(0.1)


_LOST = {KafkaError.INVALID_PRODUCER_ID_MAPPING, KafkaError.UNKNOWN_PRODUCER_ID, KafkaError.INVALID_TXN_STATE}
"""After `transactional.id.expiration.ms` (7 days) without a transaction; or when a broker died as one began."""

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
"""The broker tells both cases by the same words."""


def message_bytes_max(kafka: Kafka, admin: AdminClient, topics: Sequence[str]) -> dict[str, int]:
    """`max.message.bytes` of each topic, as its broker says; the default where it does not tell."""
    wanted = {ConfigResource(ConfigResource.Type.TOPIC, topic): topic for topic in topics}
    limits = dict.fromkeys(topics, MESSAGE_BYTES_FALLBACK)
    for resource, future in admin.describe_configs(list(wanted), request_timeout=CALL_TIMEOUT_S).items():
        topic = wanted[resource]
        try:
            limits[topic] = int(future.result()["max.message.bytes"].value)
        except (KafkaException, KeyError) as error:
            why = str(error)
            if isinstance(error, KafkaException) and error.args[0].code() in AUTHORIZATION:
                why = sentence(kafka, [Right("DescribeConfigs", "topic", topic)])
            _log.warning(
                "the broker does not tell max.message.bytes: taken for the default",
                topic=topic,
                bytes=MESSAGE_BYTES_FALLBACK,
                why=why,
            )
    return limits

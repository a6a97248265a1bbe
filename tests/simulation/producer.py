"""Kafka's producers in memory: a transactional one, whose transactions fail as they may, and one without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from simulation.broker import Broker, Entry, Place, Transaction
from simulation.client import Client, fail

__all__ = ["PlainProducer", "Producer"]


class Producer(Client):
    """confluent_kafka.Producer with transactions, as `streaming.kafka.producer` uses it."""

    def __init__(self, broker: Broker, settings: Mapping[str, Any]) -> None:
        super().__init__(broker)
        self.name: str = settings["transactional.id"]
        self.epoch = 0
        self.buffer: list[Entry] = []
        self.transaction: Transaction | None = None
        self._spent = False
        self._broken = ""
        self._done = False

    def init_transactions(self, timeout: float) -> None:
        self.call("init")
        self._maybe_away("init_transactions", timeout)
        self._await_markers()
        self.epoch = self.broker.init(self.name)
        if self.world.luck("lost answer"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, "init_transactions timed out, though it was done", retriable=True)

    def begin_transaction(self) -> None:
        self._check_spent("begin_transaction")
        self.buffer, self._broken, self._done = [], "", False
        self.transaction = Transaction("open", self.world.now)

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        if self.transaction is None:
            fail(KafkaError._STATE, "no transaction is open")
        if self.world.luck("queue full"):
            raise BufferError("the queue is full")
        if self.world.luck("abort"):
            self._broken = "a record was not delivered"
        if self._broken:
            fail(KafkaError._STATE, f"produce: {self._broken}", abort=True)
        self.buffer.append(Entry((topic, 0), 0, key, value, list(headers), 0, self.transaction))

    def send_offsets_to_transaction(
        self, offsets: Sequence[TopicPartition], group: tuple[str | None, int], timeout: float
    ) -> None:
        self.call("send_offsets")
        self._check_spent("send_offsets")
        if self.world.luck("hang"):
            # librdkafka 2.16 does, see `Publisher.hung`: for ever, or until long after it was given up.
            self.world.sleep(self.world.random.choice((1e9, 12.0, 30.0)))
            self._check_spent("send_offsets")
        if self._broken or self.world.luck("abort"):
            self._broken = self._broken or "the coordinator moved"
            fail(KafkaError._STATE, f"send_offsets: {self._broken}", abort=True)
        self._maybe_away("send_offsets", timeout)
        if self.name not in self.broker.open and self.world.luck("id forgotten"):
            self.broker.forgotten.add(self.name)
        if self.name in self.broker.forgotten:
            # librdkafka lets this transaction be aborted, and fails in the next one in the same way.
            self._broken = "the transactional.id is not known"
            fail(KafkaError.INVALID_PRODUCER_ID_MAPPING, f"send_offsets: {self._broken}", abort=True)
        self._flush()
        # AddOffsetsToTxn waits for the markers of the last one; TxnOffsetCommit asks the group behind it.
        opened = self._open()
        name, generation = group
        if name not in self.broker.members:
            self._broken = "unknown member"
            fail(KafkaError.UNKNOWN_MEMBER_ID, "send_offsets: unknown member", abort=True)
        if generation != self.broker.generation:
            self._broken = "illegal generation"
            fail(KafkaError.ILLEGAL_GENERATION, "send_offsets: illegal generation", abort=True)
        opened.offsets |= {(p.topic, p.partition): p.offset for p in offsets}
        opened.notes |= {(p.topic, p.partition): p.metadata for p in offsets}
        if self.world.luck("lost answer"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, "send_offsets timed out, though it was done", retriable=True)

    def commit_transaction(self, timeout: float) -> None:
        self.call("commit")
        if self._done:
            return
        self._check_spent("commit")
        if self._broken or self.world.luck("abort"):
            self._broken = self._broken or "a record was not delivered"
            fail(KafkaError._STATE, f"commit: {self._broken}", abort=True)
        self._maybe_away("commit", timeout)
        self._flush()
        if self.transaction is self.broker.open.get(self.name):
            self.broker.end_transaction(self.name, "committed")
        self._done = True
        if self.world.luck("lost answer"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, "commit timed out, though it was done", retriable=True)
        if self.world.luck("lost producer"):
            self._spent = True
            self._check_spent("commit")

    def abort_transaction(self, timeout: float) -> None:
        self.call("abort")
        self._check_spent("abort")
        self._maybe_away("abort", timeout)
        self.buffer = []
        if self.transaction is self.broker.open.get(self.name) and self.transaction is not None:
            self.broker.end_transaction(self.name, "aborted")
        self.transaction, self._broken = None, ""

    def purge(self) -> None:
        self.buffer = []

    def flush(self, _: float) -> int:
        self.call("flush")
        return 0

    def poll(self, timeout: float) -> int:
        self.world.sleep(timeout)
        return 0

    def _maybe_away(self, step: str, timeout: float) -> None:
        if self.world.luck("broker away"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, f"{step} timed out", retriable=True)

    def _check_spent(self, step: str) -> None:
        if self.world.luck("lost producer"):
            if self.world.random.random() < 0.5:  # its broker died, and has no transaction of it
                fail(KafkaError.INVALID_TXN_STATE, f"{step}: invalid state", fatal=True)
            self._spent = True
        if self._spent or (self.epoch and self.broker.fenced(self.name, self.epoch)):
            self._spent = True
            fail(KafkaError._FENCED, f"{step}: fenced", fatal=True)

    def _flush(self) -> None:
        for entry in self.buffer:
            self._open()
            self.broker.logs[entry.place].append(entry)
        self.buffer = []

    def _await_markers(self) -> None:
        """The broker refuses with CONCURRENT_TRANSACTIONS until then, and librdkafka asks again by itself."""
        self.world.sleep(max(0.0, self.broker.marked(self.name) - self.world.now))

    def _open(self) -> Transaction:
        if self.transaction is None:
            raise AssertionError("the transaction was ended")
        if self.name not in self.broker.open:
            self._await_markers()
            self.transaction.since = self.world.now
            self.broker.open[self.name] = self.transaction
        return self.transaction


class PlainProducer(Client):
    """confluent_kafka.Producer without transactions, as `streaming.kafka.at_least_once` uses it.

    Without gaps: once a record is given up, all behind it in its partition are, too.
    """

    def __init__(self, broker: Broker, settings: Mapping[str, Any]) -> None:
        super().__init__(broker)
        self._on_delivery: Callable[[KafkaError | None, Any], None] = settings["on_delivery"]
        self.buffer: list[Entry] = []
        self._given_up: set[Place] = set()

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        if self.world.luck("queue full"):
            raise BufferError("the queue is full")
        self.buffer.append(Entry((topic, 0), 0, key, value, list(headers), 0))

    def __len__(self) -> int:
        return len(self.buffer)

    def flush(self, _: float) -> int:
        self.call("flush")
        return 0

    def poll(self, timeout: float) -> int:
        self.call("poll")
        if not self.buffer or self.world.luck("broker away"):
            self.world.sleep(max(timeout, 0.5))
            return 0
        given_up = self._given_up
        while self.buffer:
            self.call("a record")  # the process may die between two of a batch
            entry = self.buffer.pop(0)
            if entry.place not in given_up:
                taken = not self.world.luck("abort")
                if taken:
                    self.broker.logs[entry.place].append(entry)
                if not taken or self.world.luck("lost answer"):
                    given_up.add(entry.place)
            if entry.place in given_up:
                self._on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT, "message timed out"), None)
        return 0

    def purge(self) -> None:
        self.buffer = []

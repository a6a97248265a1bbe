"""Kafka's clients in memory: the calls, callbacks and errors are those that librdkafka has.

`SimulatedClients` is handed to the scorer instead of `streaming.kafka.clients.LIBRDKAFKA`. Errors are drawn by the
schedule.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import confluent_kafka
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from simulation.broker import Broker, Entry, Place, Transaction
from simulation.world import Process

__all__ = ["SimulatedClients"]

MESSAGE_BYTES_MAX = 1_000_000  # of every topic


class SimulatedClients:
    """Makes clients of a broker in memory (`streaming.kafka.clients.KafkaClients`)."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def consumer(self, settings: Mapping[str, Any]) -> confluent_kafka.Consumer:
        return cast(confluent_kafka.Consumer, Consumer(self._broker, settings))

    def producer(self, settings: Mapping[str, Any]) -> confluent_kafka.Producer:
        return cast(confluent_kafka.Producer, Producer(self._broker, settings))

    def admin(self, settings: Mapping[str, Any]) -> AdminClient:
        return cast(AdminClient, Admin(self._broker))


class Client:
    """What all kinds share: the process that they belong to."""

    def __init__(self, broker: Broker) -> None:
        self.world, self.broker = broker.world, broker
        self.process: Process = broker.world.process()

    def call(self, name: str) -> None:
        """Anything may happen now: others run, time passes, this process dies or freezes."""
        self.world.point(name)
        self.broker.expire()


def fail(code: int, reason: str, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> NoReturn:
    """Raises what librdkafka would."""
    raise KafkaException(KafkaError(code, reason, fatal=fatal, retriable=retriable, txn_requires_abort=abort))


class Consumer(Client):
    """confluent_kafka.Consumer, as `streaming.kafka.reader` and `streaming.kafka.action_source` use it."""

    def __init__(self, broker: Broker, settings: Mapping[str, Any]) -> None:
        super().__init__(broker)
        self.eof = bool(settings.get("enable.partition.eof"))
        self.committed_only = settings["isolation.level"] == "read_committed"
        self.position: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.name: str | None = None
        self.owned: set[Place] = set()
        self._ended: dict[Place, int] = {}
        self._callbacks: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self._subscribed = False
        self._rounds = -1

    def subscribe(self, _: Sequence[str], **callbacks: Any) -> None:
        self._callbacks, self._subscribed = callbacks, True

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.position, self.paused, self._ended = {}, set(), {}
        self._add(partitions)

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._add(partitions)

    def unassign(self) -> None:
        self.position = {}

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            del self.position[partition.topic, partition.partition]

    def _add(self, partitions: Sequence[TopicPartition]) -> None:
        new = {(p.topic, p.partition): p.offset for p in partitions}
        if self._subscribed and not new.keys() <= self.owned:
            raise AssertionError(f"{self.process.name} assigns {new}, of which the group has given it {self.owned}")
        self.position |= new

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused -= {(p.topic, p.partition) for p in partitions}

    def seek(self, partition: TopicPartition) -> None:
        place = (partition.topic, partition.partition)
        if place not in self.position:
            fail(KafkaError._STATE, f"seek of {place}, which is not assigned")
        if self.world.luck("seek too early"):
            fail(KafkaError._STATE, f"seek of {place}, which librdkafka has not begun to fetch")
        self.position[place] = partition.offset

    def consume(self, count: int, timeout: float) -> list[Entry]:
        self.call("consume")
        self._serve()
        found = self._fetch(count)
        if not found and timeout > 0:
            self._wait(timeout)
            found = self._fetch(count)
        return found

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.call("committed")
        if self.world.luck("broker away"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, "committed timed out", retriable=True)
        places = [(p.topic, p.partition) for p in partitions]
        if not all(map(self.broker.stable, places)):
            self.world.sleep(min(1.0, timeout))
            fail(KafkaError.UNSTABLE_OFFSET_COMMIT, "offsets are pending", retriable=True)
        return [TopicPartition(*place, self.broker.committed.get(place, -1001)) for place in places]

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = 0.0, cached: bool = False
    ) -> tuple[int, int]:
        if not cached:
            self.call("watermarks")
            if self.world.luck("broker away"):
                if self.world.random.random() < 0.5:
                    fail(KafkaError._UNKNOWN_PARTITION, "watermarks: unknown partition")  # its metadata is of before
                self.world.sleep(timeout)
                fail(KafkaError._TRANSPORT, "watermarks: broker transport failure", retriable=True)
        place = (partition.topic, partition.partition)
        return self.broker.logs[place].low, self._end(place)

    def list_topics(self, timeout: float) -> Any:
        self.call("list_topics")
        if self.world.luck("broker away"):
            self.world.sleep(timeout)
            fail(KafkaError._TRANSPORT, "metadata: broker transport failure", retriable=True)
        return _Metadata(self.broker)

    def consumer_group_metadata(self) -> tuple[str | None, int]:
        member = self.broker.members.get(self.name or "")
        return self.name, member.generation if member else -1

    def close(self) -> None:
        if not self._subscribed:
            return  # not a step: Python closes the readers of generators that were dropped, whenever it likes
        self.call("close")
        self._subscribed = False
        if self.owned:
            name = self.name
            live = name in self.broker.members
            self._tell("on_revoke" if live else "on_lost", set(self.owned))
        if self.name:
            self.broker.leave(self.name)

    def _own(self, places: set[Place]) -> None:
        self.owned = places
        if self.name in self.broker.members:
            for place, owner in list(self.broker.owners.items()):
                if owner == self.name and place not in places:
                    del self.broker.owners[place]

    def _tell(self, callback: str, places: set[Place]) -> None:
        self.world.tell(f"{self.process.name}: {callback} {sorted(places)}")
        before = self.world.now
        if callback == "on_assign":
            self._own(self.owned | places)
        self._callbacks[callback](self, [TopicPartition(*place) for place in sorted(places)])
        if callback != "on_assign":
            self._own(self.owned - places)
        elif self.world.now > before:
            raise AssertionError(f"{self.process.name}: its own partitions waited while new ones came")
        if not self.position.keys() <= self.owned:
            raise AssertionError(f"{self.process.name} keeps {self.position}, but the group gave it {self.owned}")

    def _wait(self, timeout: float) -> None:
        """Waits for records in vain, or until the group has news."""
        task = self.world.task
        if self._subscribed:
            self.broker.waiting.append(task)
        try:
            # Polls of nothing cost as much as others and show little: few of them, and long ones.
            self.world.sleep(timeout * self.world.random.choice((1, 4, 8)))
        finally:
            if self._subscribed:
                self.broker.waiting.remove(task)
        self._serve()

    def _serve(self) -> None:
        """The group's news, one at a time: lost partitions, revoked ones, new ones."""
        if not self._subscribed:
            return
        broker = self.broker
        if self.name is None:
            self.name = broker.join(self)
            return
        member = broker.members.get(self.name)
        if member is None:
            if self.owned:
                self._tell("on_lost", set(self.owned))
            self.name = broker.join(self)
            return
        if member.generation != broker.generation and self.world.random.random() < 0.3:
            return  # the news is still under way
        member.generation = broker.generation
        target = broker.target[self.name]
        if self.owned - target or (broker.eager and not member.fresh and self.owned):
            gone = set(self.owned) if broker.eager else self.owned - target
            self._tell("on_revoke", gone)
            return
        free = {place for place in target - self.owned if broker.owners.get(place, self.name) == self.name}
        if broker.eager and free != target - self.owned:
            return  # nobody gets anything before all have given up everything
        if free or not member.fresh:
            member.fresh = True
            broker.owners |= dict.fromkeys(free, self.name)
            self._tell("on_assign", free)

    def _fetch(self, count: int) -> list[Entry]:
        random = self.world.random
        if self._subscribed and self.world.luck("noise"):
            nowhere = Entry(("actions", 0), 0, None, None, [])
            nowhere.failure = KafkaError(KafkaError._TRANSPORT, "broker transport failure", retriable=True)
            return [nowhere]
        found: list[Entry] = []
        flowing = [place for place in sorted(self.position) if place not in self.paused]
        random.shuffle(flowing)
        for place in flowing:
            end, most = self._end(place), min(count - len(found), random.randint(1, 6))
            log = self.broker.logs[place]
            if not log.low <= self.position[place] <= log.end:
                gone = Entry(place, self.position[place], None, None, [])
                gone.failure = KafkaError(KafkaError._AUTO_OFFSET_RESET, "offset out of range")
                return [gone]
            entries = log.read(self.position[place], most, end if self.committed_only else None)
            if entries:
                self.position[place] = entries[-1].at + 1
                self._ended.pop(place, None)
                found += entries
            elif self.eof and self._ended.get(place) != end and len(found) < count:
                self._ended[place] = self.position[place] = end  # behind markers, too
                last = Entry(place, end, None, None, [])
                last.failure = KafkaError(KafkaError._PARTITION_EOF, "end of partition")
                found.append(last)
        return found

    def _end(self, place: Place) -> int:
        log = self.broker.logs[place]
        return log.stable(self.world.now) if self.committed_only else log.end


class Admin(Client):
    """confluent_kafka.admin.AdminClient, as `streaming.kafka.topics` uses it: what it tells was so when asked."""

    def list_topics(self, timeout: float) -> Any:
        self.call("list_topics")
        return _Metadata(self.broker)

    def describe_topics(self, asked: TopicCollection, request_timeout: float) -> dict[str, Answer]:
        broker = self.broker
        return self._answer(
            {
                name: _Described(broker.ids[name], sum(topic == name for topic, _ in broker.logs))
                for name in asked.topic_names
            }
        )

    def list_offsets(
        self, asked: Mapping[TopicPartition, Any], isolation_level: Any, request_timeout: float
    ) -> dict[TopicPartition, Answer]:
        if isolation_level != IsolationLevel.READ_UNCOMMITTED:
            raise AssertionError("the end for who reads committed is not simulated here")
        logs = {partition: self.broker.logs[partition.topic, partition.partition] for partition in asked}
        return self._answer(
            {
                partition: _Offset(logs[partition].low if at is OffsetSpec.earliest() else logs[partition].end)  # type: ignore[no-untyped-call]
                for partition, at in asked.items()
            }
        )

    def list_consumer_group_offsets(
        self, asked: Sequence[ConsumerGroupTopicPartitions], request_timeout: float
    ) -> dict[str, Answer]:
        broker = self.broker
        found = [TopicPartition(*p, offset, metadata=broker.notes.get(p)) for p, offset in broker.committed.items()]
        return self._answer({asked[0].group_id: types.SimpleNamespace(topic_partitions=found)})

    def describe_configs(self, asked: Sequence[ConfigResource], request_timeout: float) -> dict[ConfigResource, Any]:
        limit = types.SimpleNamespace(value=str(MESSAGE_BYTES_MAX))
        told = types.SimpleNamespace(result=lambda: {"max.message.bytes": limit})
        return dict.fromkeys(asked, told)

    def _answer(self, values: Mapping[Any, Any]) -> dict[Any, Answer]:
        """One request, however many futures: the first that is waited for waits for all of them."""
        waited = Waited(self)
        return {name: Answer(waited, value) for name, value in values.items()}


@dataclass
class _Described:
    topic_id: str
    count: int

    @property
    def partitions(self) -> range:
        return range(self.count)


@dataclass
class _Offset:
    offset: int


@dataclass
class Waited:
    """A request of the admin's."""

    admin: Admin
    over: bool = False


@dataclass
class Answer:
    """A future of the admin's: done at once, unless the broker is away."""

    waited: Waited
    value: Any

    def done(self) -> bool:
        return True

    def result(self, timeout: float) -> Any:
        if not self.waited.over:
            self.waited.over = True
            admin = self.waited.admin
            admin.call("answer")
            if admin.world.luck("broker away"):
                admin.world.sleep(timeout)
                fail(KafkaError._TIMED_OUT, "no answer", retriable=True)
        return self.value


class _Metadata:
    cluster_id = "simulated"

    def __init__(self, broker: Broker) -> None:
        self.topics: dict[str, Any] = {}
        for topic, partition in broker.logs:
            self.topics.setdefault(topic, _Topic()).partitions[partition] = None


class _Topic:
    def __init__(self) -> None:
        self.partitions: dict[int, None] = {}


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
        name, generation = group
        if name not in self.broker.members:
            self._broken = "unknown member"
            fail(KafkaError.UNKNOWN_MEMBER_ID, "send_offsets: unknown member", abort=True)
        if generation != self.broker.generation:
            self._broken = "illegal generation"
            fail(KafkaError.ILLEGAL_GENERATION, "send_offsets: illegal generation", abort=True)
        self._open().offsets |= {(p.topic, p.partition): p.offset for p in offsets}
        self._open().notes |= {(p.topic, p.partition): p.metadata for p in offsets}
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

    def _open(self) -> Transaction:
        if self.transaction is None:
            raise AssertionError("the transaction was ended")
        if self.name not in self.broker.open:
            self.transaction.since = self.world.now
            self.broker.open[self.name] = self.transaction
        return self.transaction

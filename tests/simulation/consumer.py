"""Kafka's consumer and admin client in memory."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, OffsetSpec

from simulation.broker import Broker, Entry, Place
from simulation.client import Client, fail

__all__ = ["Admin", "Consumer"]

MESSAGE_BYTES_MAX = 1_000_000  # of every topic


class Consumer(Client):
    """confluent_kafka.Consumer, as `streaming.kafka.reader` and `streaming.kafka.event_source` use it."""

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
        self._on_commit: Callable[[KafkaError | None, list[TopicPartition]], None] | None = settings.get("on_commit")
        self._told: list[tuple[KafkaError | None, list[TopicPartition]]] = []  # of commits, to be told by a poll

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

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        """The broker has it, or not; how it went is told by a later poll."""
        if not asynchronous:
            raise AssertionError("nobody here waits for a commit")
        self.call("commit offsets")
        member = self.broker.members.get(self.name or "")
        error = None
        if self.world.luck("broker away"):
            error = KafkaError(KafkaError._TIMED_OUT, "commit timed out", retriable=True)
        elif member is None:
            error = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "unknown member")
        elif member.generation != self.broker.generation:
            error = KafkaError(KafkaError.ILLEGAL_GENERATION, "illegal generation")
        else:
            self.broker.commit(offsets)
            if self.world.luck("lost answer"):
                error = KafkaError(KafkaError._TIMED_OUT, "commit timed out, though it was done", retriable=True)
        self._told.append((error, offsets))

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.call("committed")
        if self.world.luck("broker away"):
            self.world.sleep(timeout)
            fail(KafkaError._TIMED_OUT, "committed timed out", retriable=True)
        places = [(p.topic, p.partition) for p in partitions]
        if self.committed_only and not all(map(self.broker.stable, places)):
            self.world.sleep(min(1.0, timeout))
            fail(KafkaError.UNSTABLE_OFFSET_COMMIT, "offsets are pending", retriable=True)
        return [
            TopicPartition(*place, self.broker.committed.get(place, -1001), metadata=self.broker.notes.get(place) or "")
            for place in places
        ]

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
        while self._told and self._on_commit is not None:
            self._on_commit(*self._told.pop(0))
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

    def describe_consumer_groups(self, asked: Sequence[str], request_timeout: float) -> dict[str, Any]:
        """Anybody may know the groups here."""
        told = types.SimpleNamespace(result=lambda timeout: None)
        return dict.fromkeys(asked, told)

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

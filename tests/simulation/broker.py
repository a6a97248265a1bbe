"""Kafka in memory, under the simulator's schedule: logs, transactions, and one consumer group.

What a broker must refuse (a stale generation, an old epoch, an offset that is pending) it refuses always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from confluent_kafka import KafkaError, TopicPartition

from simulation.world import Process, Task, World

__all__ = ["Broker", "Entry", "GroupConsumer", "Place", "Transaction"]

Place = tuple[str, int]
"""(topic, partition)"""

SESSION_S = 6.0
TRANSACTION_S = 10.0


class GroupConsumer(Protocol):
    """A member of the group, as the broker knows it."""

    process: Process


@dataclass
class Transaction:
    """`state`: open, committed or aborted; until `marked` its logs do not tell which of them."""

    state: str
    since: float
    marked: float = 0.0
    offsets: dict[Place, int] = field(default_factory=dict)
    notes: dict[Place, str | None] = field(default_factory=dict)


@dataclass
class Entry:
    """One record of a log; a message, as far as the scorer looks at it."""

    place: Place
    at: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: list[tuple[str, bytes | None]]
    written_ms: int = 0
    transaction: Transaction | None = None
    failure: KafkaError | None = None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.record_value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return self.record_headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self.written_ms

    def error(self) -> KafkaError | None:
        return self.failure


class Log:
    """One partition. Offsets may have gaps, as markers of transactions leave them; what lies before `low` is gone."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.low = self.end = 0

    def append(self, entry: Entry) -> None:
        entry.at = self.end
        self.entries.append(entry)
        self.end += 1

    def stable(self, now: float) -> int:
        """Up to where one who reads committed sees: the first offset whose transaction is not over for the log."""
        return next(
            (e.at for e in self.entries if (t := e.transaction) and (t.state == "open" or t.marked > now)), self.end
        )

    def trim(self, low: int) -> None:
        """Retention: deletes what lies before `low`."""
        self.low = max(self.low, low)
        self.entries = [entry for entry in self.entries if entry.at >= self.low]

    def read(self, position: int, count: int, stable: int | None = None) -> list[Entry]:
        """`stable`: where to end; aborted entries are left out then."""
        found = [entry for entry in self.entries if entry.at >= position]
        if stable is not None:
            found = [e for e in found if e.at < stable and not (e.transaction and e.transaction.state == "aborted")]
        return found[:count]


@dataclass
class Member:
    """One member of the group. `generation` is the one it knows; `fresh`: it was told its assignment of it."""

    consumer: GroupConsumer
    generation: int
    fresh: bool = False


class Broker:
    """Logs, the transaction coordinator, and the group's coordinator."""

    def __init__(self, world: World, topics: Mapping[str, int], eager: bool) -> None:
        self.world = world
        world.rebalance = self.rebalance
        self.eager = eager
        self.logs: dict[Place, Log] = {(topic, n): Log() for topic, count in topics.items() for n in range(count)}
        self.ids = {topic: f"{topic}/1" for topic in topics}
        self.made = Counter[str]()
        self.committed: dict[Place, int] = {}
        self.notes: dict[Place, str | None] = {}
        self.epochs: dict[str, int] = {}
        self.open: dict[str, Transaction] = {}
        self.unmarked: list[tuple[str, Transaction]] = []  # over, with the producer's name
        self.forgotten: set[str] = set()  # transactional.ids
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.target: dict[str, set[Place]] = {}
        self.owners: dict[Place, str] = {}
        self.waiting: list[Task] = []  # for records, in a poll
        self._names = 0

    # ── transactions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def expire(self) -> None:
        """Ends what has timed out: transactions, and members whose process does not run."""
        now = self.world.now
        for name, transaction in list(self.open.items()):
            if now - transaction.since > TRANSACTION_S:
                self.end_transaction(name, "aborted")
                self.epochs[name] += 1
                self.world.tell(f"broker: {name} timed out")
        for name, member in list(self.members.items()):
            process = member.consumer.process
            if (silent := process.silent_since) is not None and now - silent > SESSION_S:
                self.leave(name)
                self.world.tell(f"broker: {name} is expelled")

    def init(self, name: str) -> int:
        """A new epoch for a transactional.id; its open transaction is aborted."""
        if name in self.open:
            self.end_transaction(name, "aborted")
        self.epochs[name] = self.epochs.get(name, 0) + 1
        self.forgotten.discard(name)
        return self.epochs[name]

    def end_transaction(self, name: str, state: str) -> None:
        transaction = self.open.pop(name)
        transaction.state = state
        # The markers are written one after another: the group's offsets may be there before the others.
        transaction.marked = self.world.now + self.world.random.choice((0.0, 0.0, 0.02, 1.0))
        self.unmarked.append((name, transaction))
        if state == "committed":
            for place, offset in transaction.offsets.items():
                if offset < self.committed.get(place, 0):
                    raise AssertionError(f"{name} commits {place}@{offset} after {self.committed[place]}")
                self.committed[place] = offset
            self.notes |= transaction.notes
        for log in {id(log): log for place, log in self.logs.items() if self._wrote(log, transaction)}.values():
            log.end += 1  # the marker
        self.world.tell(f"broker: {name} {state} {transaction.offsets}")

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Offsets of the group without a transaction."""
        for of in offsets:
            place = (of.topic, of.partition)
            if of.offset < self.committed.get(place, 0):
                raise AssertionError(f"{place}@{of.offset} is committed after {self.committed[place]}")
            self.committed[place] = of.offset
            self.notes[place] = of.metadata
        self.world.tell(f"broker: offsets {[(of.topic, of.partition, of.offset) for of in offsets]}")

    def fenced(self, name: str, epoch: int) -> bool:
        return self.epochs[name] != epoch

    def stable(self, place: Place) -> bool:
        """No transaction that is open, or whose marker is not written yet, holds an offset of it."""
        now = self.world.now
        self.unmarked = [(name, over) for name, over in self.unmarked if over.marked > now]
        pending = [*self.open.values(), *(over for _, over in self.unmarked)]
        return not any(place in transaction.offsets for transaction in pending)

    def marked(self, name: str) -> float:
        """When the markers of this producer's last transaction are written: its next one is refused before."""
        return max((over.marked for other, over in self.unmarked if other == name), default=0.0)

    @staticmethod
    def _wrote(log: Log, transaction: Transaction) -> bool:
        return any(entry.transaction is transaction for entry in reversed(log.entries))

    # ── what is done to the log and the group ────────────────────────────────────────────────────────────────────────

    def make_anew(self, topic: str) -> None:
        """Deletes a topic and makes it anew, empty; the group's offsets of it go with it, as they do."""
        self.made[topic] += 1
        self.ids[topic] = f"{topic}/{self.made[topic] + 1}"
        for place in [place for place in self.logs if place[0] == topic]:
            self.logs[place] = Log()
            self.committed.pop(place, None)
            self.notes.pop(place, None)
        self.world.tell(f"broker: {topic} is made anew")

    def add_partition(self, topic: str) -> Place:
        """One more; the group is told."""
        place = topic, sum(name == topic for name, _ in self.logs)
        self.logs[place] = Log()
        self.world.tell(f"broker: {topic} has a partition more")
        self.rebalance()
        return place

    def delete_group(self) -> None:
        """Forgets its offsets. It must have no members."""
        if self.members or self.open:
            raise AssertionError("the group is not empty")
        self.committed.clear()
        self.notes.clear()
        self.world.tell("broker: the group is deleted")

    # ── the group ────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, consumer: GroupConsumer) -> str:
        self._names += 1
        name = f"{consumer.process.name}/{self._names}"
        self.members[name] = Member(consumer, self.generation)
        self.rebalance()
        return name

    def leave(self, name: str) -> None:
        if self.members.pop(name, None):
            self.owners = {place: owner for place, owner in self.owners.items() if owner != name}
            self.rebalance()

    def rebalance(self) -> None:
        """A new generation. Which member gets what is drawn: any assignor's answer may come."""
        self.generation += 1
        names = sorted(self.members)
        self.target = {name: set() for name in names}
        for place in sorted(place for place in self.logs if place[0] == "actions"):
            if names:
                self.target[self.world.random.choice(names)].add(place)
        for member in self.members.values():
            member.fresh = False
        for task in self.waiting:
            task.wake = min(task.wake, self.world.now)
        self.world.tell(f"broker: generation {self.generation} {self.target}")

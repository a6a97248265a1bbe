"""What a shop sends, for `chaos` and `soak`: plain and in transactions, some of it poison, and an archive of all of it.

A topic that is made anew begins another epoch: records of two epochs may lie at the same offset. So the name of each
request, and a header of each record, say of which epoch they are.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from fixtures.scorer import PARTITIONS, START_MS, Stage

from deploy.kafka.clients import PARTITIONER, Follower, produce

__all__ = ["EPOCH", "Archive", "Failed", "Traffic", "Upstream", "epoch_of"]

EPOCH = "epoch"
"""The header of an action."""

LATE_MS = 86_400_000
POISON_SHARE = 0.01
COMMENT_SHARE = 0.002
ABORTED_SHARE = 0.3
TRANSACTION_ACTIONS_MAX = 40
UPSTREAM_TIMEOUT_S = 15.0  # of a transaction whose producer has died
FLUSH_S = 120.0


class Failed(Exception):
    """The pipeline cannot be judged: something died that nothing starts again, or did what it must not."""


def epoch_of(request_id: str) -> int:
    """In which epoch a request was made."""
    return int(request_id.partition("-")[0].removeprefix("e"))


class Shopping:
    """A seeded stream of actions, as JSON, some of them poison.

    Args:
        users: among whom actions are drawn.
        now: events happen when they are sent (some a day before), not in 2016.
    """

    def __init__(self, seed: int, users: int, now: bool) -> None:
        self.random = np.random.default_rng(seed)
        self._users, self._now = users, now
        self._event_ms = START_MS

    def action(self, request_id: str) -> tuple[str, bytes]:
        """The next: its key and value."""
        random = self.random
        self._event_ms += int(random.integers(0, 3)) * 40_000
        if self._now:
            self._event_ms = int(time.time() * 1000)
        user = str(int(random.integers(0, self._users)))
        late = int(random.integers(0, LATE_MS)) if random.random() < 0.1 else 0
        action = {
            "user_id": user,
            "sku_id": str(int(random.integers(0, 12))),
            "time": self._event_ms - late,
            "type": str(int(random.integers(1, 7))),
            "model_id": str(int(random.integers(0, 4))),
            "cate": "8",
            "br": str(int(random.integers(0, 5))),
            "request_id": request_id,
        }
        return user, json.dumps(action).encode()


class Traffic:
    """A shop that sends `per_s` actions a second on a thread of its own, until `close`; see `Shopping`.

    Attributes:
        sent: request id → when it was handed to the producer (monotonic seconds); taken out by whoever sees its score.
        acknowledged: the requests that the broker has.
        actions, poison, comments: how many were sent of each.
        epoch: of the topic; set it while paused.
        with_comments: some come now and then, every second one poison.
    """

    def __init__(self, stage: Stage, per_s: float, seed: int, users: int = 40, now: bool = False) -> None:
        self.sent: dict[str, float] = {}
        self.acknowledged: set[str] = set()
        self.actions = self.poison = self.comments = 0
        self.epoch = 0
        self.with_comments = True
        self.failure: BaseException | None = None
        self._stage, self._per_s = stage, per_s
        self._shopping = Shopping(seed, users, now)
        self._number = 0
        self._producer = self._opened()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)

    def start(self) -> None:
        self._stop.clear()
        self._producer = self._opened()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends no more, until it is started again; all that was sent is on the broker.

        Raises:
            Failed: it is not.
        """
        self._stop.set()
        self._thread.join()
        if left := self._producer.flush(FLUSH_S):
            raise Failed(f"the broker did not take {left} messages")
        if self.failure is not None:
            raise Failed(f"the traffic failed: {self.failure}") from self.failure

    def _opened(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._stage.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "partitioner": PARTITIONER,
                "message.timeout.ms": 300_000,
                "log_level": 0,
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )

    def _send(self) -> None:
        try:
            started, before = time.monotonic(), self._number
            while not self._stop.is_set():
                due = before + int((time.monotonic() - started) * self._per_s)
                while self._number < due:
                    self._one(f"e{self.epoch}-r{self._number}")
                    self._number += 1
                self._producer.poll(0.005)
        except BaseException as error:
            self.failure = error

    def _one(self, request_id: str) -> None:
        random, topics = self._shopping.random, self._stage.topics
        user, value = self._shopping.action(request_id)
        luck = random.random()
        if luck < POISON_SHARE:
            self.poison += 1
            self._produce(topics["actions"], user, value[: int(random.integers(0, len(value)))], "")
            return
        if (
            luck < POISON_SHARE + COMMENT_SHARE and self.with_comments
        ):  # nobody looks at it: no feature depends on when it comes
            self.comments += 1
            self._produce(topics["comments"], "nobody's", b"{" if self.comments % 2 else _comment("nobody's"), "")
        self.actions += 1
        self.sent[request_id] = time.monotonic()
        self._produce(topics["actions"], user, value, request_id)

    def _produce(self, topic: str, key: str, value: bytes, request_id: str) -> None:
        headers: dict[str, str | bytes | None] = (
            {EPOCH: str(self.epoch)} if topic == self._stage.topics["actions"] else {}
        )

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self.failure = KafkaException(error)
            elif request_id:
                self.acknowledged.add(request_id)

        produce(self._producer, topic, key, value, headers, delivered)


def _comment(sku_id: str) -> bytes:
    row = {
        "sku_id": sku_id,
        "ingestionTime": START_MS,
        "dt": 0,
        "comment_num": 1,
        "has_bad_comment": "0",
        "bad_comment_rate": 0.5,
    }
    return json.dumps(row).encode()


class Upstream:
    """Another shop, whose producer is transactional: it commits most, aborts some, and leaves some open when told to.

    Attributes:
        aborted: requests of which it is certain that nobody may ever see them.
        failure: what ended the thread.
    """

    def __init__(self, stage: Stage, traffic: Traffic, per_s: float, seed: int) -> None:
        self.aborted: set[str] = set()
        self.failure: BaseException | None = None
        self._stage, self._traffic, self._per_s = stage, traffic, per_s
        self._shopping = Shopping(seed, 40, now=False)
        self._number = 0
        self._stop, self._hold, self._held = threading.Event(), threading.Event(), threading.Event()
        self._die = False
        self._thread = threading.Thread(target=self._send, name="upstream", daemon=True)

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._send, name="upstream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends no more, until it is started again; no transaction of it is open."""
        self._stop.set()
        self._hold.clear()
        self._thread.join()
        if self.failure is not None:
            raise Failed(f"the transactional traffic failed: {self.failure}") from self.failure

    def hold(self) -> None:
        """A transaction with records in it stays open until `release`."""
        self._held.clear()
        self._hold.set()
        if not self._held.wait(FLUSH_S):
            raise Failed(f"no upstream transaction came to be open: {self.failure}")

    def release(self, die: bool = False) -> None:
        """Ends what was held.

        Args:
            die: as if its producer were gone: the broker aborts it after `UPSTREAM_TIMEOUT_S`.
        """
        self._die = die
        self._hold.clear()

    def _send(self) -> None:
        try:
            while not self._stop.is_set():
                producer = self._opened()
                while not self._stop.is_set() and self._transaction(producer):
                    pass
        except BaseException as error:
            self.failure = error

    def _opened(self) -> Producer:
        """A new one; it aborts what the last one has left open."""
        while True:
            producer = Producer(
                {
                    "bootstrap.servers": self._stage.bootstrap,
                    "transactional.id": f"upstream-{self._stage.name}",
                    "transaction.timeout.ms": int(UPSTREAM_TIMEOUT_S * 1000),
                    "linger.ms": 2,
                    "log_level": 0,
                    "partitioner": PARTITIONER,
                    "topic.metadata.refresh.interval.ms": 1000,
                }
            )
            with suppress(KafkaException):
                producer.init_transactions(10)
                return producer

    def _transaction(self, producer: Producer) -> bool:
        """One; False: another producer is needed."""
        names: list[str] = []
        traffic = self._traffic
        random = self._shopping.random
        try:
            producer.begin_transaction()
            for _ in range(int(random.integers(1, TRANSACTION_ACTIONS_MAX))):
                names.append(self._one(producer))
                self._stop.wait(1 / self._per_s)
            if self._hold.is_set():
                producer.flush(FLUSH_S)
                self._held.set()
                while self._hold.is_set():
                    time.sleep(0.01)
                if self._die:
                    self._die = False
                    self._forget(names)
                    self.aborted.update(names)
                    time.sleep(UPSTREAM_TIMEOUT_S)
                    return False
            if random.random() < ABORTED_SHARE:
                self._forget(names)
                self._until_told(lambda: producer.abort_transaction(5))
                self.aborted.update(names)
            else:
                self._until_told(lambda: producer.commit_transaction(5))
                traffic.acknowledged.update(names)
        except KafkaException:  # whether it is committed is not known: the archive tells
            self._forget(names)
            return False
        return True

    def _one(self, producer: Producer) -> str:
        traffic = self._traffic
        request_id = f"e{traffic.epoch}-u{self._number}"
        self._number += 1
        key, value = self._shopping.action(request_id)
        traffic.sent[request_id] = time.monotonic()
        produce(producer, self._stage.topics["actions"], key, value, {EPOCH: str(traffic.epoch)})
        return request_id

    def _forget(self, names: list[str]) -> None:
        for name in names:
            self._traffic.sent.pop(name, None)

    @staticmethod
    def _until_told(call: Any) -> None:
        while True:
            try:
                return call()  # type: ignore[no-any-return]
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise


class Archive:
    """All that is committed in the actions' topic, read as it comes, on a thread of its own: retention takes it.

    Attributes:
        records: of each partition, in its order.
    """

    def __init__(self, stage: Stage) -> None:
        self.records: dict[int, list[Message]] = {number: [] for number in range(PARTITIONS)}
        self._topic = stage.topics["actions"]
        places = [(self._topic, number) for number in self.records]
        self._follower = Follower("archive", stage.bootstrap, places, self._take)
        self._follower.start()

    @property
    def covered(self) -> dict[int, int]:
        """Up to which offset of each partition everything was read."""
        return {number: self._follower.covered.get((self._topic, number), 0) for number in self.records}

    def wait(self, ends: Mapping[int, int], timeout_s: float = FLUSH_S) -> None:
        """Everything before these offsets is in it.

        Raises:
            Failed: not in time.
        """
        deadline = time.monotonic() + timeout_s
        while any(self.covered[number] < end for number, end in ends.items()):
            failure = self._follower.failure
            if failure is not None or time.monotonic() > deadline:
                raise Failed(f"the archive has {self.covered} of {ends}: {failure}") from failure
            time.sleep(0.02)

    def close(self) -> None:
        self._follower.close()
        if (failure := self._follower.failure) is not None:
            raise Failed(f"the archive failed: {failure}") from failure

    def _take(self, message: Message, _: float) -> None:
        self.records[message.partition() or 0].append(message)

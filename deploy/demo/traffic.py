"""Traffic for the demo: a shop that sends actions as fast as they are scored, a subscriber that sees the commits."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from batch.replay import Message

__all__ = ["PACED_PER_S", "PACED_SHARE", "POISON", "WINDOW", "Shop", "Subscriber", "TrafficError", "poison"]

WINDOW = 4000
"""Unanswered events at most while the stream is sent as fast as it is taken."""

PACED_PER_S = 1000.0
PACED_SHARE = 0.1
"""The last tenth is sent at PACED_PER_S events/s: the latency of a system that is not flooded."""

SILENCE_S_MAX = 120.0
"""Longest wait for the next score before the demo gives up: a Triton or broker that died shows in the scorer's log."""


def poison(user: bytes, time_ms: int) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Messages that must end as dead letters: what is wrong → (key, value).

    Args:
        user: a user id that exists; `time_ms`: a valid event time, epoch ms.
    """
    good = {
        "user_id": user.decode(),
        "sku_id": "1",
        "time": time_ms,
        "type": "1",
        "model_id": "",
        "cate": "8",
        "br": "1",
    }

    def message(**changes: Any) -> bytes:
        return json.dumps({**good, **changes}).encode()

    return {
        "broken JSON": (user, b'{"user_id": "1", '),
        "no value": (user, None),
        "empty value": (user, b""),
        "not UTF-8": (user, b'{"user_id": "\xff\xfe"}'),
        "missing fields": (user, b'{"user_id": "' + user + b'"}'),
        "null field": (user, message(sku_id=None)),
        "text for time": (user, message(time="yesterday")),
        "negative time": (user, message(time=-1)),
        "year 2286": (user, message(time=9_999_999_999_999)),
        "unknown type": (user, message(type="9")),
        "key of another user": (b"somebody-else", message()),
        "5 MB of text": (user, message(br="x" * 5_000_000)),
    }


POISON = len(poison(b"", 0))


class TrafficError(RuntimeError):
    """Events cannot be sent, or scores cannot be read."""


@dataclass
class Subscriber:
    """Another system that reads scores: `read_committed`, from the start of both topics, on a thread of its own.

    `scores` maps request id → the score's fields; `received` → when it was seen (monotonic seconds).
    """

    bootstrap: str
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    dead: Counter[str] = field(default_factory=Counter)
    """Dead letters by exception class."""
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="subscriber", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def seen(self) -> int:
        """Events accounted for: scores and dead letters."""
        return len(self.scores) + len(self.doubled) + self.dead.total()

    def _follow(self) -> None:
        try:
            self._read()
        except BaseException as error:
            self.failure = error

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "demo-subscriber",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.subscribe(["purchase-scores", "user-actions.dlq"])
        try:
            while not self._stop.is_set():
                records = consumer.consume(1000, 0.02)
                now = time.monotonic()
                for record in records:
                    error = record.error()
                    if error is not None:
                        if error.code() != KafkaError._ALL_BROKERS_DOWN:
                            raise KafkaException(error)
                    elif record.topic() == "purchase-scores":
                        self._score(json.loads(record.value() or b""), now)
                    else:
                        headers: dict[str, Any] = dict(record.headers() or [])
                        self.dead[headers["__connect.errors.exception.message"].decode(errors="replace")[:100]] += 1
        finally:
            consumer.close()

    def _score(self, score: dict[str, Any], now: float) -> None:
        request_id = score["request_id"]
        if request_id in self.scores:
            self.doubled.append(request_id)
        else:
            self.received[request_id] = now
            self.scores[request_id] = score


class Shop:
    """Sends events; `sent` maps request id → when it was handed to the producer (monotonic seconds).

    `check` is called while scores are awaited: it raises when they cannot come any more.
    """

    def __init__(self, bootstrap: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 2,
                "message.max.bytes": 6_000_000,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # as any Java producer: a user has one partition, whoever sends
                "log_level": 3,  # a broker that has just started is still loading: librdkafka asks again by itself
            }
        )
        self._count = 0
        self.sent: dict[str, float] = {}

    def send(self, messages: Sequence[Message]) -> None:
        """Sends all at once and waits until the broker has them."""
        for message in messages:
            self._produce(message.topic, message.key, message.value)
        self.flush()

    def send_poison(self, user: bytes, time_ms: int) -> None:
        for key, value in poison(user, time_ms).values():
            self._produce("user-actions", key, value)
            self._count += 1
        self.flush()

    def replay(self, actions: Sequence[Message], subscriber: Subscriber, window: int, per_s: float = 0.0) -> float:
        """Sends actions, at most `window` of them unanswered, at most `per_s` a second (0: as fast as they are taken).

        Returns:
            Seconds from the first action to the last score.

        Raises:
            TimeoutError: nothing was answered for SILENCE_S_MAX seconds.
        """
        started = time.monotonic()
        for number, action in enumerate(actions):
            if per_s:
                while (early := started + number / per_s - time.monotonic()) > 0:
                    self._producer.poll(min(early, 0.01))
            if self._count - subscriber.seen() >= window:
                self._wait(subscriber, self._count - window * 9 // 10)
            self._produce(action.topic, action.key, action.value)
            self.sent[action.request_id] = time.monotonic()
            self._count += 1
        self.flush()
        self._wait(subscriber, self._count)
        return time.monotonic() - started

    def flush(self) -> None:
        left = self._producer.flush(60)
        if left:
            raise TimeoutError(f"the broker did not take {left} messages in 60 s")

    def _wait(self, subscriber: Subscriber, count: int) -> None:
        best, since = subscriber.seen(), time.monotonic()
        while (seen := subscriber.seen()) < count:
            if subscriber.failure is not None:
                raise TrafficError(f"the subscriber failed: {subscriber.failure}") from subscriber.failure
            self._check()
            if seen > best:
                best, since = seen, time.monotonic()
            elif time.monotonic() - since > SILENCE_S_MAX:
                raise TimeoutError(f"no score for {SILENCE_S_MAX:.0f} s: {seen} of {count} events are answered")
            self._producer.poll(0.002)

    def _produce(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=_delivered)
            except BufferError:  # librdkafka's queue is full: let it send
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return


def _delivered(error: KafkaError | None, _: object) -> None:
    if error is not None:
        raise TrafficError(f"an event was not taken: {error.str()}")

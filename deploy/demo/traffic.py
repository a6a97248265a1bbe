"""Traffic for the demo: a shop that sends actions as fast as they are scored, a subscriber that sees the commits."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from batch.replay import Message as ReplayMessage
from deploy.kafka.broker import TOPICS
from deploy.kafka.clients import PARTITIONER, Follower, produce

__all__ = ["PACED_PER_S", "PACED_SHARE", "POISON", "WINDOW", "EventSender", "ScoreSubscriber", "TrafficError", "poison"]

ACTIONS, SCORES, DEAD_LETTERS = "user-actions", "purchase-scores", "user-actions.dlq"

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
        user: a user id that exists.
        time_ms: a valid event time, epoch ms.
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


class ScoreSubscriber:
    """Another system that reads scores: `read_committed`, from the start of both topics, on a thread of its own.

    Args:
        bootstrap: addresses of the brokers.

    Attributes:
        scores: request id → the score's fields.
        received: request id → when its score was seen (monotonic seconds).
        doubled: request ids that were scored again.
        dead: dead letters by the message of their error.
    """

    def __init__(self, bootstrap: str) -> None:
        self.scores: dict[str, dict[str, Any]] = {}
        self.received: dict[str, float] = {}
        self.doubled: list[str] = []
        self.dead: Counter[str] = Counter()
        places = [(topic, number) for topic in (SCORES, DEAD_LETTERS) for number in range(TOPICS[topic])]
        self._follower = Follower("demo-subscriber", bootstrap, places, self._take, poll_s=0.02)
        self._follower.start()

    @property
    def failure(self) -> BaseException | None:
        """What ended its thread."""
        return self._follower.failure

    def close(self) -> None:
        """Reads no more."""
        self._follower.close()

    def seen(self) -> int:
        """Events accounted for: scores and dead letters."""
        return len(self.scores) + len(self.doubled) + self.dead.total()

    def _take(self, record: Message, now: float) -> None:
        if record.topic() == SCORES:
            self._score(json.loads(record.value() or b""), now)
        else:
            headers: dict[str, Any] = dict(record.headers() or [])
            self.dead[headers["__connect.errors.exception.message"].decode(errors="replace")[:100]] += 1

    def _score(self, score: dict[str, Any], now: float) -> None:
        request_id = score["request_id"]
        if request_id in self.scores:
            self.doubled.append(request_id)
        else:
            self.received[request_id] = now
            self.scores[request_id] = score


class EventSender:
    """Sends events, as a shop does.

    Args:
        bootstrap: addresses of the brokers.
        check: called while scores are awaited; raises when they cannot come any more.

    Attributes:
        sent: request id → when it was handed to the producer (monotonic seconds).
    """

    def __init__(self, bootstrap: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 2,
                "message.max.bytes": 6_000_000,
                "enable.idempotence": True,
                "partitioner": PARTITIONER,
                "log_level": 3,  # a broker that has just started is still loading: librdkafka asks again by itself
            }
        )
        self._count = 0
        self.sent: dict[str, float] = {}

    def send(self, messages: Sequence[ReplayMessage]) -> None:
        """Sends all at once and waits until the broker has them."""
        for message in messages:
            produce(self._producer, message.topic, message.key, message.value, on_delivery=_delivered)
        self.flush()

    def send_poison(self, user: bytes, time_ms: int) -> None:
        for key, value in poison(user, time_ms).values():
            produce(self._producer, ACTIONS, key, value, on_delivery=_delivered)
            self._count += 1
        self.flush()

    def replay(
        self, actions: Sequence[ReplayMessage], subscriber: ScoreSubscriber, window: int, per_s: float = 0.0
    ) -> float:
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
            produce(self._producer, action.topic, action.key, action.value, on_delivery=_delivered)
            self.sent[action.request_id] = time.monotonic()
            self._count += 1
        self.flush()
        self._wait(subscriber, self._count)
        return time.monotonic() - started

    def flush(self) -> None:
        left = self._producer.flush(60)
        if left:
            raise TimeoutError(f"the broker did not take {left} messages in 60 s")

    def _wait(self, subscriber: ScoreSubscriber, count: int) -> None:
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


def _delivered(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        raise TrafficError(f"an event was not taken: {error.str()}")

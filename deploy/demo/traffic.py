"""Traffic for the demo: a shop that sends events as fast as they are scored, a subscriber that sees the commits."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Record

from batch.replay import Message
from deploy.demo.shop import Shop
from deploy.kafka.broker import topics_of
from deploy.kafka.clients import PARTITIONER, Follower, produce
from streaming.app.streams import Stream
from streaming.events.scores import score_json

__all__ = [
    "PACED_PER_S",
    "PACED_SHARE",
    "POISON",
    "WINDOW",
    "EventSender",
    "ScoreSubscriber",
    "TrafficError",
    "poison",
    "producer_to",
]

WINDOW = 4000
"""Unanswered events at most while the stream is sent as fast as it is taken."""

PACED_PER_S = 1000.0
PACED_SHARE = 0.1
"""The last tenth is sent at PACED_PER_S events/s: the latency of a system that is not flooded."""

SILENCE_S_MAX = 120.0
"""Longest wait for the next score before the demo gives up: a Triton or broker that died shows in the scorer's log."""

FLUSH_S_MAX = 60


def poison(stream: Stream, good: Message) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Messages that must end as dead letters: what is wrong → (key, value).

    Args:
        stream: the one that they are of, which is scored.
        good: an event of it.
    """
    event = json.loads(good.value)
    key_column, time_column = stream.key or "", stream.event_time
    far, before = {
        "epoch_ms": (9_999_999_999_999, -1),
        "epoch_s": (9_999_999_999, -1),
        "iso-8601": ("2286-11-20T17:46:39Z", "1969-12-31T23:59:59Z"),
    }[stream.timestamp_format]

    def message(**changes: Any) -> bytes:
        return json.dumps({**event, **changes}).encode()

    return {
        "broken JSON": (good.key, good.value[: len(good.value) // 2]),
        "no value": (good.key, None),
        "empty value": (good.key, b""),
        "not UTF-8": (good.key, json.dumps({key_column: "?"}).encode().replace(b"?", b"\xff\xfe")),
        "missing fields": (good.key, json.dumps({key_column: event[key_column]}).encode()),
        "null field": (good.key, message(**{time_column: None})),
        "text for time": (good.key, message(**{time_column: "yesterday"})),
        "negative time": (good.key, message(**{time_column: before})),
        "year 2286": (good.key, message(**{time_column: far})),
        "a list for the key": (good.key, message(**{key_column: [1]})),
        "key of another": (b"somebody-else", message()),
        "5 MB of text": (good.key, message(text="x" * 5_000_000)),
    }


POISON = 12


class TrafficError(RuntimeError):
    """Events cannot be sent, or scores cannot be read."""


def producer_to(bootstrap: str) -> Producer:
    """A shop's client."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 2,
            "message.max.bytes": 6_000_000,
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "log_level": 0,  # a broker that begins or ends is no news; what was not taken is told for each message
        }
    )


class ScoreSubscriber:
    """Another system that reads scores: `read_committed`, from the start of both topics, on a thread of its own.

    Args:
        bootstrap: addresses of the brokers.
        shop: whose scores they are.

    Attributes:
        scores: request id → the score's fields.
        received: request id → when its score was seen (monotonic seconds).
        doubled: request ids that were scored again.
        dead: dead letters by the message of their error.
    """

    def __init__(self, bootstrap: str, shop: Shop) -> None:
        self._shop = shop
        self.scores: dict[str, dict[str, Any]] = {}
        self.received: dict[str, float] = {}
        self.doubled: list[str] = []
        self.dead: Counter[str] = Counter()
        counts, topics = topics_of(shop.topics), (shop.topics.scores, shop.topics.dead_letters)
        places = [(topic, number) for topic in topics for number in range(counts[topic])]
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

    def _take(self, record: Record, now: float) -> None:
        if record.topic() == self._shop.topics.scores:
            self._score(json.loads(score_json(record) or b""), now)
        else:
            headers: dict[str, Any] = dict(record.headers() or [])
            self.dead[headers["__connect.errors.exception.message"].decode(errors="replace")[:100]] += 1

    def _score(self, score: dict[str, Any], now: float) -> None:
        request_id = str(score[self._shop.request_id])
        if request_id in self.scores:
            self.doubled.append(request_id)
        else:
            self.received[request_id] = now
            self.scores[request_id] = score


class EventSender:
    """Sends events, as a shop does.

    Args:
        bootstrap: addresses of the brokers.
        timed: each record is written at its event's time, not now: so the scorer knows the order of events that come on
            several topics.
        check: called while scores are awaited; raises when they cannot come any more.

    Attributes:
        sent: request id → when it was handed to the producer (monotonic seconds).
    """

    def __init__(self, bootstrap: str, *, timed: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self._timed, self._check = timed, check
        self._producer = producer_to(bootstrap)
        self._count = 0
        self.sent: dict[str, float] = {}

    def send(self, messages: Sequence[Message]) -> None:
        """Sends all at once and waits until the broker has them."""
        for message in messages:
            produce(self._producer, message.topic, message.key, message.value, on_delivery=_delivered)
        self.flush()

    def send_poison(self, stream: Stream, good: Message) -> None:
        """Sends what cannot be scored, written when `good` was: a record of now would hold up those of its partition
        behind it until all others of the past are through."""
        written = good.time if self._timed else 0
        for key, value in poison(stream, good).values():
            produce(self._producer, good.topic, key, value, on_delivery=_delivered, time_ms=written)
            self._count += 1
        self.flush()

    def replay(self, events: Sequence[Message], subscriber: ScoreSubscriber, window: int, per_s: float = 0.0) -> float:
        """Sends events, at most `window` of them unanswered, at most `per_s` a second (0: as fast as they are taken).

        Returns:
            Seconds from the first event to the last score.

        Raises:
            TimeoutError: nothing was answered for SILENCE_S_MAX seconds.
        """
        started = time.monotonic()
        for number, event in enumerate(events):
            if per_s:
                while (early := started + number / per_s - time.monotonic()) > 0:
                    self._producer.poll(min(early, 0.01))
            if self._count - subscriber.seen() >= window:
                self._wait(subscriber, self._count - window * 9 // 10)
            written = event.time if self._timed else 0
            produce(self._producer, event.topic, event.key, event.value, on_delivery=_delivered, time_ms=written)
            if event.request_id:
                self.sent[event.request_id] = time.monotonic()
                self._count += 1
        self.flush()
        self._wait(subscriber, self._count)
        return time.monotonic() - started

    def flush(self) -> None:
        left = 0
        for _ in range(FLUSH_S_MAX):
            if not (left := self._producer.flush(1)):
                return
            self._check()
        raise TimeoutError(f"the broker did not take {left} messages in {FLUSH_S_MAX} s")

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


def _delivered(error: KafkaError | None, _: Record) -> None:
    if error is not None:
        raise TrafficError(f"an event was not taken: {error.str()}")
